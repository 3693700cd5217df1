"""StyleGAN2's synthesis written the plain way: what ours is tested against, and timed against by ``facestyle bench``.

It shares no code with `facestyle.models.stylegan2_generator`, only the names of the tensors. Like the public code on
a processor, it gives every sample weights of its own, modulated and demodulated, and runs one grouped convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["plain_synthesis"]


def plain_synthesis(tensors: Mapping[str, Tensor], w_plus: Tensor) -> Tensor:
    """Pictures [B, 3, R, R] in about [-1, 1] from w_plus [B, num_ws, w_dim], with the stored noise.

    Args:
        tensors: the state of a `StyleGAN2Synthesis`.
        w_plus: one row a layer, coarse first.
    """
    batch = len(w_plus)
    x = tensors["const"].expand(batch, -1, -1, -1)
    img: Tensor | None = None
    row, side = 0, 4
    while f"b{side}.torgb.weight" in tensors:
        for conv in ("conv0", "conv1"):
            if f"b{side}.{conv}.weight" in tensors:
                x = _styled_conv(tensors, f"b{side}.{conv}", x, w_plus[:, row], conv == "conv0")
                row += 1
        color = _to_rgb(tensors, f"b{side}.torgb", x, w_plus[:, row])
        img = color if img is None else _upsampled(img) + color
        side *= 2
    assert img is not None
    return img


def _styled_conv(
    tensors: Mapping[str, Tensor], name: str, x: Tensor, w: Tensor, is_up: bool
) -> Tensor:
    weight = tensors[f"{name}.weight"] * _style(tensors, name, w)[:, None, :, None, None]
    weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    batch, after, before = weight.shape[:3]
    x = x.reshape(1, batch * before, *x.shape[2:])
    if is_up:
        weight = weight.transpose(1, 2).reshape(batch * before, after, 3, 3)
        x = F.conv_transpose2d(x, weight, stride=2, groups=batch)
        x = _filtered(F.pad(x, (1, 1, 1, 1)))
    else:
        x = F.conv2d(x, weight.reshape(batch * after, before, 3, 3), padding=1, groups=batch)
    x = x.reshape(batch, after, *x.shape[2:])
    x = x + tensors[f"{name}.noise_const"] * tensors[f"{name}.noise_strength"]
    return F.leaky_relu(x + tensors[f"{name}.bias"][:, None, None], 0.2) * math.sqrt(2)


def _to_rgb(tensors: Mapping[str, Tensor], name: str, x: Tensor, w: Tensor) -> Tensor:
    before = x.shape[1]
    style = _style(tensors, name, w) / math.sqrt(before)
    weight = tensors[f"{name}.weight"] * style[:, None, :, None, None]
    x = x.reshape(1, -1, *x.shape[2:])
    x = F.conv2d(x, weight.reshape(-1, before, 1, 1), groups=len(w))
    return x.reshape(len(w), 3, *x.shape[2:]) + tensors[f"{name}.bias"][:, None, None]


def _style(tensors: Mapping[str, Tensor], name: str, w: Tensor) -> Tensor:
    scale = 1 / math.sqrt(w.shape[1])
    return w @ tensors[f"{name}.affine.weight"].T * scale + tensors[f"{name}.affine.bias"]


def _upsampled(img: Tensor) -> Tensor:
    """Twice the side: a zero behind every pixel, then the filter."""
    batch, channels, height, width = img.shape
    spread = img.new_zeros(batch, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = img
    spread = F.pad(spread, (2, 1, 2, 1)).reshape(1, batch * channels, 2 * height + 3, -1)
    return _filtered(spread).reshape(batch, channels, 2 * height, 2 * width)


def _filtered(x: Tensor) -> Tensor:
    """Each map by the filter [1, 3, 3, 1] in both directions, of sum 4: [1, C, H, W] -> [1, C, H - 3, W - 3]."""
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / 16
    return F.conv2d(x, kernel.expand(x.shape[1], 1, 4, 4).contiguous(), groups=x.shape[1])
