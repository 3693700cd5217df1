"""ZeroGPU: a decorator that borrows a GPU on such a Space and does nothing anywhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

__all__ = ["ON_ZERO_GPU", "borrow_gpu"]

ON_ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
"""Calls that borrow a GPU run in a process of their own there: callbacks do not reach back."""

_F = TypeVar("_F", bound=Callable[..., object])


def borrow_gpu(seconds: int) -> Callable[[_F], _F]:
    """The function, with a GPU for at most so many seconds; short ones wait less in the queue."""
    if not ON_ZERO_GPU:
        return lambda function: function
    import spaces

    decorate: Callable[[_F], _F] = spaces.GPU(duration=seconds)
    return decorate
