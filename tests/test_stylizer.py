"""The inference story on real weights: options, several faces, lists, and everything that is kept."""

import contextlib
import copy
import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from facestyle import FaceStylizer, list_styles
from facestyle.bench import sample_photo
from facestyle.drawing import _with_color_of, lay_noise
from facestyle.errors import (
    CheckpointError,
    ConfigError,
    DeviceMemoryError,
    FaceTooSmallError,
    ImageError,
    NoFaceError,
    OutputError,
    StyleNotFoundError,
)
from facestyle.latents import broadcast, truncate
from facestyle.models.checkpoints import read_tensors
from facestyle.models.generator import is_fine, shape_stage, weights_between
from facestyle.models.mobile import MobileGenerator
from facestyle.models.stylegan2_generator import StyleGAN2Generator
from facestyle.options import Options
from facestyle.photo_reader import PhotoReader
from facestyle.styles import StyleConfig, bundled_style


@pytest.fixture(scope="module")
def stylizer() -> FaceStylizer:
    return FaceStylizer.from_pretrained("cartoon", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="module")
def result(stylizer, astronaut):
    return stylizer(astronaut)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def test_a_photo_comes_back_whole_with_its_face_stylized(result, astronaut):
    assert result.image.size == astronaut.size
    (face,) = result.faces
    assert face.portrait.size == face.crop.size == (1024, 1024)
    assert face.w.shape == (512,)
    assert face.w_plus.shape == (16, 512)
    left, upper, right, lower = face.box
    assert left < 224 < right and upper < 115 < lower  # the astronaut's nose
    changed = np.abs(np.asarray(result.image, int) - np.asarray(astronaut, int)).max(2) > 0
    assert changed[115, 224]
    assert not changed[300:].any()  # the suit is not touched
    assert {"load", "detect", "align", "encode", "synthesize", "paste"} <= set(result.seconds)


def test_the_portrait_is_the_same_every_time(stylizer, astronaut, result):
    again = stylizer(astronaut).faces[0].portrait
    assert np.array_equal(np.asarray(again), np.asarray(result.faces[0].portrait))


