"""An imported checkpoint on disk: a folder with ``config.json`` and one safetensors file for each network.

The files' headers say how their networks are built, so that each loads alone; ``config.json`` says where all came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from facestyle.errors import OutputError
from facestyle.models.checkpoints import check_half_range, save_tensors
from facestyle.models.importers.checkpoints.detect import open_checkpoint
from facestyle.models.importers.checkpoints.network import Part

__all__ = ["CONFIG_FILE", "FORMAT", "import_checkpoint"]

FORMAT = "facestyle-import"
CONFIG_FILE = "config.json"
_VERSION = 1


def import_checkpoint(file: str | Path, out: str | Path, *, half: bool = False) -> dict[str, Any]:
    """Convert a public checkpoint into a folder that facestyle loads; what ``config.json`` says.

    Nothing in the file is executed. The folder appears once it is whole; a folder of an earlier import is added to, as
    DualStyleGAN's parts come in several files: a pSp checkpoint's generator is left out where there is one already.

    Args:
        file: see :func:`open_checkpoint`.
        out: the folder, new or of earlier imports.
        half: store float16, half the size.

    Returns:
        Kind, origin and networks, JSON-able.

    Raises:
        CheckpointError: the file is absent, damaged, dangerous, or of an unknown kind; nothing is written.
        OutputError: the folder is there and holds something else, or cannot be written.
    """
    file, out = Path(file), Path(out)
    before = _earlier(out)
    found = open_checkpoint(file)
    parts = {part.name: part for part in found.parts}
    if "encoder" in parts and "generator" in before:
        parts.pop("generator", None)
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
    return {"kind": found.kind, "folder": str(out), "origin": origin, "parts": described}


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
        "dtype": str(dtype).removeprefix("torch."),
        **part.about,
        "origin": origin,
    }


def _put(made: Path, out: Path) -> None:
    """Move the finished files to their place, ``config.json`` last."""
    if not out.exists():
        os.rename(made, out)
        out.chmod(0o755)
        return
    for path in sorted(made.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        shutil.move(path, out / path.name)


def _earlier(out: Path) -> dict[str, Any]:
    """Parts that are in the folder by earlier imports.

    Raises:
        OutputError: it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    try:
        config = json.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))
        if config["format"] == FORMAT and isinstance(parts := config["parts"], dict):
            return parts
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise OutputError("is there and holds no earlier import; name a new folder", path=out)


def _identity(file: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}
