"""Contact sheets: many pictures on one, to be looked at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from facestyle.errors import ConfigError

__all__ = ["before_after", "contact_sheet", "save_sheet"]

BACKGROUND = (255, 255, 255)
INK = (30, 30, 30)
EMPTY = (235, 235, 235)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image | None]],
    *,
    cell_px: int = 256,
    titles: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    pad_px: int = 4,
) -> Image.Image:
    """Pictures in rows on white, each fitted whole and centred into a square cell.

    Args:
        rows: pictures row by row, of any size and mode; None leaves a cell grey. Rows may differ in
            length.
        cell_px: side of a cell.
        titles: one line above each column.
        row_labels: one line before each row.
        pad_px: white space around cells.

    Returns:
        RGB, as large as it takes.

    Raises:
        ConfigError: no pictures, a cell of under 16 px, or titles or labels of another number.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ConfigError("a contact sheet needs at least one picture")
    if cell_px < 16 or pad_px < 0:
        raise ConfigError(f"expected cell_px >= 16, pad_px >= 0, got {cell_px} and {pad_px}")
    if titles is not None and len(titles) != columns:
        raise ConfigError(f"expected {columns} titles, one per column, got {len(titles)}")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ConfigError(f"expected {len(rows)} row labels, got {len(row_labels)}")

    font = ImageFont.load_default(size=max(12, min(24, cell_px // 11)))
    line_px = sum(font.getmetrics()) + 4 if isinstance(font, ImageFont.FreeTypeFont) else 16
    head_px = line_px + pad_px if titles else 0
    longest = max((font.getlength(text) for text in row_labels or ()), default=0)
    side_px = min(round(longest), 2 * cell_px) + 2 * pad_px if row_labels else 0

    step = cell_px + pad_px
    size = (side_px + pad_px + columns * step, head_px + pad_px + len(rows) * step)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles or ()):
        x = side_px + pad_px + column * step + cell_px / 2
        text = _fitted(title, font, cell_px)
        draw.text((x, pad_px + line_px / 2), text, INK, font, anchor="mm")
    for r, row in enumerate(rows):
        y = head_px + pad_px + r * step
        if row_labels:
            text = _fitted(row_labels[r], font, side_px - 2 * pad_px)
            draw.text((pad_px, y + cell_px / 2), text, INK, font, anchor="lm")
        for column in range(columns):
            image = row[column] if column < len(row) else None
            _place(sheet, image, side_px + pad_px + column * step, y, cell_px)
    return sheet


def before_after(
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
    *,
    per_row: int = 4,
    cell_px: int = 256,
    titles: tuple[str, str] = ("before", "after"),
) -> Image.Image:
    """Pairs side by side, several to a row.

    Args:
        before: the photos.
        after: their results, in the same order.
        per_row: pairs in a row; a last row is filled up with grey.
        cell_px: side of a cell.
        titles: above the photos and above the results.

    Raises:
        ConfigError: the numbers differ, or there are none.
    """
    if len(before) != len(after) or not before:
        raise ConfigError(f"expected pairs, got {len(before)} before and {len(after)} after")
    if per_row < 1:
        raise ConfigError(f"expected per_row >= 1, got {per_row}")
    per_row = min(per_row, len(before))
    cells = [image for pair in zip(before, after, strict=True) for image in pair]
    width = 2 * per_row
    rows = [cells[i : i + width] for i in range(0, len(cells), width)]
    return contact_sheet(rows, cell_px=cell_px, titles=[*titles] * per_row)


def save_sheet(sheet: Image.Image, path: str | Path) -> None:
    """Write a sheet as PNG, or as JPEG, a tenth of the size, where the path ends in .jpg; whole or not at all.

    Its folder is made.

    Raises:
        OutputError: it cannot be written.
    """
    from facestyle.files import write_whole
    from facestyle.image import save_png

    path = Path(path)
    if path.suffix != ".jpg":
        save_png(sheet, path)
        return
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=86, optimize=True, progressive=True)
    write_whole(buffer.getvalue(), path)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> str:
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(f"{text}...") > width_px:
        text = text[:-1]
    return f"{text}..."


def _place(sheet: Image.Image, image: Image.Image | None, x: int, y: int, cell_px: int) -> None:
    if image is None:
        sheet.paste(EMPTY, (x, y, x + cell_px, y + cell_px))
        return
    scale = cell_px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    rgba = image.convert("RGBA").resize(size, Image.Resampling.LANCZOS)
    corner = (x + (cell_px - size[0]) // 2, y + (cell_px - size[1]) // 2)
    sheet.paste(rgba, corner, rgba)