def test_portrait_is_what_the_generator_draws_from_the_kept_code(stylizer, result):
    face = result.faces[0]
    w_plus = broadcast(truncate(face.w[None], stylizer.base.w_avg, stylizer.config.psi), 16)
    torch.testing.assert_close(face.w_plus[None], w_plus)
    with torch.inference_mode():
        img = stylizer.generator.synthesis(w_plus)[0]
    drawn = ((img + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(drawn - np.asarray(face.portrait, np.float32)).max() <= 1


def test_every_kind_of_source_gives_the_same(stylizer, astronaut, result, tmp_path):
    path = tmp_path / "a.png"
    astronaut.save(path)
    wanted = np.asarray(result.image)
    for source in (str(path), path, path.read_bytes(), np.asarray(astronaut)):
        assert np.array_equal(np.asarray(stylizer(source).image), wanted)


@pytest.mark.usefixtures("two_threads")
def test_a_list_gives_what_each_gives_alone(stylizer, astronaut, result):
    mirrored = astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both = stylizer([astronaut, mirrored])
    assert difference(both[0].image, result.image) < 0.2
    assert difference(both[1].image, stylizer(mirrored).image) < 0.2
    assert stylizer([]) == []


@pytest.mark.usefixtures("two_threads")
def test_a_list_is_worked_on_side_by_side_and_errors_come_through(stylizer, astronaut, result):
    several = stylizer([astronaut] * 3)
    for one in several:
        assert difference(one.image, result.image) < 0.01
        assert one.seconds.keys() == result.seconds.keys()
    with pytest.raises(ImageError):
        stylizer([astronaut, b"nothing"])
    refined = stylizer([astronaut, astronaut.rotate(4)], refine=1)
    assert [len(one.faces) for one in refined] == [1, 1]
    assert refined[0].faces[0].w_plus.shape == (16, 512)


def test_a_picture_needs_no_slow_imports():
    code = (
        "import sys; from facestyle import FaceStylizer; from facestyle.bench import sample_photo; "
        "FaceStylizer.from_pretrained('cartoon', device='cpu', dtype='float32')(sample_photo(), refine=1); "
        "slow = {'facenet_pytorch', 'scipy', 'timm', 'torch._dynamo', 'torchvision'}; "
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_strength_goes_from_the_reconstruction_to_the_style(stylizer, astronaut, result):
    w_plus = result.faces[0].w_plus[None]
    with torch.inference_mode():
        plain = stylizer.base.synthesis(w_plus)[0]
    drawn = ((plain + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)
    none = stylizer(astronaut, strength=0).faces[0].portrait
    half = stylizer(astronaut, strength=0.5).faces[0].portrait
    full = result.faces[0].portrait
    assert difference(none, Image.fromarray(drawn)) < 0.1
    assert difference(none, half) > 1
    assert difference(half, full) > 1
    assert difference(none, half) < difference(none, full)


def test_psi_zero_is_everybodys_mean_face(stylizer, astronaut):
    first = stylizer(astronaut, psi=0).faces[0].portrait
    second = stylizer(sample_photo(), psi=0).faces[0].portrait
    assert difference(first, second) < 0.01


def test_keep_color_brings_the_photos_colours_back(stylizer, astronaut):
    blue = Image.merge("RGB", astronaut.split()[::-1])
    plain = stylizer(blue).faces[0]
    kept = stylizer(blue, keep_color=True).faces[0]

    def mean_color(image):
        return np.asarray(image.resize((8, 8), Image.Resampling.BOX), np.float32).mean((0, 1))

    wanted = mean_color(plain.crop)
    before = np.abs(mean_color(plain.portrait) - wanted).sum()
    after = np.abs(mean_color(kept.portrait) - wanted).sum()
    assert after < 0.6 * before


def test_keep_texture_goes_back_to_g_in_what_draws_textures(stylizer):
    base, style = stylizer.base.synthesis.state_dict(), stylizer.generator.synthesis.state_dict()
    for strength, kept in ((1.0, 0.5), (1.5, 1.0)):
        mixed = weights_between(
            stylizer.base.synthesis, stylizer.generator.synthesis, strength, strength * (1 - kept)
        )
        for name, tensor in mixed.items():
            textures = ("blocks.4.", "blocks.5.", "blocks.6.", "to_image.", "to_preview.")
            is_texture = name.startswith(textures) or name.endswith("noise")
            share = strength * (1 - kept) if is_texture else strength
            wanted = base[name].double() + share * (style[name].double() - base[name].double())
            torch.testing.assert_close(tensor, wanted.float(), atol=1e-6, rtol=1e-6)
    assert is_fine("b128.conv0.weight") and is_fine("b1024.torgb.bias")
    assert is_fine("b16.torgb.weight") and shape_stage("b16.torgb.bias") is None  # colours
    assert is_fine("b8.conv1.noise_strength") and not is_fine("b64.conv1.weight")
    assert not is_fine("b4.const") and not is_fine("stem.weight")


def test_keep_shape_goes_back_to_g_in_what_draws_shapes_coarsest_first(stylizer):
    g, styled = stylizer.base.synthesis, stylizer.generator.synthesis
    base, style = g.state_dict(), styled.state_dict()
    up_to_16, at_32 = ("const", "stem.", "blocks.0.", "blocks.1."), ("blocks.2.",)
    for strength, kept, early, late in ((1.5, 0.25, 0.5, 0), (1.0, 0.5, 1, 0), (1.0, 0.75, 1, 0.5)):
        mixed = weights_between(g, styled, strength, keep_shape=kept)
        for name, tensor in mixed.items():
            noise = name.endswith("noise")
            back = 0 if noise else early if name.startswith(up_to_16) else 0
            back = late if name.startswith(at_32) and not noise else back
            share = strength * (1 - back)
            wanted = base[name].double() + share * (style[name].double() - base[name].double())
            torch.testing.assert_close(tensor, wanted.float(), atol=1e-6, rtol=1e-6)
    half = copy.deepcopy(styled)
    half.load_state_dict(weights_between(g, styled, 1, keep_shape=0.5))
    further, wanted = (
        weights_between(g, net, 1, keep_shape=kept) for net, kept in ((half, 0.5), (styled, 0.75))
    )
    torch.testing.assert_close(further, wanted, atol=1e-6, rtol=1e-6)
    assert shape_stage("b4.const") == 16 and shape_stage("b32.conv1.weight") == 32
    assert shape_stage("b64.conv0.weight") is shape_stage("b8.conv1.noise_strength") is None


def test_a_style_that_keeps_shapes_draws_as_the_option_does(stylizer, astronaut, tmp_path):
    stylizer.save_pretrained(tmp_path)
    card = StyleConfig.from_file(tmp_path / "config.json")
    dataclasses.replace(card, keep_shape=0.75).save(tmp_path / "config.json")
    keeps = FaceStylizer.from_pretrained(tmp_path, device="cpu", dtype="float32")
    ours, wanted = (
        keeps(astronaut).faces[0].portrait,
        stylizer(astronaut, keep_shape=0.75).faces[0].portrait,
    )
    assert difference(ours, wanted) < 0.3, "float16 rounds"
    assert difference(wanted, stylizer(astronaut).faces[0].portrait) > 1
    assert keeps.config.keep_shape == 0, "saved again, it is not taken twice"


def test_a_style_says_whether_it_moves_shapes(stylizer):
    assert stylizer.moves_shapes
    assert not FaceStylizer.from_pretrained("impasto", device="cpu").moves_shapes


def test_keep_shape_brings_shapes_back_and_leaves_lines(stylizer, astronaut):
    prepared = stylizer.prepare(astronaut)

    def drawn(**options):
        image = stylizer(prepared, **options).faces[0].portrait.convert("L")
        small = np.asarray(image.resize((64, 64), Image.Resampling.BOX), np.float32)
        return np.abs(np.diff(np.asarray(image, np.float32), axis=1)).mean(), small

    plain, kept, photo = (drawn(**o) for o in ({}, {"keep_shape": True}, {"strength": 0}))
    assert np.abs(kept[1] - photo[1]).mean() < 0.8 * np.abs(plain[1] - photo[1]).mean()
    assert abs(kept[0] - plain[0]) < 0.5 * abs(photo[0] - plain[0]), "the style's smoothness"
    assert (drawn(keep_shape=0.0)[1] == plain[1]).all()


def test_keep_texture_brings_detail_back_and_leaves_shapes(stylizer, astronaut):
    def fine_and_coarse(image):
        gray = np.asarray(image.convert("L"), np.float32)
        small = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), np.float32)
        face = small[20:58, 18:46]  # hair has shapes of texture
        return np.abs(np.diff(gray, axis=1)).mean(), face

    prepared = stylizer.prepare(astronaut)
    plain, kept, photo = (
        fine_and_coarse(stylizer(prepared, **options).faces[0].portrait)
        for options in ({}, {"keep_texture": True}, {"strength": 0})
    )
    assert kept[0] > 1.1 * plain[0], "strands and pores"
    assert np.abs(kept[1] - plain[1]).mean() < 0.3 * np.abs(photo[1] - plain[1]).mean()
    again = stylizer(prepared, keep_texture=0.0).faces[0].portrait
    assert fine_and_coarse(again)[0] == plain[0]


def test_refine_brings_the_reconstruction_closer(stylizer, astronaut):
    plain = stylizer(astronaut, strength=0, psi=1).faces[0]
    refined = stylizer(astronaut, strength=0, psi=1, refine=4).faces[0]
    assert not torch.equal(plain.w, refined.w)
    assert difference(refined.portrait, plain.crop) < difference(plain.portrait, plain.crop)


def test_refine_finds_its_gradients_wherever_it_is_called(tiny_stylizer, astronaut):
    codes = []
    for context in (contextlib.nullcontext, torch.no_grad, torch.inference_mode):
        parts = (tiny_stylizer.generator, tiny_stylizer.base, tiny_stylizer.encoder)
        # It has not yet loaded what it refines with.
        fresh = FaceStylizer(*parts, tiny_stylizer.config, device="cpu", dtype="float32")
        with context():
            codes.append(fresh(astronaut, refine=2).faces[0].w_plus)
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])
    assert not torch.equal(codes[0], tiny_stylizer(astronaut).faces[0].w_plus)


