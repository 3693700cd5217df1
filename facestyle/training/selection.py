"""Score a generator on faces that training never draws, to choose among snapshots and averages of them.

A portrait's cosine to its photo's embedding falls with every style, whether or not the person is still to be told from
others: by it the snapshot nearest to a photo won. So what counts is whether a portrait is liker to its own photo.

The networks are the bundled ones, so that it works anywhere; they took part in training, so the score compares
snapshots of a run with each other and is no result to report. ``facestyle evaluate`` measures with others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from facestyle.evaluation.kid import kid
from facestyle.latents import broadcast, truncate
from facestyle.models.features import LiteFeatures
from facestyle.models.generator import Generator, sample_z
from facestyle.models.identity import load_identity
from facestyle.training.style_pictures import StylePictures

__all__ = ["HeldOut"]

_HALFWAY = 0.25
"""Of recognition, to chance: what counts as much as the whole style gap."""
_FIRST_SEED = 90_000
"""Held-out codes; training draws from seeds it makes of its own."""


class HeldOut:
    """Style and likeness of G' on held-out faces.

    Args:
        base: G.
        pictures: the style's.
        features: the frozen feature network.
        count: of faces.
        content: weight of lost recognition beside the style gap.
        psi: truncation of the faces.
    """

    def __init__(
        self,
        base: Generator,
        pictures: StylePictures,
        features: LiteFeatures,
        *,
        count: int = 32,
        content: float = 1.0,
        psi: float = 0.8,
    ) -> None:
        device = base.w_avg.device
        self.features = features
        self.identity = load_identity(device)
        self.content = content
        z = sample_z(count, _FIRST_SEED, base.w_dim).to(device)
        self.w = truncate(base.mapping(z), base.w_avg, psi)
        faces = self._draw(base)
        self.who = torch.cat([self.identity(part) for part in faces.split(8)])
        rng = torch.Generator().manual_seed(_FIRST_SEED)
        indices = list(range(len(pictures)))
        parts = []
        for start in range(0, len(indices), 8):
            chunk = indices[start : start + 8]
            scenes = faces.cpu()[torch.arange(len(chunk)) % count]
            parts.append(self._describe(pictures.batch(chunk, scenes, rng).to(device)))
        self.style = torch.cat(parts)
        self.gap_before = max(self._gap(faces), 1e-6)

    def __call__(self, generator: Generator) -> dict[str, float]:
        """``style_gap``, ``likeness``, ``recognition`` and ``score``.

        The gap is 1 for G and 0 for the style set itself. Likeness is the mean cosine to G's picture, recognition the
        share of other people to whose picture by G a portrait is less alike than to its own person's: 1 at best, 0.5
        by chance (the area under the ROC curve of telling people apart, portrait by portrait). The score is the gap
        plus ``content`` times what recognition lacks to 1, over 0.25; lower is better.
        """
        faces = self._draw(generator)
        gap = self._gap(faces) / self.gap_before
        who = torch.cat([self.identity(part) for part in faces.split(8)])
        cosines = who @ self.who.T
        own = cosines.diag()
        less = (cosines < own[:, None]).double() + 0.5 * (cosines == own[:, None]).double()
        recognition = ((less.sum(1) - 0.5) / (len(own) - 1)).mean().item()
        return {
            "style_gap": gap,
            "likeness": own.mean().item(),
            "recognition": recognition,
            "score": gap + self.content * (1 - recognition) / _HALFWAY,
        }

    def _draw(self, generator: Generator) -> Tensor:
        """[count, 3, S, S]: full pictures at the preview's side."""
        side = generator.preview_resolution
        drawn = []
        with torch.no_grad():
            for w in self.w.split(1):
                img = generator.synthesis(broadcast(w, generator.num_ws))
                drawn.append(F.interpolate(img, size=side, mode="area").clamp(-1, 1))
        return torch.cat(drawn)

    def _describe(self, img: Tensor) -> Tensor:
        """[B, 496]: means over positions of every map; the parts of a map have root mean square 1."""
        with torch.no_grad():
            maps = self.features(img)
        width = sum(m.shape[1] for m in maps[1:])
        parts = [F.normalize(m.mean((2, 3)), dim=1) for m in maps[1:]]
        scale: float = (width / len(parts)) ** 0.5
        return torch.cat(parts, dim=1) * scale

    def _gap(self, faces: Tensor) -> float:
        mine = torch.cat([self._describe(part) for part in faces.split(8)])
        return kid(mine.cpu().numpy(), self.style.cpu().numpy(), block_size=2, blocks=1).mean
