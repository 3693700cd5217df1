"""Where and how to compute: device, number type, memory allocator."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import platform
import sys
import time

import torch

from facestyle.errors import ConfigError
from facestyle.models.generator import Generator

__all__ = ["choose_device", "choose_dtype", "parse_dtype", "tune_allocator"]

_log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
"""Options of glibc's mallopt, from malloc.h."""

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@functools.cache
def tune_allocator() -> bool:
    """Keep glibc from giving every large tensor back to the system; True when done.

    Each freshly mapped page is zeroed by the kernel, which costs a CPU generator more than half of its time. The
    process keeps freed memory for reuse instead. Only on Linux with glibc; ``FACESTYLE_MALLOC=0`` leaves it alone.
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
        mallopt(_M_MMAP_MAX, 0),
        mallopt(_M_TRIM_THRESHOLD, 512 << 20),
        mallopt(_M_TOP_PAD, 64 << 20),
        mallopt(_M_ARENA_MAX, 1),  # else every new thread starts with memory of its own
    ]
    return all(done)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """``device``, or the best there is: CUDA, then MPS, then CPU.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f'unknown device {device!r}; use "cpu", "cuda" or "mps"') from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CUDA was asked for, but this torch sees no CUDA device; use cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("MPS was asked for, but this torch sees no MPS device; use cpu")
    return chosen


def parse_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """A torch dtype from its name; None and "auto" stay None.

    Raises:
        ConfigError: the name is unknown.
    """
    if name is None or name == "auto" or isinstance(name, torch.dtype):
        return name if isinstance(name, torch.dtype) else None
    if name not in _DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def choose_dtype(generator: Generator, device: torch.device) -> torch.dtype:
    """The number type synthesis is fastest in, of those that keep the picture.

    CUDA: bfloat16 where the chip has it. CPU: bfloat16 only where the processor has instructions for it and a preview
    drawn in both types is faster in it. Otherwise float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu" or not _cpu_has_bfloat16():
        return torch.float32
    seconds = {
        dtype: _seconds_per_preview(generator, dtype) for dtype in (torch.float32, torch.bfloat16)
    }
    _log.debug("preview seconds by dtype: %s", seconds)
    return min(seconds, key=lambda dtype: seconds[dtype])


def _cpu_has_bfloat16() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _seconds_per_preview(generator: Generator, dtype: torch.dtype) -> float:
    """Shortest of three previews on the CPU."""
    import copy

    synthesis = copy.deepcopy(generator.synthesis).to(dtype)
    w = generator.w_avg.to(dtype).expand(1, generator.num_ws, -1)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(3):
            start = time.perf_counter()
            synthesis(w, resolution=generator.preview_resolution)
            best = min(best, time.perf_counter() - start)
    return best
