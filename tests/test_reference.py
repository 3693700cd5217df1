"""References: V space, the search for a code, its file, and what mixing makes of it."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import facestyle.reference
from facestyle.bench import sample_photo
from facestyle.errors import CheckpointError, ConfigError, LatentShapeError, OutputError
from facestyle.faces.align import align, full_image_quad
from facestyle.image import to_pil, to_tensor
from facestyle.inversion import ReconstructionLoss
from facestyle.latents import blend, broadcast
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.generator import sample_z
from facestyle.models.zoo import load_base_generator, load_encoder, load_style_generator
from facestyle.reference import (
    STEPS,
    ReferenceCode,
    encode_reference,
    modulation_weights,
    naturalness,
    v_basis,
)
from facestyle.styles import StyleConfig, bundled_style

ROWS = 8  # of the tiny generator


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def picture(tiny_stylizer) -> Image.Image:
    """Drawn by the tiny style itself."""
    w = tiny_stylizer.base.mapping(sample_z(1, 3, 8))
    return to_pil(tiny_stylizer.generator.synthesis(broadcast(w, ROWS)))


@pytest.fixture(scope="module")
def code(tiny_stylizer, picture) -> ReferenceCode:
    return tiny_stylizer.encode_reference(picture, steps=3, aligned=True)


@pytest.fixture(scope="module")
def general(tiny_stylizer, astronaut):
    return tiny_stylizer(astronaut, aligned=True)


# --- V space


def test_v_is_w_turned(tiny_stylizer):
    for generator in (tiny_stylizer.generator, load_base_generator()):
        basis = v_basis(generator)
        size = generator.w_dim
        assert basis.shape == (size, size)
        torch.testing.assert_close(basis @ basis.T, torch.eye(size), atol=1e-5, rtol=0)
        w = generator.mapping(sample_z(4, 0, size))
        v = w @ basis.T
        torch.testing.assert_close(v @ basis, w, atol=1e-5, rtol=0)
        torch.testing.assert_close((v @ basis) @ basis.T, v, atol=1e-5, rtol=0)


def test_axes_of_v_are_the_singular_vectors_of_the_full_pictures_modulations(tiny_stylizer):
    synthesis = tiny_stylizer.generator.synthesis
    weights = modulation_weights(synthesis)
    assert len(weights) == 1 + 3 * len(synthesis.blocks) + 1  # stem, blocks, the picture's head
    assert all(matrix.shape[1] == 8 for matrix in weights)
    assert not any(matrix is synthesis.to_preview.affine.weight for matrix in weights)
    _, values, expected = torch.linalg.svd(torch.cat(weights).double())
    assert (values[:-1] > values[1:]).all()
    turn = v_basis(tiny_stylizer.generator).double() @ expected.T
    torch.testing.assert_close(turn.abs(), torch.eye(8).double(), atol=1e-4, rtol=0)


def test_another_architecture_supplies_its_own_modulations():
    class Other(nn.Linear):
        pass

    net = Other(8, 5)
    with pytest.raises(ConfigError, match="Other"):
        modulation_weights(net)
    modulation_weights.register(Other, lambda synthesis: [synthesis.weight])
    assert modulation_weights(net)[0] is net.weight


# --- the search


def test_a_real_styles_own_picture_is_found_again():
    folder = bundled_style("illustration")
    base = load_base_generator()
    generator = load_style_generator(folder, base)
    w = base.w_avg + 0.7 * (base.mapping(sample_z(1, 12)) - base.w_avg)
    with torch.no_grad():
        full = generator.synthesis(broadcast(w, generator.num_ws)).clamp(-1, 1)
    drawn = F.interpolate(full, size=256, mode="area")
    config = StyleConfig.from_file(folder / "config.json")
    start = encode_reference(generator, drawn, config, steps=0)
    found = encode_reference(generator, drawn, config, steps=10)
    torch.testing.assert_close(
        start.w_plus, broadcast(base.w_avg[None], 16)[0], atol=1e-5, rtol=1e-5
    )
    assert found.loss < 0.7 * start.loss
    assert (found.style, found.space, found.init, found.steps) == ("illustration", "v", "mean", 10)
    nearer = encode_reference(generator, drawn, config, steps=0, encoder=load_encoder(), space="w")
    assert nearer.loss < 0.9 * start.loss


@pytest.mark.parametrize("space", ["v", "w", "w_plus", "z_plus"])
def test_every_space_is_searched_and_ends_no_worse_than_it_began(tiny_stylizer, picture, space):
    begin = tiny_stylizer.encode_reference(picture, space=space, init="mean", steps=0, aligned=True)
    end = tiny_stylizer.encode_reference(picture, space=space, init="mean", steps=12, aligned=True)
    assert end.w_plus.shape == (ROWS, 8)
    assert end.w_plus.dtype == torch.float32
    assert end.loss <= begin.loss
    is_one_code = bool((end.w_plus == end.w_plus[0]).all())
    assert is_one_code == (space in ("v", "w") or end.loss == begin.loss)
    again = tiny_stylizer.encode_reference(
        picture, space=space, init="mean", steps=12, aligned=True
    )
    assert torch.equal(again.w_plus, end.w_plus)


def test_natural_codes_measure_about_one_and_the_mean_nothing():
    base = load_base_generator()
    measure = naturalness(base)
    w = base.mapping(sample_z(1000, 77))
    assert 0.9 < measure(broadcast(w, base.num_ws)).mean() < 1.25  # others than it was fitted to
    assert measure(broadcast(base.w_avg[None], base.num_ws)).item() == 0
    far = base.w_avg + 3 * (w[:1] - base.w_avg)
    torch.testing.assert_close(measure(far[None]), 9 * measure(w[:1][None]))


def test_the_loss_is_of_the_full_picture(tiny_stylizer, picture, code):
    loss = ReconstructionLoss(**facestyle.reference._LOSS)
    target = to_tensor(align(picture, full_image_quad(picture.size), 32))
    with torch.no_grad():
        full = tiny_stylizer.generator.synthesis(code.w_plus[None])
        img = F.interpolate(full, size=32, mode="area")
        score = loss.total(loss.parts(img, loss.target(target)))
        prior = naturalness(tiny_stylizer.generator)(code.w_plus[None])
        score += facestyle.reference._PRIOR_WEIGHT * prior
    assert score.item() == pytest.approx(code.loss, rel=1e-3)


def test_the_start_is_the_mean_face_or_the_encoders_code(tiny_stylizer, picture):
    mean = tiny_stylizer.encode_reference(picture, init="mean", steps=0, aligned=True)
    w_avg = tiny_stylizer.base.w_avg
    torch.testing.assert_close(mean.w_plus, w_avg.expand(ROWS, -1), atol=1e-5, rtol=1e-5)
    start = tiny_stylizer.encode_reference(picture, steps=0, aligned=True)
    crop = to_tensor(picture.resize((32, 32), Image.Resampling.BOX))
    w = tiny_stylizer.encoder(crop)
    assert (start.w_plus - w).abs().max() < 0.1 * (w - w_avg).abs().max()
    assert (start.init, start.steps) == ("encoder", 0)


def test_a_search_can_be_ended_and_keeps_the_best(tiny_stylizer, picture):
    seen: list[int] = []

    def stop(step):
        seen.append(step)
        return step < 5

    code = tiny_stylizer.encode_reference(picture, steps=30, aligned=True, on_step=stop)
    assert seen == [1, 2, 3, 4, 5]
    assert code.steps == 5
    begin = tiny_stylizer.encode_reference(picture, steps=0, aligned=True)
    assert code.loss <= begin.loss

    def fail(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_stylizer.encode_reference(picture, steps=30, aligned=True, on_step=fail)


@pytest.mark.parametrize(
    "options",
    [{"space": "u"}, {"init": "zero"}, {"steps": -1}, {"steps": 8.5}, {"seed": -1}, {"seed": 1.0}],
)
def test_searches_that_cannot_be_are_refused_before_any_work(tiny_stylizer, tmp_path, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        tiny_stylizer.encode_reference(tmp_path / "absent.png", **options)


# --- the file


def test_a_saved_code_is_read_exactly(code, tmp_path):
    path = tmp_path / "deep" / "code.safetensors"
    code.save(path)
    again = ReferenceCode.load(path)
    assert torch.equal(again.w_plus, code.w_plus)
    for item in dataclasses.fields(code):
        if item.name != "w_plus":
            assert getattr(again, item.name) == getattr(code, item.name), item.name
    assert again.digest == code.digest
    assert path.stat().st_size < 40_000
    assert [p.name for p in path.parent.iterdir()] == ["code.safetensors"]
    with pytest.raises(OutputError):
        code.save(path / "below.safetensors")


def test_a_seed_of_numpy_is_kept_as_pythons(tiny_stylizer, picture, tmp_path):
    options = {"space": "z_plus", "init": "mean", "steps": 0, "aligned": True}
    plain, found = (
        tiny_stylizer.encode_reference(picture, seed=seed, **options) for seed in (3, np.int64(3))
    )
    assert torch.equal(found.w_plus, plain.w_plus)
    found.save(tmp_path / "code.safetensors")
    assert ReferenceCode.load(tmp_path / "code.safetensors").seed == 3


def test_a_tilde_is_the_users_folder(code, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "ada"))
    monkeypatch.chdir(tmp_path)
    code.save("~/code.safetensors")
    assert (tmp_path / "ada" / "code.safetensors").is_file()
    assert torch.equal(ReferenceCode.load("~/code.safetensors").w_plus, code.w_plus)
    assert [path.name for path in tmp_path.iterdir()] == ["ada"]


DAMAGES = {
    "truncated": "safetensors", "absent": "safetensors", "other": "no facestyle reference",
    "newer": "update", "version": "version", "field": "header", "extra": "alone", "nan": "alone",
    "shape": "alone", "number": "damaged", "space": "nobody knows",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_newer_files_are_named(code, tmp_path, damage):
    path = tmp_path / "code.safetensors"
    code.save(path)
    metadata, tensors = read_metadata(path), read_tensors(path)
    if damage == "newer":
        metadata["version"] = "2"
    elif damage == "version":
        metadata["version"] = "one"
    elif damage == "other":
        metadata["format"] = "facestyle-pairs"
    elif damage == "field":
        del metadata["seed"]
    elif damage == "number":
        metadata["loss"] = "low"
    elif damage == "space":
        metadata["space"] = "q"
    elif damage == "extra":
        tensors["more"] = torch.zeros(1)
    elif damage == "nan":
        tensors["w_plus"][0, 0] = float("nan")
    elif damage == "shape":
        tensors["w_plus"] = torch.zeros(8)
    save_tensors(tensors, path, metadata=metadata)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "absent":
        path.unlink()
    with pytest.raises(CheckpointError, match=DAMAGES[damage]) as caught:
        ReferenceCode.load(path)
    assert "code.safetensors" in str(caught.value)


def test_a_code_of_another_style_is_refused_and_a_retrained_one_noted(
    tiny_stylizer, astronaut, code, caplog
):
    def mixed(**changes):
        other = dataclasses.replace(code, **changes)
        return tiny_stylizer.with_reference(astronaut, other, aligned=True)

    mixed(style="renamed")  # the same weights under another name
    with pytest.raises(ConfigError, match=r"'impasto', and this is 'tiny'"):
        mixed(style="impasto", style_sha256="1")
    with pytest.raises(ConfigError, match="encode the reference picture again"):
        mixed(base_sha256="1", style_sha256="1")
    with pytest.raises(LatentShapeError, match=r"\[8, 8\]"):
        mixed(w_plus=torch.zeros(16, 512))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        mixed(style_sha256="1")
    assert "other weights" in caplog.text


# --- mixing


def test_upper_rows_are_the_references_and_the_others_untouched(
    tiny_stylizer, astronaut, code, general
):
    result = tiny_stylizer.with_reference(astronaut, code, mixing_level=3, aligned=True)
    rows, content = result.faces[0].w_plus, general.faces[0].w_plus
    assert torch.equal(rows[:3], content[:3])
    assert torch.equal(rows[3:], code.w_plus[3:])
    half = tiny_stylizer.with_reference(astronaut, code, mixing_level=3, alpha=0.5, aligned=True)
    torch.testing.assert_close(half.faces[0].w_plus[3:], (content[3:] + code.w_plus[3:]) / 2)
    said = result.metadata()["facestyle"]
    assert f"mixing_level=3, alpha=1.0, references={code.digest}" in said


@pytest.mark.parametrize("options", [{"alpha": 0.0, "mixing_level": 0}, {"mixing_level": ROWS}])
def test_without_any_share_it_is_the_general_result(
    tiny_stylizer, astronaut, code, general, options
):
    result = tiny_stylizer.with_reference(astronaut, code, aligned=True, **options)
    assert same(result.image, general.image)
    assert torch.equal(result.faces[0].w_plus, general.faces[0].w_plus)


def test_several_references_are_blended_by_their_weights(tiny_stylizer, astronaut, code):
    other = dataclasses.replace(code, w_plus=code.w_plus.flip(0) * 2)
    result = tiny_stylizer.with_reference(
        astronaut, [code, other], weights=[3, 1], mixing_level=0, aligned=True
    )
    wanted = 0.75 * code.w_plus + 0.25 * other.w_plus
    torch.testing.assert_close(result.faces[0].w_plus, wanted)
    assert f"{code.digest}+{other.digest}" in result.settings["references"]
    plain = tiny_stylizer.with_reference(astronaut, [code, other], mixing_level=0, aligned=True)
    torch.testing.assert_close(plain.faces[0].w_plus, (code.w_plus + other.w_plus) / 2)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [-1, 2], [0, 0], [float("nan"), 1]])
def test_weights_that_do_not_weigh_are_refused(weights):
    with pytest.raises(ConfigError, match="weight"):
        blend([torch.zeros(2), torch.ones(2)], weights)


def test_blending_needs_codes_of_one_shape():
    with pytest.raises(ConfigError, match="at least one"):
        blend([])
    with pytest.raises(LatentShapeError):
        blend([torch.zeros(2), torch.zeros(3)])


def test_wrong_options_are_refused_before_any_work(tiny_stylizer, tmp_path, code):
    absent = tmp_path / "absent.png"
    for options in ({"alpha": 2}, {"mixing_level": -1}, {"weights": [1, 1]}, {"psi": 7}):
        with pytest.raises(ConfigError, match=next(iter(options)).rstrip("s").split("_")[0]):
            tiny_stylizer.with_reference(absent, absent, **options)
    with pytest.raises(ConfigError, match="at least one"):
        tiny_stylizer.with_reference(absent, [])


def test_a_picture_is_encoded_first_and_every_face_follows_it(
    tiny_stylizer, astronaut, monkeypatch
):
    monkeypatch.setitem(STEPS, "encoder", 2)
    photo = Image.new("RGB", (900, 520), (120, 130, 140))
    photo.paste(astronaut, (0, 0))
    photo.paste(Image.open(sample_photo()).resize((240, 240)), (600, 200))
    found = tiny_stylizer.encode_reference(astronaut)
    assert found.steps == 2
    by_code = tiny_stylizer.with_reference(photo, found, mixing_level=2)
    by_picture = tiny_stylizer.with_reference(photo, astronaut, mixing_level=2)
    assert len(by_code.faces) == 2
    assert same(by_code.image, by_picture.image)
    assert by_code.settings == by_picture.settings
    for face in by_code.faces:
        assert torch.equal(face.w_plus[2:], found.w_plus[2:])


def test_the_header_is_plain_text(code, tmp_path):
    code.save(tmp_path / "c.safetensors")
    metadata = read_metadata(tmp_path / "c.safetensors")
    assert metadata["format"] == "facestyle-reference"
    assert json.loads(metadata["loss"]) == code.loss
    assert metadata["space"] == "v"


def test_a_reference_is_encoded_inside_inference_mode_too(tiny_stylizer, picture):
    with torch.inference_mode():
        inside = tiny_stylizer.encode_reference(picture, aligned=True, steps=2)
    outside = tiny_stylizer.encode_reference(picture, aligned=True, steps=2)
    assert torch.allclose(inside.w_plus, outside.w_plus, atol=1e-4)
