"""The mobile generator's synthesis rearranged for drawing on a CPU: the same pictures in two thirds of the time.

Nothing is approximated; what differs from `facestyle.models.mobile` is the order of work:

- Channels that feed an inverse Haar step are stored band after band instead of interleaved, so the step is a few long
  additions instead of a transposed convolution with thousands of groups.
- Pointwise convolution, bias and leaky ReLU run as one oneDNN operation where torch has it.
- The picture head is linear up to the pixels, so its Haar step is folded into its weights.
- Noise planes that are all zero are left out.
- Blocks are drawn in strips of rows, the last one down to the pixels, so that what lies between two layers stays in the
  cache; a strip takes along the rows around it that its convolutions reach.

Weights are copied when the module is made and cannot be trained. Samples of a batch are drawn one by one.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.models.generator import Noise
from facestyle.models.mobile import HAAR, SLOPE, MobileSynthesis, StyledSeparable, ToImage

__all__ = ["SettledSynthesis"]

_STRIP_NUMBERS = 2 << 20
"""In the widest part of a strip, 8 MiB in float32."""
_REACH = 1
"""Rows of a block's input around a strip that its two convolutions reach, the step up between."""


class SettledSynthesis(nn.Module):
    """What a `MobileSynthesis` draws, drawn faster; called like it.

    Args:
        network: whose weights to copy, on any device and of any number type.
    """

    const: Tensor
    stem_weight: Tensor
    stem_bias: Tensor
    stem_noise: Tensor

    def __init__(self, network: MobileSynthesis) -> None:
        super().__init__()
        self.num_ws, self.w_dim = network.num_ws, network.w_dim
        self.resolution, self.preview_resolution = network.resolution, network.preview_resolution
        self.preview_blocks = network.preview_blocks
        stem = network.stem
        self.register_buffer("const", _channels_last(network.const))
        self.stem_affine = _copied(stem.affine, stem.gain)
        self.register_buffer("stem_weight", _channels_last(_band_major(stem.weight)))
        self.register_buffer("stem_bias", _band_major(stem.bias))
        self.register_buffer("stem_noise", stem.noise.detach().clone())
        last = len(network.blocks) - 1
        self.blocks = nn.ModuleList(
            _SettledBlock(block, is_last=i == last) for i, block in enumerate(network.blocks)
        )
        self.to_image = _SettledHead(network.to_image, reads_bands=False)
        self.to_preview = _SettledHead(network.to_preview, reads_bands=True)
        self.requires_grad_(False)

    def forward(
        self, w_plus: Tensor, *, noise: Noise = "const", resolution: int | None = None
    ) -> Tensor:
        """Pictures [B, 3, R, R], channels last; arguments and errors are those of `MobileSynthesis`."""
        like: Any = self  # in what is looked at; the network itself is let go
        MobileSynthesis.check_request(like, w_plus, noise, resolution)
        is_preview = resolution == self.preview_resolution
        return torch.cat([self._draw(rows, noise, is_preview) for rows in w_plus])

    def _draw(self, rows: Tensor, noise: Noise, is_preview: bool) -> Tensor:
        """One picture [1, 3, R, R] from rows [num_ws, w_dim]."""
        style = self.stem_affine(rows[0])
        x = F.conv2d(self.const * style[:, None, None], self.stem_weight, self.stem_bias, padding=1)
        if noise == "const":
            x = x + self.stem_noise
        x = F.leaky_relu(x, SLOPE).contiguous(memory_format=torch.channels_last)
        count = self.preview_blocks if is_preview else len(self.blocks)
        head = self.to_preview if is_preview else self.to_image
        last = rows[min(2 * count + 1, self.num_ws - 1)]
        draw = functools.partial(head, weight=head.settle(last))
        for i in range(count):
            then = draw if i == count - 1 else None
            x = self.blocks[i](x, rows[2 * i + 1], rows[2 * i + 2], noise, then)
        assert isinstance(x, Tensor)
        return x


