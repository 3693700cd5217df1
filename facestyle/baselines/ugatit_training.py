"""Train U-GAT-IT (arXiv:1907.10830) between faces and style pictures, within a budget of time if there is one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from facestyle.baselines.base import PictureSources, resize
from facestyle.baselines.ugatit_networks import UgatitDiscriminator, UgatitGenerator
from facestyle.errors import ConfigError
from facestyle.evaluation.people import pil_pictures, to_levels
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.latents import broadcast, truncate
from facestyle.models.bases import base_entry
from facestyle.models.checkpoints import read_tensors, save_tensors
from facestyle.models.generator import Generator
from facestyle.runtime import choose_device
from facestyle.seeds import TRAINING_SEEDS, check_seed, numbered_seed
from facestyle.training.data import PictureSet, shuffled_batches
from facestyle.training.state import TrainingClock, TrainingState, check_finite

__all__ = ["FILE", "FORMAT", "UgatitConfig", "sample_faces", "save_generator", "train_ugatit"]

FILE = "generator.safetensors"
FORMAT = "facestyle-ugatit"
_STAGE = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class UgatitConfig:
    """The paper's settings (section 5 and appendix), in its light variant.

    Attributes:
        side_px: side of the pictures.
        is_light: the light generator; the full one has 279 M parameters at 256 px.
        width: channels behind a generator's first convolution.
        blocks: residual blocks before and behind the attention.
        discriminator_width: channels behind a discriminator's first convolution.
        global_layers, local_layers: of the discriminators of the whole picture and of patches.
        steps: at which the rate, falling from half of them on, is 0.
        batch: pictures of each domain a step.
        lr, weight_decay: of Adam.
        adversarial_weight, cycle_weight, identity_weight, attention_weight: of the losses.
        face_samples: faces drawn by the base generator, where no photos are given.
        psi_min, psi_max: their truncation is drawn from this range.
        seed: of every random number.
        preview_every: steps between previews and checkpoints.
    """

    side_px: int = 256
    is_light: bool = True
    width: int = 64
    blocks: int = 4
    discriminator_width: int = 64
    global_layers: int = 7
    local_layers: int = 5
    steps: int = 1_000_000
    batch: int = 1
    lr: float = 1e-4
    weight_decay: float = 1e-4
    adversarial_weight: float = 1.0
    cycle_weight: float = 10.0
    identity_weight: float = 10.0
    attention_weight: float = 1000.0
    face_samples: int = 1000
    psi_min: float = 0.5
    psi_max: float = 0.9
    seed: int = 0
    preview_every: int = 500

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        for name in ("steps", "batch", "width", "blocks", "face_samples", "preview_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for layers in (self.global_layers, self.local_layers):
            if layers < 3 or self.side_px >> (layers - 2) < 4:
                raise ConfigError(
                    f"discriminators of {self.side_px} px pictures have 3 or more layers that leave a map of "
                    f"4 px, got {layers} layers"
                )


def train_ugatit(
    pictures: PictureSources,
    out: str | Path,
    config: UgatitConfig | None = None,
    *,
    faces: PictureSources | None = None,
    base: Generator | None = None,
    minutes: float | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> UgatitGenerator:
    """The generator from faces to the style; ``OUT/generator.safetensors``, log, previews and state stay in ``out``.

    Args:
        pictures: folders or zips of aligned style pictures.
        out: folder of the run; an unfinished run found there goes on.
        config: what to do.
        faces: folders or zips of aligned photos; samples of ``base`` when None.
        base: G, whose samples stand for photos; the bundled one when None.
        minutes: of training, those of earlier sittings in this folder counted. The rate then falls from half of the
            time on, and training ends when it is used up, or at ``config.steps`` if that comes first.
        device: where to train; the best there is when None.
        progress: show a progress bar.

    Raises:
        ConfigError: ``out`` holds a run of another config or other pictures, ``minutes`` is not above 0, or training
            diverged.
        DatasetError: the pictures cannot be used.
        OutputError: ``out`` cannot be written.
    """
    if minutes is not None and minutes <= 0:
        raise ConfigError(f"minutes must be above 0, got {minutes}")
    config = config or UgatitConfig()
    folder = Path(out)
    described = dataclasses.asdict(config) | {"has_photos": faces is not None}
    if faces is None and base is not None:
        described |= base_entry(base)
    style = PictureSet(pictures, _padded_px(config))
    photos: PictureSet | _Samples | None = None
    seen = {"pictures": style.digest()}
    if faces is not None:
        photos = PictureSet(faces, _padded_px(config))
        seen["faces"] = photos.digest()
    state = TrainingState(folder, described | seen, defaults=seen)  # older runs do not know theirs
    if photos is None:
        photos = _Samples(sample_faces(folder, config, base, progress=progress))
    run = _Training(config, state, photos, style, choose_device(device))
    run.train(60 * minutes if minutes is not None else None, progress)
    return run.to_style.eval().requires_grad_(False)


def sample_faces(
    folder: Path, config: UgatitConfig, base: Generator | None, *, progress: bool = True
) -> Tensor:
    """Faces [N, 3, S, S] uint8 drawn by G; kept in ``FOLDER/faces.safetensors``."""
    path, side = folder / "faces.safetensors", _padded_px(config)
    if path.is_file():
        return read_tensors(path)["faces"]
    if base is None:
        from facestyle.models.zoo import load_base_generator

        base = load_base_generator()
    drawn = []
    with torch.inference_mode():
        for number in tqdm(range(config.face_samples), desc="faces", disable=not progress):
            rng = torch.Generator().manual_seed(numbered_seed(config.seed, number))
            z = torch.randn(1, base.w_dim, generator=rng).to(base.w_avg.device)
            share = float(torch.rand((), generator=rng))
            psi = config.psi_min + (config.psi_max - config.psi_min) * share
            w = truncate(base.mapping(z), base.w_avg, psi)
            img = base.synthesis(broadcast(w, base.num_ws), resolution=base.preview_resolution)
            img = resize(img.float(), side)
            drawn.append(((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu())
    faces = torch.cat(drawn)
    save_tensors({"faces": faces}, path, metadata={"format": "facestyle-faces"})
    return faces


def save_generator(net: UgatitGenerator, folder: str | Path) -> Path:
    """Leave the generator where :meth:`facestyle.baselines.ugatit.Ugatit.load` finds it; the file.

    Raises:
        OutputError: it cannot be written.
    """
    metadata = {"format": FORMAT, "config": net.config()}
    path = Path(folder) / FILE
    save_tensors(net.state_dict(), path, metadata=metadata)
    return path


class _Samples:
    """Pictures in memory, with what is used of a PictureSet."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Sequence[int]) -> Tensor:
        return self.pictures[list(indices)].float() / 127.5 - 1


