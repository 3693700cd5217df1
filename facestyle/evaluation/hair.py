"""Hair's colour, and how far a style moves it: the place around a forehead, where most people have hair.

Convention: faces are FFHQ-aligned squares; colours are CIELAB under D65 from 8-bit sRGB.

Nobody's hair is found: the place is the same for everybody. Of the bald it is skin, beside short hair it is ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from facestyle.evaluation.skin import refuse_unaligned, srgb_to_lab

__all__ = ["HairDrift", "hair_drift", "hair_place"]

CELLS = 32
"""Cells a side; a strand is narrower than one, a head of hair is 12 wide."""

_HEAD = (0.5, 0.5, 0.4, 0.46)
_FACE = (0.5, 0.635, 0.28, 0.34)
"""Ellipses, (x, y, half width, half height) in shares of the aligned square: hair lies in the first, not the second."""
_LOWEST = 0.6
"""Below it lie chins, necks and collars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HairDrift:
    """How the colours around a forehead changed from one picture to another.

    Attributes:
        delta_l: mean L* after minus before; negative is darker.
        delta_e: mean CIE76 distance of cells of a 32nd of the side, >= 0; shapes that moved count too.
    """

    delta_l: float
    delta_e: float


def hair_place() -> npt.NDArray[np.bool_]:
    """[32, 32], True where most people have hair."""
    at = (np.arange(CELLS) + 0.5) / CELLS

    def within(
        middle_x: float, middle_y: float, width: float, height: float
    ) -> npt.NDArray[np.bool_]:
        across, down = ((at - middle_x) / width) ** 2, ((at - middle_y) / height) ** 2
        inside: npt.NDArray[np.bool_] = across[None, :] + down[:, None] < 1
        return inside

    return within(*_HEAD) & ~within(*_FACE) & (at[:, None] < _LOWEST)


def hair_drift(before: Image.Image, after: Image.Image) -> HairDrift:
    """Change of hair's colours from one aligned face to another; the sizes may differ.

    Raises:
        ImageError: one of them is no square, or under 64 px.
    """
    a, b = _colors(before), _colors(after)
    return HairDrift(
        delta_l=float((b - a)[:, 0].mean()),
        delta_e=float(np.linalg.norm(b - a, axis=1).mean()),
    )


def _colors(image: Image.Image) -> npt.NDArray[np.float64]:
    """[N, 3], CIELAB of each cell where hair is."""
    refuse_unaligned(image)
    small = image.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX)
    return srgb_to_lab(np.asarray(small))[hair_place()]
