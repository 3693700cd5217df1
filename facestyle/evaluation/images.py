"""Pictures of a folder or a zip, in a fixed order, for training and for measuring."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from facestyle.errors import DatasetError, ImageError
from facestyle.image import IMAGE_SUFFIXES, load_image

__all__ = ["iter_images", "read_images"]

log = logging.getLogger(__name__)

MAX_MEMBER_BYTES = 64 * 2**20  # one picture's file, unpacked

_Read = Callable[[], bytes]


def read_images(path: str | Path, limit: int | None = None) -> list[tuple[str, Image.Image]]:
    """Names and RGB pictures of a folder (searched to the bottom) or a zip, sorted by name.

    Each is read as :func:`facestyle.image.load_image` reads it. A member that this refuses, or of over
    64 MB, is logged and skipped.

    Args:
        path: the folder or zip file.
        limit: at most this many pictures, the first ones; None: all.

    Raises:
        DatasetError: there is no such folder or zip, the zip is broken, or no picture is usable.
    """
    return list(iter_images(path, limit))


def iter_images(path: str | Path, limit: int | None = None) -> Iterator[tuple[str, Image.Image]]:
    """Like :func:`read_images`, with one picture in memory at a time."""
    path = Path(path)
    if limit is not None and limit < 1:
        raise DatasetError(f"limit must be 1 or more, got {limit}", path=path)
    count = skipped = 0
    for name, read in _members(path):
        if count == limit:
            return
        try:
            image = load_image(read())
        except (ImageError, OSError, ValueError, RuntimeError, *_ZIP_ERRORS) as error:
            skipped += 1
            log.warning("%s: %s skipped: %s", path, name, error)
            continue
        count += 1
        yield name, image
    if count == 0:
        found = f"all {skipped} pictures are broken" if skipped else "no pictures in it"
        raise DatasetError(f"{found}; put {', '.join(IMAGE_SUFFIXES)} files there", path=path)


_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def _members(path: Path) -> Iterator[tuple[str, _Read]]:
    if path.is_dir():
        for name in sorted(p.relative_to(path).as_posix() for p in path.rglob("*")):
            if _is_picture(name) and (path / name).is_file():
                yield name, lambda name=name: _read_file(path / name)  # type: ignore[misc]
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DatasetError("no such folder or zip file", path=path) from error
    except (OSError, *_ZIP_ERRORS) as error:
        raise DatasetError(
            f"is no folder and cannot be read as a zip ({error})", path=path
        ) from error
    with archive:
        infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        for name in sorted(infos):
            if _is_picture(name):
                info = infos[name]
                yield name, lambda info=info: _read_member(archive, info)  # type: ignore[misc]


def _is_picture(name: str) -> bool:
    parts = Path(name).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > MAX_MEMBER_BYTES:
        raise ValueError(f"more than {MAX_MEMBER_BYTES:,} bytes")
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:  # the header's size may lie: never unpack more than the limit
        data = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise ValueError(f"more than {MAX_MEMBER_BYTES:,} bytes once unpacked")
    return data
