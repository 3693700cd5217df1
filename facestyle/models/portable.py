"""A synthesis network in plain operations with constant kernels, for other runtimes to read and speed up.

What differs from `facestyle.models.mobile` is only the form, the pictures are the same:

- Styles scale the activations, so every kernel is a constant that a runtime may lay out as it likes.
- The inverse Haar step is a few additions and a pixel shuffle, as runtimes are slow at a transposed convolution with
  thousands of groups; its factor of a half rides on the scale before it.
- Noise planes that are all zero are left out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.models.mobile import SLOPE, MobileSynthesis, StyledSeparable, ToImage

__all__ = ["PortableSynthesis", "portable"]


def portable(synthesis: nn.Module, resolution: int) -> nn.Module:
    """w_plus [B, num_ws, w_dim] -> pictures [B, 3, R, R] as a module without options.

    Args:
        synthesis: of any architecture.
        resolution: one of those it draws at.
    """
    if isinstance(synthesis, MobileSynthesis):
        return PortableSynthesis(synthesis, resolution)
    return _AtResolution(synthesis, resolution)


class _AtResolution(nn.Module):
    def __init__(self, synthesis: nn.Module, resolution: int) -> None:
        super().__init__()
        self.synthesis, self.resolution = synthesis, resolution

    def forward(self, w_plus: Tensor) -> Tensor:
        img = self.synthesis(w_plus, resolution=self.resolution)
        assert isinstance(img, Tensor)
        return img


class PortableSynthesis(nn.Module):
    """What a `MobileSynthesis` draws with its stored noise; it shares the weights.

    Args:
        network: whose weights to use.
        resolution: the full side or the preview's.

    Raises:
        ConfigError: there is no output of that resolution.
    """

    def __init__(self, network: MobileSynthesis, resolution: int) -> None:
        super().__init__()
        rows = network.const.new_zeros(1, network.num_ws, network.w_dim)
        network.check_request(rows, "const", resolution)
        is_preview = resolution == network.preview_resolution
        count = network.preview_blocks if is_preview else len(network.blocks)
        self.const = network.const
        self.stem: Any = network.stem
        self.blocks = nn.ModuleList(list(network.blocks)[:count])
        self.head: ToImage = network.to_preview if is_preview else network.to_image
        self.head_row = min(2 * count + 1, network.num_ws - 1)
        self._are_noisy = [_are_noisy(block) for block in self.blocks]

    def forward(self, w_plus: Tensor) -> Tensor:
        """Pictures [B, 3, R, R] in about [-1, 1] from w_plus [B, num_ws, w_dim]."""
        rows = w_plus.unbind(1)
        stem = self.stem
        x = _scaled(self.const, stem.affine(rows[0]) * stem.gain)
        x = F.conv2d(x, stem.weight, stem.bias, padding=1) + stem.noise
        x = F.leaky_relu(x, SLOPE)
        block: Any
        for i, block in enumerate(self.blocks):
            first, second = self._are_noisy[i]
            w_up, w_conv = rows[2 * i + 1], rows[2 * i + 2]
            scale = F.linear(w_up, block.up.weight, block.up.bias)
            x = _haar_up(_scaled(x, scale / 2))
            x = _separable(block.conv1, x, w_up, first)
            x = _separable(block.conv2, x, w_conv, second)
        head = self.head
        style = head.affine(rows[self.head_row]) * (head.gain / 2)
        return _haar_up(F.conv2d(_scaled(x, style), head.weight, head.bias / 2))


def _are_noisy(block: Any) -> tuple[bool, bool]:
    """Whether its two convolutions have noise."""
    return bool(block.conv1.noise.any()), bool(block.conv2.noise.any())


def _separable(layer: StyledSeparable, x: Tensor, w: Tensor, is_noisy: bool) -> Tensor:
    """Modulated depthwise 3x3, pointwise convolution, noise where there is any, bias, leaky ReLU."""
    x = _scaled(x, layer.affine(w) * layer.gain)
    x = F.conv2d(x, layer.depthwise, padding=1, groups=layer.depthwise.shape[0])
    x = F.conv2d(x, layer.weight, layer.bias)
    if is_noisy:
        x = x + layer.noise
    return F.leaky_relu(x, SLOPE)


def _scaled(x: Tensor, style: Tensor) -> Tensor:
    """Channels of x [B, C, H, W] times their style [B, C]."""
    return x * style[:, :, None, None]


def _haar_up(x: Tensor) -> Tensor:
    """Twice the inverse Haar step: [B, 4C, H, W], channels 4c .. 4c+3 = (ll, lh, hl, hh), to [B, C, 2H, 2W]."""
    channels = x.shape[1] // 4
    ll, lh, hl, hh = x.unflatten(1, (channels, 4)).unbind(2)
    top, bottom, left, right = ll + lh, ll - lh, hl + hh, hl - hh
    pixels = torch.stack([top + left, top - left, bottom + right, bottom - right], dim=2)
    return F.pixel_shuffle(pixels.flatten(1, 2), 2)
