"""Discriminators. The projected one judges pictures in the features of a frozen ImageNet network.

Source: "Projected GANs Converge Faster" (arXiv:2111.01007), without the random cross-scale mixing. It needs far fewer
pictures than one trained from pixels, which is what a style set of a hundred pictures asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from facestyle.models.features import TAP_CHANNELS, LiteFeatures

__all__ = ["ProjectedDiscriminator", "discriminator_loss", "generator_loss"]


def _head(channels: int, width: int, halvings: int) -> nn.Sequential:
    layers: list[nn.Module] = [
        spectral_norm(nn.Conv2d(channels, width, 1)),
        nn.LeakyReLU(0.2),
    ]
    for _ in range(halvings):
        layers += [
            spectral_norm(nn.Conv2d(width, width, 4, 2, 1)),
            nn.GroupNorm(width // 16, width),
            nn.LeakyReLU(0.2),
        ]
    layers += [
        spectral_norm(nn.Conv2d(width, width, 3, 1, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 1, 3, 1, 1)),
    ]
    return nn.Sequential(*layers)


class ProjectedDiscriminator(nn.Module):
    """Logit maps, one per feature tap, of pictures [B, 3, H, W] in [-1, 1]; above 0 means "from the style set".

    Args:
        features: the frozen feature network, shared with the losses.
        taps: which of its maps are judged.
        widths: channels of each tap's head.
    """

    def __init__(
        self,
        features: LiteFeatures,
        taps: Sequence[int] = (1, 2, 3, 4),
        widths: Sequence[int] = (48, 64, 96, 128),
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.heads = nn.ModuleList(
            _head(TAP_CHANNELS[tap], width, max(0, 3 - tap))
            for tap, width in zip(taps, widths, strict=True)
        )
        self._features = [features]  # in a list: frozen, and not part of this module's state

    def forward(self, img: Tensor) -> list[Tensor]:
        """One map [B, 1, h, w] a tap."""
        maps = self._features[0](img)
        return [head(maps[tap]) for head, tap in zip(self.heads, self.taps, strict=True)]


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Hinge loss of the discriminator, mean over positions, summed over taps; 0 when sure and right everywhere."""
    terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """The generator's side of the hinge loss: minus the mean logit, summed over taps."""
    total = -fake[0].mean()
    for logits in fake[1:]:
        total = total - logits.mean()
    return total
