"""Pictures for people to look at: every style on the same faces, and what the options do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from facestyle.errors import MissingDependencyError
from facestyle.evaluation.people import SAMPLE_PSI, draw, pil_pictures, sample_w
from facestyle.evaluation.sheets import before_after, contact_sheet, save_sheet
from facestyle.files import write_whole
from facestyle.inversion import QUICK_STEPS
from facestyle.models.generator import Generator
from facestyle.models.zoo import load_base_generator
from facestyle.styles import bundled_styles

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["PEOPLE", "gallery", "sample_faces", "styles_gallery"]

PEOPLE = (
    203, 233, 263, 219, 242, 298, 223, 231, 267, 205, 254, 279, 218, 248, 225, 243, 261, 274, 200, 264,
    287, 244, 299,
)  # fmt: skip
"""Seeds of 23 people who do not exist: several ages, skin tones, hair, beards, glasses, headwear and poses."""

ABREAST = 7
"""People on the overview of styles, beside the astronaut."""


def sample_faces(
    seeds: Sequence[int], *, psi: float = SAMPLE_PSI, generator: Generator | None = None
) -> list[Image.Image]:
    """Pictures of people who do not exist: samples of G, or of the generator given, in full size, one seed each."""
    generator = generator or load_base_generator()
    faces: list[Image.Image] = []
    for seed in tqdm(seeds, desc="people"):
        w = sample_w(generator, 1, psi, seed)
        faces += pil_pictures(draw(generator, w, side_px=generator.resolution))
    return faces


def styles_gallery(
    folder: str | Path,
    styles: Sequence[str] | None = None,
    *,
    people: Sequence[int] = PEOPLE,
    generator: Generator | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """The same faces in every style: the astronaut and ``people``, through the whole way a photo takes.

    Leaves ``NAME.jpg`` for every style, before beside after, and ``styles.jpg``, the first of them in all.

    Args:
        folder: where they go.
        styles: names or folders; the bundled ones when None.
        people: seeds of samples of G.
        generator: which draws them; the bundled G when None.
        device: where styles are drawn; the best there is when None.
        dtype: in which number type, see ``FaceStylizer.from_pretrained``.

    Raises:
        MissingDependencyError: scikit-image, which has the astronaut, is not installed.
        StyleNotFoundError: there is no such style.
        OutputError: the folder cannot be written.
    """
    from facestyle.stylizer import FaceStylizer

    folder = Path(folder)
    faces = sample_faces(people, generator=generator)
    rows: dict[str, list[Image.Image]] = {}
    before: list[Image.Image] = []
    for name in styles if styles is not None else bundled_styles():
        stylizer = FaceStylizer.from_pretrained(name, device=device, dtype=dtype)
        first = stylizer(_astronaut(), refine=QUICK_STEPS).faces[0]
        drawn = [
            result.image
            for result in stylizer(list(faces), aligned=True, refine=QUICK_STEPS, progress=True)
        ]
        before, after = [first.crop, *faces], [first.portrait, *drawn]
        sheet = before_after(before, after, per_row=4, cell_px=192)
        save_sheet(sheet, folder / f"{stylizer.config.name}.jpg")
        rows[stylizer.config.name] = after[: ABREAST + 1]
    overview = contact_sheet(
        [before[: ABREAST + 1], *rows.values()], cell_px=208, row_labels=["photo", *rows]
    )
    save_sheet(overview, folder / "styles.jpg")
    lines = [
        "# The styles on the same people",
        "",
        "The astronaut (public domain) and samples of the base generator, seeds "
        f"{', '.join(map(str, people))}, psi {SAMPLE_PSI:g}: encoded, with refine={QUICK_STEPS}, and drawn.",
        "",
        *(f"![{name}]({name}.jpg)" for name in ["styles", *rows]),
    ]
    write_whole(("\n".join(lines) + "\n").encode(), folder / "report.md")


def gallery(stylizer: FaceStylizer, folder: str | Path) -> None:
    """What the options do in one style: ``hero.jpg``, ``strength.jpg`` and ``astronaut.jpg``.

    Raises:
        MissingDependencyError: scikit-image, which has the astronaut, is not installed.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    faces = sample_faces(PEOPLE[:4], generator=stylizer.base)
    known = [stylizer.prepare(face, aligned=True, refine=QUICK_STEPS) for face in faces]
    after = [result.image for result in stylizer(list(known))]
    save_sheet(before_after(faces, after, cell_px=256), folder / "hero.jpg")
    shares = (0.0, 0.5, 1.0, 1.3, 1.6)
    rows = []
    for face, photo in zip(faces, known, strict=True):
        drawn = [stylizer(photo, strength=share).image for share in shares]
        kept = stylizer(photo, keep_color=1.0).image
        rows.append([face, *drawn, kept])
    titles = ["photo", *(f"strength {share:g}" for share in shares), "keep_color 1"]
    save_sheet(contact_sheet(rows, cell_px=208, titles=titles), folder / "strength.jpg")
    rows = []
    for steps in (0, QUICK_STEPS, 50):
        result = stylizer(_astronaut(), refine=steps)
        found = result.faces[0]
        rows.append([result.photo, result.image, found.crop, found.portrait])
    titles = ["photo", "pasted back", "aligned face", "portrait"]
    labels = ["as encoded", f"refine={QUICK_STEPS}", "refine=50"]
    sheet = contact_sheet(rows, cell_px=320, titles=titles, row_labels=labels)
    save_sheet(sheet, folder / "astronaut.jpg")
    names = ", ".join(map(str, PEOPLE[:4]))
    lines = [
        f"# Gallery of {stylizer.config.name}",
        "",
        f"Samples of the base generator, seeds {names}, psi {SAMPLE_PSI:g}, refine={QUICK_STEPS} unless a row says "
        "otherwise; the astronaut is in the public domain.",
        "",
        *(f"![{name}]({name}.jpg)" for name in ("hero", "strength", "astronaut")),
    ]
    write_whole(("\n".join(lines) + "\n").encode(), folder / "report.md")


def _astronaut() -> Image.Image:
    try:
        from skimage import data
    except ImportError as error:
        raise MissingDependencyError(
            "the astronaut comes with scikit-image; pip install 'facestyle[eval]'"
        ) from error
    return Image.fromarray(np.asarray(data.astronaut()))  # type: ignore[no-untyped-call]
