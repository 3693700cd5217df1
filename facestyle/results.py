"""What stylizing gives back: faces, photos, and what the PNG says about them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from facestyle import __version__
from facestyle.errors import ConfigError
from facestyle.faces.align import align, quad_side_px
from facestyle.faces.detect import Face
from facestyle.faces.paste import paste
from facestyle.image import save_png

__all__ = ["StylizeResult", "StylizedFace", "paste_all", "png_metadata"]


@dataclass(frozen=True)
class StylizedFace:
    """One face of a photo and what became of it.

    Attributes:
        portrait: the stylized portrait, 1024 x 1024.
        w: [512], the face's code, of the encoder or after ``refine``, before truncation; the mean over rows where these
            differ.
        w_plus: [num_ws, 512], the code that was drawn.
        quad: [4, 2], corners of the aligned square in photo pixels: upper left, lower left, lower right, upper right.
        face: the detection; None for a photo that was passed as aligned or centre-cropped.
        photo: the photo it was found in.
    """

    portrait: Image.Image
    w: Tensor
    w_plus: Tensor
    quad: NDArray[np.float64]
    face: Face | None
    photo: Image.Image = field(repr=False)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, upper, right, lower in photo pixels; of the whole square when nothing was detected."""
        if self.face is not None:
            return self.face.box
        (left, upper), (right, lower) = self.quad.min(0), self.quad.max(0)
        return float(left), float(upper), float(right), float(lower)

    @cached_property
    def crop(self) -> Image.Image:
        """The aligned photo at the portrait's size, for before and after."""
        return align(self.photo, self.quad, self.portrait.width)


@dataclass(frozen=True)
class StylizeResult:
    """A stylized photo and everything on the way to it.

    Attributes:
        image: the full photo with every chosen face stylized; the portrait itself for an aligned input.
        photo: the photo as it was read, upright, RGB.
        faces: largest first, or in the order asked for; empty when there was none and ``on_no_face="skip"``.
        seconds: by stage: "load", "detect", "align", "encode", "refine", "synthesize", "paste".
        settings: what it was made with; goes into the PNG's metadata.
    """

    image: Image.Image
    photo: Image.Image = field(repr=False)
    faces: list[StylizedFace]
    seconds: dict[str, float]
    settings: dict[str, Any]

    def metadata(self) -> dict[str, str]:
        """Text chunks for the PNG: style, settings and version, nothing about the photo."""
        return png_metadata(self.settings)

    def save(self, path: str | os.PathLike[str], *, face: int | None = None) -> Path:
        """Write the photo as a PNG, whole or not at all, that says what it was made with; its path.

        Args:
            path: where to, ending in .png.
            face: number of a face whose portrait is written in place of the photo.

        Raises:
            ConfigError: there is no such face.
            OutputError: it cannot be written there.
        """
        if face is None:
            return save_png(self.image, path, self.metadata())
        if not 0 <= face < len(self.faces):
            raise ConfigError(
                f"there is no face {face}; {len(self.faces)} were drawn, numbered from 0"
            )
        return save_png(self.faces[face].portrait, path, self.metadata())


def png_metadata(settings: dict[str, Any]) -> dict[str, str]:
    """Text chunks that say what a picture was made with."""
    return {
        "Software": f"facestyle {__version__}",
        "facestyle": ", ".join(f"{key}={value}" for key, value in settings.items()),
    }


def paste_all(
    photo: Image.Image,
    faces: Sequence[StylizedFace],
    *,
    is_aligned: bool,
    left_out: Sequence[NDArray[np.float64]] = (),
) -> Image.Image:
    """The photo with every portrait in its place, far (small) ones first; the portrait of an aligned photo.

    None reaches over the face of another, nor over one that is ``left_out``, a quad each.
    """
    if is_aligned:
        return faces[0].portrait
    image, others = photo, list(left_out)
    for face in sorted(faces, key=lambda item: quad_side_px(item.quad)):
        image = paste(image, face.portrait, face.quad, others=others)
        others.append(face.quad)
    return image
