"""Photos by the thousand: split over processes, gone on with after a kill, and told of in one report.

Every process draws its share, writes each picture whole, and then a line about it. Several processes are started by
``accelerate launch`` or ``torchrun``, and all see the same folders.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from facestyle.bulk_report import REPORT_FILE, Report, Row, photo_state
from facestyle.errors import ConfigError, FacestyleError, ImageError, OutputError
from facestyle.models.checkpoints import weights_sha256
from facestyle.models.encoder import Space
from facestyle.options import Options
from facestyle.portraits_cli import save_result
from facestyle.processes import Processes
from facestyle.results import StylizeResult
from facestyle.stylizer import FaceStylizer
from facestyle.workers import side_by_side

__all__ = ["stylize_files"]

_TOGETHER = 8
"""Photos in memory at a time where faces of several are refined, or drawn in batches."""

_Photo = tuple[Path, Path]
"""A photo, and the file its picture goes to."""


def stylize_files(
    stylizer: FaceStylizer,
    targets: Mapping[Path, Path],
    report: Report,
    processes: Processes,
    options: Options,
    *,
    portraits: bool = False,
    dtype: str = "auto",
) -> set[Path]:
    """Photos whose pictures did not stand yet, after all processes have drawn their shares of them.

    A picture stands when its file is there, whole, and was made from the photo as it now is, by the same weights with
    the same options; the device is no part of this. A photo that cannot be used becomes a row of the report with the
    reason, and is tried again by the next run. Files that an earlier run made of a photo and this one does not, such as
    portraits with other settings, are removed. In the main process the report ends complete.

    Args:
        stylizer: of this process.
        targets: PNG file of each photo, all in the report's folder.
        report: of that folder.
        processes: who shares the work; all of them call this.
        options: of stylizing; ``progress`` shows one bar for all photos, in the main process.
        portraits: also save each face's portrait, beside the picture.
        dtype: as it was asked for; part of what a picture is made with.

    Raises:
        OutputError: a picture or the report cannot be written, a file of an earlier run cannot be removed, or lines of
            other processes did not arrive.
    """
    names = {target.name for target in targets.values()}
    todo: list[_Photo] = []
    settings: dict[str, Any] = {}
    before: dict[str, Row] = {}
    earlier: dict[str, dict[str, int]] = {}
    if processes.is_main:
        report.merge(names)
        before = dict(report.rows)
        settings = {"dtype": dtype, "portraits": portraits, **_made_with(stylizer, options)}
        todo = [
            (photo, target)
            for photo, target in targets.items()
            if not report.stands(target.name, photo, settings)
        ]
        earlier = report.own_files([target.name for _, target in todo], targets)
    todo, settings, earlier = processes.share((todo, settings, earlier))
    share = todo[processes.rank :: processes.count]
    with tqdm(
        total=len(targets), initial=len(targets) - len(todo), desc=stylizer.config.name,
        disable=not (options.progress and processes.is_main),
    ) as bar:  # fmt: skip
        work = _Work(stylizer, report, options, settings, earlier, bar)
        if options.refine or stylizer.device.type != "cpu":
            for start in range(0, len(share), _TOGETHER):
                work.draw(share[start : start + _TOGETHER])
        else:
            side_by_side(stylizer.device, work.draw, [[one] for one in share])
        processes.wait()
    if processes.is_main:
        report.merge(names)
        _check_complete(report, todo, settings, before)
    return {photo for photo, _ in todo}


@dataclass
class _Work:
    """What a process does with its share; ``earlier`` are files of earlier runs, by picture, name and bytes."""

    stylizer: FaceStylizer
    report: Report
    options: Options
    settings: dict[str, Any]
    earlier: dict[str, dict[str, int]]
    bar: tqdm[NoReturn]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, batch: Sequence[_Photo]) -> None:
        """Draw and save some photos, and report each."""
        photos = [photo for photo, _ in batch]
        rows = [
            {"input": str(photo), **photo_state(photo), "settings": self.settings}
            for photo in photos
        ]
        results = _attempt(self.stylizer, photos, self.options)
        for (_, target), row, result in zip(batch, rows, results, strict=True):
            row |= self._outcome(result, target)
            # Before the row takes the place of the one that names them: a killed run's are removed by the next.
            self.report.remove(self.earlier.get(target.name, {}), kept=row.get("files", {}))
            self.report.add(target.name, row)
            if not self.bar.disable:
                with self.lock:
                    self.bar.update(self.bar.initial + self.report.added() - self.bar.n)

    def _outcome(self, result: StylizeResult | FacestyleError, target: Path) -> dict[str, Any]:
        """What came of a photo, written."""
        if isinstance(result, FacestyleError):
            return {"error": type(result).__name__, "message": str(result)}
        written = save_result(result, target, portraits=self.settings["portraits"])
        return {
            "files": {path.name: path.stat().st_size for path in written},
            "faces": len(result.faces),
            "seconds": {stage: round(value, 4) for stage, value in result.seconds.items()},
        }


def _made_with(stylizer: FaceStylizer, options: Options) -> Row:
    """What else than the photo makes a picture, as JSON gives it back."""
    psi = stylizer.config.psi if options.psi is None else options.psi
    made_with = {
        "style": stylizer.config.name, "weights_sha256": _networks_sha256(stylizer, options.content_space),
        **asdict(replace(options, psi=psi)),
    }  # fmt: skip
    del made_with["progress"]
    found: Row = json.loads(json.dumps(made_with))
    return found


def _networks_sha256(stylizer: FaceStylizer, space: Space) -> str:
    networks = (stylizer.generator, stylizer.base, stylizer.encoder_into(space))
    return hashlib.sha256(" ".join(map(weights_sha256, networks)).encode()).hexdigest()


def _attempt(
    stylizer: FaceStylizer, photos: Sequence[Path], options: Options
) -> list[StylizeResult | FacestyleError]:
    """Results of some photos, together if all goes well, else one by one with each one's error.

    Options were checked when made, so a ConfigError speaks of one photo: it has no face of the number asked for.
    """
    arguments = asdict(replace(options, progress=False))
    if len(photos) > 1:
        try:
            return list(stylizer(list(photos), **arguments))
        except (ImageError, ConfigError):
            pass
    outcomes: list[StylizeResult | FacestyleError] = []
    for photo in photos:
        try:
            outcomes.append(stylizer(photo, **arguments))
        except (ImageError, ConfigError) as error:
            outcomes.append(error)
    return outcomes


def _check_complete(
    report: Report, todo: Sequence[_Photo], settings: Mapping[str, Any], before: Mapping[str, Row]
) -> None:
    """Refuse an end at which a picture that was to be drawn has no row, or only that of an earlier run."""
    missing = []
    for photo, target in todo:
        row = report.rows.get(target.name, {})
        is_new = row != before.get(target.name, {})
        has_failed = "error" in row and row["settings"] == settings
        if not (is_new or has_failed or report.stands(target.name, photo, settings)):
            missing.append(target)
    if missing:
        raise OutputError(
            f"{len(missing)} of {len(todo)} pictures are not told of, {missing[0].name} among them; all processes must "
            "see this folder, and one command at a time may work in it. Run it again: what is done stays",
            path=missing[0].parent / REPORT_FILE,
        )
