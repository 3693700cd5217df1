"""How the process gets memory and threads; to be set before numpy and torch start theirs, so it imports neither."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
import sys
from pathlib import Path

__all__ = ["tune_allocator", "tune_process", "tune_threads", "usable_cores"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
"""Options of glibc's mallopt, from malloc.h."""

_SPINS = 20_000
"""Rounds of a thread that waits; with fewer a program that is alone is slower (docs/reports/generator_speed.md)."""


def tune_process() -> None:
    """Memory and threads as networks on a CPU want them; call it before the first import of numpy or torch."""
    tune_allocator()
    tune_threads()


@functools.cache
def tune_allocator() -> bool:
    """Keep glibc from giving every large tensor back to the system; True when done.

    Each freshly mapped page is zeroed by the kernel, which costs a CPU generator more than half of its time. The
    process keeps freed memory for reuse instead, in two pools for all its threads: that part works where no thread has
    been started yet, so call it before the first import of numpy or torch. Outside the first pool tensors of 64 MiB and
    more are mapped anew all the same. Only on Linux with glibc; ``FACESTYLE_MALLOC=0`` leaves it alone.
    """
    if not sys.platform.startswith("linux") or os.environ.get("FACESTYLE_MALLOC") == "0":
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    done = [
        mallopt(_M_ARENA_MAX, 2),  # a worker's tensors stay near its core
        mallopt(_M_MMAP_MAX, 0),
        mallopt(_M_TRIM_THRESHOLD, 1 << 30),
        mallopt(_M_TOP_PAD, 64 << 20),
    ]
    return all(done)


def tune_threads() -> None:
    """Let torch's threads be as many as cores may be used, and give way to other programs; on Linux.

    A thread that waits for its team keeps its core, in GCC's OpenMP for 300 000 rounds. Beside another program that
    does so too, each waits most of the time for a thread that the other's waiting keeps from a core: a photo takes more
    than 20 times as long. So threads wait for fewer rounds, then sleep. And torch starts a thread for every core of the
    machine, of which a container may have but a share.

    What the environment says already (``GOMP_SPINCOUNT``, ``OMP_WAIT_POLICY``; ``OMP_NUM_THREADS``) stays, and so does
    a torch that is there already.
    """
    if "torch" in sys.modules or not sys.platform.startswith("linux"):
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    cores = usable_cores()
    if cores < _visible_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores whose time this process gets: those it may run on, or a container's share of them, rounded up.

    Args:
        cgroup: where the system says what share that is, in either version of control groups.
    """
    return max(1, math.ceil(min(_visible_cores(), _share(cgroup))))


def _visible_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _share(cgroup: Path) -> float:
    """In cores; infinite without a limit."""
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    old = cgroup / "cpu"
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((old / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            return int(quota) / int(period)
    return math.inf
