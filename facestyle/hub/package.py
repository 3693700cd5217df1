"""Write a style as a folder: ``config.json`` and ``generator.safetensors``."""

from __future__ import annotations

from pathlib import Path

import torch

from facestyle.errors import OutputError
from facestyle.models.checkpoints import save_tensors
from facestyle.models.generator import Generator
from facestyle.styles import StyleConfig

__all__ = ["write_style"]


def write_style(generator: Generator, config: StyleConfig, folder: str | Path) -> None:
    """Leave a style's folder that ``FaceStylizer.from_pretrained`` reads; weights in float16.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder cannot be made ({error})", path=folder) from error
    save_tensors(
        generator.synthesis.state_dict(),
        folder / "generator.safetensors",
        metadata={
            "format": "facestyle-style",
            "version": str(config.version),
            "style": config.name,
            "base_sha256": config.base_sha256,
        },
        dtype=torch.float16,
    )
    config.save(folder / "config.json")
