"""Training pictures are read as every picture of facestyle is."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from facestyle.errors import DatasetError, MissingDependencyError
from facestyle.training.data import PictureSet
from facestyle.training.style_pictures import plain_ground_matte


def test_subfolders_orientation_and_transparency_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    half = Image.new("RGB", (40, 40), (0, 0, 255))
    half.paste((255, 0, 0), (0, 0, 40, 20))
    (tmp_path / "deeper").mkdir()
    half.save(tmp_path / "deeper" / "turned.jpg", exif=exif, quality=95)
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    pictures = PictureSet(tmp_path, 40)
    assert pictures.names == ["clear.png", "deeper/turned.jpg"]
    assert pictures[0].dtype == torch.uint8 and pictures[0].min() == 255
    turned = pictures[1].float()
    assert turned[0, :, 35].mean() > 200 > 50 > turned[0, :, 5].mean()  # red went to the right


def test_truncated_pictures_are_left_out_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        assert PictureSet(tmp_path, 32).names == ["a.jpg"]
    assert "b.jpg" in caplog.text
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DatasetError, match="all 1 pictures are broken"):
        PictureSet(tmp_path, 32)


def test_the_limit_counts_over_all_sources(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (40, 40)).save(tmp_path / name / f"{name}{i}.png")
    pictures = PictureSet([tmp_path / "b", tmp_path / "a"], 32, limit=4)
    assert pictures.names == ["b0.png", "b1.png", "b2.png", "a0.png"]


def test_without_scipy_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'facestyle\[train\]'"):
        plain_ground_matte(torch.zeros(3, 16, 16))
