"""StyleGAN2 generators and discriminators of rosinality's PyTorch code and of NVIDIA's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facestyle.errors import CheckpointError
from facestyle.models.importers.checkpoints.network import LONGEST_NAME, Part, fitted, part_of
from facestyle.models.importers.checkpoints.safe_pickle import Record
from facestyle.models.importers.checkpoints.stored import StoredTensor
from facestyle.models.stylegan2 import StyleGAN2Critic
from facestyle.models.stylegan2_generator import (
    StyleGAN2Generator,
    check_filter,
    estimate_w_avg,
    from_rosinality,
    sizes_of,
)

__all__ = [
    "mean_of_w",
    "nvidia_clamp",
    "nvidia_discriminator",
    "nvidia_generator",
    "nvidia_state",
    "rosinality_discriminator",
    "rosinality_generator",
]


def rosinality_generator(
    state: Mapping[str, Tensor], path: Path, *, w_avg: Tensor | None = None
) -> Part:
    """The generator of a ``g_ema``; its mean of W is estimated from 10,000 samples where ``w_avg`` is None.

    Raises:
        CheckpointError: these are not the tensors of a StyleGAN2 generator.
    """
    try:
        config, tensors = from_rosinality(state)
    except CheckpointError as error:
        raise _at(path, error) from error
    return _generator(config, tensors, path, w_avg)


def nvidia_generator(
    state: Mapping[str, Tensor], path: Path, *, conv_clamp: float | None = None
) -> Part:
    """The generator of a ``G_ema``.

    Args:
        state: its tensors.
        path: of the file.
        conv_clamp: what its layers cut their results at, see `nvidia_clamp`.

    Raises:
        CheckpointError: it is of another architecture.
    """
    if any(name.startswith("synthesis.input.") for name in state):
        raise CheckpointError(
            "holds a StyleGAN3 generator; facestyle imports StyleGAN2 ones", path=path
        )
    if any(name.startswith("mapping.embed.") for name in state):
        raise CheckpointError(
            "holds a generator of labelled classes; facestyle imports those without labels",
            path=path,
        )
    clean = {}
    for name, tensor in _without_filters(state, path).items():
        name = re.sub(r"^mapping\.fc(\d+)\.", r"mapping.fc.\1.", name)
        clean["synthesis.const" if name == "synthesis.b4.const" else name] = tensor
    try:
        config = {**sizes_of(clean), "conv_clamp": conv_clamp}
    except CheckpointError as error:
        raise _at(path, error) from error
    return _generator(config, clean, path, clean.pop("mapping.w_avg", None))


def mean_of_w(latent_avg: Any) -> Tensor | None:
    """[w_dim] of a file's ``latent_avg`` [w_dim], [1, w_dim] or equal rows [rows, w_dim]; None if there is none."""
    if not isinstance(latent_avg, StoredTensor):
        return None
    rows = latent_avg.load()
    rows = rows.reshape(-1, rows.shape[-1])
    return rows[0].clone() if bool((rows == rows[0]).all()) else None


def _generator(
    config: dict[str, Any], tensors: dict[str, Tensor], path: Path, w_avg: Tensor | None
) -> Part:
    tensors["mapping.w_avg"] = torch.zeros(config["w_dim"]) if w_avg is None else w_avg
    net = fitted(lambda: StyleGAN2Generator(**config), tensors, path)
    if w_avg is None:
        net.w_avg.copy_(estimate_w_avg(net))
    known = "estimated" if w_avg is None else "stored"
    return part_of("generator", net, net.architecture, resolution=net.resolution, w_avg=known)


def rosinality_discriminator(state: Mapping[str, Tensor], path: Path) -> Part:
    """The discriminator of a ``d``.

    Raises:
        CheckpointError: these are not the tensors of a StyleGAN2 discriminator.
    """
    clean, unknown = {}, []
    for name, tensor in state.items():
        if re.fullmatch(r"convs\.\d+\.(conv2|skip)\.0\.kernel", name):
            check_filter(name, tensor, 1.0, path)
            continue
        new = _rosinality_critic_name(name)
        if new is None:
            unknown.append(name)
        else:
            clean[new] = tensor
    return _critic(clean, unknown, path)


