"""Seconds of a call on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["seconds_in_turns", "seconds_of", "wait_for"]


def wait_for(device: torch.device) -> None:
    """Come back when what was started on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


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
