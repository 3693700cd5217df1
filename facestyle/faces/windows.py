"""Where aligned faces have their eyes and mouth, as windows that weigh maps of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["EYES", "distance_within", "eyes_window", "mean_within", "mouth_window"]

EYES = ((0.385, 0.475), (0.615, 0.475))
"""(x, y) in shares of the side. The median over 200 FFHQ photos is 0.377, 0.625 and 0.471."""

_SIDE = 64


def mouth_window() -> Tensor:
    """[1, 64, 64], 1 at the mouth, falling off around it."""
    return _window((0.5, 0.735), (0.13, 0.07))


def eyes_window() -> Tensor:
    """[1, 64, 64], 1 at both eyes, falling off around them."""
    left, right = (_window(at, (0.075, 0.065)) for at in EYES)
    return torch.maximum(left, right)


def _window(middle: tuple[float, float], reach: tuple[float, float]) -> Tensor:
    """[1, S, S], 1 at a place (x, y), falling off behind a reach; in shares of the side."""
    at = (torch.arange(_SIDE) + 0.5) / _SIDE
    across, down = (((at - m) / r).square() for m, r in zip(middle, reach, strict=True))
    return torch.exp(-0.5 * (across[None, :] + down[:, None]) ** 2)[None]


def mean_within(window: Tensor, change: Tensor) -> Tensor:
    """Mean [B] of maps [B, h, w] weighted by a window [1, S, S]."""
    if change.shape[-1] > window.shape[-1]:
        window = F.interpolate(window[None], size=change.shape[-2:], mode="bilinear")[0]
    else:
        window = F.adaptive_avg_pool2d(window, (change.shape[-2], change.shape[-1]))
    return (change * window).sum((1, 2)) / window.sum()


def distance_within(window: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """[B], squared distance of maps [B, C, h, w], mean within a window, summed over the maps."""
    changes = ((x - y).square().sum(1) for x, y in zip(a, b, strict=True))
    return torch.stack([mean_within(window, change) for change in changes]).sum(0)
