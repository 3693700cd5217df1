"""From a checked style set to what training reads: a folder of aligned PNG pictures, and a sheet to look at."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from facestyle.errors import ConfigError, DatasetError, ImageError, OutputError
from facestyle.evaluation.sheets import contact_sheet
from facestyle.faces.align import align, quad_side_px
from facestyle.image import load_image, save_png
from facestyle.picture_files import iter_picture_files
from facestyle.training.folder_report import Aligned, CheckedPicture, FolderReport
from facestyle.training.state import write_json

__all__ = ["folder_sheet", "plain_stem", "prepare_pictures", "recall_report"]

_MANIFEST = "manifest.json"
_FORMAT = 1  # goes up when a check or a cut comes out differently

_GREEN, _RED, _GREY, _INK = (40, 160, 70), (205, 45, 45), (225, 225, 225), (30, 30, 30)


def prepare_pictures(
    report: FolderReport, folder: str | Path, *, side_px: int = 512, progress: bool = True
) -> Path:
    """Cut the used pictures out and write them; the folder, for `facestyle.training.data.PictureSet`.

    Files are numbered in the report's order. A picture smaller than ``side_px`` is not enlarged, and a square used
    whole keeps its pixels. Each file is written whole or not at all; a run that was killed goes on where it was, and
    with nothing to do nothing is written. ``manifest.json`` holds the report, and where each file comes from.

    Args:
        report: from `facestyle.training.folder.check_folder`.
        folder: new, empty, or prepared before; files of an earlier set are replaced.
        side_px: largest side of a picture.
        progress: show a progress bar.

    Raises:
        OutputError: the folder cannot be written, holds other files, or is one of the sources.
        DatasetError: the pictures are no longer those that were checked.
        ConfigError: ``side_px`` is too small.
    """
    if side_px < report.min_side_px:
        raise ConfigError(f"side_px must be {report.min_side_px} or more, got {side_px}")
    folder = Path(folder)
    _check_apart(folder, report.sources)
    before = _read_manifest(folder)
    files = {
        _file_name(position, picture.name): _origin(picture, side_px)
        for position, picture in enumerate(report.pictures)
        if picture.is_used
    }
    content = {"format": _FORMAT, "files": files, "report": report.as_dict(), "is_complete": True}
    manifest = json.loads(json.dumps(content))  # tuples become lists, as in what was read
    old = before["files"] if before.get("format") == _FORMAT else {}
    ours = {name for name in before.get("files", {}) if re.fullmatch(r"\w[\w-]*\.png", name)}
    there = {name for name in ours if (folder / name).is_file()}
    valid = {name for name in there if name in files and old.get(name) == manifest["files"][name]}
    if before == manifest and len(valid) == len(files):
        return folder
    wanted = {
        picture: _file_name(position, picture.name)
        for position, picture in enumerate(report.pictures)
        if picture.is_used and _file_name(position, picture.name) not in valid
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in [folder / name for name in there - valid] + list(folder.glob(".*.tmp")):
            path.unlink()
        write_json(folder / _MANIFEST, manifest | {"is_complete": False})
        with tqdm(total=len(wanted), desc="cut out", disable=not progress) as bar:
            for picture, image in _decoded(report, wanted):
                save_png(_cut(picture, image, side_px), folder / wanted[picture])
                bar.update()
        write_json(folder / _MANIFEST, manifest)
    except OSError as error:
        raise _unwritable(error, folder) from error
    return folder


def recall_report(
    folder: str | Path,
    sources: str | Path | Sequence[str | Path],
    *,
    aligned: Aligned = "auto",
    min_side_px: int = 192,
) -> FolderReport | None:
    """The report a folder was prepared from, if the pictures and what was asked for are still the same.

    It spares the search for faces when a run goes on. Only the files' bytes are compared.

    Args:
        folder: of `prepare_pictures`; it may be absent or incomplete.
        sources: as for `facestyle.training.folder.check_folder`.
        aligned: likewise.
        min_side_px: likewise.

    Raises:
        DatasetError: a source cannot be read.
        OutputError: the folder holds other files.
    """
    manifest = _read_manifest(Path(folder))
    if manifest.get("format") != _FORMAT:
        return None
    report = FolderReport.from_dict(manifest["report"])
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    if (report.asked, report.min_side_px) != (aligned, min_side_px):
        return None
    if report.sources != tuple(str(Path(source)) for source in listed):
        return None
    found = []
    for source in report.sources:
        for name, read in iter_picture_files(source):
            found.append((source, name, _sha256(read)))
    known = [(picture.source, picture.name, picture.sha256) for picture in report.pictures]
    return report if found == known else None


def folder_sheet(
    report: FolderReport, *, cell_px: int = 160, per_row: int = 10, limit: int = 200
) -> Image.Image:
    """What was found, to be looked at: left out pictures in red with the reason, then used ones in green.

    A near-copy follows the picture it is a copy of. Used pictures are shown as they are cut out.

    Args:
        report: from `facestyle.training.folder.check_folder`; its sources are read again.
        cell_px: side of a cell.
        per_row: cells in a row.
        limit: at most so many pictures.

    Raises:
        DatasetError: the pictures are no longer those that were checked.
    """
    order: dict[CheckedPicture, None] = {}
    for picture in report.left_out:
        if picture.copy_of is not None:
            order[report.pictures[picture.copy_of]] = None
        order[picture] = None
    order |= dict.fromkeys(report.used)
    shown = list(order)[:limit]
    cells = {picture: _cell(picture, None, cell_px) for picture in shown if picture.size_px is None}
    wanted = {picture for picture in shown if picture.size_px is not None}
    for picture, image in _decoded(report, wanted):
        if picture.quad is not None:
            image = align(image, picture.quad, cell_px)
        cells[picture] = _cell(picture, image, cell_px)
    tiles = [cells[picture] for picture in shown]
    rows = [tiles[i : i + per_row] for i in range(0, len(tiles), per_row)]
    return contact_sheet(rows, cell_px=cell_px)


def plain_stem(name: str) -> str:
    """What any disk takes of a picture's name, to be known by beside its number."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", Path(name).stem)[:60]


