"""Sheets of many portraits from one photo, like the paper's Figures 11 and 12: random codes, and references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from tqdm import tqdm

from facestyle.baselines.ui2i import Ui2i
from facestyle.evaluation.gallery import sample_faces
from facestyle.evaluation.people import SAMPLE_PSI, draw, pil_pictures, sample_w
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.files import write_whole
from facestyle.image import load_image, to_pil, to_tensor
from facestyle.inversion import QUICK_STEPS

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["MIXING_LEVELS", "multimodal_gallery", "reference_gallery"]

MIXING_LEVELS = (3, 6, 9, 12)
"""From the boldest to the most careful (paper section 4.4)."""

_PEOPLE = (203, 263, 242)
_REFERENCES = (233, 298, 205)


def multimodal_gallery(
    stylizer: FaceStylizer,
    folder: str | Path,
    *,
    people: Sequence[int] = _PEOPLE,
    count: int = 6,
    levels: Sequence[int] = MIXING_LEVELS,
    ui2i: Ui2i | None = None,
) -> Path:
    """Random styles of a few people, a row for each mixing level: ``STYLE.jpg`` and ``STYLE.md``; the sheet's path.

    Args:
        stylizer: of the style.
        folder: where they go.
        people: seeds of samples of G.
        count: portraits a level; those of one column have the same seed.
        levels: see ``FaceStylizer.variations``.
        ui2i: loaded with the style, for a first row of its results.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows, labels = [], []
    for face in sample_faces(people, generator=stylizer.base):
        photo = stylizer.prepare(face, aligned=True, refine=QUICK_STEPS)
        plain = stylizer(photo).image
        if ui2i is not None:
            rows.append([face, plain, *_random_styles(ui2i, face, count)])
            labels.append("UI2I-style")
        for level in tqdm(levels, desc="levels"):
            found = stylizer.variations(photo, count, mixing_level=level).results
            rows.append([face, plain, *(made.image for made in found)])
            labels.append(f"level {level}")
    titles = ["photo", "general", *(f"seed {i}" for i in range(count))]
    text = (
        "Rows: from which layer on random codes are followed; a lower level changes more. Columns: seeds. People: "
        f"samples of the base generator, seeds {', '.join(map(str, people))}, psi {SAMPLE_PSI:g}, "
        f"refine={QUICK_STEPS}."
    )
    return _saved(stylizer, folder, "Many portraits of one photo", text, rows, titles, labels)


def reference_gallery(
    stylizer: FaceStylizer,
    folder: str | Path,
    *,
    references: Sequence[str | Path] = (),
    people: Sequence[int] = _PEOPLE,
    levels: Sequence[int] = MIXING_LEVELS[:3],
) -> Path:
    """People like references, a column for each mixing level: ``STYLE.jpg`` and ``STYLE.md``; the sheet's path.

    Args:
        stylizer: of the style.
        folder: where they go.
        references: aligned pictures; without any, other people's portraits in this style.
        people: seeds of samples of G.
        levels: see ``FaceStylizer.with_reference``.

    Raises:
        ImageError: a reference cannot be read.
        OutputError: the folder cannot be written.
    """
    pictures: list[Image.Image]
    if references:
        pictures = [load_image(path) for path in references]
        whence = "pictures of the style"
    else:
        w = torch.cat([sample_w(stylizer.base, 1, 1.0, seed) for seed in _REFERENCES])
        side_px = stylizer.generator.resolution
        pictures = list(pil_pictures(draw(stylizer.generator, w, side_px=side_px)))
        whence = f"portraits in the style, of seeds {', '.join(map(str, _REFERENCES))}, psi 1"
    codes = [stylizer.encode_reference(picture, aligned=True) for picture in pictures]
    rows = []
    for face in sample_faces(people, generator=stylizer.base):
        photo = stylizer.prepare(face, aligned=True, refine=QUICK_STEPS)
        plain = stylizer(photo).image
        for picture, code in zip(pictures, codes, strict=True):
            drawn = [
                stylizer.with_reference(photo, code, mixing_level=level).image for level in levels
            ]
            rows.append([face, plain, picture, *drawn])
    titles = ["photo", "general", "reference", *(f"level {level}" for level in levels)]
    text = (
        "Columns: from which layer on the reference is followed; a lower level takes more of it. References: "
        f"{whence}. People: samples of the base generator, seeds {', '.join(map(str, people))}, "
        f"psi {SAMPLE_PSI:g}, refine={QUICK_STEPS}."
    )
    return _saved(stylizer, folder, "Portraits like a reference", text, rows, titles, None)


def _random_styles(ui2i: Ui2i, face: Image.Image, count: int) -> list[Image.Image]:
    codes = ui2i.project(to_tensor(face), progress=True)
    return [to_pil(ui2i.draw(codes, first=i)) for i in range(count)]


def _saved(
    stylizer: FaceStylizer,
    folder: str | Path,
    title: str,
    text: str,
    rows: Sequence[Sequence[Image.Image]],
    titles: Sequence[str],
    labels: Sequence[str] | None,
) -> Path:
    style, folder = stylizer.config.name, Path(folder)
    sheet = contact_sheet(rows, cell_px=160, titles=titles, row_labels=labels)
    save_sheet(sheet, folder / f"{style}.jpg")
    lines = [f"# {title}: {style}", "", text, "", f"![{style}]({style}.jpg)"]
    write_whole(("\n".join(lines) + "\n").encode(), folder / f"{style}.md")
    return folder / f"{style}.jpg"
