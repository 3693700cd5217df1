"""Faces of every size and place are found, once, with steady landmarks."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from facestyle.errors import CheckpointError, ConfigError
from facestyle.faces import detect
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


@pytest.mark.parametrize(("turns", "size"), [(1, (512, 512)), (2, (512, 400)), (3, (512, 400))])
def test_a_face_that_lies_on_its_side_or_upside_down(detector, astronaut, turns, size):
    upright = astronaut.crop((0, 0, *size))
    (face,) = detector.detect(upright)
    (lying,) = detector.detect(Image.fromarray(np.rot90(np.asarray(upright), turns)))
    x, y = face.landmarks.T
    right, bottom = size[0] - 1, size[1] - 1
    expected = {1: (y, right - x), 2: (right - x, bottom - y), 3: (bottom - y, x)}[turns]
    assert np.abs(lying.landmarks - np.stack(expected, axis=1)).max() < 1
    left, top, right, bottom = lying.box
    assert left < lying.landmarks[:, 0].min() and lying.landmarks[:, 0].max() < right
    assert top < lying.landmarks[:, 1].min() and lying.landmarks[:, 1].max() < bottom


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


def test_a_small_face_beside_a_large_one_in_a_large_photo(detector, portrait):
    photo = Image.new("RGB", (4000, 3000), (150, 160, 170))
    photo.paste(portrait.resize((2100, 2150), Image.Resampling.LANCZOS), (300, 400))
    (alone,) = detector.detect(photo)
    photo.paste(portrait.resize((84, 86), Image.Resampling.LANCZOS), (3300, 600))
    large, small = detector.detect(photo)
    assert 60 < small.side_px < 75  # about 1/60 of the long side
    landmarks = (BY_EYE - FACE_BOX[:2]) * 84 / 210 + (3300, 600)
    assert np.abs(small.landmarks - landmarks).max() < 4
    assert np.array_equal(large.landmarks, alone.landmarks)


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


@pytest.mark.parametrize("count", [0, 1, 40, 1500])
def test_suppression_is_torchvisions(count):
    ops = pytest.importorskip("torchvision.ops")
    rng = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=rng) * 60
    boxes = torch.cat([corner, corner + 5 + 30 * torch.rand(count, 2, generator=rng)], dim=1)
    scores = torch.rand(count, generator=rng)
    for limit in (0.3, 0.7):
        assert torch.equal(detect._suppress(boxes, scores, limit), ops.nms(boxes, scores, limit))


@pytest.mark.parametrize("size", [(300, 200), (30, 40)])
def test_windows_are_those_of_roi_align(size):
    ops = pytest.importorskip("torchvision.ops")
    rng = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, (3, *size), generator=rng, dtype=torch.uint8)
    side = 5 + 43 * torch.rand(50, 1, generator=rng)
    corner = torch.rand(50, 2, generator=rng) * torch.tensor([size[1], size[0]]) - side / 2
    boxes = torch.cat([corner, corner + side], dim=1)
    indexed = torch.cat([torch.zeros(50, 1), boxes], dim=1)
    picture = ((levels.float() - 127.5) / 128)[None]
    wanted = ops.roi_align(picture, indexed, 24, sampling_ratio=2, aligned=True)
    windows = detect._read_boxes(levels, boxes, 24).transpose(1, 2)
    torch.testing.assert_close(windows, wanted, rtol=0, atol=2e-4)


def test_networks_are_facenet_pytorchs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mtcnn = pytest.importorskip("facenet_pytorch.models.mtcnn")
        theirs = mtcnn.PNet().eval(), mtcnn.RNet().eval(), mtcnn.ONet().eval()
    p_net, r_net, o_net = detect._networks("cpu")
    rng = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        for side in (37, 38):
            x = torch.randn(1, 3, side, side, generator=rng)
            shifts, scores = theirs[0](x)
            got = p_net(x)
            torch.testing.assert_close(got[0], scores[0, 1], rtol=0, atol=1e-5)
            torch.testing.assert_close(got[1], shifts[0].permute(1, 2, 0), rtol=1e-4, atol=1e-5)
        x = torch.randn(3, 3, 24, 24, generator=rng)
        shifts, scores = theirs[1](x)
        for a, b in zip(r_net(x), (scores[:, 1], shifts), strict=False):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        x = torch.randn(3, 3, 48, 48, generator=rng)
        shifts, points, scores = theirs[2](x)
        for a, b in zip(o_net(x), (scores[:, 1], shifts, points), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_damaged_weights_are_named(tmp_path):
    (tmp_path / "pnet.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"pnet\.pt"):
        detect._weights(tmp_path / "pnet.pt")
