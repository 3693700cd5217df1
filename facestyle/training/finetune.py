"""Finetune the base generator G into a style's G' (paper section 3.1): adversarial loss and two constraints.

The semantic constraint (eq. 1) holds G'(w) to the content of G(w); the paired one (eq. 2) holds G'(w_plus) to the style
picture whose pseudo-pair has that code. Without both this makes G*, which the pairs need.

Two stages. ``coarse`` trains the blocks up to the preview's features on the cheap 256 px path, where the look is made.
``full`` runs the whole network, compares its picture at 256 px (patches and pairs at ``full_px``), and lets what was
learned settle under the last blocks, which stay as they are: the style pictures are too small to say anything about the
finest scale.

The mapping network and w_avg are shared with G and never trained, so a code w means the same person in both.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from facestyle.errors import ConfigError, DatasetError
from facestyle.evaluation.people import pil_pictures, to_levels
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.files import file_sha256
from facestyle.latents import broadcast
from facestyle.models.bases import base_entry
from facestyle.models.checkpoints import load_strict, read_tensors, save_tensors
from facestyle.models.discriminator import Adversary, make_adversary
from facestyle.models.features import LiteFeatures, PerceptualLoss, fold_batch_norm
from facestyle.models.generator import Generator, sample_z, weights_between
from facestyle.models.stylegan2_generator import StyleGAN2Synthesis
from facestyle.models.zoo import read_style_tensors
from facestyle.processes import Processes
from facestyle.seeds import numbered_seed
from facestyle.training.data import PictureSet, shuffled_batches
from facestyle.training.ema import update_ema
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.larger_eyes import enlarge_eyes, find_eyes
from facestyle.training.losses import SemanticLoss, texture_distance
from facestyle.training.nearest_patches import NearestPatches, darker
from facestyle.training.pairs import PairStore
from facestyle.training.people import random_people
from facestyle.training.selection import HeldOut
from facestyle.training.state import TrainingState, check_finite, write_json
from facestyle.training.stroke_noise import fill_planes, planes_beside
from facestyle.training.style_pictures import StylePictures, augment

__all__ = ["SHARES", "check_trains", "finetune", "per_tensor_groups"]

SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Of the last snapshot in averages of weights with the first (arXiv:2203.05482), scored beside the snapshots."""
_RISE_STEPS = 20
"""In which a stage's rate rises to its own, unless a quarter of the stage is shorter."""
_PLACE = {"stage", "step", "share"}
"""Of a row in ``choice.json``: what was scored."""


def _has_blank_planes(generator: Generator, block: int) -> bool:
    """Whether a block of the architecture "mobile" has no noise in any of its planes."""
    inside = generator.synthesis.get_submodule(f"blocks.{block}").named_buffers()
    return not any(plane.any() for name, plane in inside if name.endswith(".noise"))


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


def check_trains(generator: Generator, config: FinetuneConfig, *, has_pairs: bool) -> None:
    """Whether every stage that has steps has something to train, and something to learn from.

    Raises:
        ConfigError: it has not.
    """
    weights = [config.adversarial_weight, config.sem_weight, config.patch_weight]
    if not any([*weights, config.pair_weight if has_pairs else 0]):
        raise ConfigError(
            "no loss has a weight, so nothing would be learned; set adversarial_weight, patch_weight, sem_weight, or, "
            "where there are pairs, pair_weight above 0"
        )
    stages = ((config.coarse_steps, None), (config.full_steps, config.late_blocks))
    for steps, late_blocks in stages:
        if steps and not _trained(generator, config.early_blocks, late_blocks):
            raise ConfigError(
                f"early_blocks {config.early_blocks} leaves nothing to train in this generator; take fewer"
                + ("" if late_blocks is None else ", or more late_blocks")
            )


