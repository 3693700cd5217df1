"""Many portraits of one photo: seeds, levels, several faces, content spaces, the grid."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image

import facestyle.photo_reader
from facestyle import FaceStylizer
from facestyle.bench import sample_photo
from facestyle.drawing import draw_portraits, synthesis_at
from facestyle.errors import CheckpointError, ConfigError
from facestyle.latents import style_mix, truncate
from facestyle.models.encoder import Encoder, to_w_plus
from facestyle.multimodal import RANDOM_PSI, sample_styles

ROWS = 8  # of the tiny generator


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def general(tiny_stylizer, astronaut):
    return tiny_stylizer(astronaut, aligned=True)


@pytest.fixture(scope="module")
def group(astronaut) -> Image.Image:
    """Two people: the astronaut, and the sample person smaller."""
    photo = Image.new("RGB", (900, 520), (120, 130, 140))
    photo.paste(astronaut, (0, 0))
    photo.paste(Image.open(sample_photo()).resize((240, 240)), (600, 200))
    return photo


def test_a_seed_means_the_same_codes_and_z_is_one_code_for_all_rows(tiny_stylizer):
    base = tiny_stylizer.base
    (first,) = sample_styles(base, 1, 5)
    assert first.shape == (ROWS, 8)
    again, second = sample_styles(base, 2, 5)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert len({tuple(row.tolist()) for row in first}) == ROWS
    (one,) = sample_styles(base, 1, 5, latent="z")
    assert torch.equal(one, one[:1].expand(ROWS, -1))
    z = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(first, base.mapping(z))
    (mean,) = sample_styles(base, 1, 5, psi=0)
    torch.testing.assert_close(mean, base.w_avg.expand(ROWS, -1))


@pytest.mark.parametrize("options", [{"latent": "w"}, {"seed": -1}, {"seed": 2**63}, {"seed": 1.0}])
def test_unknown_latents_and_seeds_are_refused(tiny_stylizer, options):
    with pytest.raises(ConfigError):
        sample_styles(tiny_stylizer.base, 1, **{"seed": 0, **options})


def test_seeds_of_numpy_are_taken_as_pythons(tiny_stylizer, astronaut):
    plain = tiny_stylizer.variations(astronaut, 2, seed=100, aligned=True)
    made = tiny_stylizer.variations(astronaut, 2, seed=np.int8(100), aligned=True)
    assert [one.metadata() for one in made] == [one.metadata() for one in plain]
    assert all(same(a.image, b.image) for a, b in zip(made, plain, strict=True))
    assert [type(one.seed) for one in made] == [int, int]


def test_content_rows_are_untouched_and_the_others_are_the_seeds(tiny_stylizer, astronaut, general):
    made = tiny_stylizer.variations(
        astronaut, 3, mixing_level=5, seed=7, psi_style=0.4, aligned=True
    )
    content = general.faces[0].w_plus
    for i, one in enumerate(made):
        (face,) = one.faces
        assert torch.equal(face.w_plus[:5], content[:5])
        (style,) = sample_styles(tiny_stylizer.base, 1, 7 + i, psi=0.4)
        assert torch.equal(face.w_plus[5:], style[5:])
        assert one.seed == 7 + i
    assert not same(made[0].image, made[1].image)


@pytest.mark.parametrize("level", [ROWS, ROWS + 1, 99])
def test_levels_above_all_rows_give_the_general_result(tiny_stylizer, astronaut, general, level):
    made = tiny_stylizer.variations(astronaut, 3, mixing_level=level, aligned=True)
    assert [one.seed for one in made] == [0, 1, 2]
    assert all(same(one.image, general.image) for one in made)


def test_levels_above_all_rows_give_the_general_result_of_a_real_style():
    stylizer = FaceStylizer.from_pretrained("cartoon", device="cpu", dtype="float32")
    general = stylizer(sample_photo(), faces="largest")
    made = stylizer.variations(sample_photo(), 2, mixing_level=stylizer.base.num_ws)
    assert all(same(one.image, general.image) for one in made)
    assert same(made[1].faces[0].portrait, general.faces[0].portrait)
    other = stylizer.variations(sample_photo(), 1, mixing_level=9)[0]
    assert not same(other.faces[0].portrait, general.faces[0].portrait)
    assert torch.equal(other.faces[0].w_plus[:9], general.faces[0].w_plus[:9])


def test_a_portrait_is_made_again_from_its_metadata_alone(tiny_stylizer, group):
    made = tiny_stylizer.variations(
        group, 3, mixing_level=2, seed=11, psi_content=0.5, psi_style=0.9, latent="z",
        keep_color=0.25, strength=0.75, faces="all",
    )  # fmt: skip
    text = made[2].metadata()["facestyle"]
    said = dict(part.split("=") for part in text.split(", "))
    assert said["seed"] == "13"
    again = tiny_stylizer.variations(
        group, 1, mixing_level=int(said["mixing_level"]), seed=int(said["seed"]),
        psi_content=float(said["psi_content"]), psi_style=float(said["psi_style"]),
        latent=said["latent"], keep_color=float(said["keep_color"]), refine=int(said["refine"]),
        strength=float(said["strength"]), faces=said["faces"], content_space=said["content_space"],
    )  # fmt: skip
    assert same(again[0].image, made[2].image)
    assert again[0].metadata() == made[2].metadata()


def test_every_face_gets_a_style_of_its_own_and_is_pasted(tiny_stylizer, group):
    largest = tiny_stylizer.variations(group, 2, mixing_level=0, seed=3)
    everyone = tiny_stylizer.variations(group, 2, mixing_level=0, seed=3, faces="all")
    for one, both in zip(largest, everyone, strict=True):
        assert (len(one.faces), len(both.faces)) == (1, 2)
        assert same(one.faces[0].portrait, both.faces[0].portrait)
        first, second = (face.w_plus for face in both.faces)
        assert not torch.equal(first, second)
        assert both.image.size == group.size
        changed = np.abs(np.asarray(both.image, int) - np.asarray(group, int)).max(2) > 0
        assert changed[115, 224] and changed[320, 720]  # a pixel of either face
        assert not same(one.image, both.image)


def test_psi_defaults_to_the_styles(tiny_stylizer, astronaut, monkeypatch):
    plain = tiny_stylizer.variations(astronaut, 1, aligned=True)[0]
    psi = tiny_stylizer.config.psi
    assert plain.settings["psi_content"] == plain.settings["psi_style"] == psi <= RANDOM_PSI
    said = tiny_stylizer.variations(astronaut, 1, psi_content=psi, psi_style=psi, aligned=True)[0]
    assert torch.equal(said.faces[0].w_plus, plain.faces[0].w_plus)
    as_it_is = dataclasses.replace(tiny_stylizer.config, psi=1.0)
    monkeypatch.setattr(tiny_stylizer, "config", as_it_is)
    bold = tiny_stylizer.variations(astronaut, 1, aligned=True)[0]
    assert (bold.settings["psi_content"], bold.settings["psi_style"]) == (1.0, RANDOM_PSI)


def test_a_photo_is_encoded_once_and_refined_once(tiny_stylizer, astronaut, monkeypatch):
    looks = []
    look = Encoder.look
    monkeypatch.setattr(Encoder, "look", lambda self, img: (looks.append(1), look(self, img))[1])
    made = tiny_stylizer.variations(astronaut, 5, aligned=True, refine=1)
    assert len(looks) == 1 + tiny_stylizer.encoder.corrections
    refined = tiny_stylizer(astronaut, aligned=True, refine=1).faces[0].w_plus
    assert torch.equal(made[4].faces[0].w_plus[:6], refined[:6])


@pytest.mark.usefixtures("two_threads")
def test_a_batch_draws_what_one_by_one_draws(tiny_stylizer):
    base = tiny_stylizer.base
    codes = [sample_styles(base, 1, seed)[0] for seed in range(5)]
    crops = [torch.zeros(1, 3, 32, 32)] * 5
    for network in (synthesis_at(1.0, base, base, torch.float32), base.synthesis):
        single = draw_portraits(network, codes, crops, dtype=torch.float32, keep_color=0.5)
        counts: list[int] = []
        batched = draw_portraits(
            network, codes, crops, dtype=torch.float32, keep_color=0.5, batch=2,
            on_drawn=counts.append,
        )  # fmt: skip
        assert sorted(counts) == [1, 2, 2]
        for a, b in zip(single, batched, strict=True):
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert draw_portraits(network, [], [], dtype=torch.float32) == []


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"mixing_level": -1},
        {"psi_content": 2},
        {"psi_style": -1},
        {"latent": "w"},
        {"seed": -1},
        {"seed": 2**63 - 1, "n": 2},
        {"seed": 0.5},
        {"strength": 9},
        {"content_space": "v"},
    ],
)
def test_options_out_of_range_are_refused_before_any_work(tiny_stylizer, tmp_path, options):
    with pytest.raises(ConfigError, match=next(iter(options)).split("_")[0]):
        tiny_stylizer.variations(tmp_path / "absent.png", **options)


def test_without_a_face_the_photo_comes_back_when_asked(tiny_stylizer):
    empty = Image.new("RGB", (200, 160), (90, 120, 40))
    made = tiny_stylizer.variations(empty, 2, on_no_face="skip")
    assert [one.faces for one in made] == [[], []]
    assert same(made[0].image, empty)
    assert made.grid().width > 2 * 256


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (3, (3, 1)), (5, (3, 2)), (8, (4, 2))])
def test_the_grid_holds_all_portraits(tiny_stylizer, astronaut, n, shape):
    made = tiny_stylizer.variations(astronaut, n, aligned=True)
    grid = made.grid(cell_px=64)
    assert grid.size == (4 + 68 * shape[0], 4 + 68 * shape[1])
    assert same(grid.crop((4, 4, 68, 68)), made[0].faces[0].portrait)
    assert made.grid(columns=1, cell_px=64).size == (72, 4 + 68 * n)
    with pytest.raises(ConfigError):
        made.grid(columns=0)


def test_content_spaces_use_their_own_encoder_loaded_once(tiny_stylizer, astronaut, monkeypatch):
    torch.manual_seed(1)
    own = Encoder(space="z_plus", rows=ROWS, w_dim=8, input_px=32, hidden=16, row_channels=8)
    torch.nn.init.normal_(own.by_row[-1].weight)
    own.eval().requires_grad_(False)
    loaded = []

    def load(base, space):
        assert base is tiny_stylizer.base
        if space == "w_plus":
            raise CheckpointError("no encoder into w_plus is bundled")
        loaded.append(space)
        return own

    monkeypatch.setattr(facestyle.photo_reader, "encoder_for", load)
    monkeypatch.setattr(tiny_stylizer._reader, "_encoders", {"w": tiny_stylizer.encoder})
    plain = tiny_stylizer(astronaut, aligned=True).faces[0]
    assert loaded == []
    results = [
        tiny_stylizer(astronaut, aligned=True, content_space="z_plus", psi=0.6).faces[0],
        tiny_stylizer.variations(
            astronaut, 1, aligned=True, content_space="z_plus", psi_content=0.6, mixing_level=99
        )[0].faces[0],
    ]
    assert loaded == ["z_plus"]
    with torch.inference_mode():
        img = torch.from_numpy(np.array(results[0].crop.resize((32, 32)))).permute(2, 0, 1)
        assert own(img[None] / 127.5 - 1).shape == (1, ROWS, 8)
    for face in results:
        assert not torch.equal(face.w_plus[0], face.w_plus[1])  # psi acts on rows that differ
        torch.testing.assert_close(face.w, undo(face.w_plus, tiny_stylizer.base.w_avg, 0.6).mean(0))
        assert not torch.equal(face.w, plain.w)
    assert torch.equal(results[0].w_plus, results[1].w_plus)
    with pytest.raises(CheckpointError, match="w_plus"):
        tiny_stylizer(astronaut, aligned=True, content_space="w_plus")


def undo(w_plus, w_avg, psi):
    return w_avg + (w_plus - w_avg) / psi


def test_z_plus_content_of_a_real_style_is_what_its_encoder_says():
    from facestyle.models.zoo import load_base_generator, load_encoder

    base, encoder = load_base_generator(), load_encoder(space="z_plus")
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        rows = to_w_plus(encoder(x), "z_plus", base)
    assert rows.shape == (1, base.num_ws, base.w_dim)
    assert torch.isfinite(truncate(rows, base.w_avg, 0.7)).all()


def test_alpha_mixes_the_upper_rows():
    a, b = torch.zeros(1, 6, 2), torch.ones(1, 6, 2)
    assert torch.equal(style_mix(a, b, 2, 0.0), a)
    assert torch.equal(style_mix(a, b, 2, 1.0), style_mix(a, b, 2))
    mixed = style_mix(a, b, 2, 0.25)
    assert mixed[0, :, 0].tolist() == [0, 0, 0.25, 0.25, 0.25, 0.25]
    for alpha in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="alpha"):
            style_mix(a, b, 2, alpha)


def test_metadata_says_nothing_of_the_photo(tiny_stylizer, astronaut, tmp_path):
    astronaut.save(tmp_path / "secret_name.png")
    one = tiny_stylizer.variations(tmp_path / "secret_name.png", 1, aligned=True)[0]
    text = " ".join(one.metadata().values())
    assert "secret" not in text
    assert re.search(r"mixing_level=6.*seed=0", text)
