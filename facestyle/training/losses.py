"""How far a finetuned generator's pictures are from what they should keep, and from textures they should take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.faces.windows import distance_within, eyes_window, mean_within, mouth_window
from facestyle.models.features import LiteFeatures, PerceptualLoss
from facestyle.models.identity import load_identity

__all__ = ["SemanticLoss", "texture_distance"]


class SemanticLoss(nn.Module):
    """Paper eq. 1: how far G'(w) strays from G(w) in content, [B]; perceptual + identity (+ colour, + mouth, + eyes).

    The perceptual part reads maps of strides up to 32: the finest see texture, which is what a style changes.

    Args:
        features: the frozen feature network.
        identity_weight: of 1 - cosine of identity embeddings.
        color_weight: of the mean absolute difference at 8 px (ours, 0 in the paper).
        finest: the finest map, 2 for stride 8.
        mouth_weight: of the perceptual difference of strides 4 and 8 where aligned faces have their mouths (ours).
        eye_weight: of the same and of the mean absolute difference of pixels, where they have their eyes (ours).
    """

    mouth: Tensor
    eyes: Tensor

    def __init__(
        self,
        features: LiteFeatures,
        identity_weight: float,
        color_weight: float,
        finest: int = 2,
        mouth_weight: float = 0.0,
        eye_weight: float = 0.0,
    ) -> None:
        super().__init__()
        reads_fine = mouth_weight or eye_weight
        self.perceptual = PerceptualLoss(features, taps=range(1 if reads_fine else finest, 5))
        self.identity = load_identity()
        self.identity_weight = identity_weight
        self.color_weight = color_weight
        self.finest = finest
        self.mouth_weight = mouth_weight
        self.eye_weight = eye_weight
        self.register_buffer("mouth", mouth_window(), persistent=False)
        self.register_buffer("eyes", eyes_window(), persistent=False)

    def forward(self, img: Tensor, source: Tensor) -> Tensor:
        """[B], for G'(w) and G(w), both [B, 3, 256, 256] in [-1, 1]."""
        with torch.no_grad():
            wanted, who = self.perceptual.describe(source), self.identity(source)
        maps = self.perceptual.describe(img)
        first = self.finest - min(self.perceptual.taps)
        total = self.perceptual.between(maps[first:], wanted[first:])
        if self.mouth_weight:
            change = distance_within(self.mouth, maps[:2], wanted[:2])
            total = total + self.mouth_weight * change
        if self.eye_weight:
            change = distance_within(self.eyes, maps[:2], wanted[:2])
            change = change + mean_within(self.eyes, (img - source).abs().mean(1))
            total = total + self.eye_weight * change
        total = total + self.identity_weight * (1 - (self.identity(img) * who).sum(1))
        if self.color_weight:
            change = F.interpolate(img - source, size=8, mode="area")
            total = total + self.color_weight * change.abs().mean((1, 2, 3))
        assert isinstance(total, Tensor)
        return total


def texture_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """[B], how far apart the textures of two pictures are, from their channel-normalised maps [B, C, h, w].

    Squared difference of the channels' mean products over all positions, summed over the maps: 0 for pictures that have
    the same things in other places.
    """

    def products(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return flat @ flat.transpose(1, 2) / flat.shape[2]

    parts = [(products(x) - products(y)).square().sum((1, 2)) for x, y in zip(a, b, strict=True)]
    return torch.stack(parts).sum(0)