def finetune(
    generator: Generator,
    style: str | Path | Sequence[str | Path],
    out: str | Path,
    config: FinetuneConfig | None = None,
    *,
    pairs: PairStore | None = None,
    init: str | Path | None = None,
    processes: Processes | None = None,
    progress: bool = True,
) -> Generator:
    """The style's generator G'; log, previews, snapshots and state stay in ``out``.

    Args:
        generator: G, left as it is.
        style: folder or zip file of aligned style pictures.
        out: folder of the run; an unfinished run found there goes on.
        config: what to do.
        pairs: of the same pictures, for the paired constraint.
        init: a style's ``generator.safetensors``, or a snapshot, to start from instead of G.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show progress bars.

    Returns:
        The averaged weights after the last step, or those of the best held-out score where the config asks for scores:
        a snapshot's, or the first's averaged with a share of the last's; ``OUT/choice.json`` then says which.

    Raises:
        ConfigError: ``out`` holds a run of another config or of another G, or training diverged.
        DatasetError: the style pictures cannot be used, or the pairs are of others.
        CheckpointError: ``init`` is damaged or of another architecture.
        LatentShapeError: the pairs' codes have other rows than G's.
        OutputError: ``out`` cannot be written.
    """
    run = _Finetuning(
        generator,
        style,
        Path(out),
        config or FinetuneConfig(),
        pairs,
        init,
        processes or Processes(),
        progress,
    )
    run.stage("coarse")
    run.stage("full")
    return run.result()


