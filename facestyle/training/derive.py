"""A finished style, changed afterwards: its folder written anew, with all that it had and what was learned."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from facestyle.bench import machine
from facestyle.errors import OutputError
from facestyle.files import write_whole
from facestyle.hub.scores import read_training
from facestyle.models.zoo import GENERATOR_FILE
from facestyle.styles import OWN_BASE, OWN_ENCODER, StyleConfig
from facestyle.timing import device_name
from facestyle.training.state import logged_seconds, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["check_apart", "complete_derived", "origin_of", "place_of"]


def check_apart(folder: Path, target: Path) -> None:
    """Refuse to write a style over the one that it is made from.

    Raises:
        OutputError: both are the same folder.
    """
    if target.resolve() == folder.resolve():
        raise OutputError("is the style's own folder; name another one for the run", path=target)


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
