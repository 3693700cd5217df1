"""Writing a file in one piece, and knowing it again."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from functools import partial
from pathlib import Path

from facestyle.errors import OutputError

__all__ = ["file_sha256", "write_whole"]


def write_whole(data: bytes | memoryview, path: Path) -> Path:
    """The path, once it holds all of ``data``; its folder is made.

    The bytes go to a file of their own beside it, which is then renamed: readers see the file before or the file
    after, also where several processes write it at once.

    Raises:
        OutputError: the folder cannot be made or written; a file that was there before is untouched.
    """
    temporary = None
    try:
        if path.is_dir():
            raise OSError(errno.EISDIR, "it is a folder; name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError | ValueError):  # ValueError: a null byte in the name
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"cannot be written: {reason}", path=path) from error
        raise
    return path


def file_sha256(path: Path) -> str:
    """Of a file's bytes, which are read piece by piece; `OSError` where they cannot be."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(partial(file.read, 1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()
