"""A photo on which the slow half is done: what a slider that is moved need not do again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from facestyle.errors import ConfigError
from facestyle.faces.detect import Face
from facestyle.models.encoder import Space
from facestyle.options import Options
from facestyle.styles import StyleConfig

__all__ = ["PreparedPhoto"]


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """A photo, read, its faces found and encoded; ``FaceStylizer.prepare`` makes it.

    It is passed in place of the photo to any style with the same base generator and encoder, as all bundled ones have.

    Attributes:
        photo: as it was read, upright, RGB.
        faces: the detections, largest first; None for a photo that was passed as aligned or centre-cropped.
        quads: [4, 2] each, corners of the aligned squares in photo pixels.
        crops: [1, 3, S, S] each, the aligned faces.
        codes: [num_ws, w_dim] each, before truncation, on the CPU.
        is_aligned: the photo was passed as an aligned square.
        refine: steps of optimisation the codes went through.
        content_space: that they are of.
        base_sha256: of the base generator they belong to.
        encoder_id: of the encoder that made them, see ``FaceStylizer.encoder_id``.
        seconds: by stage: "load", "detect", "align", "encode", "refine".
        left_out: [4, 2] each, the squares of faces that were found and not prepared; no portrait reaches over them.
    """

    photo: Image.Image = field(repr=False)
    faces: list[Face | None]
    quads: list[NDArray[np.float64]] = field(repr=False)
    crops: list[Tensor] = field(repr=False)
    codes: list[Tensor] = field(repr=False)
    is_aligned: bool
    refine: int
    content_space: Space
    base_sha256: str
    encoder_id: str
    seconds: dict[str, float]
    left_out: list[NDArray[np.float64]] = field(default_factory=list, repr=False)

    def check(self, config: StyleConfig, encoder_id: str, options: Options) -> None:
        """Refuse a style, or options, that would have prepared the photo otherwise.

        Args:
            config: of the style.
            encoder_id: of its E_w, see ``FaceStylizer.encoder_id``.
            options: of the call.

        Raises:
            ConfigError: they would have.
        """
        if (self.base_sha256, self.encoder_id) != (config.base_sha256, encoder_id):
            raise ConfigError(
                f"the photo was prepared with another base generator or encoder than those of {config.name!r}; prepare "
                "it with this style"
            )
        if self.refine and options.refine:
            raise ConfigError(
                f"the prepared photo went through {self.refine} steps of refine already; leave refine out"
            )
        if options.content_space not in ("w", self.content_space):
            raise ConfigError(
                f"the photo was prepared in {self.content_space}, and {options.content_space} is asked for; prepare it "
                "with this content_space"
            )
