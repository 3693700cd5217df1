"""Seeds of random numbers: which are taken, and one for each of many things."""

from __future__ import annotations

from facestyle.errors import ConfigError

__all__ = ["TRAINING_SEEDS", "check_seed", "numbered_seed"]

TRAINING_SEEDS = 1 << 32
"""So many are taken by trainings, which number steps, stages and processes with them, all within what torch takes."""


def check_seed(seed: int, count: int = 1 << 63) -> None:
    """Refuse what is no seed.

    Raises:
        ConfigError: it is negative, or ``count`` or more.
    """
    if not 0 <= seed < count:
        power = count.bit_length() - 1
        raise ConfigError(f"a seed is a number from 0 to 2^{power} - 1, got {seed}")


def numbered_seed(seed: int, number: int) -> int:
    """The seed of one of many, such as a photo or a step: another one for each, and one that torch takes."""
    return (seed * 1_000_003 + number) % (1 << 63)
