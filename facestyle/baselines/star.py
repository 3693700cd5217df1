"""G*: the generator finetuned on a style by the adversarial loss alone, which Toonify and UI2I build upon."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path

from facestyle.baselines.base import PictureSources
from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import load_strict, read_metadata, read_tensors, save_tensors
from facestyle.models.generator import Generator
from facestyle.processes import Processes
from facestyle.training.finetune import finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.pipeline import PRESETS

__all__ = ["DEFAULT_STAR", "load_star", "train_star_in"]

FILE = "star.safetensors"
_FORMAT = "facestyle-star"

DEFAULT_STAR = dataclasses.replace(
    PRESETS["default"].style, sem_weight=0.0, pair_weight=0.0, held_out=0
)
"""As long as a style of the default preset trains, without its constraints."""


def train_star_in(
    out: str | Path,
    base: Generator,
    pictures: PictureSources,
    config: FinetuneConfig = DEFAULT_STAR,
    *,
    processes: Processes | None = None,
    progress: bool = True,
) -> None:
    """Train or resume G* in ``OUT/star`` and leave its weights as ``OUT/star.safetensors``.

    Raises:
        ConfigError: the config has constraints, or the folder holds another run.
        DatasetError: the pictures cannot be used.
        OutputError: the folder cannot be written.
    """
    if config.sem_weight or config.pair_weight:
        raise ConfigError("G* is finetuned without constraints; sem_weight and pair_weight are 0")
    processes = processes or Processes(base.w_avg.device)
    net = finetune(
        base, pictures, Path(out) / "star", config, processes=processes, progress=progress
    )
    if processes.is_main:
        save_tensors(
            net.synthesis.state_dict(),
            Path(out) / FILE,
            metadata={"format": _FORMAT, "base": _identity(base), "config": base.config()},
        )
    processes.wait()


def load_star(out: str | Path, base: Generator) -> Generator:
    """G* that ``train_star_in`` left in a folder, frozen, with the mapping network of ``base``.

    Raises:
        CheckpointError: there is none, it is damaged, or it was made from another generator.
    """
    path = Path(out) / FILE
    if not path.is_file():
        raise CheckpointError("is not there; train the method in this folder first", path=path)
    metadata = read_metadata(path)
    if metadata.get("format") != _FORMAT:
        raise CheckpointError("holds something else than a finetuned generator", path=path)
    if metadata.get("base") != _identity(base) or json.loads(metadata["config"]) != base.config():
        raise CheckpointError("was finetuned from another generator", path=path)
    net = copy.deepcopy(base)
    net.mapping = base.mapping
    load_strict(net.synthesis, read_tensors(path), path=path)
    return net.eval().requires_grad_(False)


def _identity(base: Generator) -> str:
    """The same for the same generator: its mean of W, hashed."""
    return hashlib.sha256(base.w_avg.detach().cpu().float().numpy().tobytes()).hexdigest()
