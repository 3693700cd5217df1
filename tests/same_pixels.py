"""Whether two pictures are the same to the eye."""

import numpy as np


def same_pixels(given: bytes, wanted: bytes) -> bool:
    """But for the rounding of faces that were encoded together or one by one."""
    if len(given) != len(wanted):
        return False
    ours, theirs = (np.frombuffer(part, np.uint8).astype(int) for part in (given, wanted))
    return int(np.abs(ours - theirs).max()) <= 2
