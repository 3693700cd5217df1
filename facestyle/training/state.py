"""State of a training run in its folder: settings, log, and one checkpoint a stage, replaced whole."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import pickle
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from facestyle.errors import CheckpointError, ConfigError, OutputError
from facestyle.files import write_whole
from facestyle.models.checkpoints import is_finite

__all__ = [
    "TrainingClock",
    "TrainingState",
    "check_finite",
    "check_settings",
    "filled",
    "hold",
    "logged_seconds",
    "read_rows",
    "write_json",
]

_log = logging.getLogger(__name__)
_locking = threading.Lock()

_ADVICE = "free some space and run the same command again, which goes on"


class TrainingState:
    """The folder of a run that can be killed at any time and goes on where it was.

    It keeps other processes out as long as it is in use; ended or killed, a process does no longer.

    Args:
        folder: of the run; made when absent.
        config: what the run does, JSON-able; written to ``config.json``.
        defaults: of settings that a run found there may be too old to know: those that it lacks, it has by default.
        is_main: of processes that share the run, this one keeps others out.

    Raises:
        ConfigError: the folder holds a run with other settings.
        OutputError: the folder cannot be written, or another process is at work there.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        *,
        defaults: Mapping[str, Any] | None = None,
        is_main: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self._boards: dict[str, Any] = {}
        path = self.folder / "config.json"
        wanted = json.loads(json.dumps(dict(config)))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder) if is_main else None
            if not path.is_file():
                write_json(path, wanted)
            else:
                check_settings(self.folder, wanted, defaults)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"cannot be written ({error})", path=self.folder) from error

    def steps_done(self, stage: str) -> int:
        """Steps the stage's checkpoint has behind it, 0 when there is none.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        return self.resume(stage, {})

    def rows(self) -> list[dict[str, Any]]:
        """Every line of ``log.jsonl``."""
        return read_rows(self.folder)

    def forget_after(self, stage: str, step: int) -> None:
        """Drop a stage's lines beyond ``step``: they are of steps that will be run again."""
        kept = [row for row in self.rows() if row.get("stage") != stage or row["step"] <= step]
        lines = "".join(json.dumps(row) + "\n" for row in kept)
        write_whole(lines.encode(), self.folder / "log.jsonl")

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to ``log.jsonl``, and to ``tensorboard/`` where the package tensorboard is installed.

        Raises:
            OutputError: no space, or no permission; TensorBoard's files alone are only warned of.
        """
        path = self.folder / "log.jsonl"
        try:
            with path.open("a") as file:
                file.write(json.dumps(dict(row)) + "\n")
        except OSError as error:
            raise OutputError(
                f"the log cannot be written ({error}); {_ADVICE}", path=path
            ) from error
        try:
            self._show(row)
        except OSError as error:
            _log.warning("%s: no TensorBoard log from here on: %s", self.folder, error)
            self._boards[row.get("stage", "run")] = _NoBoard()

    def _show(self, row: Mapping[str, Any]) -> None:
        """A row's numbers in TensorBoard's files; a stage has its own, as a resumed one hides what is beyond it."""
        stage = row.get("stage", "run")
        if stage not in self._boards:
            board = _open_board(self.folder / "tensorboard" / stage, row.get("step", 0))
            self._boards[stage] = board
            # Else its thread goes on writing when the run is over, and fails where the folder is gone by then.
            weakref.finalize(self, _close_board, board)
        for key, value in row.items():
            if isinstance(value, float):
                self._boards[stage].add_scalar(f"{stage}/{key}", value, row.get("step"))

    def save(self, stage: str, step: int, parts: Mapping[str, Any]) -> None:
        """Keep ``state_dict()`` of every part and the number of steps done.

        Raises:
            OutputError: no space, or no permission; the checkpoint before stays.
        """
        path = self.folder / f"{stage}.pt"
        partial = path.with_suffix(".part")
        states = {name: _contiguous(part.state_dict()) for name, part in parts.items()}
        try:
            torch.save({"step": step, "parts": states}, partial)
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise OutputError(
                f"the checkpoint cannot be written ({error}); {_ADVICE}", path=path
            ) from error

    def resume(self, stage: str, parts: Mapping[str, Any]) -> int:
        """Load every part from the stage's checkpoint; steps done, 0 when there is none.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        path = self.folder / f"{stage}.pt"
        if not path.is_file():
            return 0
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            return int(state["step"])
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
            EOFError,
            pickle.UnpicklingError,
        ) as error:
            raise CheckpointError(
                f"cannot be resumed from ({error}); delete it to start the stage anew", path=path
            ) from error


