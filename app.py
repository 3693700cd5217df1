"""The demo: ``python app.py`` serves it on this machine; a Space runs it as it is."""

import signal

from space.app import build_app, launch

demo = build_app()

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl+C does
    launch(demo)
