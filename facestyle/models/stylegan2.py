"""StyleGAN2's discriminator (arXiv:1912.04958, config f), in plain PyTorch.

Weights are stored near N(0, 1) and scaled when used (equalised learning rate), so that Adam's step is the same share of
every layer. Pictures are halved by a blur [1, 3, 3, 1] and a strided convolution, beside a skip path; the last layer
sees how much the pictures of a group differ.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError
from facestyle.models.stylegan2_generator import EqualLinear

__all__ = ["StyleGAN2Critic", "channels_at"]

_SLOPE = 0.2
_BLUR = (1.0, 3.0, 3.0, 1.0)


def channels_at(resolution: int, *, width: float = 1.0, base: int = 32_768, most: int = 512) -> int:
    """Channels at a resolution; by default config f's: 512 up to 64 px, then halved at every doubling; at least 1.

    Example:
        >>> [channels_at(side) for side in (4, 64, 128, 256, 1024)]
        [512, 512, 256, 128, 32]
    """
    return max(1, round(min(most, base / resolution) * width))


class _Conv(nn.Module):
    """Convolution with equalised learning rate; leaky ReLU x sqrt 2 where ``activate``."""

    blur: Tensor

    def __init__(
        self, before: int, after: int, size: int, *, halve: bool = False, activate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, size, size))
        self.bias = nn.Parameter(torch.zeros(after)) if activate else None
        self.gain = 1 / math.sqrt(before * size * size)
        self.halve = halve
        self.padding = (size - 1) // 2
        taps = torch.tensor(_BLUR)
        taps = torch.outer(taps, taps) / taps.sum().square()
        self.register_buffer("blur", taps.repeat(before if halve else 0, 1, 1, 1), False)

    def forward(self, x: Tensor) -> Tensor:
        padding, stride = self.padding, 1
        if self.halve:
            around = (self.weight.shape[-1] + 1) // 2  # what blur and convolution take away
            x = F.conv2d(x, self.blur, padding=around, groups=x.shape[1])
            padding, stride = 0, 2
        x = F.conv2d(x, self.weight * self.gain, self.bias, stride=stride, padding=padding)
        return x if self.bias is None else F.leaky_relu(x, _SLOPE) * math.sqrt(2.0)


class _Halving(nn.Module):
    """Two convolutions to half the side beside a skip path, their sum over sqrt 2."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = _Conv(before, before, 3)
        self.conv2 = _Conv(before, after, 3, halve=True)
        self.skip = _Conv(before, after, 1, halve=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        out = (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2.0)
        assert isinstance(out, Tensor)
        return out


class StyleGAN2Critic(nn.Module):
    """Logits [B, 1] of pictures [B, 3, R, R] in [-1, 1].

    Args:
        resolution: side R, a power of two from 8 to 1024.
        width: share of these channels.
        group: at most so many pictures have their spread compared; the largest divisor of the batch is taken.
        channel_base: a resolution r has ``channel_base / r`` channels: 32768 in config f.
        channel_max: but at most so many.

    Raises:
        ConfigError: the resolution cannot be built.
    """

    def __init__(
        self,
        resolution: int,
        *,
        width: float = 1.0,
        group: int = 4,
        channel_base: int = 32_768,
        channel_max: int = 512,
    ) -> None:
        super().__init__()
        if resolution not in [8 << i for i in range(8)]:
            raise ConfigError(f"resolution must be a power of two from 8 to 1024, got {resolution}")
        self.resolution, self.width, self.group = resolution, width, group
        self.channel_base, self.channel_max = channel_base, channel_max

        def channels(side: int) -> int:
            return channels_at(side, width=width, base=channel_base, most=channel_max)

        self.from_rgb = _Conv(3, channels(resolution), 1)
        sides = [resolution >> i for i in range(int(math.log2(resolution)) - 2)]
        self.blocks = nn.Sequential(
            *(_Halving(channels(side), channels(side // 2)) for side in sides)
        )
        last = channels(4)
        self.conv = _Conv(last + 1, last, 3)
        self.hidden = EqualLinear(last * 16, last)
        self.out = EqualLinear(last, 1)

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able."""
        return {
            "resolution": self.resolution,
            "width": self.width,
            "group": self.group,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
        }

    def forward(self, img: Tensor) -> Tensor:
        """[B, 3, R, R] -> [B, 1]."""
        x = self.blocks(self.from_rgb(img))
        x = self.hidden(self.conv(self._with_spread(x)).flatten(1))
        logits = self.out(F.leaky_relu(x, _SLOPE) * math.sqrt(2.0))
        assert isinstance(logits, Tensor)
        return logits

    def _with_spread(self, x: Tensor) -> Tensor:
        """One more map: the standard deviation over the group, averaged over channels and positions."""
        batch = x.shape[0]
        group = max(n for n in range(1, self.group + 1) if batch % n == 0)
        grouped = x.view(group, batch // group, *x.shape[1:])
        variance = (grouped - grouped.mean(0)).square().mean(0)
        spread = (variance + 1e-8).sqrt().mean((1, 2, 3))
        maps = spread.repeat(group).view(batch, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return torch.cat([x, maps], dim=1)
