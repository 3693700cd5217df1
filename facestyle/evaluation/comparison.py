"""Every method on the same photos, measured in one run (the paper's Tables 1, 3 and 6).

::

    OUT/config.json            what is compared; a killed run goes on
    OUT/codes/                 codes that a method searches for once, for all styles
    OUT/STYLE/METHOD/          metrics.json, and the portraits of the sheet
    OUT/STYLE.jpg              the photos above every method's portraits
    OUT/report.md              the tables
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from facestyle.baselines.base import PictureSources, ProjectingBaseline, resize
from facestyle.baselines.registry import DIFFUSION
from facestyle.errors import (
    CheckpointError,
    ConfigError,
    FacestyleError,
    OutputError,
    memory_named,
)
from facestyle.evaluation.comparison_methods import (
    METHODS,
    ComparisonConfig,
    Method,
    Ours,
    SharedDiffusion,
    make_method,
    networks_of,
    other_than,
    run_folder,
    settings_of,
    trained_with,
)
from facestyle.evaluation.comparison_report import comparison_report
from facestyle.evaluation.features import Pictures, iter_pictures, pictures_digest
from facestyle.evaluation.judges import check_judge, judging_device
from facestyle.evaluation.metrics import (
    StyleJudge,
    portrait_metrics,
    read_metrics,
    save_metrics,
)
from facestyle.evaluation.people import (
    check_aligned,
    pil_pictures,
    sample_people,
    spread,
    to_levels,
)
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.files import file_sha256, write_whole
from facestyle.hub.scores import read_training, training_seconds
from facestyle.image import load_image, save_png, to_tensor
from facestyle.inversion import SEARCH
from facestyle.models.bases import base_entry, find_encoder
from facestyle.models.checkpoints import bundled, read_metadata, read_tensors, save_tensors
from facestyle.models.generator import Generator
from facestyle.models.zoo import ENCODER_FILES, sha256_of
from facestyle.runtime import choose_device
from facestyle.styles import find_style
from facestyle.timing import device_name
from facestyle.training.state import TrainingState, logged_seconds

__all__ = ["compare"]

_log = logging.getLogger(__name__)

MEASURES = ("fid", "kid", "cmmd", "lpips", "perceptual", "identity")


@dataclass(frozen=True, eq=False)
class _Photos:
    """Aligned photos, uint8 [N, 3, S, S]."""

    levels: Tensor
    who: str

    def digest(self) -> str:
        return hashlib.sha256(self.levels.numpy().tobytes()).hexdigest()

    def batches(self, size: int) -> list[tuple[int, Tensor]]:
        """Number of the first photo, and [B, 3, S, S] in [-1, 1]."""
        return [
            (start, self.levels[start : start + size].float().div(127.5).sub(1))
            for start in range(0, len(self.levels), size)
        ]


class _Judges:
    """A judge for every style; their networks are loaded, and looked for in vain, once."""

    def __init__(
        self,
        styles: Mapping[str, PictureSources],
        folder: Path,
        measures: Sequence[str],
        judge_name: str,
        device: torch.device,
        allow_download: bool,
    ) -> None:
        self.styles = styles
        self.folder = folder
        self.measures = measures
        self.judge_name = judge_name
        self.device = device
        self.allow_download = allow_download
        self._known: dict[str, StyleJudge] = {}
        self._digests: dict[str, str] = {}

    def of(self, style: str) -> StyleJudge:
        if style in self._known:
            return self._known[style]
        pictures, cache = self.styles[style], self.folder / style / "style.safetensors"
        if self._known:
            other = next(iter(self._known.values()))
            self._known[style] = other.of_style(pictures, cache=cache)
        else:
            self._known[style] = StyleJudge.load(
                pictures, measures=self.measures, judge_name=self.judge_name, cache=cache,
                device=self.device, allow_download=self.allow_download,
            )  # fmt: skip
        return self._known[style]

    def asked(self, style: str) -> dict[str, Any]:
        """What a style's rows are measured by and against, JSON-able."""
        if style not in self._digests:
            self._digests[style] = pictures_digest(self.styles[style])
        return {
            "judge": self.judge_name,
            "measures": sorted(self.measures),
            "pictures": self._digests[style],
        }

    def stand_by(self, style: str, row: Mapping[str, Any]) -> bool:
        """Whether they would measure a row no better: what it lacks cannot be had today either, and see `agree`."""
        lacks = set(row["missing"])
        return (not lacks or lacks <= set(self.of(style).missing)) and self.agree(row)

    def agree(self, row: Mapping[str, Any]) -> bool:
        """Whether a row's identity network is the one that judges the others; True as long as none is loaded."""
        mine = next((judge.identity_name for judge in self._known.values()), None)
        return mine is None or _identity_of(row) in (mine, None)


