"""Train ``facestyle-tiny-diffusion``: a small latent diffusion model of faces (arXiv:2112.10752), without any download.

Stages, each resumable:

1. ``pool``: pictures drawn by the base generator and the styles' generators, with what is known of each.
2. ``vae``: the autoencoder learns pictures -> latents -> pictures.
3. ``unet``: UNet and text encoder learn the noise in noised latents, told a caption; averaged weights are kept.

CUDA computes in bfloat16 where the chip has it, everything else in float32.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from facestyle.baselines.base import count_parameters
from facestyle.baselines.diffusion import LatentDiffusion, guarded, need_diffusers
from facestyle.baselines.ntc import Ntc, NtcConfig
from facestyle.bench import machine
from facestyle.errors import ConfigError, DeviceMemoryError
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.image import to_pil
from facestyle.models.features import LiteFeatures, PerceptualLoss, fold_batch_norm
from facestyle.runtime import choose_device, cuda_has_bfloat16, dtype_name
from facestyle.seeds import numbered_seed
from facestyle.timing import device_name
from facestyle.training.data import shuffled_batches
from facestyle.training.ema import update_ema
from facestyle.training.state import TrainingClock, TrainingState, check_finite
from facestyle.training.tiny_diffusion_models import (
    NAME,
    TinyDiffusionConfig,
    build_tiny_diffusion,
    captions_of,
    save_tiny_diffusion,
    training_command,
)
from facestyle.training.tiny_diffusion_pictures import (
    FacePool,
    FaceSource,
    bundled_sources,
    draw_pool,
)

__all__ = ["train_tiny_diffusion"]

Step = Callable[[int], tuple[Tensor, dict[str, Tensor]]]
"""A step's loss, and what of it is logged."""

_NULL = 0
"""Number of the empty caption."""
_SEEN = 8
"""Pictures of a preview's row."""


def train_tiny_diffusion(
    out: str | Path,
    config: TinyDiffusionConfig | None = None,
    *,
    sources: Sequence[FaceSource] | None = None,
    minutes: float | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Path:
    """The trained model's folder, ``OUT/facestyle-tiny-diffusion``; log, previews and state stay in ``out``.

    Args:
        out: folder of the run; an unfinished run found there goes on.
        config: what to do.
        sources: who draws the pictures, people first; the base generator and the bundled styles when None. Their
            generators are moved to ``device``.
        minutes: of training both networks, those of earlier sittings in this folder counted; drawing the pictures comes
            before. The rates then fall by time, and training ends when it is used up, or at the config's steps if that
            comes first.
        device: where to train; the best there is when None.
        progress: show progress bars.

    Raises:
        ConfigError: ``out`` holds a run of another config, two sources have one name, ``minutes`` is not above 0, or
            training diverged.
        MissingDependencyError: diffusers or transformers is not installed, or too new a diffusers broke.
        DeviceMemoryError: a batch does not fit into the device's memory.
        CheckpointError: a file of the run is damaged.
        OutputError: ``out`` cannot be written.
    """
    need_diffusers()
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"minutes must be above 0, got {minutes}")
    config = config or TinyDiffusionConfig()
    place = choose_device(device)
    drawn_by = list(bundled_sources() if sources is None else sources)
    names = [source.name for source in drawn_by]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"sources need names of their own, got {names}")
    state = TrainingState(out, dataclasses.asdict(config) | {"sources": names})
    with _guarded():
        for source in drawn_by:
            source.generator.to(place)
        pool = draw_pool(state.folder / "pool", drawn_by, config, place, progress=progress)
        run = _Training(config, state, pool, drawn_by, place, progress)
        run.train_vae(None if minutes is None else 60 * minutes * config.vae_share)
        run.train_unet(None if minutes is None else 60 * minutes * (1 - config.vae_share))
        return run.save(minutes)


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """As :func:`guarded`, with what takes less memory here."""
    try:
        with guarded(f"training {NAME}"):
            yield
    except DeviceMemoryError as error:
        raise DeviceMemoryError(
            f"training {NAME} took more memory than there is; lower vae_batch and unet_batch, and give another folder"
        ) from error


