"""Writing a file in one piece, finding it, and knowing it again."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from functools import partial
from pathlib import Path

from facestyle.errors import OutputError

__all__ = ["at_home", "beside", "file_sha256", "keep_mode", "write_whole"]


def at_home(path: Path) -> Path:
    """The path, with the user's folder for a leading ``~``; ``~name`` is a file's name, not another user's folder."""
    return Path(os.path.expanduser(path)) if path.parts[:1] == ("~",) else path


def beside(path: Path, suffix: str) -> Path:
    """A path that nobody else has in the same folder, for what is to become ``path``."""
    # 40 characters are 160 bytes at most; a name may have 255.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}{suffix}")


def keep_mode(temporary: Path, path: Path, mode: int | None = None) -> None:
    """Give a file the permissions of the one that it is to replace; where there is none, ``mode``, if that is given."""
    with contextlib.suppress(OSError):
        if path.exists():
            mode = path.stat().st_mode
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))


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
        temporary = beside(path, ".tmp")
        with temporary.open("xb") as file:
            file.write(data)
        keep_mode(temporary, path)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError, ValueError):
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
