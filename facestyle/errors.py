"""The whole error tree. Every message says what was required, what came, and what to do.

::

    FacestyleError
    ├── ConfigError(ValueError)          a setting is out of range or unknown, or a training diverged
    ├── ImageError(ValueError)           .path   the input picture cannot be used
    │   ├── NotAnImageError              not a picture, truncated, 0 bytes
    │   ├── ImageTooLargeError           decompression bomb
    │   ├── ImageTooSmallError           too few pixels to hold a face
    │   ├── NoFaceError                  .image_size
    │   └── FaceTooSmallError            .face_px
    ├── LatentShapeError(ValueError)
    ├── StyleNotFoundError(LookupError)  .name .available
    ├── CheckpointError                  .path .missing .unexpected
    ├── DeviceMemoryError(MemoryError)   the networks or their pictures do not fit into memory
    ├── DownloadError(ConnectionError)   a package or Hub repository could not be had
    ├── MissingDependencyError(ImportError)  an optional package is not installed
    ├── DatasetError(ValueError)         .path   a folder or zip of training pictures cannot be used
    ├── UploadError(ConnectionError)     a style could not be uploaded to the Hub
    └── OutputError(OSError)             .path   the result cannot be written
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "DeviceMemoryError",
    "DownloadError",
    "FaceTooSmallError",
    "FacestyleError",
    "ImageError",
    "ImageTooLargeError",
    "ImageTooSmallError",
    "LatentShapeError",
    "MissingDependencyError",
    "NoFaceError",
    "NotAnImageError",
    "OutputError",
    "StyleNotFoundError",
    "UploadError",
    "memory_named",
    "ran_out",
    "too_little_memory",
]


class FacestyleError(Exception):
    """Base of every error facestyle raises on purpose; the command line prints it as one line."""


class ConfigError(FacestyleError, ValueError):
    """A setting is out of range, unknown, or contradicts another."""


class ImageError(FacestyleError, ValueError):
    """An input picture cannot be used.

    Attributes:
        path: the file it came from, or None for pictures given in memory.
    """

    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        super().__init__(message if path is None else f"{path}: {message}")


class NotAnImageError(ImageError):
    """The bytes are no picture: another file type, truncated, or empty."""


class ImageTooLargeError(ImageError):
    """The picture's header claims more pixels than facestyle will decode, or its file more bytes than it will read."""


class ImageTooSmallError(ImageError):
    """The picture has too few pixels to hold a usable face."""


class NoFaceError(ImageError):
    """No face was found.

    Attributes:
        image_size: (width, height) in pixels of the picture that was searched.
    """

    def __init__(
        self, message: str, *, image_size: tuple[int, int], path: str | Path | None = None
    ) -> None:
        self.image_size = image_size
        super().__init__(message, path=path)


class FaceTooSmallError(ImageError):
    """Faces were found, but all are too small to stylize.

    Attributes:
        face_px: side in pixels of the largest face's aligned square.
    """

    def __init__(self, message: str, *, face_px: float, path: str | Path | None = None) -> None:
        self.face_px = face_px
        super().__init__(message, path=path)


class LatentShapeError(FacestyleError, ValueError):
    """A latent code does not fit the generator."""


class StyleNotFoundError(FacestyleError, LookupError):
    """No style goes by this name.

    Attributes:
        name: what was asked for.
        available: the bundled names.
    """

    def __init__(self, message: str, *, name: str, available: Sequence[str]) -> None:
        self.name = name
        self.available = tuple(available)
        super().__init__(message)


class CheckpointError(FacestyleError):
    """A weights file is damaged or is not what its name says.

    Attributes:
        path: the file, or None.
        missing: tensor names that should be there and are not.
        unexpected: tensor names that should not be there.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
    ) -> None:
        self.path = None if path is None else Path(path)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        super().__init__(message if path is None else f"{path}: {message}")


class DeviceMemoryError(FacestyleError, MemoryError):
    """The networks, or what they compute, do not fit into the device's memory; the message says what takes less."""


class DownloadError(FacestyleError, ConnectionError):
    """A package or a Hub repository could not be fetched."""


class UploadError(FacestyleError, ConnectionError):
    """A style could not be uploaded to the Hub; the message holds the command that goes on."""


class MissingDependencyError(FacestyleError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class DatasetError(FacestyleError, ValueError):
    """A folder or zip of training pictures cannot be used.

    Attributes:
        path: the folder or file, or None.
    """

    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        super().__init__(message if path is None else f"{path}: {message}")


class OutputError(FacestyleError, OSError):
    """A result could not be written; nothing half-written is left behind.

    Attributes:
        path: where it should have gone.
    """

    def __init__(self, message: str, *, path: str | Path) -> None:
        self.path = Path(path)
        super().__init__(f"{path}: {message}")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of Python, torch on a CPU, or CUDA."""
    said = r"out of memory|can't allocate memory|not enough memory|STATUS_ALLOC_FAILED"
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or bool(re.search(said, str(error)))
    )


def too_little_memory(what: str, error: BaseException) -> DeviceMemoryError:
    """The named error for it."""
    if isinstance(error, DeviceMemoryError):
        return error
    why = next(iter(str(error).splitlines()), "no details")
    return DeviceMemoryError(
        f"{what} took more memory than there is ({why}); use a smaller photo or batch, fewer pictures at a time, "
        "another device, or a machine with more"
    )


@contextlib.contextmanager
def memory_named(what: str) -> Iterator[None]:
    """A context that gives memory that ran out its name.

    Raises:
        DeviceMemoryError: memory ran out, of Python, torch on a CPU, or CUDA.
    """
    try:
        yield
    except DeviceMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise too_little_memory(what, error) from error
