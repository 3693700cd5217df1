"""Pictures that come with the demo; ``python -m space.examples`` makes those that are not there.

::

    examples/people/       photos to try: samples of the base generator, people who do not exist
    examples/styles/       one of them in every style
    examples/opening/      what the demo opens with: before and after
    examples/references/   portraits in every style, and their codes
    examples/comparisons/  a person by every method that runs without a GPU, and what each took

Comparisons need the trained baselines: ``python -m space.examples --runs FOLDER`` with ``FOLDER/METHOD/STYLE`` as
``facestyle baseline train`` leaves them. ``--ours`` draws our own portraits in them anew, where a style has changed.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from facestyle import FaceStylizer, ReferenceCode, list_styles
from facestyle.evaluation.gallery import sample_faces
from facestyle.evaluation.people import draw, pil_pictures, sample_w
from facestyle.evaluation.photo_comparison import compare_photo, portraits_sheet
from facestyle.files import write_whole
from facestyle.image import load_image
from facestyle.inversion import QUICK_STEPS
from facestyle.training.state import write_json

__all__ = [
    "OPENING_STYLE",
    "comparison",
    "example_code",
    "opening",
    "people",
    "references",
    "references_folder",
    "renew_ours",
    "style_thumbnail",
    "with_renewed",
]

OPENING_STYLE = "cartoon"

_FOLDER = Path(__file__).resolve().parent / "examples"
_PEOPLE = (298, 263, 233, 242)
_IN_EVERY_STYLE = 242
_COMPARED = 298
_GROUP = (254, 225, 264)
_REFERENCES = (233, 298, 205)
_PHOTO_PX = 768
_GROUP_PX = 512
_SMALL_PX = 256
_COMPARED_PX = 512
_OURS = ("ours", "ours-ref")


def people() -> list[Path]:
    """Photos to try: single people first, a group last."""
    return [*(_person(seed) for seed in _PEOPLE), _group()]


def style_thumbnail(style: str) -> Path | None:
    """A person in the style; None for a style that is not bundled."""
    path = _FOLDER / "styles" / f"{style}.jpg"
    return path if path.is_file() else None


def opening() -> tuple[Path, Path]:
    """The first of `people` cut out, and her portrait in `OPENING_STYLE`."""
    folder = _FOLDER / "opening"
    return folder / "before.jpg", folder / "after.jpg"


def references(style: str) -> list[Path]:
    """Portraits in the style to follow, already aligned; none for a style that is not bundled."""
    return sorted(references_folder(style).glob("*.jpg"))


def references_folder(style: str) -> Path:
    """Folder of `references`."""
    return _FOLDER / "references" / style


def example_code(reference: Path) -> ReferenceCode:
    """The code of one of `references`.

    Raises:
        CheckpointError: its file is damaged.
    """
    return ReferenceCode.load(reference.with_suffix(".safetensors"))


def comparison(style: str) -> Path | None:
    """Folder of a comparison in the style, as `compare_photo` leaves it but in JPEG; None without."""
    folder = _FOLDER / "comparisons" / style
    return folder if (folder / "comparison.json").is_file() else None


def make(runs: Path | None = None) -> None:
    """Draw and encode what is not there yet; a quarter of an hour on two cores.

    Args:
        runs: trained baselines, ``METHOD/STYLE``; comparisons of the styles that have some are made too.

    Raises:
        OutputError: the folder cannot be written.
    """
    for seed in _PEOPLE:
        if not _person(seed).is_file():
            _save(*sample_faces([seed]), _person(seed), _PHOTO_PX)
    if not _group().is_file():
        strip = Image.new("RGB", (_GROUP_PX * len(_GROUP), _GROUP_PX))
        for i, face in enumerate(sample_faces(_GROUP)):
            strip.paste(_resized(face, _GROUP_PX), (i * _GROUP_PX, 0))
        _save(strip, _group())
    for style in tqdm(list_styles(), desc="styles"):
        stylizer = FaceStylizer.from_pretrained(style)
        _make_portraits(stylizer)
        for i, seed in enumerate(_REFERENCES):
            _make_reference(stylizer, seed, references_folder(style) / f"{i}.jpg")
        if runs is not None and any(runs.glob(f"*/{style}")) and comparison(style) is None:
            _make_comparison(stylizer, runs)


def _make_portraits(stylizer: FaceStylizer) -> None:
    """The thumbnail of a style, and what the demo opens with."""
    style = stylizer.config.name
    thumbnail = _FOLDER / "styles" / f"{style}.jpg"
    is_opening = style == OPENING_STYLE
    if thumbnail.is_file() and (not is_opening or all(path.is_file() for path in opening())):
        return
    (face,) = stylizer(_person(_IN_EVERY_STYLE), refine=QUICK_STEPS).faces
    _save(face.portrait, thumbnail, _SMALL_PX)
    if is_opening:
        (face,) = stylizer(_person(_PEOPLE[0]), refine=QUICK_STEPS).faces
        for path, image in zip(opening(), (face.crop, face.portrait), strict=True):
            _save(image, path, _PHOTO_PX)


def _make_reference(stylizer: FaceStylizer, seed: int, path: Path) -> None:
    """A portrait of the style, and its code."""
    if path.with_suffix(".safetensors").is_file():
        return
    w = sample_w(stylizer.base, 1, 1.0, seed)
    (picture,) = pil_pictures(draw(stylizer.generator, w, side_px=stylizer.generator.resolution))
    _save(picture, path, _SMALL_PX)
    code = stylizer.encode_reference(path, aligned=True, progress=True)
    code.save(path.with_suffix(".safetensors"))


def _make_comparison(stylizer: FaceStylizer, runs: Path) -> None:
    """A person by every method, with pictures small enough for a page."""
    style = stylizer.config.name
    target = _FOLDER / "comparisons" / style
    with tempfile.TemporaryDirectory() as made:
        report = compare_photo(
            _person(_COMPARED), made, style=style, base=stylizer.base, runs=runs,
            pictures=references_folder(style),
        )  # fmt: skip
        _keep_pictures(report["methods"], Path(made), target)
        _save(load_image(Path(made) / "photo.png"), target / "photo.jpg", _COMPARED_PX)
        _save(load_image(Path(made) / "comparison.png"), target / "comparison.jpg")
    write_json(target / "comparison.json", report)


def renew_ours(style: str) -> None:
    """Draw and measure ours anew in a comparison whose other methods stay as they are.

    Rows of ours then have a "machine" and a "date" of their own.

    Raises:
        OutputError: the folder cannot be written.
    """
    target = _FOLDER / "comparisons" / style
    path = target / "comparison.json"
    report = json.loads(path.read_text("utf-8"))
    base = FaceStylizer.from_pretrained(style).base
    with tempfile.TemporaryDirectory() as made:
        renewed = compare_photo(
            _person(_COMPARED), made, style=style, base=base,
            pictures=references_folder(style), methods=_OURS,
        )  # fmt: skip
        _keep_pictures(renewed["methods"], Path(made), target)
    report["methods"] = with_renewed(report["methods"], renewed)
    rows = [row for row in report["methods"] if "picture" in row]
    portraits = {row["method"]: load_image(target / row["picture"]) for row in rows}
    sheet = portraits_sheet(load_image(target / "photo.jpg"), report["methods"], portraits)
    _save(sheet, target / "comparison.jpg")
    write_json(path, report)


def _keep_pictures(rows: list[dict[str, Any]], made: Path, target: Path) -> None:
    """Keep the methods' pictures, small, and their new names."""
    for row in rows:
        if "picture" in row:
            picture = made / row["picture"]
            row["picture"] = picture.with_suffix(".jpg").name
            _save(load_image(picture), target / row["picture"], _COMPARED_PX)