def _identity_of(row: Mapping[str, Any]) -> str | None:
    """The network that measured identity in a row."""
    name: str | None = row["photos"].get("identity_distance", {}).get("by")
    return name


def compare(
    styles: Mapping[str, PictureSources],
    out: str | Path,
    config: ComparisonConfig | None = None,
    *,
    base: Generator,
    methods: Sequence[str] = METHODS,
    runs: str | Path | None = None,
    faces: Pictures | None = None,
    measures: Sequence[str] = MEASURES,
    judge_name: str = "auto",
    device: str | None = None,
    allow_download: bool = False,
    progress: bool = True,
) -> Path:
    """Measure methods on photos, in several styles; the path of ``OUT/report.md``.

    A method that cannot run here has its row in every table all the same, with the reason; the next run tries again.
    Those that draw with a diffusion model come last, in all styles, on one that is loaded once.

    Args:
        styles: name -> pictures of the style.
        out: folder.
        config: how many photos, and how the methods are set.
        base: G, which draws people where no photos are given, and on which Toonify and UI2I build.
        methods: of `METHODS`.
        runs: folder with ``METHOD/STYLE``, as trained or imported; ``ours/STYLE`` may be a style's folder.
        faces: FFHQ-aligned photos, squares of 128 px or more; samples of G, from seed 200 on, when None.
        measures: see ``evaluation.metrics.MEASURES``.
        judge_name: identity network that judges.
        device: where methods run; the best there is when None.
        allow_download: fetch CLIP, 1.7 GB, for "cmmd", whose column has the reason otherwise.
        progress: show bars.

    Raises:
        ConfigError: unknown methods, no styles, or ``out`` holds a comparison of other photos or settings.
        DownloadError: a judge asked for by name cannot be had; nothing was drawn.
        ImageError: a photo is no square of 128 px or more.
        DatasetError: photos or pictures cannot be read.
        OutputError: ``out`` cannot be written.
    """
    config = config or ComparisonConfig()
    unknown = set(methods) - set(METHODS)
    if not styles or not methods or unknown:
        raise ConfigError(
            f"expected styles, and methods of {', '.join(METHODS)}; got {len(styles)} styles and "
            f"{', '.join(sorted(unknown) or methods) or 'no methods'}"
        )
    photos = _photos(faces, base, config)
    described = {"config": dataclasses.asdict(config), "photos": photos.digest()}
    state = TrainingState(out, described | base_entry(base))  # held to the end: it keeps others out
    folder = state.folder
    check_judge(judge_name)
    place = choose_device(device)
    judges = _Judges(styles, folder, measures, judge_name, judging_device(place), allow_download)

    def left_out(style: str, name: str, error: FacestyleError) -> dict[str, Any]:
        _log.warning("%s in %s is left out: %s", name, style, error)
        return _absent(name, style, photos, str(error))

    def row_of(style: str, name: str, diffusion: SharedDiffusion) -> dict[str, Any]:
        here = folder / style / name
        asked = judges.asked(style) | {
            "weights": _weights(name, style, runs, base, config),
            "search": SEARCH,
            "device": device_name(place),
        }
        if (here / "metrics.json").is_file():
            standing = read_metrics(here / "metrics.json")
            if standing.get("asked") == asked and judges.stand_by(style, standing):
                return standing
            _log.warning(
                "%s in %s is measured anew: judges, pictures, weights, device or the search for codes changed",
                name,
                style,
            )
        try:
            with memory_named(name):
                method = make_method(
                    name, style, styles[style], runs, config, base, device=device,
                    diffusion=diffusion,
                )  # fmt: skip
        except OutputError:
            raise
        except FacestyleError as error:
            return left_out(style, name, error)
        judge = judges.of(style)  # before anything is drawn, which takes long
        try:
            with memory_named(name):
                codes = folder / "codes" / _codes_name(method, name, base, place)
                portraits, seconds = _portraits(method, name, photos, codes, config, progress)
        except OutputError:
            raise
        except FacestyleError as error:
            return left_out(style, name, error)
        row = {
            **portrait_metrics(
                judge, portraits, photos.levels, style=style, variant=name, who=photos.who
            ),
            "parameters": method.parameters,
            "resolution": method.resolution,
            "seconds_per_photo": seconds,
            "training_seconds": _training_seconds(name, style, runs),
            "settings": _described(name, config),
            "comparison": _changed(config, "side_px", "batch"),
            "trained": trained_with(name, _source(name, style, runs)),
            "networks": networks_of(method),
            "device": asked["device"],
            "asked": asked,
        }
        shown = pil_pictures(portraits[_shown(len(portraits), config)])
        for i, picture in enumerate(shown):
            save_png(picture, here / f"{i}.png")
        save_metrics(row, here / "metrics.json")
        return row

    pairs = list(itertools.product(styles, methods))
    with SharedDiffusion(config.diffusion, device) as diffusion:
        in_turn = sorted(pairs, key=lambda pair: pair[1] in DIFFUSION)
        found = {pair: row_of(*pair, diffusion) for pair in in_turn}
        if len({_identity_of(row) for row in found.values()} - {None}) > 1:
            judges.of(in_turn[0][0])  # of rows found standing, which were judged by several
        for pair in in_turn:  # a judge that was loaded after a row had been found standing
            if "why" not in found[pair] and not judges.agree(found[pair]):
                found[pair] = row_of(*pair, diffusion)
    for style in styles:
        drawn = [name for name in methods if "why" not in found[style, name]]
        _sheet(photos, folder, style, drawn, config)
    text = comparison_report([found[pair] for pair in pairs], list(styles), photos.who)
    write_whole(text.encode(), folder / "report.md")
    return folder / "report.md"


