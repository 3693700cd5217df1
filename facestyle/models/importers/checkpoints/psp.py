"""Encoders of the pSp family: pSp, e4e, and DualStyleGAN's into Z+."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facestyle.errors import CheckpointError
from facestyle.models.encoder import Space
from facestyle.models.importers.checkpoints.network import fitted, tensors_in
from facestyle.models.importers.checkpoints.safe_pickle import Record
from facestyle.models.importers.checkpoints.stored import StoredTensor
from facestyle.models.psp_encoder import PspEncoder

__all__ = ["options_in", "psp_encoder"]

_log = logging.getLogger(__name__)

_PARTS = {"encoder", "decoder", "face_pool", "latent_avg"}


def psp_encoder(content: Mapping[str, Any], path: Path) -> PspEncoder:
    """The encoder of a checkpoint with ``state_dict``, ``latent_avg`` and ``opts``.

    Its codes start from ``latent_avg`` where the options say so, and are then codes of W+. Encoders that start from
    nothing are taken for DualStyleGAN's, whose codes are of Z+.

    Raises:
        CheckpointError: it holds another kind of encoder, or does not say which.
    """
    state, options = content["state_dict"], options_in(content)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError("has a damaged state_dict", path=path)
    parts = {name.partition(".")[0] for name in state}
    if "encoder" not in parts or parts - _PARTS:
        raise CheckpointError(f"holds no pSp encoder, but {sorted(parts)[:5]}", path=path)
    own = {name: value for name, value in state.items() if name.startswith("encoder.")}
    tensors = tensors_in(own, path, "encoder.")
    config = _config_of(tensors, path)
    shape = (config["rows"], config["code_dim"])
    tensors["start"] = torch.zeros(shape)
    config["deltas"] = options.get("encoder_type") == "Encoder4Editing"
    average = content.get("latent_avg")
    if average is not None and "start_from_latent_avg" not in options:
        raise CheckpointError(
            "holds latent_avg and no opts that say what it is for, so that pSp's encoder cannot be told from e4e's; "
            "add to it opts = {'encoder_type': 'GradualStyleEncoder' or 'Encoder4Editing', "
            "'start_from_latent_avg': True} with torch, or take the published file",
            path=path,
        )
    starts = bool(options.get("start_from_latent_avg"))
    if config["deltas"] and not starts:
        raise CheckpointError(
            "says that its encoder is e4e's and that its codes do not start from latent_avg, from which e4e's all do; "
            "take the published file",
            path=path,
        )
    space: Space = "z_plus"
    if starts:
        if not isinstance(average, StoredTensor):
            raise CheckpointError(
                "says that its codes start from latent_avg, and holds none", path=path
            )
        space = "w_plus"
        tensors["start"] = average.load().expand(shape).contiguous()
        _log.info("%s: its codes start from the latent_avg it holds", path)
    config["space"] = space
    return fitted(lambda: PspEncoder(**config), tensors, path)


def options_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """The ``opts`` of a checkpoint, which may be a dictionary or a namespace; empty if there are none."""
    options = content.get("opts")
    if isinstance(options, Record):
        options = options.state
    return options if isinstance(options, dict) else {}


def _config_of(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Arguments of the encoder, read off its tensors."""
    try:
        widths = [len(tensors["input_layer.0.weight"])]
        units: list[int] = [0]
        unit = 0
        while (name := f"body.{unit}.res_layer.1.weight") in tensors:
            if len(tensors[name]) != widths[-1]:
                widths.append(len(tensors[name]))
                units.append(0)
            units[-1] += 1
            unit += 1
        rows = sum(name.endswith(".linear.weight") for name in tensors)
        convs = sum(name.startswith("styles.0.convs.") for name in tensors) // 2
        if rows > 18 or convs > 6:
            raise CheckpointError(
                f"has {rows} heads of {convs} layers; 18 of 6 are the most facestyle builds",
                path=path,
            )
        return {
            "rows": rows, "code_dim": len(tensors["styles.0.linear.weight"]),
            "input_px": 16 << convs, "widths": widths, "units": units,
        }  # fmt: skip
    except KeyError as error:
        raise CheckpointError(
            f"holds no pSp encoder: {error} is missing", path=path, missing=[str(error.args[0])]
        ) from error
