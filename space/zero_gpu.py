"""ZeroGPU: a decorator that borrows a GPU on such a Space and does nothing anywhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["ON_ZERO_GPU", "Failure", "borrow_gpu"]

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


class Failure:
    """An error as a value: one that is raised in the process with the GPU comes back without its message."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _failed, (type(self.error), self.error.args, vars(self.error))


def _failed(kind: type[Exception], args: tuple[Any, ...], facts: dict[str, Any]) -> Failure:
    """The same, also of an error that is made with more than its message."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(facts)
    return Failure(error)
