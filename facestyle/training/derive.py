"""A finished style, changed afterwards: what is learned, and its folder written anew with that beside all it had."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from facestyle.bench import machine
from facestyle.errors import OutputError
from facestyle.files import write_whole
from facestyle.hub.scores import read_training
from facestyle.models.zoo import GENERATOR_FILE
from facestyle.processes import Processes
from facestyle.styles import OWN_BASE, OWN_ENCODER, StyleConfig
from facestyle.timing import device_name
from facestyle.training.state import TrainingState, check_finite, logged_seconds, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["check_apart", "complete_derived", "descend", "origin_of", "place_of"]


def descend(
    state: TrainingState,
    stage: str,
    steps: int,
    parts: Mapping[str, Any],
    parameters: Iterable[nn.Parameter],
    loss: Callable[[torch.Generator], tuple[Tensor, Mapping[str, Tensor]]],
    *,
    seed: Callable[[int], int],
    preview: Callable[[Path], None],
    preview_every: int,
    processes: Processes,
    title: str | None = None,
    progress: bool = True,
) -> None:
    """Run what is left of a stage, with a log, and with a picture and a checkpoint every few steps.

    Args:
        state: of the run.
        stage: its name.
        steps: that it has in all.
        parts: what a checkpoint holds, the "optimizer" and its "schedule" among it.
        parameters: that are trained.
        loss: from a step's random numbers to what is to be small and the terms of it that are logged.
        seed: of a step, counted from 0; each process adds its rank.
        preview: writes the picture.
        preview_every: steps between pictures.
        processes: who shares the work.
        title: of the progress bar, the stage's name when None.
        progress: show one.

    Raises:
        ConfigError: training diverged.
        CheckpointError: the checkpoint found there is damaged.
        OutputError: the run's folder cannot be written.
    """
    optimizer, schedule, trained = parts["optimizer"], parts["schedule"], list(parameters)
    first = state.resume(stage, parts)
    if processes.is_main:
        state.forget_after(stage, first)
    bar = tqdm(
        range(first, steps), initial=first, total=steps, desc=title or stage,
        disable=not (progress and processes.is_main),
    )  # fmt: skip
    began = time.monotonic()
    for step in bar:
        total, terms = loss(torch.Generator().manual_seed(seed(step) + processes.rank))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        processes.average_gradients(trained)
        optimizer.step()
        schedule.step()
        row = {name: term.item() for name, term in terms.items()}
        bar.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
        is_due = (step + 1) % preview_every == 0 or step + 1 == steps
        check_finite(stage, step + 1, row, parts if is_due else None)
        if not processes.is_main:
            continue
        state.log({
            "stage": stage, "step": step + 1, **row, "seconds": time.monotonic() - began,
        })  # fmt: skip
        if is_due:
            preview(state.folder / "previews" / f"{stage}_{step + 1:05d}.png")
            state.save(stage, step + 1, parts)
    processes.wait()


def check_apart(folder: Path, target: Path, part: str) -> None:
    """Refuse to write a style over the one that it is made from, or over one that another run made.

    Args:
        folder: of the style.
        target: where the changed one goes, beside the run's own folder, which is called as ``part``.
        part: what is learned.

    Raises:
        OutputError: there is one.
    """
    if target.resolve() == folder.resolve():
        raise OutputError("is the style's own folder; name another one for the run", path=target)
    run = target.parent
    if (target / "config.json").is_file() and ((run / "run").is_dir() or not (run / part).is_dir()):
        raise OutputError(
            f"holds a style that another run made; name another folder for this one, and to go on from that style name "
            f"{target} as the style",
            path=target,
        )


def complete_derived(
    folder: Path, target: Path, card: StyleConfig, learned: str, part: str, origin: dict[str, Any]
) -> None:
    """Copy the rest of a style beside what was learned, and write its card and origin.

    Its scores are not taken over: they are of the portraits before.

    Args:
        folder: of the style.
        target: of the changed one.
        card: of the changed one.
        learned: the file that was written there.
        part: name of what was learned, in ``training.json``.
        origin: how it came to be.

    Raises:
        OutputError: it cannot be written.
    """
    used = [name for name, share in card.beside.items() if share]
    for name in (GENERATOR_FILE, OWN_BASE, OWN_ENCODER, "LICENSE.md", *used):
        if name != learned and (folder / name).is_file():
            write_whole((folder / name).read_bytes(), target / name)
    training = read_training(folder) | {part: origin}
    training.pop("scores", None)
    write_json(target / "training.json", training)
    card.save(target / "config.json")


def origin_of(run: Path, config: DataclassInstance, device: torch.device) -> dict[str, Any]:
    """How what a run learned came to be, for the style's ``training.json``."""
    return {
        "settings": dataclasses.asdict(config),
        "seconds": round(logged_seconds(run), 1),
        **place_of(device),
    }


def place_of(device: torch.device) -> dict[str, Any]:
    """Where and when something was trained: "machine", "device" (a GPU's name, else cpu or mps), "torch" and "date"."""
    return {
        "machine": machine(),
        "device": device_name(device),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
