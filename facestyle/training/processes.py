"""One process, or several under ``accelerate launch``: who writes, who waits, and gradients averaged over all.

Gradients are averaged by hand after every backward pass. The networks are called several times a step and not only
through ``forward``, which a wrapping DistributedDataParallel does not see; at 30 MB of gradients nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from facestyle.errors import MissingDependencyError
from facestyle.runtime import choose_device

__all__ = ["Processes"]


class Processes:
    """The processes of this run.

    Args:
        device: of this process; the best there is when None. Ignored when several processes share the work.

    Attributes:
        device: where this process computes.
        rank: its number, from 0.
        count: of processes.

    Raises:
        MissingDependencyError: several processes were started and the package ``accelerate`` is absent.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self._accelerator: Any = None
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import Accelerator
            except ImportError as error:
                raise MissingDependencyError(
                    "training in several processes needs accelerate; pip install 'facestyle[train]'"
                ) from error
            self._accelerator = Accelerator()
            self.rank = self._accelerator.process_index
            self.count = self._accelerator.num_processes
            self.device = self._accelerator.device
        else:
            self.device = choose_device(device)

    @property
    def is_main(self) -> bool:
        """True in the one process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all have come here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self._accelerator is None:
            return
        for p in parameters:
            if p.grad is not None:
                p.grad = self._accelerator.reduce(p.grad, "mean")
