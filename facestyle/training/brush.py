"""Pictures as a broad brush leaves them, flat patches with sharp borders in place of single hairs, and as a pen does.

Kuwahara's filter (1976) gives each place the mean of the calmest of the four squares that meet there. With all four,
weighted by their calm, it leaves fewer seams (Papari, Petkov and Campisi, IEEE TIP 16(10), 2007). A pen's lines lie
on the dark side of borders, where a difference of two blurs is below zero (Winnemoeller, Kyprianidis and Olsen,
Computers & Graphics 36(6), 2012).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["brushed", "outlined"]

_CALM = 8.0
"""The power of the inverse spread by which squares are weighted; the more, the sharper the borders."""
_WIDTH = 1 / 256
"""Of a line, as the deviation of the narrower blur, in shares of the picture's side."""
_WIDER, _LEAST, _STEEP = 1.6, 0.012, 30.0
"""The other blur; the difference from which there is a line; and how fast it darkens."""


def brushed(pictures: Tensor, reach_px: int) -> Tensor:
    """The pictures, smoothed where they are busy and sharp where one thing ends and another begins.

    Args:
        pictures: [B, 3, H, W] in [-1, 1].
        reach_px: side of the four squares, less the place itself; 0 gives the pictures as they are.
    """
    if not reach_px:
        return pictures
    height, width = pictures.shape[-2:]
    padded = F.pad(pictures, (reach_px,) * 4, mode="replicate")
    mean = F.avg_pool2d(padded, reach_px + 1, 1)
    square = F.avg_pool2d(padded.square(), reach_px + 1, 1)
    spread = (square - mean.square()).clamp(min=0).sum(1, keepdim=True).sqrt()
    weight = (spread + 1e-2) ** -_CALM
    parts = [
        (mean[..., y : y + height, x : x + width], weight[..., y : y + height, x : x + width])
        for y in (0, reach_px)
        for x in (0, reach_px)
    ]
    total = sum(part * share for part, share in parts)
    shares = sum(share for _, share in parts)
    assert isinstance(total, Tensor) and isinstance(shares, Tensor)
    return total / shares


def outlined(pictures: Tensor, strength: float) -> Tensor:
    """The pictures with dark lines along their borders.

    Args:
        pictures: [B, 3, H, W] in [-1, 1].
        strength: of the lines, 0 for none to 1 for black.
    """
    from torchvision.transforms.functional import gaussian_blur

    if not strength:
        return pictures
    light = (pictures.mean(1, keepdim=True) + 1) / 2
    width = _WIDTH * pictures.shape[-1]
    narrow, wide = (
        gaussian_blur(light, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        for sigma in (width, _WIDER * width)
    )
    ink = -torch.tanh(_STEEP * (narrow - wide + _LEAST).clamp(max=0))
    return pictures - strength * ink * (pictures + 1)
