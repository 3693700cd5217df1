"""Other methods behind one interface, to compare with: see :mod:`facestyle.baselines.base`.

Nothing is imported here, so that the command line can list the methods without loading torch.
"""
