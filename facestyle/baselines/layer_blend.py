"""One generator out of the coarse layers of one and the fine layers of another ("layer swapping", arXiv:2010.05334).

Every tensor of a synthesis network has a position 2 i + level, where 4, 8, 16, ... px are i = 0, 1, 2, ... Level 0
is the first half of a resolution (StyleGAN2's learned input, or the upsampling convolution), level 1 the second half
and the picture head of that resolution.
"""

from __future__ import annotations

import copy
import math
import re

import torch

from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.generator import Generator

__all__ = ["blend_layers", "fine_share", "layer_position", "switch_position"]

_MOBILE = re.compile(r"blocks\.(\d+)\.(up|conv1|conv2)\.")
_STYLEGAN2 = re.compile(r"b(\d+)\.(conv0|conv1|torgb)\.")


def switch_position(resolution: int, level: int) -> int:
    """2 i + level of a resolution 4 << i.

    Raises:
        ConfigError: the resolution is no power of two from 4, or the level neither 0 nor 1.

    Example:
        >>> [switch_position(4, 0), switch_position(4, 1), switch_position(64, 0)]
        [0, 1, 8]
    """
    if resolution < 4 or resolution & (resolution - 1) or level not in (0, 1):
        raise ConfigError(
            f"expected a power of two from 4 px and level 0 or 1, got {resolution} px and level {level}"
        )
    return 2 * round(math.log2(resolution) - 2) + level


def layer_position(name: str, generator: Generator) -> int:
    """Position of the synthesis tensor ``name``.

    The mobile generator's Haar step and first convolution are level 0 of their block, its second is level 1. A head
    draws at twice the side of the features it reads, and is level 1 of the resolution it draws.

    Raises:
        CheckpointError: the architecture has no such tensor.
    """
    if name == "const":
        return switch_position(4, 0)
    if name.startswith("stem."):
        return switch_position(4, 1)
    if match := _MOBILE.match(name):
        return switch_position(8 << int(match[1]), int(match[2] == "conv2"))
    if match := _STYLEGAN2.match(name):
        return switch_position(int(match[1]), int(match[2] != "conv0"))
    if name.startswith("to_image."):
        return switch_position(generator.resolution, 1)
    if name.startswith("to_preview."):
        return switch_position(generator.preview_resolution, 1)
    raise CheckpointError(f"tensor {name} has no known place among the resolutions")


def fine_share(position: int, switch: float, width: float = 0.0) -> float:
    """Share of the fine generator at a position.

    Args:
        position: of the tensor.
        switch: where the fine generator takes over.
        width: 0 switches hard, at ``switch`` itself; else the share is 1 / (1 + exp(-(position - switch) / width)).

    Raises:
        ConfigError: the width is negative.

    Example:
        >>> [fine_share(p, 8) for p in (7, 8, 9)]
        [0.0, 1.0, 1.0]
        >>> fine_share(8, 8, width=1.0)
        0.5
    """
    if width < 0:
        raise ConfigError(f"the width of the blend must be 0 or more, got {width}")
    if width == 0:
        return float(position >= switch)
    return float(torch.sigmoid(torch.tensor((position - switch) / width, dtype=torch.float64)))


def blend_layers(
    coarse: Generator, fine: Generator, switch: float, *, width: float = 0.0
) -> Generator:
    """A new generator: ``coarse`` below the switch, ``fine`` from there on; mapping and w_avg are of ``coarse``.

    The public TensorFlow code's hard switch sets in two positions later than it says; this one does not.

    Args:
        coarse: gives the low resolutions: pose, outline, proportions.
        fine: gives the high ones: texture, colour.
        switch: a position, see :func:`switch_position`.
        width: 0 switches hard; else how many positions the passage takes.

    Raises:
        ConfigError: the width is negative.
        CheckpointError: the two differ in architecture.
    """
    low, high = coarse.synthesis.state_dict(), fine.synthesis.state_dict()
    if {k: v.shape for k, v in low.items()} != {k: v.shape for k, v in high.items()}:
        raise CheckpointError("the two generators differ in architecture and cannot be blended")
    shares = {name: fine_share(layer_position(name, coarse), switch, width) for name in low}
    blended = copy.deepcopy(coarse)
    blended.mapping = coarse.mapping
    blended.synthesis.load_state_dict(
        {name: torch.lerp(low[name], high[name], share) for name, share in shares.items()}
    )
    return blended