@pytest.mark.parametrize("kind", ["mobile", "stylegan2"])
def test_noise_planes_are_turned_by_a_seed(kind):
    torch.manual_seed(0)
    if kind == "mobile":
        net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=1, preview_resolution=32)
        for name, plane in net.named_buffers():
            if name.endswith("noise"):
                plane.normal_()
    else:
        net = StyleGAN2Generator(64, w_dim=8, channel_base=256, channel_max=8, mapping_depth=1)

    def planes(seed):
        network = copy.deepcopy(net.synthesis)
        lay_noise(network, seed)
        return [plane for name, plane in network.named_buffers() if "noise" in name]

    trained = planes(0)
    assert len(trained) == {"mobile": 7, "stylegan2": 9}[kind]
    states = [buffer for name, buffer in net.synthesis.named_buffers() if "noise" in name]
    assert all(map(torch.equal, trained, states))
    laid = {seed: planes(seed) for seed in range(1, 9)}
    assert all(map(torch.equal, laid[3], planes(3)))
    for before, *after in zip(trained, *laid.values(), strict=True):
        turns = {tuple(plane.ravel().tolist()) for plane in after}
        assert len(turns) > 1
        square = before.squeeze()
        eight = {
            tuple(torch.rot90(side, times).ravel().tolist())
            for side in (square, square.flip(0))
            for times in range(4)
        }
        assert turns <= eight and len(eight) == 8


