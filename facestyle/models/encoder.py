"""Encoders from an aligned face to the generator's latent space: one trunk, one head design.

Aligned faces have everything in its place, so the head keeps positions: the deep maps are narrowed, flattened and read
by a linear layer, beside the pooled features and the identity embedding of the same face. Batch normalisation is folded
into the convolutions from the start: training then never depends on what else is in the batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError
from facestyle.models.features import TAP_CHANNELS, LiteFeatures, fold_batch_norm
from facestyle.models.identity import MobileFaceNet, load_identity

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """E_w: aligned faces [B, 3, S, S] in [-1, 1] -> codes [B, rows, 512], [B, 512] when ``rows`` is 1.

    Any side S works; pictures are resized to ``input_px`` first.

    Args:
        rows: 1 for W, ``num_ws`` for W+ or Z+.
        w_dim: numbers in a row.
        input_px: side the trunk sees, a multiple of 32.
        hidden: width of the head.
        deep_channels: width of the narrowed stride-32 map.
        middle_channels: width of the narrowed stride-16 map.
        pretrained_trunk: start from ImageNet features and the bundled identity network, for training.

    Raises:
        ConfigError: ``input_px`` is no multiple of 32, or ``rows`` is below 1.
    """

    start: Tensor

    def __init__(
        self,
        *,
        rows: int = 1,
        w_dim: int = 512,
        input_px: int = 256,
        hidden: int = 768,
        deep_channels: int = 48,
        middle_channels: int = 16,
        pretrained_trunk: bool = False,
    ) -> None:
        super().__init__()
        if input_px % 32 or input_px < 32:
            raise ConfigError(f"input_px must be a multiple of 32, got {input_px}")
        if rows < 1:
            raise ConfigError(f"rows must be 1 or more, got {rows}")
        self.rows = rows
        self.w_dim = w_dim
        self.input_px = input_px
        self.hidden = hidden
        self.deep_channels = deep_channels
        self.middle_channels = middle_channels
        self.trunk = LiteFeatures(pretrained=pretrained_trunk)
        fold_batch_norm(self.trunk.eval())
        self.identity = (
            load_identity() if pretrained_trunk else MobileFaceNet().eval().requires_grad_(False)
        )
        middle, deep = TAP_CHANNELS[3], TAP_CHANNELS[4]
        self.deep = nn.Conv2d(deep, deep_channels, 1)
        self.middle = nn.Conv2d(middle, middle_channels, 1)
        cells = (input_px // 32) ** 2
        self.read = nn.Linear(
            deep_channels * cells + middle_channels * cells * 4 + deep + 512, hidden
        )
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, rows * w_dim)
        self.register_buffer("start", torch.zeros(w_dim))

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able."""
        return {
            "rows": self.rows,
            "w_dim": self.w_dim,
            "input_px": self.input_px,
            "hidden": self.hidden,
            "deep_channels": self.deep_channels,
            "middle_channels": self.middle_channels,
        }

    def resize(self, img: Tensor) -> Tensor:
        """Aligned faces at the trunk's resolution."""
        if img.shape[-2:] == (self.input_px, self.input_px):
            return img
        size = (self.input_px, self.input_px)
        return F.interpolate(img, size=size, mode="bilinear", antialias=True).clamp(-1, 1)

    def forward(self, img: Tensor) -> Tensor:
        """[B, 3, S, S] in [-1, 1] -> [B, 512], or [B, rows, 512] when ``rows`` is above 1."""
        img = self.resize(img)
        *_, middle, deep = self.trunk(img)
        x = torch.cat(
            [
                self.deep(deep).flatten(1),
                self.middle(middle).flatten(1),
                deep.mean((2, 3)),
                self.identity(img) * 16,
            ],
            dim=1,
        )
        x = F.leaky_relu(self.norm(self.read(x)), 0.2)
        w = self.start + self.out(x).view(-1, self.rows, self.w_dim)
        assert isinstance(w, Tensor)
        return w[:, 0] if self.rows == 1 else w