def _photos(faces: Pictures | None, base: Generator, config: ComparisonConfig) -> _Photos:
    side = min(config.side_px, base.resolution)
    if faces is None:
        people = sample_people(base, config.photos, psi=config.psi, side_px=side)
        return _Photos(people.sources, people.who)
    kept: list[Tensor] = []
    for image in iter_pictures(faces):
        if len(kept) == config.photos:
            break
        check_aligned(image)
        resized = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        kept.append(to_levels(to_tensor(resized)))
    if not kept:
        raise ConfigError("expected 1 photo or more to compare on, got none")
    return _Photos(torch.cat(kept), f"{len(kept)} photos")


def _portraits(
    method: Method,
    name: str,
    photos: _Photos,
    kept: Path,
    config: ComparisonConfig,
    progress: bool,
) -> tuple[Tensor, float]:
    """uint8 [N, 3, S, S] of all photos, and the seconds that one photo takes from end to end.

    Codes are kept in files whose names begin with ``kept``.
    """
    side = photos.levels.shape[-1]
    batches = photos.batches(config.batch)
    searched = 0.0
    codes: list[Tensor] = []
    if not isinstance(method, ProjectingBaseline):
        method.stylize(batches[0][1][:1])  # what is built at the first call is not a photo's time
    if isinstance(method, ProjectingBaseline | Ours):
        for start, crops in tqdm(batches, desc=f"{name}: codes", disable=not progress):
            path = kept.with_name(f"{kept.name}_{start:05d}.safetensors")
            found, seconds = _codes(method, crops, path)
            codes.append(found)
            searched += seconds
    drawn = []
    began = time.monotonic()
    for i, (start, crops) in enumerate(tqdm(batches, desc=name, disable=not progress)):
        with torch.inference_mode():
            if isinstance(method, ProjectingBaseline):
                img = method.draw(codes[i], first=start)
            elif isinstance(method, Ours):
                img = method.draw(codes[i], crops, first=start)
            else:
                img = method.stylize(crops, first=start)
            drawn.append(to_levels(resize(img.float(), side)))
    total = searched + time.monotonic() - began
    return torch.cat(drawn), total / len(photos.levels)


def _codes_name(method: Method, name: str, base: Generator, device: torch.device) -> str:
    """How files of codes begin: another method, search, encoder or device finds others, or in another time."""
    shared = method.shared_codes if isinstance(method, Ours) else name
    by = f"{SEARCH} {_encoder_sha256(base)} {device_name(device)}"
    return f"{shared}_{hashlib.sha256(by.encode()).hexdigest()[:8]}"


