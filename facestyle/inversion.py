"""Optimise a code so that a generator draws a given picture: ``refine``, references, and the ceiling for an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam

from facestyle.errors import ConfigError, FacestyleError
from facestyle.faces.windows import distance_within, mouth_window
from facestyle.latents import broadcast
from facestyle.models.features import LiteFeatures, PerceptualLoss, fold_batch_norm
from facestyle.models.generator import Generator
from facestyle.models.identity import load_identity

__all__ = [
    "QUICK_STEPS",
    "SEARCH",
    "Found",
    "Inverter",
    "OnStep",
    "ReconstructionLoss",
    "ReconstructionTarget",
    "refiner",
]

OnStep = Callable[[int], object]
"""Called with the number of steps done; ``False`` ends the search there, an exception goes through."""

SEARCH = 2
"""Which way codes are searched for, by optimisation of any kind here: another number, other codes of the same photo."""

QUICK_STEPS = 8
"""Steps of ``refine`` from the encoder's code that bring most of the likeness that 50 bring, in 1 to 3 seconds."""

_COARSE_PX = 32
"""Side at which colours are compared."""

_MOUTH_WEIGHT = 0.5
"""Of mouths in ``refine``: eight steps leave a closed one open otherwise."""

_BETAS, _QUICK_BETAS = (0.8, 0.99), (0.5, 0.9)
"""Of Adam. A search of few steps ends before the usual averages of gradients are worth anything."""


@dataclass(frozen=True, slots=True)
class ReconstructionTarget:
    """What of a photo is compared, made once."""

    maps: list[Tensor]
    identity: Tensor
    small: Tensor


