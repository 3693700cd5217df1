"""A style from a folder of pictures: check, G*, pseudo-pairs, G', package. Every stage goes on where it was killed.

::

    OUT/pictures/   the aligned pictures that are used; OUT/pictures.png shows which are not, and why
    OUT/star/       run of G*, finetuned without constraints
    OUT/pairs/      pseudo-pairs, with a sheet to look at and a report of how good they are
    OUT/run/        run of G', previews, scored snapshots
    OUT/hair/       run in which portraits get their people's hair, where one is asked for
    OUT/likeness/   run of the map of its codes, where one is asked for
    OUT/style/      the finished style; FaceStylizer.from_pretrained takes OUT, too
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facestyle.errors import CheckpointError, ConfigError
from facestyle.evaluation.sheets import save_sheet
from facestyle.hub.package import write_style
from facestyle.models.bases import (
    base_entry,
    encoder_for,
    find_encoder,
    save_encoder,
    write_base,
)
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.generator import Generator
from facestyle.models.latent_map import LatentMap
from facestyle.models.zoo import GENERATOR_FILE, load_style_generator, sha256_of
from facestyle.processes import Processes
from facestyle.styles import (
    HAIR_FILE,
    LIKENESS_FILE,
    OWN_ENCODER,
    StyleConfig,
    check_style_name,
    style_folder,
)
from facestyle.training.data import PictureSet
from facestyle.training.derive import origin_of, place_of
from facestyle.training.finetune import check_trains, finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.folder import check_folder
from facestyle.training.folder_report import LEAST_PX, Aligned
from facestyle.training.hair import HairConfig, learn_hair
from facestyle.training.likeness import LikenessConfig, learn_likeness
from facestyle.training.pairs import PairsConfig, PairStore, make_pairs
from facestyle.training.prepare import folder_sheet, prepare_pictures, recall_report
from facestyle.training.state import (
    TrainingState,
    check_settings,
    filled,
    hold,
    logged_seconds,
    write_json,
)

_log = logging.getLogger(__name__)

__all__ = ["PRESETS", "TrainConfig", "find_pairs", "train_style"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a style becomes.

    Attributes:
        star: how G* is finetuned; its constraints must have weight 0.
        pairs: how the pseudo-pairs are made.
        style: how G' is finetuned.
        hair: how its portraits get their people's hair afterwards; not at all with 0 steps, the paper's way.
        likeness: how the map of its codes is learned at last; likewise.
    """

    star: FinetuneConfig = field(
        default_factory=lambda: FinetuneConfig(
            coarse_steps=120, full_steps=0, sem_weight=0.0, pair_weight=0.0, preview_every=60
        )
    )
    pairs: PairsConfig = field(default_factory=PairsConfig)
    style: FinetuneConfig = field(default_factory=FinetuneConfig)
    hair: HairConfig = field(default_factory=lambda: HairConfig(steps=0, full_steps=0))
    likeness: LikenessConfig = field(default_factory=lambda: LikenessConfig(steps=0))

    def __post_init__(self) -> None:
        if self.star.sem_weight or self.star.pair_weight:
            raise ConfigError(
                "G* is finetuned without constraints; star.sem_weight and pair_weight are 0"
            )
        if self.uses_pairs and self.style.pair_level > self.pairs.level:
            raise ConfigError(
                f"style.pair_level {self.style.pair_level} needs pairs.level {self.style.pair_level} or more"
            )

    @property
    def uses_pairs(self) -> bool:
        """False where the paired constraint has no weight, or its codes are given."""
        return self.style.pair_weight > 0 and self.style.pair_level > 0

    def check_pairs(self, *, are_known: bool) -> None:
        """Refuse a paired constraint of known pairs where none are known.

        Raises:
            ConfigError: it has a weight, and its level is 0.
        """
        if self.style.pair_weight and not self.style.pair_level and not are_known:
            raise ConfigError(
                "style.pair_level 0 is of known pairs, and none are named; name them with --pairs, choose a level of 1 "
                "to 3, or train without pairs: --set style.pair_weight=0"
            )

    @property
    def stages(self) -> tuple[str, ...]:
        """Folders of a run in which there is something to do, in order, of those named above; pairs are found."""
        wanted = {
            "star": self.uses_pairs and self.pairs.level >= 2, "pairs": self.uses_pairs, "run": True,
            "hair": self.hair.learns, "likeness": self.likeness.steps > 0,
        }  # fmt: skip
        return tuple(stage for stage, is_wanted in wanted.items() if is_wanted)

    @classmethod
    def from_run(cls, folder: str | Path) -> TrainConfig:
        """What a run was begun with, as its folder's ``config.json`` says; what it is too old to know has its default.

        Raises:
            FileNotFoundError: it has not begun yet.
        """
        asked = json.loads((Path(folder) / "config.json").read_text())
        asked = filled(asked, dataclasses.asdict(cls()))
        return cls(
            star=FinetuneConfig(**asked["star"]), pairs=PairsConfig(**asked["pairs"]),
            style=FinetuneConfig(**asked["style"]), hair=HairConfig(**asked["hair"]),
            likeness=LikenessConfig(**asked["likeness"]),
        )  # fmt: skip


