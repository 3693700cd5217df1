"""The galleries: the same people in every style."""

import numpy as np
import pytest
from PIL import Image

import facestyle.reference
from facestyle import FaceStylizer
from facestyle.evaluation.gallery import PEOPLE, styles_gallery
from facestyle.evaluation.portraits_gallery import multimodal_gallery, reference_gallery


def test_every_style_draws_the_same_people(tmp_path):
    assert len(set(PEOPLE)) == 23  # and the astronaut
    styles_gallery(tmp_path, ["illustration", "impasto"], people=PEOPLE[:1])
    assert {path.name for path in tmp_path.iterdir()} == {
        "illustration.jpg", "impasto.jpg", "styles.jpg", "report.md",
    }  # fmt: skip
    sheets = []
    for name in ("illustration", "impasto"):
        with Image.open(tmp_path / f"{name}.jpg") as sheet:
            sheets.append(np.asarray(sheet.convert("RGB"), np.float32))
    first, second = sheets
    assert first.shape == second.shape
    change = np.abs(first - second).mean((0, 2))
    cell = first.shape[1] / 4  # astronaut before, after, sample before, after
    columns = [change[round(i * cell) + 12 : round((i + 1) * cell) - 12].mean() for i in range(4)]
    assert columns[0] == columns[2] == 0
    assert min(columns[1], columns[3]) > 3


NEAR, FAR = 3, 6
"""Levels of 255; JPEG alone makes up to 2."""


def cells(path, columns):
    """Middles of a sheet's cells, [rows][columns], each [h, w, 3]."""
    with Image.open(path) as sheet:
        picture = np.asarray(sheet.convert("RGB"), np.float32)
    step = 164
    left, top = picture.shape[1] - columns * step, picture.shape[0] % step
    return [
        [
            picture[y + 12 : y + 152, x + 12 : x + 152]
            for x in range(left, left + columns * step, step)
        ]
        for y in range(top, picture.shape[0], step)
    ]


def apart(a, b):
    return float(np.abs(a - b).mean())


@pytest.fixture(scope="module")
def stylizer():
    return FaceStylizer.from_pretrained("illustration", device="cpu")


def test_a_level_above_all_rows_repeats_the_general_portrait(stylizer, tmp_path):
    path = multimodal_gallery(stylizer, tmp_path, people=PEOPLE[:1], count=2, levels=(3, 99))
    assert path.is_file() and path.with_suffix(".md").is_file()
    low, high = cells(path, 4)
    assert apart(low[1], high[1]) < NEAR
    assert min(apart(low[1], low[2]), apart(low[2], low[3])) > FAR
    assert max(apart(high[1], high[2]), apart(high[2], high[3])) < NEAR


def test_people_follow_the_given_references(stylizer, astronaut, tmp_path, monkeypatch):
    monkeypatch.setitem(facestyle.reference.STEPS, "encoder", 0)
    astronaut.save(tmp_path / "one.png")
    astronaut.rotate(180).save(tmp_path / "two.png")
    path = reference_gallery(
        stylizer, tmp_path, references=[tmp_path / "one.png", tmp_path / "two.png"],
        people=PEOPLE[:1], levels=(3, 99),
    )  # fmt: skip
    one, two = cells(path, 5)
    assert apart(one[2], two[2]) > FAR, "the references themselves"
    assert apart(one[1], one[3]) > FAR and apart(one[1], one[4]) < NEAR
    assert apart(one[3], two[3]) > FAR, "each by its own code"