def test_a_seed_lays_strokes_elsewhere_and_nothing_else(astronaut):
    painter = FaceStylizer.from_pretrained("impasto", device="cpu", dtype="float32")
    photo = painter.prepare(astronaut)

    def portrait(**options):
        image = painter(photo, **options).faces[0].portrait
        return np.asarray(image, np.float32)

    plain, other, third = portrait(), portrait(seed=1), portrait(seed=2)
    coarse, there = (
        np.abs(a.reshape(8, 128, 8, 128, 3).mean((1, 3)) - plain.reshape(8, 128, 8, 128, 3).mean((1, 3))).mean()
        for a in (other, portrait(psi=0.3))
    )  # fmt: skip
    assert np.abs(other - plain).mean() > 8 and np.abs(third - other).mean() > 8
    assert coarse < there / 3, "broad colours stay, which another face would change"
    assert (portrait(seed=1) == other).all() and (portrait() == plain).all()
    base, laid = portrait(strength=0), portrait(strength=0, seed=1)
    assert 0 < np.abs(base - laid).mean() < np.abs(other - plain).mean()
    assert painter(photo, seed=1).settings["seed"] == 1


@pytest.fixture(scope="module")
def group(astronaut) -> Image.Image:
    """Two people: the astronaut, and the sample person smaller."""
    photo = Image.new("RGB", (900, 520), (120, 130, 140))
    photo.paste(astronaut, (0, 0))
    photo.paste(Image.open(sample_photo()).resize((240, 240)), (600, 200))
    return photo


def test_a_face_is_refined_the_same_whoever_else_is_there(stylizer, group, astronaut):
    together = stylizer(group, refine=3)
    assert len(together.faces) == 2
    for i, face in enumerate(together.faces):
        alone = stylizer(group, refine=3, faces=[i]).faces[0]
        assert torch.equal(alone.w_plus, face.w_plus)
    prepared = stylizer(stylizer.prepare(group, refine=3), faces=[1]).faces[0]
    assert torch.equal(prepared.w_plus, together.faces[1].w_plus)
    listed = stylizer([astronaut, group], refine=3)[1]
    assert torch.equal(listed.faces[0].w_plus, together.faces[0].w_plus)


def test_a_photo_without_colours_takes_them_away():
    rng = torch.Generator().manual_seed(0)
    img = torch.rand(2, 3, 64, 64, generator=rng) * 2 - 1
    photo = torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1
    photo[0] = photo[0, :1] + torch.tensor([0.0, 0.01, -0.01]).view(3, 1, 1)

    def colors(img):
        return (img.amax(0) - img.amin(0)).max()

    grey, colorful = _with_color_of(img, photo, 1.0)
    assert colors(grey) < 1e-5 and colors(colorful) > 0.5
    half = _with_color_of(img, photo, 0.5)[0]
    assert 0.4 < colors(half) / colors(img[0]) < 0.6


