"""Pictures in and out: the only loading, saving, PIL <-> tensor and range conversions.

Whatever comes in (a path, bytes, a PIL picture, an array; grey, palette, alpha, CMYK, 16-bit, rotated by EXIF,
with a colour profile) leaves `load_image` as a plain upright sRGB picture without metadata. Tensors are
[B, 3, H, W] RGB in [-1, 1], float32.
"""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from facestyle.errors import (
    ConfigError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    NotAnImageError,
    OutputError,
)
from facestyle.files import at_home, write_whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "iter_image_files",
    "load_image",
    "save_png",
    "to_pil",
    "to_tensor",
]

_LOG = logging.getLogger(__name__)

#: Files that `iter_image_files` lists.
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".ppm", ".tga",
    ".tif", ".tiff", ".webp",
)  # fmt: skip
#: Larger pictures are refused before they are decoded: one takes 0.5 GB, and Pillow draws the line here too.
MAX_PIXELS = 2 * (1024**3 // 4 // 3)
#: Larger files are refused before they are read: the largest picture with transparency, uncompressed.
MAX_FILE_BYTES = 4 * MAX_PIXELS
#: Pictures with a shorter side are refused: they hold no face.
MIN_SIDE_PX = 32

# No EPS (runs Ghostscript) and no office formats; HEIF where pillow-heif is installed.
_FORMATS = (
    "AVIF",
    "BMP",
    "GIF",
    "HEIF",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PNG",
    "PPM",
    "TGA",
    "TIFF",
    "WEBP",
)
_ADVICE = "expected a JPEG, PNG, WebP, AVIF, TIFF, BMP or GIF picture"


def load_image(
    source: str | os.PathLike[str] | bytes | Image.Image | NDArray[Any],
) -> Image.Image:
    """An upright sRGB picture from a file, bytes, a PIL picture or an array.

    EXIF orientation is applied, an embedded colour profile converted, 16 bits scaled to 8, transparency laid
    on white, and of an animation the first frame taken. The result carries no metadata.

    Args:
        source: path of a file; the bytes of one; a PIL picture; or an array [H, W], [H, W, 1], [H, W, 3] or
            [H, W, 4] of uint8, uint16, or floats from 0 to 1.

    Returns:
        A new PIL picture of mode RGB.

    Raises:
        NotAnImageError: no picture, an unknown format, damaged, truncated or empty.
        ImageTooLargeError: the header claims more than `MAX_PIXELS`, or the file has more than `MAX_FILE_BYTES`;
            nothing was decoded.
        ImageTooSmallError: a side is below `MIN_SIDE_PX`.
        ImageError: no such file, a folder, a URL, or an array of the wrong shape, type or range.

    Example:
        >>> load_image(np.zeros((40, 60), dtype=np.uint8)).size
        (60, 40)
    """
    if isinstance(source, Image.Image):
        return _decoded(source, path=None)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), path=None)
    if not isinstance(source, (str, os.PathLike)):
        raise ImageError(
            "expected a path, the bytes of a picture, a PIL picture or a numpy array, got "
            f"{type(source).__name__}"
        )
    name = os.fspath(source)
    if re.match(r"(?i)(https?|ftp|file|data|s3|gs):", name):
        raise ImageError(
            f"{name[:80]}: addresses are not fetched; download the picture and pass the file or its bytes"
        )
    path = at_home(Path(name))
    return _from_bytes(_read(path), path=path)


def to_tensor(image: Image.Image, *, device: str | torch.device = "cpu") -> Tensor:
    """A picture as [1, 3, H, W] float32 in [-1, 1]; `to_pil` undoes it exactly.

    Args:
        image: picture of mode RGB (others are converted as `load_image` does).
        device: where the tensor goes.

    Returns:
        Tensor in channels_last memory order.
    """
    import torch

    rgb = image if image.mode == "RGB" else load_image(image)
    pixels = torch.from_numpy(np.array(rgb)).to(device)
    return pixels.permute(2, 0, 1)[None].to(torch.float32).mul_(1 / 127.5).sub_(1)


