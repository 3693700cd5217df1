"""MobileStyleGAN checkpoints (arXiv:2104.04767) as its training code saves them.

Such a file holds the mapping network, the teacher, the student and what its losses need; the mapping network and the
student make the generator. The student demodulates by a stored style, which is worked into the weights here, as in the
exported network that facestyle carries. Its noise is drawn anew for every picture; ours is one draw from seed 0. What
it keeps as ``style_mean`` is the mean of W in some files, and in others the w of one z.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facestyle.errors import CheckpointError
from facestyle.models.generator import sample_z
from facestyle.models.importers.checkpoints.network import Part, fitted, part_of, tensors_in
from facestyle.models.importers.random_face import haar_interleave
from facestyle.models.mobile import MobileGenerator
from facestyle.models.stylegan2_generator import estimate_w_avg

__all__ = ["mobile_generator"]

_RATE = 0.01
"""Learning-rate multiplier of the mapping network's stored weights."""

_MOST_BLOCKS = 8

_NEAR_MEAN = 0.2
"""How far a mean of W may be from the estimate, of W's spread. Means of 100 samples are 0.1 away, single w's of FFHQ's
0.6 and more."""

_DROPPED = re.compile(
    r"device_info|(layers\.\d+\.up\.)?idwt\.g[01]_(row|col)|to_img1\..+|layers\.\d+\.to_img\..+"
)
"""Constants, and heads of resolutions that facestyle does not draw."""


def mobile_generator(state: Any, path: Path) -> Part:
    """The generator of a checkpoint's ``state_dict``.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    student = tensors_in(_only(state, "student."), path, "student.")
    try:
        channels = [len(student["conv1.bias"].flatten())]
        while (name := f"layers.{len(channels) - 1}.conv2.bias") in student:
            channels.append(len(student[name].flatten()))
        if len(channels) > _MOST_BLOCKS:
            raise CheckpointError(f"draws at {4 << len(channels)} px; 1024 is the most", path=path)
        tensors = {f"synthesis.{k}": v for k, v in _synthesis(student, channels, path).items()}
        tensors |= {f"mapping.{k}": v for k, v in _mapping(state, path).items()}
    except KeyError as error:
        raise CheckpointError(
            f"holds no MobileStyleGAN of the kind facestyle knows: {error} is missing",
            path=path,
            missing=[str(error.args[0])],
        ) from error
    config: dict[str, Any] = {
        "channels": channels,
        "w_dim": len(tensors["mapping.w_avg"]),
        "mapping_depth": sum(name.endswith(".weight") for name in tensors if "mapping" in name),
        "preview_resolution": _preview_of(channels),
    }
    net = fitted(lambda: MobileGenerator(**config), tensors, path)
    estimate = estimate_w_avg(net)
    is_mean = _is_mean(net.w_avg, estimate, net)
    if not is_mean:
        net.w_avg.copy_(estimate)
    known = "stored" if is_mean else "estimated"
    return part_of("generator", net, net.architecture, resolution=net.resolution, w_avg=known)


def _is_mean(stored: Tensor, estimate: Tensor, net: MobileGenerator) -> bool:
    """Whether what is stored is the mean of W, and not one w of it."""
    with torch.no_grad():
        w = net.mapping(sample_z(1000, 1, net.w_dim))
    spread = (w - estimate).square().sum(1).mean()
    return bool((stored - estimate).square().sum() <= _NEAR_MEAN**2 * spread)


def _only(state: Any, prefix: str) -> Any:
    if not isinstance(state, dict):
        return state
    return {k: v for k, v in state.items() if isinstance(k, str) and k.startswith(prefix)}


def _preview_of(channels: list[int]) -> int:
    """Side of the cheap output: 256 px, or the largest there is."""
    return min(256, 2 << len(channels))


def _mapping(state: Any, path: Path) -> dict[str, Tensor]:
    """Plain linear layers of the stored ones, whose weights are scaled when used; and the mean of W."""
    clean = {}
    for name, tensor in tensors_in(_only(state, "mapping_net."), path, "mapping_net.").items():
        match = re.fullmatch(r"layers\.([1-9]\d*)\.(weight|bias)", name)
        if match is None:
            raise _unknown([f"mapping_net.{name}"], path)
        scale = _RATE if match[2] == "bias" else _RATE / math.sqrt(tensor.shape[1])
        clean[f"layers.{int(match[1]) - 1}.{match[2]}"] = tensor * scale
    mean = tensors_in(_only(state, "style_mean"), path)["style_mean"]
    clean["w_avg"] = mean.reshape(-1, mean.shape[-1])[0].clone()
    return clean


def _synthesis(student: dict[str, Tensor], channels: list[int], path: Path) -> dict[str, Tensor]:
    """Our tensors of the student's; `KeyError` names one that is absent."""
    blocks = len(channels) - 1
    preview = round(math.log2(_preview_of(channels))) - 4
    left = dict(student)
    rng = torch.Generator().manual_seed(0)
    clean = {"const": left.pop("input.input")}
    clean |= _named("stem", _styled(left, "conv1", 4, rng, path))
    for i in range(blocks):
        clean[f"blocks.{i}.up.weight"] = left.pop(f"layers.{i}.up.modulation.weight")
        clean[f"blocks.{i}.up.bias"] = left.pop(f"layers.{i}.up.modulation.bias")
        for conv in ("conv1", "conv2"):
            parts = _styled(left, f"layers.{i}.{conv}", 8 << i, rng, path)
            clean |= _named(f"blocks.{i}.{conv}", parts)
    for head, place in (("to_image", blocks - 1), ("to_preview", preview)):
        clean |= _named(head, _head(student, f"layers.{place}.to_img"))
    if unknown := sorted(name for name in left if not _DROPPED.fullmatch(name)):
        raise _unknown([f"student.{name}" for name in unknown], path)
    feeds = ["stem", "to_image", "to_preview"]
    feeds += [f"blocks.{i}.up" for i in range(blocks)]
    feeds += [f"blocks.{i}.conv2" for i in range(blocks - 1)]
    for name in (f"{layer}.{part}" for layer in feeds for part in ("weight", "bias")):
        clean[name] = clean[name][_haar_order(len(clean[name]))]
    if preview < blocks - 1:  # it reads what the next block's Haar step reads
        order = _haar_order(channels[preview + 1])
        for name in ("to_preview.affine.weight", "to_preview.affine.bias"):
            clean[name] = clean[name][order]
        clean["to_preview.weight"] = clean["to_preview.weight"][:, order]
    return clean


