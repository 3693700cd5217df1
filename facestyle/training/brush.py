"""Pictures as a broad brush leaves them: flat patches with sharp borders in place of single hairs.

Kuwahara's filter (1976) gives each place the mean of the calmest of the four squares that meet there. With all four,
weighted by their calm, it leaves fewer seams (Papari, Petkov and Campisi, IEEE TIP 16(10), 2007).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["brushed"]

_CALM = 8.0
"""The power of the inverse spread by which squares are weighted; the more, the sharper the borders."""


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
