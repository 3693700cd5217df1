"""Encoders from an aligned face to the generator's latent spaces W, W+ and Z+: one trunk design, three heads.

Aligned faces have everything in its place, so the head keeps positions: the deep maps are narrowed, flattened and read
by a linear layer, beside the pooled features and the identity embedding of the same face. Batch normalisation is folded
into the convolutions from the start: training then never depends on what else is in the batch.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError, LatentShapeError
from facestyle.latents import broadcast
from facestyle.models.features import TAP_CHANNELS, LiteFeatures, fold_batch_norm
from facestyle.models.generator import Generator
from facestyle.models.identity import MobileFaceNet, load_identity

__all__ = ["SPACES", "Encoder", "Space", "to_w_plus"]

Space = Literal["w", "w_plus", "z_plus"]
"""Where a code lives: one w; one w a layer; one z a layer, which the mapping network turns into w."""

SPACES: tuple[Space, ...] = get_args(Space)


def to_w_plus(codes: Tensor, space: Space, generator: Generator) -> Tensor:
    """w_plus [B, num_ws, w_dim] of codes of any space: w [B, w_dim], or w_plus or z_plus [B, num_ws, w_dim].

    Every row of z_plus goes through the mapping network by itself (paper eq. 4).

    Raises:
        LatentShapeError: the codes do not fit the generator.
    """
    rows = broadcast(codes, generator.num_ws)
    if space == "z_plus":
        if codes.ndim != 3:
            raise LatentShapeError(f"z_plus codes are [B, rows, w_dim], got {list(codes.shape)}")
        rows = generator.mapping(rows)
    return rows


class Seen(NamedTuple):
    """What an encoder sees in pictures: features by place [B, F], and what its head makes of them [B, hidden]."""

    features: Tensor
    hidden: Tensor


class Encoder(nn.Module):
    """Aligned faces [B, 3, S, S] in [-1, 1] -> codes: [B, 512] in W, [B, rows, 512] in W+ and Z+.

    Any side S works; pictures are resized to ``input_px`` first. The code of W+ and Z+ is one code for all rows plus a
    correction per row, read through a narrow layer; rows of Z+ have length sqrt(512), where normal z's lie.

    Args:
        space: of the codes; ``rows`` must be 1 for W.
        rows: 1 for W, ``num_ws`` for W+ or Z+.
        w_dim: numbers in a row.
        input_px: side the trunk sees, a multiple of 32.
        hidden: width of the head.
        deep_channels: width of the narrowed stride-32 map.
        middle_channels: width of the narrowed stride-16 map.
        row_channels: width of the layer before the correction per row.
        corrections: how often `encode` draws the code and corrects it by what it sees in the picture.
        pretrained_trunk: start from ImageNet features and the bundled identity network, for training.

    Attributes:
        is_bundled: it comes with facestyle, and has learned its corrections from pictures of the bundled G.

    Raises:
        ConfigError: ``input_px`` is no multiple of 32, ``corrections`` is negative, or ``rows`` does not go with
            ``space``.
    """

    start: Tensor
    is_bundled: bool = False

    def __init__(
        self,
        *,
        space: Space = "w",
        rows: int = 1,
        w_dim: int = 512,
        input_px: int = 256,
        hidden: int = 768,
        deep_channels: int = 48,
        middle_channels: int = 16,
        row_channels: int = 256,
        corrections: int = 0,
        pretrained_trunk: bool = False,
    ) -> None:
        super().__init__()
        if input_px % 32 or input_px < 32:
            raise ConfigError(f"input_px must be a multiple of 32, got {input_px}")
        if space not in SPACES:
            raise ConfigError(f"space must be one of {', '.join(SPACES)}, got {space!r}")
        if rows < 1 or (space == "w" and rows > 1):
            raise ConfigError(f"rows must be 1 in W and 1 or more in W+ and Z+, got {rows}")
        if corrections < 0:
            raise ConfigError(f"corrections must be 0 or more, got {corrections}")
        self.space = space
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
        features = deep_channels * cells + middle_channels * cells * 4 + deep + 512
        self.read = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, w_dim)
        self.row_channels = row_channels
        self.by_row: nn.Sequential | None = None
        if space != "w":
            last = nn.Linear(row_channels, rows * w_dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.by_row = nn.Sequential(
                nn.Linear(hidden, row_channels), nn.LeakyReLU(0.2, inplace=True), last
            )
        self.corrections = corrections
        self.corrector = _Corrector(features, hidden, w_dim) if corrections else None
        self.register_buffer("start", torch.zeros(w_dim))

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-able."""
        return {
            "space": self.space,
            "rows": self.rows,
            "w_dim": self.w_dim,
            "input_px": self.input_px,
            "hidden": self.hidden,
            "deep_channels": self.deep_channels,
            "middle_channels": self.middle_channels,
            "row_channels": self.row_channels,
            "corrections": self.corrections,
        }

    def resize(self, img: Tensor) -> Tensor:
        """Aligned faces at the trunk's resolution."""
        if img.shape[-2:] == (self.input_px, self.input_px):
            return img
        size = (self.input_px, self.input_px)
        return F.interpolate(img, size=size, mode="bilinear", antialias=True).clamp(-1, 1)

    def forward(self, img: Tensor) -> Tensor:
        """[B, 3, S, S] in [-1, 1] -> [B, 512] in W, [B, rows, 512] in W+ and Z+; nothing is corrected."""
        return self.decode(self.look(img))

    def look(self, img: Tensor) -> Seen:
        """What is seen in pictures [B, 3, S, S]."""
        img = self.resize(img)
        *_, middle, deep = self.trunk(img)
        features = torch.cat(
            [
                self.deep(deep).flatten(1),
                self.middle(middle).flatten(1),
                deep.mean((2, 3)),
                self.identity(img) * 16,
            ],
            dim=1,
        )
        return Seen(features, F.leaky_relu(self.norm(self.read(features)), 0.2))

    def decode(self, seen: Seen) -> Tensor:
        """Codes of what is seen: [B, 512] in W, [B, rows, 512] in W+ and Z+."""
        return self._onto(self._raw(seen))

    def correct(self, codes: Tensor, photo: Seen, drawn: Seen) -> Tensor:
        """Codes nearer to a photo, by how the picture ``drawn`` from ``codes`` differs from it.

        Raises:
            ConfigError: this encoder has learned no corrections.
        """
        if self.corrector is None:
            raise ConfigError(
                "this encoder has no corrections; train one with corrections=1 or more"
            )
        change = self.corrector.gain * (self._raw(photo) - self._raw(drawn))
        learned: Tensor = self.corrector(photo, drawn)
        return self._onto(codes + change + (learned if self.by_row is None else learned[:, None]))

    def _raw(self, seen: Seen) -> Tensor:
        codes: Tensor = self.start + self.out(seen.hidden)
        if self.by_row is None:
            return codes
        rows: Tensor = self.by_row(seen.hidden).view(-1, self.rows, self.w_dim)
        return codes[:, None] + rows

    def _onto(self, codes: Tensor) -> Tensor:
        if self.space == "z_plus":
            return F.normalize(codes, dim=2) * math.sqrt(self.w_dim)
        return codes


class _Corrector(nn.Module):
    """What a correction adds to the plain difference of the two codes: nothing at the start."""

    def __init__(self, features: int, hidden: int, w_dim: int, width: int = 512) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.6))
        self.differ = nn.Linear(features, width // 2)
        self.mix = nn.Linear(width // 2 + 2 * hidden, width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, w_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, photo: Seen, drawn: Seen) -> Tensor:
        """[B, w_dim]."""
        difference = self.differ(photo.features - drawn.features)
        x = self.mix(torch.cat([difference, photo.hidden, drawn.hidden], dim=1))
        change: Tensor = self.out(F.leaky_relu(self.norm(x), 0.2))
        return change
