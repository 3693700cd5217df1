"""Pasting undoes aligning, touches nothing else, and hides its seam."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from facestyle.errors import ConfigError
from facestyle.faces import paste as paste_module
from facestyle.faces.align import align, ffhq_quad, full_image_quad, quad_side_px, to_crop
from facestyle.faces.paste import paste, paste_mask

# MTCNN's reading of the astronaut, rounded.
LANDMARKS = np.array(
    [[205.0, 101.7], [246.8, 103.7], [224.7, 129.0], [201.7, 139.2], [245.3, 141.9]]
)
QUAD = ffhq_quad(LANDMARKS)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def moved(quad: np.ndarray, scale: float, shift=(0.0, 0.0)) -> np.ndarray:
    return (quad + 0.5) * scale - 0.5 + np.array(shift)


@pytest.mark.parametrize("match_color", [True, False])
@pytest.mark.parametrize("scale", [1, 3, 6])
def test_paste_undoes_align(astronaut, scale, match_color):
    photo = astronaut.resize((512 * scale,) * 2, Image.Resampling.BICUBIC)
    quad = moved(QUAD, scale)
    face = align(photo, quad, 512)
    result = paste(photo, face, quad, match_color=match_color)
    changed = pixels(paste_mask(photo.size, quad)) > 0
    difference = np.abs(pixels(result) - pixels(photo))[changed]
    assert difference.mean() < 2.5
    assert np.percentile(difference, 99) < 16


@pytest.mark.parametrize(("side", "size_px"), [(90, 256), (250, 256), (300, 256), (600, 256)])
def test_paste_undoes_align_to_the_level_on_a_smooth_photo(side, size_px):
    x, y = np.meshgrid(np.arange(900) / 900, np.arange(800) / 800)
    waves = [np.sin(5 * x + 3 * y), np.cos(4 * y - 2 * x), np.sin(6 * x * y + y)]
    photo = Image.fromarray((127.5 + 100 * np.stack(waves, axis=-1)).round().astype(np.uint8))
    quad = moved(QUAD - QUAD.mean(axis=0), side / quad_side_px(QUAD), (450, 400))
    result = paste(photo, align(photo, quad, size_px), quad, match_color=False)
    assert np.abs(pixels(result) - pixels(photo)).max() <= 2


def test_a_whole_picture_goes_back_exactly():
    photo = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    )
    quad = full_image_quad(photo.size)
    assert np.abs(pixels(paste(photo, align(photo, quad, 128), quad)) - pixels(photo)).max() <= 1


@pytest.mark.parametrize(
    "quad",
    [
        QUAD,
        moved(QUAD, 2.5, (-150, 40)),
        moved(QUAD, 1, (-200, -90)),
        moved(QUAD, 1, (250, 330)),
        moved(QUAD, 0.05, (300, 300)),
        moved(QUAD, 1, (9000, 0)),
    ],
)
def test_outside_the_mask_every_bit_is_the_photos(astronaut, quad):
    portrait = Image.fromarray(255 - np.asarray(align(astronaut, QUAD, 256)))
    before = astronaut.tobytes()
    result = paste(astronaut, portrait, quad)
    assert (
        result.size == astronaut.size and result is not astronaut and astronaut.tobytes() == before
    )
    mask = pixels(paste_mask(astronaut.size, quad))
    assert np.array_equal(pixels(result)[mask == 0], pixels(astronaut)[mask == 0])
    ys, xs = np.nonzero(mask)
    if len(xs):
        crop = to_crop(np.stack([xs, ys], axis=-1), quad, 1)  # inside: -0.5 to 0.5
        assert np.abs(crop).max() <= 0.5
        assert (pixels(result) != pixels(astronaut)).any()


@pytest.mark.parametrize("feather", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("degrees", [0, 25])
def test_mask_is_full_inside_zero_outside_and_smooth(feather, degrees):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    quad = (full_image_quad((300, 300)) - 149.5) @ turn.T + [320, 300]
    mask = pixels(paste_mask((640, 600), quad, feather))
    ys, xs = np.indices(mask.shape)
    crop = to_crop(np.stack([xs, ys], axis=-1), quad, 1)
    radius = ((np.abs(2 * crop) ** 4).sum(axis=-1)) ** 0.25
    assert mask[radius < 0.96 - 2 * feather].min() == 255
    assert mask[radius > 0.99].max() == 0
    steepest = 255 * 1.875 / (300 * feather)  # of the fade's polynomial
    assert np.abs(np.diff(mask, axis=1)).max() <= 1.3 * steepest + 2
    assert mask[(radius > 0.5) & (radius < 0.9)].min() < 255 or feather < 0.03


def test_middle_of_the_face_shows_the_portrait_unchanged(astronaut):
    portrait = Image.new("RGB", (256, 256), (10, 200, 90))
    result = paste(astronaut, portrait, QUAD)
    x, y = QUAD.mean(axis=0).round().astype(int)
    assert result.getpixel((int(x), int(y))) == (10, 200, 90)


def seam_step(photo: Image.Image, result: Image.Image, quad: np.ndarray) -> float:
    """Mean broad colour change along the outer half of the fade, in levels."""
    blur = ImageFilter.GaussianBlur(0.02 * quad_side_px(quad))
    change = np.abs(pixels(result.filter(blur)) - pixels(photo.filter(blur))).mean(axis=-1)
    mask = pixels(paste_mask(photo.size, quad))
    return float(change[(mask > 20) & (mask < 128)].mean())


def test_matching_removes_the_seam(astronaut):
    face = align(astronaut, QUAD, 256)
    tinted = Image.fromarray(
        (pixels(face) * [0.8, 0.7, 0.9] + [60, 10, 30]).clip(0, 255).astype(np.uint8)
    )
    plain = seam_step(astronaut, paste(astronaut, tinted, QUAD, match_color=False), QUAD)
    matched = seam_step(astronaut, paste(astronaut, tinted, QUAD), QUAD)
    assert plain > 8
    assert matched < plain / 3


def test_a_portrait_turned_upside_down_lands_upside_down(astronaut):
    portrait = Image.new("RGB", (256, 256), (0, 0, 0))
    portrait.paste((255, 0, 0), (0, 0, 256, 128))
    result = pixels(paste(astronaut, portrait, QUAD, match_color=False))
    upper = (0.7 * QUAD[[0, 3]].mean(axis=0) + 0.3 * QUAD[[1, 2]].mean(axis=0)).astype(int)
    lower = (0.3 * QUAD[[0, 3]].mean(axis=0) + 0.7 * QUAD[[1, 2]].mean(axis=0)).astype(int)
    assert result[upper[1], upper[0]].tolist() == [255, 0, 0]
    assert result[lower[1], lower[0]].tolist() == [0, 0, 0]


def test_bad_arguments(astronaut):
    with pytest.raises(ConfigError, match="square portrait"):
        paste(astronaut, Image.new("RGB", (64, 65)), QUAD)
    for feather in (0.0, 0.6):
        with pytest.raises(ConfigError, match="feather"):
            paste(astronaut, Image.new("RGB", (64, 64)), QUAD, feather=feather)
    with pytest.raises(ConfigError, match="quad"):
        paste_mask(astronaut.size, QUAD[[0, 1, 3, 2]])


def test_strips_of_several_threads_join_without_a_trace(astronaut):
    photo = astronaut.resize((1024, 1024), Image.Resampling.BICUBIC)
    quad = moved(QUAD, 2)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(pixels(paste(photo, align(photo, quad, 512), quad, match_color=False)))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*results)


def test_seam_means_are_weighted_by_nearness_and_doubt():
    at = np.array([[0.0, 0.0], [3.0, 0.0]], dtype=np.float32)
    points = np.array([[0.0, 1.0], [3.0, 0.0], [90.0, 0.0]], dtype=np.float32)
    weights = np.array([1.0, 0.5, 1.0], dtype=np.float32)
    values = np.array([[10.0, 0.0], [0.0, 20.0], [500.0, 500.0]], dtype=np.float32)
    near = weights * np.exp(-0.5 * ((at[:, None] - points) ** 2).sum(axis=2))
    wanted = near @ values / (near.sum(axis=1, keepdims=True) + 0.3)
    got = paste_module._affine_mean(at, points, weights, values)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_field_is_added_to_half_a_level():
    face = Image.fromarray(np.random.default_rng(3).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    field = np.zeros((48, 48, 3), dtype=np.float32)
    field[:] = (-7.0, 12.5, 41.0)
    added = pixels(paste_module._added(face, field))
    wanted = np.clip(np.floor(pixels(face) + np.array([-7.0, 12.5, 41.0]) + 0.5), 0, 255)
    assert np.abs(added - wanted).max() == 0


def test_close_faces_keep_to_themselves(astronaut):
    """Portraits bring the ground around heads along, which lay over neighbours, drawn or not."""
    square = moved(QUAD - QUAD.mean(axis=0), 200 / quad_side_px(QUAD))
    left, middle, right = (moved(square, 1, (x, 250)) for x in (120, 250, 380))
    red, blue = (Image.new("RGB", (256, 256), color) for color in ("red", "blue"))
    photo = astronaut

    def at(image, quad):
        return image.getpixel(tuple(quad.mean(axis=0).round().astype(int).tolist()))

    plain = {"match_color": False}
    alone = paste(photo, red, middle, **plain)
    between = paste(photo, red, middle, others=[left, right], **plain)
    assert at(between, middle) == at(alone, middle) == (255, 0, 0)
    near = [quad * 0.55 + middle * 0.45 for quad in (left, right)]  # on their side of the border
    assert all(at(alone, quad) == (255, 0, 0) for quad in near)
    assert all(at(between, quad) == at(photo, quad) for quad in near)
    both = paste(between, blue, left, others=[middle, right], **plain)
    assert (at(both, left), at(both, middle)) == ((0, 0, 255), (255, 0, 0))
    far = [moved(square, 1, (1200, 250)), moved(square, 0.2, (470, 60))]
    assert paste(photo, red, middle, others=far, **plain).tobytes() == alone.tobytes()
