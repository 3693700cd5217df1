"""Arrays of other projects' files, read without running anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facestyle.errors import CheckpointError
from facestyle.models.importers.checkpoints.containers import read_checkpoint
from facestyle.models.importers.checkpoints.safe_pickle import DAMAGE
from facestyle.models.importers.checkpoints.stored import loaded

__all__ = ["named_arrays", "read_named_arrays"]


def read_named_arrays(path: str | Path) -> dict[str, NDArray[np.floating[Any]]]:
    """Arrays by name, of an ``.npy`` file that holds one pickled dictionary of arrays.

    Raises:
        CheckpointError: it is absent, damaged, holds something else, or objects that would run code.
    """
    return named_arrays(read_checkpoint(path), path)


def named_arrays(content: Any, path: str | Path) -> dict[str, NDArray[np.floating[Any]]]:
    """Arrays by name, of what was read from an ``.npy`` file.

    Raises:
        CheckpointError: it is something else.
    """
    content = _loaded(content, path)
    if isinstance(content, np.ndarray):
        raise CheckpointError("holds a plain array, not arrays by name", path=path)
    if not isinstance(content, dict) or not content:
        raise CheckpointError("holds no arrays by name", path=path)
    for name, value in content.items():
        is_array = isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
        if not isinstance(name, str) or not is_array:
            raise CheckpointError(f"entry {name!r} is no array of numbers", path=path)
    return content


def _loaded(content: Any, path: str | Path) -> Any:
    try:
        return loaded(content)
    except DAMAGE as error:
        raise CheckpointError(f"is damaged ({error}); download it again", path=path) from error