def _haar_order(channels: int) -> Tensor:
    return torch.from_numpy(haar_interleave(channels))


def _named(prefix: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in parts.items()}


def _styled(
    left: dict[str, Tensor], layer: str, side: int, rng: torch.Generator, path: Path
) -> dict[str, Tensor]:
    """One modulated convolution, taken out of ``left``; its static demodulation goes into its weight."""
    parts = {
        "affine.weight": left.pop(f"{layer}.conv.modulation.weight"),
        "affine.bias": left.pop(f"{layer}.conv.modulation.bias"),
        "bias": left.pop(f"{layer}.bias").flatten(),
    }
    style = left.pop(f"{layer}.conv.style_inv").reshape(-1)
    if f"{layer}.conv.weight_dw" in left:
        parts["depthwise"] = left.pop(f"{layer}.conv.weight_dw")
        weight = left.pop(f"{layer}.conv.weight_permute")
        deep, shape = len(parts["depthwise"]), list(weight.shape)
        if parts["depthwise"].shape[1:2] != (1,) or shape[1:] != [deep, 1, 1]:
            raise _shapes(layer, "a 1 x 1 convolution of the depthwise one's channels", shape, path)
        # Kernels of any size would make far more of both than the file holds.
        if parts["depthwise"].shape[2:] != (3, 3):
            raise _shapes(layer, "3 x 3 depthwise kernels", list(parts["depthwise"].shape), path)
        full = parts["depthwise"].transpose(0, 1) * weight
    else:
        weight = full = left.pop(f"{layer}.conv.weight")
    if full.ndim != 4 or len(style) != full.shape[1]:
        raise _shapes(layer, f"a style of {len(style)} channels", list(full.shape), path)
    scaled = full * style[:, None, None] / math.sqrt(full[0].numel())
    demodulation = torch.rsqrt(scaled.square().sum((1, 2, 3)) + 1e-8)
    parts["weight"] = weight * demodulation[:, None, None, None]
    plane = left.pop(f"{layer}.noise.noise", None)
    if plane is None:
        plane = torch.randn(1, 1, side, side, generator=rng)
    strength = left.pop(f"{layer}.noise.weight")
    if strength.numel() != 1:
        raise _shapes(layer, "one strength of noise", list(strength.shape), path)
    parts["noise"] = strength * plane
    return parts


def _head(student: Mapping[str, Tensor], layer: str) -> dict[str, Tensor]:
    return {
        "affine.weight": student[f"{layer}.conv.modulation.weight"],
        "affine.bias": student[f"{layer}.conv.modulation.bias"],
        "weight": student[f"{layer}.conv.weight"],
        "bias": student[f"{layer}.bias"].flatten(),
    }


def _shapes(layer: str, wanted: str, shape: list[int], path: Path) -> CheckpointError:
    return CheckpointError(f"student.{layer} needs {wanted}, got a tensor {shape}", path=path)


def _unknown(names: list[str], path: Path) -> CheckpointError:
    return CheckpointError(
        f"has {len(names)} tensors with no place in a MobileStyleGAN: {names[:3]}",
        path=path,
        unexpected=names,
    )
