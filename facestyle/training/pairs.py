"""Pseudo-pairs: for every style picture S a code w_plus whose face P = G(w_plus) has S's content (paper section 3.2).

Three levels, each made from the one before (eqs. 4 to 6, the last as its text and not its formula has it):

1. z_plus = E_z+(S), every row through the mapping network: a natural face, loosely like S.
2. z_plus optimised until G*, the generator finetuned without constraints, draws S. The same code in G is P2.
3. w_plus = E_w+(P2): realistic detail that Z+ cannot hold. E_w+(S), as the formula has it, can be had to compare.

Codes of levels 1 and 2 are truncated before they are kept, which makes the faces natural.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.inversion import ReconstructionLoss
from facestyle.latents import broadcast, truncate
from facestyle.models.bases import base_entry
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors, weights_sha256
from facestyle.models.encode import encode
from facestyle.models.encoder import to_w_plus
from facestyle.models.generator import Generator
from facestyle.models.psp_encoder import AnyEncoder
from facestyle.options import check_psi
from facestyle.processes import Processes
from facestyle.ranges import check_above_0, check_least
from facestyle.training.data import PictureSet
from facestyle.training.pair_report import REPORT, draw_pairs, measure_pairs, write_report
from facestyle.training.state import TrainingState
from facestyle.training.style_pictures import StylePictures

__all__ = ["PairStore", "PairsConfig", "given_pairs", "make_pairs"]

_log = logging.getLogger(__name__)

LEVELS = (1, 2, 3)
FILE = "pairs.safetensors"
_KINDS = ("w_plus", "likeness", "identity", "star_likeness")
_FORMAT = {"format": "facestyle-pairs", "version": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsConfig:
    """How pseudo-pairs are made.

    Attributes:
        level: 1, 2 or 3; every level up to it is kept.
        count: at most so many pairs, spread evenly over the pictures; 0 is all.
        steps: level 2: steps of Adam per picture (paper: 1000).
        lr: level 2: Adam's rate in units of z's standard deviation, rising for the first tenth and falling to 0 in
            the second half (paper: 0.02, constant).
        batch: pictures optimised together; each is on its own, the batch only fills the machine.
        identity_weight: level 2: weight of 1 - cosine of identity embeddings (paper: 0.1).
        pixel_weight: level 2: weight of the mean absolute difference at 32 px (paper: 0).
        row_weight: level 2: weight of the rows' standard deviation, which holds z_plus near Z.
        psi: codes of levels 1 and 2 are truncated by it.
        refine_from: what level 3 encodes: "P2", or "S" for the comparison in the paper's Figure 13.
        replace_background: cut pictures out of plain grounds: "yes", "no", or "auto" where most of the set has one.
    """

    level: int = 2
    count: int = 100
    steps: int = 60
    lr: float = 0.1
    batch: int = 4
    identity_weight: float = 0.1
    pixel_weight: float = 1.0
    row_weight: float = 1.0
    psi: float = 0.7
    refine_from: str = "P2"
    replace_background: str = "auto"

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(f"level must be 1, 2 or 3, got {self.level}")
        for name in ("steps", "batch"):
            check_least(name, getattr(self, name), 1)
        for name in ("count", "identity_weight", "pixel_weight", "row_weight"):
            check_least(name, getattr(self, name), 0)
        check_above_0("lr", self.lr)
        check_psi("psi", self.psi)
        if self.refine_from not in ("P2", "S"):
            raise ConfigError(f'refine_from must be "P2" or "S", got {self.refine_from!r}')
        if self.replace_background not in ("auto", "yes", "no"):
            raise ConfigError(
                f'replace_background must be "auto", "yes" or "no", got {self.replace_background!r}'
            )


@dataclass(frozen=True, slots=True)
class PairStore:
    """Pairs of one style set.

    Attributes:
        indices: which pictures of the set, in order.
        names: of these pictures.
        w_plus: level -> [N, num_ws, w_dim]; level 0 holds codes that were given, not found.
        likeness: level -> [N], perceptual distance of P to S, in the training loss's units; lower is more alike.
        identity: level -> [N], cosine of the identity embeddings of P and S, in [-1, 1].
        star_likeness: level -> [N], perceptual distance of G*'s picture of the same code to S; empty where there was no
            G*, and in older files.
        settings: what made them, as in the run's ``config.json``: psi, steps and so on, and digests of G* and of a G of
            one's own; empty for given codes, and in older files.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    w_plus: dict[int, Tensor]
    likeness: dict[int, Tensor]
    identity: dict[int, Tensor]
    star_likeness: dict[int, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    @classmethod
    def load(cls, path: str | Path) -> PairStore:
        """From ``pairs.safetensors`` or the folder that holds it.

        Raises:
            CheckpointError: the file is absent, damaged, or something else.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        metadata, tensors = read_metadata(path), read_tensors(path)
        try:
            if metadata["format"] != _FORMAT["format"]:
                raise KeyError(metadata["format"])
            names = tuple(json.loads(metadata["names"]))
            settings = json.loads(metadata.get("settings", "{}"))
            by_kind: dict[str, dict[int, Tensor]] = {kind: {} for kind in _KINDS}
            for key, value in tensors.items():
                kind, _, level = key.partition(".")
                if kind != "indices":
                    by_kind[kind][int(level)] = value.float()
            return cls(tuple(tensors["indices"].tolist()), names, **by_kind, settings=settings)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"holds no pairs ({error})", path=path) from error

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        tensors = {"indices": torch.tensor(self.indices)}
        for kind in _KINDS:
            tensors |= {f"{kind}.{level}": t for level, t in getattr(self, kind).items()}
        metadata = {**_FORMAT, "names": list(self.names), "settings": self.settings}
        save_tensors(tensors, path, metadata=metadata)

    def codes(self, level: int) -> Tensor:
        """[N, num_ws, w_dim] of a level.

        Raises:
            ConfigError: the store lacks the level.
        """
        if level not in self.w_plus:
            raise ConfigError(
                f"these pairs have levels {sorted(self.w_plus)}, not {level}; choose one of them: --set "
                f"style.pair_level={max(self.w_plus)}"
            )
        return self.w_plus[level]


def given_pairs(pictures: PictureSet, w: Tensor, num_ws: int) -> PairStore:
    """Pairs whose codes are known, as level 0: ``w`` [N, w_dim] or [N, num_ws, w_dim], a row a picture, in name order.

    Raises:
        LatentShapeError: the number of codes is not that of the pictures.
    """
    if w.shape[0] != len(pictures):
        raise LatentShapeError(
            f"{w.shape[0]} codes for {len(pictures)} pictures; give a code for every picture, in the order of their "
            "names, or take away the pictures that have none"
        )
    codes = broadcast(w.float(), num_ws).contiguous()
    return PairStore(tuple(range(len(pictures))), tuple(pictures.names), {0: codes}, {}, {})


def make_pairs(
    generator: Generator,
    pictures: PictureSet,
    out: str | Path,
    config: PairsConfig | None = None,
    *,
    encoder_z: AnyEncoder,
    encoder_w_plus: AnyEncoder | None = None,
    star: Generator | None = None,
    processes: Processes | None = None,
    progress: bool = True,
) -> PairStore:
    """The pairs; left behind are ``OUT/pairs.safetensors``, a folder of pictures a level, a sheet and a report.

    ``OUT/sheet.png`` shows S beside P; ``OUT/report.md`` and ``report.json`` say how like S and how natural P is. Work
    is kept after every batch: an unfinished run found in ``out`` goes on and ends in the same pairs.

    Args:
        generator: G.
        pictures: the style's, at the preview's side.
        out: folder of the run.
        config: what to do.
        encoder_z: E_z+.
        encoder_w_plus: E_w+, for level 3.
        star: G*, for levels 2 and 3.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show a progress bar.

    Raises:
        ConfigError: ``out`` holds pairs of other settings or of another G, or a network a level needs is not given.
        OutputError: ``out`` cannot be written.
    """
    config = config or PairsConfig()
    processes = processes or Processes()
    if config.level >= 2 and star is None:
        raise ConfigError(
            "pairs of level 2 and 3 need G*, the style's generator without constraints"
        )
    if config.level >= 3 and encoder_w_plus is None:
        raise ConfigError("pairs of level 3 need the encoder E_w+")
    folder = Path(out)
    total = min(config.count or len(pictures), len(pictures))
    indices = [round(i * len(pictures) / total) for i in range(total)]
    names = [pictures.names[i] for i in indices]
    seen = {"encoder_z": weights_sha256(encoder_z), "pictures_sha256": pictures.digest()}
    if config.level >= 3 and encoder_w_plus is not None:
        seen["encoder_w_plus"] = weights_sha256(encoder_w_plus)
    state, settings = _claim(folder, config, names, generator, star, seen, processes.is_main)
    maker = _Maker(generator, config, encoder_z, encoder_w_plus, star, processes.device)
    shown = StylePictures(pictures, replace_background=config.replace_background, flip=False)

    chunks = state.folder / "chunks"
    starts = range(0, total, config.batch)
    mine = starts[processes.rank :: processes.count]
    unit = config.steps * (config.level >= 2) + 1
    bar = tqdm(total=len(mine) * unit, desc="pairs", disable=not (progress and processes.is_main))
    for start in mine:
        path = chunks / f"{start:05d}.safetensors"
        if path.is_file():
            bar.update(unit)
            continue
        part = indices[start : start + config.batch]
        raw = pictures.batch(part).to(processes.device)
        found = maker(raw, partial(_before, shown, part), bar.update)
        save_tensors(found, path, metadata=_FORMAT)
    bar.close()
    processes.wait()

    columns: dict[str, list[Tensor]] = {}
    for start in starts:
        for key, value in read_tensors(chunks / f"{start:05d}.safetensors").items():
            columns.setdefault(key, []).append(value)
    # Chunks of an older run may lack a measure; it is left out then.
    joined = {k: torch.cat(values) for k, values in columns.items() if len(values) == len(starts)}

    def by_level(kind: str) -> dict[int, Tensor]:
        return {k: joined[f"{kind}.{k}"] for k in LEVELS if f"{kind}.{k}" in joined}

    store = PairStore(
        tuple(indices), tuple(names), **{kind: by_level(kind) for kind in _KINDS}, settings=settings
    )  # fmt: skip
    if processes.is_main:
        if not (folder / "sheet.png").is_file():
            store.save(folder / FILE)
            draw_pairs(generator, store, pictures, folder, processes.device)
        if not (folder / REPORT).is_file():
            report = measure_pairs(
                generator, store, pictures, psi=config.psi, device=processes.device
            )
            write_report(report, folder)
    processes.wait()
    return store


def _before(shown: StylePictures, indices: Sequence[int], scenes: Tensor) -> Tensor:
    """The pictures; those cut out of a plain ground stand before the blurred scenes."""
    return shown.batch(indices, scenes, torch.Generator().manual_seed(0))


class _Maker:
    """Codes of a batch of style pictures at every level."""

    def __init__(
        self,
        generator: Generator,
        config: PairsConfig,
        encoder_z: AnyEncoder,
        encoder_w_plus: AnyEncoder | None,
        star: Generator | None,
        device: torch.device,
    ) -> None:
        self.generator = generator.to(device)
        self.star = None if star is None else star.to(device)
        self.config = config
        self.encoder_z = encoder_z.to(device)
        self.encoder_w_plus = None if encoder_w_plus is None else encoder_w_plus.to(device)
        self.loss = ReconstructionLoss(
            perceptual_weight=1.0,
            identity_weight=config.identity_weight,
            pixel_weight=config.pixel_weight,
            device=device,
        )

    def __call__(
        self,
        pictures: Tensor,
        before: Callable[[Tensor], Tensor],
        on_step: Callable[[], object],
    ) -> dict[str, Tensor]:
        """Codes and distances; ``before`` stands cut-out pictures before the blurred scenes it is given."""
        psi, w_avg = self.config.psi, self.generator.w_avg
        with torch.no_grad():
            z = encode(self.encoder_z, pictures, self.generator)
            w_plus = {1: truncate(to_w_plus(z, "z_plus", self.generator), w_avg, psi)}
        faces = {1: self._draw(self.generator, w_plus[1])}
        target = before(faces[1].cpu()).to(pictures.device)
        on_step()
        if self.star is not None and self.config.level >= 2:
            z = self._optimise(self.star, target, z, on_step)
            with torch.no_grad():
                w_plus[2] = truncate(to_w_plus(z, "z_plus", self.generator), w_avg, psi)
            faces[2] = self._draw(self.generator, w_plus[2])
        if self.encoder_w_plus is not None and self.config.level >= 3:
            with torch.no_grad():
                shown = faces[2].clamp(-1, 1) if self.config.refine_from == "P2" else pictures
                w_plus[3] = encode(self.encoder_w_plus, shown, self.generator)
            faces[3] = self._draw(self.generator, w_plus[3])
        wanted = self.loss.target(target)
        found = {f"w_plus.{level}": codes for level, codes in w_plus.items()}
        with torch.no_grad():
            for level, face in faces.items():
                parts = self.loss.parts(face, wanted)
                found[f"likeness.{level}"] = parts["perceptual"]
                found[f"identity.{level}"] = 1 - parts["identity"]
                if self.star is not None:
                    drawn = self.loss.perceptual.describe(self._draw(self.star, w_plus[level]))
                    found[f"star_likeness.{level}"] = self.loss.perceptual.between(
                        drawn, wanted.maps
                    )
        return found

    def _draw(self, generator: Generator, w_plus: Tensor) -> Tensor:
        with torch.no_grad():
            img = generator.synthesis(w_plus, resolution=generator.preview_resolution)
        assert isinstance(img, Tensor)
        return img

    def _optimise(
        self, star: Generator, target: Tensor, start: Tensor, on_step: Callable[[], object]
    ) -> Tensor:
        """The best z_plus met, by sample; rows stay on the sphere of radius sqrt(w_dim)."""
        config = self.config
        radius = start.shape[-1] ** 0.5
        wanted = self.loss.target(target)
        z = start.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=config.lr)
        best = start.detach().clone()
        best_score = torch.full((z.shape[0],), float("inf"), device=z.device)
        for step in range(config.steps + 1):
            with torch.set_grad_enabled(step < config.steps):
                img = star.synthesis(
                    to_w_plus(z, "z_plus", star), resolution=star.preview_resolution
                )
                score = self.loss.total(self.loss.parts(img, wanted))
                score = score + config.row_weight * z.std(1, correction=0).mean(1)
            is_better = score.detach() < best_score
            best_score = torch.where(is_better, score.detach(), best_score)
            best[is_better] = z.detach()[is_better]
            if step == config.steps:
                break
            share = min(
                1.0,
                (step + 1) / max(1, config.steps // 10),
                2 * (config.steps - step) / config.steps,
            )
            optimizer.param_groups[0]["lr"] = config.lr * share
            optimizer.zero_grad(set_to_none=True)
            score.sum().backward()
            optimizer.step()
            with torch.no_grad():
                z.mul_(radius / z.norm(dim=2, keepdim=True))
            on_step()
        return best


def _claim(
    folder: Path,
    config: PairsConfig,
    names: Sequence[str],
    generator: Generator,
    star: Generator | None,
    seen: dict[str, str],
    is_main: bool,
) -> tuple[TrainingState, dict[str, Any]]:
    """Make the folder this run's; an unfinished run must have the same settings, pictures, encoders, G and G*.

    Args:
        folder: of the run.
        config: its settings.
        names: of its pictures.
        generator: G.
        star: G*.
        seen: digests of pictures and encoders; a run too old to know its own goes on with these.
        is_main: this process keeps others out.

    Returns:
        What keeps others out, and the settings with digests of G* and of a G of one's own.
    """
    settings: dict[str, Any] = dataclasses.asdict(config) | base_entry(generator)
    if star is not None:
        settings["star"] = weights_sha256(star.synthesis)
    defaults = dataclasses.asdict(PairsConfig()) | seen
    described = settings | seen | {"pictures": list(names)}
    return TrainingState(folder, described, defaults=defaults, is_main=is_main), settings
