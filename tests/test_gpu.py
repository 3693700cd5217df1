"""The way of a photo on a GPU: near to what the CPU draws."""

import copy

import numpy as np
import pytest
import torch

from facestyle import FaceStylizer
from facestyle.evaluation.metrics import StyleJudge, portrait_metrics
from facestyle.evaluation.people import to_levels
from facestyle.faces.detect import FaceDetector

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cartoon():
    return FaceStylizer.from_pretrained("cartoon", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def on_gpu(gpu):
    return FaceStylizer.from_pretrained("cartoon", device=gpu, dtype="float32")


@pytest.fixture(scope="module")
def tiny_on_gpu(tiny_stylizer, gpu):
    """The tiny stylizer's networks, copied: those of the fixture stay where they are."""
    nets = [
        copy.deepcopy(net)
        for net in (tiny_stylizer.generator, tiny_stylizer.base, tiny_stylizer.encoder)
    ]
    return FaceStylizer(*nets, tiny_stylizer.config, device=gpu, dtype="float32")


def difference(first, second) -> float:
    """Mean difference of two pictures in levels of 255."""
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 0.5),
        ({"strength": 0.5, "seed": 3}, 0.5),
        ({"keep_color": 0.7, "keep_texture": 0.5, "keep_shape": 0.5}, 0.5),
        ({"content_space": "z_plus"}, 1.0),
        ({"refine": 4}, 4.0),  # whose steps part ways by rounding
    ],
)
def test_pictures_are_the_cpus(cartoon, on_gpu, astronaut, options, most):
    ours, wanted = on_gpu(astronaut, **options), cartoon(astronaut, **options)
    assert difference(ours.faces[0].portrait, wanted.faces[0].portrait) < most
    assert difference(ours.image, wanted.image) < most


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16"])
def test_fewer_bits_move_pixels_little(cartoon, astronaut, gpu, dtype):
    stylizer = FaceStylizer.from_pretrained("cartoon", device=gpu, dtype=dtype)
    assert difference(stylizer(astronaut).image, cartoon(astronaut).image) < 3


def test_a_list_is_drawn_in_batches(cartoon, on_gpu, astronaut):
    photos = [astronaut, astronaut.crop((60, 0, 400, 340)), astronaut.resize((300, 300))] * 4
    for ours, wanted in zip(on_gpu(photos), cartoon(photos), strict=True):
        assert difference(ours.image, wanted.image) < 0.5
    assert set(ours.seconds) == set(wanted.seconds)


def test_variations_and_references_are_the_cpus(cartoon, on_gpu, astronaut, tmp_path):
    for ours, wanted in zip(
        on_gpu.variations(astronaut, 3), cartoon.variations(astronaut, 3), strict=True
    ):
        assert difference(ours.faces[0].portrait, wanted.faces[0].portrait) < 0.5
    code = on_gpu.encode_reference(astronaut, steps=3)
    start = on_gpu.encode_reference(astronaut, steps=0)
    assert code.w_plus.device.type == "cpu" and code.loss < start.loss
    code.save(tmp_path / "code.safetensors")
    made = [stylizer.with_reference(astronaut, code) for stylizer in (on_gpu, cartoon)]
    assert difference(made[0].image, made[1].image) < 0.5


def test_a_prepared_photo_goes_from_device_to_device(cartoon, on_gpu, astronaut):
    prepared = on_gpu.prepare(astronaut)
    assert difference(cartoon(prepared).image, on_gpu(prepared).image) < 0.5


@pytest.mark.parametrize("space", ["w", "v", "w_plus", "z_plus"])
def test_every_space_is_searched(tiny_on_gpu, astronaut, space):
    code = tiny_on_gpu.encode_reference(astronaut, steps=4, space=space, init="mean", aligned=True)
    assert code.w_plus.isfinite().all()


def test_faces_are_found_in_the_same_places(astronaut, gpu):
    (ours,), (wanted,) = (
        FaceDetector(torch.device(device)).detect(astronaut) for device in (gpu, "cpu")
    )
    assert np.abs(ours.quad - wanted.quad).max() < 0.5


def test_a_style_is_saved_and_loaded(tiny_on_gpu, tmp_path, gpu):
    tiny_on_gpu.save_pretrained(tmp_path / "mine", samples=False)
    assert (tmp_path / "mine" / "generator.safetensors").is_file()


def test_metrics_are_the_cpus(gpu):
    rng = torch.Generator().manual_seed(0)
    pictures = torch.rand(6, 3, 128, 128, generator=rng) * 2 - 1
    sources = to_levels(pictures.flip(0))
    rows = []
    for device in (gpu, "cpu"):
        judge = StyleJudge.load(
            [], measures=("perceptual", "identity"), judge_name="auto", device=torch.device(device)
        )
        rows.append(
            portrait_metrics(judge, to_levels(pictures), sources, style="x", variant="y", who="z")
        )
    for name in ("perceptual", "identity_distance"):
        ours, wanted = (row["photos"][name]["value"] for row in rows)
        assert ours == pytest.approx(wanted, abs=0.01)