def test_faces_can_be_chosen(stylizer, group):
    everyone = stylizer(group).faces
    assert len(everyone) == 2
    sizes = [face.face.side_px for face in everyone]
    assert sizes == sorted(sizes, reverse=True)
    largest = stylizer(group, faces="largest").faces
    assert [f.box for f in largest] == [everyone[0].box]
    second = stylizer(group, faces=[1])
    assert [f.box for f in second.faces] == [everyone[1].box]
    with pytest.raises(ConfigError, match="2 were found"):
        stylizer(group, faces=[5])
    (left_out,) = stylizer.prepare(group, faces="largest").left_out
    assert (left_out == everyone[1].quad).all(), "whom no portrait may reach over"
    one_of_two = stylizer.variations(stylizer.prepare(group), 1, faces=[1])[0]
    assert (one_of_two.left_out[0] == everyone[0].quad).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"faces": 0}, r"list of numbers, got 0; that one face is faces=\[0\]"),
        ({"faces": 1}, r"faces=\[1\]"),
        ({"faces": "biggest"}, "list of numbers, got 'biggest'"),
        ({"faces": np.int64(1)}, r"faces=\[1\]"),
        ({"faces": ["0"]}, "list of numbers"),
        ({"faces": [True]}, "list of numbers"),
        ({"faces": [1, 0, np.int64(1)]}, r"names a face twice: \[1, 0, 1\]"),
        ({"faces": ()}, "empty list"),
        ({"refine": 8.5}, "refine must be a whole number of steps, 0 or more, got 8.5"),
        ({"refine": -1}, "refine must be a whole number"),
        ({"seed": 1.0}, "whole number from 0 to 2\\^63 - 1, got 1.0"),
        ({"seed": True}, "whole number from 0"),
    ],
)
@pytest.mark.parametrize("aligned", [True, False])
def test_mistaken_options_are_named_before_a_photo_is_read(
    tiny_stylizer, tmp_path, options, says, aligned
):
    with pytest.raises(ConfigError, match=says):
        tiny_stylizer(tmp_path / "absent.png", aligned=aligned, **options)


def test_numbers_of_numpy_are_taken_as_pythons(tiny_stylizer, astronaut):
    plain = tiny_stylizer(astronaut, seed=3, faces=[0])
    result = tiny_stylizer(astronaut, seed=np.int64(3), faces=np.array([0]))
    assert np.array_equal(np.asarray(result.image), np.asarray(plain.image))
    assert result.metadata() == plain.metadata()
    assert type(result.settings["seed"]) is int
    assert [type(i) for i in Options(faces=[np.uint8(1), 0]).faces] == [int, int]


def test_an_aligned_square_is_taken_as_it_is(stylizer):
    result = stylizer(sample_photo(), aligned=True)
    assert result.image is result.faces[0].portrait
    assert result.faces[0].face is None
    np.testing.assert_allclose(result.faces[0].quad[0], [0, 0], atol=1)


def test_without_a_face_it_does_what_was_asked(stylizer):
    empty = Image.fromarray(data.coffee()[:, :, :3])
    with pytest.raises(NoFaceError, match="upright") as caught:
        stylizer(empty)
    assert caught.value.image_size == empty.size
    skipped = stylizer(empty, on_no_face="skip")
    assert skipped.faces == []
    assert np.array_equal(np.asarray(skipped.image), np.asarray(empty))
    centred = stylizer(empty, on_no_face="center")
    assert centred.image.size == empty.size
    assert centred.faces[0].face is None


def test_a_tiny_face_is_named(stylizer, astronaut):
    small = Image.new("RGB", (400, 400), (90, 90, 90))
    small.paste(astronaut.crop((100, 0, 340, 240)).resize((36, 36)), (150, 150))
    with pytest.raises(FaceTooSmallError, match="200 px and more look good") as caught:
        stylizer(small)
    assert 20 < caught.value.face_px < 40
    assert stylizer(small, on_no_face="skip").faces == []
    (centred,) = stylizer(small, on_no_face="center").faces
    assert centred.face is None


def test_a_tiny_face_asked_for_by_number_is_not_left_out_unsaid(tiny_stylizer, astronaut):
    photo = Image.new("RGB", (700, 512), (90, 90, 90))
    photo.paste(astronaut, (0, 0))
    photo.paste(astronaut.crop((100, 0, 340, 240)).resize((36, 36)), (600, 150))
    assert len(tiny_stylizer(photo).faces) == 1
    for faces in ([0, 1], [1, 0], [1]):
        with pytest.raises(FaceTooSmallError, match="face 1 covers only") as caught:
            tiny_stylizer(photo, faces=faces)
        assert 20 < caught.value.face_px < 40
    assert len(tiny_stylizer(photo, faces=[0, 1], on_no_face="skip").faces) == 1


