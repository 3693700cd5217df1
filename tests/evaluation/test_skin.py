"""Skin tones and their drift agree with known colours and with scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from facestyle.errors import ImageError
from facestyle.evaluation.skin import (
    GROUPS,
    REGIONS,
    drift_by_group,
    skin_drift,
    skin_tone,
    srgb_to_lab,
)


def plain(rgb: tuple[int, int, int], side: int = 100) -> Image.Image:
    return Image.new("RGB", (side, side), rgb)


def test_lab_of_white_black_and_the_primaries() -> None:
    rgb = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    expected = [  # CIE 15:2004 values of the sRGB primaries under D65
        [100.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
    ]
    np.testing.assert_allclose(srgb_to_lab(rgb), expected, atol=0.02)
    np.testing.assert_allclose(srgb_to_lab(rgb / 255.0), srgb_to_lab(rgb), atol=1e-9)


def test_lab_agrees_with_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    rgb = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    np.testing.assert_allclose(srgb_to_lab(rgb), color.rgb2lab(rgb), atol=0.02)


def test_ita_is_the_angle_of_lightness_over_yellow() -> None:
    tone = skin_tone(plain((224, 172, 138)))
    lightness, _, yellow = tone.lab
    assert tone.ita_deg == pytest.approx(np.degrees(np.arctan((lightness - 50) / yellow)))


@pytest.mark.parametrize(
    ("rgb", "group"),
    [
        ((243, 224, 212), "light"),
        ((205, 165, 130), "intermediate"),
        ((170, 122, 88), "tan"),
        ((140, 100, 75), "brown"),
        ((65, 42, 32), "dark"),
        ((20, 20, 90), "dark"),  # blue light: b* < 0
    ],
)
def test_groups_run_from_light_to_dark(rgb: tuple[int, int, int], group: str) -> None:
    assert skin_tone(plain(rgb)).group == group


def test_only_the_regions_count_and_blemishes_do_not() -> None:
    face = plain((20, 200, 20), side=200)
    draw = ImageDraw.Draw(face)
    for box in REGIONS.values():
        left, top, right, bottom = (round(share * 200) for share in box)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=(200, 150, 120))
        draw.rectangle((left, top, right - 1, top + (bottom - top) // 3), fill=(10, 10, 10))
    assert skin_tone(face).lab == pytest.approx(skin_tone(plain((200, 150, 120))).lab)


def test_the_regions_are_mirror_images() -> None:
    left, right = REGIONS["left cheek"], REGIONS["right cheek"]
    assert (left[0], left[2]) == pytest.approx((1 - right[2], 1 - right[0]))
    assert left[1::2] == right[1::2]


def test_drift_is_zero_for_one_tone_at_two_sizes_and_signed_otherwise() -> None:
    dark, light = plain((120, 85, 65)), plain((230, 200, 180), side=80)
    same = skin_drift(dark, plain((120, 85, 65), side=256))
    assert (same.delta_l, same.delta_e, same.delta_ita_deg) == (0.0, 0.0, 0.0)
    lighter, darker = skin_drift(dark, light), skin_drift(light, dark)
    assert lighter.delta_l > 0 and lighter.delta_ita_deg > 0
    assert darker.delta_l == -lighter.delta_l
    assert darker.delta_e == lighter.delta_e > abs(lighter.delta_l)


def test_drift_by_group_counts_by_the_photo_before() -> None:
    dark, light = plain((65, 42, 32)), plain((243, 224, 212))
    lift = skin_drift(dark, light)
    table = drift_by_group([lift, lift, skin_drift(light, light)])
    assert list(table) == ["light", "dark", "all"]
    assert table["dark"]["n"] == 2 and table["dark"]["delta_l"] == pytest.approx(lift.delta_l)
    assert table["all"]["delta_e"] == pytest.approx(2 * lift.delta_e / 3)
    assert drift_by_group([]) == {}
    assert list(GROUPS.values()) == sorted(GROUPS.values(), reverse=True)


@pytest.mark.parametrize("size", [(100, 99), (32, 32)])
def test_no_aligned_face_is_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="FFHQ-aligned"):
        skin_tone(Image.new("RGB", size))
