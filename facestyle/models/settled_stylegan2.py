"""StyleGAN2's synthesis rearranged for drawing on a CPU: the same pictures in two thirds of the time.

Nothing is approximated; what differs from `facestyle.models.stylegan2_generator` is the order of work:

- A sample's style, demodulation and the activation's gain are worked into the weights, which are small, instead of
  into the features, which are not.
- The transposed convolution runs as small convolutions for the places in a square of 2 x 2 pixels: four that multiply
  no zeros, or two whose results need less moving.
- Blocks with large maps are drawn in strips of rows, so that what lies between two layers stays in the cache; a strip
  takes along the rows around it that its convolutions reach.
- Features are stored channels last, and changed in place.

Weights are copied when the module is made and cannot be trained. Samples of a batch are drawn one by one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.models.generator import Noise
from facestyle.models.stylegan2_generator import EqualLinear, StyleGAN2Synthesis, limit_of

__all__ = ["SettledStyleGAN2"]

_STRIP_FLOATS = 1 << 22
"""Numbers in a strip of features, 16 MiB of them in float32."""
_PAIRED = 64
"""Channels up to which the places of a transposed convolution are computed two at a time."""
_REACH = 2
"""Rows of a block's input around a strip that its two convolutions and the filter between them reach."""


class SettledStyleGAN2(nn.Module):
    """What a `StyleGAN2Synthesis` draws, drawn faster; called like it.

    Args:
        network: whose weights to copy, on any device and of any number type.
    """

    const: Tensor

    def __init__(self, network: StyleGAN2Synthesis) -> None:
        super().__init__()
        self.resolution, self.num_ws, self.w_dim = (
            network.resolution, network.num_ws, network.w_dim
        )  # fmt: skip
        self.sides = network.sides
        self.register_buffer("const", _channels_last(network.const[None]))
        blocks: list[Any] = [network.get_submodule(f"b{side}") for side in self.sides]
        self.first = _SettledConv(blocks[0].conv1)
        self.up = nn.ModuleList(_SettledUp(block.conv0) for block in blocks[1:])
        self.convs = nn.ModuleList(_SettledConv(block.conv1) for block in blocks[1:])
        self.heads = nn.ModuleList(_SettledHead(block.torgb) for block in blocks)
        self.requires_grad_(False)

    def forward(
        self, w_plus: Tensor, *, noise: Noise = "const", resolution: int | None = None
    ) -> Tensor:
        """Pictures [B, 3, R, R]; arguments and errors are those of `StyleGAN2Synthesis`."""
        like: Any = self  # in what is looked at; the network itself is let go
        last = StyleGAN2Synthesis.check_request(like, w_plus, noise, resolution)
        return torch.cat([self._draw(rows, noise == "const", last) for rows in w_plus])

    def _draw(self, rows: Tensor, is_noisy: bool, last: int) -> Tensor:
        """One picture [1, 3, R, R] from rows [num_ws, w_dim]."""
        head = self.heads[0]
        assert isinstance(head, _SettledHead)
        x = self.first(self.const, self.first.settle(rows[0]), self.first.noise_at(is_noisy))
        img = head(x, head.settle(rows[1]))
        for i, side in enumerate(self.sides[1 : self.sides.index(last) + 1]):
            x, img = self._block(i, x, img, rows[2 * i + 1 : 2 * i + 4], is_noisy, side != last)
        assert isinstance(img, Tensor)
        return img

    def _block(
        self, i: int, x: Tensor, img: Tensor, rows: Tensor, is_noisy: bool, is_followed: bool
    ) -> tuple[Tensor, Tensor]:
        """Features and picture at twice the side; the features are left empty where no block follows."""
        up, conv, head = self.up[i], self.convs[i], self.heads[i + 1]
        assert isinstance(up, _SettledUp)
        assert isinstance(conv, _SettledConv)
        assert isinstance(head, _SettledHead)
        settled = up.settle(rows[0]), conv.settle(rows[1]), head.settle(rows[2])
        noise = up.noise_at(is_noisy), conv.noise_at(is_noisy)
        height = x.shape[2]
        img = _doubled(img)
        channels = len(conv.bias)
        out = _empty(x, channels, 2 * height, 2 * x.shape[3]) if is_followed else x[:, :, :0]
        step = max(16, _STRIP_FLOATS // (4 * x.shape[3] * channels))
        for start in range(0, height, step):
            end = min(start + step, height)
            above, below = max(0, start - _REACH), min(height, end + _REACH)
            drawn = slice(2 * start, 2 * end)
            # Rows that saw a border which is none are dropped: 2 behind the first convolution, 1 behind the second.
            seen = slice(
                2 * above + 2 if above else 0, 2 * below - 2 if below < height else 2 * height
            )
            strip = up(x[:, :, above:below], settled[0], noise[0], seen, 2 * above)
            wanted = slice(max(seen.start, drawn.start - 1), min(seen.stop, drawn.stop + 1))
            strip = strip[:, :, wanted.start - seen.start : wanted.stop - seen.start]
            strip = conv(strip, settled[1], _rows(noise[1], wanted))
            strip = strip[:, :, drawn.start - wanted.start : drawn.stop - wanted.start]
            if is_followed:
                out[:, :, drawn] = strip
            img[:, :, drawn] += head(strip, settled[2])
        return out, img


class _Settled(nn.Module):
    """What the modulated layers share: the affine layer, and how it becomes a factor for every weight.

    Styles are computed in float32 whatever the number type of the features.
    """

    affine_weight: Tensor
    affine_bias: Tensor
    bias: Tensor

    def __init__(self, affine: EqualLinear, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("affine_weight", affine.weight.detach() * affine.gain)
        self.register_buffer("affine_bias", affine.bias.detach() * affine.rate)
        self.register_buffer("bias", bias.detach().clone())

    def style(self, w: Tensor) -> Tensor:
        """[before], how much each channel that comes in counts."""
        return F.linear(w.float(), self.affine_weight.float(), self.affine_bias.float())


class _SettledLayer(_Settled):
    """A modulated, demodulated 3x3 convolution and the noise behind it."""

    power: Tensor
    noise: Tensor

    def __init__(self, layer: Any) -> None:
        gain = math.sqrt(2.0)  # of the activation, which is the same before it
        super().__init__(layer.affine, layer.bias * gain)
        self.register_buffer("power", layer.weight.detach().square().sum((2, 3)))
        self.register_buffer("noise", layer.noise_const * layer.noise_strength.detach() * gain)
        self._has_noise = bool(self.noise.any())
        self._conv_clamp: float | None = layer.conv_clamp

    def factors(self, w: Tensor) -> Tensor:
        """[after, before, 1, 1], what one sample multiplies the weights with."""
        style = self.style(w)
        scale = math.sqrt(2.0) * torch.rsqrt(self.power.float() @ style.square() + 1e-8)
        return torch.outer(scale, style)[:, :, None, None].to(self.bias.dtype)

    def noise_at(self, is_noisy: bool) -> Tensor | None:
        """[H, W], what is added to every channel; None for nothing."""
        return self.noise if is_noisy and self._has_noise else None

    def activated(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Noise and leaky ReLU, in place; cut as in `StyleGAN2Synthesis`."""
        x = F.leaky_relu_(x if noise is None else x.add_(noise), 0.2)
        limit = limit_of(self._conv_clamp, x.dtype)
        return x if limit is None else x.clamp_(-limit, limit)


class _SettledConv(_SettledLayer):
    """The layer at the side of its input."""

    weight: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.register_buffer("weight", _channels_last(layer.weight))

    def settle(self, w: Tensor) -> Tensor:
        """The weights of one sample, [after, before, 3, 3]."""
        return self.weight * self.factors(w)

    def forward(self, x: Tensor, weight: Tensor, noise: Tensor | None) -> Tensor:
        """[1, before, H, W] -> [1, after, H, W]."""
        return self.activated(F.conv2d(x, weight, self.bias, padding=1), noise)


class _SettledUp(_SettledLayer):
    """The layer to twice the side, with the filter behind the convolution.

    The transposed convolution is a convolution for each place in a square of 2 x 2 pixels; or, where there are few
    channels, for each row of it: the two places side by side as twice the channels lie in memory as the pixels of a row
    do, so that none has to be moved by itself, which is worth some multiplications by zero.
    """

    fir: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.register_buffer("fir", layer.fir.expand(len(self.bias), 1, 4, 4).contiguous())
        weight = layer.weight.detach()
        taps = weight[:, :, [2, 0]], weight[:, :, [1]]  # of even and odd rows, as the input's come
        self._is_paired = len(weight) <= _PAIRED
        for i, rows in enumerate(taps):
            even, odd = rows[..., [2, 0]], rows[..., [1]]
            side_by_side = torch.cat([even, F.pad(odd, (1, 0))])
            places = [side_by_side] if self._is_paired else [even, odd]
            for j, place in enumerate(places):
                self.register_buffer(f"place{i}{j}", _channels_last(place))

    def settle(self, w: Tensor) -> list[list[Tensor]]:
        """The weights of one sample for each row and place, [after or twice that, before, 1 or 2, 1 or 2]."""
        factors = self.factors(w)
        if self._is_paired:
            factors = factors.repeat(2, 1, 1, 1)
        places = (0,) if self._is_paired else (0, 1)
        return [[self.get_buffer(f"place{i}{j}") * factors for j in places] for i in (0, 1)]

    def forward(
        self, x: Tensor, weights: list[list[Tensor]], noise: Tensor | None, seen: slice, first: int
    ) -> Tensor:
        """Rows ``seen`` of the layer's output, from rows of its input [1, before, h, W] that reach around them.

        Args:
            x: part of the input.
            weights: of one sample.
            noise: of the whole output.
            seen: rows of the output that are right, given these rows of the input.
            first: which row of the output the first one made here is.
        """
        _, _, height, width = x.shape
        channels = len(self.bias)
        # What the transposed convolution gives, within a border of zeros for the filter.
        spread = _empty(x, channels, 2 * height + 3, 2 * width + 3)
        for border in (spread[:, :, 0], spread[:, :, -1], spread[..., 0], spread[..., -1]):
            border.zero_()
        for i, places in enumerate(weights):
            rows = spread[:, :, 1 + i : -1 : 2]
            if self._is_paired:
                pairs = F.conv2d(x, places[0], padding=(1 - i, 1)).permute(0, 2, 3, 1)
                rows[..., 1:] = pairs.reshape(1, -1, 2 * width + 2, channels).permute(0, 3, 1, 2)
                continue
            for j, place in enumerate(places):
                rows[..., 1 + j : -1 : 2] = F.conv2d(x, place, padding=(1 - i, 1 - j))
        rows = spread[:, :, seen.start - first : seen.stop - first + 3]
        x = F.conv2d(rows, self.fir, self.bias, groups=channels)
        return self.activated(x, _rows(noise, seen))


class _SettledHead(_Settled):
    """Modulated 1x1 convolution to colours, which are float32 whatever the features are."""

    weight: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__(layer.affine, layer.bias)
        self.register_buffer("weight", _channels_last(layer.weight))
        self.gain: float = layer.gain
        self._conv_clamp: float | None = layer.conv_clamp

    def settle(self, w: Tensor) -> Tensor:
        """The weights of one sample, [3, before, 1, 1]; float32 for float16, as nothing holds them within its range."""
        style = self.style(w) * self.gain
        weight = self.weight.float() if self.weight.dtype == torch.float16 else self.weight
        return weight * style[:, None, None].to(weight.dtype)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """[1, before, H, W] -> [1, 3, H, W]."""
        color = F.conv2d(x.to(weight.dtype), weight, self.bias.to(weight.dtype)).float()
        limit = self._conv_clamp
        return color if limit is None else color.clamp_(-limit, limit)


def _rows(noise: Tensor | None, rows: slice) -> Tensor | None:
    return None if noise is None else noise[rows]


def _doubled(img: Tensor) -> Tensor:
    """Twice the side; as bilinear, except that the border fades to 0."""
    taps = img.new_tensor([0.25, 0.75, 0.75, 0.25])
    kernel = torch.outer(taps, taps).expand(img.shape[1], 1, 4, 4)
    return F.conv_transpose2d(img, kernel, stride=2, padding=1, groups=img.shape[1])


def _empty(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """[1, C, H, W], channels last, of ``x``'s kind."""
    return x.new_empty(1, height, width, channels).permute(0, 3, 1, 2)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.channels_last)
