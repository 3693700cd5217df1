"""Colours where hair is: faces and collars do not count, and known changes have known sizes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from facestyle.errors import ImageError
from facestyle.evaluation.hair import CELLS, hair_drift, hair_place
from facestyle.evaluation.skin import srgb_to_lab


def head(hair: int, face: tuple[int, int, int] = (220, 180, 150), side: int = 256) -> Image.Image:
    """A grey ground for hair, and a face with a neck on it."""
    image = Image.new("RGB", (side, side), (hair,) * 3)
    drawing = ImageDraw.Draw(image)
    drawing.ellipse([0.27 * side, 0.34 * side, 0.73 * side, 0.93 * side], fill=face)
    drawing.rectangle([0, 0.7 * side, side, side], fill=face)
    return image


def test_the_place_is_around_the_forehead() -> None:
    place = hair_place()
    assert place.shape == (CELLS, CELLS) and (place == place[:, ::-1]).all()
    assert place[4, 16] and place[12, 6]  # above the forehead, beside the temple
    assert not place[20, 16] and not place[28, 6] and not place[0, 0]
    assert 0.2 < place.mean() < 0.35


def test_only_hair_counts() -> None:
    drift = hair_drift(head(60), head(60, (90, 60, 200)))
    assert drift.delta_e == 0 and drift.delta_l == 0


def test_darker_hair_is_darker_by_its_lightness() -> None:
    drift = hair_drift(head(120), head(40, side=512))
    light, dark = srgb_to_lab(np.array([[120] * 3, [40] * 3], np.uint8))[:, 0]
    assert drift.delta_l == pytest.approx(dark - light, abs=0.01)
    assert drift.delta_e == pytest.approx(light - dark, abs=0.01)


def test_what_is_no_aligned_face_is_refused() -> None:
    with pytest.raises(ImageError, match="aligned square"):
        hair_drift(head(60), Image.new("RGB", (256, 200)))
    with pytest.raises(ImageError, match="64 px"):
        hair_drift(head(60), Image.new("RGB", (32, 32)))