def hold(folder: Path) -> FileLock:
    """Keep other processes out of a run's folder, which is made, for as long as this is held.

    Raises:
        OutputError: another process is at work there, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _locked(folder)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot be written ({error})", path=folder) from error


def check_settings(
    folder: Path, wanted: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> None:
    """Whether a run that may be in a folder has these settings.

    Raises:
        ConfigError: it has others.
    """
    path = folder / "config.json"
    if not path.is_file():
        return
    wanted = json.loads(json.dumps(dict(wanted)))
    before = filled(json.loads(path.read_text()), defaults or {})
    if before != wanted:
        keys = sorted(before.keys() | wanted.keys())
        differing = [key for key in keys if before.get(key) != wanted.get(key)]
        raise ConfigError(
            f"{folder} holds a run with other settings ({', '.join(differing)}); give another folder or delete it"
        )


def check_finite(
    stage: str, step: int, row: Mapping[str, float], parts: Mapping[str, Any] | None = None
) -> None:
    """Whether a step left numbers; to be asked before anything of it is kept.

    Args:
        stage: of the training.
        step: that was made, counted from 1.
        row: its losses.
        parts: of a checkpoint that is due; the networks among them are looked through.

    Raises:
        ConfigError: a loss or a weight is NaN or infinite.
    """
    broken = [name for name, value in row.items() if not math.isfinite(value)]
    for name, part in (parts or {}).items():
        if isinstance(part, nn.Module) and not all(map(is_finite, part.state_dict().values())):
            broken.append(name)
    if broken:
        raise ConfigError(
            f"training diverged in stage {stage}, step {step}: no finite number any more in {', '.join(broken)}; "
            "the last checkpoint stays. Lower the learning rate, a setting that ends in lr, in another folder"
        )


class TrainingClock:
    """Seconds of training so far, all sittings together: a part to be kept with the checkpoint."""

    def __init__(self) -> None:
        self.before = 0.0
        self.began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the run began, without the time between sittings."""
        return self.before + time.monotonic() - self.began

    def state_dict(self) -> dict[str, float]:
        """What goes into the checkpoint."""
        return {"seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.before, self.began = state["seconds"], time.monotonic()


def logged_seconds(folder: str | Path) -> float:
    """Seconds that a run's steps took, all stages and sittings together, by its ``log.jsonl``.

    A sitting's clock starts anew, or goes on where the one before stopped.
    """
    total = last = 0.0
    for row in read_rows(Path(folder)):
        seconds = float(row.get("seconds", 0.0))
        if seconds < last:
            total += last
        last = seconds
    return total + last


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole((json.dumps(content, indent=2) + "\n").encode(), Path(path))


def filled(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, and in them the defaults of those that they lack, at every depth, as a file of JSON has them."""
    whole = {**json.loads(json.dumps(dict(defaults))), **settings}
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(settings.get(name), dict):
            whole[name] = filled(settings[name], default)
    return whole


def _locked(folder: Path) -> FileLock:
    """A folder's lock, one a process, which goes with the last that holds it."""
    try:
        with _locking:
            lock = FileLock(folder / ".lock", timeout=0, thread_local=False, is_singleton=True)
            lock.acquire()
    except Timeout as error:
        raise OutputError(
            "another process is at work there; wait for its end, or give another folder",
            path=folder,
        ) from error
    return lock


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Every whole line of a run's ``log.jsonl``."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


class _NoBoard:
    def add_scalar(self, *_: object) -> None:
        """Nothing: tensorboard is not installed."""

    def close(self) -> None:
        """Nothing likewise."""


def _open_board(folder: Path, first_step: int) -> Any:
    """TensorBoard's writer; events of an earlier, killed run from ``first_step`` on are hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.info("no tensorboard log: the package tensorboard is not installed")
        return _NoBoard()
    return SummaryWriter(str(folder), purge_step=first_step)


def _close_board(board: Any) -> None:
    with contextlib.suppress(OSError):  # of a full disk, of which the log has told
        board.close()


def _contiguous(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.contiguous() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
