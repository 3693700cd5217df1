"""Seeds of random numbers: which are taken, and one for each of many things."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from facestyle.errors import ConfigError

__all__ = ["TRAINING_SEEDS", "check_seed", "numbered_seed", "whole"]

TRAINING_SEEDS = 1 << 32
"""So many are taken by trainings, which number steps, stages and processes with them, all within what torch takes."""


def whole(number: object) -> int | None:
    """A whole number, of Python or numpy, as Python's; None for anything else, True and False among it."""
    try:
        return None if isinstance(number, bool) else operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_seed(seed: SupportsIndex, count: int = 1 << 63) -> int:
    """The seed as Python's number; what is no seed is refused.

    Raises:
        ConfigError: it is no whole number, negative, or ``count`` or more.
    """
    found = whole(seed)
    if found is None or not 0 <= found < count:
        power = count.bit_length() - 1
        raise ConfigError(f"a seed is a whole number from 0 to 2^{power} - 1, got {seed!r}")
    return found


def numbered_seed(seed: SupportsIndex, number: int) -> int:
    """The seed of one of many, such as a photo or a step: another one for each, and one that torch takes."""
    return (operator.index(seed) * 1_000_003 + number) % (1 << 63)
