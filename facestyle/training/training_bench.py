"""How long ``facestyle train`` takes on a machine, from a few steps of every stage: ``facestyle bench --training``."""

from __future__ import annotations

import copy
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from facestyle.errors import ConfigError
from facestyle.evaluation.people import draw, pil_pictures, sample_w
from facestyle.image import save_png
from facestyle.memory import PeakMemory
from facestyle.models.generator import Generator
from facestyle.models.zoo import load_base_generator
from facestyle.processes import Processes
from facestyle.training.derive import place_of
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.pairs import PairsConfig
from facestyle.training.pipeline import PRESETS, TrainConfig, find_pairs, train_style
from facestyle.training.state import read_rows

__all__ = ["bench_training", "format_training"]

_PICTURES, _SIDE_PX = 100, 512
"""Of the style set, and their side: samples of G, as what they show does not change the time."""
_PAIR_STEPS = (2, 8)
"""Of two searches for pairs, each of one batch; their difference is what a step takes."""
_PAIR_BATCHES = 3
"""In a third search, of the first's steps; the difference is what a batch takes beside its steps."""


def bench_training(
    preset: str = "default",
    *,
    device: str | None = None,
    runs: int = 3,
    generator: Generator | None = None,
    config: TrainConfig | None = None,
    encoder_z: str | Path | None = None,
    pictures: int = _PICTURES,
    progress: bool = True,
) -> dict[str, Any]:
    """What a training would take: a few steps of each of its stages are run, and their times multiplied.

    Nothing is left behind. A training looks at what it has every few steps (pictures, held-out score, checkpoint);
    that is timed by itself.

    Args:
        preset: of ``facestyle train``.
        device: where; the best there is when None.
        runs: steps that are timed of a stage, of which the median counts, and as many looks.
        generator: G; the bundled one when None.
        config: instead of the preset's.
        encoder_z: file of E_z+; the one that goes with G when None.
        pictures: in the style set.
        progress: show the training's bars.

    Returns:
        "rows" (a mapping for each stage: "stage", "steps", "step_s", "looks", "look_s", "rest_s" beside both (loading,
        averages scored at the end), "seconds" of it all), "seconds" in all, for a set of "pictures", "preset",
        "peak_memory_mb" (of the process on a CPU, None where that cannot be told), "runs", "machine", "device",
        "torch", "date".

    Raises:
        ConfigError: ``runs`` is below 1, or there is no such preset or device.
        OutputError: there is no space for a training's files.
    """
    if runs < 1:
        raise ConfigError(f"runs must be 1 or more, got {runs}")
    if preset not in PRESETS:
        raise ConfigError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
    wanted = config or PRESETS[preset]
    generator = copy.deepcopy(generator or load_base_generator())
    processes = Processes(device)
    with tempfile.TemporaryDirectory(prefix="facestyle-bench-") as name:
        folder = Path(name)
        _write_pictures(generator, folder / "set", pictures)
        short = _shortened(wanted, 3 * runs + 3)
        with PeakMemory(processes.device) as memory:
            began = time.monotonic()
            train_style(
                generator, folder / "set", folder / "out", short, name="bench", data_license="none",
                aligned="yes", encoder_z=encoder_z, processes=processes, progress=progress,
            )  # fmt: skip
            took = time.monotonic() - began
        seconds = json.loads((folder / "out" / "style" / "training.json").read_text())["seconds"]
        rows = [_row("pictures", rest=took - sum(seconds.values()))]
        steps = {
            "star": {"coarse": wanted.star.coarse_steps, "full": wanted.star.full_steps},
            "style": {"coarse": wanted.style.coarse_steps, "full": wanted.style.full_steps},
            "hair": {"coarse": wanted.hair.steps, "full": wanted.hair.full_steps},
            "likeness": {"likeness": wanted.likeness.steps},
        }
        for stage, whole in seconds.items():
            if stage == "pairs":
                search = partial(_search, generator, folder, short, encoder_z, processes, progress)
                rows.append(_pairs_row(search, wanted.pairs, pictures))
            else:
                log = read_rows(folder / "out" / ("run" if stage == "style" else stage))
                every = getattr(wanted, stage).preview_every
                rows += _stage_rows(stage, whole, log, steps[stage], every)
    return {
        "preset": preset,
        "rows": rows,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "pictures": pictures,
        "peak_memory_mb": None if memory.bytes is None else round(memory.bytes / 1e6),
        "runs": runs,
        **place_of(processes.device),
    }


def format_training(report: Mapping[str, Any]) -> str:
    """The report for people."""
    memory = report["peak_memory_mb"]
    lines = [
        f"facestyle train --preset {report['preset']}, {report['pictures']} pictures: about "
        f"{_minutes(report['seconds'])}" + (f", {memory / 1000:.1f} GB" if memory else ""),
        f"  {'':<16}{'steps':>7}{'a step':>10}{'looks':>7}{'a look':>10}{'in all':>11}",
    ]
    for row in report["rows"]:
        parts = (
            f"{row['steps']:>7}{row['step_s']:>8.2f} s{row['looks']:>7}{row['look_s']:>8.2f} s"
            if row["steps"]
            else " " * 34
        )
        lines.append(f"  {row['stage']:<16}{parts}{_minutes(row['seconds']):>11}")
    machine = report["machine"]
    lines.append(
        f"a look: pictures, held-out score and checkpoint; medians of {report['runs']}; {report['device']}, "
        f"{machine['processor']}, {machine['cores']} cores, torch {report['torch']}, {report['date']}"
    )
    return "\n".join(lines)


