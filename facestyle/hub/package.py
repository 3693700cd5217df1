"""A style as a folder that others can use: weights, config, licence, card and sample pictures."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from facestyle.errors import ConfigError, OutputError
from facestyle.files import beside, write_whole
from facestyle.hub.scores import line
from facestyle.models.bases import save_encoder, write_base
from facestyle.models.checkpoints import save_tensors
from facestyle.models.generator import Generator
from facestyle.models.zoo import REST, base_sha256, is_import
from facestyle.styles import OWN_ENCODER, StyleConfig

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = [
    "SAMPLES",
    "complete",
    "copy_style",
    "draw_samples",
    "license_text",
    "write_package",
    "write_style",
]

SAMPLES = "samples/before_after.jpg"
_SEEDS = (203, 233, 263, 242)
"""People on the sample sheet: base samples who do not exist."""

_BUNDLED_BASE = """They were finetuned from a MobileStyleGAN trained on FFHQ, whose photos are under
  CC BY-NC-SA 4.0; what holds for derived weights differs from place to place. facestyle's NOTICE file names every
  weight's source."""
_OTHER_BASE = """They were finetuned from another generator than facestyle's own: base.safetensors here. What its
  authors allow holds for that file, and for the weights that were derived from it."""
_LICENSE = """# Licence of the style {name}

- The weights in this folder: **{license}**.
- The pictures they were trained on: **{data}** (source: {source}). The pictures are not part of this folder.
- {base}

Licences are named by their [SPDX identifiers](https://spdx.org/licenses/) where they have one.
"""


def write_style(
    generator: Generator, config: StyleConfig, folder: str | Path, base: Generator
) -> None:
    """Leave a style's folder that ``FaceStylizer.from_pretrained`` reads; weights in float16.

    Args:
        generator: G'.
        config: the style's; where it has a ``likeness`` or ``hair``, the caller puts its file beside.
        folder: made where it lacks.
        base: G; what training left as it is there is not stored.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder cannot be made ({error})", path=folder) from error
    rest = base.synthesis.state_dict()
    save_tensors(
        {
            name: tensor
            for name, tensor in generator.synthesis.state_dict().items()
            if name not in rest or not torch.equal(tensor, rest[name])
        },
        folder / "generator.safetensors",
        metadata={
            "format": config.format,
            "version": str(config.version),
            "style": config.name,
            "base_sha256": config.base_sha256,
            REST: "base",
        },
        dtype=torch.float16,
    )
    config.save(folder / "config.json")
    for name, share in config.beside.items():
        if not share:
            (folder / name).unlink(missing_ok=True)  # of a style that was here before


def write_package(
    stylizer: FaceStylizer,
    folder: str | Path,
    *,
    include_encoder: bool = False,
    samples: bool = True,
    repo_id: str | None = None,
    config: StyleConfig | None = None,
) -> None:
    """Write all that a repository of the style should hold; what is there of the card and samples is kept.

    So is a ``LICENSE.md``, but for one in facestyle's own words, which may be another style's.

    ``config.json``, ``generator.safetensors``, ``LICENSE.md``, ``training.json`` where its origin is known, the sample
    sheet, the card ``README.md`` (for the repository ``repo_id``, if it is known), the encoder where it is asked for or
    the style's own, and the base generator where it is the style's own. ``config`` stands in place of the style's.

    Raises:
        ConfigError: the stylizer draws with an imported generator, which is no style.
        CheckpointError: the style's own base generator is gone from where it was.
        OutputError: the folder cannot be written.
    """
    if stylizer.folder is not None and is_import(stylizer.folder):
        raise ConfigError(
            f"{stylizer.folder} is an imported generator, not a style; copy that folder to keep it elsewhere, under "
            "its own licence, or train a style from it with facestyle train --base"
        )
    folder, config = Path(folder), config or stylizer.config
    if include_encoder or config.encoder != "base":
        config = dataclasses.replace(config, encoder=OWN_ENCODER)
        save_encoder(stylizer.encoder, folder / OWN_ENCODER)
    write_base(stylizer.base, folder)
    write_style(stylizer.generator, config, folder, stylizer.base)
    origin = stylizer.folder / "training.json" if stylizer.folder else None
    if origin is not None and origin.is_file() and origin.parent.resolve() != folder.resolve():
        write_whole(origin.read_bytes(), folder / "training.json")
    licence = folder / "LICENSE.md"
    if licence.is_file() and _is_own(licence.read_text(encoding="utf-8", errors="replace")):
        write_whole(license_text(config).encode(), licence)
    complete(folder, stylizer if samples else None, repo_id=repo_id)


def complete(folder: Path, stylizer: FaceStylizer | None, *, repo_id: str | None = None) -> None:
    """Add licence, samples (by ``stylizer``, if given) and card to a style's folder, where they lack."""
    from facestyle.hub.cards import render_card

    config = StyleConfig.from_file(folder / "config.json")
    if not list(folder.glob("LICENSE*")):
        write_whole(license_text(config).encode(), folder / "LICENSE.md")
    if stylizer is not None and not (folder / "samples").is_dir():
        draw_samples(stylizer, folder / SAMPLES)
    if not (folder / "README.md").is_file():
        write_whole(render_card(folder, repo_id=repo_id).encode(), folder / "README.md")


def draw_samples(stylizer: FaceStylizer, path: str | Path) -> None:
    """A sheet of people who do not exist beside their portraits.

    Raises:
        OutputError: it cannot be written.
    """
    from facestyle.evaluation.people import draw, pil_pictures, sample_w
    from facestyle.evaluation.sheets import before_after, save_sheet

    base = stylizer.base
    w = torch.cat([sample_w(base, 1, 0.8, seed) for seed in _SEEDS])
    people = list(pil_pictures(draw(base, w, side_px=base.resolution)))
    portraits = [result.image for result in stylizer(list(people), aligned=True)]
    save_sheet(before_after(people, portraits, per_row=2, cell_px=384), path)


def copy_style(source: Path, target: Path, names: list[str]) -> None:
    """Copy files of a style's folder to a new or empty one, all or nothing.

    Raises:
        OutputError: the target holds something, or cannot be written.
    """
    is_there = os.path.isdir(target)
    partial = beside(target / "style" if is_there else target, ".part")
    try:
        if os.path.lexists(target) and not (is_there and not os.listdir(target)):
            raise OutputError("is there and not empty; name another folder", path=target)
        for name in names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, partial / name)
        if is_there:  # it stays, as somebody may be in it
            for path in sorted(partial.iterdir(), key=lambda path: path.name == "config.json"):
                path.rename(target / path.name)
        else:
            partial.rename(target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"the style cannot be copied ({error})", path=target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def license_text(config: StyleConfig) -> str:
    """What holds for the weights, for the pictures, and for what the weights grew from."""
    sources = ", ".join(map(str, config.data.get("sources") or []))
    return _LICENSE.format(
        name=config.name,
        license=line(config.license),
        data=line(config.data.get("license") or "unknown"),
        source=line(config.data.get("source") or sources or "unknown"),
        base=_BUNDLED_BASE if config.base_sha256 == base_sha256() else _OTHER_BASE,
    )


def _is_own(text: str) -> bool:
    """Whether a licence file is facestyle's from its first word to its last."""
    words = dict.fromkeys(("name", "license", "data", "source"), "\0")
    return any(
        re.fullmatch(re.escape(_LICENSE.format(**words, base=base)).replace("\0", ".+"), text)
        for base in (_BUNDLED_BASE, _OTHER_BASE)
    )
