"""Numbers that a setting may have."""

from __future__ import annotations

from facestyle.errors import ConfigError

__all__ = ["check_above_0", "check_least"]


def check_least(name: str, value: float, least: float) -> None:
    """Refuse what is less, or no number.

    Raises:
        ConfigError: it is.
    """
    if not value >= least:
        raise ConfigError(f"{name} must be {least} or more, got {value}")


def check_above_0(name: str, value: float) -> None:
    """Refuse 0, what is less, and what is no number.

    Raises:
        ConfigError: it is.
    """
    if not value > 0:
        raise ConfigError(f"{name} must be above 0, got {value}")
