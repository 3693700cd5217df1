"""The demo: ``python app.py`` serves it on this machine; a Space runs it as it is."""

from space.app import build_app, launch

demo = build_app()

if __name__ == "__main__":
    launch(demo)
