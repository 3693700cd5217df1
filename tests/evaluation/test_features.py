"""A set's features are computed once, and again whenever they no longer hold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facestyle.errors import DatasetError
from facestyle.evaluation.features import iter_pictures, set_features


class Means:
    """Stands for a network: each picture's channel means; counts how often it is asked."""

    def __init__(self, name: str = "means") -> None:
        self.name = name
        self.calls = 0

    def __call__(self, images: Iterable[Image.Image]) -> np.ndarray:
        self.calls += 1
        return np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in images])


@pytest.fixture
def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (40, 40), (20 * i, 50, 90)) for i in range(4)]


def test_a_cache_is_used_again(tmp_path: Path, pictures: list[Image.Image]) -> None:
    net, cache = Means(), tmp_path / "deep" / "style.safetensors"
    first = set_features(pictures, {"means": net}, cache)
    second = set_features(pictures, {"means": net}, cache)
    assert net.calls == 1
    np.testing.assert_array_equal(first["means"], second["means"])
    np.testing.assert_allclose(first["means"][3], [60, 50, 90])


def test_a_cache_of_other_pictures_or_another_network_does_not_count(
    tmp_path: Path, pictures: list[Image.Image]
) -> None:
    net, cache = Means(), tmp_path / "style.safetensors"
    set_features(pictures, {"means": net}, cache)
    assert len(set_features(pictures[:3], {"means": net}, cache)["means"]) == 3
    assert net.calls == 2
    renamed = Means("means, another preprocessing")
    set_features(pictures[:3], {"means": renamed}, cache)
    assert renamed.calls == 1


def test_one_file_holds_the_features_of_several_networks(
    tmp_path: Path, pictures: list[Image.Image]
) -> None:
    one, two, cache = Means("one"), Means("two"), tmp_path / "style.safetensors"
    set_features(pictures, {"a": one}, cache)
    both = set_features(pictures, {"a": one, "b": two}, cache)
    assert sorted(both) == ["a", "b"]
    set_features(pictures, {"a": one}, cache)
    set_features(pictures, {"b": two}, cache)
    assert (one.calls, two.calls) == (1, 1)


def test_a_damaged_cache_is_replaced(tmp_path: Path, pictures: list[Image.Image]) -> None:
    net, cache = Means(), tmp_path / "style.safetensors"
    cache.write_bytes(b"half a file")
    set_features(pictures, {"means": net}, cache)
    set_features(pictures, {"means": net}, cache)
    assert net.calls == 1


def test_folders_and_pictures_can_be_mixed(tmp_path: Path, pictures: list[Image.Image]) -> None:
    pictures[0].save(tmp_path / "a.png")
    pictures[1].save(tmp_path / "b.png")
    mixed = list(iter_pictures([tmp_path, pictures[2]]))
    assert [image.getpixel((0, 0))[0] for image in mixed] == [0, 20, 40]  # type: ignore[index]
    assert len(set_features(tmp_path, {"means": Means()})["means"]) == 2


def test_a_picture_and_its_file_are_one(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    shown = [image.getpixel((0, 0)) for image in iter_pictures([clear, tmp_path])]
    assert shown == [(255, 255, 255)] * 2


def test_no_such_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        set_features(tmp_path / "nowhere", {"means": Means()}, tmp_path / "cache.safetensors")
