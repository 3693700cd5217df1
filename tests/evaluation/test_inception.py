"""Pictures reach Inception as clean-fid would hand them over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from facestyle.errors import CheckpointError, ConfigError
from facestyle.evaluation import inception
from facestyle.evaluation.inception import (
    InceptionFeatures,
    load_inception,
    resize_like_clean_fid,
)


class Means(nn.Module):
    """Stands for the network: each picture's channel means."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, 299, 299)
        return x.mean((2, 3))


def noise_image(size: tuple[int, int], seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_resize_keeps_channels_floats_and_overshoot() -> None:
    edge = Image.new("RGB", (64, 64), (10, 200, 30))
    edge.paste((10, 255, 30), (0, 0, 32, 64))
    x = resize_like_clean_fid(edge)
    assert x.shape == (3, 299, 299) and x.dtype == torch.float32
    assert x[0].unique().tolist() == pytest.approx([10.0])
    assert x[2, 0, 0] == 30
    assert x[1].max() > 255.5  # bicubic overshoot, neither clipped
    assert (x[1] % 1).abs().max() > 0.1  # nor rounded


def test_resize_averages_when_it_shrinks() -> None:
    image = noise_image((1196, 1196), 0)
    x = resize_like_clean_fid(image)
    assert x.std() < np.asarray(image, np.float64).std() / 3  # a plain bicubic would keep it


def test_features_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [noise_image((40 + i, 50), i) for i in range(5)]
    features = InceptionFeatures(Means())
    whole = features(iter(images))
    monkeypatch.setattr(inception, "BATCH", 2)
    assert whole.shape == (5, 3) and whole.dtype == np.float32
    np.testing.assert_array_equal(features(images), whole)


def test_the_network_sees_rgb_between_minus_one_and_one() -> None:
    (found,) = InceptionFeatures(Means())([Image.new("RGB", (20, 30), (0, 128, 255))])
    np.testing.assert_allclose(found, [-1.0, 0.0, 127 / 128], atol=1e-6)


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        InceptionFeatures(Means())([])


def test_a_damaged_network_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "inception" / "fid_inception_v3.pt"
    path.parent.mkdir()
    path.write_bytes(b"not a network")
    monkeypatch.setenv("FACESTYLE_CACHE", str(tmp_path))
    monkeypatch.setattr(inception, "_installed", lambda: None)
    with pytest.raises(CheckpointError, match="sha256") as caught:
        load_inception()
    assert caught.value.path == path


@pytest.mark.network
def test_the_real_network_gives_2048_features_that_tell_pictures_apart() -> None:
    noise = noise_image((299, 299), 0)
    softer = Image.blend(noise, Image.new("RGB", noise.size, "gray"), 0.05)
    other = noise_image((8, 8), 1).resize((299, 299), Image.Resampling.BICUBIC)
    features = load_inception()([noise, softer, other])
    assert features.shape == (3, 2048)
    assert features.min() >= 0  # means of rectified maps
    near, far = (np.linalg.norm(features[0] - features[i]) for i in (1, 2))
    assert 0 < near < far / 3
