"""Faces of every size and place are found, once, with steady landmarks."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from facestyle.errors import ConfigError
from facestyle.faces.detect import FaceDetector

# Read off an enlarged copy by eye, to about a pixel: pupils, tip of the nose, corners of the mouth.
BY_EYE = np.array([[203.0, 101.0], [246.0, 103.0], [223.0, 127.0], [202.5, 139.0], [244.5, 140.5]])
FACE_BOX = (120, 0, 330, 215)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def portrait(astronaut) -> Image.Image:
    return astronaut.crop(FACE_BOX)


def test_one_face_with_its_landmarks(detector, astronaut):
    (face,) = detector.detect(astronaut)
    assert np.abs(face.landmarks - BY_EYE).max() < 4
    assert face.landmarks.shape == (5, 2) and face.landmarks.dtype == np.float64
    assert 0.95 < face.score <= 1
    left, top, right, bottom = face.box
    assert left < face.landmarks[:, 0].min() and face.landmarks[:, 0].max() < right
    assert top < face.landmarks[:, 1].min() and face.landmarks[:, 1].max() < bottom
    assert face.quad.shape == (4, 2) and face.side_px == pytest.approx(169, abs=8)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2, 4, 8])
def test_landmarks_scale_with_the_photo(detector, astronaut, scale):
    size = round(512 * scale)
    (expected,) = detector.detect(astronaut)
    (face,) = detector.detect(astronaut.resize((size, size), Image.Resampling.LANCZOS))
    landmarks = (face.landmarks + 0.5) / scale - 0.5
    assert np.abs(landmarks - expected.landmarks).max() < (4 if scale < 0.5 else 2)


def test_a_mirrored_photo_has_mirrored_landmarks(detector, astronaut):
    (face,) = detector.detect(astronaut)
    (mirrored,) = detector.detect(astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    back = mirrored.landmarks[[1, 0, 2, 4, 3]] * [-1, 1] + [511, 0]
    assert np.abs(back - face.landmarks).max() < 1.5


def test_faces_come_largest_first_and_once_each(detector, portrait):
    group = Image.new("RGB", (1500, 1000), (150, 160, 170))
    placed = []
    for factor, corner in (
        (0.6, (60, 80)),
        (2.0, (300, 300)),
        (1.1, (900, 100)),
        (1.4, (1000, 500)),
    ):
        copy = portrait.resize([round(n * factor) for n in portrait.size], Image.Resampling.LANCZOS)
        group.paste(copy, corner)
        placed.append((factor, (BY_EYE - FACE_BOX[:2]) * factor + corner))
    faces = detector.detect(group)
    assert len(faces) == 4
    placed.sort(key=lambda item: -item[0])
    for face, (factor, landmarks) in zip(faces, placed, strict=True):
        assert np.abs(face.landmarks - landmarks).max() < 4 * factor + 1


def test_small_faces_of_a_large_group_photo(detector, portrait):
    group = Image.new("RGB", (4000, 3000), (150, 160, 170))
    corners = [(200 + 470 * column, 500 + 700 * row) for column in range(8) for row in range(3)]
    for corner in corners:
        group.paste(portrait, corner)  # boxes of about 85 px, 1/47 of the long side
    faces = detector.detect(group)
    assert len(faces) == len(corners)
    for face in faces:
        offsets = face.landmarks - (BY_EYE - FACE_BOX[:2])
        assert min(np.abs(offsets - corner).max() for corner in corners) < 4


def test_a_face_that_fills_the_picture(detector, astronaut):
    for box in ((178, 60, 270, 170), (185, 75, 262, 165)):
        (face,) = detector.detect(astronaut.crop(box))
        assert np.abs(face.landmarks + box[:2] - BY_EYE).max() < 6


def test_a_face_cut_by_the_edge_keeps_its_landmarks(detector, astronaut):
    (face,) = detector.detect(astronaut.crop((0, 75, 512, 512)))
    assert np.abs(face.landmarks - BY_EYE + np.array([0, 75])).max() < 5


def test_no_face_is_an_empty_list(detector):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    drawing = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(drawing).ellipse((100, 100, 300, 400), fill="orange")
    for image in (
        Image.new("RGB", (64, 64)),
        Image.fromarray(noise),
        drawing,
        Image.new("RGB", (32, 2000)),
    ):
        assert detector.detect(image) == []


def test_things_that_are_no_faces(detector):
    data = pytest.importorskip("skimage.data")
    for name in ("chelsea", "coffee", "rocket"):
        try:
            image = getattr(data, name)()
        except ImportError:  # pooch, which fetches some of them, is not installed
            continue
        assert detector.detect(Image.fromarray(image)) == [], name


def test_other_modes_are_read(detector, astronaut):
    (face,) = detector.detect(astronaut.convert("L"))
    assert np.abs(face.landmarks - BY_EYE).max() < 5


def test_detection_is_deterministic(detector, astronaut):
    first, second = (FaceDetector().detect(astronaut)[0] for _ in range(2))
    assert np.array_equal(first.landmarks, second.landmarks) and first.box == second.box


def test_settings_are_checked_and_used(astronaut):
    with pytest.raises(ConfigError, match="threshold"):
        FaceDetector(threshold=1.5)
    with pytest.raises(ConfigError, match="min_face_px"):
        FaceDetector(min_face_px=5)
    assert FaceDetector(min_face_px=200).detect(astronaut) == []
