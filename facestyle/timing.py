"""Seconds of a call on a device, and what reports call the device."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

from facestyle import __version__

__all__ = ["booked", "device_name", "seconds_in_turns", "seconds_of", "versions", "wait_for"]


def wait_for(device: torch.device) -> None:
    """Come back when what was started on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def device_name(device: torch.device) -> str:
    """What a report calls a device: a GPU by its own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def versions() -> dict[str, str]:
    """Of facestyle, and of the packages it draws with, where they are installed."""
    found = {"facestyle": __version__, "torch": torch.__version__}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["diffusers"] = metadata.version("diffusers")
    return found


@contextlib.contextmanager
def booked(
    accounts: Sequence[dict[str, float]], stage: str, device: torch.device
) -> Iterator[None]:
    """A context whose time, to its end on the device, is booked under a stage, shared among the accounts."""
    wait_for(device)
    began = time.perf_counter()
    yield
    wait_for(device)
    elapsed = time.perf_counter() - began
    for seconds in accounts:
        seconds[stage] = elapsed / len(accounts)


def seconds_of(call: Callable[[], Any], device: torch.device, runs: int) -> float:
    """Median time of a call, to its end on the device; it should have run before."""
    return statistics.median(seconds_in_turns({"": call}, device, runs)[""])


def seconds_in_turns(
    calls: Mapping[str, Callable[[], Any]], device: torch.device, runs: int
) -> dict[str, list[float]]:
    """Times of several calls, each once in every round: a machine's speed drifts, less so within a round."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            wait_for(device)
            began = time.perf_counter()
            call()
            wait_for(device)
            taken[name].append(time.perf_counter() - began)
    return taken
