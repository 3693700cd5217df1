"""U-GAT-IT's networks (arXiv:1907.10830).

A ResNet generator with class-activation attention and adaptive layer-instance normalisation (AdaLIN), and the
discriminators it is trained against. ``from_public`` renames the tensors of the public PyTorch code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from facestyle.errors import CheckpointError, ConfigError

__all__ = ["UgatitDiscriminator", "UgatitGenerator", "from_public"]

_EPS = 1e-5


def _conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Convolution without bias, reflected at the border."""
    return nn.Conv2d(before, after, size, stride, size // 2, padding_mode="reflect", bias=False)


def _instance_norm(x: Tensor) -> Tensor:
    """Each channel of each picture to mean 0 and variance 1; the unbiased variance, as torch.var has it."""
    variance = x.var((2, 3), keepdim=True)
    return (x - x.mean((2, 3), keepdim=True)) * torch.rsqrt(variance + _EPS)


def _layer_norm(x: Tensor) -> Tensor:
    """Each picture's map to mean 0 and variance 1."""
    variance = x.var((1, 2, 3), keepdim=True)
    return (x - x.mean((1, 2, 3), keepdim=True)) * torch.rsqrt(variance + _EPS)


class _Mix(nn.Module):
    """rho x instance norm + (1 - rho) x layer norm; rho in [0, 1], one a channel."""

    def __init__(self, channels: int, rho: float) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), rho))

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(_layer_norm(x), _instance_norm(x), self.rho)


class _LayerInstanceNorm(_Mix):
    """The mix with a learned scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, rho=0.0)
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gamma + self.beta


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3)
        self.conv2 = _conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(F.instance_norm(self.conv1(x)))
        out = F.instance_norm(self.conv2(out))
        assert isinstance(out, Tensor)
        return x + out


class _AdaptiveResidual(nn.Module):
    """Residual block whose two normalisations (AdaLIN) are scaled and shifted from outside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3)
        self.norm1 = _Mix(channels, rho=0.9)
        self.conv2 = _conv(channels, channels, 3)
        self.norm2 = _Mix(channels, rho=0.9)

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)) * gamma + beta)
        out = self.norm2(self.conv2(out)) * gamma + beta
        assert isinstance(out, Tensor)
        return x + out