class _Training:
    """A run: two generators, four discriminators, and what a step does with them."""

    def __init__(
        self,
        config: UgatitConfig,
        state: TrainingState,
        photos: PictureSet | _Samples,
        style: PictureSet,
        device: torch.device,
    ) -> None:
        self.config, self.state, self.device = config, state, device
        self.photos, self.style = photos, style
        torch.manual_seed(config.seed)

        def generator() -> UgatitGenerator:
            return UgatitGenerator(
                config.side_px, width=config.width, blocks=config.blocks, is_light=config.is_light
            ).to(device)

        def judges() -> nn.ModuleList:
            layers = (config.global_layers, config.local_layers)
            width = config.discriminator_width
            return nn.ModuleList(UgatitDiscriminator(n, width=width) for n in layers).to(device)

        self.to_style, self.to_face = generator(), generator()
        self.style_judges, self.face_judges = judges(), judges()
        self.g_optimizer = self._adam(self.to_style, self.to_face)
        self.d_optimizer = self._adam(self.style_judges, self.face_judges)
        self.clock = TrainingClock()
        self.parts: dict[str, Any] = {
            "to_style": self.to_style, "to_face": self.to_face, "clock": self.clock,
            "style_judges": self.style_judges, "face_judges": self.face_judges,
            "g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer,
        }  # fmt: skip

    def _adam(self, *nets: nn.Module) -> torch.optim.Adam:
        parameters = itertools.chain.from_iterable(net.parameters() for net in nets)
        config = self.config
        return torch.optim.Adam(
            parameters, lr=config.lr, betas=(0.5, 0.999), weight_decay=config.weight_decay
        )

    def train(self, budget_s: float | None, progress: bool) -> None:
        """What is left of the steps, or of the seconds."""
        config = self.config
        first = self.state.resume(_STAGE, self.parts)
        self.state.forget_after(_STAGE, first)
        faces, pictures = self._order(self.photos, 1, first), self._order(self.style, 2, first)
        bar = tqdm(
            range(first, config.steps), initial=first, total=config.steps, desc="ugatit",
            disable=not progress,
        )  # fmt: skip
        kept = done = first
        for step in bar:
            share = step / config.steps
            if budget_s is not None:
                share = max(share, self.clock.seconds() / budget_s)
            if share >= 1:
                break
            for optimizer in (self.g_optimizer, self.d_optimizer):
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * min(1.0, 2 * (1 - share))
            rng = torch.Generator().manual_seed(numbered_seed(config.seed, step))
            row = self._step(
                self._augmented(self.photos.batch(next(faces)), rng),
                self._augmented(self.style.batch(next(pictures)), rng),
            )
            bar.set_postfix({k: f"{v:.2f}" for k, v in row.items()})
            done = step + 1
            check_finite(_STAGE, done, row)
            seconds = self.clock.seconds()
            self.state.log({"stage": _STAGE, "step": done, **row, "seconds": seconds})
            if done % config.preview_every == 0:
                self._keep(done)
                kept = done
        if kept != done:
            self._keep(done)

    def _order(self, pictures: PictureSet | _Samples, salt: int, done: int) -> Iterator[list[int]]:
        """Index batches, of which ``done`` have been had."""
        rng = torch.Generator().manual_seed(self.config.seed * 31 + salt)
        return itertools.islice(shuffled_batches(len(pictures), self.config.batch, rng), done, None)

    def _augmented(self, img: Tensor, rng: torch.Generator) -> Tensor:
        """A random cut of the padded side, mirrored at random."""
        side = self.config.side_px
        reach = img.shape[-1] - side + 1
        rows = []
        for picture in img:
            top, left = torch.randint(reach, (2,), generator=rng).tolist()
            cut = picture[:, top : top + side, left : left + side]
            rows.append(cut.flip(-1) if torch.rand((), generator=rng) < 0.5 else cut)
        return torch.stack(rows).to(self.device)

    def _step(self, face: Tensor, picture: Tensor) -> dict[str, float]:
        """One step of the discriminators, then one of the generators; the losses."""
        config = self.config
        fake_picture, picture_logits = self.to_style(face)
        fake_face, face_logits = self.to_face(picture)

        d_loss = _judged(self.style_judges, picture, 1) + _judged(self.face_judges, face, 1)
        d_loss = d_loss + _judged(self.style_judges, fake_picture.detach(), 0)
        d_loss = d_loss + _judged(self.face_judges, fake_face.detach(), 0)
        self.d_optimizer.zero_grad(set_to_none=True)
        (config.adversarial_weight * d_loss).backward()
        self.d_optimizer.step()

        self.style_judges.requires_grad_(False)
        self.face_judges.requires_grad_(False)
        adversarial = _judged(self.style_judges, fake_picture, 1)
        adversarial = adversarial + _judged(self.face_judges, fake_face, 1)
        cycle = F.l1_loss(self.to_face(fake_picture)[0], face)
        cycle = cycle + F.l1_loss(self.to_style(fake_face)[0], picture)
        same_face, same_face_logits = self.to_face(face)
        same_picture, same_picture_logits = self.to_style(picture)
        identity = F.l1_loss(same_face, face) + F.l1_loss(same_picture, picture)
        attention = _told_apart(picture_logits, same_picture_logits)
        attention = attention + _told_apart(face_logits, same_face_logits)
        total = config.adversarial_weight * adversarial + config.cycle_weight * cycle
        total = total + config.identity_weight * identity + config.attention_weight * attention
        self.g_optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.g_optimizer.step()
        self.style_judges.requires_grad_(True)
        self.face_judges.requires_grad_(True)
        self.to_style.clip_rho()
        self.to_face.clip_rho()
        losses = {
            "d": d_loss, "adv": adversarial, "cycle": cycle, "same": identity, "cam": attention,
        }  # fmt: skip
        return {name: value.item() for name, value in losses.items()}

    def _keep(self, step: int) -> None:
        """Preview sheet, generator, checkpoint."""
        check_finite(_STAGE, step, {}, self.parts)
        folder, side = self.state.folder, self.config.side_px
        with torch.no_grad():
            numbers = range(min(8, len(self.photos)))
            faces = [resize(self.photos.batch([i]), side).to(self.device) for i in numbers]
            drawn = [self.to_style(face)[0] for face in faces]
        rows = [list(pil_pictures(to_levels(torch.cat(part)))) for part in (faces, drawn)]
        save_sheet(contact_sheet(rows, cell_px=side), folder / "previews" / f"{step:07d}.png")
        save_generator(self.to_style, folder)
        self.state.save(_STAGE, step, self.parts)


def _padded_px(config: UgatitConfig) -> int:
    """Side from which pictures are cut at random: 286 for 256, as the authors have it."""
    return config.side_px * 286 // 256


def _judged(judges: nn.ModuleList, img: Tensor, wanted: int) -> Tensor:
    """Least-squares loss over all judges, maps and attention logits: 0 when all say ``wanted``."""
    parts = [(logits - wanted).square().mean() for judge in judges for logits in judge(img)]
    return torch.stack(parts).sum()


def _told_apart(other: Tensor, own: Tensor) -> Tensor:
    """Cross entropy of a generator's attention: 1 for pictures of the domain it comes from, 0 for its target's."""
    return F.binary_cross_entropy_with_logits(
        other, torch.ones_like(other)
    ) + F.binary_cross_entropy_with_logits(own, torch.zeros_like(own))
