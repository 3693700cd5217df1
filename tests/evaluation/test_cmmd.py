"""CMMD agrees with its formula worked out by hand; CLIP sees pictures as it was trained to."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.errors import ConfigError, DownloadError
from facestyle.evaluation import cmmd as module
from facestyle.evaluation.cmmd import MEAN, STD, ClipFeatures, clip_input, cmmd, load_clip


def unit(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)) + shift
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_identical_sets_are_at_zero() -> None:
    a = unit(40, 16, 0)
    assert cmmd(a, a[::-1]).value == pytest.approx(0.0, abs=1e-9)


def test_two_points_by_hand() -> None:
    # k(x, x) = 1; opposite points are 2 apart: k = exp(-4 / 200)
    a, b = np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])
    result = cmmd(a, b)
    assert result.value == pytest.approx(1000 * (2 - 2 * math.exp(-0.02)), rel=1e-12)
    assert (result.n_a, result.n_b) == (1, 1)


def test_a_pair_against_a_point_by_hand() -> None:
    # x1 = e1, x2 = e2 (|x1 - x2|^2 = 2), y = e1
    k = math.exp(-2 / 200)
    within = (1 + k + k + 1) / 4  # biased: each point with itself as well
    across = (1 + k) / 2
    value = cmmd(np.eye(2), np.array([[1.0, 0.0]])).value
    assert value == pytest.approx(1000 * (within + 1 - 2 * across), rel=1e-9)


def test_order_does_not_matter_and_distance_grows_with_the_shift() -> None:
    a, b, c = unit(30, 8, 0), unit(20, 8, 1, shift=0.5), unit(20, 8, 1, shift=2.0)
    assert cmmd(a, b).value == pytest.approx(cmmd(b, a).value, rel=1e-9)
    assert cmmd(a, unit(30, 8, 2)).value < cmmd(a, b).value < cmmd(a, c).value


def test_in_chunks_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = unit(23, 6, 0), unit(17, 6, 1)
    whole = cmmd(a, b).value
    monkeypatch.setattr(module, "CHUNK", 5)
    assert cmmd(a, b).value == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((0, 4)), np.zeros((5, 4))),
        (np.zeros((5, 4)), np.zeros((5, 3))),
        (np.zeros(4), np.zeros(4)),
        (np.full((5, 4), np.nan), np.zeros((5, 4))),
    ],
)
def test_unusable_features_are_an_error(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="features"):
        cmmd(a, b)


def test_clip_sees_the_middle_square_normalised() -> None:
    wide = Image.new("RGB", (100, 40), (255, 0, 0))
    wide.paste((0, 0, 255), (30, 0, 70, 40))
    x = clip_input(wide, 28)
    assert x.shape == (3, 28, 28)
    for channel, level in enumerate((0.0, 0.0, 1.0)):
        expected = (level - MEAN[channel]) / STD[channel]
        np.testing.assert_allclose(x[channel].numpy(), expected, atol=1e-5)


def test_clear_pixels_are_white_and_grey_has_three_channels() -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    white = Image.new("RGB", (40, 40), "white")
    assert torch.equal(clip_input(clear, 28), clip_input(white, 28))
    assert clip_input(Image.new("L", (40, 40), 128), 28).shape == (3, 28, 28)


def test_features_are_of_unit_length_and_do_not_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def net(*, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=pixel_values.mean((2, 3)) * 3)

    images = [Image.new("RGB", (40, 40), (40 * i, 90, 10)) for i in range(5)]
    features = ClipFeatures(net, side_px=28)
    whole = features(images)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    monkeypatch.setattr(module, "BATCH", 2)
    np.testing.assert_allclose(features(iter(images)), whole, atol=1e-6)
    with pytest.raises(ConfigError, match="at least one"):
        features([])


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install transformers"):
        load_clip()


def test_offline_it_fails_before_transformers_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "REPOSITORY", "facestyle/no-such-model")
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it would be an ImportError
    with pytest.raises(DownloadError, match=r"not in the Hugging Face cache.*1.7 GB"):
        load_clip()
    with pytest.raises(DownloadError, match="could not be fetched"):
        load_clip(allow_download=True)


@pytest.mark.slow  # transformers takes its time to import
def test_a_tiny_clip_gives_features_and_tells_sets_apart() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        projection_dim=16,
    )
    net = transformers.CLIPVisionModelWithProjection(config).eval()
    features = ClipFeatures(net, side_px=56)
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)) for _ in range(9)]
    flat = [Image.new("RGB", (40, 40), (30 * i, 99, 9)) for i in range(8)]
    a, b = features(noise), features(flat)
    assert a.shape == (9, 16)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    assert cmmd(a, b).value > 10 * cmmd(a[:4], a[4:]).value > 0