class _Attention(nn.Module):
    """Class-activation attention: mean- and max-pooled logits of "from this domain", whose weights scale the maps."""

    def __init__(self, channels: int, *, normalised: bool) -> None:
        super().__init__()
        mean, largest = nn.Linear(channels, 1, bias=False), nn.Linear(channels, 1, bias=False)
        self.mean = spectral_norm(mean) if normalised else mean
        self.largest = spectral_norm(largest) if normalised else largest
        self.merge = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, C, h, w] -> merged maps [B, C, h, w], logits [B, 2]."""
        logits = torch.cat([self.mean(x.mean((2, 3))), self.largest(x.amax((2, 3)))], dim=1)
        scaled = []
        for head in (self.mean, self.largest):
            weight = head.weight
            assert isinstance(weight, Tensor)
            scaled.append(x * weight[:, :, None, None])
        merged = self.merge(torch.cat(scaled, dim=1))
        assert isinstance(merged, Tensor)
        return merged, logits


class UgatitGenerator(nn.Module):
    """Pictures [B, 3, S, S] in [-1, 1] to pictures of the other domain.

    Args:
        side_px: S; the full variant works at this side only, the light one at any multiple of 4.
        width: channels behind the first convolution.
        blocks: residual blocks before, and adaptive ones behind the attention.
        is_light: read gamma and beta from pooled maps instead of from every position.

    Raises:
        ConfigError: the side is no multiple of 4.
    """

    def __init__(
        self, side_px: int = 256, *, width: int = 64, blocks: int = 4, is_light: bool = True
    ) -> None:
        super().__init__()
        if side_px % 4 or side_px < 16:
            raise ConfigError(f"side_px must be a multiple of 4 from 16, got {side_px}")
        self.side_px, self.width, self.is_light = side_px, width, is_light
        wide = 4 * width
        self.stem = _conv(3, width, 7)
        self.down = nn.ModuleList([
            _conv(width, 2 * width, 3, 2), _conv(2 * width, wide, 3, 2)
        ])  # fmt: skip
        self.encode = nn.Sequential(*(_Residual(wide) for _ in range(blocks)))
        self.attention = _Attention(wide, normalised=False)
        cells = 1 if is_light else (side_px // 4) ** 2
        self.read = nn.Sequential(
            nn.Linear(cells * wide, wide, bias=False), nn.ReLU(),
            nn.Linear(wide, wide, bias=False), nn.ReLU(),
        )  # fmt: skip
        self.gamma = nn.Linear(wide, wide, bias=False)
        self.beta = nn.Linear(wide, wide, bias=False)
        self.decode = nn.ModuleList(_AdaptiveResidual(wide) for _ in range(blocks))
        self.up = nn.ModuleList([_conv(wide, 2 * width, 3), _conv(2 * width, width, 3)])
        self.up_norm = nn.ModuleList([_LayerInstanceNorm(2 * width), _LayerInstanceNorm(width)])
        self.head = _conv(width, 3, 7)

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able."""
        return {
            "side_px": self.side_px,
            "width": self.width,
            "blocks": len(self.decode),
            "is_light": self.is_light,
        }

    def forward(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> pictures [B, 3, S, S] in [-1, 1], attention logits [B, 2]."""
        x = F.relu(F.instance_norm(self.stem(img)))
        for down in self.down:
            x = F.relu(F.instance_norm(down(x)))
        x, logits = self.attention(self.encode(x))
        x = F.relu(x)
        read = self.read(x.mean((2, 3)) if self.is_light else x.flatten(1))
        gamma, beta = self.gamma(read)[:, :, None, None], self.beta(read)[:, :, None, None]
        for block in self.decode:
            x = block(x, gamma, beta)
        for up, norm in zip(self.up, self.up_norm, strict=True):
            x = F.relu(norm(up(F.interpolate(x, scale_factor=2.0, mode="nearest"))))
        return torch.tanh(self.head(x)), logits

    def clip_rho(self) -> None:
        """Bring every rho back into [0, 1]; after each step of the optimiser."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, _Mix):
                    module.rho.clamp_(0, 1)


class UgatitDiscriminator(nn.Module):
    """Logit map and attention logits of pictures [B, 3, S, S]; 1 means "real".

    Args:
        layers: 7 sees half of a 256 px face at once, 5 a patch of it.
        width: channels behind the first convolution.
    """

    def __init__(self, layers: int, *, width: int = 64) -> None:
        super().__init__()
        widths = [3] + [width << i for i in range(layers - 1)]
        strides = [2] * (layers - 2) + [1]
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 4, stride))
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.attention = _Attention(widths[-1], normalised=True)
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, 4, bias=False))

    def forward(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> [B, 1, h, w], [B, 2]."""
        x = img
        for conv in self.convs:
            x = F.leaky_relu(conv(_padded(x)), 0.2)
        x, logits = self.attention(x)
        out = self.head(_padded(F.leaky_relu(x, 0.2)))
        assert isinstance(out, Tensor)
        return out, logits


def _padded(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1), mode="reflect")


def from_public(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and tensors of a :class:`UgatitGenerator`, from a ``genA2B`` of the public PyTorch code.

    Raises:
        CheckpointError: a tensor has no place in a generator, or those that tell its size are absent.
    """
    try:
        width = state["DownBlock.1.weight"].shape[0]
        cells = state["FC.0.weight"].shape[1] // (4 * width)
    except KeyError as error:
        raise CheckpointError(
            f"holds no U-GAT-IT generator: {error} is missing", missing=[str(error.args[0])]
        ) from error
    blocks = sum(name.endswith("norm1.rho") for name in state)
    names = {name: _clean(name, blocks) for name in state}
    if unknown := sorted(name for name, clean in names.items() if clean is None):
        raise CheckpointError(
            f"has {len(unknown)} tensors with no place in a U-GAT-IT generator: {unknown[:3]}",
            unexpected=unknown,
        )
    is_light = cells == 1
    config = {
        "side_px": 256 if is_light else 4 * round(cells**0.5),
        "width": width,
        "blocks": blocks,
        "is_light": is_light,
    }
    return config, {clean: state[name] for name, clean in names.items() if clean is not None}


_FIXED = {
    "DownBlock.1.weight": "stem.weight", "DownBlock.5.weight": "down.0.weight",
    "DownBlock.9.weight": "down.1.weight", "gap_fc.weight": "attention.mean.weight",
    "gmp_fc.weight": "attention.largest.weight", "conv1x1.weight": "attention.merge.weight",
    "conv1x1.bias": "attention.merge.bias", "FC.0.weight": "read.0.weight",
    "FC.2.weight": "read.2.weight", "gamma.weight": "gamma.weight", "beta.weight": "beta.weight",
    "UpBlock2.2.weight": "up.0.weight", "UpBlock2.7.weight": "up.1.weight",
    "UpBlock2.11.weight": "head.weight",
}  # fmt: skip
_CONVS = {"1": "conv1", "5": "conv2"}
_NORMS = {"3": "0", "8": "1"}


def _clean(name: str, blocks: int) -> str | None:
    """Our name of a public tensor; None where there is no such layer."""
    if name in _FIXED:
        return _FIXED[name]
    if match := re.fullmatch(r"DownBlock\.(\d+)\.conv_block\.([15])\.weight", name):
        index = int(match[1]) - 12
        return f"encode.{index}.{_CONVS[match[2]]}.weight" if 0 <= index < blocks else None
    if match := re.fullmatch(r"UpBlock1_(\d+)\.(conv[12]\.weight|norm[12]\.rho)", name):
        return f"decode.{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(r"UpBlock2\.([38])\.(rho|gamma|beta)", name):
        return f"up_norm.{_NORMS[match[1]]}.{match[2]}"
    return None