def nvidia_discriminator(state: Mapping[str, Tensor], path: Path) -> Part:
    """The discriminator of a ``D``.

    Raises:
        CheckpointError: it is of another architecture.
    """
    plain = _without_filters(state, path)
    sides = [int(match[1]) for name in plain if (match := re.match(r"b(\d+)\.", name))]
    top = max(sides, default=0)
    clean, unknown = {}, []
    for name, tensor in plain.items():
        new = _nvidia_critic_name(name, top)
        if new is None:
            unknown.append(name)
        else:
            clean[new] = tensor
    return _critic(clean, unknown, path)


def _critic(clean: dict[str, Tensor], unknown: list[str], path: Path) -> Part:
    if unknown:
        raise CheckpointError(
            f"has {len(unknown)} tensors with no place in a StyleGAN2 discriminator: {sorted(unknown)[:3]}",
            path=path,
            unexpected=sorted(unknown),
        )
    blocks = sum(name.endswith(".skip.weight") for name in clean)
    side = 4 << blocks
    try:
        config = {
            "resolution": side,
            "channel_base": len(clean["from_rgb.weight"]) * side,
            "channel_max": len(clean["conv.weight"]),
        }
    except KeyError as error:
        raise CheckpointError(f"holds no StyleGAN2 discriminator ({error})", path=path) from error
    net = fitted(lambda: StyleGAN2Critic(**config), clean, path)
    return part_of("discriminator", net, "stylegan2", resolution=side)


_ROSINALITY_LAST = {
    "final_conv.0.weight": "conv.weight", "final_conv.1.bias": "conv.bias",
    "final_linear.0.weight": "hidden.weight", "final_linear.0.bias": "hidden.bias",
    "final_linear.1.weight": "out.weight", "final_linear.1.bias": "out.bias",
    "convs.0.0.weight": "from_rgb.weight", "convs.0.1.bias": "from_rgb.bias",
}  # fmt: skip
_ROSINALITY_BLOCK = {
    "conv1.0.weight": "conv1.weight", "conv1.1.bias": "conv1.bias",
    "conv2.1.weight": "conv2.weight", "conv2.2.bias": "conv2.bias", "skip.1.weight": "skip.weight",
}  # fmt: skip


def _rosinality_critic_name(name: str) -> str | None:
    """Our name of a tensor of rosinality's discriminator; None where there is no such layer."""
    if name in _ROSINALITY_LAST:
        return _ROSINALITY_LAST[name]
    match = re.fullmatch(r"convs\.([1-9]\d*)\.(.+)", name)
    if match is None or match[2] not in _ROSINALITY_BLOCK:
        return None
    return f"blocks.{int(match[1]) - 1}.{_ROSINALITY_BLOCK[match[2]]}"


_NVIDIA_LAST = {"conv": "conv", "fc": "hidden", "out": "out"}
_NVIDIA_BLOCK = {"conv0": "conv1", "conv1": "conv2", "skip": "skip"}


