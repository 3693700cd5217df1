"""Give a finished style's portraits their people's hair back: train its convolutions on what lies around the face.

A small style set has few heads of hair. Finetuned to it, a generator puts helmets on everybody, straightens curls, cuts
fringes, darkens fair hair, and washes out clothes and grounds. Faces are what the style is for; the rest a painter
would paint as he sees it. So around the face the portraits are drawn towards G's picture of the same person as a broad
brush leaves it (`training.brush`), and within it they are held to what the style drew before.

Drawn styles want drawn hair: with `strands`, `tones` and `lines` it is what a pen and flat colours leave of G's picture
(`training.pen`).

Only convolutions are trained, kernels and biases, a sixth of the network. Their change is kept in a file of its own
(`models.kernel_change`) with a share, as the map of codes is; all else of the style stays as it is.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError
from facestyle.evaluation.people import SAMPLE_PSI, draw, pil_pictures, sample_w, to_levels
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.faces.windows import mean_within
from facestyle.latents import broadcast
from facestyle.models.checkpoints import (
    weights_sha256,
)
from facestyle.models.features import LiteFeatures, PerceptualLoss, fold_batch_norm
from facestyle.models.generator import Generator
from facestyle.models.identity import load_identity
from facestyle.models.kernel_change import KernelChange
from facestyle.models.zoo import load_style_base, load_style_generator
from facestyle.processes import Processes
from facestyle.seeds import TRAINING_SEEDS, check_seed, numbered_seed
from facestyle.styles import HAIR_FILE, StyleConfig
from facestyle.training.brush import brushed
from facestyle.training.derive import check_apart, complete_derived, descend, origin_of
from facestyle.training.finetune import per_tensor_groups
from facestyle.training.pen import flowing, in_tones, outlined, smoothed
from facestyle.training.people import random_people
from facestyle.training.state import TrainingState

__all__ = ["HairConfig", "face_window", "give_hair", "learn_hair"]

_COARSE = re.compile(r"(blocks\.\d+|b\d+)\.conv\d\.weight")
"""Kernels of the blocks, in the architecture "mobile" (the pointwise ones) or "stylegan2"."""
_FULL = re.compile(r"(blocks\.\d+|b\d+)\.conv\d\.(weight|depthwise|bias)")
"""What is trained on full pictures: lines also want the depthwise kernels, which look around."""
_MIDDLE, _REACH = (0.5, 0.635), (0.25, 0.295)
"""Of the ellipse around faces of FFHQ's square, (x, y) in shares of its side: from the hairline to the chin."""
_EDGE = 6.0
"""How sharply the ellipse ends: it falls from 0.73 to 0.27 between 0.91 and 1.08 of its reach."""
_SHOWN = 8
"""People on previews, whom no step draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HairConfig:
    """How a style gets its people's hair back. Rates are shares of a tensor's own size, as in `FinetuneConfig`.

    Attributes:
        steps: on the cheap preview path, where shapes and colours are made.
        batch: people a step there, of each process.
        lr: relative step per tensor there, falling to 0 in the second half.
        full_steps: through the whole network, where strands are drawn.
        full_batch: people a step there.
        full_lr: relative step per tensor there, falling likewise.
        full_px: side at which the full picture is compared, if the generator's is as large.
        hair_weight: of the perceptual distance, around the face, to G's picture as a brush leaves it.
        brush: reach of that brush in shares of the picture's side; 0 follows G's picture to every hair.
        strands: for drawn styles, and in the full pictures, as the next two: how far it goes on along strands and other
            lines, in shares of the side, so that hair comes in locks with sharp borders; 0 does not.
        tones: steps of light from black to white, towards whose ends it is drawn; 0 leaves it smooth.
        lines: strength of dark lines along the borders of what it painted, 0 to 1.
        hair_pixel_weight: of the mean absolute difference of pixels to it, around the face; lines want it.
        color_weight: of the same at 32 px.
        face_weight: of the perceptual distance, within the face, to what the style drew before.
        face_pixel_weight: of the mean absolute difference of pixels to it there, at the full side.
        face_grain: contrast, in shares of black to white, up to which that skin's grain is smoothed away in the full
            pictures.
        identity_weight: of 1 - cosine of identity embeddings to G's picture.
        psi_min, psi_max: truncation of the people is drawn from this range.
        preview_every: steps between previews, each with a checkpoint.
        seed: of everything random.
    """

    steps: int = 200
    batch: int = 4
    lr: float = 1e-3
    full_steps: int = 120
    full_batch: int = 2
    full_lr: float = 7e-4
    full_px: int = 512
    hair_weight: float = 1.0
    brush: float = 0.008
    strands: float = 0.0
    tones: int = 0
    lines: float = 0.0
    hair_pixel_weight: float = 0.0
    color_weight: float = 10.0
    face_weight: float = 1.0
    face_pixel_weight: float = 1.0
    face_grain: float = 0.0
    identity_weight: float = 0.3
    psi_min: float = 0.6
    psi_max: float = 1.0
    preview_every: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        for name in ("batch", "full_batch", "full_px", "preview_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in (
            "steps", "lr", "full_steps", "full_lr", "hair_weight", "hair_pixel_weight", "color_weight", "face_weight",
            "face_pixel_weight", "identity_weight", "tones",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, most in (("brush", 0.1), ("strands", 0.1), ("lines", 1), ("face_grain", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must lie in [0, {most}], got {getattr(self, name)}")
        if not 0 <= self.psi_min <= self.psi_max <= 1.5:
            raise ConfigError(
                f"psi_min and psi_max must be in order in [0, 1.5], got {self.psi_min}, {self.psi_max}"
            )

    @property
    def learns(self) -> bool:
        """Whether there is anything to do."""
        return self.steps + self.full_steps > 0


def face_window(side_px: int) -> Tensor:
    """[side, side], 1 within the face of FFHQ's square, falling to 0 around it: an ellipse, the same for everybody."""
    at = (torch.arange(side_px) + 0.5) / side_px
    across, down = (
        ((at - middle) / reach).square() for middle, reach in zip(_MIDDLE, _REACH, strict=True)
    )
    return torch.sigmoid((1 - (across[None, :] + down[:, None])) * _EDGE)


