"""The ``mobile`` generator: a MobileStyleGAN (arXiv:2104.04767) of 9.4 M parameters that draws 1024 px on a CPU.

Each block doubles the resolution with an inverse Haar step and runs two modulated depthwise-separable convolutions.
Demodulation is static: it was folded into the pointwise weights when the network was distilled. The picture comes out
of one modulated 1x1 convolution as Haar coefficients at half the resolution.

Channel order: a tensor that feeds an inverse Haar step is interleaved, channels 4c..4c+3 = (ll, lh, hl, hh) of output
channel c, so that the step is one grouped transposed convolution.

Rows of w_plus follow StyleGAN2's resolution order: the stem reads row 0; block i (8 << i px) reads 2i+1 for ``up`` and
``conv1`` and 2i+2 for ``conv2``; a picture head behind block i reads 2i+3, capped at the last row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError, LatentShapeError
from facestyle.models.generator import Generator, Noise

__all__ = ["FFHQ_CHANNELS", "MobileGenerator", "MobileMapping", "MobileSynthesis"]

FFHQ_CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64)
"""Width at 4, 8, ..., 512 px of the 1024 px FFHQ model."""

SLOPE = 0.2
HAAR = (
    ((0.5, 0.5), (0.5, 0.5)),  # ll
    ((0.5, 0.5), (-0.5, -0.5)),  # lh
    ((0.5, -0.5), (0.5, -0.5)),  # hl
    ((0.5, -0.5), (-0.5, 0.5)),  # hh
)


def _haar_kernel(channels: int) -> Tensor:
    """[4C, 1, 2, 2], the inverse Haar step as the weight of a transposed convolution with C groups."""
    return torch.tensor(HAAR).unsqueeze(1).repeat(channels, 1, 1, 1)


def _modulate(x: Tensor, kernel: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` and per-channel ``kernel`` [C, 1, k, k] with the style [B, C] worked into one of them.

    Scaling a channel and scaling its kernel are the same thing: one sample scales the small kernel, which saves a pass
    over the activations; several samples share the kernel and scale their activations.
    """
    if x.shape[0] == 1:
        return x, kernel * style[0, :, None, None, None]
    return x * style[:, :, None, None], kernel