def _nvidia_critic_name(name: str, top: int) -> str | None:
    """Our name of a tensor of NVIDIA's discriminator for ``top`` px; None where there is no such layer."""
    match = re.fullmatch(r"b(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None:
        return None
    side, layer, part = int(match[1]), match[2], match[3]
    if side == 4 and layer in _NVIDIA_LAST:
        return f"{_NVIDIA_LAST[layer]}.{part}"
    if side == top and layer == "fromrgb":
        return f"from_rgb.{part}"
    if side < 8 or layer not in _NVIDIA_BLOCK:
        return None
    return f"blocks.{round(math.log2(top / side))}.{_NVIDIA_BLOCK[layer]}.{part}"


def _without_filters(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors without the resampling filters, which must be the one that facestyle has built in."""
    kept = {}
    for name, tensor in state.items():
        if name.endswith("resample_filter"):
            check_filter(name, tensor, 1.0, path)
        else:
            kept[name] = tensor
    return kept


def nvidia_state(module: Record, path: Path) -> dict[str, Tensor]:
    """All tensors of a pickled module and those in it, as its ``state_dict`` would name them.

    Raises:
        CheckpointError: it is no module, or its layers compute otherwise than facestyle's do.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()

    def walk(record: Any, prefix: str) -> None:
        if not isinstance(record, Record) or id(record) in seen:
            raise CheckpointError(f"{prefix or 'its network'} is no module of its own", path=path)
        seen.add(id(record))
        _check_layer(record, prefix, path)
        for group in ("_parameters", "_buffers"):
            for name, value in own(record, group, prefix).items():
                if isinstance(value, StoredTensor):
                    tensors[f"{prefix}{name}"] = value.load()
                elif value is not None:
                    raise CheckpointError(f"{prefix}{name} is no tensor", path=path)
        for name, child in own(record, "_modules", prefix).items():
            if child is not None:
                walk(child, f"{prefix}{name}.")

    def own(record: Record, group: str, prefix: str) -> dict[str, Any]:
        """A group that no other module shares, with names that are none too long: else little files unfold to much."""
        found = _named(record, group, path)
        if found and id(found) in seen:
            raise CheckpointError(f"{prefix}{group} is another module's too", path=path)
        seen.add(id(found))
        if any(len(prefix) + len(name) > LONGEST_NAME for name in found):
            raise CheckpointError(f"{prefix[:40]} has names of more than {LONGEST_NAME}", path=path)
        return found

    walk(module, "")
    return tensors


def nvidia_clamp(module: Record, path: Path) -> float | None:
    """What the layers of a pickled generator, whose tensors `nvidia_state` has read, cut their results at.

    No tensor shows it. None stands for no cut.

    Raises:
        CheckpointError: it is no number above 0, or not that of all layers.
    """
    clamps: set[float | None] = set()

    def walk(record: Record, prefix: str) -> None:
        if "conv_clamp" in record.state:
            clamp = record.state["conv_clamp"]
            if clamp is not None and not (type(clamp) in (int, float) and 0 < clamp < math.inf):
                raise CheckpointError(
                    f"{prefix} has a conv_clamp that is no number above 0", path=path
                )
            clamps.add(clamp if clamp is None else float(clamp))
        for name, child in record.state["_modules"].items():
            if child is not None:
                walk(child, f"{prefix}{name}.")

    walk(module, "")
    if len(clamps) > 1:
        raise CheckpointError(
            "has layers that cut their results at different numbers; facestyle has one conv_clamp for all",
            path=path,
        )
    return next(iter(clamps), None)


def _named(record: Record, group: str, path: Path) -> dict[str, Any]:
    found = record.state.get(group)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise CheckpointError(f"its {record.kind[:40]} is no module", path=path)
    return found


def _check_layer(record: Record, prefix: str, path: Path) -> None:
    """Whether the layer's settings, which its tensors do not show, are those that facestyle has built in."""
    activation = record.state.get("activation", "lrelu")
    if activation not in ("lrelu", "linear"):
        shown = activation[:40] if isinstance(activation, str) else type(activation).__name__
        raise CheckpointError(f"{prefix} has the activation {shown}, not lrelu", path=path)
    rate = record.state.get("bias_gain")
    if re.fullmatch(r"mapping\.fc\d+\.", prefix) and isinstance(rate, float) and rate != 0.01:
        raise CheckpointError(f"{prefix} has the learning rate {rate}, not 0.01", path=path)


def _at(path: Path, error: CheckpointError) -> CheckpointError:
    return CheckpointError(
        str(error), path=path, missing=error.missing, unexpected=error.unexpected
    )
