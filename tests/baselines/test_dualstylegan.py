"""DualStyleGAN: its size, its two paths, and the authors' files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facestyle.baselines.dualstylegan import DualStyle, DualStyleConfig, import_dualstylegan
from facestyle.baselines.dualstylegan_network import DualStyleGenerator, from_public
from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.models.checkpoints import load_strict, read_tensors, unfilled
from facestyle.models.psp_encoder import PspEncoder

SIZES = {"resolution": 32, "w_dim": 8, "channel_base": 256, "channel_max": 8, "mapping_depth": 2}
ROWS, COARSE = 8, 5


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = DualStyleGenerator(SIZES, structure_rows=COARSE)
    with torch.no_grad():
        for name, p in made.generator.synthesis.named_parameters():
            if name.endswith("noise_strength"):
                p.normal_()
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    made = PspEncoder(ROWS, code_dim=8, input_px=32, widths=(2, 3, 4, 8), units=(1, 1, 2, 1))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def codes():
    rng = torch.Generator().manual_seed(2)
    return torch.randn(2, ROWS, 8, generator=rng), torch.randn(2, ROWS, 8, generator=rng)


def count(net):
    return sum(p.numel() for p in net.parameters())


def weights(structure, color):
    return [structure] * COARSE + [color] * (ROWS - COARSE)


def test_sizes_are_the_published_ones():
    with unfilled():
        made = DualStyleGenerator()
    assert count(made) == 74_176_268
    assert count(made.generator) == 30_370_060
    assert count(made.structure) == 7 * 5_770_240
    assert count(made.color) == 11 * 262_656
    assert count(made.structure) + count(made.color) == 43_280_896
    assert count(made.transform) == 525_312


def test_without_weights_only_the_intrinsic_path_is_left(net, codes):
    content, style = codes
    plain = net.generator.synthesis(net.generator.mapping(content))
    assert torch.equal(net(content, style, weights(0.0, 0.0)), plain)


def test_psi_shrinks_the_photos_code_towards_zero(net, codes):
    content, style = codes
    shrunk = net.generator.synthesis(0.75 * net.generator.mapping(content))
    assert torch.equal(net(content, style, weights(0.0, 0.0), psi=0.75), shrunk)
    nothing = net.generator.synthesis(torch.zeros(2, ROWS, 8))
    assert torch.equal(net(content, style, weights(0.0, 0.0), psi=0.0), nothing)


def test_an_untrained_extrinsic_path_hardly_changes_anything(net, codes):
    content, style = codes
    plain = net(content, style, weights(0.0, 0.0))
    structure = net(content, style, weights(1.0, 0.0))
    assert 0 < (structure - plain).abs().max() < 0.05 * plain.abs().max()
    w = net.generator.mapping(style)
    for row, transform in enumerate(net.color, start=COARSE):
        torch.testing.assert_close(transform(w[:, row]), w[:, row], rtol=0.05, atol=0.02)


def test_colour_weights_mix_fine_rows_only(net, codes):
    content, style = codes
    own, other = net.generator.mapping(content), net.generator.mapping(style)
    for weight in (0.4, 1.0):
        rows = own.clone()
        for row in range(COARSE, ROWS):
            colored = net.color[row - COARSE](other[:, row])
            rows[:, row] = (1 - weight) * own[:, row] + weight * colored
        torch.testing.assert_close(
            net(content, style, weights(0.0, weight)), net.generator.synthesis(rows)
        )


def test_structure_blocks_act_behind_their_convolution(net, codes):
    content, style = codes
    w = net.generator.mapping(content)
    modulation = net.transform(net.generator.mapping(style))
    for row in range(COARSE):
        with torch.no_grad():
            net.structure[row].conv2.bias.fill_(1.0)
        alone = [0.7 * (i == row) for i in range(ROWS)]

        def change(i, x, row=row):
            block = net.structure[row]
            if i != row:
                return x
            out = block.conv1(block.norm1(x, modulation[:, row]))
            return x + 0.7 * block.conv2(block.norm2(out, modulation[:, row]))

        expected = net.generator.synthesis(w, after_conv=change)
        img = net(content, style, alone)
        torch.testing.assert_close(img, expected)
        assert (img - net(content, style, [0.0] * ROWS)).abs().max() > 1e-3
        with torch.no_grad():
            net.structure[row].conv2.bias.zero_()


def test_codes_and_weights_are_checked(net, codes):
    content, style = codes
    with pytest.raises(LatentShapeError, match="one shape"):
        net(content, style[:1], weights(1.0, 1.0))
    with pytest.raises(ConfigError, match="8 weights"):
        net(content, style, [1.0] * 18)
    for rows in (0, 4, 8):
        with pytest.raises(ConfigError, match="structure_rows"):
            DualStyleGenerator(SIZES, structure_rows=rows)


def public_generator(net):
    """The tensors under the authors' names, by a table of its own."""
    state, named = net.state_dict(), {}

    def conv(new, old):
        named[f"{new}.conv.weight"] = state[f"{old}.weight"][None]
        for part in ("weight", "bias"):
            named[f"{new}.conv.modulation.{part}"] = state[f"{old}.affine.{part}"]

    def styled(new, old, number):
        conv(new, old)
        named[f"{new}.activate.bias"] = state[f"{old}.bias"]
        named[f"{new}.noise.weight"] = state[f"{old}.noise_strength"][None]
        plane = state[f"{old}.noise_const"][None, None]
        named[f"generator.noises.noise_{number}"] = plane

    for k in range(2):
        for part in ("weight", "bias"):
            key = f"generator.style.{k + 1}.{part}"
            named[key] = state[f"generator.mapping.fc.{k}.{part}"]
            named[f"style.{k + 1}.{part}"] = state[f"transform.fc.{k}.{part}"]
    named["generator.input.input"] = state["generator.synthesis.const"][None]
    styled("generator.conv1", "generator.synthesis.b4.conv1", 0)
    heads = [("generator.to_rgb1", "generator.synthesis.b4.torgb")]
    for i, side in enumerate((8, 16, 32)):
        for j in (0, 1):
            place = f"generator.synthesis.b{side}.conv{j}"
            styled(f"generator.convs.{2 * i + j}", place, 2 * i + 1 + j)
        heads.append((f"generator.to_rgbs.{i}", f"generator.synthesis.b{side}.torgb"))
    for new, old in heads:
        conv(new, old)
        named[f"{new}.bias"] = state[f"{old}.bias"].reshape(1, 3, 1, 1)
    for row in range(COARSE):
        for new, old in (("conv", "conv1"), ("conv2", "conv2")):
            named[f"res.{row}.{new}.0.weight"] = state[f"structure.{row}.{old}.weight"]
            named[f"res.{row}.{new}.1.bias"] = state[f"structure.{row}.{old}.bias"]
        for new, old in (("norm", "norm1"), ("norm2", "norm2")):
            for part in ("weight", "bias"):
                key = f"structure.{row}.{old}.style.{part}"
                named[f"res.{row}.{new}.style.{part}"] = state[key]
    for row in range(COARSE, ROWS):
        for part in ("weight", "bias"):
            named[f"res.{row}.{part}"] = state[f"color.{row - COARSE}.{part}"]
    return named