def _file_name(position: int, name: str) -> str:
    """A plain name that sorts as the report does."""
    return f"{position:05d}_{plain_stem(name)}.png"


def _origin(picture: CheckedPicture, side_px: int) -> dict[str, Any]:
    """All that a written file depends on."""
    return {
        "source": picture.source,
        "name": picture.name,
        "sha256": picture.sha256,
        "quad": picture.quad,
        "side_px": side_px,
    }


def _cut(picture: CheckedPicture, image: Image.Image, side_px: int) -> Image.Image:
    assert picture.quad is not None  # of used pictures
    return align(image, picture.quad, min(side_px, round(quad_side_px(picture.quad))))


def _decoded(
    report: FolderReport, wanted: Container[CheckedPicture]
) -> Iterator[tuple[CheckedPicture, Image.Image]]:
    """The wanted ones of a report's pictures, decoded again, in its order.

    Raises:
        DatasetError: one is no longer what was checked.
    """
    files = {(picture.source, picture.name): picture for picture in report.pictures}
    missing = {key for key, picture in files.items() if picture in wanted}
    for source in report.sources:
        for name, read in iter_picture_files(source):
            if (source, name) not in missing:
                continue
            picture = files[source, name]
            missing.remove((source, name))
            try:
                data = read()
                if hashlib.sha256(data).hexdigest() == picture.sha256:
                    yield picture, load_image(data)
                    continue
            except ImageError:
                pass
            raise DatasetError(f"{name} has changed since it was checked; check again", path=source)
    for source, name in sorted(missing):
        raise DatasetError(f"{name} is gone since it was checked; check again", path=source)


def _sha256(read: Callable[[], bytes]) -> str | None:
    try:
        return hashlib.sha256(read()).hexdigest()
    except ImageError:
        return None


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The folder's manifest; empty where nothing has been prepared, or by another version.

    Raises:
        OutputError: the folder holds something else.
    """
    path = folder / _MANIFEST
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file; name a folder", path=folder)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["files"], manifest["report"]["pictures"], manifest["format"]
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir() and any(not _is_leftover(one) for one in folder.iterdir()):
            raise OutputError(
                f"holds files but no {_MANIFEST}; name a new or an empty folder", path=folder
            ) from None
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"the manifest is damaged ({error}); delete the folder, or name another", path=path
        ) from error
    return dict(manifest)


def _is_leftover(path: Path) -> bool:
    """A file that a killed run was writing."""
    return path.suffix in (".tmp", ".part")


def _check_apart(folder: Path, sources: Sequence[str]) -> None:
    """Refuse to write where pictures are read: the next check would find its own results."""
    resolved = folder.resolve()
    for source in sources:
        if Path(source).is_dir() and resolved.is_relative_to(Path(source).resolve()):
            raise OutputError(f"lies inside {source}, which is read; name another", path=folder)


def _unwritable(error: OSError, folder: Path) -> OutputError:
    """The error with advice that fits its cause."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space and run the same command again: it goes on where it was"
    else:
        advice = "name another folder, or make this one writable"
    return OutputError(f"cannot be written ({cause.strerror or cause}); {advice}", path=folder)


def _cell(picture: CheckedPicture, image: Image.Image | None, cell_px: int) -> Image.Image:
    """A framed picture over its name and what became of it."""
    frame_px, text_px = max(2, cell_px // 40), max(9, cell_px // 14)
    font = ImageFont.load_default(size=text_px)
    room_px = cell_px - 2 * (text_px + 3)
    color = _GREEN if picture.is_used else _RED
    cell = Image.new("RGB", (cell_px, cell_px), (255, 255, 255))
    content = Image.new("RGB", (room_px, room_px), _GREY) if image is None else image.copy()
    content.thumbnail((room_px - 2 * frame_px,) * 2, Image.Resampling.LANCZOS)
    left, top = (cell_px - content.width) // 2, (room_px - content.height) // 2
    box = (
        left - frame_px,
        top - frame_px,
        left + content.width + frame_px,
        top + content.height + frame_px,
    )
    cell.paste(color, box)
    cell.paste(content, (left, top))
    draw = ImageDraw.Draw(cell)
    told = (
        picture.reason
        if picture.is_used or picture.verdict == "copy"
        else f"{picture.verdict}: {picture.reason}".rstrip(": ")
    )
    for line, (text, ink) in enumerate(((picture.name, _INK), (told, color))):
        longest = 2 * cell_px // text_px  # letters are about half as wide as high
        text = text if len(text) <= longest else text[: longest - 3] + "..."
        draw.text((cell_px / 2, room_px + line * (text_px + 2)), text, ink, font, anchor="ma")
    return cell
