"""Pictures come out of folders and zips in order; what is broken is skipped or named."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from facestyle import picture_files
from facestyle.errors import DatasetError
from facestyle.picture_files import iter_images, read_images


def encoded(
    color: str | tuple[int, ...], fmt: str = "PNG", size: tuple[int, int] = (48, 36)
) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, fmt)
    return buffer.getvalue()


MEMBERS = {
    "b.png": encoded("blue"),
    "a/red.PNG": encoded("red"),
    "c.jpg": encoded("lime", "JPEG"),
    "notes.txt": b"no picture",
    "__MACOSX/._b.png": b"junk",
    ".hidden.png": b"junk",
}


@pytest.fixture(params=["folder", "zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """MEMBERS as a folder and as a zip."""
    if request.param == "zip":
        return make_zip(tmp_path / "set.zip", MEMBERS)
    for name, data in MEMBERS.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "set"


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_names_are_sorted_and_only_pictures_are_read(source: Path) -> None:
    found = read_images(source)
    assert [name for name, _ in found] == ["a/red.PNG", "b.png", "c.jpg"]
    assert [image.mode for _, image in found] == ["RGB"] * 3
    assert found[0][1].getpixel((0, 0)) == (255, 0, 0)
    assert found[1][1].getpixel((0, 0)) == (0, 0, 255)


def test_limit_takes_the_first(source: Path) -> None:
    assert [name for name, _ in read_images(source, limit=2)] == ["a/red.PNG", "b.png"]


def test_broken_members_are_logged_skipped_and_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = {"0.png": b"", "1.png": MEMBERS["b.png"][:60], "2.png": MEMBERS["b.png"]}
    with caplog.at_level(logging.WARNING):
        found = read_images(make_zip(tmp_path / "x.zip", members), limit=1)
    assert [name for name, _ in found] == ["2.png"]
    assert "0.png" in caplog.text and "1.png" in caplog.text


def test_a_member_whose_checksum_is_wrong_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("bad.png", MEMBERS["b.png"])
        archive.writestr("good.png", MEMBERS["b.png"])
    data = bytearray(path.read_bytes())
    data[data.index(b"IHDR") + 6] ^= 1
    path.write_bytes(data)
    assert [name for name, _ in read_images(path)] == ["good.png"]


def test_zip_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "MAX_MEMBER_BYTES", 10_000)
    members = {"bomb.png": b"\0" * 1_000_000, "fine.png": MEMBERS["b.png"]}
    path = make_zip(tmp_path / "x.zip", members)
    assert path.stat().st_size < 10_000
    assert [name for name, _ in read_images(path)] == ["fine.png"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "no such folder"), (b"", "cannot be read as a zip"), (b"PK\3\4junk", "as a zip")],
)
def test_no_zip_is_an_error(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "x.zip"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        read_images(path)
    assert caught.value.path == path


def test_sets_without_a_usable_picture_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no pictures"):
        read_images(tmp_path)
    with pytest.raises(DatasetError, match="all 2 pictures are broken"):
        read_images(make_zip(tmp_path / "x.zip", {"0.png": b"", "1.png": b"x"}))
    with pytest.raises(DatasetError, match="limit"):
        next(iter_images(tmp_path, limit=0))


def test_each_is_read_as_every_picture_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "b.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "too_small.png")
    (_, turned), (_, clear) = read_images(tmp_path)
    assert turned.size == (40, 80)
    assert clear.getpixel((0, 0)) == (255, 255, 255)
