"""Averages of weights over training."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["update_ema"]


def update_ema(ema: nn.Module, net: nn.Module, beta: float) -> None:
    """Move an average towards a network, in place: ``beta * ema + (1 - beta) * net`` for what is being trained.

    Args:
        ema: a copy of the network.
        net: whose parameters, and buffers that are trained, are averaged; those without gradient are left out.
        beta: share of the average that stays.
    """
    with torch.no_grad():
        averages = (*ema.parameters(), *ema.buffers())
        for average, p in zip(averages, (*net.parameters(), *net.buffers()), strict=True):
            if p.requires_grad:
                average.lerp_(p, 1 - beta)
