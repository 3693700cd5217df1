"""Which checkpoint a file is, and the networks in it under facestyle's names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facestyle.errors import CheckpointError
from facestyle.models.importers.checkpoints.containers import read_checkpoint
from facestyle.models.importers.checkpoints.mobile import mobile_generator
from facestyle.models.importers.checkpoints.network import (
    Part,
    named_errors,
    part_of,
    tensors_in,
)
from facestyle.models.importers.checkpoints.psp import options_in, psp_encoder
from facestyle.models.importers.checkpoints.safe_pickle import Record
from facestyle.models.importers.checkpoints.stored import StoredArray
from facestyle.models.importers.checkpoints.stylegan2 import (
    mean_of_w,
    nvidia_clamp,
    nvidia_discriminator,
    nvidia_generator,
    nvidia_state,
    rosinality_discriminator,
    rosinality_generator,
)

__all__ = ["Checkpoint", "open_checkpoint"]

_KNOWN = (
    "facestyle imports StyleGAN2 of NVIDIA's PyTorch code (.pkl) and rosinality's (.pt), pSp and e4e (.pt), "
    "DualStyleGAN's generator (.pt) and codes (.npy), and MobileStyleGAN (.ckpt)"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was found in a file.

    Attributes:
        kind: "nvidia-stylegan2", "rosinality-stylegan2", "psp", "e4e", "dualstylegan", "dualstylegan-codes" or
            "mobilestylegan".
        parts: its networks.
        left_out: by name, those that cannot be read and that nothing needs; why.
    """

    kind: str
    parts: list[Part]
    left_out: dict[str, str] = field(default_factory=dict)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """The networks of a public checkpoint; its kind, sizes and depths are read off what it holds.

    Nothing in the file is executed.

    Raises:
        CheckpointError: the file is absent, damaged, dangerous, of an unknown kind, or its tensors do not fit.
    """
    path = Path(path)
    content = read_checkpoint(path)
    with named_errors(path, _KNOWN):
        return _recognized(content, path)


def _recognized(content: Any, path: Path) -> Checkpoint:
    if isinstance(content, Record):
        content = {content.kind[:1]: content}
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"holds a {type(content).__name__}, no networks; {_KNOWN}", path=path)
    if any(isinstance(content.get(key), Record) for key in ("G_ema", "G", "D")):
        return _nvidia(content, path)
    if isinstance(state := content.get("g_ema", content.get("g")), dict):
        if any(str(name).startswith("generator.") for name in state):
            return _dualstylegan(content, path)
        return _rosinality(content, path)
    if isinstance(state := content.get("state_dict"), dict):
        parts = {str(name).partition(".")[0] for name in state}
        if "student" in parts:
            return Checkpoint("mobilestylegan", [mobile_generator(state, path)])
        if "encoder" in parts:
            return _psp(content, path)
    if all(isinstance(value, StoredArray) for value in content.values()):
        return _codes(content, path)
    if "style.1.weight" in content:
        return _rosinality({"g_ema": content}, path)
    if "mapping.fc0.weight" in content:
        state = tensors_in(content, path)
        return Checkpoint("nvidia-stylegan2", [nvidia_generator(state, path)])
    names = sorted(str(name)[:60] for name in content)[:5]
    raise CheckpointError(f"is of no known kind, holding {names}; {_KNOWN}", path=path)


def _nvidia(content: dict[str, Any], path: Path) -> Checkpoint:
    parts = []
    generator = content.get("G_ema") or content.get("G")
    if isinstance(generator, Record):
        state = nvidia_state(generator, path)
        clamp = nvidia_clamp(generator, path)
        parts.append(nvidia_generator(state, path, conv_clamp=clamp))
    left_out: dict[str, str] = {}
    if isinstance(critic := content.get("D"), Record):
        with _beside(parts, "discriminator", left_out, path):
            parts.append(nvidia_discriminator(nvidia_state(critic, path), path))
    return Checkpoint("nvidia-stylegan2", parts, left_out)


def _rosinality(content: dict[str, Any], path: Path) -> Checkpoint:
    state = tensors_in(content.get("g_ema", content.get("g")), path)
    w_avg = mean_of_w(content.get("latent_avg"))
    parts = [rosinality_generator(state, path, w_avg=w_avg)]
    left_out: dict[str, str] = {}
    if "d" in content:
        with _beside(parts, "discriminator", left_out, path):
            parts.append(rosinality_discriminator(tensors_in(content["d"], path), path))
    return Checkpoint("rosinality-stylegan2", parts, left_out)


@contextmanager
def _beside(parts: list[Part], name: str, left_out: dict[str, str], path: Path) -> Iterator[None]:
    """Context in which a part is read that the others do without: ``left_out`` says why it could not be.

    Raises:
        CheckpointError: it could not, and there are no others.
    """
    try:
        with named_errors(path, _KNOWN):
            yield
    except CheckpointError as error:
        if not parts:
            raise
        left_out[name] = str(error).removeprefix(f"{path}: ")


def _psp(content: dict[str, Any], path: Path) -> Checkpoint:
    encoder = psp_encoder(content, path)
    parts = [part_of("encoder", encoder, "psp", space=encoder.space, rows=encoder.rows)]
    state = content["state_dict"]
    decoder = {name: value for name, value in state.items() if name.startswith("decoder.")}
    if decoder:
        tensors = tensors_in(decoder, path, "decoder.")
        w_avg = mean_of_w(content.get("latent_avg"))
        parts.append(rosinality_generator(tensors, path, w_avg=w_avg))
    is_e4e = options_in(content).get("encoder_type") == "Encoder4Editing"
    return Checkpoint("e4e" if is_e4e else "psp", parts)


def _dualstylegan(content: dict[str, Any], path: Path) -> Checkpoint:
    from facestyle.baselines.dualstylegan import public_generator

    if "g_ema" not in content:
        content = {**content, "g_ema": content["g"]}
    net = public_generator(content, path)
    part = part_of("generator", net, "dualstylegan", resolution=net.generator.resolution)
    return Checkpoint("dualstylegan", [part])


def _codes(content: dict[str, Any], path: Path) -> Checkpoint:
    from facestyle.baselines.dualstylegan import public_codes

    codes = public_codes(content, path)
    rows, width = next(iter(codes.values())).shape
    about = {"codes": len(codes), "rows": rows, "code_dim": width}
    part = Part(name="exemplars", architecture="codes", config={}, tensors=codes, about=about)
    return Checkpoint("dualstylegan-codes", [part])
