"""One process, or several under ``accelerate launch``: who writes, who waits, what all know, and averaged gradients.

Gradients are averaged by hand after every backward pass. The networks are called several times a step and not only
through ``forward``, which a wrapping DistributedDataParallel does not see; at 30 MB of gradients nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

from facestyle.errors import ConfigError, MissingDependencyError
from facestyle.runtime import choose_device

__all__ = ["Processes"]

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they started: torch's, and those of MPI."""

_LONGEST_WAIT = timedelta(days=7)
"""For processes that work apart, and for those that wait while the main one checks, draws and measures alone."""

_T = TypeVar("_T")


class Processes:
    """The processes of this run.

    Args:
        device: of this process; the best there is when None, and of several GPUs its own. Ignored where several
            processes are coupled.
        is_coupled: they exchange gradients, and so need a GPU each, if any. Others only wait for each other. Both wait
            for days if need be.

    Attributes:
        device: where this process computes.
        rank: its number, from 0.
        count: of processes.

    Raises:
        ConfigError: the device is unknown or not there, or what the launcher has set is no number or incomplete.
        MissingDependencyError: several processes were started and the package ``accelerate`` is absent.
    """

    def __init__(
        self, device: str | torch.device | None = None, *, is_coupled: bool = True
    ) -> None:
        self._accelerator: Any = None
        self.rank, self.count = 0, 1
        started = _started()
        if started < 2:
            self.device = choose_device(device)
            return
        try:
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs
        except ImportError as error:
            raise MissingDependencyError(
                "several processes need accelerate to share work; pip install 'facestyle[train]'"
            ) from error
        waits = InitProcessGroupKwargs(timeout=_LONGEST_WAIT)
        on_cpu = not is_coupled or choose_device().type == "cpu"
        try:
            self._accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[waits])
            if self._accelerator.num_processes < 2:
                raise ValueError("this one finds itself alone")
        except ValueError as error:
            raise ConfigError(
                f"accelerate cannot join the {started} processes that are said to be started ({error}); start them by "
                f"accelerate launch or torchrun, or unset {', '.join(_COUNTS)} to start one"
            ) from error
        self.device = self._accelerator.device
        if not is_coupled:
            self.device = _own_device(device, self._accelerator.local_process_index)
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes

    def end(self) -> None:
        """Leave the others, when all is done; nothing is shared from there on.

        A process that ends without having left may crash in gloo's threads, and its launcher calls the run failed.
        """
        if self._accelerator is not None:
            self._accelerator.end_training()

    @property
    def is_main(self) -> bool:
        """True in the one process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all have come here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def share(self, found: _T) -> _T:
        """What the main process has, in every process, which all come here."""
        if self._accelerator is None:
            return found
        from accelerate.utils import broadcast_object_list

        shared: list[_T] = broadcast_object_list([found])
        return shared[0]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self._accelerator is None:
            return
        for p in parameters:
            if p.grad is not None:
                p.grad = self._accelerator.reduce(p.grad, "mean")


def _started() -> int:
    """How many processes a launcher says it started; 1 where there is none.

    Raises:
        ConfigError: it says no number.
    """
    counts = {name: os.environ.get(name) or "1" for name in _COUNTS}
    for name, count in counts.items():
        if not count.isdecimal():
            raise ConfigError(
                f"{name} must be the number of processes, got {count!r}; unset it to start one"
            )
    return max(map(int, counts.values()))


def _own_device(device: str | torch.device | None, local_rank: int) -> torch.device:
    """The device asked for; of several GPUs the process's own, unless one was named by its number."""
    from accelerate.utils import parse_flag_from_env

    if device is None and parse_flag_from_env("ACCELERATE_USE_CPU"):
        device = "cpu"
    chosen = choose_device(device)
    if str(chosen) != "cuda":
        return chosen
    own = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own
