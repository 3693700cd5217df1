"""The identity network: a 512-d MobileFaceNet out of npm ``faceplugin-face-recognition-js``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import Tensor

from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.identity import MobileFaceNet
from facestyle.models.importers.packages import Package, read_members

__all__ = ["MOBILEFACENET", "import_mobilefacenet"]

MOBILEFACENET = Package(
    registry="npm",
    name="faceplugin-face-recognition-js",
    version="0.0.1",
    license="MIT",
    sha256="7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba",
)
MEMBER = "model/fr_feature.onnx"


def import_mobilefacenet(source: Path | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights for :class:`facestyle.models.identity.MobileFaceNet`, fp32.

    Args:
        source: the package's ``.tgz`` or unpacked folder; None fetches it.

    Returns:
        (tensors by name, file metadata).

    Raises:
        DownloadError: the package could not be fetched.
        ConfigError: the package ``onnx`` is not installed.
        CheckpointError: the package is damaged or holds another network.
    """
    try:
        from google.protobuf.message import DecodeError
        from onnx.checker import ValidationError
    except ImportError as error:
        raise ConfigError("reading this package needs onnx: pip install onnx") from error
    (raw,) = read_members(MOBILEFACENET, [MEMBER], source)
    with tempfile.TemporaryDirectory(prefix="facestyle-") as folder:
        graph = Path(folder) / Path(MEMBER).name
        graph.write_bytes(raw)
        try:
            tensors = MobileFaceNet.tensors_from_onnx(graph)
        except (DecodeError, ValidationError, KeyError, IndexError) as error:
            raise CheckpointError(f"{MEMBER} is damaged: {error}", path=source) from error
    return tensors, {**MOBILEFACENET.metadata, "layout": "MobileFaceNet-512"}
