"""Make a finished style's portraits more like their people: learn a `LatentMap` of its codes, with all weights frozen.

Finetuning towards a style blunts what tells people apart: men lose beards and hairlines and look like boys, children
look older, brows and glasses fade. The weights could draw all that, only not from the same code. So a linear map of W,
of few directions, is learned through G': identity of G'(map(w)) to G(w), and how male and how old both look, read off
the same embedding. It is held to what G' drew before, by a perceptual distance and by the size of the change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from facestyle.errors import ConfigError
from facestyle.evaluation.people import SAMPLE_PSI, pil_pictures, sample_w, to_levels
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.latents import broadcast
from facestyle.models.appearance_probe import load_probe
from facestyle.models.checkpoints import weights_sha256
from facestyle.models.features import LiteFeatures, PerceptualLoss, fold_batch_norm
from facestyle.models.generator import Generator
from facestyle.models.identity import load_identity
from facestyle.models.latent_map import LatentMap
from facestyle.models.zoo import load_style_base, load_style_generator
from facestyle.processes import Processes
from facestyle.seeds import TRAINING_SEEDS, check_seed, numbered_seed
from facestyle.styles import LIKENESS_FILE, StyleConfig
from facestyle.training.derive import check_apart, complete_derived, descend, origin_of
from facestyle.training.people import random_people
from facestyle.training.state import TrainingState

__all__ = ["LikenessConfig", "learn_likeness", "liken_style"]

_STAGE = "likeness"
_SHOWN = 8
"""People on previews, whom no step draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LikenessConfig:
    """How a style's map of codes is learned.

    Attributes:
        steps: of Adam; 0 learns none.
        batch: people a step, of each process.
        rank: directions of W that the map reads and writes.
        lr: Adam's rate for what it reads; twice that for where it leads. It falls to 0 over the last third.
        appearance_weight: of the squared change of how male and how old a face looks, by an identity embedding
            (`models.appearance_probe`); that of the identity itself, 1 - cosine, is 1.
        keep_weight: of the perceptual distance to what G' draws without the map.
        offset_weight: of the mean square change of the code, in units of the codes' standard deviation.
        psi_min, psi_max: truncation of the people is drawn from this range.
        preview_every: steps between previews, each with a checkpoint.
        seed: of everything random.
    """

    steps: int = 250
    batch: int = 6
    rank: int = 32
    lr: float = 2e-3
    appearance_weight: float = 0.2
    keep_weight: float = 0.07
    offset_weight: float = 0.1
    psi_min: float = 0.6
    psi_max: float = 1.0
    preview_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        for name in ("batch", "rank", "preview_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("steps", "lr", "appearance_weight", "keep_weight", "offset_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.psi_min <= self.psi_max <= 1.5:
            raise ConfigError(
                f"psi_min and psi_max must be in order in [0, 1.5], got {self.psi_min}, {self.psi_max}"
            )


class _Map(nn.Module):
    """A `LatentMap` while it is learned: nothing at first, for where it leads is 0."""

    def __init__(self, centre: Tensor, rank: int, rng: torch.Generator) -> None:
        super().__init__()
        w_dim = len(centre)
        self.register_buffer("centre", centre.clone())
        self.down = nn.Parameter(torch.randn(w_dim, rank, generator=rng).to(centre) / w_dim**0.5)
        self.up = nn.Parameter(torch.zeros(rank, w_dim).to(centre))

    def forward(self, w: Tensor) -> Tensor:
        """Codes [B, w_dim] to codes."""
        mapped: Tensor = self.as_map()(w)
        return mapped

    def as_map(self) -> LatentMap:
        """What it is by now."""
        assert isinstance(self.centre, Tensor)
        return LatentMap(self.centre, self.down, self.up)


def learn_likeness(
    base: Generator,
    styled: Generator,
    out: str | Path,
    config: LikenessConfig | None = None,
    *,
    processes: Processes | None = None,
    progress: bool = True,
) -> LatentMap:
    """The map of a style's codes with which its portraits are most like G's people; nothing else is trained.

    Args:
        base: G.
        styled: G', without a map worked in; both stay as they are.
        out: folder of the run: log, previews (G, G' before, G' now) and state; an unfinished run found there goes on.
        config: what to do.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show a progress bar.

    Raises:
        ConfigError: ``out`` holds a run of another config or another style.
        OutputError: ``out`` cannot be written.
    """
    config = config or LikenessConfig()
    processes = processes or Processes()
    device = processes.device
    described = dataclasses.asdict(config) | {
        "style_sha256": weights_sha256(styled.synthesis),
        "base_sha256": weights_sha256(base.synthesis),
    }
    state = TrainingState(
        out, described, defaults=dataclasses.asdict(LikenessConfig()), is_main=processes.is_main
    )
    base, styled = (net.eval().requires_grad_(False).to(device) for net in (base, styled))
    losses = _Losses(base, styled, config)
    rng = torch.Generator().manual_seed(config.seed)
    learned = _Map(base.w_avg, config.rank, rng)
    optimizer = torch.optim.Adam(
        [
            {"params": [learned.down], "lr": config.lr},
            {"params": [learned.up], "lr": 2 * config.lr},
        ],
        betas=(0.8, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 3 * (1 - step / max(config.steps, 1)))
    )

    def loss(rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        terms = losses(losses.people(rng), learned)
        return losses.total(terms), terms

    descend(
        state, _STAGE, config.steps, {"map": learned, "optimizer": optimizer, "schedule": schedule},
        learned.parameters(), loss,
        seed=lambda step: numbered_seed(config.seed, step) * 1_009,
        preview=partial(_preview, base, styled, learned), preview_every=config.preview_every,
        processes=processes, progress=progress,
    )  # fmt: skip
    found = learned.as_map()
    return LatentMap(*(part.detach().cpu() for part in (found.centre, found.down, found.up)))


class _Losses:
    """People, and what is wrong with their portraits."""

    def __init__(self, base: Generator, styled: Generator, config: LikenessConfig) -> None:
        self.base, self.styled, self.config = base, styled, config
        device = base.w_avg.device
        features = LiteFeatures()
        fold_batch_norm(features.eval())
        self.perceptual = PerceptualLoss(features, taps=(1, 2, 3, 4)).to(device)
        self.identity = load_identity(device)
        self.probe = load_probe(device)
        rng = torch.Generator().manual_seed(config.seed)
        with torch.no_grad():
            z = torch.randn(2048, base.w_dim, generator=rng).to(device)
            self.std = (base.mapping(z) - base.w_avg).std()

    def people(self, rng: torch.Generator) -> Tensor:
        """Codes [batch, w_dim] of people who do not exist."""
        config = self.config
        return random_people(self.base, config.batch, config.psi_min, config.psi_max, rng)

    def __call__(self, w: Tensor, learned: nn.Module) -> dict[str, Tensor]:
        """Unweighted means of the terms, and "before": the identity term without the map, to compare with."""
        with torch.no_grad():
            who = self.identity(_small(self.base, w))
            before = _small(self.styled, w)
            was = 1 - (self.identity(before) * who).sum(1)
            maps, looks = self.perceptual.describe(before), self.probe(who)
        mapped = learned(w)
        img = _small(self.styled, mapped)
        seen = self.identity(img)
        return {
            "identity": (1 - (seen * who).sum(1)).mean(),
            "before": was.mean(),
            "appearance": (self.probe(seen) - looks).square().sum(1).mean(),
            "keep": self.perceptual.between(self.perceptual.describe(img), maps).mean(),
            "offset": ((mapped - w) / self.std).square().mean(),
        }

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """What is to be small."""
        config = self.config
        return (
            terms["identity"]
            + config.appearance_weight * terms["appearance"]
            + config.keep_weight * terms["keep"]
            + config.offset_weight * terms["offset"]
        )


def _small(generator: Generator, w: Tensor) -> Tensor:
    img: Tensor = generator.synthesis(
        broadcast(w, generator.num_ws), resolution=generator.preview_resolution
    )
    return img


def _preview(base: Generator, styled: Generator, learned: nn.Module, path: Path) -> None:
    with torch.no_grad():
        w = sample_w(base, _SHOWN, SAMPLE_PSI)
        rows = [_small(base, w), _small(styled, w), _small(styled, learned(w))]
    sheet = contact_sheet(
        [list(pil_pictures(to_levels(row))) for row in rows],
        cell_px=192,
        row_labels=["G", "before", "now"],
    )
    save_sheet(sheet, path)


def liken_style(
    folder: str | Path,
    out: str | Path,
    config: LikenessConfig | None = None,
    *,
    processes: Processes | None = None,
    progress: bool = True,
) -> Path:
    """A finished style with a map of its codes: the folder ``OUT/style``; the run stays in ``OUT/likeness``.

    A map that the style has is replaced. Its scores are not taken over: they are of the portraits before.

    Args:
        folder: of the style; it stays as it is.
        out: folder of the run; an unfinished run found there goes on.
        config: what to do.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show a progress bar.

    Raises:
        ConfigError: no steps are asked for, or ``out`` holds a run of another config or another style.
        CheckpointError: the style is damaged.
        OutputError: ``out`` cannot be written, or is the style's own folder.
    """
    config = config or LikenessConfig()
    processes = processes or Processes()
    folder, out = Path(folder), Path(out)
    if not config.steps:
        raise ConfigError("with steps 0 nothing is learned; ask for 1 or more")
    target = out / "style"
    check_apart(folder, target, "likeness")
    card = replace(StyleConfig.from_file(folder / "config.json"), likeness=0.0)
    base = load_style_base(folder)
    styled = load_style_generator(folder, base, replace(card, keep_shape=0.0))
    learned = learn_likeness(
        base, styled, out / _STAGE, config, processes=processes, progress=progress
    )
    if processes.is_main:
        learned.save(target / LIKENESS_FILE)
        origin = origin_of(out / _STAGE, config, processes.device)
        liked = replace(card, likeness=1.0)
        complete_derived(folder, target, liked, LIKENESS_FILE, "likeness", origin)
    processes.wait()
    return target