def to_pil(img: Tensor) -> Image.Image:
    """A tensor as a picture: ``((x + 1) * 127.5).round().clamp(0, 255)``.

    Args:
        img: [3, H, W] or [1, 3, H, W] in [-1, 1], any float type, device and memory order.

    Raises:
        ConfigError: another shape, or integers.
    """
    import torch

    if img.ndim == 4 and img.shape[0] == 1:
        img = img[0]
    if img.ndim != 3 or img.shape[0] != 3 or not img.is_floating_point():
        raise ConfigError(
            "expected one picture as floats [3, H, W] or [1, 3, H, W] in [-1, 1], got "
            f"{img.dtype} {list(img.shape)}; pass the pictures of a batch one by one"
        )
    levels = img.detach().to(torch.float32) + 1
    levels = levels.mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def save_png(
    image: Image.Image, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a PNG in one piece or not at all; returns its path.

    Only ``metadata`` goes along, as text chunks: no EXIF, profile or comment of any input. Missing parent
    folders are made.

    Args:
        image: picture to write.
        path: where to, ending in .png.
        metadata: names (1 to 79 Latin-1 characters) and their texts.

    Raises:
        OutputError: it cannot be written there; a file that was there before is untouched.
        ConfigError: a metadata name PNG does not allow.
    """
    target = at_home(Path(path))
    if target.suffix.lower() in IMAGE_SUFFIXES and target.suffix.lower() != ".png":
        raise OutputError(f"pictures are written as PNG; name it {target.stem}.png", path=target)
    info = PngImagePlugin.PngInfo()
    for name, text in (metadata or {}).items():
        if not 1 <= len(name.encode("latin-1", "ignore")) == len(name) <= 79:
            raise ConfigError(f"a PNG text name has 1 to 79 Latin-1 characters, got {name!r}")
        info.add_text(name, str(text))
    bare = image.copy()
    bare.info = {}
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG", pnginfo=info, compress_level=_COMPRESS_LEVEL)
    return write_whole(buffer.getbuffer(), target)


def iter_image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The picture files right inside a folder, by name; hidden ones and subfolders are left out.

    Raises:
        ImageError: there is no such folder.
    """
    path = at_home(Path(folder))
    try:
        return sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix.lower() in IMAGE_SUFFIXES
            and not entry.name.startswith(".")
            and entry.is_file()
        )
    except OSError as exc:
        raise ImageError(f"cannot list the folder: {exc.strerror or exc}", path=path) from exc


# Three to four times as fast as Pillow's default 6; files of photos are a tenth larger.
_COMPRESS_LEVEL = 2


def _read(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        ImageTooLargeError: it has more than `MAX_FILE_BYTES`, or does not fit into memory.
        ImageError: it cannot be read.
    """
    try:
        if path.is_dir():
            raise ImageError(
                "is a folder; pass a picture file (facestyle.image.iter_image_files lists them)",
                path=path,
            )
        size = path.stat().st_size
        at_once, read, pieces = max(size, 1 << 20), 0, []
        try:
            with path.open("rb") as file:
                # A pipe or a device says that it has 0 bytes.
                while size <= MAX_FILE_BYTES and (piece := file.read(at_once)):
                    pieces.append(piece)
                    read += len(piece)
                    size = max(size, read)
            if size > MAX_FILE_BYTES:
                most = f"at most {MAX_FILE_BYTES / 1e6:,.0f} MB are read"
                raise _too_large_file(most, size, path)
            return b"".join(pieces)
        except MemoryError as exc:
            raise _too_large_file("it does not fit into memory", size, path) from exc
    except FileNotFoundError as exc:
        raise ImageError("no such file; check the name and the current folder", path=path) from exc
    except ImageError:
        raise
    except (OSError, ValueError) as exc:  # ValueError: a null byte in the name
        raise ImageError(
            f"cannot be read: {getattr(exc, 'strerror', None) or exc}", path=path
        ) from exc


def _from_bytes(data: bytes, path: Path | None) -> Image.Image:
    """Decode the bytes of a file, after a look at its header."""
    if not data:
        raise NotAnImageError("the file is empty (0 bytes)", path=path)
    Image.init()  # all plugins; does nothing the second time
    _register_heif()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS decides
            image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as exc:
        raise _too_large("its header claims too many pixels", path) from exc
    except UnidentifiedImageError as exc:
        hint = _ADVICE
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim"):
            hint = "this is a HEIC photo; save it as JPEG, or pip install pillow-heif"
        raise NotAnImageError(f"not a picture facestyle can read; {hint}", path=path) from exc
    except Exception as exc:  # decoders raise nearly anything on damaged headers
        raise NotAnImageError(f"damaged picture ({exc}); {_ADVICE}", path=path) from exc
    with image:
        return _decoded(image, path)


@lru_cache(maxsize=1)
def _register_heif() -> None:
    """Let Pillow read HEIC photos where pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _decoded(image: Image.Image, path: Path | None) -> Image.Image:
    """An opened picture, decoded, upright, in sRGB, without metadata."""
    _check_size(image.width, image.height, path)
    try:
        image.load()
    except MemoryError as exc:
        raise _too_large(
            f"{image.width} x {image.height} pixels do not fit into memory", path
        ) from exc
    except Exception as exc:  # decoders raise nearly anything on damaged data
        raise NotAnImageError(
            f"the picture is damaged or truncated ({exc}); copy or download it again", path=path
        ) from exc
    upright = _upright(image)
    plain = _to_srgb(upright)
    if plain is image:
        plain = image.copy()
    plain.info = {}
    return plain


def _check_size(width: int, height: int, path: Path | None) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width} x {height} is {width * height / 1e6:.0f} million pixels", path)
    if min(width, height) < MIN_SIDE_PX:
        raise ImageTooSmallError(
            f"expected at least {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels, got {width} x {height}",
            path=path,
        )


