"""pSp's encoder (arXiv:2008.00951): an IR-SE50 trunk, a feature pyramid, and one head for each row of the code.

e4e's (arXiv:2102.02766) is the same network; its first head reads one code for all rows, the others what a row adds to
it. The first head alone, on the deepest map, makes a code of W.

Tensors are named as in the public checkpoints, so that these load after their prefix is taken off; ``start`` is what
they keep as ``latent_avg``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError
from facestyle.models.encoder import SPACES, Encoder, Space
from facestyle.models.stylegan2_generator import EqualLinear

__all__ = ["AnyEncoder", "CodeHead", "IrSe50", "PspEncoder", "first_row"]

_COARSE_ROWS, _MIDDLE_ROWS = 3, 4


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.fc2 = nn.Conv2d(narrow, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(scale)


class _Unit(nn.Module):
    """Improved residual unit with squeeze and excitation."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        if before == after:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            _SqueezeExcite(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.res_layer(x) + self.shortcut_layer(x)
        assert isinstance(out, Tensor)
        return out


class IrSe50(nn.Module):
    """The trunk, for encoders to build upon.

    Args:
        widths: channels of the four groups of units.
        units: units in each group; the first of each halves the side.
    """

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512), units: Sequence[int] = (3, 4, 14, 3)
    ) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.PReLU(widths[0]),
        )
        self.body = nn.Sequential()
        before = widths[0]
        for width, count in zip(widths, units, strict=True):
            for i in range(count):
                self.body.append(_Unit(before, width, 2 if i == 0 else 1))
                before = width
        self.taps = [sum(units[: i + 1]) - 1 for i in (1, 2, 3)]

    def maps(self, img: Tensor) -> list[Tensor]:
        """[B, 3, S, S] in [-1, 1] -> [B, 128, S/4, S/4], [B, 256, S/8, S/8], [B, 512, S/16, S/16]."""
        x = self.input_layer(img)
        maps = []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in self.taps:
                maps.append(x)
        return maps


class CodeHead(nn.Module):
    """One row of the code from a map [B, C, s, s], by convolutions that halve it down to one position.

    Args:
        before: channels C.
        after: numbers in the row.
        side: s, a power of two from 2.
    """

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(round(math.log2(side))):
            layers += [nn.Conv2d(before if i == 0 else after, after, 3, 2, 1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(after, after)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, s, s] -> [B, after]."""
        out = self.linear(self.convs(x).flatten(1))
        assert isinstance(out, Tensor)
        return out


class PspEncoder(IrSe50):
    """Codes of aligned faces.

    Rows 0 to 2 are read from the map of stride 16, 3 to 6 from that of stride 8, the others from that of stride 4.

    Args:
        rows: of the code: 1 in W, else 8 or more, such as 18 for a 1024 px StyleGAN2.
        code_dim: numbers in a row.
        input_px: side the trunk sees, a power of two from 32.
        widths: of the trunk; the last must be ``code_dim``.
        units: of the trunk.
        space: of the codes; whether they are of W+ or Z+ is a matter of the training.
        deltas: rows behind the first are added to it, as in e4e.

    Attributes:
        start: [rows, code_dim], added to what the heads read: the mean of W for encoders trained from there, else 0.

    Raises:
        ConfigError: the sizes cannot be built, or ``rows`` does not go with ``space``.
    """

    start: Tensor

    def __init__(
        self,
        rows: int = 18,
        *,
        code_dim: int = 512,
        input_px: int = 256,
        widths: Sequence[int] = (64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
        space: Space = "w_plus",
        deltas: bool = False,
    ) -> None:
        if space not in SPACES or (space == "w") != (rows == 1):
            raise ConfigError(f"rows must be 1 in W and more in W+ and Z+, got {rows} in {space!r}")
        if 1 < rows <= _COARSE_ROWS + _MIDDLE_ROWS or rows < 1 or widths[-1] != code_dim:
            raise ConfigError(
                f"expected 8 rows or more and a last width of {code_dim}, got {rows} and {list(widths)}"
            )
        if input_px < 32 or input_px & (input_px - 1):
            raise ConfigError(f"input_px must be a power of two from 32, got {input_px}")
        super().__init__(widths, units)
        self.rows, self.code_dim, self.input_px = rows, code_dim, input_px
        self.widths, self.units = tuple(widths), tuple(units)
        self.space, self.deltas = space, deltas
        heads = [input_px // 16] * _COARSE_ROWS + [input_px // 8] * _MIDDLE_ROWS
        heads += [input_px // 4] * (rows - len(heads))
        self.styles = nn.ModuleList(CodeHead(code_dim, code_dim, side) for side in heads[:rows])
        if rows > 1:
            self.latlayer1 = nn.Conv2d(widths[2], code_dim, 1)
            self.latlayer2 = nn.Conv2d(widths[1], code_dim, 1)
        self.register_buffer("start", torch.zeros(rows, code_dim))

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able."""
        return {
            "rows": self.rows,
            "code_dim": self.code_dim,
            "input_px": self.input_px,
            "widths": list(self.widths),
            "units": list(self.units),
            "space": self.space,
            "deltas": self.deltas,
        }

    def forward(self, img: Tensor) -> Tensor:
        """[B, 3, S, S] in [-1, 1], resized to ``input_px`` -> [B, code_dim] in W, else [B, rows, code_dim]."""
        if img.shape[-1] != self.input_px:
            size = (self.input_px, self.input_px)
            img = F.interpolate(img, size=size, mode="bilinear", antialias=True)
        c1, c2, c3 = self.maps(img)
        if self.rows == 1:
            code: Tensor = self.start[0] + self.styles[0](c3)
            return code
        p2 = _added(c3, self.latlayer1(c2))
        p1 = _added(p2, self.latlayer2(c1))
        maps = [c3] * _COARSE_ROWS + [p2] * _MIDDLE_ROWS
        maps += [p1] * (self.rows - len(maps))
        codes = torch.stack([head(x) for head, x in zip(self.styles, maps, strict=True)], dim=1)
        if self.deltas:
            codes = torch.cat([codes[:, :1], codes[:, :1] + codes[:, 1:]], dim=1)
        return self.start + codes


AnyEncoder = Encoder | PspEncoder


def _added(deep: Tensor, lateral: Tensor) -> Tensor:
    """The deeper map enlarged, plus the lateral one."""
    large = F.interpolate(deep, size=lateral.shape[-2:], mode="bilinear", align_corners=True)
    return large + lateral


def first_row(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and tensors of the encoder into W that an e4e encoder holds: its first head alone."""
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(("latlayer", "styles.")) or name.startswith("styles.0.")
    }
    kept["start"] = tensors["start"][:1].contiguous()
    return {**config, "rows": 1, "space": "w", "deltas": False}, kept