class _Finetuning:
    """A run: networks, pictures, and what a step does with them."""

    def __init__(
        self,
        generator: Generator,
        style: str | Path | Sequence[str | Path],
        folder: Path,
        config: FinetuneConfig,
        pairs: PairStore | None,
        init: str | Path | None,
        processes: Processes,
        progress: bool,
    ) -> None:
        check_trains(generator, config, has_pairs=pairs is not None)
        self.config = config
        self.folder = folder
        self.processes = processes
        self.device = processes.device
        self.progress = progress and processes.is_main
        self.side = generator.preview_resolution
        described = dataclasses.asdict(config) | base_entry(generator)
        if init is not None:
            described["init"] = file_sha256(Path(init))
        self.style = style
        self.pictures = self._shown(generator.preview_resolution)
        described["pictures"] = self.pictures.pictures.digest()
        if pairs is not None and config.pair_weight:
            described["pairs"] = _digest(pairs.codes(config.pair_level))
        defaults = dataclasses.asdict(FinetuneConfig())
        self.state = TrainingState(folder, described, defaults=defaults, is_main=processes.is_main)
        self.base = generator.eval().requires_grad_(False).to(self.device)
        self.target = copy.deepcopy(self.base)
        with torch.no_grad():
            for name, buffer in self.target.synthesis.named_buffers():
                if name.endswith((".noise", ".noise_const")):
                    buffer.mul_(config.noise_scale)
        if init is not None:
            tensors = read_style_tensors(init, self.base.synthesis)
            load_strict(self.target.synthesis, tensors, path=init)
        if config.noise_share:
            preview_blocks = getattr(self.target.synthesis, "preview_blocks", 0)
            last = preview_blocks + (config.late_blocks if config.full_steps else 0)
            blocks = list(range(config.early_blocks, last))
            if init is not None:
                blocks = [block for block in blocks if _has_blank_planes(self.target, block)]
            fill_planes(self.target, config.noise_share, blocks, config.seed)
        self.ema = copy.deepcopy(self.target)

        features = LiteFeatures()
        fold_batch_norm(features.eval())
        self.features = features.requires_grad_(False).to(self.device)
        self.features.to(memory_format=torch.channels_last)
        torch.manual_seed(config.seed)
        self.adversary: Adversary = make_adversary(
            config.discriminator, self.features, self.side, config.discriminator_width
        ).to(self.device)
        self.adversary.to(memory_format=torch.channels_last)
        self.d_optimizer = self.adversary.optimizer(config.discriminator_lr or self.adversary.rate)
        self.semantic = SemanticLoss(
            self.features, config.identity_weight, config.color_weight, config.sem_finest,
            config.mouth_weight, config.eye_weight,
        )  # fmt: skip
        self.semantic.to(self.device)
        self.perceptual = PerceptualLoss(self.features)
        self.patches: NearestPatches | None = None
        self.known_pairs = pairs
        self.pairs = _PairBatches(self.base, self.pictures, pairs, config, self.device)
        self.held_out = None
        if config.held_out and processes.is_main:
            self.held_out = HeldOut(
                self.base, self.pictures, self.features, count=config.held_out,
                content=config.held_out_content,
            )  # fmt: skip
        z = sample_z(16, 200, generator.w_dim).to(self.device)
        self.preview_w = self.base.w_avg + 0.7 * (self.base.mapping(z) - self.base.w_avg)

    def _shown(self, side_px: int) -> StylePictures:
        config = self.config
        pictures = PictureSet(self.style, side_px)
        return StylePictures(
            pictures, replace_background=config.replace_background, flip=config.flip
        )

    def _patches(self, shown: StylePictures, soften: Callable[[Tensor], Tensor]) -> NearestPatches:
        """The style set as the nearest-patch loss sees it: as soft as the portraits, cut-outs before samples of G."""
        config = self.config
        shown = copy.copy(shown)
        shown.flip = False
        rng = torch.Generator().manual_seed(config.seed)
        with torch.no_grad():
            z = torch.randn(16, self.base.w_dim, generator=rng).to(self.device)
            w = self.base.w_avg + 0.7 * (self.base.mapping(z) - self.base.w_avg)
            scenes = torch.cat([_draw(self.base, part, self.side).cpu() for part in w.split(4)])
            scenes = _at_side(scenes, shown.pictures.side_px)
        chunks = torch.arange(len(shown)).split(16)
        parts = (shown.batch(chunk.tolist(), scenes, rng) for chunk in chunks)
        if config.patch_tones:
            parts = (darker(part, config.patch_tones, rng) for part in parts)
        seen = (soften(part.to(self.device)) for part in parts)
        return NearestPatches(self.features, seen, shown.coverage)

    def stage(self, name: str) -> None:
        """Run what is left of stage "coarse" or "full".

        They differ also for a G so small that its preview is its full picture: in what is trained, and how it is seen.
        """
        config, is_full = self.config, name == "full"
        if is_full:
            steps, batch, lr = config.full_steps, config.full_batch, config.full_lr
            resolution = self.base.resolution
        else:
            steps, batch, lr = config.coarse_steps, config.coarse_batch, config.coarse_lr
            resolution = self.side
        soften = _keep if is_full else _soften
        share = config.adversarial_weight * (config.full_adversarial if is_full else 1.0)
        self.seen_px = config.full_px if is_full and config.full_px else self.side
        shown = self.pictures
        if self.seen_px != self.side:
            shown = self._shown(self.seen_px)
            self.pairs = _PairBatches(self.base, shown, self.known_pairs, config, self.device)
        self.patches = self._patches(shown, soften) if config.patch_weight else None
        named = _trained(self.target, config.early_blocks, config.late_blocks if is_full else None)
        if not named:  # nor any steps, see `check_trains`
            return
        if config.noise_share:
            named += planes_beside(self.target, [name for name, _ in named])
        self.target.requires_grad_(False)
        for _, p in named:
            p.requires_grad_(True)
        g_optimizer = torch.optim.Adam(per_tensor_groups(named, lr), betas=(0.0, 0.99))
        rise = min(_RISE_STEPS, max(1, steps // 4))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            g_optimizer,
            lambda step: min(1.0, (step + 1) / rise, 2 * (1 - step / max(steps, 1))),
        )
        modules = {
            "target": self.target, "ema": self.ema, "discriminator": self.adversary,
            "g_optimizer": g_optimizer, "d_optimizer": self.d_optimizer, "schedule": schedule,
        }  # fmt: skip
        first = self.state.resume(name, modules)
        if self.processes.is_main:
            self.state.forget_after(name, first)
        order = self._order(len(self.pictures), batch, 17, first)
        images = batch * self.processes.count
        bar = tqdm(
            range(first, steps), initial=first, total=steps, desc=name, disable=not self.progress
        )
        began = time.monotonic()
        for step in bar:
            rng = torch.Generator().manual_seed(
                (numbered_seed(config.seed, step) * 2 + is_full) * 1_009 + self.processes.rank
            )
            ramp = 0.0 if is_full else config.adversarial_ramp * steps
            weight = share * min(1.0, step / ramp if ramp else 1.0) if share else None
            row = self._step(next(order), batch, resolution, soften, step, weight, g_optimizer, rng)
            schedule.step()
            half_life = min(config.ema_half_life_nimg, images * (step + 1) / 2)
            update_ema(self.ema, self.target, 0.5 ** (images / half_life))
            bar.set_postfix({k: f"{v:.2f}" for k, v in row.items()})
            is_due = (step + 1) % config.preview_every == 0 or step + 1 == steps
            check_finite(name, step + 1, row, modules if is_due else None)
            if is_due:
                row |= self._look(name, step + 1)
            if self.processes.is_main:
                self.state.log({
                    "stage": name, "step": step + 1, **row, "seconds": time.monotonic() - began,
                })  # fmt: skip
                if is_due:
                    self.state.save(name, step + 1, modules)
            if is_due:
                self.processes.wait()

    def _order(self, count: int, batch: int, salt: int, done: int) -> Iterator[list[int]]:
        """Index batches of this process, of which ``done`` have been had."""
        rng = torch.Generator().manual_seed(self.config.seed + salt + 7_919 * self.processes.rank)
        order = shuffled_batches(count, batch, rng)
        for _ in range(done):
            next(order)
        return order

    def _step(
        self,
        indices: Sequence[int],
        batch: int,
        resolution: int,
        soften: Callable[[Tensor], Tensor],
        step: int,
        adversarial_weight: float | None,
        g_optimizer: torch.optim.Optimizer,
        rng: torch.Generator,
    ) -> dict[str, float]:
        """One step of the discriminator, unless its weight is None, and one of the generator; the unweighted losses."""
        config, base = self.config, self.base
        row: dict[str, float] = {}
        if config.adversarial_weight or config.sem_weight or config.patch_weight:
            with torch.no_grad():
                w = random_people(base, batch, config.psi_min, config.psi_max, rng)
                source = _draw(base, w, resolution)
            seen = _draw(self.target, w, resolution, self.seen_px)
            img = _at_side(seen, self.side)
        losses: list[Tensor] = []
        if adversarial_weight is not None:
            real = self.pictures.batch(indices, source.cpu(), rng).to(self.device)
            self.adversary.requires_grad_(True)
            d_loss = self.adversary.discriminator_loss(
                soften(augment(real, rng)), soften(augment(img.detach(), rng)), step
            )
            self.d_optimizer.zero_grad(set_to_none=True)
            d_loss.backward()
            self.processes.average_gradients(self.adversary.parameters())
            self.d_optimizer.step()
            self.adversary.requires_grad_(False)  # spares its weights' gradients
            adversarial = self.adversary.generator_loss(soften(augment(img, rng)))
            losses.append(adversarial_weight * adversarial)
            row |= {"d": d_loss.item(), "adv": adversarial.item()}
        if self.patches is not None:
            chosen = torch.randperm(len(self.pictures), generator=rng)[: config.patch_pictures]
            mirrored = config.flip and bool(torch.rand((), generator=rng) < 0.5)
            away = self.patches(soften(seen), chosen.tolist(), mirrored=mirrored).mean()
            losses.append(config.patch_weight * away)
            row["patch"] = away.item()
        if config.sem_weight:
            meaning = self.semantic(img, self._content(source)).mean()
            losses.append(config.sem_weight * meaning)
            row["sem"] = meaning.item()
        g_optimizer.zero_grad(set_to_none=True)
        if losses:
            torch.stack(losses).sum().backward()
        if self.pairs and config.pair_weight:  # apart, so that half the maps are in memory
            w_plus, picture = self.pairs.batch(config.pair_batch, rng)
            seen = _draw(self.target, w_plus, resolution, self.seen_px)
            paired = self._pair_loss(seen, picture)
            (config.pair_weight * paired).backward()
            row["pair"] = paired.item()
        self.processes.average_gradients(
            p for group in g_optimizer.param_groups for p in group["params"]
        )
        g_optimizer.step()
        return row

    def _content(self, source: Tensor) -> Tensor:
        """What the semantic constraint holds to: G(w), with larger eyes where the config says so."""
        if self.config.eye_scale == 1:
            return source
        return enlarge_eyes(source, find_eyes(source), self.config.eye_scale)

    def _pair_loss(self, img: Tensor, picture: Tensor) -> Tensor:
        """Paper eq. 2, mean over the batch, plus texture and plain difference where they have a weight."""
        with torch.no_grad():
            wanted = self.perceptual.describe(picture)
        maps = self.perceptual.describe(img)
        loss = self.perceptual.between(maps, wanted).mean()
        if self.config.pair_texture_weight:
            loss = loss + self.config.pair_texture_weight * texture_distance(maps, wanted).mean()
        if self.config.pair_pixel_weight:
            difference = F.interpolate(img - picture, size=64, mode="area").abs().mean()
            loss = loss + self.config.pair_pixel_weight * difference
        return loss

    def _look(self, stage: str, step: int) -> dict[str, float]:
        """Preview sheet, snapshot, and the held-out score."""
        if not self.processes.is_main:
            return {}
        name = f"{stage}_{step:05d}"
        _preview(self.base, self.ema, self.preview_w, self.folder / "previews" / f"{name}.png")
        save_tensors(
            self.ema.synthesis.state_dict(),
            self.folder / "snapshots" / f"{name}.safetensors",
            metadata={"format": "facestyle-style", "version": "1"},
            dtype=torch.float16,
        )
        return {} if self.held_out is None else self.held_out(self.ema)

    def result(self) -> Generator:
        """The chosen snapshot, or the averaged weights of the last step."""
        path = self.folder / "choice.json"
        scored = [row for row in self.state.rows() if "score" in row]
        if scored:
            if self.held_out is not None:
                self._choose(scored, path)
            self.processes.wait()
            self._take(json.loads(path.read_text())["chosen"], scored[0])
        return self.ema.eval()

    def _choose(self, scored: list[dict[str, Any]], path: Path) -> None:
        """Write down the best of the scored snapshots, and of averages of the first with the last."""
        assert self.held_out is not None
        places = [{name: row[name] for name in ("stage", "step")} for row in scored]
        shares = SHARES if len(places) > 1 else ()
        wanted = places + [places[-1] | {"share": share} for share in shares]
        if path.is_file():
            before = json.loads(path.read_text())["scored"]
            if [{name: row[name] for name in row.keys() & _PLACE} for row in before] == wanted:
                return
        known = [row for row in scored if "recognition" in row]  # others an earlier version scored
        rows: list[dict[str, Any]] = []
        for place in tqdm(wanted, desc="choice", disable=not self.progress):
            found = next((row for row in known if place.items() <= row.items()), None)
            if found is None:
                self._take(place, scored[0])
                found = place | self.held_out(self.ema)
            rows.append(found)
        write_json(path, {"chosen": min(rows, key=lambda row: row["score"]), "scored": rows})

    def _take(self, row: Mapping[str, Any], first: Mapping[str, Any]) -> None:
        """The weights of a snapshot, or of the first averaged with a share of it."""
        self._load(row)
        if "share" in row:
            last = copy.deepcopy(self.ema.synthesis)
            self._load(first)
            synthesis = self.ema.synthesis
            synthesis.load_state_dict(weights_between(synthesis, last, row["share"]))

    def _load(self, row: Mapping[str, Any]) -> None:
        path = self.folder / "snapshots" / f"{row['stage']}_{row['step']:05d}.safetensors"
        load_strict(self.ema.synthesis, read_tensors(path), path=path)


class _PairBatches:
    """Codes and style pictures, before the blurred pair where the picture is cut out of a plain ground."""

    def __init__(
        self,
        base: Generator,
        shown: StylePictures,
        pairs: PairStore | None,
        config: FinetuneConfig,
        device: torch.device,
    ) -> None:
        self.count = 0
        pictures = shown.pictures
        self.device = device
        if pairs is None or config.pair_weight == 0:
            return
        if max(pairs.indices) >= len(pictures) or any(
            Path(pictures.names[i]).name != Path(name).name
            for i, name in zip(pairs.indices, pairs.names, strict=True)
        ):
            raise DatasetError("the pairs were made from other pictures than these; make them anew")
        self.codes = broadcast(pairs.codes(config.pair_level), base.num_ws)
        self.indices = pairs.indices
        self.count = len(pairs)
        self.shown = copy.copy(shown)
        self.shown.flip = False
        self.faces = torch.empty(
            self.count, 3, pictures.side_px, pictures.side_px, dtype=torch.uint8
        )
        if any(matte is not None for matte in self.shown.mattes):
            with torch.no_grad():
                for i in range(self.count):
                    img = _draw(base, self.codes[i : i + 1].to(device), base.preview_resolution)
                    img = _at_side(img, pictures.side_px)
                    self.faces[i] = ((img[0] + 1) * 127.5).round().clamp(0, 255).cpu()

    def __bool__(self) -> bool:
        return self.count > 0

    def batch(self, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """w_plus [B, num_ws, w_dim] and pictures [B, 3, S, S] in [-1, 1]."""
        chosen = torch.randperm(self.count, generator=rng)[:size]
        scenes = self.faces[chosen].float() / 127.5 - 1
        picture = self.shown.batch([self.indices[i] for i in chosen.tolist()], scenes, rng)
        return self.codes[chosen].to(self.device), picture.to(self.device)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.float().contiguous().numpy().tobytes()).hexdigest()


def _draw(generator: Generator, w: Tensor, resolution: int, side_px: int | None = None) -> Tensor:
    """Pictures of the preview's side, or of another, by the path of a resolution."""
    img: Tensor = generator.synthesis(broadcast(w, generator.num_ws), resolution=resolution)
    return _at_side(img, side_px or generator.preview_resolution)


def _at_side(img: Tensor, side_px: int) -> Tensor:
    if img.shape[-1] == side_px:
        return img
    if img.shape[-1] % side_px == 0:
        return F.interpolate(img, size=side_px, mode="area")
    return F.interpolate(img, size=side_px, mode="bilinear", antialias=True)


def _trained(
    generator: Generator, early_blocks: int, late_blocks: int | None
) -> list[tuple[str, nn.Parameter]]:
    """What is trained: all that the preview path uses, less the first blocks, where ``late_blocks`` is None.

    Else, for the full picture: the same less the preview's head, and so many blocks more.
    """
    synthesis = generator.synthesis
    if isinstance(synthesis, StyleGAN2Synthesis):
        last = synthesis.sides.index(generator.preview_resolution) + 1 + (late_blocks or 0)
        sides = [*synthesis.sides[:early_blocks], *synthesis.sides[last:]]
        still = (*(f"b{side}." for side in sides), *(["const"] if early_blocks else []))
        return [(name, p) for name, p in synthesis.named_parameters() if not name.startswith(still)]
    first = synthesis.preview_blocks
    assert isinstance(first, int)
    blocks = range(first + (late_blocks or 0), len(synthesis.blocks))  # type: ignore[arg-type]
    frozen = [f"blocks.{i}." for i in (*range(early_blocks), *blocks)]
    if early_blocks:
        frozen += ["stem.", "const"]
    if len(blocks):
        frozen.append("to_image.")
    if late_blocks is not None:
        frozen.append("to_preview.")
    return [
        (name, p) for name, p in synthesis.named_parameters() if not name.startswith(tuple(frozen))
    ]


def _soften(img: Tensor) -> Tensor:
    """Without the finest scale, where the preview head's pictures differ from any real picture."""
    return F.interpolate(F.avg_pool2d(img, 2), scale_factor=2, mode="bilinear")


def _keep(img: Tensor) -> Tensor:
    return img


def _preview(base: Generator, ema: Generator, w: Tensor, path: Path) -> None:
    """Sheet of full pictures, G above G', at 256 px."""

    def draw(net: Generator) -> list[list[Image.Image]]:
        drawn = [_draw(net, part, net.resolution).cpu() for part in w.split(1)]
        return [list(pil_pictures(to_levels(part))) for part in torch.cat(drawn).split(8)]

    with torch.no_grad():
        rows = [row for both in zip(draw(base), draw(ema), strict=True) for row in both]
    save_sheet(contact_sheet(rows, cell_px=256), path)
