"""How the process gets its memory; to be set before numpy and torch start their threads, so it imports neither."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys

__all__ = ["tune_allocator"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
"""Options of glibc's mallopt, from malloc.h."""


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
