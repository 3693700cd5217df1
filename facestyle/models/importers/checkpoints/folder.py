"""An imported checkpoint on disk: a folder with ``config.json`` and one safetensors file for each network.

The files' headers say how their networks are built, so that each loads alone; ``config.json`` says where all came from.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facestyle.errors import CheckpointError, OutputError, memory_named
from facestyle.files import file_sha256
from facestyle.models.checkpoints import (
    check_half_range,
    read_metadata,
    read_tensors,
    save_tensors,
)
from facestyle.models.generator import same_w, sample_z
from facestyle.models.importers.checkpoints.detect import open_checkpoint
from facestyle.models.importers.checkpoints.network import Part, fitted, named_errors, part_of
from facestyle.models.mobile import MobileMapping
from facestyle.models.psp_encoder import PspEncoder, first_row
from facestyle.models.stylegan2_generator import StyleGAN2Mapping
from facestyle.runtime import dtype_name

__all__ = ["CONFIG_FILE", "FORMAT", "import_checkpoint"]

FORMAT = "facestyle-import"
CONFIG_FILE = "config.json"
_VERSION = 1


@memory_named("importing the checkpoint")
def import_checkpoint(file: str | Path, out: str | Path, *, half: bool = False) -> dict[str, Any]:
    """Convert a public checkpoint into a folder that facestyle loads; what ``config.json`` says.

    Nothing in the file is executed. The folder appears once it is whole; a folder of an earlier import is added to, as
    DualStyleGAN's parts come in several files. Where there is a generator already, a pSp checkpoint's own is left out;
    the two must have one W, for the encoder's codes to fit, as a generator has that was finetuned from the other, and
    as many rows. Of an e4e encoder with other rows its code of W is kept, which fits.

    Args:
        file: see :func:`open_checkpoint`.
        out: the folder, new or of earlier imports.
        half: store float16, half the size.

    Returns:
        Kind, origin, networks, and by name what was left out and why, JSON-able.

    Raises:
        CheckpointError: the file is absent, damaged, dangerous, of an unknown kind, or its encoder is of another W or
            other rows than the generator in the folder; nothing is written.
        OutputError: the folder is there and holds something else, or cannot be written.
        DeviceMemoryError: memory ran out.
    """
    file, out = Path(file), Path(out)
    before = _earlier(out, file)
    found = open_checkpoint(file)
    parts = {part.name: part for part in found.parts}
    left_out = dict(found.left_out)
    if "encoder" in parts and "generator" in before and "generator" in parts:
        _check_same_w(parts.pop("generator"), before["generator"], file, out)
        left_out["generator"] = f"{out} holds one of the same W already"
    if "encoder" in parts and "generator" in before:
        parts["encoder"] = _fitting(parts["encoder"], before["generator"], file, out)
    if taken := sorted(parts.keys() & before.keys()):
        raise OutputError(
            f"holds {taken[0]}.safetensors already; import into another folder", path=out
        )
    origin = {"file": file.name, "kind": found.kind, **_identity(file)}
    dtype = torch.float16 if half else torch.float32
    for part in parts.values():
        if half:
            check_half_range(part.tensors)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name[:100]}.") as folder:
            made = Path(folder) / "made"
            described = {name: _write(part, made, origin, dtype) for name, part in parts.items()}
            config = {"format": FORMAT, "version": _VERSION, "parts": before | described}
            (made / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            _put(made, out)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot be written ({error})", path=out) from error
    return {
        "kind": found.kind,
        "folder": str(out),
        "origin": origin,
        "parts": described,
        "left_out": left_out,
    }


def _check_same_w(decoder: Part, known: dict[str, Any], file: Path, out: Path) -> None:
    """Whether a decoder has the W of the generator in the folder: equal z become nearly equal w.

    Args:
        decoder: that the encoder was trained with.
        known: what ``config.json`` says of the generator.
        file: the encoder's.
        out: the folder.

    Raises:
        CheckpointError: it has another, or the generator is damaged.
    """
    with named_errors(out / CONFIG_FILE, "import into another folder"):
        path = out / known["file"]
        theirs = _mapping(known["architecture"], known["config"], read_tensors(path), path)
    own = _mapping(decoder.architecture, decoder.config, decoder.tensors, file)
    if own.w_avg.shape == theirs.w_avg.shape:
        z = sample_z(64, 0, len(own.w_avg))
        if same_w(own(z), theirs(z)):
            return
    raise CheckpointError(
        f"its encoder makes codes of another W than that of {path}: their mapping networks differ; import it into a "
        "folder of its own, where its decoder goes with it",
        path=file,
    )


def _fitting(encoder: Part, known: dict[str, Any], file: Path, out: Path) -> Part:
    """The encoder, if its codes have the rows of the generator in the folder; of e4e's else the part that has one.

    Args:
        encoder: to be imported.
        known: what ``config.json`` says of the generator.
        file: the encoder's.
        out: the folder.

    Raises:
        CheckpointError: its rows do not fit.
    """
    with named_errors(out / CONFIG_FILE, "import into another folder"):
        needed = _num_ws(known["architecture"], known["config"])
    rows = encoder.config["rows"]
    if rows == needed:
        return encoder
    if not encoder.config["deltas"]:
        raise CheckpointError(
            f"its encoder makes codes of {rows} rows, and the generator in {out} takes {needed}; import it into a "
            "folder of its own, or to a generator of its resolution",
            path=file,
        )
    config, tensors = first_row(encoder.config, encoder.tensors)
    net = fitted(lambda: PspEncoder(**config), tensors, file)
    return part_of("encoder", net, encoder.architecture, space=net.space, rows=net.rows)


def _num_ws(architecture: str, config: dict[str, Any]) -> int:
    """Rows of w_plus of a generator."""
    if architecture == "mobile":
        return 2 * len(config["channels"])
    sizes = config["generator"] if architecture == "dualstylegan" else config
    return 2 * round(math.log2(sizes["resolution"])) - 2


def _mapping(
    architecture: str, config: dict[str, Any], tensors: dict[str, Tensor], path: Path
) -> MobileMapping | StyleGAN2Mapping:
    """The mapping network of a generator."""
    prefix = "mapping."
    if architecture == "dualstylegan":
        config, prefix = config["generator"], "generator.mapping."
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    sizes = config["w_dim"], config["mapping_depth"]
    if architecture == "mobile":
        return fitted(lambda: MobileMapping(*sizes), own, path)
    return fitted(lambda: StyleGAN2Mapping(*sizes), own, path)


def _write(part: Part, folder: Path, origin: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What ``config.json`` says of the part, once its file is written."""
    name = f"{part.name}.safetensors"
    metadata = {
        "format": FORMAT,
        "architecture": part.architecture,
        "config": part.config,
        "origin": origin,
    }
    save_tensors(part.tensors, folder / name, metadata=metadata, dtype=dtype)
    return {
        "file": name,
        "architecture": part.architecture,
        "config": part.config,
        "dtype": dtype_name(dtype),
        **part.about,
        "origin": origin,
    }


def _put(made: Path, out: Path) -> None:
    """Move the finished files to their place, ``config.json`` last."""
    if not out.exists():
        os.rename(made, out)
        return
    for path in sorted(made.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        shutil.move(path, out / path.name)


def _earlier(out: Path, file: Path) -> dict[str, Any]:
    """Parts that are in the folder by earlier imports; none where one of the same file broke off.

    Raises:
        OutputError: it holds something else.
    """
    if not out.exists():
        return {}
    is_begun = out.is_dir() and not (out / CONFIG_FILE).exists()
    if is_begun and all(_is_of(file, path) for path in out.iterdir()):
        return {}
    try:
        config = json.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))
        if config["format"] == FORMAT and isinstance(parts := config["parts"], dict):
            return parts
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise OutputError("is there and holds no earlier import; name a new folder", path=out)


def _is_of(file: Path, path: Path) -> bool:
    """Whether ``path`` was made of the file, and can be made anew."""
    try:
        origin = json.loads(read_metadata(path)["origin"])
        return bool(origin["sha256"] == _identity(file)["sha256"])
    except (CheckpointError, OSError, ValueError, KeyError, TypeError):
        return False


def _identity(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
