"""Discriminators, each with its own loss.

The projected one judges pictures in the features of a frozen ImageNet network: "Projected GANs Converge Faster"
(arXiv:2111.01007), without the random cross-scale mixing. It needs far fewer pictures than one trained from pixels,
which is what a style set of a hundred pictures asks for. The other is StyleGAN2's own, with R1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from facestyle.errors import ConfigError
from facestyle.models.features import TAP_CHANNELS, LiteFeatures
from facestyle.models.stylegan2 import StyleGAN2Critic

__all__ = [
    "Adversary",
    "ProjectedDiscriminator",
    "StyleGAN2Discriminator",
    "discriminator_loss",
    "generator_loss",
    "make_adversary",
]


class Adversary(nn.Module, ABC):
    """What finetuning asks of a discriminator.

    Attributes:
        rate: Adam's rate that suits its weights.
    """

    rate: float

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """Scalar the discriminator descends; pictures are [B, 3, R, R] in [-1, 1], ``step`` counts from 0."""

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> Tensor:
        """Scalar the generator descends."""

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """Adam without momentum."""
        return torch.optim.Adam(self.parameters(), lr=rate, betas=(0.0, 0.99))


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


class ProjectedDiscriminator(Adversary):
    """Logit maps, one per feature tap, of pictures [B, 3, H, W] in [-1, 1]; above 0 means "from the style set".

    Args:
        features: the frozen feature network, shared with the losses.
        taps: which of its maps are judged.
        widths: channels of each tap's head.
    """

    rate = 2e-4

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

    def discriminator_loss(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """Hinge loss."""
        return discriminator_loss(self(real), self(fake))

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Minus the mean logit."""
        return generator_loss(self(fake))


class StyleGAN2Discriminator(Adversary):
    """StyleGAN2's discriminator with the logistic loss and lazy R1 (arXiv:1912.04958, section 3.1).

    R1's weight is 0.0002 R^2 / batch, at most 10; it is taken every ``r1_every`` steps and multiplied by that number.
    Weights lie near N(0, 1), so that a rate of 0.002 moves each by a five-hundredth a step.

    Args:
        resolution: side R of the pictures.
        width: share of config f's channels.
        r1_every: steps between penalties.
    """

    rate = 2e-3

    def __init__(self, resolution: int, *, width: float = 1.0, r1_every: int = 16) -> None:
        super().__init__()
        self.net = StyleGAN2Critic(resolution, width=width)
        self.resolution = resolution
        self.r1_every = r1_every

    def forward(self, img: Tensor) -> Tensor:
        """Logits [B, 1]; above 0 means "from the style set"."""
        logits = self.net(img)
        assert isinstance(logits, Tensor)
        return logits

    def discriminator_loss(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """Logistic loss, plus R1 on the real pictures every ``r1_every`` steps."""
        has_penalty = step % self.r1_every == 0
        real = real.detach().requires_grad_(has_penalty)
        logits = self(real)
        loss = F.softplus(-logits).mean() + F.softplus(self(fake)).mean()
        if has_penalty:
            (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            gamma = min(10.0, 0.0002 * self.resolution**2 / real.shape[0])
            penalty = slope.square().sum((1, 2, 3)).mean()
            loss = loss + gamma / 2 * self.r1_every * penalty
        return loss

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Non-saturating logistic loss."""
        return F.softplus(-self(fake)).mean()

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """Adam, its rate and memory corrected for a penalty that comes now and then (appendix B of the same paper)."""
        share = self.r1_every / (self.r1_every + 1)
        return torch.optim.Adam(self.parameters(), lr=rate * share, betas=(0.0, 0.99**share))


def make_adversary(
    kind: str, features: LiteFeatures, resolution: int, width: float = 1.0
) -> Adversary:
    """A fresh discriminator: "projected" on ``features``, or "stylegan2".

    Raises:
        ConfigError: there is no such kind.
    """
    if kind == "projected":
        return ProjectedDiscriminator(features)
    if kind == "stylegan2":
        return StyleGAN2Discriminator(resolution, width=width)
    raise ConfigError(f'the discriminator must be "projected" or "stylegan2", got {kind!r}')


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
