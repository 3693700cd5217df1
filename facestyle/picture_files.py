"""Pictures of a folder or a zip, in a fixed order: the one reader for training and for measuring.

Folders are searched to the bottom; hidden files and the Mac's ``__MACOSX`` are passed over; no file of over
64 MB, once unpacked, is read.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from facestyle.errors import DatasetError, ImageError
from facestyle.image import IMAGE_SUFFIXES, load_image

__all__ = ["PictureFile", "iter_images", "iter_picture_files", "no_pictures", "read_images"]

log = logging.getLogger(__name__)

MAX_MEMBER_BYTES = 64 * 2**20  # one picture's file, unpacked


class PictureFile(NamedTuple):
    """A file that should hold a picture, by its name.

    Attributes:
        name: path inside the folder or zip, with forward slashes.
        read: gives the bytes as they are stored, as long as the iteration that made this goes on. Raises
            ImageError where they cannot be had.
    """

    name: str
    read: Callable[[], bytes]


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
    count = broken = 0
    for name, read in iter_picture_files(path):
        if count == limit:
            return
        try:
            image = load_image(read())
        except ImageError as error:
            broken += 1
            log.warning("%s: %s skipped: %s", path, name, error)
            continue
        count += 1
        yield name, image
    if count == 0:
        raise no_pictures(path, broken)


def iter_picture_files(path: str | Path) -> Iterator[PictureFile]:
    """The files of a folder or zip whose names end like a picture's, sorted by name; none is read yet.

    Raises:
        DatasetError: there is no such folder or zip, or it cannot be listed.
    """
    path = Path(path)
    if path.is_dir():
        for name in _listed(path):
            if _is_picture(name) and (path / name).is_file():
                yield PictureFile(name, lambda name=name: _read_file(path / name))  # type: ignore[misc]
        return
    with _opened(path) as archive:
        infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        for name in sorted(infos):
            if _is_picture(name):
                info = infos[name]
                yield PictureFile(name, lambda info=info: _read_member(archive, info))  # type: ignore[misc]


def no_pictures(path: str | Path, broken: int = 0) -> DatasetError:
    """The error for a folder or zip in which no picture can be used, with what it holds instead.

    Args:
        path: the folder or zip.
        broken: files in it that are named like pictures and are none.
    """
    path = Path(path)
    wanted = f"put {', '.join(IMAGE_SUFFIXES)} files there"
    if broken:
        return DatasetError(
            f"no pictures can be read: all {broken} pictures are broken; {wanted}", path=path
        )
    if path.is_dir():
        names = [name for name in _listed(path) if (path / name).is_file()]
    else:
        with _opened(path) as archive:
            names = archive.namelist()
    endings = Counter(Path(name).suffix.lower() for name in names if not _is_hidden(name))
    endings.pop("", None)
    if not endings:
        return DatasetError(f"no pictures in it; {wanted}", path=path)
    ending, count = endings.most_common(1)[0]
    held = f"but {count} {ending} file{'s' if count > 1 else ''}"
    if ending == ".zip":
        wanted = "name the zip itself, or unpack it"
    return DatasetError(f"no pictures in it, {held}; {wanted}", path=path)


_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def _listed(path: Path) -> list[str]:
    try:
        next(path.iterdir(), None)  # rglob passes over what it may not read
        return sorted(p.relative_to(path).as_posix() for p in path.rglob("*"))
    except OSError as error:
        raise DatasetError(f"cannot be listed ({error.strerror})", path=path) from error


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DatasetError("no such folder or zip file", path=path) from error
    except (OSError, *_ZIP_ERRORS) as error:
        raise DatasetError(
            f"is no folder and cannot be read as a zip ({error})", path=path
        ) from error


def _is_picture(name: str) -> bool:
    return not _is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in Path(name).parts)


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise ImageError(f"more than {MAX_MEMBER_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(
            info
        ) as file:  # the header's size may lie: never unpack more than the limit
            data = file.read(MAX_MEMBER_BYTES + 1)
    except (OSError, RuntimeError, ValueError, *_ZIP_ERRORS) as error:  # RuntimeError: encrypted
        raise ImageError(f"cannot be read ({error})") from error
    if len(data) > MAX_MEMBER_BYTES:
        raise ImageError(f"more than {MAX_MEMBER_BYTES:,} bytes once unpacked")
    return data
