"""The FFHQ quad in closed form, the two maps, and what alignment shows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facestyle.errors import ConfigError
from facestyle.faces import align as subject
from facestyle.faces.align import (
    align,
    ffhq_quad,
    full_image_quad,
    quad_side_px,
    to_crop,
    to_photo,
)

FRONTAL = np.array([[40.0, 50], [60, 50], [50, 60], [42, 70], [58, 70]])


def rotated(points: np.ndarray, degrees: float, scale: float = 1.0, shift=(0.0, 0.0)) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + np.array(shift)


def smooth(width: int, height: int) -> Image.Image:
    """A picture of slow waves, different in every channel and direction."""
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    waves = [np.sin(5 * x + 3 * y), np.cos(4 * y - 2 * x), np.sin(6 * x * y + y)]
    return Image.fromarray((127.5 + 100 * np.stack(waves, axis=-1)).round().astype(np.uint8))


def levels_apart(first: Image.Image, second: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(first, dtype=np.int16) - np.asarray(second, dtype=np.int16))


def test_quad_of_a_frontal_face_in_closed_form():
    # Eyes 20 apart, mouth 20 below: half side max(2.0 * 20, 1.8 * 20) = 40 about (50, 50 + 0.1 * 20).
    assert ffhq_quad(FRONTAL).tolist() == [[10, 12], [10, 92], [90, 92], [90, 12]]
    # Mouth 30 below: 1.8 * 30 = 54 > 40, centre (50, 53).
    long_face = FRONTAL + np.array([[0, 0], [0, 0], [0, 5], [0, 10], [0, 10]])
    assert np.allclose(ffhq_quad(long_face), [[-4, -1], [-4, 107], [104, 107], [104, -1]])


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.1, 50),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_quad_turns_grows_and_moves_with_the_face(degrees, scale, shift):
    moved = ffhq_quad(rotated(FRONTAL, degrees, scale, shift))
    assert np.allclose(moved, rotated(ffhq_quad(FRONTAL), degrees, scale, shift), atol=1e-6)
    assert quad_side_px(moved) == pytest.approx(80 * scale)


def test_quad_mirrors_with_the_face():
    leaning = rotated(FRONTAL, 17, shift=(3, 9))
    flip = np.array([-1, 1])
    mirrored = ffhq_quad((leaning * flip)[[1, 0, 2, 4, 3]])
    assert np.allclose(mirrored, (ffhq_quad(leaning) * flip)[[3, 2, 1, 0]])


@pytest.mark.parametrize(
    "landmarks", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((68, 2)), np.zeros((2, 5))]
)
def test_landmarks_that_are_no_face(landmarks):
    with pytest.raises(ConfigError, match="landmarks"):
        ffhq_quad(landmarks)


@given(
    degrees=st.floats(-180, 180),
    side=st.floats(20, 6000),
    size_px=st.sampled_from([64, 256, 1024]),
    point=st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)),
)
def test_to_crop_undoes_to_photo(degrees, side, size_px, point):
    quad = ffhq_quad(rotated(FRONTAL, degrees, side / 80, (500, 300)))
    assert np.abs(to_crop(to_photo(point, quad, size_px), quad, size_px) - point).max() < 1e-6
    assert np.abs(to_photo(to_crop(point, quad, size_px), quad, size_px) - point).max() < 1e-6


def test_maps_hit_corners_and_pixel_centres():
    quad = ffhq_quad(rotated(FRONTAL, 20))
    corners = np.array([[-0.5, -0.5], [-0.5, 255.5], [255.5, 255.5], [255.5, -0.5]])
    assert np.allclose(to_photo(corners, quad, 256), quad)
    assert np.allclose(to_photo([127.5, 127.5], quad, 256), quad.mean(axis=0))
    whole = full_image_quad((256, 256))
    assert np.allclose(to_photo([[3.0, 7.0]], whole, 256), [[3, 7]])


def test_quads_that_are_no_squares():
    oblong = np.array([[0, 0], [0, 10], [20, 10], [20, 0.0]])
    mirrored = np.array([[20, 0], [20, 20], [0, 20], [0, 0.0]])
    for quad in (oblong, mirrored, np.zeros((4, 2)), np.zeros((4, 3)), np.full((4, 2), np.inf)):
        with pytest.raises(ConfigError, match="quad"):
            to_photo([0, 0], quad, 64)
        with pytest.raises(ConfigError, match="quad"):
            align(smooth(64, 64), quad, 64)
    with pytest.raises(ConfigError, match="size_px"):
        align(smooth(64, 64), full_image_quad((64, 64)), 0)


@pytest.mark.parametrize("size", [(96, 96), (97, 97), (300, 200)])
def test_aligning_what_is_aligned_changes_nothing(size):
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    )
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    result = align(image, full_image_quad(size), side)
    assert levels_apart(result, image.crop((left, top, left + side, top + side))).max() <= 1


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_averages(factor):
    image = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    )
    result = align(image, full_image_quad((240, 240)), 240 // factor)
    assert levels_apart(result, image.reduce(factor)).max() <= 1


@pytest.mark.parametrize(
    ("side", "size_px"), [(300, 256), (390, 256), (700, 256), (120, 256), (900, 64)]
)
def test_every_pixel_comes_from_where_the_map_says(side, size_px):
    photo = smooth(1600, 1500)
    quad = ffhq_quad(rotated(FRONTAL, 12, side / 80, (250, 150)))
    result = np.asarray(align(photo, quad, size_px), dtype=float)
    ys, xs = np.mgrid[0:size_px:7, 0:size_px:7]
    where = to_photo(np.stack([xs, ys], axis=-1), quad, size_px).round().astype(int)
    expected = np.asarray(photo, dtype=float)[where[..., 1], where[..., 0]]
    assert np.abs(result[ys, xs] - expected).max() < 3


def test_outside_the_photo_is_mirror_then_blur_then_median():
    photo = smooth(400, 400)
    inner = full_image_quad((400, 400)) + np.array([-100, 0])  # a quarter beyond the left edge
    result = np.asarray(align(photo, inner, 400), dtype=float)
    source = np.asarray(photo, dtype=float)
    assert np.abs(result[:, 100:] - source[:, :300]).max() <= 1
    assert np.abs(result[:, 98:100] - source[:, 1::-1]).max() < 12
    far = full_image_quad((400, 400)) + np.array([-390, 0])
    edge = np.asarray(align(photo, far, 400), dtype=float)[:, :100]
    assert edge.std(axis=(0, 1)).max() < 2
    assert np.isfinite(result).all()


@pytest.mark.parametrize("shift", [(-5000, 0), (0, 5000), (300, -280)])
def test_quads_far_outside_still_give_a_picture(shift):
    quad = full_image_quad((200, 200)) + np.array(shift)
    assert align(smooth(300, 280), quad, 128).size == (128, 128)


def test_a_large_photo_gives_what_its_small_copy_gives(astronaut):
    quad = ffhq_quad(
        [[205.0, 101.7], [246.8, 103.7], [224.7, 129.0], [201.7, 139.2], [245.3, 141.9]]
    )
    large = astronaut.resize((3072, 3072), Image.Resampling.BICUBIC)
    difference = levels_apart(
        align(astronaut, quad, 160), align(large, (quad + 0.5) * 6 - 0.5, 160)
    )
    assert difference.mean() < 2.5


def test_the_surface_is_sorted_and_complete():
    assert sorted(subject.__all__) == list(subject.__all__)
    assert all(hasattr(subject, name) for name in subject.__all__)