def test_a_list_is_drawn_in_batches_where_that_is_faster(stylizer, astronaut, monkeypatch):
    """As on a GPU: faces of several photos go through the networks together, and come out as one by one."""
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(Image.open(sample_photo()).resize((512, 512)), (512, 0))
    photos = [astronaut, two, stylizer.prepare(astronaut)]
    single = [stylizer(photo, seed=3) for photo in photos]
    monkeypatch.setattr(PhotoReader, "at_once", lambda self, count: count)
    drawn = []
    draw = stylizer._synthesis_at(Options(seed=3))
    handle = draw.register_forward_pre_hook(lambda _, args: drawn.append(len(args[0])))
    together = stylizer(photos, seed=3)
    handle.remove()
    assert drawn == [4]
    assert [len(result.faces) for result in together] == [1, 2, 1]
    for one, other in zip(single, together, strict=True):
        change = np.asarray(one.image, int) - np.asarray(other.image, int)
        assert np.abs(change).mean() < 0.1
        assert one.metadata() == other.metadata()
        assert other.seconds["synthesize"] > 0
    refined = stylizer([astronaut, two], refine=1)
    assert [len(result.faces) for result in refined] == [1, 2]
    assert all(result.seconds["refine"] > 0 for result in refined)
    assert len(stylizer.variations(two, 2, faces="all")[1].faces) == 2


def test_a_result_is_saved_with_its_settings(stylizer, astronaut, tmp_path):
    result = stylizer(astronaut, strength=0.5)
    with Image.open(result.save(tmp_path / "new" / "photo.png")) as photo:
        assert photo.size == (512, 512) and "strength=0.5" in photo.text["facestyle"]
    with Image.open(result.save(tmp_path / "portrait.png", face=0)) as portrait:
        assert (
            portrait.size == result.faces[0].portrait.size
            and "style=" in portrait.text["facestyle"]
        )
    with pytest.raises(ConfigError, match="no face 1"):
        result.save(tmp_path / "none.png", face=1)


def test_variations_refuse_a_psi_that_would_do_nothing(stylizer, astronaut):
    with pytest.raises(ConfigError, match="psi_content"):
        stylizer.variations(astronaut, 1, psi=0.5)


def test_memory_that_runs_out_has_a_name(stylizer, astronaut, monkeypatch):
    def draw(*_, **__):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    monkeypatch.setattr("facestyle.stylizer.draw_portraits", draw)
    with pytest.raises(DeviceMemoryError, match="smaller photo"):
        stylizer(astronaut)