class _SettledSeparable(nn.Module):
    """Modulated depthwise 3x3, pointwise convolution, noise where there is any, bias, leaky ReLU."""

    depthwise: Tensor
    weight: Tensor
    bias: Tensor
    noise: Tensor | None

    def __init__(self, layer: StyledSeparable, *, writes_bands: bool) -> None:
        super().__init__()
        self.affine = _copied(layer.affine, layer.gain)
        self.register_buffer("depthwise", layer.depthwise.detach().clone())
        order = _band_major if writes_bands else torch.clone
        self.register_buffer("weight", order(layer.weight.detach()))
        self.register_buffer("bias", order(layer.bias.detach()))
        self.register_buffer("noise", layer.noise.detach().clone() if layer.noise.any() else None)

    def settle(self, w: Tensor) -> Tensor:
        """Depthwise kernels of one sample, [before, 1, 3, 3]."""
        kernels: Tensor = self.depthwise * self.affine(w)[:, None, None, None]
        return kernels

    def forward(self, x: Tensor, kernel: Tensor, noise: Noise, rows: slice, first: int) -> Tensor:
        """Rows ``rows`` of the layer's output, from rows of its input [1, before, h, W] that start at ``first``."""
        x = F.conv2d(x, kernel, padding=1, groups=len(kernel))
        x = x[:, :, rows.start - first : rows.stop - first]
        if noise == "const" and self.noise is not None:
            x = _convolved(x, self.weight, self.bias).add_(self.noise[:, :, rows])
            return F.leaky_relu_(x, SLOPE)
        return _pointwise(x, self.weight, self.bias)


class _SettledBlock(nn.Module):
    """Inverse Haar step and two convolutions: [1, C, H, W] -> [1, D, 2H, 2W]."""

    up_weight: Tensor
    up_bias: Tensor

    def __init__(self, block: Any, *, is_last: bool) -> None:
        super().__init__()
        up = block.up
        # The Haar step's factor of a half rides on its style.
        self.register_buffer("up_weight", _band_major(up.weight) / 2)
        self.register_buffer("up_bias", _band_major(up.bias) / 2)
        self.conv1 = _SettledSeparable(block.conv1, writes_bands=False)
        self.conv2 = _SettledSeparable(block.conv2, writes_bands=not is_last)

    def forward(
        self,
        x: Tensor,
        w_up: Tensor,
        w_conv: Tensor,
        noise: Noise,
        then: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Features, or what ``then`` makes of them: something that looks at every pixel by itself."""
        scale = F.linear(w_up, self.up_weight, self.up_bias)
        kernels = self.conv1.settle(w_up), self.conv2.settle(w_conv)
        _, _, height, width = x.shape
        drawn = 4 * width * len(self.conv2.bias)  # numbers, by one row of x
        step = max(_REACH, _STRIP_NUMBERS // drawn)
        out: Tensor | None = None
        for start in range(0, height, step):
            end = min(start + step, height)
            first, last = max(0, start - _REACH), min(height, end + _REACH)
            strip = _haar_up(x[:, :, first:last], scale)
            # Where the strip was cut, each convolution gets one row wrong, which the next slice leaves out.
            rows = slice(
                2 * start - 1 if first else 0, 2 * end + 1 if last < height else 2 * height
            )
            strip = self.conv1(strip, kernels[0], noise, rows, 2 * first)
            strip = self.conv2(strip, kernels[1], noise, slice(2 * start, 2 * end), rows.start)
            strip = strip if then is None else then(strip)
            if end - start == height:
                return strip
            if out is None:
                out = _empty(strip, height * strip.shape[2] // (end - start))
            per_row = out.shape[2] // height
            out[:, :, start * per_row : end * per_row] = strip
        assert out is not None
        return out


class _SettledHead(nn.Module):
    """Modulated 1x1 convolution straight to the pixels: [1, C, H, W] -> [1, 3, 2H, 2W], channels last."""

    weight: Tensor
    bias: Tensor

    def __init__(self, head: ToImage, *, reads_bands: bool) -> None:
        super().__init__()
        self.affine = _copied(head.affine, head.gain)
        # Channels 3p..3p+2 of the folded weight are the colours of pixel p of each 2 x 2 square.
        haar = head.weight.new_tensor(HAAR).flatten(1)  # [band, pixel]
        weight = torch.einsum("bp,cbk->pck", haar, head.weight[:, :, 0, 0].view(3, 4, -1))
        bias = torch.einsum("bp,cb->pc", haar, head.bias.view(3, 4))
        weight = weight.reshape(12, -1)
        if reads_bands:
            weight = _band_major(weight.t()).t()
            self.affine.weight = nn.Parameter(_band_major(self.affine.weight))
            self.affine.bias = nn.Parameter(_band_major(self.affine.bias))
        self.register_buffer("weight", weight.detach()[:, :, None, None].clone())
        self.register_buffer("bias", bias.detach().flatten())

    def settle(self, w: Tensor) -> Tensor:
        """The weights of one sample, [12, C, 1, 1]."""
        weight: Tensor = self.weight * self.affine(w)[:, None, None]
        return weight

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        pixels = _convolved(x, weight, self.bias)
        height, width = x.shape[-2:]
        rows = pixels.permute(0, 2, 3, 1).reshape(height, width, 2, 6).transpose(1, 2)
        return rows.reshape(1, 2 * height, 2 * width, 3).permute(0, 3, 1, 2)


def _haar_up(x: Tensor, scale: Tensor) -> Tensor:
    """Inverse Haar step: [1, 4C, H, W], band after band (ll, lh, hl, hh), to [1, C, 2H, 2W], both channels last.

    Args:
        x: as `F.conv2d` leaves it.
        scale: [4C], what each channel is multiplied with; twice this is lost to the step's factor of a half.
    """
    _, channels, height, width = x.shape
    out = x.new_empty(height, 2, width, 2, channels // 4)
    bands = (x.permute(0, 2, 3, 1)[0] * scale).view(height, width, 2, 2, channels // 4)
    sums = bands[:, :, :, 0] + bands[:, :, :, 1]  # ll + lh, hl + hh
    differences = bands[:, :, :, 0] - bands[:, :, :, 1]
    for row, pair in enumerate((sums, differences)):
        torch.add(pair[:, :, 0], pair[:, :, 1], out=out[:, row, :, 0])
        torch.sub(pair[:, :, 0], pair[:, :, 1], out=out[:, row, :, 1])
    return out.view(1, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution and bias.

    By oneDNN also where torch has one thread alone and would take a matrix product instead, which on large maps is
    slower by a fifth to a half, the bias being a pass of its own.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)
    return F.conv2d(x, weight, bias)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution, bias and leaky ReLU."""
    if x.device.type == "cpu" and _has_fused_pointwise(x.dtype):
        return _fused_pointwise(x, weight, bias)
    return F.leaky_relu_(F.conv2d(x, weight, bias), SLOPE)


def _fused_pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as one oneDNN operation, which torch's compiler uses and keeps under a private name."""
    out = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, [0, 0], [1, 1], [1, 1], 1, "leaky_relu", [SLOPE], ""
    )
    assert isinstance(out, Tensor)
    return out