def _too_large(what: str, path: Path | None) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{what}; at most {MAX_PIXELS / 1e6:.0f} million are decoded: reduce the picture first",
        path=path,
    )


def _too_large_file(why: str, size: int, path: Path) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"the file has {size / 1e6:,.0f} MB, and {why}: reduce the picture first", path=path
    )


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as exc:  # damaged EXIF; the picture itself is fine
        _LOG.warning("unreadable EXIF data ignored: %s", exc)
        return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, through the embedded profile where there is one."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        image = _grey_to_8_bit(image)
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = _on_white(image)
    if image.mode == "1":
        image = image.convert("L")
    if profile:
        image = _through_profile(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Palette and transparency resolved: what is clear becomes white."""
    if image.mode == "P" and not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # which Pillow turns into nothing else
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    if np.asarray(rgba.getchannel("A")).min() == 255:
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey scaled to 8 bits, never clipped.

    16-bit files span 0 to 65535. Files of 32 bits or floats name no white: 1, 255 or 65535, whichever is
    the first to hold all values, else the maximum.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0.0, neginf=0.0)
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        top = float(values.max())
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        white = next((w for w in whites if top <= w), top)
    info = image.info
    grey = Image.fromarray((values * (255.0 / white)).round().clip(0, 255).astype(np.uint8))
    grey.info = {key: info[key] for key in ("icc_profile",) if key in info}
    return grey


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture in sRGB; unchanged if the profile is sRGB, damaged, or of another kind of picture."""
    try:
        transform = _profile_transform(profile, image.mode)
        if transform is None:
            return image
        from PIL import ImageCms

        return ImageCms.applyTransform(image, transform) or image
    except Exception as exc:  # a damaged profile, or Pillow built without LittleCMS
        _LOG.warning("colour profile ignored: %s", exc)
        return image


@lru_cache(maxsize=8)
def _profile_transform(profile: bytes, mode: str) -> Any:
    """LittleCMS's transform from a profile to sRGB, or None if there is nothing to do."""
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) != mode:
        _LOG.warning("colour profile for %s ignored in a picture of mode %s", space, mode)
        return None
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
        # Linear ones are called sRGB too; a dark grey, moved by 3 levels at a gamma of 2.2, tells them.
        grey = ImageCms.applyTransform(Image.new("RGB", (1, 1), (55, 55, 55)), transform)
        if np.abs(np.asarray(grey, np.int16) - 55).max() <= 3:
            return None
    return transform


def _from_array(array: NDArray[Any]) -> Image.Image:
    """An array as a picture, after checks of shape, type and range."""
    shape = list(array.shape)
    expected = "expected an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; channels come last: use array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "; pass the pictures of a batch one by one"
        raise ImageError(f"{expected}, got {shape}{hint}")
    _check_size(array.shape[1], array.shape[0], None)
    if array.dtype == np.uint8:
        pixels = array
    elif array.dtype.newbyteorder("=") == np.uint16:
        pixels = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype.kind == "f":
        pixels = _from_floats(array)
    else:
        raise ImageError(
            f"expected an array of uint8, uint16 or floats from 0 to 1, got {array.dtype}"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _decoded(Image.fromarray(np.ascontiguousarray(pixels)), path=None)


def _from_floats(array: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max carry NaN through
        raise ImageError("the array holds NaN or infinite values; expected floats from 0 to 1")
    if low < -1e-3 or high > 1 + 1e-3:
        hint = "divide levels from 0 to 255 by 255" if low >= 0 else "map [-1, 1] by (x + 1) / 2"
        raise ImageError(f"expected floats from 0 to 1, got {low:.4g} to {high:.4g}; {hint}")
    levels: NDArray[np.uint8] = (
        (array.astype(np.float32) * 255).round().clip(0, 255).astype(np.uint8)
    )
    return levels