class _Training:
    """A run: autoencoder, UNet with text encoder and their average, and what a step does with them."""

    def __init__(
        self,
        config: TinyDiffusionConfig,
        state: TrainingState,
        pool: FacePool,
        sources: Sequence[FaceSource],
        device: torch.device,
        progress: bool,
    ) -> None:
        self.config, self.state, self.pool = config, state, pool
        self.sources, self.device, self.progress = sources, device, progress
        captions = [captions_of(source.name) for source in sources]
        self.captions = ["", *itertools.chain(*captions)]
        ends = list(itertools.accumulate(map(len, captions), initial=_NULL + 1))
        self.captions_by_kind = [range(a, b) for a, b in itertools.pairwise(ends)]
        self.pipe = build_tiny_diffusion(config, self.captions)
        self.pipe.to(device)
        self.vae: Any = self.pipe.vae.to(memory_format=torch.channels_last)
        self.net = nn.ModuleDict({"unet": self.pipe.unet, "text": self.pipe.text_encoder})
        self.net.to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.ids = self.pipe.tokenizer(
            self.captions, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids.to(device)
        self.alphas = self.pipe.scheduler.alphas_cumprod.to(device)
        self.precision = _precision(device)

    def train_vae(self, budget_s: float | None) -> None:
        """The autoencoder, from where it is; then it is frozen."""
        config = self.config
        features = LiteFeatures().eval()
        fold_batch_norm(features)
        perceptual = PerceptualLoss(features).to(memory_format=torch.channels_last).to(self.device)
        order = self._order("vae", config.vae_batch, 1)

        def step_fn(step: int) -> tuple[Tensor, dict[str, Tensor]]:
            img = self.pool.batch(next(order), self.device)
            rng = self._rng(step, 1)
            with self._autocast():
                mean, std = self._posterior(img)
                latents = mean + std * torch.randn(mean.shape, generator=rng, device=self.device)
                made = self.vae.decode(latents).sample.float()
                distance = perceptual(made, img).mean()
            pixel = (made - img).abs().mean()
            kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
            loss = pixel + config.perceptual_weight * distance + config.kl_weight * kl
            return loss, {"pixel": pixel, "perceptual": distance, "kl": kl}

        self._run("vae", self.vae, {"vae": self.vae}, config.vae_steps, config.vae_lr, budget_s,
                  step_fn, lambda _: None, self._look_at_vae)  # fmt: skip
        self.vae.eval().requires_grad_(False)

    def train_unet(self, budget_s: float | None) -> None:
        """UNet and text encoder, from where they are, on the finished autoencoder's latents."""
        config = self.config
        latents, scale = self._latents()
        self.vae.register_to_config(scaling_factor=scale)
        order = self._order("unet", config.unet_batch, 2)
        beta = 0.5 ** (config.unet_batch / config.ema_half_life_nimg)

        def step_fn(step: int) -> tuple[Tensor, dict[str, Tensor]]:
            rows = next(order)
            rng = self._rng(step, 2)
            mean, std = latents[rows].float().chunk(2, dim=1)
            sample, noise = torch.randn(2, *mean.shape, generator=rng, device=self.device)
            times = torch.randint(len(self.alphas), (len(rows),), generator=rng, device=self.device)
            noised = self.pipe.scheduler.add_noise(scale * (mean + std * sample), noise, times)
            with self._autocast():
                states = self.net["text"](self.ids)[0][self._chosen_captions(rows, step)]
                found = self.net["unet"](noised, times, encoder_hidden_states=states).sample
            errors = (found.float() - noise).square().mean((1, 2, 3))
            a = self.alphas[times]
            weights = (config.snr_gamma * (1 - a) / a).clamp(max=1)
            return (weights * errors).mean(), {"noise": errors.mean()}

        def after(step: int) -> None:
            update_ema(self.ema, self.net, min(beta, (1 + step) / (10 + step)))

        kept = {"net": self.net, "ema": self.ema}
        self._run("unet", self.net, kept, config.unet_steps, config.unet_lr, budget_s,
                  step_fn, after, self._look_at_samples)  # fmt: skip

    def _run(
        self,
        stage: str,
        net: nn.Module,
        parts: dict[str, Any],
        steps: int,
        lr: float,
        budget_s: float | None,
        step_fn: Step,
        after: Callable[[int], None],
        look: Callable[[int], None],
    ) -> None:
        """What is left of a stage's steps, or of its seconds; log, previews and checkpoints."""
        optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.99))
        clock = TrainingClock()
        parts = {**parts, "optimizer": optimizer, "clock": clock}
        first = self.state.resume(stage, parts)
        self.state.forget_after(stage, first)
        bar = tqdm(
            range(first, steps), initial=first, total=steps, desc=stage, disable=not self.progress
        )
        kept = done = first
        net.train()

        def keep() -> None:
            check_finite(stage, done, {}, parts)
            look(done)
            self.state.save(stage, done, parts)

        for step in bar:
            share = max(step / steps, clock.seconds() / budget_s if budget_s else 0.0)
            if share >= 1 and done > 0:
                break
            for group in optimizer.param_groups:
                group["lr"] = lr * _rate(share)
            loss, row = step_fn(step)
            values = {"loss": loss.item()} | {name: value.item() for name, value in row.items()}
            check_finite(stage, step + 1, values)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            after(step)
            done = step + 1
            bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()})
            self.state.log({"stage": stage, "step": done, **values, "seconds": clock.seconds()})
            if done % self.config.preview_every == 0:
                keep()
                kept = done
        if kept != done:
            keep()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def _rng(self, step: int, salt: int) -> torch.Generator:
        """Random numbers of a step, on the device."""
        seed = numbered_seed(self.config.seed, step) * 4 + salt
        return torch.Generator(self.device).manual_seed(seed)

    def _order(self, stage: str, batch: int, salt: int) -> Iterator[list[int]]:
        """Index batches, without those that a resumed stage has had."""
        rng = torch.Generator().manual_seed(self.config.seed * 31 + salt)
        batches = shuffled_batches(len(self.pool), batch, rng)
        return itertools.islice(batches, self.state.steps_done(stage), None)

    def _posterior(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of latents, each [B, 4, S/8, S/8] float32."""
        found = self.vae.encode(img).latent_dist
        return found.mean.float(), (0.5 * found.logvar.float()).exp()

    @torch.no_grad()
    def _latents(self) -> tuple[Tensor, float]:
        """Mean and deviation [N, 8, S/8, S/8] float16 of every picture, and what scales latents to deviation 1."""
        parts = []
        chunks = torch.arange(len(self.pool)).split(32)
        for rows in tqdm(chunks, desc="latents", disable=not self.progress):
            with self._autocast():
                found = self._posterior(self.pool.batch(rows.tolist(), self.device))
            parts.append(torch.cat(found, dim=1).half())
        latents = torch.cat(parts)
        mean, std = latents.float().chunk(2, dim=1)
        deviation = (mean.var() + std.square().mean()).sqrt().item()
        return latents, round(1 / deviation, 6)

    def _chosen_captions(self, rows: Sequence[int], step: int) -> Tensor:
        """[B], numbers of the pictures' captions: any of those that fit, or the empty one."""
        rng = torch.Generator().manual_seed(numbered_seed(self.config.seed, step) * 4 + 3)
        chances = torch.rand(len(rows), 2, generator=rng).tolist()
        chosen = []
        for kind, (dropped, place) in zip(self.pool.kinds[rows].tolist(), chances, strict=True):
            fitting = self.captions_by_kind[kind]
            is_null = dropped < self.config.caption_dropout
            chosen.append(_NULL if is_null else fitting[int(place * len(fitting))])
        return torch.tensor(chosen, device=self.device)

    @torch.no_grad()
    def _look_at_vae(self, step: int) -> None:
        img = self.pool.batch(range(min(_SEEN, len(self.pool))), self.device)
        made = self.vae.decode(self._posterior(img)[0]).sample.clamp(-1, 1)
        rows = [[to_pil(x[None]) for x in part.cpu()] for part in (img, made)]
        sheet = contact_sheet(rows, cell_px=128, row_labels=("drawn", "decoded"))
        save_sheet(sheet, self.state.folder / "previews" / f"vae_{step:06d}.jpg")

    def _look_at_samples(self, step: int) -> None:
        """A row of samples for every source's first caption, of the averaged weights."""
        config = self.config
        plain = NtcConfig(
            rollback_time=0, steps=config.preview_steps, guidance=config.preview_guidance
        )
        model = LatentDiffusion(self._averaged(), name=NAME, device=self.device)
        method = Ntc(model, plain)
        captions = [captions_of(source.name)[0] for source in self.sources]
        rows = [
            [to_pil(method.generate(caption, seed=seed).cpu()) for seed in range(3)]
            for caption in captions
        ]
        sheet = contact_sheet(rows, cell_px=128, row_labels=captions)
        save_sheet(sheet, self.state.folder / "previews" / f"unet_{step:06d}.jpg")

    def save(self, minutes: float | None) -> Path:
        """Write the model and how it came to be; its folder."""
        return save_tiny_diffusion(
            self._averaged(), self.state.folder / NAME, self._origin(minutes)
        )

    def _averaged(self) -> Any:
        """The pipeline as it is kept."""
        networks = {"unet": self.ema["unet"], "text_encoder": self.ema["text"]}
        components = {**self.pipe.components, **networks}
        return type(self.pipe)(**components, requires_safety_checker=False)

    def _origin(self, minutes: float | None) -> dict[str, Any]:
        return {
            "name": NAME,
            "is_stable_diffusion": False,
            "command": training_command(
                self.config, self.state.folder, [s.name for s in self.sources[1:]], minutes
            ),
            "settings": dataclasses.asdict(self.config),
            "seed": self.config.seed,
            "sources": [{"name": s.name, "psi": s.psi, "license": s.license} for s in self.sources],
            "stages": {stage: _summary(self.state.rows(), stage) for stage in ("vae", "unet")},
            "parameters": {
                "unet": count_parameters(self.ema["unet"]),
                "vae": count_parameters(self.vae),
                "text_encoder": count_parameters(self.ema["text"]),
            },
            "precision": dtype_name(self.precision),
            "device": device_name(self.device),
            "machine": machine(),
            "versions": {
                name: metadata.version(name) for name in ("torch", "diffusers", "transformers")
            },
            "date": time.strftime("%Y-%m-%d"),
        }


def _precision(device: torch.device) -> torch.dtype:
    is_half = device.type == "cuda" and cuda_has_bfloat16()
    return torch.bfloat16 if is_half else torch.float32


def _rate(share: float) -> float:
    """What of the learning rate holds at a share of the training: up in a twentieth, down to 0 in the last third."""
    return max(0.0, min(1.0, 0.02 + 20 * share, 3 * (1 - share)))


def _summary(rows: Sequence[dict[str, Any]], stage: str) -> dict[str, Any]:
    """Steps, seconds, and the mean losses of the first and the last 50 steps of a stage."""
    of_stage = [row for row in rows if row["stage"] == stage]
    names = [name for name in of_stage[-1] if name not in ("stage", "step", "seconds")]

    def means(part: Sequence[dict[str, Any]]) -> dict[str, float]:
        return {name: round(sum(row[name] for row in part) / len(part), 5) for name in names}

    return {
        "steps": of_stage[-1]["step"],
        "seconds": round(of_stage[-1]["seconds"], 1),
        "first_losses": means(of_stage[:50]),
        "last_losses": means(of_stage[-50:]),
    }
