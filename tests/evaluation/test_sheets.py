"""Contact sheets put the right picture into the right cell."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from facestyle.errors import ConfigError
from facestyle.evaluation.sheets import (
    BACKGROUND,
    EMPTY,
    before_after,
    contact_sheet,
    save_sheet,
)


def plain(color: str, size: tuple[int, int] = (10, 10)) -> Image.Image:
    return Image.new("RGB", size, color)


def test_cells_hold_their_pictures_and_gaps_are_white() -> None:
    sheet = contact_sheet(
        [[plain("red"), plain("lime")], [plain("blue"), None]], cell_px=20, pad_px=4
    )
    assert sheet.size == (4 + 2 * 24, 4 + 2 * 24) and sheet.mode == "RGB"
    centres = [sheet.getpixel(xy) for xy in [(14, 14), (38, 14), (14, 38), (38, 38)]]
    assert centres == [(255, 0, 0), (0, 255, 0), (0, 0, 255), EMPTY]
    assert sheet.getpixel((2, 2)) == sheet.getpixel((26, 14)) == BACKGROUND


def test_rows_of_different_length_are_filled_up() -> None:
    sheet = contact_sheet([[plain("red")], [plain("red")] * 3], cell_px=20, pad_px=0)
    assert sheet.size == (60, 40)
    assert sheet.getpixel((50, 10)) == EMPTY


def test_pictures_keep_their_shape_and_transparency_is_white() -> None:
    wide = contact_sheet([[plain("red", (40, 20))]], cell_px=20, pad_px=0)
    assert wide.getpixel((10, 10)) == (255, 0, 0) and wide.getpixel((10, 2)) == BACKGROUND
    clear = contact_sheet([[Image.new("RGBA", (9, 9), (255, 0, 0, 0))]], cell_px=20, pad_px=0)
    assert clear.getpixel((10, 10)) == BACKGROUND


def test_titles_and_labels_are_written_outside_the_cells() -> None:
    rows = [[plain("red"), plain("lime")]]
    bare = contact_sheet(rows, cell_px=120)
    sheet = contact_sheet(rows, cell_px=120, titles=["photo", "cartoon"], row_labels=["psi 0.7"])
    dx, dy = sheet.width - bare.width, sheet.height - bare.height
    assert dx > 20 and dy > 10
    assert sheet.crop((dx, dy, sheet.width, sheet.height)).tobytes() == bare.tobytes()
    ink = np.asarray(sheet.convert("L")) < 100
    assert ink[:dy, dx : dx + 120].any() and ink[:dy, dx + 124 :].any()  # both titles
    assert ink[dy:, :dx].any()  # the label


def test_long_titles_stay_inside_their_column() -> None:
    rows = [[plain("white"), plain("white")]]
    sheet = contact_sheet(rows, cell_px=60, titles=["a very long title indeed", ""], pad_px=4)
    ink = np.asarray(sheet.convert("L")) < 200
    columns = np.flatnonzero(ink.any(0))
    assert columns.min() >= 4 and columns.max() <= 64


def test_before_after_alternates() -> None:
    sheet = before_after([plain("red")] * 3, [plain("blue")] * 3, per_row=2, cell_px=32)
    assert sheet.width == 4 + 4 * 36
    y = sheet.height - 20  # the last row: one pair, then grey
    row = [sheet.getpixel((4 + 36 * i + 16, y)) for i in range(4)]
    assert row == [(255, 0, 0), (0, 0, 255), EMPTY, EMPTY]


def test_wrong_numbers_are_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(ConfigError, match="2 titles"):
        contact_sheet([[plain("red")] * 2], titles=["one"])
    with pytest.raises(ConfigError, match="1 row labels"):
        contact_sheet([[plain("red")]], row_labels=["a", "b"])
    with pytest.raises(ConfigError, match="cell_px"):
        contact_sheet([[plain("red")]], cell_px=2)
    with pytest.raises(ConfigError, match="pairs"):
        before_after([plain("red")], [])


def test_save_sheet_goes_through_the_one_png_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    writer = ModuleType("facestyle.image")
    writer.save_png = lambda image, path: saved.append((image, path))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "facestyle.image", writer)
    sheet = contact_sheet([[plain("red")]])
    save_sheet(sheet, tmp_path / "x.png")
    assert saved == [(sheet, tmp_path / "x.png")]


def test_a_sheet_named_jpg_is_a_jpeg_close_to_it(tmp_path: Path) -> None:
    sheet = contact_sheet([[plain("red"), plain("blue")]], cell_px=64)
    save_sheet(sheet, tmp_path / "new" / "x.jpg")
    with Image.open(tmp_path / "new" / "x.jpg") as written:
        assert written.format == "JPEG" and written.size == sheet.size
        difference = np.asarray(written, np.float32) - np.asarray(sheet, np.float32)
    assert np.abs(difference).mean() < 4
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.jpg"]