def with_renewed(rows: list[dict[str, Any]], renewed: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a comparison with those of a newer one in their places, each with its machine and date."""
    measured = {key: renewed[key] for key in ("machine", "date")}
    newer = {row["method"]: row | measured for row in renewed["methods"]}
    return [newer.get(row["method"], row) for row in rows]


def _person(seed: int) -> Path:
    return _FOLDER / "people" / f"person_{seed}.jpg"


def _group() -> Path:
    return _FOLDER / "people" / "three_people.jpg"


def _resized(image: Image.Image, side_px: int) -> Image.Image:
    return image.resize((side_px, side_px), Image.Resampling.LANCZOS)


def _save(image: Image.Image, path: Path, side_px: int | None = None) -> None:
    """A JPEG of good quality."""
    shown = image if side_px is None else _resized(image, side_px)
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=90, optimize=True)
    write_whole(buffer.getbuffer(), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the demo's pictures that are not there yet.")
    parser.add_argument("--runs", type=Path, help="trained baselines, METHOD/STYLE")
    parser.add_argument(
        "--ours", action="store_true", help="ours anew in every comparison there is"
    )
    args = parser.parse_args()
    make(args.runs)
    if args.ours:
        for name in list_styles():
            if comparison(name) is not None:
                renew_ours(name)
