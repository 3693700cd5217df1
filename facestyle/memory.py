"""How much memory a piece of work takes."""

from __future__ import annotations

import contextlib
import gc
import re
from pathlib import Path
from types import TracebackType

import torch

__all__ = ["PeakMemory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """A context; ``bytes`` afterwards is the most memory in use inside it, None where that cannot be told.

    On CUDA it is what torch had handed out on the device. On a CPU it is the whole process, what was loaded before
    and what it has freed and kept included, and is known on Linux only.

    Args:
        device: on which the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._can_tell = _reset_process_peak()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        elif self.device.type == "cpu" and self._can_tell:
            found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
            self.bytes = int(found[1]) * 1024 if found else None


def _reset_process_peak() -> bool:
    """Whether the kernel counts the process's peak from here on."""
    with contextlib.suppress(OSError):
        _RESET.write_text("5")
        return True
    return False