class MobileMapping(nn.Module):
    """z to w: pixel norm, then ``depth`` times [linear, leaky ReLU 0.2, x sqrt 2].

    Attributes:
        w_avg: [w_dim], mean of W.
    """

    w_avg: Tensor

    def __init__(self, w_dim: int = 512, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(w_dim, w_dim) for _ in range(depth))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """[..., w_dim] -> [..., w_dim]."""
        x = z * torch.rsqrt(z.square().mean(dim=-1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * math.sqrt(2.0)
        return x


class _StyledStem(nn.Module):
    """Modulated full 3x3 convolution on the learned input; then noise, bias, leaky ReLU."""

    noise: Tensor

    def __init__(self, channels: int, w_dim: int, resolution: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, channels)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.zeros(1, 1, resolution, resolution))
        self.gain = 1.0 / math.sqrt(channels * 9)

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        style = self.affine(w) * self.gain
        x = F.conv2d(x * style[:, :, None, None], self.weight, self.bias, padding=1)
        if noise == "const":
            x = x + self.noise
        return F.leaky_relu(x, SLOPE)


class StyledSeparable(nn.Module):
    """Modulated depthwise 3x3, then a shared pointwise convolution, noise, bias and leaky ReLU."""

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, in_channels)
        self.depthwise = nn.Parameter(torch.randn(in_channels, 1, 3, 3))
        self.weight = nn.Parameter(
            torch.randn(out_channels, in_channels, 1, 1) / math.sqrt(in_channels)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise", torch.zeros(1, 1, resolution, resolution))
        self.gain = 1.0 / math.sqrt(in_channels * 9)

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        x, kernel = _modulate(x, self.depthwise, self.affine(w) * self.gain)
        x = F.conv2d(x, kernel, padding=1, groups=kernel.shape[0])
        x = F.conv2d(x, self.weight, self.bias)
        if noise == "const":
            x = x.add_(self.noise)
        return F.leaky_relu_(x, SLOPE)


class HaarUp(nn.Module):
    """Per-channel scale by the style, then the inverse Haar step: 4C at r/2 -> C at r."""

    haar: Tensor

    def __init__(self, in_channels: int, w_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_channels, w_dim) / math.sqrt(w_dim))
        self.bias = nn.Parameter(torch.ones(in_channels))
        self.register_buffer("haar", _haar_kernel(in_channels // 4), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x, kernel = _modulate(x, self.haar, F.linear(w, self.weight, self.bias))
        return F.conv_transpose2d(x, kernel, stride=2, groups=kernel.shape[0] // 4)


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int) -> None:
        super().__init__()
        self.up = HaarUp(in_channels, w_dim)
        self.conv1 = StyledSeparable(in_channels // 4, out_channels, w_dim, resolution)
        self.conv2 = StyledSeparable(out_channels, out_channels, w_dim, resolution)

    def forward(self, x: Tensor, w_up: Tensor, w_conv: Tensor, noise: Noise) -> Tensor:
        x = self.conv1(self.up(x, w_up), w_up, noise)
        out = self.conv2(x, w_conv, noise)
        assert isinstance(out, Tensor)
        return out


class ToImage(nn.Module):
    """Modulated 1x1 convolution to 12 Haar coefficients, then the inverse Haar step: 3 channels, twice the side."""

    haar: Tensor

    def __init__(self, in_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, in_channels)
        self.weight = nn.Parameter(torch.randn(12, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(12))
        self.register_buffer("haar", _haar_kernel(3), persistent=False)
        self.gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) * self.gain
        weight = self.weight
        if x.shape[0] == 1:
            weight = weight * style[0, None, :, None, None]
        else:
            x = x * style[:, :, None, None]
        x = F.conv2d(x, weight, self.bias)
        return F.conv_transpose2d(x, self.haar, stride=2, groups=3)


class MobileSynthesis(nn.Module):
    """w_plus to picture.

    Args:
        channels: width at 4, 8, ... px; the picture has twice the side of the last.
        w_dim: numbers in a row of w_plus.
        preview_resolution: side of the cheap output, a power of two from 16 to ``resolution`` / 2.
    """

    def __init__(self, channels: Sequence[int], w_dim: int, preview_resolution: int) -> None:
        super().__init__()
        self.num_ws = 2 * len(channels)
        self.w_dim = w_dim
        self.resolution = 4 << len(channels)
        self.preview_resolution = preview_resolution
        self.preview_blocks = round(math.log2(preview_resolution)) - 3
        self.const = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.stem = _StyledStem(channels[0], w_dim, 4)
        self.blocks = nn.ModuleList(
            _Block(before, after, w_dim, 8 << i)
            for i, (before, after) in enumerate(pairwise(channels))
        )
        self.to_image = ToImage(channels[-1], w_dim)
        self.to_preview = ToImage(channels[self.preview_blocks], w_dim)

    def forward(
        self, w_plus: Tensor, *, noise: Noise = "const", resolution: int | None = None
    ) -> Tensor:
        """Picture [B, 3, R, R] in about [-1, 1] (not clamped) from w_plus [B, num_ws, w_dim].

        Args:
            w_plus: one row a layer, coarse first.
            noise: "const" adds the stored noise planes, "none" leaves them out (softer hair and skin).
            resolution: None or the full side for the full picture, ``preview_resolution`` for the cheap one.

        Raises:
            LatentShapeError: ``w_plus`` has another shape.
            ConfigError: there is no output of that resolution, or the noise mode is unknown.
        """
        self.check_request(w_plus, noise, resolution)
        is_preview = resolution == self.preview_resolution
        rows = w_plus.unbind(1)
        x = self.const.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        x = self.stem(x, rows[0], noise)
        count = self.preview_blocks if is_preview else len(self.blocks)
        for i in range(count):
            x = self.blocks[i](x, rows[2 * i + 1], rows[2 * i + 2], noise)
        head = self.to_preview if is_preview else self.to_image
        img = head(x, rows[min(2 * count + 1, self.num_ws - 1)])
        assert isinstance(img, Tensor)
        return img

    def check_request(self, w_plus: Tensor, noise: Noise, resolution: int | None) -> None:
        """Refuse what ``forward`` cannot draw, with the errors it names."""
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.num_ws, self.w_dim):
            raise LatentShapeError(
                f"expected w_plus [B, {self.num_ws}, {self.w_dim}] for a {self.resolution} px mobile generator, "
                f"got {list(w_plus.shape)}; give a [B, {self.w_dim}] code to facestyle.latents.broadcast first"
            )
        if resolution not in (None, self.resolution, self.preview_resolution):
            raise ConfigError(
                f"this generator draws at {self.resolution} or {self.preview_resolution} px, not {resolution}"
            )
        if noise not in ("const", "none"):
            raise ConfigError(f'noise must be "const" or "none", got {noise!r}')


class MobileGenerator(Generator):
    """MobileStyleGAN behind the generator contract.

    Args:
        channels: width at 4, 8, ... px; the default draws 1024 px.
        w_dim: numbers in z, w and a row of w_plus.
        mapping_depth: layers of the mapping network.
        preview_resolution: side in pixels of the cheap output.

    Raises:
        ConfigError: the widths cannot be built, or there is no block of the preview's resolution.
    """

    architecture: ClassVar[str] = "mobile"

    def __init__(
        self,
        channels: Sequence[int] = FFHQ_CHANNELS,
        *,
        w_dim: int = 512,
        mapping_depth: int = 8,
        preview_resolution: int = 256,
    ) -> None:
        super().__init__()
        if len(channels) < 3 or any(c < 4 or c % 4 for c in channels):
            raise ConfigError(
                f"channels must be 3 or more multiples of 4, one for 4, 8, ... px, got {list(channels)}"
            )
        resolution = 4 << len(channels)
        if preview_resolution not in [16 << i for i in range(len(channels) - 2)]:
            raise ConfigError(
                f"preview_resolution must be a power of two from 16 to {resolution // 2}, got {preview_resolution}"
            )
        self.channels = tuple(channels)
        self.w_dim = w_dim
        self.mapping_depth = mapping_depth
        self.resolution = resolution
        self.preview_resolution = preview_resolution
        self.num_ws = 2 * len(channels)
        self.mapping: nn.Module = MobileMapping(w_dim, mapping_depth)
        self.synthesis: nn.Module = MobileSynthesis(channels, w_dim, preview_resolution)

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able."""
        return {
            "channels": list(self.channels),
            "w_dim": self.w_dim,
            "mapping_depth": self.mapping_depth,
            "preview_resolution": self.preview_resolution,
        }