def _write_pictures(generator: Generator, folder: Path, count: int) -> None:
    preview_px = generator.preview_resolution
    for i in range(count):
        w = sample_w(generator, 1, 1.0, i)
        (picture,) = pil_pictures(draw(generator, w, side_px=preview_px, is_preview=True))
        save_png(picture.resize((_SIDE_PX, _SIDE_PX)), folder / f"{i:03d}.png")


def _shortened(config: TrainConfig, steps: int) -> TrainConfig:
    """The same with so many steps of all that has any, each third one with a look."""

    def short(of: FinetuneConfig) -> FinetuneConfig:
        return replace(
            of, coarse_steps=min(of.coarse_steps, 1) * steps, full_steps=min(of.full_steps, 1) * steps,
            preview_every=3,
        )  # fmt: skip

    hair, likeness = config.hair, config.likeness
    return replace(
        config,
        star=short(config.star),
        pairs=replace(config.pairs, count=config.pairs.batch, steps=_PAIR_STEPS[0]),
        style=short(config.style),
        hair=replace(
            hair, steps=min(hair.steps, 1) * steps, full_steps=min(hair.full_steps, 1) * steps,
            preview_every=3,
        ),
        likeness=replace(likeness, steps=min(likeness.steps, 1) * steps, preview_every=3),
    )  # fmt: skip


def _stage_rows(
    stage: str, whole: float, log: Sequence[Mapping[str, Any]], steps: Mapping[str, int], every: int
) -> list[dict[str, Any]]:
    """A row for each part of a stage that has steps; what the stage took beside them goes to the last.

    Every third step comes with a look, whose time the log has in that step's, in the next one's, or in both.
    """
    rows, rest = [], whole
    for part, count in steps.items():
        times = [row["seconds"] for row in log if row["stage"] == part]
        if not times:
            continue
        rest -= times[-1]
        between = [b - a for a, b in itertools.pairwise(times)]  # the first step warms up
        kinds = [statistics.median(between[i::3]) for i in range(3)]
        step = min(kinds)
        name = stage if stage == part else f"{stage}, {part}"
        rows.append(_row(name, count, step, math.ceil(count / every), sum(kinds) - 3 * step))
    return [*rows[:-1], _added(rows[-1], rest)]


def _search(
    generator: Generator,
    folder: Path,
    short: TrainConfig,
    encoder_z: str | Path | None,
    processes: Processes,
    progress: bool,
    batches: int,
    steps: int,
) -> float:
    """Seconds of a search for pairs of so many batches, so many steps each."""
    took: dict[str, float] = {}

    def timed(stage: str, began: float) -> None:
        took[stage] = time.monotonic() - began

    find_pairs(
        generator, [folder / "out" / "pictures"], folder / f"pairs {batches} {steps}",
        replace(short.pairs, count=batches * short.pairs.batch, steps=steps),
        star=folder / "out" / "star", star_config=short.star, encoder_z=encoder_z,
        processes=processes, progress=progress, timed=timed,
    )  # fmt: skip
    return took["pairs"]


def _pairs_row(
    search: Callable[[int, int], float], wanted: PairsConfig, pictures: int
) -> dict[str, Any]:
    """Of the search for pairs, by shorter ones; the training's own, before them, was the warm-up."""
    few, more = _PAIR_STEPS
    first = search(1, few)
    step = max(search(1, more) - first, 0.0) / (more - few)
    batch = max(search(_PAIR_BATCHES, few) - first, 0.0) / (_PAIR_BATCHES - 1)
    batches = math.ceil(min(wanted.count or pictures, pictures) / wanted.batch)
    rest = max(first - batch, 0.0) + batches * max(batch - few * step, 0.0)
    return _row("pairs", batches * wanted.steps, step, rest=rest)


def _row(
    stage: str, steps: int = 0, step: float = 0.0, looks: int = 0, look: float = 0.0, rest: float = 0.0
) -> dict[str, Any]:  # fmt: skip
    row = {"stage": stage, "steps": steps, "step_s": step, "looks": looks, "look_s": look}
    return _added(row, rest)


def _added(row: dict[str, Any], rest: float) -> dict[str, Any]:
    """A row with what its stage takes beside steps and looks."""
    rest = max(rest, 0.0)
    seconds = row["steps"] * row["step_s"] + row["looks"] * row["look_s"] + rest
    return row | {
        "step_s": round(row["step_s"], 3), "look_s": round(row["look_s"], 3), "rest_s": round(rest, 1),
        "seconds": round(seconds, 1),
    }  # fmt: skip


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds / 60:.1f} min"
