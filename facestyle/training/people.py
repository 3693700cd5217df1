"""People who do not exist, as training steps draw them."""

from __future__ import annotations

import torch
from torch import Tensor

from facestyle.models.generator import Generator

__all__ = ["random_people"]


def random_people(
    base: Generator, count: int, psi_min: float, psi_max: float, rng: torch.Generator
) -> Tensor:
    """Codes [count, w_dim], each truncated by a psi of its own from the range.

    Args:
        base: G, whose mapping network and mean of W they come from.
        count: of people.
        psi_min: least truncation.
        psi_max: most.
        rng: on the CPU, so that every machine draws the same people.
    """
    device = base.w_avg.device
    with torch.no_grad():
        z = torch.randn(count, base.w_dim, generator=rng).to(device)
        psi = torch.rand(count, 1, generator=rng).to(device)
        psi = psi_min + (psi_max - psi_min) * psi
        w: Tensor = base.w_avg + psi * (base.mapping(z) - base.w_avg)
    return w
