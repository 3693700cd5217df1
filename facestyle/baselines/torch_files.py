"""Other projects' checkpoint files, read without running anything in them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facestyle.errors import CheckpointError

__all__ = ["read_named_arrays", "read_torch_file"]

_ARRAY_PARTS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
"""All that a pickled array needs, under numpy's older and newer names."""


def read_torch_file(path: str | Path) -> Any:
    """Content of a ``.pt`` or ``.pth`` file on the CPU: tensors and plain containers, nothing else.

    Raises:
        CheckpointError: it is absent, damaged, or holds objects that would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", path=path) from error
    except pickle.UnpicklingError as error:
        told = str(error).strip().splitlines()[-1] if str(error).strip() else "unknown content"
        raise CheckpointError(
            f"holds more than tensors and is refused, because opening it could run code: {told}",
            path=path,
        ) from error
    except (
        OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError,
        IndexError, MemoryError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"cannot be read as a torch file ({error}); download it again", path=path
        ) from error


def read_named_arrays(path: str | Path) -> dict[str, NDArray[np.floating[Any]]]:
    """Arrays by name, of an ``.npy`` file that holds one pickled dictionary of arrays.

    Raises:
        CheckpointError: it is absent, damaged, holds something else, or objects that would run code.
    """
    try:
        file = io.BytesIO(Path(path).read_bytes())
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )  # fmt: skip
        shape, _, kind = read_header(file)
        if shape != () or not kind.hasobject:
            raise CheckpointError("holds a plain array, not arrays by name", path=path)
        content = _ArrayUnpickler(file).load()
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error})", path=path) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(str(error), path=path) from error
    except (
        EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, MemoryError,
        OverflowError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"cannot be read as an npy file ({error}); download it again", path=path
        ) from error
    if isinstance(content, np.ndarray) and content.shape == ():
        content = content.item()
    if not isinstance(content, dict) or not content:
        raise CheckpointError("holds no arrays by name", path=path)
    for name, value in content.items():
        is_array = isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
        if not isinstance(name, str) or not is_array:
            raise CheckpointError(f"entry {name!r} is no array of numbers", path=path)
    return content


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Parts of numpy arrays; anything else is refused before it is imported."""
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(
                f"asks for {module}.{name} and is refused, because opening it could run code"
            )
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