class ReconstructionLoss:
    """How far a picture is from a photo, both [B, 3, 256, 256]: perceptual + identity + difference at 32 px (+ mouth).

    Args:
        perceptual_weight: of the perceptual distance.
        identity_weight: of 1 - cosine of identity embeddings.
        pixel_weight: of the mean absolute difference at 32 px.
        mouth_weight: of the perceptual distance at strides 4 and 8 where aligned faces have their mouths.
        device: of the networks.
    """

    def __init__(
        self,
        *,
        perceptual_weight: float = 1.0,
        identity_weight: float = 2.0,
        pixel_weight: float = 2.0,
        mouth_weight: float = 0.0,
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
        if mouth_weight:
            self.weights["mouth"] = mouth_weight
            self.mouth = mouth_window().to(device)

    def target(self, photo: Tensor) -> ReconstructionTarget:
        """Features of the photos [B, 3, S, S] that stay."""
        with torch.no_grad():
            return ReconstructionTarget(
                self.perceptual.describe(photo),
                self.identity(photo),
                F.interpolate(photo, size=_COARSE_PX, mode="area"),
            )

    def parts(self, img: Tensor, target: ReconstructionTarget) -> dict[str, Tensor]:
        """Unweighted terms, [B] each: "perceptual", "identity", "pixel", and "mouth" where it has a weight."""
        small = F.interpolate(img, size=_COARSE_PX, mode="area")
        maps = self.perceptual.describe(img)
        parts = {
            "perceptual": self.perceptual.between(maps, target.maps),
            "identity": 1 - (self.identity(img) * target.identity).sum(1),
            "pixel": (small - target.small).abs().mean((1, 2, 3)),
        }
        if "mouth" in self.weights:
            parts["mouth"] = distance_within(self.mouth, maps[1:3], target.maps[1:3])
        return parts

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """[B], the weighted sum of ``parts``."""
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum(0)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        w_plus: [B, num_ws, w_dim], the best codes met.
        score: [B], their loss.
        steps: that were made.
    """

    w_plus: Tensor
    score: Tensor
    steps: int


class Inverter:
    """Finds w_plus codes whose pictures look like given ones, by gradient descent through the preview path.

    The code is one w plus small offsets per row: the offsets are held down, because a code far from W still draws the
    photo in G but falls apart in a style's G'.

    Args:
        generator: G, or a style's G'.
        loss: built when None.
        lr: Adam's rate in units of the codes' standard deviation.
        std: that standard deviation (0.42 in FFHQ's W).
        offset_weight: weight of the offsets' mean square; None searches for one code for all rows.
        look_every: steps between looks at the full picture, for a generator whose preview has drifted from it: its
            broad colours correct the previews up to the next look, and only what was looked at can be the best. 0
            never looks and scores every preview.
        to_rows: from the coordinates of the search, [B, num_ws, D], to w_plus; None searches in W itself.
        prior: [B], added to the loss of w_plus [B, num_ws, D].
    """

    def __init__(
        self,
        generator: Generator,
        loss: ReconstructionLoss | None = None,
        *,
        lr: float = 0.1,
        std: float = 0.42,
        offset_weight: float | None = 2.0,
        look_every: int = 0,
        to_rows: Callable[[Tensor], Tensor] | None = None,
        prior: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.generator = generator
        self.device = generator.w_avg.device
        self.loss = loss or ReconstructionLoss(device=self.device)
        self.rate = lr * std
        self.offset_weight = offset_weight
        self.look_every = look_every
        self.to_rows = to_rows
        self.prior = prior

    def __call__(
        self, photos: Tensor, start: Tensor, steps: int, *, on_step: OnStep | None = None
    ) -> Tensor:
        """The best w_plus [B, num_ws, 512] that `search` meets."""
        return self.search(photos, start, steps, on_step=on_step).w_plus

    @torch.inference_mode(False)
    def search(
        self, photos: Tensor, start: Tensor, steps: int, *, on_step: OnStep | None = None
    ) -> Found:
        """The best codes met within ``steps`` steps, by picture; the start itself counts.

        Args:
            photos: [B, 3, S, S] aligned faces in [-1, 1].
            start: [B, D] or [B, num_ws, D], in the coordinates of the search.
            steps: of Adam, rate rising for the first tenth and falling to 0 in the second half.
            on_step: see `OnStep`.

        Raises:
            ConfigError: ``steps`` is negative.
            FacestyleError: no picture could be compared with a photo, not even the start's.
        """
        if steps < 0:
            raise ConfigError(f"steps must be 0 or more, got {steps}")
        side = self.generator.preview_resolution
        photos = F.interpolate(photos, size=(side, side), mode="bilinear", antialias=True)
        target = self.loss.target(photos.clamp(-1, 1).contiguous(memory_format=torch.channels_last))
        origin = broadcast(start, self.generator.num_ws).detach().to(self.device, copy=True)
        shared = torch.zeros_like(origin[:, :1]).requires_grad_(True)
        offsets = torch.zeros_like(origin).requires_grad_(self.offset_weight is not None)
        variables = [tensor for tensor in (shared, offsets) if tensor.requires_grad]
        betas = _QUICK_BETAS if steps <= 2 * QUICK_STEPS else _BETAS
        optimizer = _Adam(variables, betas)
        best = torch.zeros_like(origin)
        best_score = torch.full((origin.shape[0],), float("inf"), device=self.device)
        gap = torch.zeros((), device=self.device)
        step = 0
        while True:
            is_last = step >= steps
            is_scored = not self.look_every or step % self.look_every == 0 or is_last
            with torch.set_grad_enabled(not is_last):
                code = origin + shared + 0.5 * offsets
                w_plus = code if self.to_rows is None else self.to_rows(code)
                img = self.generator.synthesis(w_plus, resolution=side)
                if self.look_every:
                    if is_scored:
                        gap = self._gap(w_plus, img)
                    img = img + (gap if is_scored else _broad(gap))
                score = self.loss.total(self.loss.parts(img, target))
                if self.offset_weight is not None:
                    score = score + self.offset_weight * offsets.square().mean((1, 2))
                if self.prior is not None:
                    score = score + self.prior(w_plus)
            if is_scored:
                is_better = score.detach() < best_score
                best_score = torch.where(is_better, score.detach(), best_score)
                best[is_better] = w_plus.detach()[is_better]
            if is_last:
                break
            share = min(1.0, (step + 1) / max(1, steps // 10), 2 * (steps - step) / steps)
            optimizer.step(score.sum(), self.rate * share)
            step += 1
            if on_step is not None and on_step(step) is False:
                break
        if failed := int((~torch.isfinite(best_score)).sum()):
            raise FacestyleError(
                f"the search found no code for {failed} of {len(best_score)} photos, as no picture could be compared: "
                "photo, start or weights are not finite, or overflow; take others, or float32"
            )
        return Found(best, best_score, step)

    def _gap(self, w_plus: Tensor, preview: Tensor) -> Tensor:
        """What the full picture, at the preview's side, has more than the preview; no gradient goes through it."""
        with torch.no_grad():
            full = self.generator.synthesis(w_plus)
            gap: Tensor = F.interpolate(full, size=preview.shape[-2:], mode="area") - preview
        return gap


def refiner(generator: Generator) -> Inverter:
    """The search of ``refine`` in G, in which mouths count by themselves."""
    device = generator.w_avg.device
    return Inverter(generator, ReconstructionLoss(mouth_weight=_MOUTH_WEIGHT, device=device))


class _Adam:
    """Adam by torch's function: its class imports torch's compiler first, seconds before a first portrait."""

    def __init__(self, variables: list[Tensor], betas: tuple[float, float]) -> None:
        self.variables, self.betas = variables, betas
        self.means = [torch.zeros_like(variable) for variable in variables]
        self.squares = [torch.zeros_like(variable) for variable in variables]
        self.counts = [torch.zeros(()) for _ in variables]

    def step(self, loss: Tensor, rate: float) -> None:
        """Change the variables, so that the loss gets smaller."""
        slopes = list(torch.autograd.grad(loss, self.variables))
        beta1, beta2 = self.betas
        with torch.no_grad():
            adam(
                self.variables, slopes, self.means, self.squares, [], self.counts,
                amsgrad=False, beta1=beta1, beta2=beta2, lr=rate, weight_decay=0, eps=1e-8, maximize=False,
            )  # fmt: skip


def _broad(gap: Tensor) -> Tensor:
    """The same without detail, which would not follow the picture's changes."""
    coarse = F.interpolate(gap, size=_COARSE_PX, mode="area")
    return F.interpolate(coarse, size=gap.shape[-2:], mode="bilinear")
