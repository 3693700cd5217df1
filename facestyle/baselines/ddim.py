"""Deterministic DDIM on Stable Diffusion's noise levels (arXiv:2010.02502), up as well as down.

A latent at time t is ``x_t = sqrt(a_t) * x_0 + sqrt(1 - a_t) * noise``, where a_t is the schedule's cumulative product.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from facestyle.errors import ConfigError

__all__ = ["Ddim", "adain", "channel_statistics"]


@dataclass(frozen=True, slots=True, eq=False)
class Ddim:
    """Moves between noise levels.

    Attributes:
        alphas: [T] float32 on the CPU, a_t of every time the network was trained at.
    """

    alphas: Tensor

    @property
    def last(self) -> int:
        """The noisiest time, 999 in Stable Diffusion."""
        return len(self.alphas) - 1

    def times(self, steps: int) -> list[int]:
        """The times of a run of so many steps, ascending: 1, 21, ..., 981 for 50.

        Raises:
            ConfigError: there are more steps than times, or none.
        """
        if not 1 <= steps < len(self.alphas):
            raise ConfigError(f"steps must be from 1 to {len(self.alphas) - 1}, got {steps}")
        stride = len(self.alphas) // steps
        return [i * stride + 1 for i in range(steps)]

    def down(self, times: list[int]) -> list[tuple[int, int]]:
        """(from, to) of the steps that denoise from the last of ascending times to time 0, if there are any."""
        return [(time, target) for target, time in pairwise([0, *times])][::-1]

    def move(self, x: Tensor, noise: Tensor, start: int, end: int) -> Tensor:
        """``x`` at time ``end``, if ``noise`` is what it holds at time ``start``; eq. 12 with sigma 0.

        To the bit what diffusers' ``DDIMScheduler.step`` gives on the way down.
        """
        a, b = self.alphas[start], self.alphas[end]
        clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
        return b.sqrt() * clean + (1 - b).sqrt() * noise

    def add_noise(self, clean: Tensor, noise: Tensor, time: int) -> Tensor:
        """A latent of time ``time``: q(x_t | x_0)."""
        a = self.alphas[time]
        return a.sqrt() * clean + (1 - a).sqrt() * noise


def channel_statistics(x: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation [B, C, 1, 1] of every channel of [B, C, H, W]; ``eps`` keeps flat ones above 0."""
    variance, mean = x.var((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)
    return mean, (variance + eps).sqrt()


def adain(x: Tensor, mean: Tensor, std: Tensor, *, eps: float) -> Tensor:
    """``x`` [B, C, H, W] with every channel's mean and deviation replaced (arXiv:1703.06868, eq. 8)."""
    own_mean, own_std = channel_statistics(x, eps=eps)
    return (x - own_mean) / own_std * std + mean
