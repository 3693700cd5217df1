"""Optimise a code so that G draws a given face: the ``refine`` option, and the ceiling for an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facestyle.errors import ConfigError
from facestyle.latents import broadcast
from facestyle.models.features import LiteFeatures, PerceptualLoss, fold_batch_norm
from facestyle.models.generator import Generator
from facestyle.models.identity import load_identity

__all__ = ["Inverter", "ReconstructionLoss", "ReconstructionTarget"]


@dataclass(frozen=True, slots=True)
class ReconstructionTarget:
    """What of a photo is compared, made once."""

    maps: list[Tensor]
    identity: Tensor
    small: Tensor


class ReconstructionLoss:
    """How far a picture is from a photo, both [B, 3, 256, 256]: perceptual + identity + difference at 32 px.

    Args:
        perceptual_weight: of the perceptual distance.
        identity_weight: of 1 - cosine of identity embeddings.
        pixel_weight: of the mean absolute difference at 32 px.
    """

    def __init__(
        self,
        *,
        perceptual_weight: float = 1.0,
        identity_weight: float = 2.0,
        pixel_weight: float = 2.0,
        device: str | torch.device = "cpu",
    ) -> None:
        features = LiteFeatures()
        fold_batch_norm(features.eval())
        self.perceptual = PerceptualLoss(features).to(memory_format=torch.channels_last).to(device)
        self.identity = load_identity(device).to(memory_format=torch.channels_last)
        self.weights = {
            "perceptual": perceptual_weight,
            "identity": identity_weight,
            "pixel": pixel_weight,
        }

    def target(self, photo: Tensor) -> ReconstructionTarget:
        """Features of the photos [B, 3, S, S] that stay."""
        with torch.no_grad():
            return ReconstructionTarget(
                self.perceptual.describe(photo),
                self.identity(photo),
                F.interpolate(photo, size=32, mode="area"),
            )

    def parts(self, img: Tensor, target: ReconstructionTarget) -> dict[str, Tensor]:
        """Unweighted terms, [B] each: "perceptual", "identity", "pixel"."""
        small = F.interpolate(img, size=32, mode="area")
        return {
            "perceptual": self.perceptual.between(self.perceptual.describe(img), target.maps),
            "identity": 1 - (self.identity(img) * target.identity).sum(1),
            "pixel": (small - target.small).abs().mean((1, 2, 3)),
        }

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """[B], the weighted sum of ``parts``."""
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum(0)


class Inverter:
    """Finds w_plus codes whose pictures look like given faces, by gradient descent through the preview path.

    The code is one w plus small offsets per row: the offsets are held down, because a code far from W still draws the
    photo in G but falls apart in a style's G'.

    Args:
        generator: G.
        loss: built when None.
        lr: Adam's rate in units of W's standard deviation (0.42 in FFHQ's W).
        offset_weight: weight of the offsets' mean square.
    """

    def __init__(
        self,
        generator: Generator,
        loss: ReconstructionLoss | None = None,
        *,
        lr: float = 0.1,
        offset_weight: float = 2.0,
    ) -> None:
        self.generator = generator
        self.device = generator.w_avg.device
        self.loss = loss or ReconstructionLoss(device=self.device)
        self.lr = lr
        self.offset_weight = offset_weight

    def __call__(
        self,
        photos: Tensor,
        start: Tensor,
        steps: int,
        *,
        on_step: Callable[[int], object] | None = None,
    ) -> Tensor:
        """The best w_plus [B, num_ws, 512] met within ``steps`` steps; the start itself counts.

        Args:
            photos: [B, 3, S, S] aligned faces in [-1, 1].
            start: w [B, 512] or w_plus [B, num_ws, 512].
            steps: of Adam, rate rising for the first tenth and falling to 0 in the second half.
            on_step: called with the number of steps done.

        Raises:
            ConfigError: ``steps`` is negative.
        """
        if steps < 0:
            raise ConfigError(f"steps must be 0 or more, got {steps}")
        side = self.generator.preview_resolution
        photos = F.interpolate(photos, size=(side, side), mode="bilinear", antialias=True)
        target = self.loss.target(photos.clamp(-1, 1).contiguous(memory_format=torch.channels_last))
        origin = broadcast(start, self.generator.num_ws).detach().to(self.device)
        shared = torch.zeros_like(origin[:, :1]).requires_grad_(True)
        offsets = torch.zeros_like(origin).requires_grad_(True)
        optimizer = torch.optim.Adam([shared, offsets], lr=self.lr * 0.42, betas=(0.8, 0.99))
        best = origin.clone()
        best_score = torch.full((origin.shape[0],), float("inf"), device=self.device)
        for step in range(steps + 1):
            w_plus = origin + shared + 0.5 * offsets
            with torch.set_grad_enabled(step < steps):
                img = self.generator.synthesis(w_plus, resolution=side)
                score = self.loss.total(self.loss.parts(img, target))
                score = score + self.offset_weight * offsets.square().mean((1, 2))
            is_better = score.detach() < best_score
            best_score = torch.where(is_better, score.detach(), best_score)
            best[is_better] = w_plus.detach()[is_better]
            if step == steps:
                break
            share = min(1.0, (step + 1) / max(1, steps // 10), 2 * (steps - step) / steps)
            for group in optimizer.param_groups:
                group["lr"] = self.lr * 0.42 * share
            optimizer.zero_grad(set_to_none=True)
            score.sum().backward()
            optimizer.step()
            if on_step is not None:
                on_step(step + 1)
        return best
