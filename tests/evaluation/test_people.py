"""Whom styles are measured on: the same faces for every generator, as files would hold them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from facestyle.errors import ConfigError, ImageError
from facestyle.evaluation.people import (
    draw,
    encode_people,
    pil_pictures,
    sample_people,
    sample_w,
    spread,
    to_levels,
)
from facestyle.image import to_pil
from facestyle.latents import broadcast
from facestyle.models.generator import sample_z
from facestyle.models.mobile import MobileGenerator


@pytest.fixture(scope="module")
def generator() -> MobileGenerator:
    torch.manual_seed(0)
    net = MobileGenerator((8, 8, 8, 8), w_dim=16, mapping_depth=1, preview_resolution=32)
    net.eval().requires_grad_(False)
    # Fresh weights draw grey; spread the pictures' values over the range.
    for head, side_px in (("to_image", None), ("to_preview", 32)):
        img = net(sample_z(4, 0, 16), resolution=side_px)
        net.synthesis.get_submodule(head).weight.mul_(0.4 / img.std())  # type: ignore[operator]
    return net


def test_each_seed_is_one_person_however_many_are_drawn(generator: MobileGenerator) -> None:
    three = sample_w(generator, 3, 0.7, first_seed=200)
    torch.testing.assert_close(three[2:], sample_w(generator, 1, 0.7, first_seed=202))
    assert (three[1] - three[2]).abs().max() > 0.1
    assert torch.equal(sample_w(generator, 2, 0.0)[1], generator.w_avg)


def test_pictures_are_the_generators_made_small(generator: MobileGenerator) -> None:
    people = sample_people(generator, 2, psi=0.7, side_px=32)
    assert people.sources.float().std() > 2  # pictures of something
    full = generator.synthesis(broadcast(people.w[1:], generator.num_ws))
    small = F.interpolate(full, size=32, mode="area")
    assert torch.equal(people.sources[1:], to_levels(small))
    assert torch.equal(people.drawn_by(generator), people.sources)
    previews = sample_people(generator, 2, psi=0.7, side_px=32, is_preview=True)
    cheap = generator.synthesis(broadcast(people.w[1:], generator.num_ws), resolution=32)
    assert torch.equal(previews.sources[1:], to_levels(cheap))
    assert torch.equal(previews.drawn_by(generator), previews.sources)


def test_levels_are_those_of_a_saved_file() -> None:
    img = torch.linspace(-1.2, 1.2, 3 * 8 * 8).view(1, 3, 8, 8)
    (picture,) = pil_pictures(to_levels(img))
    assert picture.tobytes() == to_pil(img).tobytes()


def test_diverged_weights_are_an_error(generator: MobileGenerator) -> None:
    with pytest.raises(ImageError, match="diverged"):
        draw(generator, torch.full((1, 16), torch.nan), side_px=32)


def test_sides_and_counts_that_cannot_be_are_errors(generator: MobileGenerator) -> None:
    with pytest.raises(ConfigError, match="1 to 64"):
        sample_people(generator, 1, psi=0.7, side_px=128)
    with pytest.raises(ConfigError, match="1 to 32, the side of its previews"):
        sample_people(generator, 1, psi=0.7, side_px=64, is_preview=True)
    with pytest.raises(ConfigError, match="1 person"):
        sample_people(generator, 0, psi=0.7)


def test_photos_are_encoded_truncated_and_kept(generator: MobileGenerator) -> None:
    encoder: Any = lambda photo: generator.w_avg[None] + photo.mean()  # noqa: E731
    photos = [Image.new("RGB", (140 + i, 140 + i), (100 * i, 50, 50)) for i in range(3)]
    people = encode_people(generator, encoder, photos, psi=0.5, side_px=32, limit=2)
    assert people.who == "2 encoded photos, psi 0.5"
    assert people.photos is not None and people.photos.shape == people.sources.shape
    assert people.photos[1, :, 5, 5].tolist() == [100, 50, 50]
    mean = (200 / 3) / 127.5 - 1
    torch.testing.assert_close(people.w[1] - generator.w_avg, torch.full((16,), 0.5 * mean))


def test_photos_that_are_no_aligned_faces_are_errors(generator: MobileGenerator) -> None:
    encoder: Any = lambda photo: generator.w_avg[None]  # noqa: E731
    for size in ((140, 150), (100, 100)):
        with pytest.raises(ImageError, match=f"got {size[0]}x{size[1]}"):
            encode_people(generator, encoder, [Image.new("RGB", size)], psi=1, side_px=32)
    with pytest.raises(ConfigError, match="1 photo"):
        encode_people(generator, encoder, [], psi=1, side_px=32)
    with pytest.raises(ConfigError, match="limit"):
        encode_people(generator, encoder, [], psi=1, side_px=32, limit=0)


def test_a_choice_is_spread_over_all() -> None:
    assert spread(47, 24)[::23] == [0, 45] and len(spread(47, 24)) == 24
    assert spread(3, 8) == [0, 1, 2] and spread(0, 8) == []