def test_memory_that_runs_out_before_drawing_has_a_name_too(tiny_stylizer, astronaut, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 bytes")

    monkeypatch.setattr("facestyle.photo_reader.encode", full)
    monkeypatch.setattr("facestyle.stylizer.encode_reference", full)
    with pytest.raises(DeviceMemoryError, match="preparing the photo took more memory"):
        tiny_stylizer.prepare(astronaut)
    with pytest.raises(DeviceMemoryError, match="encoding the reference took more memory"):
        tiny_stylizer.encode_reference(astronaut)
    with pytest.raises(DeviceMemoryError, match="encoding the reference took more memory"):
        tiny_stylizer.with_reference(astronaut, astronaut)


@pytest.mark.parametrize(
    "options",
    [
        {"psi": -1},
        {"psi": 3},
        {"psi": "1"},
        {"strength": None},
        {"refine": "8"},
        {"strength": -0.1},
        {"strength": 2.1},
        {"keep_color": 2},
        {"keep_texture": 1.2},
        {"keep_shape": -0.1},
        {"refine": -1},
        {"seed": -1},
        {"on_no_face": "cry"},
    ],
)
def test_options_out_of_range_are_refused(stylizer, astronaut, options):
    with pytest.raises(ConfigError):
        stylizer(astronaut, **options)


def test_unusable_sources_are_image_errors(stylizer, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"nothing")
    for source in (tmp_path / "x.jpg", tmp_path, tmp_path / "absent.png", b"", "https://a.b/c.jpg"):
        with pytest.raises(ImageError):
            stylizer(source)


def test_metadata_names_style_and_settings_only(result):
    chunks = result.metadata()
    assert chunks.keys() == {"Software", "facestyle"}
    assert "style=cartoon, style_sha256=" in chunks["facestyle"]


def test_metadata_tell_weights_of_one_name_apart(stylizer, astronaut, result, tmp_path):
    """The digest is the one that codes of references carry, the same for what was saved and loaded."""
    code = stylizer.encode_reference(astronaut, steps=0)
    assert result.settings["style_sha256"] == stylizer.style_sha256 == code.style_sha256
    stylizer.save_pretrained(tmp_path / "mine", samples=False)
    again = FaceStylizer.from_pretrained(tmp_path / "mine", device="cpu", dtype="float32")
    assert again.style_sha256 == stylizer.style_sha256
    with torch.no_grad():
        next(again.generator.synthesis.parameters()).mul_(1.5)
    other = FaceStylizer(again.generator, again.base, again.encoder, again.config, device="cpu")
    assert other.style_sha256 != stylizer.style_sha256


def test_saved_styles_load_and_draw_the_same(stylizer, astronaut, result, tmp_path):
    folder = tmp_path / "mine"
    stylizer.save_pretrained(folder)
    again = FaceStylizer.from_pretrained(folder, device="cpu", dtype="float32")
    assert again.config == stylizer.config
    assert difference(again(astronaut).image, result.image) < 0.01


def test_names_are_bundled_first_and_folders_say_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cartoon").mkdir()
    (tmp_path / "mine").mkdir()
    assert FaceStylizer.from_pretrained("cartoon").config.name == "cartoon"
    with pytest.raises(CheckpointError):
        FaceStylizer.from_pretrained("./cartoon")
    with pytest.raises(StyleNotFoundError, match=r"\./mine"):
        FaceStylizer.from_pretrained("mine")
    with pytest.raises(StyleNotFoundError, match="cartoon") as caught:
        FaceStylizer.from_pretrained("no-such-style")
    assert caught.value.available == tuple(list_styles())
    with pytest.raises(StyleNotFoundError):
        FaceStylizer.from_pretrained("./nowhere")


@pytest.mark.parametrize("damage", ["truncated", "missing", "config", "key", "newer", "base"])
def test_damaged_styles_are_named(tmp_path, damage):
    folder = tmp_path / "style"
    shutil.copytree(bundled_style("cartoon"), folder)
    weights, config = folder / "generator.safetensors", folder / "config.json"
    text = config.read_text()
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "missing":
        weights.unlink()
    elif damage == "config":
        config.write_text("{")
    elif damage == "key":
        config.write_text(text.replace('"psi"', '"chi"'))
    elif damage == "newer":
        config.write_text(text.replace('"version": 1', '"version": 99'))
    else:
        sha = StyleConfig.from_file(config).base_sha256
        config.write_text(text.replace(sha, "0" * 64))
    with pytest.raises(CheckpointError, match=r"generator\.safetensors|config\.json"):
        FaceStylizer.from_pretrained(folder)


def test_a_tilde_is_the_users_folder(tiny_stylizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "ada"))
    monkeypatch.chdir(tmp_path)
    tiny_stylizer.save_pretrained("~/style", samples=False)
    assert (tmp_path / "ada" / "style" / "generator.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["ada"]


def test_unwritable_folders_are_named(stylizer, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        stylizer.save_pretrained(tmp_path / "file" / "style")


def test_a_share_makes_a_style_bolder_and_is_saved_worked_in(stylizer, tmp_path):
    shutil.copytree(bundled_style("cartoon"), tmp_path / "bold")
    path = tmp_path / "bold" / "config.json"
    plain = StyleConfig.from_file(path)
    share = 1.5 * plain.share
    dataclasses.replace(plain, share=share).save(path)
    bold = FaceStylizer.from_pretrained(tmp_path / "bold")
    name = "blocks.3.conv1.weight"
    base, usual, bolder = (
        one.synthesis.state_dict()[name]
        for one in (stylizer.base, stylizer.generator, bold.generator)
    )
    stored = read_tensors(tmp_path / "bold" / "generator.safetensors")[name].double()
    wanted = base.double() + share * (stored - base.double())
    assert torch.equal(bolder, wanted.half().float())
    assert not torch.equal(bolder, usual)

    bold.save_pretrained(tmp_path / "saved", samples=False)
    assert StyleConfig.from_file(tmp_path / "saved" / "config.json").share == 1
    again = FaceStylizer.from_pretrained(tmp_path / "saved")
    for name, tensor in bold.generator.synthesis.state_dict().items():
        assert torch.equal(tensor, again.generator.synthesis.state_dict()[name])
    for wrong in (0, 2.5):
        with pytest.raises(ConfigError, match="share"):
            dataclasses.replace(plain, share=wrong)
