"""DualStyleGAN's generator (arXiv:2203.13248): StyleGAN2 with an extrinsic style path beside the intrinsic one.

The extrinsic path takes a style picture's code. In the coarse layers modulative residual blocks (ModRes) add to the
features what the structure transform T_s makes of it; in the fine layers a colour transform T_c a row makes it a row of
w_plus, mixed with the photo's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.models.stylegan2_generator import (
    EqualLinear,
    StyleGAN2Generator,
    StyleGAN2Synthesis,
    from_rosinality,
    scaled_leaky_relu,
)

__all__ = ["DualStyleGenerator", "from_public"]


class _AdaIn(nn.Module):
    """Instance norm, scaled and shifted by what a linear layer makes of a style; starts as the norm alone."""

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.style = nn.Linear(w_dim, 2 * channels)
        with torch.no_grad():
            self.style.bias.copy_(torch.cat([torch.ones(channels), torch.zeros(channels)]))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.style(style)[:, :, None, None].chunk(2, dim=1)
        out = gamma * F.instance_norm(x) + beta
        assert isinstance(out, Tensor)
        return out


class _Conv(nn.Module):
    """3x3 convolution with equalised learning rate and activation; starts near 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) * 0.01)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gain = 1 / math.sqrt(channels * 9)

    def forward(self, x: Tensor) -> Tensor:
        out = F.conv2d(x, self.weight * self.gain, padding=1)
        return scaled_leaky_relu(out + self.bias[:, None, None])


class _ModRes(nn.Module):
    """Modulative residual block; adds next to nothing before it is trained."""

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.norm1 = _AdaIn(channels, w_dim)
        self.conv1 = _Conv(channels)
        self.norm2 = _AdaIn(channels, w_dim)
        self.conv2 = _Conv(channels)

    def forward(self, x: Tensor, style: Tensor, weight: float) -> Tensor:
        if weight == 0:
            return x
        out = self.conv1(self.norm1(x, style))
        out = x + weight * self.conv2(self.norm2(out, style))
        assert isinstance(out, Tensor)
        return out


class _StructureTransform(nn.Module):
    """T_s: each style code to length sqrt(w_dim), then two layers."""

    def __init__(self, w_dim: int, depth: int = 2) -> None:
        super().__init__()
        self.fc = nn.ModuleList(EqualLinear(w_dim, w_dim, rate=0.01) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8)
        for layer in self.fc:
            x = scaled_leaky_relu(layer(x))
        return x


def _color_transform(w_dim: int) -> EqualLinear:
    """A linear layer that starts near the identity."""
    layer = EqualLinear(w_dim, w_dim)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(w_dim) * math.sqrt(w_dim) + 0.01 * torch.randn(w_dim, w_dim))
    return layer