@functools.cache
def _has_fused_pointwise(dtype: torch.dtype) -> bool:
    """Whether this torch has the fused operation for a number type and it gives what the plain ones give."""
    x = torch.linspace(-1, 1, 2 * 4 * 4).view(1, 2, 4, 4).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.tensor([[1.0, -0.5], [0.25, 1.0], [-1.0, 0.5]], dtype=dtype)[:, :, None, None]
    bias = torch.tensor([0.1, -0.1, 0.2], dtype=dtype)
    try:
        with torch.inference_mode():
            fused = _fused_pointwise(x, weight, bias)
            plain = F.leaky_relu(F.conv2d(x, weight, bias), SLOPE)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return fused.shape == plain.shape and torch.allclose(fused.float(), plain.float(), atol=1e-2)


def _band_major(tensor: Tensor) -> Tensor:
    """Axis 0 from interleaved channels 4c + band to band after band."""
    channels = tensor.shape[0] // 4
    bands = tensor.detach().view(channels, 4, *tensor.shape[1:]).transpose(0, 1)
    return bands.reshape(tensor.shape)


def _copied(affine: nn.Linear, gain: float) -> nn.Linear:
    """A linear layer of its own with ``gain`` worked in."""
    own = copy.deepcopy(affine).requires_grad_(False)
    own.weight.mul_(gain)
    own.bias.mul_(gain)
    return own


def _empty(strip: Tensor, height: int) -> Tensor:
    """[1, C, height, W], channels last, for strips like this one."""
    _, channels, _, width = strip.shape
    return strip.new_empty(1, height, width, channels).permute(0, 3, 1, 2)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.channels_last)
