"""Finetune the base generator G into a style's G': adversarial loss and semantic constraint (paper section 3.1).

Two stages. ``coarse`` trains the blocks up to the preview's features on the cheap 256 px path, where the look is made.
``full`` runs the whole network, compares its picture at 256 px, and lets what was learned settle under the last blocks,
which stay as they are: the style pictures are too small to say anything about the finest scale.

The mapping network and w_avg are shared with G and never trained, so a code w means the same person in both.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from facestyle.errors import ConfigError
from facestyle.latents import broadcast
from facestyle.models.checkpoints import save_tensors
from facestyle.models.discriminator import (
    ProjectedDiscriminator,
    discriminator_loss,
    generator_loss,
)
from facestyle.models.features import LiteFeatures, PerceptualLoss, fold_batch_norm
from facestyle.models.generator import Generator, sample_z
from facestyle.models.identity import load_identity
from facestyle.training.data import PictureSet, shuffled_batches
from facestyle.training.state import TrainingState
from facestyle.training.style_pictures import StylePictures, augment

__all__ = ["FinetuneConfig", "SemanticLoss", "finetune", "per_tensor_groups", "train_style"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Finetuning on one style. Rates are shares of a tensor's own size, see ``per_tensor_groups``.

    Attributes:
        coarse_steps: steps on the preview path.
        coarse_batch: pictures a step there.
        coarse_lr: relative step per tensor there, falling to 0 in the second half.
        full_steps: steps through the full-resolution path.
        full_batch: pictures a step there.
        full_lr: relative step per tensor there, falling likewise.
        discriminator_lr: Adam's rate of the discriminator.
        sem_weight: lambda_sem of the paper's eq. 3.
        identity_weight: share of the identity term inside the semantic constraint (paper eq. 1: 0.1).
        color_weight: share of the mean colour difference at 8 px inside the semantic constraint; 0 is the paper.
        psi_min, psi_max: codes are truncated by a psi drawn from this range.
        ema_half_life_nimg: half-life, in generated images, of the averaged weights.
        noise_scale: the style's noise planes are G's times this; 0 for smooth surfaces.
        replace_background: put cut-out style pictures (a plain ground) before blurred samples of G, so that the style
            does not learn the plain ground; "auto" does so when the set's borders are plain.
        flip: style pictures are mirrored at random.
        seed: of every random number.
        preview_every: steps between previews and checkpoints.
    """

    coarse_steps: int = 400
    coarse_batch: int = 4
    coarse_lr: float = 1e-3
    full_steps: int = 60
    full_batch: int = 3
    full_lr: float = 5e-4
    discriminator_lr: float = 2e-4
    sem_weight: float = 1.0
    identity_weight: float = 0.1
    color_weight: float = 0.0
    psi_min: float = 0.5
    psi_max: float = 0.9
    ema_half_life_nimg: int = 100
    noise_scale: float = 1.0
    replace_background: str = "auto"
    flip: bool = True
    seed: int = 0
    preview_every: int = 50

    def __post_init__(self) -> None:
        for name in ("coarse_batch", "full_batch", "preview_every", "ema_half_life_nimg"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("coarse_steps", "full_steps", "sem_weight", "identity_weight", "noise_scale"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.psi_min <= self.psi_max:
            raise ConfigError(
                f"psi_min must lie in [0, psi_max], got {self.psi_min} and {self.psi_max}"
            )
        if self.replace_background not in ("auto", "yes", "no"):
            raise ConfigError(
                f'replace_background must be "auto", "yes" or "no", got {self.replace_background!r}'
            )


class SemanticLoss(nn.Module):
    """Paper eq. 1: how far G'(w) strays from G(w) in content, [B]; perceptual + identity (+ colour).

    The perceptual part reads the maps of stride 8 to 32: finer ones see texture, which is what a style changes.

    Args:
        features: the frozen feature network.
        identity_weight: of 1 - cosine of identity embeddings.
        color_weight: of the mean absolute difference at 8 px (ours, 0 in the paper).
    """

    def __init__(self, features: LiteFeatures, identity_weight: float, color_weight: float) -> None:
        super().__init__()
        self.perceptual = PerceptualLoss(features, taps=(2, 3, 4))
        self.identity = load_identity()
        self.identity_weight = identity_weight
        self.color_weight = color_weight

    def forward(self, img: Tensor, source: Tensor) -> Tensor:
        """[B], for G'(w) and G(w), both [B, 3, 256, 256] in [-1, 1]."""
        with torch.no_grad():
            wanted, who = self.perceptual.describe(source), self.identity(source)
        total = self.perceptual.between(self.perceptual.describe(img), wanted)
        total = total + self.identity_weight * (1 - (self.identity(img) * who).sum(1))
        if self.color_weight:
            change = F.interpolate(img - source, size=8, mode="area")
            total = total + self.color_weight * change.abs().mean((1, 2, 3))
        assert isinstance(total, Tensor)
        return total


def per_tensor_groups(
    named: Sequence[tuple[str, nn.Parameter]], lr: float
) -> list[dict[str, object]]:
    """Optimiser groups in which every tensor moves by a share ``lr`` of its own root mean square.

    The distilled generator's tensors differ in size by a factor of a hundred; one rate for all would leave some
    untouched and wreck others.
    """
    return [
        {"params": [p], "lr": lr * max(p.detach().square().mean().sqrt().item(), 1e-4)}
        for _, p in named
    ]


def _draw(generator: Generator, w: Tensor, resolution: int) -> Tensor:
    img: Tensor = generator.synthesis(broadcast(w, generator.num_ws), resolution=resolution)
    if resolution != generator.preview_resolution:
        img = F.interpolate(img, size=generator.preview_resolution, mode="area")
    return img


def _coarse_parameters(generator: Generator) -> list[tuple[str, nn.Parameter]]:
    """What the preview path uses."""
    count = generator.synthesis.preview_blocks
    assert isinstance(count, int)
    late = tuple(f"blocks.{i}." for i in range(count, len(generator.synthesis.blocks)))  # type: ignore[arg-type]
    return [
        (name, p)
        for name, p in generator.synthesis.named_parameters()
        if not name.startswith((*late, "to_image."))
    ]


def finetune(
    generator: Generator,
    style: str | Path | Sequence[str | Path],
    out: str | Path,
    config: FinetuneConfig | None = None,
    *,
    progress: bool = True,
) -> Generator:
    """The style's generator G'; log, previews, snapshots and state stay in ``out``.

    Args:
        generator: G, left as it is.
        style: folder or zip file of aligned style pictures.
        out: folder of the run; an unfinished run found there goes on.
        config: what to do.
        progress: show progress bars.

    Raises:
        ConfigError: ``out`` holds a run of another config.
        DatasetError: the style pictures cannot be used.
    """
    config = config or FinetuneConfig()
    folder = Path(out)
    described = dataclasses.asdict(config)
    state = TrainingState(folder, described)
    side = generator.preview_resolution
    base = generator.eval().requires_grad_(False)
    target = copy.deepcopy(base)
    with torch.no_grad():
        for name, buffer in target.synthesis.named_buffers():
            if name.endswith(".noise"):
                buffer.mul_(config.noise_scale)
    ema = copy.deepcopy(target)

    features = LiteFeatures()
    fold_batch_norm(features.eval())
    features = features.requires_grad_(False).to(memory_format=torch.channels_last)
    torch.manual_seed(config.seed)
    discriminator = ProjectedDiscriminator(features)
    discriminator = discriminator.to(memory_format=torch.channels_last)
    semantic = SemanticLoss(features, config.identity_weight, config.color_weight)
    pictures = StylePictures(
        PictureSet(style, side), replace_background=config.replace_background, flip=config.flip
    )
    d_optimizer = torch.optim.Adam(
        discriminator.parameters(), lr=config.discriminator_lr, betas=(0.0, 0.99)
    )
    preview_w = base.w_avg + 0.7 * (base.mapping(sample_z(16, 200, base.w_dim)) - base.w_avg)

    def run(stage: str, steps: int, batch: int, lr: float, resolution: int) -> None:
        named = _coarse_parameters(target)
        if resolution != side:
            named = [(name, p) for name, p in named if not name.startswith("to_preview.")]
        target.requires_grad_(False)
        for _, p in named:
            p.requires_grad_(True)
        g_optimizer = torch.optim.Adam(per_tensor_groups(named, lr), betas=(0.0, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            g_optimizer,
            lambda step: min(1.0, (step + 1) / 20, 2 * (1 - step / max(steps, 1))),
        )
        modules = {
            "target": target, "ema": ema, "discriminator": discriminator,
            "g_optimizer": g_optimizer, "d_optimizer": d_optimizer, "schedule": schedule,
        }  # fmt: skip
        first = state.resume(stage, modules)
        order = shuffled_batches(
            len(pictures), batch, torch.Generator().manual_seed(config.seed + 17)
        )
        for _ in range(first):
            next(order)
        beta = 0.5 ** (batch / config.ema_half_life_nimg)
        bar = tqdm(
            range(first, steps), initial=first, total=steps, desc=stage, disable=not progress
        )
        began = time.monotonic()
        for step in bar:
            rng = torch.Generator().manual_seed(
                (config.seed * 1_000_003 + step) * 2 + (resolution != side)
            )
            with torch.no_grad():
                z = torch.randn(batch, base.w_dim, generator=rng)
                span = config.psi_max - config.psi_min
                psi = config.psi_min + span * torch.rand(batch, 1, generator=rng)
                w = base.w_avg + psi * (base.mapping(z) - base.w_avg)
                source = _draw(base, w, resolution)
            img = _draw(target, w, resolution)
            soften = _soften if resolution == side else _keep
            real = pictures.batch(next(order), source, rng)

            d_loss = discriminator_loss(
                discriminator(soften(augment(real, rng))),
                discriminator(soften(augment(img.detach(), rng))),
            )
            d_optimizer.zero_grad(set_to_none=True)
            d_loss.backward()
            d_optimizer.step()

            adversarial = generator_loss(discriminator(soften(augment(img, rng))))
            meaning = semantic(img, source).mean()
            g_optimizer.zero_grad(set_to_none=True)
            (adversarial + config.sem_weight * meaning).backward()
            g_optimizer.step()
            schedule.step()
            _update_ema(ema, target, beta)

            row = {"d": d_loss.item(), "adv": adversarial.item(), "sem": meaning.item()}
            bar.set_postfix({k: f"{v:.2f}" for k, v in row.items()})
            state.log(
                {"stage": stage, "step": step + 1, **row, "seconds": time.monotonic() - began}
            )
            if (step + 1) % config.preview_every == 0 or step + 1 == steps:
                _preview(base, ema, preview_w, folder / "previews" / f"{stage}_{step + 1:05d}.png")
                save_tensors(
                    ema.synthesis.state_dict(),
                    folder / "snapshots" / f"{stage}_{step + 1:05d}.safetensors",
                    metadata={"format": "facestyle-style", "version": "1"},
                    dtype=torch.float16,
                )
                state.save(stage, step + 1, modules)

    run("coarse", config.coarse_steps, config.coarse_batch, config.coarse_lr, side)
    run("full", config.full_steps, config.full_batch, config.full_lr, base.resolution)
    return ema.eval()


def train_style(
    generator: Generator,
    style: str | Path | Sequence[str | Path],
    out: str | Path,
    config: FinetuneConfig | None = None,
    *,
    name: str,
    psi: float = 0.7,
    data_license: str,
    progress: bool = True,
) -> Path:
    """Finetune and package: the folder ``OUT/style`` that ``FaceStylizer.from_pretrained`` reads.

    Args:
        generator: the bundled G.
        style: folder or zip file of aligned style pictures.
        out: folder of the run.
        config: what to do.
        name: short name of the style, lower case.
        psi: its default truncation.
        data_license: licence of the pictures, kept with the style.
        progress: show progress bars.

    Raises:
        ConfigError: a setting or the name is not allowed.
        DatasetError: the style pictures cannot be used.
    """
    from facestyle.hub.package import write_style
    from facestyle.models.zoo import base_sha256
    from facestyle.styles import StyleConfig

    config = config or FinetuneConfig()
    sources = [style] if isinstance(style, str | Path) else list(style)
    card = StyleConfig(
        name=name,
        title=name.replace("-", " ").capitalize(),
        description=f"Portraits in the style {name}.",
        architecture=generator.architecture,
        generator=generator.config(),
        base_sha256=base_sha256(),
        psi=psi,
        data={
            "sources": [Path(source).name for source in sources],
            "count": len(PictureSet(sources, 64)),
            "license": data_license,
        },
    )
    net = finetune(generator, sources, out, config, progress=progress)
    folder = Path(out) / "style"
    write_style(net, card, folder)
    (folder / "training.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    return folder


def _soften(img: Tensor) -> Tensor:
    """Without the finest scale, where the preview head's pictures differ from any real picture."""
    return F.interpolate(F.avg_pool2d(img, 2), scale_factor=2, mode="bilinear")


def _keep(img: Tensor) -> Tensor:
    return img


def _update_ema(ema: nn.Module, net: nn.Module, beta: float) -> None:
    with torch.no_grad():
        for average, p in zip(ema.parameters(), net.parameters(), strict=True):
            if p.requires_grad:
                average.lerp_(p, 1 - beta)


def _preview(base: Generator, ema: Generator, w: Tensor, path: Path) -> None:
    """Sheet of full pictures, G above G', at 256 px."""
    from torchvision.utils import save_image

    draw: Callable[[Generator], Tensor] = lambda net: torch.cat(  # noqa: E731
        [_draw(net, part, net.resolution) for part in w.split(1)]
    )
    with torch.no_grad():
        rows = [
            torch.cat([a, b]) for a, b in zip(draw(base).split(8), draw(ema).split(8), strict=True)
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(((torch.cat(rows) + 1) / 2).clamp(0, 1), path, nrow=8)
