"""A style loss without an adversary: every part of a portrait is drawn towards the nearest like part of the style set.

Heads are aligned, so an eye is compared with the eyes of the style pictures and a cheek with their cheeks. The nearest
neighbour of a feature is sought in a window around its place, over several style pictures at once: the pull goes to
something that some style picture shows there, where a discriminator of few pictures drags a whole face towards lines
that lie anywhere. Patch matching of this kind is from CNNMRF (arXiv:1601.04589); the window is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.models.features import LiteFeatures

__all__ = ["NearestPatches", "darker", "nearest_in_window"]

_TAPS = (1, 2, 3)
_REACH = (4, 2, 1)  # of the window, in cells of each map: 16 px of 256
_STEP = (2, 1, 1)  # between the places that are tried


def nearest_in_window(wanted: Tensor, bank: Tensor, reach: int, step: int = 1) -> Tensor:
    """For every place of ``wanted`` the feature of ``bank`` with the largest inner product, [B, C, h, w].

    Args:
        wanted: [B, C, h, w].
        bank: [K, C, h, w]; all K are searched.
        reach: largest distance along either axis, in cells.
        step: distance between the places tried, in cells.
    """
    batch, channels, high, wide = wanted.shape
    query = wanted.permute(2, 3, 0, 1).reshape(high * wide, batch, channels)
    best = torch.full((high * wide, batch), -torch.inf, device=wanted.device)
    found = torch.zeros_like(query)
    padded = F.pad(bank, (reach, reach, reach, reach), mode="replicate")
    for y in range(0, 2 * reach + 1, step):
        for x in range(0, 2 * reach + 1, step):
            there = padded[:, :, y : y + high, x : x + wide]
            there = there.permute(2, 3, 0, 1).reshape(high * wide, -1, channels)
            product, which = (query @ there.transpose(1, 2)).max(2)
            is_better = product > best
            chosen = there.gather(1, which[..., None].expand(-1, -1, channels))
            found = torch.where(is_better[..., None], chosen, found)
            best = torch.where(is_better, product, best)
    return found.reshape(high, wide, batch, channels).permute(2, 3, 0, 1)


def darker(img: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """A share of the pictures [B, 3, S, S] in [-1, 1], chosen at random, as if of darker skin.

    Gains are 0.3 to 0.9 in green, drawn for each picture; red keeps more of its light, blue less.
    """
    gain = 0.3 + 0.6 * torch.rand(len(img), 1, generator=rng)
    gains = gain ** torch.tensor([0.8, 1.0, 1.15])
    gains[torch.rand(len(img), generator=rng) >= share] = 1.0
    return (img + 1) * gains[:, :, None, None] - 1


class NearestPatches(nn.Module):
    """1 - cosine to the nearest like features of a style set, mean over places, summed over maps of stride 4, 8 and 16.

    Features are taken from their mean over the set first, else all are alike. The set is looked at once.

    Args:
        features: the frozen feature network.
        pictures: the style set in parts [N, 3, S, S] in [-1, 1].
        coverage: [1, S, S], how often the set shows something at a place, 0 to 1; so much each place counts. Cut-out
            heads say nothing of clothes and grounds, which are left to the person's picture. Every place when None.
    """

    def __init__(
        self, features: LiteFeatures, pictures: Iterable[Tensor], coverage: Tensor | None = None
    ) -> None:
        super().__init__()
        self._features = [features]
        kept: list[list[Tensor]] = [[] for _ in _TAPS]
        with torch.no_grad():
            for part in pictures:
                maps = features(part)
                for tap, rows in zip(_TAPS, kept, strict=True):
                    rows.append(maps[tap].half())
        self.bank = [torch.cat(rows) for rows in kept]
        self.middle = [m.float().mean((0, 2, 3))[None, :, None, None] for m in self.bank]
        self.shares = [_shares(coverage, m) for m in self.bank]

    def forward(self, img: Tensor, indices: Sequence[int], *, mirrored: bool = False) -> Tensor:
        """[B] for pictures [B, 3, S, S] in [-1, 1].

        Args:
            img: the portraits.
            indices: the style pictures that are searched this time.
            mirrored: search their mirrored feature maps. These are near to maps of their mirror images and not the
                same, as the network has a left and a right.
        """
        maps = self._features[0](img)
        total: Tensor | None = None
        for tap, bank, middle, shares, reach, step in zip(
            _TAPS, self.bank, self.middle, self.shares, _REACH, _STEP, strict=True
        ):
            here = F.normalize(maps[tap] - middle, dim=1)
            with torch.no_grad():
                some = bank[list(indices)].float() - middle
                some = F.normalize(some.flip(-1) if mirrored else some, dim=1)
                goal = nearest_in_window(here.detach(), some, reach, step)
            term = ((1 - (here * goal).sum(1)) * shares).sum((1, 2))
            total = term if total is None else total + term
        assert total is not None
        return total


def _shares(coverage: Tensor | None, bank: Tensor) -> Tensor:
    """[1, h, w] of sum 1: how much each place of a map counts."""
    size = (bank.shape[-2], bank.shape[-1])
    shares = torch.ones(1, *size) if coverage is None else F.adaptive_avg_pool2d(coverage, size)
    return (shares / shares.sum()).to(bank.device)
