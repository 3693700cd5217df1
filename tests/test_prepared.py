"""A prepared photo gives what the photo itself gives, in every style and by every way of stylizing."""

import copy
import dataclasses

import numpy as np
import pytest
from PIL import Image

from facestyle.errors import ConfigError
from facestyle.styles import OWN_ENCODER
from facestyle.stylizer import FaceStylizer


@pytest.fixture(scope="module")
def stylizer(tiny_stylizer):
    return tiny_stylizer


@pytest.fixture(scope="module")
def crowd(astronaut) -> Image.Image:
    """The same face twice, one larger."""
    photo = Image.new("RGB", (1000, 520), "white")
    photo.paste(astronaut, (0, 0))
    photo.paste(astronaut.resize((400, 400), Image.Resampling.LANCZOS), (560, 0))
    return photo


@pytest.fixture(scope="module")
def prepared(stylizer, crowd):
    return stylizer.prepare(crowd)


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    "options", [{}, {"strength": 0.5, "psi": 0.3, "keep_color": 0.7, "faces": [1]}]
)
def test_it_is_drawn_as_the_photo_is(stylizer, crowd, prepared, options):
    mine, direct = stylizer(prepared, **options), stylizer(crowd, **options)
    assert same(mine.image, direct.image)
    assert mine.settings == direct.settings
    assert [face.box for face in mine.faces] == [face.box for face in direct.faces]
    assert "detect" not in mine.seconds


def test_variations_and_references_take_it_too(stylizer, crowd, prepared):
    mine = stylizer.variations(prepared, 2, mixing_level=3)
    direct = stylizer.variations(crowd, 2, mixing_level=3)
    assert len(mine[0].faces) == 1
    assert all(same(a.image, b.image) for a, b in zip(mine, direct, strict=True))
    assert mine[1].settings == direct[1].settings


def test_it_was_refined_once_and_results_say_so(stylizer, crowd, prepared):
    refined = stylizer.prepare(prepared, refine=1)
    direct = stylizer(crowd, refine=1)
    assert refined.seconds["refine"] > 0
    assert same(stylizer(refined).image, direct.image)
    assert stylizer(refined).settings == direct.settings
    assert direct.settings["refine"] == 1
    with pytest.raises(ConfigError, match="1 steps of refine already"):
        stylizer(refined, refine=5)


def test_another_encoder_or_space_is_refused(stylizer, prepared, crowd):
    assert prepared.encoder_id == "base"
    config = dataclasses.replace(stylizer.config, encoder=OWN_ENCODER)
    encoders = [copy.deepcopy(stylizer.encoder) for _ in range(2)]
    encoders[1].start.add_(0.1)
    first, second = (
        FaceStylizer(stylizer.generator, stylizer.base, one, config, device="cpu", dtype="float32")
        for one in encoders
    )
    own = first.prepare(crowd, faces="largest")
    assert same(first(own).image, first(crowd, faces="largest").image)
    for other, photo in ((first, prepared), (second, own), (stylizer, own)):
        with pytest.raises(ConfigError, match="another base generator or encoder"):
            other(photo)
    with pytest.raises(ConfigError, match="prepared in w, and z_plus"):
        stylizer(prepared, content_space="z_plus")


def test_no_face_chosen_is_named(stylizer, prepared, crowd):
    for photo in (prepared, crowd):
        with pytest.raises(ConfigError, match="faces is an empty list"):
            stylizer(photo, faces=[])


def test_a_photo_without_faces_comes_back_as_it_was(stylizer):
    grey = Image.new("RGB", (200, 100), "grey")
    assert same(stylizer(stylizer.prepare(grey, on_no_face="skip")).image, grey)
