"""Where and how to compute: device and number type."""

from __future__ import annotations

import logging
import time

import torch

from facestyle.errors import ConfigError
from facestyle.models.generator import Generator

__all__ = ["choose_device", "choose_dtype", "cpu_has_bfloat16", "parse_dtype"]

_log = logging.getLogger(__name__)

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


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
    if device.type != "cpu" or not cpu_has_bfloat16():
        return torch.float32
    seconds = {
        dtype: _seconds_per_preview(generator, dtype) for dtype in (torch.float32, torch.bfloat16)
    }
    _log.debug("preview seconds by dtype: %s", seconds)
    return min(seconds, key=lambda dtype: seconds[dtype])


def cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16, as far as Linux tells."""
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
