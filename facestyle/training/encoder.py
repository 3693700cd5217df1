"""Train an encoder: first on the generator's own pictures, whose codes are known, then on photos.

Stages, each resumable:

1. ``pool``: w drawn from the generator and the pictures G(w), kept on disk.
2. ``codes``: the encoder learns picture -> w on the pool, pictures jittered as photos are.
3. ``photos``: real faces x join. The loss looks at G(E(x)) beside x: perceptual, identity, and plain difference at low
   resolution; the pool keeps the codes where the generator knows them.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from facestyle.errors import CheckpointError, ConfigError, OutputError
from facestyle.evaluation.people import pil_pictures, to_levels
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.files import file_sha256
from facestyle.inversion import ReconstructionLoss
from facestyle.latents import broadcast
from facestyle.models.bases import base_entry
from facestyle.models.checkpoints import load_strict, read_tensors, save_tensors
from facestyle.models.encode import corrected
from facestyle.models.encoder import SPACES, Encoder, Space, to_w_plus
from facestyle.models.generator import Generator
from facestyle.ranges import check_above_0, check_least
from facestyle.runtime import choose_device, parse_dtype
from facestyle.seeds import TRAINING_SEEDS, check_seed, numbered_seed
from facestyle.training.data import PictureSet, jitter, shuffled_batches
from facestyle.training.state import TrainingState, check_finite, write_json

__all__ = ["EncoderConfig", "train_encoder"]

_SHOWN, _PER_ROW = 24, 12
"""Held-out photos on previews, each beside what its code draws; and pictures in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Everything that decides what an encoder becomes. Steps are optimiser steps.

    Attributes:
        space: of the codes: "w", "w_plus" or "z_plus".
        pool_size: pictures the generator draws for the first two stages.
        psi_min: codes of the pool are truncated by a psi drawn from [psi_min, 1].
        code_steps: steps of stage ``codes``.
        code_batch: pictures a step.
        code_lr: Adam's rate for the head; the trunk gets ``trunk_lr_share`` of it.
        photo_steps: steps of stage ``photos``.
        photo_batch: photos a step.
        pool_batch: pool pictures a step of stage ``photos``.
        photo_lr: Adam's rate for the head in stage ``photos``.
        trunk_lr_share: the trunk's rate as a share of the head's.
        perceptual_weight: weight of the perceptual term.
        identity_weight: weight of 1 - cosine of identity embeddings.
        pixel_weight: weight of the mean absolute difference at 32 px.
        code_weight: weight of the pool's code error in stage ``photos``.
        prior_weight: weight of the codes' squared distance from w_avg, in units of the pool's variance, which
            ``psi_min`` narrows.
        row_weight: W+ and Z+: weight of the rows' variance about their mean, in the same units. Rows that differ
            too much draw no face.
        corrections: how often the encoder may draw its code and correct it, see `facestyle.models.encode`. Stage
            ``photos`` learns a step of these at a time, the last ones more often.
        dtype: in which the generator draws, "float32" or "bfloat16"; the encoder and the losses stay in float32.
        seed: of every random number.
        checkpoint_every: steps between checkpoints and previews.
    """

    space: Space = "w"
    pool_size: int = 4000
    psi_min: float = 0.4
    code_steps: int = 350
    code_batch: int = 32
    code_lr: float = 6e-4
    photo_steps: int = 650
    photo_batch: int = 8
    pool_batch: int = 4
    photo_lr: float = 3e-4
    trunk_lr_share: float = 0.3
    perceptual_weight: float = 1.0
    identity_weight: float = 2.0
    pixel_weight: float = 2.0
    code_weight: float = 0.2
    prior_weight: float = 0.005
    row_weight: float = 0.05
    corrections: int = 1
    dtype: str = "float32"
    seed: int = 0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        for name in ("pool_size", "code_batch", "photo_batch", "checkpoint_every"):
            check_least(name, getattr(self, name), 1)
        for name in (
            "code_steps", "photo_steps", "pool_batch", "corrections", "trunk_lr_share", "perceptual_weight",
            "identity_weight", "pixel_weight", "code_weight", "prior_weight", "row_weight",
        ):  # fmt: skip
            check_least(name, getattr(self, name), 0)
        for name in ("code_lr", "photo_lr"):
            check_above_0(name, getattr(self, name))
        if self.space not in SPACES:
            raise ConfigError(f"space must be one of {', '.join(SPACES)}, got {self.space!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f'dtype must be "float32" or "bfloat16", got {self.dtype!r}')
        if not 0 <= self.psi_min <= 1:
            raise ConfigError(f"psi_min must be in [0, 1], got {self.psi_min}")


def _build_pool(
    generator: Generator, config: EncoderConfig, folder: Path, progress: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Memory-mapped pictures [N, 3, S, S] uint8 and codes [N, 512] float32; drawn where not there yet."""
    side, count, chunk = generator.preview_resolution, config.pool_size, 8
    device = generator.w_avg.device
    folder.mkdir(parents=True, exist_ok=True)
    done_file = folder / "done.json"
    shape = {"size": count, "seed": config.seed, "psi_min": config.psi_min, "side": side}
    done = 0
    if done_file.is_file():
        state = json.loads(done_file.read_text())
        done = state["done"] if state["shape"] == shape else 0
    mode = "r+" if done else "w+"
    _check_room(folder, (count - done) * (3 * side * side + 4 * generator.w_dim))
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode=mode, dtype=np.uint8, shape=(count, 3, side, side)
    )
    codes = np.lib.format.open_memmap(
        folder / "codes.npy", mode=mode, dtype=np.float32, shape=(count, generator.w_dim)
    )
    bar = tqdm(total=count, initial=done, desc="pool", disable=not progress)
    with torch.no_grad():
        for start in range(done, count, chunk):
            stop = min(start + chunk, count)
            rng = torch.Generator().manual_seed(numbered_seed(config.seed, start))
            z = torch.randn(stop - start, generator.w_dim, generator=rng).to(device)
            psi = config.psi_min + (1 - config.psi_min) * torch.rand(stop - start, 1, generator=rng)
            psi = psi.to(device)
            w = generator.w_avg + psi * (generator.mapping(z) - generator.w_avg)
            img = generator.synthesis(broadcast(w, generator.num_ws), resolution=side)
            levels = ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            images[start:stop] = levels.cpu().numpy()
            codes[start:stop] = w.cpu().numpy()
            if (start // chunk) % 16 == 0 or stop == count:
                images.flush()
                codes.flush()
                write_json(done_file, {"done": stop, "shape": shape})
            bar.update(stop - start)
    bar.close()
    return images, codes


def _check_room(folder: Path, needed: int) -> None:
    """Refuse to begin what does not fit: a mapped file has no place on the disk before it is filled."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"the pool takes {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; free some space and run the same "
            "command again, or begin in another folder with a smaller --set pool_size=",
            path=folder,
        )


def _optimizer(encoder: Encoder, lr: float, trunk_share: float) -> torch.optim.Optimizer:
    trunk = list(encoder.trunk.parameters())
    own = {id(p) for p in trunk} | {id(p) for p in encoder.identity.parameters()}
    head = [p for p in encoder.parameters() if id(p) not in own]
    return torch.optim.AdamW(
        [{"params": head, "lr": lr}, {"params": trunk, "lr": lr * trunk_share}], weight_decay=1e-4
    )


def _run_stage(
    name: str,
    steps: int,
    step_fn: Callable[[int], dict[str, float]],
    encoder: Encoder,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    checkpoint_every: int,
    look: Callable[[str, int], dict[str, float]],
    progress: bool,
) -> None:
    """Run ``step_fn`` for the steps not done yet, with a one-cycle rate, log and checkpoints."""
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=max(steps, 1) + 1,
        pct_start=0.08,
        div_factor=20,
        final_div_factor=20,
        cycle_momentum=False,
    )
    parts = {"encoder": encoder, "optimizer": optimizer, "scheduler": scheduler}
    first = state.resume(name, parts)
    state.forget_after(name, first)
    bar = tqdm(range(first, steps), initial=first, total=steps, desc=name, disable=not progress)
    began = time.monotonic()
    for step in bar:
        row = step_fn(step)
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        bar.set_postfix({k: f"{v:.3f}" for k, v in row.items()})
        is_due = (step + 1) % checkpoint_every == 0 or step + 1 == steps
        check_finite(name, step + 1, row, parts if is_due else None)
        if is_due:
            row |= look(name, step + 1)
            state.save(name, step + 1, parts)
        state.log({"stage": name, "step": step + 1, **row, "seconds": time.monotonic() - began})


def _start_from(encoder: Encoder, path: str | Path) -> None:
    """Load an encoder of the same space whole, and of W what the spaces share."""
    tensors = read_tensors(path)
    own = encoder.state_dict()
    if encoder.corrector is None or not any(name.startswith("corrector.") for name in tensors):
        tensors = {k: v for k, v in tensors.items() if not k.startswith("corrector.")}
        tensors |= {name: own[name] for name in own if name.startswith("corrector.")}
    if encoder.space != "w" and not any(name.startswith("by_row.") for name in tensors):
        tensors |= {name: own[name] for name in own if name.startswith("by_row.")}
        if encoder.space == "z_plus":
            tensors |= {name: own[name] for name in ("start", "out.weight", "out.bias")}
    load_strict(encoder, tensors, path=path)


def _file_sha256(path: str | Path) -> str:
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error})", path=path) from error


def _skip(batches: Iterator[list[int]], count: int) -> None:
    """Let go of what a resumed run has had already."""
    for _ in range(count):
        next(batches)


def train_encoder(
    generator: Generator,
    out: str | Path,
    faces: Sequence[str | Path],
    val_faces: str | Path,
    config: EncoderConfig | None = None,
    *,
    init: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Encoder:
    """The trained encoder E_w, E_w+ or E_z+.

    ``OUT/encoder.safetensors``, log, checkpoints and previews are left in ``out``.

    Args:
        generator: frozen; its preview resolution is used.
        out: folder of the run; an unfinished run found there goes on.
        faces: folders or zip files of FFHQ-aligned photos.
        val_faces: the same, held out, for previews and scores.
        config: what to do.
        init: encoder file to start from, instead of ImageNet features; ``code_steps`` may then be 0. An E_w starts
            an E_w+ of the same codes, and gives an E_z+ all but its last layer.
        device: where it is trained, and G ends up; the best there is when None.
        progress: show progress bars.

    Raises:
        ConfigError: ``out`` holds a run of another config, of other photos, from another start or of another generator,
            or training diverged.
        DatasetError: a picture source cannot be used.
        CheckpointError: ``init`` cannot be read or is of another kind.
        OutputError: ``out`` cannot be written, or the disk is too full for the pool.
    """
    config = config or EncoderConfig()
    folder = Path(out)
    side = generator.preview_resolution
    photos = PictureSet(list(faces), side)
    held_out = PictureSet(val_faces, side, limit=_SHOWN)
    described = dataclasses.asdict(config) | base_entry(generator)
    sources = {
        "faces": photos.digest(), "val_faces": held_out.digest(),
        "init": None if init is None else _file_sha256(init),
    }  # fmt: skip
    # A run too old to know its sources goes on with these.
    state = TrainingState(folder, described | sources, defaults=sources)
    torch.manual_seed(config.seed)
    place = choose_device(device)
    generator = generator.eval().requires_grad_(False).to(place)
    val = held_out.batch(range(len(held_out))).to(place)
    pool_images, pool_codes = _build_pool(generator, config, folder / "pool", progress)
    w_std = torch.from_numpy(np.array(pool_codes)).std(0).mean()

    encoder = Encoder(
        space=config.space,
        rows=1 if config.space == "w" else generator.num_ws,
        w_dim=generator.w_dim,
        input_px=side,
        corrections=config.corrections,
        pretrained_trunk=True,
    )
    encoder.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.space != "z_plus":
        encoder.start.copy_(generator.w_avg)
        torch.nn.init.normal_(encoder.out.weight, std=0.01)
        torch.nn.init.zeros_(encoder.out.bias)
    if init is not None:
        _start_from(encoder, init)
    loss = ReconstructionLoss(
        perceptual_weight=config.perceptual_weight,
        identity_weight=config.identity_weight,
        pixel_weight=config.pixel_weight,
        device=place,
    )

    dtype = parse_dtype(config.dtype)
    synthesis = copy.deepcopy(generator.synthesis).to(dtype)

    def draw(w_plus: Tensor) -> Tensor:
        img = synthesis(w_plus.to(dtype), resolution=side)
        assert isinstance(img, Tensor)
        return img.float()

    def encode(img: Tensor, corrections: int) -> Tensor:
        """w_plus after so many corrections; gradients are those of the last one."""
        codes = corrected(encoder, img, draw_codes, corrections)
        return to_w_plus(codes, config.space, generator)

    def draw_codes(codes: Tensor) -> Tensor:
        return draw(to_w_plus(codes, config.space, generator))

    def code_error(w_plus: Tensor, w: Tensor) -> Tensor:
        return ((w_plus - w[:, None]) / w_std).square().mean()

    def look(stage: str, step: int) -> dict[str, float]:
        with torch.no_grad():
            img = torch.cat([draw(encode(part, config.corrections)) for part in val.split(8)])
            scores: dict[str, list[Tensor]] = {}
            for a, b in zip(img.split(8), val.split(8), strict=True):
                for key, value in loss.parts(a, loss.target(b)).items():
                    scores.setdefault(key, []).append(value)
            pairs = list(pil_pictures(to_levels(torch.stack([val, img], 1).flatten(0, 1))))
        rows = [pairs[i : i + _PER_ROW] for i in range(0, len(pairs), _PER_ROW)]
        sheet = contact_sheet(rows, cell_px=max(side, 64))
        save_sheet(sheet, folder / "previews" / f"{stage}_{step:05d}.png")
        return {f"val_{key}": torch.cat(value).mean().item() for key, value in scores.items()}

    pool_order = shuffled_batches(
        config.pool_size, config.code_batch, torch.Generator().manual_seed(config.seed + 1)
    )

    _skip(pool_order, state.steps_done("codes"))

    def pool_batch(indices: Sequence[int], step: int) -> tuple[Tensor, Tensor]:
        rows = sorted(indices)
        img = torch.from_numpy(pool_images[rows]).float() / 127.5 - 1
        rng = torch.Generator().manual_seed(config.seed * 7919 + step)
        return jitter(img, rng).to(place), torch.from_numpy(pool_codes[rows]).to(place)

    def code_step(step: int) -> dict[str, float]:
        img, w = pool_batch(next(pool_order), step)
        error = code_error(encode(img, 0), w)
        error.backward()
        return {"code": error.item()}

    optimizer = _optimizer(encoder, config.code_lr, config.trunk_lr_share)
    _run_stage(
        "codes", config.code_steps, code_step, encoder, optimizer, state, config.checkpoint_every,
        look, progress,
    )  # fmt: skip

    photo_order = shuffled_batches(
        len(photos), config.photo_batch, torch.Generator().manual_seed(config.seed + 2)
    )
    mixed_order = shuffled_batches(
        config.pool_size, max(config.pool_batch, 1), torch.Generator().manual_seed(config.seed + 3)
    )

    _skip(photo_order, state.steps_done("photos"))
    _skip(mixed_order, state.steps_done("photos") if config.pool_batch else 0)

    turns = np.arange(1, config.corrections + 2, dtype=float)
    turns /= turns.sum()

    def photo_step(step: int) -> dict[str, float]:
        photo = photos.batch(next(photo_order))
        rng = torch.Generator().manual_seed(config.seed * 104_729 + step)
        flips = torch.rand(photo.shape[0], generator=rng) < 0.5
        photo[flips] = photo[flips].flip(-1)
        corrections = int(np.random.default_rng((config.seed, step)).choice(len(turns), p=turns))
        jittered = [jitter(photo, rng, strength=0.25).to(place)]
        photo = photo.to(place)
        if config.pool_batch:
            img, codes = pool_batch(next(mixed_order), step)
            jittered.append(img)
        w_plus, *of_pool = encode(torch.cat(jittered), corrections).split(len(photo))
        parts = loss.parts(draw(w_plus), loss.target(photo))
        prior = ((w_plus - generator.w_avg) / w_std).square().mean()
        spread = (w_plus / w_std).var(1, correction=0).mean()
        total = loss.total(parts).mean() + config.prior_weight * prior + config.row_weight * spread
        row = {key: value.mean().item() for key, value in parts.items()}
        if config.pool_batch:
            code = code_error(torch.cat(of_pool), codes)
            total = total + config.code_weight * code
            row["code"] = code.item()
        total.backward()
        return row

    optimizer = _optimizer(encoder, config.photo_lr, config.trunk_lr_share)
    _run_stage(
        "photos", config.photo_steps, photo_step, encoder, optimizer, state, config.checkpoint_every,
        look, progress,
    )  # fmt: skip

    save_tensors(
        encoder.state_dict(),
        folder / "encoder.safetensors",
        metadata={
            "format": "facestyle-encoder",
            "version": "1",
            "config": encoder.config(),
            "training": described,
            "faces": [Path(source).name for source in faces],
            **base_entry(generator),
        },
        dtype=torch.float16,
    )
    return encoder.eval()
