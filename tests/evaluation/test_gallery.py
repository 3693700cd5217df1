"""The galleries: the same people in every style."""

import numpy as np
from PIL import Image

from facestyle.evaluation.gallery import PEOPLE, styles_gallery


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