def _preset(
    *, star_steps: int, count: int, steps: int, coarse: int, full: int, held_out: int
) -> TrainConfig:
    star = FinetuneConfig(
        coarse_steps=star_steps, full_steps=0, sem_weight=0.0, pair_weight=0.0,
        preview_every=max(1, star_steps // 2),
    )  # fmt: skip
    # The first snapshot still has everybody, whom averages with it bring back.
    every = min(coarse // 6, 40)
    style = FinetuneConfig(
        coarse_steps=coarse, full_steps=full, held_out=held_out, preview_every=every
    )
    return TrainConfig(star=star, pairs=PairsConfig(count=count, steps=steps), style=style)


PRESETS: dict[str, TrainConfig] = {
    "fast": _preset(star_steps=40, count=24, steps=16, coarse=75, full=8, held_out=0),
    "default": _preset(star_steps=120, count=64, steps=50, coarse=240, full=40, held_out=32),
    "quality": _preset(star_steps=200, count=160, steps=100, coarse=480, full=80, held_out=64),
}
"""By the time they take, with the paper's losses; "faithful" takes that of "default", "patches" less than "fast"; what
"portrait" adds to "patches" is learned behind G', for the people in the pictures."""

PRESETS["faithful"] = replace(
    PRESETS["default"],
    style=replace(
        PRESETS["default"].style, coarse_lr=8e-4, sem_weight=2.0, identity_weight=0.7, color_weight=6.0,
        pair_pixel_weight=0.5, adversarial_ramp=0.25, noise_scale=0.3,
    ),
)  # fmt: skip

PRESETS["patches"] = replace(
    PRESETS["default"],
    style=FinetuneConfig(
        coarse_steps=150, coarse_lr=1.5e-3, full_steps=60, full_lr=8e-4, adversarial_weight=0.1,
        full_adversarial=0.0, discriminator_lr=1e-4, sem_weight=0.6, sem_finest=3, identity_weight=0.5,
        color_weight=12.0, pair_weight=0.0, patch_weight=5.0, patch_pictures=48, patch_tones=0.5,
        psi_min=0.6, psi_max=1.0, noise_scale=0.2, preview_every=30,
    ),
)  # fmt: skip

PRESETS["portrait"] = replace(PRESETS["patches"], hair=HairConfig(), likeness=LikenessConfig())


def find_pairs(
    generator: Generator,
    pictures: str | Path | Sequence[str | Path],
    out: str | Path,
    config: PairsConfig,
    *,
    star: str | Path,
    star_config: FinetuneConfig | None = None,
    encoder_z: str | Path | None = None,
    encoder_w_plus: str | Path | None = None,
    processes: Processes | None = None,
    progress: bool = True,
    timed: Callable[[str, float], None] = lambda stage, began: None,
) -> PairStore:
    """Pseudo-pairs of aligned pictures, and G* before them where the level needs it (paper section 3.2).

    Args:
        generator: G.
        pictures: folder or zip files of aligned style pictures.
        out: folder of the pairs; unfinished ones found there go on.
        config: how pairs are made.
        star: folder of the run of G*, the generator finetuned by the adversarial loss alone; it too goes on.
        star_config: how G* is finetuned; None goes on as a run that is there was begun.
        encoder_z: file of E_z+; the one that goes with G when None, see ``models.bases.find_encoder``.
        encoder_w_plus: file of E_w+, which level 3 needs; likewise.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show progress bars.
        timed: told each stage's name and ``time.monotonic()`` at its beginning when it ends.

    Raises:
        ConfigError: the star's config has constraints, or a folder holds another run.
        DatasetError: the pictures cannot be used.
        CheckpointError: an encoder is absent, damaged or of another kind.
        OutputError: a folder cannot be written.
    """
    star_config = star_config or _settings_of(Path(star)) or TrainConfig().star
    TrainConfig(star=star_config)
    e_z = encoder_for(generator, "z_plus", encoder_z)
    e_w_plus = encoder_for(generator, "w_plus", encoder_w_plus) if config.level >= 3 else None
    net: Generator | None = None
    if config.level >= 2:
        began = time.monotonic()
        net = finetune(
            generator, pictures, star, star_config, processes=processes, progress=progress
        )
        timed("star", began)
    began = time.monotonic()
    pairs = make_pairs(
        generator, PictureSet(pictures, generator.preview_resolution), out, config,
        encoder_z=e_z, encoder_w_plus=e_w_plus, star=net, processes=processes, progress=progress,
    )  # fmt: skip
    timed("pairs", began)
    return pairs


def _settings_of(star: Path) -> FinetuneConfig | None:
    """How a run of G* was begun; None where there is none."""
    path = star / "config.json"
    if not path.is_file():
        return None
    usual = dataclasses.asdict(FinetuneConfig())
    begun = filled(json.loads(path.read_text()), usual)
    return FinetuneConfig(**{name: begun[name] for name in usual})


def train_style(
    generator: Generator,
    pictures: str | Path | Sequence[str | Path],
    out: str | Path,
    config: TrainConfig | None = None,
    *,
    name: str,
    data_license: str,
    license: str | None = None,
    psi: float = 1.0,
    keep_shape: float | None = None,
    title: str | None = None,
    description: str | None = None,
    aligned: Aligned = "auto",
    min_side_px: int = LEAST_PX,
    pairs: PairStore | None = None,
    init: str | Path | None = None,
    encoder: str | Path | None = None,
    encoder_z: str | Path | None = None,
    encoder_w_plus: str | Path | None = None,
    processes: Processes | None = None,
    progress: bool = True,
) -> Path:
    """Train and package: the folder ``OUT/style``; ``FaceStylizer.from_pretrained`` reads it, by ``OUT`` too.

    A G other than the bundled one, and an encoder E_w other than the bundled one, go into that folder too.

    Args:
        generator: G, as ``models.bases.open_base`` gives it.
        pictures: folder or zip files of style pictures, aligned or whole.
        out: folder of the run; an unfinished run found there goes on.
        config: what to do.
        name: short name of the style, lower case.
        data_license: licence of the pictures, kept with the style.
        license: licence of the weights, an SPDX id or words; where it is None the card says that it is not stated.
        psi: its default truncation.
        keep_shape: how far the weights that draw shapes go back to G's when the style is loaded, 0 to 1, see
            ``StyleConfig``; where it is None 0, or what a style that was finished in ``out`` before has.
        title: shown to people; made from ``name`` when None.
        description: one line.
        aligned: whether the pictures are aligned, see ``training.folder.check_folder``.
        min_side_px: least side of what is used of a picture, likewise.
        pairs: pairs of these pictures, known (level 0) or found before (1 to 3), instead of a search; the pictures
            are then used as they are.
        init: folder of a style or of its run, or a ``generator.safetensors``, that G' starts from, instead of G. A
            style of a folder is taken as it is used, with its share and what lies beside its weights worked in.
        encoder: file of E_w, by which the style reads photos; the one that goes with G when None, see
            ``models.bases.find_encoder``.
        encoder_z: file of E_z+; likewise.
        encoder_w_plus: file of E_w+, which pairs of level 3 need; likewise.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show progress bars.

    Raises:
        ConfigError: a setting or the name is not allowed, or ``out`` holds a run of other settings or of another G;
            another ``style.pair_level`` is allowed until G' has begun.
        DatasetError: the style pictures cannot be used; the message says why, picture by picture.
        CheckpointError: ``init`` or an encoder is damaged or of another kind, or there is none that goes with G.
        OutputError: ``out`` cannot be written.
    """
    config = config or PRESETS["default"]
    config.check_pairs(are_known=pairs is not None)
    processes = processes or Processes()
    folder = Path(out)
    check_style_name(name)
    check_trains(generator, config.star, has_pairs=False)
    check_trains(generator, config.style, has_pairs=config.uses_pairs or pairs is not None)
    own_encoder = _find_encoders(
        generator, config.pairs.level if pairs is None and config.uses_pairs else 0, encoder,
        encoder_z, encoder_w_plus,
    )  # fmt: skip
    described = dataclasses.asdict(config) | {"name": name} | base_entry(generator)
    usual = dataclasses.asdict(TrainConfig())
    sources = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    held = None
    if processes.is_main and all(Path(source).exists() for source in sources):
        held = hold(folder)  # before anything in there changes
    _choose_level(folder, described)
    check_settings(folder, described, usual)
    if init is not None:
        init = _as_used(Path(init), folder, generator) if Path(init).is_dir() else Path(init)
        made_from = read_metadata(init).get("base_sha256", sha256_of(generator))
        if made_from != sha256_of(generator):
            raise CheckpointError(
                "was finetuned from another base generator than this run's", path=init
            )
    names = [Path(source).name for source in sources]
    if pairs is None:
        sources = [
            _prepared(sources, folder / "pictures", aligned, min_side_px, processes, progress)
        ]
    shown = PictureSet(sources, generator.preview_resolution)
    card = StyleConfig(
        name=name,
        title=title or name.replace("-", " ").capitalize(),
        description=description or f"Portraits in the style {name}.",
        architecture=generator.architecture,
        generator=generator.config(),
        base_sha256=sha256_of(generator),
        psi=psi,
        keep_shape=keep_shape or 0.0,
        license=license or "unknown",
        data={
            "sources": names,
            "count": len(shown),
            "license": data_license,
        },
        encoder="base" if own_encoder is None else OWN_ENCODER,
    )
    run = TrainingState(  # held to the end: it keeps others out
        folder, described, defaults=usual, is_main=processes.is_main
    )
    del held
    seconds: dict[str, float] = {}

    def timed(stage: str, began: float) -> None:
        seconds[stage] = round(time.monotonic() - began, 1)

    if pairs is None and config.uses_pairs:
        pairs = find_pairs(
            generator, sources, folder / "pairs", config.pairs, star=folder / "star",
            star_config=config.star, encoder_z=encoder_z, encoder_w_plus=encoder_w_plus,
            processes=processes, progress=progress, timed=timed,
        )  # fmt: skip
    began = time.monotonic()
    net = finetune(
        generator, sources, folder / "run", config.style, pairs=pairs, init=init,
        processes=processes, progress=progress,
    )  # fmt: skip
    timed("style", began)
    used, change = net, None
    if config.hair.learns:
        began = time.monotonic()
        change = learn_hair(
            generator, net, folder / "hair", config.hair, processes=processes, progress=progress
        )
        used = copy.deepcopy(net)
        change.work_into(used.synthesis)
        timed("hair", began)
    learned: LatentMap | None = None
    if config.likeness.steps:
        began = time.monotonic()
        learned = learn_likeness(
            generator,
            used,
            folder / "likeness",
            config.likeness,
            processes=processes,
            progress=progress,
        )
        timed("likeness", began)
    if processes.is_main:
        known = _known(folder / "style", card, keep_shape)
        if own_encoder is not None:
            own = encoder_for(generator, "w", own_encoder)
            save_encoder(own, folder / "style" / OWN_ENCODER)
        write_base(generator, folder / "style")
        before = _weights(folder / "style") if known else {}
        shares = {"share": card.share, "keep_shape": card.keep_shape}
        shares |= {} if learned is None else {"likeness": 1.0}
        shares |= {} if change is None else {"hair": 1.0}
        card = replace(card, **{name: known.get(name, share) for name, share in shares.items()})
        write_style(net.cpu(), card, folder / "style", generator.cpu())
        # After it, which takes away what is not used: a share of 0 may be another one some day.
        if learned is not None:
            learned.save(folder / "style" / LIKENESS_FILE)
        if change is not None:
            change.save(folder / "style" / HAIR_FILE)
        measured = known.get("scores") if _same(_weights(folder / "style"), before) else None
        origin = _origin(config, card, folder, seconds, processes, known.get("seconds", {}))
        origin |= {} if measured is None else {"scores": measured}
        if config.hair.learns:
            origin["hair"] = origin_of(folder / "hair", config.hair, processes.device)
        if learned is not None:
            origin["likeness"] = origin_of(folder / "likeness", config.likeness, processes.device)
        write_json(run.folder / "style" / "training.json", origin | _base_origin(generator))
    processes.wait()
    return folder / "style"


def _choose_level(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Let a run go on with another level of its pairs, as long as G' has not begun.

    Raises:
        ConfigError: it has, with the level before; the message says how it is begun anew.
    """
    begun = [folder / name for name in ("run", "hair", "likeness") if (folder / name).is_dir()]
    path = folder / "config.json"
    if not path.is_file():
        return
    before = filled(json.loads(path.read_text()), dataclasses.asdict(TrainConfig()))
    style, level = before["style"], wanted["style"]["pair_level"]
    chosen = before | {"style": style | {"pair_level": level}}
    if chosen == before or chosen != json.loads(json.dumps(dict(wanted))):
        return
    if begun:
        raise ConfigError(
            f"{folder} has trained with pairs of level {style['pair_level']}; to choose level {level} delete "
            f"{', '.join(map(str, begun))} and run the same command again: the pairs stay"
        )
    write_json(path, chosen)


def _as_used(style: Path, run: Path, base: Generator) -> Path:
    """File of a style's weights, all that is kept beside them worked in: its own, or ``init.safetensors`` of a run."""
    style = style_folder(style)
    card = StyleConfig.from_file(style / "config.json")
    if not card.adjusts:
        return style / GENERATOR_FILE
    tensors = load_style_generator(style, base, card).synthesis.state_dict()
    path = run / "init.safetensors"
    # One key: several would come in any order, and a run knows its start by the file's bytes.
    save_tensors(tensors, path, metadata={"base_sha256": card.base_sha256}, dtype=torch.float16)
    return path


def _find_encoders(
    generator: Generator,
    level: int,
    encoder: str | Path | None,
    encoder_z: str | Path | None,
    encoder_w_plus: str | Path | None,
) -> Path | None:
    """File of a style's own E_w, if it has one; that there are the encoders of pairs of a level is seen to."""
    if level >= 1:
        find_encoder(generator, "z_plus", encoder_z)
    if level >= 3:
        find_encoder(generator, "w_plus", encoder_w_plus)
    found = find_encoder(generator, "w", encoder)
    if found is not None:
        encoder_for(generator, "w", found)
    return found


def _prepared(
    sources: Sequence[str | Path],
    folder: Path,
    aligned: Aligned,
    min_side_px: int,
    processes: Processes,
    progress: bool,
) -> Path:
    """Folder of the pictures that are used, with a sheet of what was found; what is left out is logged."""
    if processes.is_main:
        known = recall_report(folder, sources, aligned=aligned, min_side_px=min_side_px)
        report = known or check_folder(
            sources, aligned=aligned, min_side_px=min_side_px, progress=progress
        )
        for line in report.format().splitlines():
            _log.warning(line) if report.left_out else _log.info(line)
        prepare_pictures(report, folder, side_px=max(512, min_side_px), progress=progress)
        sheet = folder.parent / "pictures.png"
        if known is None or not sheet.is_file():
            save_sheet(folder_sheet(report), sheet)
    processes.wait()
    return folder


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a style's folder, those beside its generator's by names that no network has."""
    tensors = read_tensors(folder / "generator.safetensors")
    for file in (LIKENESS_FILE, HAIR_FILE):
        if (folder / file).is_file():
            learned = read_tensors(folder / file)
            tensors |= {f"{file}:{name}": tensor for name, tensor in learned.items()}
    return tensors


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two files hold the same numbers; their headers may be in another order."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _known(folder: Path, card: StyleConfig, keep_shape: float | None) -> dict[str, Any]:
    """What a style that was finished before keeps: seconds, shares, scores of the same portraits.

    Shares may have been set by hand; how much of people's shapes it keeps is as asked for now, if it is.
    """
    try:
        config = StyleConfig.from_file(folder / "config.json")
        origin: dict[str, Any] = json.loads((folder / "training.json").read_text())
    except (OSError, ValueError, CheckpointError):
        return {}
    adjustments = config.adjustments
    if keep_shape is not None:
        adjustments["keep_shape"] = keep_shape
    is_same = config.psi == card.psi and adjustments == config.adjustments
    kept = ["seconds", "scores"] if is_same else ["seconds"]
    return {name: origin[name] for name in kept if name in origin} | adjustments


def _origin(
    config: TrainConfig,
    card: StyleConfig,
    folder: Path,
    seconds: dict[str, float],
    processes: Processes,
    before: dict[str, float],
) -> dict[str, Any]:
    """How the style came to be: settings, data, chosen snapshot, machine.

    Seconds are those of all sittings: the steps', by the runs' logs, and of a sitting its own where that is more.
    """
    choice = folder / "run" / "choice.json"
    logs = {
        "star": folder / "star", "style": folder / "run", "hair": folder / "hair",
        "likeness": folder / "likeness",
    }  # fmt: skip
    seconds = {
        stage: round(
            max(
                took, before.get(stage, 0.0), logged_seconds(logs[stage]) if stage in logs else 0.0
            ),
            1,
        )
        for stage, took in seconds.items()
    }
    return {
        "settings": dataclasses.asdict(config),
        "data": card.data,
        "psi": card.psi,
        "chosen": json.loads(choice.read_text())["chosen"] if choice.is_file() else None,
        "seconds": seconds,
        "processes": processes.count,
        **place_of(processes.device),
    }


def _base_origin(generator: Generator) -> dict[str, Any]:
    """Where a G of one's own came from, as far as its file says it."""
    if generator.source is None:
        return {}
    origin = read_metadata(generator.source.path).get("origin")
    return {
        "base": {
            "sha256": generator.source.sha256,
            "origin": None if origin is None else json.loads(origin),
        }
    }