@pytest.fixture(scope="module")
def public_files(net, encoder, tmp_path_factory):
    """generator.pt, encoder.pt and exstyle_code.npy as the authors publish them, of tiny networks."""
    folder = tmp_path_factory.mktemp("public")
    torch.save({"g_ema": public_generator(net)}, folder / "generator.pt")
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items() if k != "start"}
    state["decoder.style.1.weight"] = torch.zeros(2, 2)
    options = {"start_from_latent_avg": False, "output_size": 32}
    torch.save({"state_dict": state, "opts": options}, folder / "encoder.pt")
    rng = np.random.default_rng(0)
    styles = {f"{i}.jpg": rng.normal(size=(1, ROWS, 8)).astype(np.float32) for i in range(3)}
    with open(folder / "exstyle_code.npy", "wb") as file:
        np.save(file, styles, allow_pickle=True)
    return folder


@pytest.fixture(scope="module")
def imported(public_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    names = ["generator.pt", "encoder.pt", "exstyle_code.npy"]
    written = import_dualstylegan([public_files / name for name in names], folder)
    assert [p.name for p in written] == [
        "generator.safetensors", "encoder.safetensors", "exemplars.safetensors"
    ]  # fmt: skip
    return folder


def test_the_authors_files_become_the_same_networks(net, encoder, imported, codes, crops):
    method = DualStyle(device="cpu").load(imported)
    content, style = codes
    every = weights(0.75, 1.0)
    assert torch.equal(method.net(content, style, every), net(content, style, every))
    small = torch.nn.functional.interpolate(crops, size=32, mode="bilinear", antialias=True)
    assert torch.equal(method.encoder(small), encoder(small))
    assert method.parameters == count(net) + count(encoder)
    assert method.resolution == 32
    assert method.net.generator.w_avg.abs().sum() > 0  # not in the file: estimated


def test_exemplars_are_taken_by_turns_or_by_name(imported, crops):
    method = DualStyle(device="cpu").load(imported)
    img = method.stylize(crops)
    assert img.shape == (2, 3, 32, 32) and img.abs().max() <= 1
    torch.testing.assert_close(method.stylize(crops[1:], first=1), img[1:])
    torch.testing.assert_close(method.stylize(crops[1:], first=4), img[1:])
    assert not torch.allclose(method.stylize(crops[1:], first=0), img[1:])
    named = DualStyle(DualStyleConfig(exemplar="1.jpg"), device="cpu").load(imported)
    torch.testing.assert_close(named.stylize(crops)[1:], img[1:])
    with pytest.raises(ConfigError, match=r"0\.jpg"):
        DualStyle(DualStyleConfig(exemplar="7.jpg"), device="cpu").load(imported)


def test_kept_colour_takes_fine_rows_from_the_photo(imported, crops):
    by_turns = DualStyle(DualStyleConfig(keep_color=True, structure_weight=0), device="cpu")
    by_turns.load(imported)
    one = by_turns.stylize(crops, first=0)
    torch.testing.assert_close(one, by_turns.stylize(crops, first=1))


def test_prepare_loads_or_says_what_to_import(imported, tmp_path):
    assert DualStyle(device="cpu").prepare([], imported).net is not None
    with pytest.raises(CheckpointError, match="facestyle baseline import dualstylegan"):
        DualStyle(device="cpu").prepare([], tmp_path)


def test_a_mean_the_encoder_starts_from_is_kept(public_files, encoder, tmp_path):
    content = torch.load(public_files / "encoder.pt", weights_only=True)
    content["opts"]["start_from_latent_avg"] = True
    content["latent_avg"] = torch.arange(8.0)
    torch.save(content, tmp_path / "encoder.pt")
    import_dualstylegan([tmp_path / "encoder.pt"], tmp_path)
    from facestyle.baselines.dualstylegan import _read

    made = _read(PspEncoder, tmp_path / "encoder.safetensors")
    img = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(made(img), encoder(img) + torch.arange(8.0))


def test_imports_are_strict_both_ways(net, public_files, tmp_path):
    state = public_generator(net)
    with pytest.raises(CheckpointError, match="no place") as caught:
        from_public({**state, "res.0.conv3.weight": torch.zeros(1)})
    assert caught.value.unexpected == ("res.0.conv3.weight",)
    with pytest.raises(CheckpointError, match="no DualStyleGAN"):
        from_public({"conv1.weight": torch.zeros(1)})
    config, tensors = from_public({k: v for k, v in state.items() if k != "res.6.bias"})
    with pytest.raises(CheckpointError) as caught:
        load_strict(
            DualStyleGenerator(config["generator"], structure_rows=config["structure_rows"]),
            tensors | {"generator.mapping.w_avg": torch.zeros(8)},
        )
    assert caught.value.missing == ("color.1.bias",)
    encoder = torch.load(public_files / "encoder.pt", weights_only=True)
    for change, says in (
        ({"encoder.surprise": torch.zeros(1)}, "unexpected"),
        ({"discriminator.x": torch.zeros(1)}, "no pSp encoder"),
    ):
        torch.save(encoder | {"state_dict": encoder["state_dict"] | change}, tmp_path / "e.pt")
        with pytest.raises(CheckpointError, match=says):
            import_dualstylegan([tmp_path / "e.pt"], tmp_path / "out")
    torch.save({"d": 1}, tmp_path / "d.pt")
    with pytest.raises(CheckpointError, match="neither g_ema"):
        import_dualstylegan([tmp_path / "d.pt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_encoder_into_w_plus_is_warned_of(public_files, imported, tmp_path, caplog):
    for name in ("generator.safetensors", "exemplars.safetensors"):
        (tmp_path / name).write_bytes((imported / name).read_bytes())
    content = torch.load(public_files / "encoder.pt", weights_only=True)
    content["opts"]["start_from_latent_avg"] = True
    content["latent_avg"] = torch.arange(8.0)
    torch.save(content, tmp_path / "encoder.pt")
    import_dualstylegan([tmp_path / "encoder.pt"], tmp_path)
    DualStyle(device="cpu").load(tmp_path)
    assert "takes them for codes of Z+" in caplog.text
    caplog.clear()
    DualStyle(device="cpu").load(imported)
    assert not caplog.records


def test_codes_of_other_machines_and_precisions_are_read(tmp_path):
    code = np.arange(ROWS * 8, dtype=np.float32).reshape(1, ROWS, 8)
    for kind in (">f4", ">f8", np.longdouble, np.float16):
        with open(tmp_path / "c.npy", "wb") as file:
            np.save(file, {"a.jpg": code.astype(kind)}, allow_pickle=True)
        (written,) = import_dualstylegan([tmp_path / "c.npy"], tmp_path)
        assert torch.equal(read_tensors(written)["a.jpg"], torch.from_numpy(code[0]))
    with open(tmp_path / "c.npy", "wb") as file:
        np.save(file, {"a.jpg": np.full((1, ROWS, 8), 1e300)}, allow_pickle=True)
    with pytest.raises(CheckpointError, match="infinity"):
        import_dualstylegan([tmp_path / "c.npy"], tmp_path)


NAMELESS = torch.zeros(1 << 18)


@pytest.mark.parametrize(
    "content",
    [
        {"g_ema": 5},
        {"g_ema": {"generator.input.input": 5}},
        {"g_ema": {"generator.style.1.weight": torch.zeros(2)}},
        {"g_ema": {f"generator.convs.{i}.activate.bias": NAMELESS for i in range(100)}},
        {"state_dict": 5},
        {"state_dict": {"encoder.input_layer.0.weight": torch.zeros([])}},
        {"state_dict": {"encoder.input_layer.0.weight": 5}},
        {"other": 5, ("a", 1): 6},
    ],
    ids=range(8),
)
def test_malformed_files_are_named(tmp_path, content):
    file = tmp_path / "x.pt"
    torch.save(content, file)
    with pytest.raises(CheckpointError) as caught:
        import_dualstylegan([file], tmp_path / "out")
    assert caught.value.path == file and not (tmp_path / "out").exists()


def test_a_mean_of_w_of_another_size_is_named(net, public_files, tmp_path):
    encoder = torch.load(public_files / "encoder.pt", weights_only=True)
    encoder["opts"]["start_from_latent_avg"] = True
    file = tmp_path / "x.pt"
    for content in (
        {"g_ema": public_generator(net), "latent_avg": torch.zeros([])},
        {"g_ema": public_generator(net), "latent_avg": torch.zeros(9)},
        encoder | {"latent_avg": torch.zeros(18, 9)},
    ):
        torch.save(content, file)
        with pytest.raises(CheckpointError) as caught:
            import_dualstylegan([file], tmp_path / "out")
        assert caught.value.path == file and not (tmp_path / "out").exists()


def test_codes_must_fit_the_generator(imported, tmp_path):
    for name in ("generator.safetensors", "encoder.safetensors"):
        (tmp_path / name).write_bytes((imported / name).read_bytes())
    for shape in ((1, 18, 8), (ROWS, 9)):
        with open(tmp_path / "c.npy", "wb") as file:
            np.save(file, {"a.jpg": np.zeros(shape)}, allow_pickle=True)
        import_dualstylegan([tmp_path / "c.npy"], tmp_path)
        with pytest.raises(CheckpointError, match=r"a\.jpg"):
            DualStyle(device="cpu").load(tmp_path)
    for bad in (np.zeros(8), np.full((1, ROWS, 8), np.nan)):
        with open(tmp_path / "c.npy", "wb") as file:
            np.save(file, {"a.jpg": bad}, allow_pickle=True)
        with pytest.raises(CheckpointError):
            import_dualstylegan([tmp_path / "c.npy"], tmp_path)


def test_files_that_would_run_code_are_refused(exploit, tmp_path):
    torch.save({"g_ema": exploit}, tmp_path / "generator.pt")
    with open(tmp_path / "codes.npy", "wb") as file:
        np.save(file, {"a.jpg": exploit}, allow_pickle=True)
    for name in ("generator.pt", "codes.npy"):
        with pytest.raises(CheckpointError, match="could run code"):
            import_dualstylegan([tmp_path / name], tmp_path / "out")
    assert not Path(exploit.path).exists() and not (tmp_path / "out").exists()