class DualStyleGenerator(nn.Module):
    """Photo's z_plus and style picture's z_plus to a picture.

    Args:
        generator: arguments of the :class:`StyleGAN2Generator` inside.
        structure_rows: rows with a ModRes block; the others have a colour transform.

    Raises:
        ConfigError: the generator's layers are not that many.
    """

    def __init__(
        self, generator: Mapping[str, Any] | None = None, *, structure_rows: int = 7
    ) -> None:
        super().__init__()
        self.generator = StyleGAN2Generator(**dict(generator or {}))
        rows, w_dim = self.generator.num_ws, self.generator.w_dim
        if not 1 <= structure_rows < rows or structure_rows % 2 == 0:
            raise ConfigError(
                f"structure_rows must be odd and below {rows}, so that whole blocks are changed, got {structure_rows}"
            )
        self.structure_rows = structure_rows
        synthesis = self.generator.synthesis
        assert isinstance(synthesis, StyleGAN2Synthesis)
        channels = [synthesis.channels[(row + 1) // 2] for row in range(structure_rows)]
        self.structure = nn.ModuleList(_ModRes(c, w_dim) for c in channels)
        self.color = nn.ModuleList(_color_transform(w_dim) for _ in range(rows - structure_rows))
        self.transform = _StructureTransform(w_dim)

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able."""
        return {"generator": self.generator.config(), "structure_rows": self.structure_rows}

    def forward(
        self, content: Tensor, style: Tensor, weights: Sequence[float], *, psi: float = 1.0
    ) -> Tensor:
        """Pictures [B, 3, R, R] in about [-1, 1], not clamped.

        Args:
            content: z_plus [B, num_ws, w_dim] of the photos.
            style: z_plus of the style pictures, the same shape.
            weights: of the extrinsic path, one a row: of ModRes in the first rows, of the mix of rows behind them.
            psi: shrinks the photos' w_plus towards 0, as the authors' script does (not towards the mean of W).

        Raises:
            LatentShapeError: a code has another shape.
            ConfigError: the weights are not one a row.
        """
        rows = self.generator.num_ws
        if content.shape != style.shape:
            raise LatentShapeError(
                f"expected two z_plus codes of one shape, got {list(content.shape)} and {list(style.shape)}"
            )
        if len(weights) != rows:
            raise ConfigError(f"expected {rows} weights, one a row, got {len(weights)}")
        intrinsic = psi * self.generator.mapping(content)
        extrinsic = self.generator.mapping(style)
        modulation = self.transform(extrinsic)
        mixed = list(intrinsic.unbind(1))
        for row, transform in enumerate(self.color, start=self.structure_rows):
            colored = transform(extrinsic[:, row])
            mixed[row] = torch.lerp(mixed[row], colored, weights[row])

        def add_structure(row: int, x: Tensor) -> Tensor:
            if row >= self.structure_rows:
                return x
            out = self.structure[row](x, modulation[:, row], weights[row])
            assert isinstance(out, Tensor)
            return out

        img = self.generator.synthesis(torch.stack(mixed, dim=1), after_conv=add_structure)
        assert isinstance(img, Tensor)
        return img


def from_public(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and tensors of a :class:`DualStyleGenerator`, from a ``g_ema`` of the public code.

    ``generator.mapping.w_avg`` is not among them.

    Raises:
        CheckpointError: a tensor has no place in the network, or one that tells its size is absent.
    """
    inner = {
        k.removeprefix("generator."): v for k, v in state.items() if k.startswith("generator.")
    }
    if not inner:
        raise CheckpointError("holds no DualStyleGAN generator: nothing is named generator.*")
    config, tensors = from_rosinality(inner)
    tensors = {f"generator.{name}": tensor for name, tensor in tensors.items()}
    structure_rows = sum(re.fullmatch(r"res\.\d+\.conv\.0\.weight", k) is not None for k in state)
    unknown = []
    for name, tensor in state.items():
        if name.startswith("generator."):
            continue
        clean = _clean_name(name, structure_rows)
        if clean is None:
            unknown.append(name)
        else:
            tensors[clean] = tensor
    if unknown:
        raise CheckpointError(
            f"has {len(unknown)} tensors with no place in a DualStyleGAN: {sorted(unknown)[:3]}",
            unexpected=sorted(unknown),
        )
    return {"generator": config, "structure_rows": structure_rows}, tensors


_MOD_RES = {
    "conv.0.weight": "conv1.weight", "conv.1.bias": "conv1.bias",
    "conv2.0.weight": "conv2.weight", "conv2.1.bias": "conv2.bias",
    "norm.style.weight": "norm1.style.weight", "norm.style.bias": "norm1.style.bias",
    "norm2.style.weight": "norm2.style.weight", "norm2.style.bias": "norm2.style.bias",
}  # fmt: skip


def _clean_name(name: str, structure_rows: int) -> str | None:
    """Our name of a public tensor of the extrinsic path; None where there is no such layer."""
    if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
        return f"transform.fc.{int(match[1]) - 1}.{match[2]}"
    match = re.fullmatch(r"res\.(\d+)\.(.+)", name)
    if match is None:
        return None
    row, part = int(match[1]), match[2]
    if row < structure_rows:
        return f"structure.{row}.{_MOD_RES[part]}" if part in _MOD_RES else None
    return f"color.{row - structure_rows}.{part}" if part in ("weight", "bias") else None
