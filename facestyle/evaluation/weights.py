"""Weights of frozen judging networks: converted once from a public package, then kept in the cache.

Convention: the cache is ``$FACESTYLE_CACHE``, else ``$XDG_CACHE_HOME/facestyle``, else
``~/.cache/facestyle``. Deleting it is always safe.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facestyle.errors import CheckpointError

__all__ = ["cache_dir", "network_timeout", "parse_json", "read_tfjs_weights"]

Array = npt.NDArray[Any]


def cache_dir() -> Path:
    """Folder for converted weights; it need not exist yet."""
    if own := os.environ.get("FACESTYLE_CACHE"):
        return Path(own).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "facestyle"


def parse_json(data: bytes) -> Any:
    """Value of a JSON file inside a package.

    Raises:
        CheckpointError: it is no JSON.
    """
    try:
        return json.loads(data)
    except ValueError as error:
        raise CheckpointError(f"the package's JSON is damaged ({error}); fetch it again") from error


def read_tfjs_weights(groups: Sequence[Mapping[str, Any]], data: bytes) -> dict[str, Array]:
    """Named arrays of a TensorFlow.js weights manifest that has one binary file.

    Source: tfjs-core's ``io.decodeWeights``: affine quantisation (``q * scale + min``) and float16
    storage are undone.

    Args:
        groups: the manifest's list of groups, in file order.
        data: contents of the binary file.

    Returns:
        Arrays in TensorFlow's layout (convolutions HWIO) and in the dtype the manifest names.

    Raises:
        CheckpointError: the sizes do not add up to the file's.
    """
    arrays: dict[str, Array] = {}
    offset = 0
    for entry in (weight for group in groups for weight in group["weights"]):
        quantization = entry.get("quantization")
        dtype = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        dtype = dtype.newbyteorder("<")
        count = int(np.prod(entry["shape"], dtype=np.int64))
        if offset + count * dtype.itemsize > len(data):
            raise CheckpointError(
                f"the weights end inside {entry['name']}; fetch the package again"
            )
        array = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
        offset += array.nbytes
        if quantization and "scale" in quantization:
            array = array.astype(np.float64) * quantization["scale"] + quantization["min"]
        arrays[entry["name"]] = array.astype(entry["dtype"])
    if offset != len(data):
        raise CheckpointError(f"expected {offset} bytes of weights, got {len(data)}")
    return arrays


@contextmanager
def network_timeout(seconds: float = 20.0) -> Iterator[None]:
    """Within it, a library's own download fails after so long without an answer, not after minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