def learn_hair(
    base: Generator,
    styled: Generator,
    out: str | Path,
    config: HairConfig | None = None,
    *,
    processes: Processes | None = None,
    progress: bool = True,
) -> KernelChange:
    """The change of G' with which its portraits have, around the face, what G draws there.

    Args:
        base: G.
        styled: G', as it is used: with its share and its map of codes. Both stay as they are.
        out: folder of the run: log, previews (G, G' before, G' now) and state; an unfinished run found there goes on.
        config: what to do.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show progress bars.

    Raises:
        ConfigError: ``out`` holds a run of another config or another style.
        OutputError: ``out`` cannot be written.
    """
    config = config or HairConfig()
    processes = processes or Processes()
    run = _HairRun(base, styled, Path(out), config, processes, progress)
    run.stage("coarse", config.steps, config.batch, config.lr, base.preview_resolution)
    run.stage("full", config.full_steps, config.full_batch, config.full_lr, None)
    return run.change()


class _HairRun:
    """Networks, and what a step does with them."""

    def __init__(
        self,
        base: Generator,
        styled: Generator,
        folder: Path,
        config: HairConfig,
        processes: Processes,
        progress: bool,
    ) -> None:
        described = dataclasses.asdict(config) | {
            "style_sha256": weights_sha256(styled.synthesis),
            "base_sha256": weights_sha256(base.synthesis),
        }
        self.state = TrainingState(
            folder, described, defaults=dataclasses.asdict(HairConfig()), is_main=processes.is_main
        )
        self.config, self.processes, self.progress = config, processes, progress
        device = processes.device
        self.base, self.before = (
            net.eval().requires_grad_(False).to(device) for net in (base, styled)
        )
        self.target = copy.deepcopy(self.before)
        features = LiteFeatures()
        fold_batch_norm(features.eval())
        self.perceptual = PerceptualLoss(features).to(device)
        self.identity = load_identity(device)

    def stage(self, name: str, steps: int, batch: int, lr: float, resolution: int | None) -> None:
        """Run what is left of a stage: "coarse" by the preview's path, "full" by the whole network."""
        config, target = self.config, self.target
        trained = _matching(target, _FULL if resolution is None else _COARSE)
        for parameter in target.parameters():
            parameter.requires_grad_(False)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        groups = per_tensor_groups(list(trained.items()), lr)
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 10, 2 * (1 - step / max(steps, 1)))
        )

        def loss(rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
            people = random_people(self.base, batch, config.psi_min, config.psi_max, rng)
            terms = self._terms(people, resolution)
            return self._total(terms), terms

        descend(
            self.state, name, steps,
            {"target": target, "optimizer": optimizer, "schedule": schedule},
            trained.values(), loss,
            seed=lambda step: (numbered_seed(config.seed, step) * 2 + (name == "full")) * 1_009,
            preview=self._preview, preview_every=config.preview_every,
            processes=self.processes, title=f"hair, {name}", progress=self.progress,
        )  # fmt: skip

    def change(self) -> KernelChange:
        """What was learned so far."""
        before, now = (_matching(net, _FULL) for net in (self.before, self.target))
        return KernelChange({
            name: (now[name].detach() - before[name].detach()).cpu() for name in now
        })  # fmt: skip

    def _terms(self, w: Tensor, resolution: int | None) -> dict[str, Tensor]:
        """Unweighted means of the terms."""
        config = self.config
        with torch.no_grad():
            source = self._compared(self._draw(self.base, w, resolution))
            was = self._draw(self.before, w, resolution)
            if resolution is None:
                was = smoothed(was, config.face_grain)
            wanted = self._painted(source, resolution is None)
            maps, face = (self.perceptual.describe(img) for img in (wanted, self._compared(was)))
            who = self.identity(source)
        drawn = self._draw(self.target, w, resolution)
        img = self._compared(drawn)
        seen = self.perceptual.describe(img)
        small = F.interpolate(img - wanted, size=min(32, img.shape[-1]), mode="area")
        return {
            "hair": _sum(self._away(a, b, False) for a, b in zip(seen, maps, strict=True)),
            "hair_pixel": self._mean((img - wanted).abs().mean(1), False),
            "color": self._mean(small.abs().mean(1), False),
            "face": _sum(self._away(a, b, True) for a, b in zip(seen, face, strict=True)),
            "face_pixel": self._mean((drawn - was).abs().mean(1), True),
            "identity": (1 - (self.identity(img) * who).sum(1)).mean(),
        }

    def _total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """What is to be small."""
        return _sum(getattr(self.config, f"{name}_weight") * term for name, term in terms.items())

    def _draw(self, generator: Generator, w: Tensor, resolution: int | None) -> Tensor:
        """Pictures by the preview's path or the whole network."""
        img: Tensor = generator.synthesis(broadcast(w, generator.num_ws), resolution=resolution)
        return img

    def _compared(self, img: Tensor) -> Tensor:
        """Pictures at the side at which they are compared."""
        side = min(img.shape[-1], self.config.full_px)
        return img if img.shape[-1] == side else F.interpolate(img, size=side, mode="area")

    def _painted(self, source: Tensor, with_pen: bool) -> Tensor:
        """G's pictures as they are wanted around faces; a pen is too fine for the preview's path."""
        config = self.config
        img = brushed(source.clamp(-1, 1), round(config.brush * source.shape[-1]))
        if not with_pen:
            return img
        return outlined(in_tones(flowing(img, config.strands), config.tones), config.lines)

    def _away(self, a: Tensor, b: Tensor, within: bool) -> Tensor:
        """Mean squared distance of channel-normalised maps [B, C, h, w], within the face or around it."""
        return self._mean((a - b).square().sum(1), within)

    def _mean(self, change: Tensor, within: bool) -> Tensor:
        """Mean of maps [B, h, w] within the face or around it."""
        window = face_window(max(change.shape[-1], 256)).to(change.device)
        return mean_within((window if within else 1 - window)[None], change).mean()

    def _preview(self, path: Path) -> None:
        w = sample_w(self.base, _SHOWN, SAMPLE_PSI)
        nets = [self.base, self.before, self.target]
        side = min(self.base.resolution, 512)
        rows = [list(pil_pictures(draw(net, w, side_px=side))) for net in nets]
        with torch.no_grad():
            source = draw(self.base, w, side_px=side).float() / 127.5 - 1
            wanted = to_levels(self._painted(source, True))
        rows.insert(1, list(pil_pictures(wanted)))
        labels = ["G", "around faces", "before", "now"]
        save_sheet(contact_sheet(rows, cell_px=256, row_labels=labels), path)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


def _matching(generator: nn.Module, names: re.Pattern[str]) -> dict[str, nn.Parameter]:
    """Weights of some names in the synthesis network, by these."""
    synthesis = generator.synthesis
    assert isinstance(synthesis, nn.Module)
    return {name: p for name, p in synthesis.named_parameters() if names.fullmatch(name)}


def give_hair(
    folder: str | Path,
    out: str | Path,
    config: HairConfig | None = None,
    *,
    processes: Processes | None = None,
    progress: bool = True,
) -> Path:
    """A finished style with its people's hair: the folder ``OUT/style``; the run stays in ``OUT/hair``.

    What was learned lies there as `HAIR_FILE`, with the share ``hair`` of 1 in the style's config. All that the style
    had stays as it is, to the bit, but for an earlier such change, in whose place this one comes; and its scores, which
    are of the portraits before.

    Args:
        folder: of the style; it stays as it is.
        out: folder of the run; an unfinished run found there goes on.
        config: what to do.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show progress bars.

    Raises:
        ConfigError: no steps are asked for, or ``out`` holds a run of another config or another style.
        CheckpointError: the style is damaged.
        OutputError: ``out`` cannot be written, or is the style's own folder.
    """
    config = config or HairConfig()
    processes = processes or Processes()
    folder, out = Path(folder), Path(out)
    if not config.learns:
        raise ConfigError("with steps 0 and full_steps 0 nothing is learned; ask for 1 or more")
    target = out / "style"
    check_apart(folder, target, "hair")
    card = replace(StyleConfig.from_file(folder / "config.json"), hair=0.0)
    base = load_style_base(folder)
    styled = load_style_generator(folder, base, replace(card, keep_shape=0.0))
    change = learn_hair(base, styled, out / "hair", config, processes=processes, progress=progress)
    if processes.is_main:
        change.save(target / HAIR_FILE)
        card = replace(card, hair=1.0)
        origin = origin_of(out / "hair", config, processes.device)
        complete_derived(folder, target, card, HAIR_FILE, "hair", origin)
    processes.wait()
    return target
