"""A Space in one folder, ready to be uploaded: ``python -m space.assemble -o FOLDER``.

The package comes along with its weights, so that the Space needs nothing that is not on PyPI.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from facestyle.errors import FacestyleError, OutputError

__all__ = ["assemble"]

_ROOT = Path(__file__).resolve().parent.parent
_FILES = {
    "app.py": "app.py",
    "space/README.md": "README.md",
    "space/requirements.txt": "requirements.txt",
    "LICENSE": "LICENSE",
    "NOTICE": "NOTICE",
}
_FOLDERS = ("space", "facestyle")
_LEFT_OUT = ("__pycache__", "*.pyc", ".*")


def assemble(out: str | Path) -> Path:
    """The folder, once it holds all files of the Space; nothing is left of it where that fails.

    Args:
        out: a folder that is empty or not there yet.

    Raises:
        OutputError: it holds something, or cannot be written.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("it is there and not empty; name a new folder", path=out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
            folder = Path(made) / "space"
            for name in _FOLDERS:
                shutil.copytree(
                    _ROOT / name, folder / name, ignore=shutil.ignore_patterns(*_LEFT_OUT)
                )
            for source, name in _FILES.items():
                shutil.copyfile(_ROOT / source, folder / name)
            folder.replace(out)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", path=out) from error
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code, 1 where nothing was written."""
    parser = argparse.ArgumentParser(description="put a Space together in one folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    args = parser.parse_args(argv)
    try:
        out = assemble(args.output)
    except FacestyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 2**20:.0f} MiB. To publish it:")
    print("  hf repos create USER/NAME --type space --sdk gradio --exist-ok")
    print(f"  hf upload USER/NAME {out} . --type space")
    return 0


if __name__ == "__main__":
    sys.exit(main())
