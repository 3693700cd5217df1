"""Pictures on their way to the browser: lossless files that Gradio serves, deleted within the hour.

Gradio's own schedule forgets files of components that were updated without a value before, so these are not left to it.
"""

from __future__ import annotations

import atexit
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gradio.utils import get_upload_folder
from PIL import Image

from facestyle import StylizeResult, Variation
from facestyle.faces.detect import Face
from facestyle.image import save_png
from space.kept import PICTURES_S, Kept

__all__ = ["before_after", "delete_later", "faces_drawn", "new_file", "save"]

_SHOWN_PX = 1600
"""Longest side of a full photo on the page; the download is not made smaller."""

_FACES_PX = 720
_CHOSEN, _LEFT_OUT = (15, 118, 110), (120, 113, 108)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


_made: Kept[Path] = Kept(whole_s=PICTURES_S, let_go=_delete)
atexit.register(_made.drop, lambda path: True)


def new_file(name: str) -> Path:
    """A path where nobody else's file lies, in the folder that Gradio serves; it is deleted within the hour."""
    folder = Path(get_upload_folder()) / secrets.token_hex(16)
    folder.mkdir(parents=True)
    delete_later(folder)
    return folder / name


def delete_later(path: Path) -> None:
    """Delete a file or folder within the hour, and when the process ends."""
    _made.put(path, path)


def save(image: Image.Image, name: str, metadata: Mapping[str, str] | None = None) -> str:
    """Path of a new PNG."""
    return str(save_png(image, new_file(f"{name}.png"), metadata))


def before_after(
    result: StylizeResult | Variation, name: str, *, full: bool = False
) -> tuple[str, str, str]:
    """Files before, after, and for download: of the largest chosen face, or of the full photo."""
    if not full:
        face = result.faces[0]
        after = save(face.portrait, name, result.metadata())
        return save(face.crop, "photo"), after, after
    download = save(result.image, name, result.metadata())
    scale = _SHOWN_PX / max(result.photo.size)
    if scale >= 1:
        return save(result.photo, "photo"), download, download
    photo, image = (_scaled(picture, scale) for picture in (result.photo, result.image))
    return save(photo, "photo"), save(image, name), download


def faces_drawn(
    photo: Image.Image, faces: Sequence[Face | None], chosen: Sequence[int]
) -> tuple[Image.Image, float]:
    """The photo with a numbered box around every face, and its scale."""
    from PIL import ImageDraw, ImageFont

    scale = min(1.0, _FACES_PX / max(photo.size))
    shown = _scaled(photo, scale)
    draw = ImageDraw.Draw(shown)
    font = ImageFont.load_default(size=22)
    for i, face in enumerate(faces):
        if face is None:
            continue
        left, upper, right, lower = (round(value * scale) for value in face.box)
        color = _CHOSEN if i in chosen else _LEFT_OUT
        draw.rounded_rectangle((left, upper, right, lower), 8, outline=color, width=4)
        if i not in chosen:
            draw.line((left + 6, lower - 6, right - 6, upper + 6), fill=color, width=4)
        draw.rounded_rectangle((left, upper, left + 30, upper + 30), 8, fill=color)
        draw.text((left + 15, upper + 15), str(i + 1), "white", font, anchor="mm")
    return shown, scale


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    if scale >= 1:
        return image.copy()
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