def _codes(method: ProjectingBaseline | Ours, crops: Tensor, path: Path) -> tuple[Tensor, float]:
    """Codes of a batch and the seconds they took, from the file where an earlier run or style left them."""
    if path.is_file():
        return read_tensors(path)["codes"], float(read_metadata(path)["seconds"])
    began = time.monotonic()
    codes = method.project(crops).cpu()
    seconds = time.monotonic() - began
    save_tensors({"codes": codes}, path, metadata={"seconds": f"{seconds:.2f}"})
    return codes, seconds


def _absent(name: str, style: str, photos: _Photos, why: str) -> dict[str, Any]:
    return {"style": style, "variant": name, "why": why, "photos": {"who": photos.who}}


def _source(name: str, style: str, runs: str | Path | None) -> Path | None:
    """Folder of what a method knows of a style: its run's, or for ours a style's; None where there is none."""
    run = run_folder(name, style, runs)
    if not name.startswith("ours"):
        return run
    try:
        return find_style(run or style)
    except FacestyleError:
        return None


def _weights(
    name: str, style: str, runs: str | Path | None, base: Generator, config: ComparisonConfig
) -> str:
    """Digest of what a method draws with: files of the style, G and its encoder, or a diffusion model in a folder.

    UI2I-style's reference too, where it has one.

    A repository's files are known by its name and revision, which the settings hold.
    """
    total = hashlib.sha256(sha256_of(base).encode())
    total.update(_encoder_sha256(base).encode())
    reference = Path(config.ui2i.reference)
    if name == "ui2i" and config.ui2i.reference and reference.is_file():
        total.update(_known_sha256(reference).encode())
    model = Path(config.diffusion.model) if name in DIFFUSION else None
    for folder in (_source(name, style, runs), model):
        if folder is None or not folder.is_dir():
            continue
        for path in sorted([*folder.rglob("*.safetensors"), *folder.glob("config.json")]):
            total.update(f"{path.relative_to(folder).as_posix()} {_known_sha256(path)}".encode())
    return total.hexdigest()


def _encoder_sha256(base: Generator) -> str:
    """Of the E_w that goes with G; empty where there is none, as only some methods need one."""
    with contextlib.suppress(CheckpointError):
        return _known_sha256(find_encoder(base, "w") or bundled(ENCODER_FILES["w"]))
    return ""


def _known_sha256(path: Path) -> str:
    """`file_sha256`, worked out once for as long as the file does not change."""
    status = path.stat()
    return _sha256_as_of(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _sha256_as_of(path: Path, size: int, changed_ns: int) -> str:
    return file_sha256(path)


def _training_seconds(name: str, style: str, runs: str | Path | None) -> float | None:
    """What the style's own weights took to train, if that is known."""
    run = _source(name, style, runs)
    if run is None:
        return None
    if not name.startswith("ours"):
        found = [logged_seconds(log.parent) for log in run.rglob("log.jsonl")]
        return sum(found) if found else None
    seconds = training_seconds(read_training(run))
    return float(sum(seconds.values())) if seconds else None


def _described(name: str, config: ComparisonConfig) -> dict[str, Any]:
    """A method's settings that are not by default."""
    told = _changed(config, "references", "mixing_level") if name == "ours-ref" else {}
    settings = settings_of(name, config)
    if settings is None:
        return told
    own = other_than(type(settings)(), dataclasses.asdict(settings))
    own.pop("training", None)  # of another run, if at all
    return told | own


def _changed(config: ComparisonConfig, *names: str) -> dict[str, Any]:
    """Those of the comparison's own settings that are not by default."""
    return other_than(ComparisonConfig(), {name: getattr(config, name) for name in names})


def _shown(count: int, config: ComparisonConfig) -> list[int]:
    """Numbers of the photos on the sheets."""
    return spread(count, config.sheet_faces)


def _sheet(
    photos: _Photos, folder: Path, style: str, methods: Sequence[str], config: ComparisonConfig
) -> None:
    """Photos above the portraits of the methods, which were drawn."""
    chosen = _shown(len(photos.levels), config)
    rows = {"photo": list(pil_pictures(photos.levels[chosen]))}
    for name in methods:
        rows[name] = [load_image(folder / style / name / f"{i}.png") for i in range(len(chosen))]
    sheet = contact_sheet(list(rows.values()), cell_px=200, row_labels=list(rows))
    save_sheet(sheet, folder / f"{style}.jpg")
