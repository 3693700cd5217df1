"""Many portraits of one photo: style codes drawn at random, and what comes of them (paper section 3.3, multimodal)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from facestyle.errors import ConfigError
from facestyle.latents import broadcast, truncate
from facestyle.models.generator import Generator
from facestyle.results import StylizedFace, paste_all, png_metadata
from facestyle.seeds import check_seed

__all__ = ["RANDOM_PSI", "Latent", "Variation", "Variations", "sample_styles"]

Latent = Literal["z+", "z"]
"""Where style codes are drawn: one z for every row, or one z for all rows."""

RANDOM_PSI = 0.8
"""Truncation of random codes where nobody says another: they go further than those of photos, and blotch beyond it."""


def sample_styles(
    generator: Generator, count: int, seed: int, *, latent: Latent = "z+", psi: float = 1.0
) -> list[Tensor]:
    """``count`` style codes [num_ws, w_dim] of one seed, through the mapping network, truncated.

    z is drawn on the CPU, so that a seed means the same codes on every machine; the first of several codes is the one
    that ``count=1`` gives.

    Args:
        generator: whose mapping network is taken.
        count: of codes.
        seed: of the random numbers.
        latent: see `Latent`.
        psi: truncation; 0 is the mean of W.

    Raises:
        ConfigError: ``latent`` is unknown, or the seed is not a whole number from 0 to 2^63 - 1.
    """
    if latent not in get_args(Latent):
        raise ConfigError(f'latent must be "z+" or "z", got {latent!r}')
    rng = torch.Generator().manual_seed(check_seed(seed))
    rows = generator.num_ws if latent == "z+" else 1
    codes = []
    for _ in range(count):
        z = torch.randn(rows, generator.w_dim, generator=rng).to(generator.w_avg.device)
        with torch.no_grad():
            w = truncate(generator.mapping(z), generator.w_avg, psi)
        codes.append(broadcast(w, generator.num_ws)[0] if rows == 1 else w)
    return codes


@dataclass(frozen=True)
class Variation:
    """One of several portraits of a photo, with `image`, `faces` and `metadata()` as a `StylizeResult` has.

    Attributes:
        photo: the photo as it was read, upright, RGB.
        faces: largest first, or in the order asked for; empty when there was none and ``on_no_face="skip"``.
        settings: what it was made with, its own seed among them; goes into the PNG's metadata.
        is_aligned: the photo was passed as an aligned square.
        left_out: [4, 2] each, the squares of faces that were found and not drawn.
    """

    photo: Image.Image = field(repr=False)
    faces: list[StylizedFace]
    settings: dict[str, Any]
    is_aligned: bool
    left_out: list[NDArray[np.float64]] = field(default_factory=list, repr=False)

    @property
    def seed(self) -> int:
        """The seed that gives this portrait alone, as the first of its kind."""
        seed = self.settings["seed"]
        assert isinstance(seed, int)
        return seed

    @property
    def image(self) -> Image.Image:
        """The full photo with every chosen face stylized; the portrait itself for an aligned input.

        It is pasted each time it is asked for and not kept: dozens of large photos would not fit into memory.
        """
        return paste_all(self.photo, self.faces, is_aligned=self.is_aligned, left_out=self.left_out)

    def metadata(self) -> dict[str, str]:
        """Text chunks for the PNG: style, settings and version, nothing about the photo."""
        return png_metadata(self.settings)


@dataclass(frozen=True)
class Variations:
    """Portraits of one photo that differ in style; a sequence of `Variation`.

    Attributes:
        results: one for each seed, in order.
        seconds: by stage, for all of them together.
    """

    results: list[Variation]
    seconds: dict[str, float]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Variation]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Variation:
        return self.results[index]

    def grid(self, columns: int | None = None, *, cell_px: int = 256) -> Image.Image:
        """All portraits on one picture, row by row; the whole photos where these hold several faces, or none.

        Args:
            columns: in a row; None makes it a little wider than high.
            cell_px: side of a cell.

        Raises:
            ConfigError: ``columns`` is below 1.
        """
        from facestyle.evaluation.sheets import contact_sheet

        if columns is None:
            columns = _columns(len(self))
        if columns < 1:
            raise ConfigError(f"columns must be 1 or more, got {columns}")
        pictures = [one.faces[0].portrait if len(one.faces) == 1 else one.image for one in self]
        rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
        return contact_sheet(rows, cell_px=cell_px)


def _columns(count: int) -> int:
    """Columns of a grid without empty cells if one at most three times as wide as high exists, else of a square one."""
    least = math.isqrt(count - 1) + 1
    full = next(columns for columns in range(least, count + 1) if count % columns == 0)
    return full if full**2 <= 3 * count else least
