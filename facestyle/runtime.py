"""Where and how to compute: device and number type."""

from __future__ import annotations

import functools
import logging

import torch
import torch.nn.functional as F

from facestyle.errors import ConfigError

__all__ = [
    "choose_device",
    "choose_dtype",
    "cpu_has_bfloat16",
    "cuda_has_bfloat16",
    "dtype_name",
    "parse_dtype",
]

_log = logging.getLogger(__name__)

_KINDS = ("cpu", "cuda", "mps")

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """``device``, or the best there is: CUDA, then MPS where it has all that is needed, then CPU.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available() and _shrinks_pictures("mps"):
            return torch.device("mps")
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise _unknown(device) from error
    if chosen.type not in _KINDS:
        raise _unknown(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CUDA was asked for, but this torch sees no CUDA device; use cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("MPS was asked for, but this torch sees no MPS device; use cpu")
    count = torch.cuda.device_count() if chosen.type == "cuda" else 1
    if not 0 <= (chosen.index or 0) < count:
        raise ConfigError(
            f"there is no device {chosen}: this torch sees {count} of that kind, numbered from 0"
        )
    return chosen


def _unknown(device: str | torch.device) -> ConfigError:
    return ConfigError(f'unknown device {str(device)!r}; use "cpu", "cuda" or "mps"')


@functools.cache
def _shrinks_pictures(kind: str) -> bool:
    """Whether a device averages as it shrinks a picture, and sends gradients through: MPS before torch 2.7 does not."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            img = torch.ones(1, 1, 4, 4, device=kind, requires_grad=True)
            F.interpolate(img, size=(2, 2), mode="bilinear", antialias=True).sum().backward()
    except RuntimeError as error:  # NotImplementedError, which torch raises, is one
        _log.warning(
            "%s lacks an operation in this torch (%s), so all runs on the CPU; a newer torch has it",
            kind.upper(),
            next(iter(str(error).splitlines()), "no details"),
        )
        return False
    return True


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


def dtype_name(dtype: torch.dtype) -> str:
    """The name that ``parse_dtype`` reads, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def choose_dtype(device: torch.device) -> torch.dtype:
    """The number type synthesis is fastest in, of those that keep the picture; the same every time on a machine.

    CUDA: bfloat16 where the chip has it. CPU: bfloat16 where the processor multiplies tiles of it (AMX), which is
    1.6 times as fast by ``facestyle bench --generator``. Otherwise float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if cuda_has_bfloat16() else torch.float32
    has_tiles = device.type == "cpu" and "amx_bf16" in _cpu_flags()
    return torch.bfloat16 if has_tiles else torch.float32


def cuda_has_bfloat16() -> bool:
    """Whether the CUDA chip computes in bfloat16 itself; older ones emulate it, which is slower than float32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16, as far as Linux tells."""
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """What the processor can do, in Linux's words; empty elsewhere."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.split())
