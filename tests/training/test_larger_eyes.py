"""Eyes get larger where they are, and nothing else in the picture changes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.errors import ConfigError
from facestyle.faces.align import align
from facestyle.faces.detect import FaceDetector
from facestyle.faces.windows import EYES
from facestyle.models.features import LiteFeatures
from facestyle.training.finetune import finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.larger_eyes import enlarge_eyes, find_eyes
from facestyle.training.losses import SemanticLoss


def _levels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def face(astronaut) -> torch.Tensor:
    """The astronaut's aligned face [1, 3, 256, 256]."""
    return _levels(align(astronaut, FaceDetector().detect(astronaut)[0].quad, 256))


def _spread(picture: torch.Tensor) -> tuple[float, float]:
    """Width and height (standard deviations, in pixels) of what is dark in a picture of one dark spot."""
    weight = (1 - picture[0, 0]).clamp(min=0) / 2
    at = torch.arange(len(weight)) + 0.5
    result = []
    for axis in (0, 1):
        mass = weight.sum(axis)
        middle = (mass * at).sum() / mass.sum()
        result.append(float(((mass * (at - middle) ** 2).sum() / mass.sum()).sqrt()))
    return result[0], result[1]


@pytest.mark.parametrize("scale", [1.4, 1.8])
def test_a_small_eye_grows_by_the_scale_and_by_its_root_in_width(scale):
    at = (torch.arange(256) + 0.5) / 256
    away = (at[None] - 0.385).square() + (at[:, None] - 0.475).square()
    small = (1 - 2 * torch.exp(-away / (2 * 0.004**2))).expand(1, 3, -1, -1)
    wide, high = _spread(small)
    grown = _spread(enlarge_eyes(small, torch.tensor([EYES]), scale))
    assert grown[0] / wide == pytest.approx(scale**0.5, rel=0.04)
    assert grown[1] / high == pytest.approx(scale, rel=0.06)


def test_only_the_surroundings_of_the_eyes_change(face):
    eyes = find_eyes(face)
    grown = enlarge_eyes(face, eyes, 1.8)
    changed = ((grown - face).abs().amax(1) > 0.02)[0]
    at = (torch.arange(256) + 0.5) / 256
    places = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)
    away = (places[:, :, None] - eyes[0]).norm(dim=-1).amin(-1)
    assert away[changed].max() < 0.16
    assert changed[away < 0.08].float().mean() > 0.6
    assert torch.equal(enlarge_eyes(face, eyes, 1.0), face)


def test_eyes_are_found_in_mirrored_pictures_and_guessed_where_there_is_no_face(face):
    left, right = find_eyes(face)[0]
    assert abs(float(left[0]) - 0.38) < 0.04 and abs(float(right[0]) - 0.62) < 0.04
    mirrored = find_eyes(face.flip(-1))[0]
    torch.testing.assert_close(mirrored[0, 0], 1 - right[0], rtol=0, atol=0.01)
    torch.testing.assert_close(find_eyes(torch.zeros(1, 3, 64, 64)), torch.tensor([EYES]))
    shifted = face.roll(64, 3)  # a face that is not aligned
    torch.testing.assert_close(find_eyes(shifted), torch.tensor([EYES]))


def test_the_eyes_count_where_eyes_are(face):
    features = LiteFeatures()
    plain = SemanticLoss(features, 0.1, 0.0, finest=3)
    eyed = SemanticLoss(features, 0.1, 0.0, finest=3, eye_weight=1.0)

    def added(top: int) -> float:
        img = face.clone()
        img[:, :, top : top + 20, 88:110] = -img[:, :, top : top + 20, 88:110]
        return float(eyed(img, face) - plain(img, face))

    assert added(112) > 20 * abs(added(200))
    assert added(112) > 0.01


def test_training_follows_people_with_larger_eyes(tiny, folder, tmp_path):
    def sem(**changed) -> float:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        config = FinetuneConfig(
            coarse_steps=1, coarse_batch=2, full_steps=0, adversarial_weight=0, pair_weight=0,
            preview_every=8, **changed,
        )  # fmt: skip
        finetune(tiny, folder, out, config, progress=False)
        return float(json.loads((out / "log.jsonl").read_text().splitlines()[0])["sem"])

    assert sem() < 1e-4  # the first step draws what G draws
    assert sem(eye_scale=2.0) > 0.001
    assert sem(eye_scale=2.0, eye_weight=1.0) > sem(eye_scale=2.0) + 0.01


def test_a_scale_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="eye_scale"):
        FinetuneConfig(eye_scale=0.5)
    with pytest.raises(ConfigError, match="1 to 3"):
        enlarge_eyes(torch.zeros(1, 3, 64, 64), torch.tensor([EYES]), 4.0)
