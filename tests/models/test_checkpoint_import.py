"""Public checkpoints become facestyle's networks: the same pictures, the same codes, every tensor in its place."""

import argparse
import io
import itertools
import json
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from facestyle import FaceStylizer
from facestyle.cli import main
from facestyle.errors import CheckpointError, ConfigError, DeviceMemoryError, OutputError
from facestyle.export import _Coding
from facestyle.models.bases import save_encoder
from facestyle.models.checkpoints import read_tensors
from facestyle.models.encode import encode, preview_of
from facestyle.models.encoder import Encoder
from facestyle.models.importers.checkpoints import (
    containers,
    import_checkpoint,
    network,
    open_checkpoint,
)
from facestyle.models.importers.checkpoints.stored import StoredTensor
from facestyle.models.psp_encoder import PspEncoder
from facestyle.models.settled_stylegan2 import SettledStyleGAN2
from facestyle.models.stylegan2_generator import StyleGAN2Generator
from facestyle.models.zoo import load_base_generator, load_discriminator, load_encoder

SIZES = {
    "resolution": 32, "w_dim": 8, "channel_base": 128, "channel_max": 8, "mapping_depth": 3
}  # fmt: skip
NVIDIA_SIZES = SIZES | {"conv_clamp": 256}
"""A pickle's layers say what they cut at; tensors alone do not."""


def assert_same_generator(net, foreign, sizes=SIZES):
    assert net.config() == sizes
    torch.testing.assert_close(net(foreign.z), foreign.generator(foreign.z), rtol=1e-4, atol=2e-4)


def assert_same_critic(net, foreign):
    torch.testing.assert_close(net(foreign.img), foreign.critic(foreign.img), rtol=1e-4, atol=1e-4)


def nvidia_file(foreign, path, flavour):
    """A training snapshot of stylegan2-ada-pytorch, or of the StyleGAN3 repository."""

    def ada(easy_dict):
        augment = foreign.Persistent()
        augment.register_buffer("p", torch.ones([]))
        return {"G": foreign.Generator(), "D": foreign.critic, "G_ema": foreign.generator,
                "augment_pipe": augment, "training_set_kwargs": easy_dict(resolution=32)}  # fmt: skip

    def sg3(easy_dict):
        return {"training_set_kwargs": easy_dict(), "D": foreign.critic, "augment_pipe": None,
                "G": None, "G_ema": foreign.generator}  # fmt: skip

    content, protocol = {"ada": (ada, 3), "sg3": (sg3, 4)}[flavour]
    path.write_bytes(foreign.pickle(content, protocol))
    return path


@pytest.fixture(scope="module")
def nvidia(foreign, tmp_path_factory):
    return nvidia_file(foreign, tmp_path_factory.mktemp("nvidia") / "ffhq.pkl", "sg3")


@pytest.fixture(scope="module")
def imported(nvidia, tmp_path_factory):
    out = tmp_path_factory.mktemp("imports") / "ffhq"
    import_checkpoint(nvidia, out)
    return out


@pytest.mark.parametrize("flavour", ["ada", "sg3"])
def test_nvidia_snapshots(foreign, tmp_path, flavour):
    file = nvidia_file(foreign, tmp_path / "snapshot.pkl", flavour)
    report = import_checkpoint(file, tmp_path / "out")
    assert report["kind"] == "nvidia-stylegan2"
    net = load_base_generator(tmp_path / "out")
    assert_same_generator(net, foreign, NVIDIA_SIZES)
    assert torch.equal(net.w_avg, foreign.generator.mapping.w_avg)
    assert_same_critic(load_discriminator(tmp_path / "out"), foreign)


def test_every_tensor_is_kept_bit_for_bit(foreign, imported):
    ours = read_tensors(imported / "generator.safetensors")
    theirs = {
        name: tensor
        for name, tensor in foreign.generator.state_dict().items()
        if not name.endswith("resample_filter")
    }
    assert len(ours) == len(theirs)
    for name, tensor in theirs.items():
        name = name.replace("mapping.fc", "mapping.fc.").replace("b4.const", "const")
        assert torch.equal(ours[name], tensor) and ours[name].dtype == tensor.dtype
    again = load_base_generator(imported).state_dict()
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())


def test_a_single_network_may_be_the_whole_file(foreign, tmp_path):
    file = tmp_path / "g.pkl"
    file.write_bytes(foreign.pickle(lambda _: foreign.generator, 4))
    (part,) = open_checkpoint(file).parts
    assert (part.name, part.config) == ("generator", NVIDIA_SIZES)
    torch.save(foreign.generator.state_dict(), tmp_path / "g.pt")
    (again,) = open_checkpoint(tmp_path / "g.pt").parts
    assert all(torch.equal(again.tensors[name], part.tensors[name]) for name in part.tensors)


@pytest.mark.parametrize("layer", ["b4.conv1", "b16.conv0", "b32.conv1", "b32.torgb"])
def test_what_nvidias_layers_cut_is_cut(foreign, tmp_path, layer):
    torch.manual_seed(8)
    theirs = foreign.Generator().eval().requires_grad_(False)
    theirs.synthesis.get_submodule(layer).bias[:3] = torch.tensor([400.0, -2000.0, 300.0])
    (tmp_path / "g.pkl").write_bytes(foreign.pickle(lambda _: {"G_ema": theirs}, 4))
    import_checkpoint(tmp_path / "g.pkl", tmp_path / "out")
    ours = load_base_generator(tmp_path / "out")
    wanted = theirs(foreign.z)
    rows = ours.mapping(foreign.z)[:, None].repeat(1, ours.num_ws, 1)
    for synthesis in (ours.synthesis, SettledStyleGAN2(ours.synthesis)):
        torch.testing.assert_close(synthesis(rows), wanted, rtol=1e-4, atol=1e-3)
    uncut = StyleGAN2Generator(**SIZES)
    uncut.load_state_dict(ours.state_dict())
    assert (uncut.synthesis(rows) - wanted).abs().max() > 1


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_rosinality_files(foreign, tmp_path, is_zip, is_training):
    w_avg = foreign.generator.mapping.w_avg
    content = {"g_ema": foreign.g_ema, "latent_avg": w_avg}
    if is_training:
        content |= {"g": {"other": torch.zeros(1)}, "d": foreign.d, "ada_aug_p": 0.0,
                    "args": argparse.Namespace(size=32), "g_optim": {"state": {0: {"step": 1}}}}  # fmt: skip
    torch.save(content, tmp_path / "550000.pt", _use_new_zipfile_serialization=is_zip)
    report = import_checkpoint(tmp_path / "550000.pt", tmp_path / "out")
    assert report["kind"] == "rosinality-stylegan2"
    assert report["parts"]["generator"]["w_avg"] == "stored"
    net = load_base_generator(tmp_path / "out")
    assert_same_generator(net, foreign)
    assert torch.equal(net.w_avg, w_avg)
    assert ("discriminator" in report["parts"]) == is_training
    if is_training:
        assert_same_critic(load_discriminator(tmp_path / "out"), foreign)


def test_a_mean_of_w_that_is_not_stored_is_estimated(foreign, tmp_path):
    torch.save({"g": foreign.g_ema}, tmp_path / "jojo.pt")
    (part,) = open_checkpoint(tmp_path / "jojo.pt").parts
    assert part.about["w_avg"] == "estimated"
    z = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(5))
    mean = foreign.generator.mapping(z).mean(0)
    torch.testing.assert_close(part.tensors["mapping.w_avg"], mean, rtol=0.1, atol=0.1)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(3)
    sizes = {"code_dim": 8, "input_px": 32, "widths": (2, 3, 4, 8), "units": (1, 1, 2, 1)}
    return PspEncoder(8, **sizes).eval().requires_grad_(False)


def psp_file(foreign, encoder, path, options, latent_avg=None):
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items() if k != "start"}
    state |= {f"decoder.{k}": v for k, v in foreign.g_ema.items()}
    content = {"state_dict": state, "opts": options}
    if latent_avg is not None:
        content["latent_avg"] = latent_avg
    torch.save(content, path)
    return path


def test_psp_files(foreign, encoder, tmp_path):
    w_avg = torch.randn(8)
    options = {"start_from_latent_avg": True, "encoder_type": "GradualStyleEncoder"}
    file = psp_file(foreign, encoder, tmp_path / "psp.pt", options, w_avg.repeat(8, 1))
    report = import_checkpoint(file, tmp_path / "out")
    assert report["kind"] == "psp" and report["parts"]["encoder"]["space"] == "w_plus"
    net, img = load_encoder(tmp_path / "out", space="w_plus"), foreign.img
    torch.testing.assert_close(net(img), encoder(img) + w_avg)
    decoder = load_base_generator(tmp_path / "out")
    assert_same_generator(decoder, foreign)
    assert torch.equal(decoder.w_avg, w_avg)
    with pytest.raises(CheckpointError, match="into w_plus, and one into w was asked for"):
        load_encoder(tmp_path / "out")


def test_e4e_adds_its_rows_to_the_first_which_is_a_code_of_w(foreign, encoder, tmp_path):
    w_avg = torch.randn(8)
    options = argparse.Namespace(start_from_latent_avg=True, encoder_type="Encoder4Editing")
    file = psp_file(foreign, encoder, tmp_path / "e4e.pt", options, w_avg.repeat(8, 1))
    assert import_checkpoint(file, tmp_path / "out")["kind"] == "e4e"
    read, img = encoder(foreign.img), foreign.img
    rows = [read[:, 0]] + [read[:, 0] + read[:, i] for i in range(1, 8)]
    net = load_encoder(tmp_path / "out", space="w_plus")
    torch.testing.assert_close(net(img), torch.stack(rows, 1) + w_avg)
    only_w = load_encoder(tmp_path / "out", space="w")
    torch.testing.assert_close(only_w(img), read[:, 0] + w_avg)


def test_encoders_that_start_from_nothing_are_of_z_plus(foreign, encoder, tmp_path):
    file = psp_file(foreign, encoder, tmp_path / "z.pt", {"start_from_latent_avg": False})
    import_checkpoint(file, tmp_path / "out")
    net = load_encoder(tmp_path / "out", space="z_plus")
    torch.testing.assert_close(net(foreign.img), encoder(foreign.img))
    file = psp_file(foreign, encoder, tmp_path / "no.pt", {"start_from_latent_avg": True})
    with pytest.raises(CheckpointError, match="start from latent_avg, and holds none"):
        open_checkpoint(file)


def test_options_need_not_be_booleans(foreign, encoder, tmp_path):
    options = {"start_from_latent_avg": 1, "encoder_type": "GradualStyleEncoder"}
    file = psp_file(foreign, encoder, tmp_path / "psp.pt", options, torch.ones(8))
    part = open_checkpoint(file).parts[0]
    assert part.about["space"] == "w_plus"
    assert torch.equal(part.tensors["start"], torch.ones(8, 8))


def test_encoders_that_do_not_say_what_they_are_are_refused(foreign, encoder, tmp_path):
    file = psp_file(foreign, encoder, tmp_path / "x.pt", None, torch.ones(8))
    with pytest.raises(
        CheckpointError, match=r"latent_avg and no opts .* told from e4e's"
    ) as caught:
        open_checkpoint(file)
    assert caught.value.path == file
    options = {"start_from_latent_avg": False, "encoder_type": "Encoder4Editing"}
    for average in (None, torch.ones(8)):
        psp_file(foreign, encoder, file, options, average)
        with pytest.raises(CheckpointError, match=r"e4e's and .* do not start from latent_avg"):
            open_checkpoint(file)


def test_dualstylegan_parts_go_into_one_folder(foreign, encoder, tmp_path):
    from facestyle.baselines.dualstylegan import DualStyle
    from facestyle.baselines.dualstylegan_network import DualStyleGenerator

    torch.manual_seed(4)
    net = DualStyleGenerator(SIZES, structure_rows=5)
    state = {f"generator.{k}": v for k, v in foreign.g_ema.items()}
    for name, tensor in net.state_dict().items():
        group, *rest = name.split(".")
        if group == "transform":
            state[f"style.{int(rest[1]) + 1}.{rest[2]}"] = tensor
        elif group == "color":
            state[f"res.{int(rest[0]) + 5}.{rest[1]}"] = tensor
        elif group == "structure":
            layer = {"conv1": "conv", "norm1": "norm"}.get(rest[1], rest[1])
            place = {"weight": "0.weight", "bias": "1.bias"}[rest[-1]] if "conv" in layer else ""
            state[f"res.{rest[0]}.{layer}.{place or '.'.join(rest[2:])}"] = tensor
    torch.save({"g_ema": state}, tmp_path / "generator.pt")
    codes = {f"{i}.jpg": np.full((1, 8, 8), i, np.float32) for i in range(2)}
    np.save(tmp_path / "codes.npy", np.array(codes, dtype=object), allow_pickle=True)
    psp_file(foreign, encoder, tmp_path / "encoder.pt", {})
    out = tmp_path / "out"
    kinds = []
    for name in ("generator.pt", "codes.npy", "encoder.pt"):
        kinds.append(import_checkpoint(tmp_path / name, out)["kind"])
    assert kinds == ["dualstylegan", "dualstylegan-codes", "psp"]
    method = DualStyle(device="cpu").load(out)
    assert [float(code[0, 0]) for code in method.exemplars] == [0.0, 1.0]
    picture = method.stylize(torch.zeros(1, 3, 32, 32))
    assert picture.shape == (1, 3, 32, 32)
    torch.testing.assert_close(method.net.structure[0].conv1.weight, net.structure[0].conv1.weight)
    assert_same_generator(method.net.generator, foreign)
    with pytest.raises(OutputError, match=r"holds encoder\.safetensors already"):
        import_checkpoint(tmp_path / "encoder.pt", out)


def finetuned(foreign, path, change=None):
    """A style finetuned from the generator: another synthesis network on the same mapping network."""
    state = {
        name: tensor if name.startswith("style.") or name.endswith("kernel") else tensor + 0.1
        for name, tensor in foreign.g_ema.items()
    }
    torch.save({"g_ema": state | (change or {})}, path)
    return path


@pytest.mark.parametrize("half", [True, False])
def test_an_encoder_goes_with_a_generator_of_the_same_w(foreign, encoder, tmp_path, half, capsys):
    out = tmp_path / "out"
    import_checkpoint(finetuned(foreign, tmp_path / "style.pt"), out, half=half)
    before = (out / "generator.safetensors").read_bytes()
    file = psp_file(foreign, encoder, tmp_path / "z.pt", {})
    assert main(["import", str(file), "-o", str(out)]) == 0
    told = f"left out: generator: {out} holds one of the same W already"
    assert told in capsys.readouterr().out
    assert (out / "generator.safetensors").read_bytes() == before
    assert load_encoder(out, space="z_plus").rows == 8


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {"style.2.weight": state["style.2.weight"].flip(0)},
        lambda state: {"style.2.weight": state["style.2.weight"] + 0.2 * state["style.3.weight"]},
        lambda state: {"style.4.weight": torch.eye(8), "style.4.bias": torch.ones(8)},
    ],
    ids=["another", "finetuned too far", "deeper"],
)
def test_an_encoder_of_another_w_is_refused(foreign, encoder, tmp_path, change):
    out = tmp_path / "out"
    import_checkpoint(finetuned(foreign, tmp_path / "g.pt", change(foreign.g_ema)), out)
    before = sorted(out.iterdir())
    file = psp_file(foreign, encoder, tmp_path / "z.pt", {})
    with pytest.raises(
        CheckpointError, match=r"another W .* import it into a folder of its own"
    ) as caught:
        import_checkpoint(file, out)
    assert caught.value.path == file and sorted(out.iterdir()) == before


def test_an_encoder_goes_with_a_mobilestylegan_of_the_same_w(
    foreign, encoder, mobile, tmp_path, astronaut
):
    state = {name: tensor for name, tensor in mobile.items() if "mapping_net" not in name}
    for name, tensor in foreign.g_ema.items():
        if name.startswith("style."):
            state[name.replace("style.", "mapping_net.layers.")] = tensor
    torch.save({"state_dict": state}, tmp_path / "same.ckpt")
    torch.save({"state_dict": mobile}, tmp_path / "other.ckpt")
    options = {"start_from_latent_avg": True, "encoder_type": "Encoder4Editing"}
    file = psp_file(foreign, encoder, tmp_path / "e4e.pt", options, torch.zeros(8, 8))
    for name in ("same", "other"):
        import_checkpoint(tmp_path / f"{name}.ckpt", tmp_path / name)
    with pytest.raises(CheckpointError, match="another W"):
        import_checkpoint(file, tmp_path / "other")
    out = tmp_path / "same"
    psp = psp_file(foreign, encoder, tmp_path / "psp.pt", {})
    with pytest.raises(CheckpointError, match=r"codes of 8 rows, and the generator in .* takes 6"):
        import_checkpoint(psp, out)
    report = import_checkpoint(file, out)
    assert list(report["left_out"]) == ["generator"]
    assert (report["parts"]["encoder"]["space"], report["parts"]["encoder"]["rows"]) == ("w", 1)
    stylizer = FaceStylizer.from_pretrained(out, device="cpu", dtype="float32")
    face = stylizer(astronaut.crop((100, 0, 356, 256)), aligned=True).faces[0]
    assert face.portrait.size == (32, 32)
    crop = stylizer.prepare(astronaut.crop((100, 0, 356, 256)), aligned=True).crops[0]
    torch.testing.assert_close(face.w[None], encoder(crop)[:, 0], rtol=1e-3, atol=1e-3)


def test_encoders_that_do_not_fit_are_left_out(imported, encoder, tmp_path, caplog):
    """As imports of before left them."""
    folder = tmp_path / "mine"
    shutil.copytree(imported, folder)
    save_encoder(Encoder(w_dim=8, input_px=32, hidden=16), folder / "encoder_w.safetensors")
    sizes = {"code_dim": 8, "input_px": 32, "widths": (2, 3, 4, 8), "units": (1, 1, 2, 1)}
    save_encoder(PspEncoder(18, **sizes), folder / "encoder_w_plus.safetensors")
    save_encoder(PspEncoder(8, space="z_plus", **sizes), folder / "encoder_z_plus.safetensors")
    stylizer = FaceStylizer.from_pretrained(folder, device="cpu", dtype="float32")
    (told,) = (record.message for record in caplog.records)
    assert "encoder_w_plus.safetensors is left out" in told
    assert "18 x 8 numbers, and the generator of 32 px takes 8 x 8" in told
    assert stylizer.encoder_into("z_plus").rows == 8
    with pytest.raises(CheckpointError, match=r"18 x 8 numbers, and .* takes 8 x 8"):
        stylizer.encoder_into("w_plus")


CHANNELS = (8, 8, 4)


@pytest.fixture(scope="module")
def mobile():
    """``state_dict`` of MobileStyleGAN's training, tiny."""
    rng = torch.Generator().manual_seed(6)

    def draw(*shape):
        return torch.randn(shape, generator=rng)

    state = {"device_info": torch.tensor(1)}
    for k in (1, 2):
        state[f"mapping_net.layers.{k}.weight"] = draw(8, 8) * 100
        state[f"mapping_net.layers.{k}.bias"] = draw(8) * 100
    state["style_mean"] = mobile_w(state, draw(4096, 8)).mean(0).repeat(1, 8, 1)

    def modulation(name, count):
        state[f"{name}.modulation.weight"], state[f"{name}.modulation.bias"] = draw(count, 8), draw(count)  # fmt: skip

    def head(name, count):
        modulation(f"{name}.conv", count)
        state[f"{name}.conv.weight"] = draw(12, count, 1, 1)
        state[f"{name}.bias"] = draw(1, 12, 1, 1)

    def styled(name, before, after, dense=False):
        modulation(f"{name}.conv", before)
        state[f"{name}.conv.style_inv"] = draw(1, 1, before, 1, 1)
        if dense:
            state[f"{name}.conv.weight"] = draw(after, before, 3, 3)
        else:
            state[f"{name}.conv.weight_dw"] = draw(before, 1, 3, 3)
            state[f"{name}.conv.weight_permute"] = draw(after, before, 1, 1)
        state[f"{name}.noise.weight"] = torch.zeros(1)
        state[f"{name}.bias"] = draw(1, after, 1, 1)

    state["student.input.input"] = draw(1, CHANNELS[0], 4, 4)
    styled("student.conv1", CHANNELS[0], CHANNELS[0], dense=True)
    head("student.to_img1", CHANNELS[0])
    for i, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        layer = f"student.layers.{i}"
        modulation(f"{layer}.up", before)
        styled(f"{layer}.conv1", before // 4, after)
        styled(f"{layer}.conv2", after, after)
        head(f"{layer}.to_img", after)
    state["student.idwt.g0_col"] = torch.ones(1)
    state["student.device_info"] = torch.zeros(1)
    state["synthesis_net.anything"] = torch.ones(3)
    return state


def mobile_w(state, z):
    """What the mapping network makes of z."""
    w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
    for k in (1, 2):
        layer = f"mapping_net.layers.{k}"
        w = F.linear(w, state[f"{layer}.weight"] * 0.01 / 8**0.5, state[f"{layer}.bias"] * 0.01)
        w = F.leaky_relu(w, 0.2) * 2**0.5
    return w


def mobile_picture(state, z, blocks):
    """The student's picture behind so many blocks, by its own arithmetic and channel order."""

    def style(name, w):
        return F.linear(w, state[f"{name}.modulation.weight"], state[f"{name}.modulation.bias"])

    def inverse_haar(x):
        c = x.shape[1] // 4
        low, high = x[:, :c], x[:, c:].reshape(len(x), c, 3, *x.shape[2:])
        lh, hl, hh = high.unbind(2)
        rows = [[low + lh + hl + hh, low + lh - hl - hh], [low - lh + hl - hh, low - lh - hl + hh]]
        out = torch.zeros(len(x), c, 2 * x.shape[2], 2 * x.shape[3])
        for i in (0, 1):
            for j in (0, 1):
                out[:, :, i::2, j::2] = rows[i][j] / 2
        return out

    def conv(name, x, w):
        if f"{name}.weight_dw" in state:
            full = state[f"{name}.weight_dw"].transpose(0, 1) * state[f"{name}.weight_permute"]
        else:
            full = state[f"{name}.weight"]
        scale = 1 / math.sqrt(full[0].numel())
        x = F.conv2d(x * (scale * style(name, w))[:, :, None, None], full, padding=full.shape[-1] // 2)  # fmt: skip
        if f"{name}.style_inv" in state:
            fixed = scale * state[f"{name}.style_inv"][0] * full
            x = x * torch.rsqrt(fixed.square().sum((1, 2, 3)) + 1e-8)[:, None, None]
        return x

    def styled(name, x, w):
        return F.leaky_relu(conv(f"{name}.conv", x, w) + state[f"{name}.bias"], 0.2)

    w = mobile_w(state, z)
    x = styled("student.conv1", state["student.input.input"].expand(len(z), -1, -1, -1), w)
    for i in range(blocks):
        layer = f"student.layers.{i}"
        x = inverse_haar(x * style(f"{layer}.up", w)[:, :, None, None])
        x = styled(f"{layer}.conv2", styled(f"{layer}.conv1", x, w), w)
    head = f"student.layers.{blocks - 1}.to_img"
    return inverse_haar(conv(f"{head}.conv", x, w) + state[f"{head}.bias"])


def test_mobilestylegan_files(mobile, tmp_path):
    content = {"state_dict": mobile, "epoch": 3, "hparams": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "mobile.ckpt")
    report = import_checkpoint(tmp_path / "mobile.ckpt", tmp_path / "out")
    assert report["kind"] == "mobilestylegan"
    net = load_base_generator(tmp_path / "out")
    assert (net.channels, net.resolution, net.preview_resolution) == (CHANNELS, 32, 16)
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(7))
    for side, blocks in ((32, 2), (16, 1)):
        theirs = mobile_picture(mobile, z, blocks)
        ours = net(z, resolution=side) / theirs.std()
        torch.testing.assert_close(ours, theirs / theirs.std(), rtol=0, atol=1e-5)
    assert torch.equal(net.w_avg, mobile["style_mean"][0, 0])
    assert report["parts"]["generator"]["w_avg"] == "stored"


def test_a_single_w_in_place_of_mobilestylegans_mean_is_not_taken(mobile, tmp_path):
    z = torch.randn(4096, 8, generator=torch.Generator().manual_seed(9))
    one = mobile_w(mobile, z.mean(0, keepdim=True))
    torch.save({"state_dict": mobile | {"style_mean": one[:, None]}}, tmp_path / "m.ckpt")
    (part,) = open_checkpoint(tmp_path / "m.ckpt").parts
    assert part.about["w_avg"] == "estimated"
    w = mobile_w(mobile, z)
    far = (part.tensors["mapping.w_avg"] - w.mean(0)).norm() / (w - w.mean(0)).norm(dim=1).mean()
    assert far < 0.05


def test_mobilestylegans_noise_has_its_stored_strength(mobile, tmp_path):
    strong = {**mobile, "student.layers.1.conv2.noise.weight": torch.tensor([3.0])}
    torch.save({"state_dict": strong}, tmp_path / "m.ckpt")
    (part,) = open_checkpoint(tmp_path / "m.ckpt").parts
    plane = part.tensors["synthesis.blocks.1.conv2.noise"]
    assert plane.shape == (1, 1, 16, 16) and 2 < float(plane.std()) < 4
    assert not part.tensors["synthesis.blocks.1.conv1.noise"].any()


def test_mobilestylegan_files_are_strict_both_ways(mobile, tmp_path):
    torch.save({"state_dict": mobile | {"student.extra": torch.ones(1)}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="no place") as caught:
        open_checkpoint(tmp_path / "a.ckpt")
    assert caught.value.unexpected == ("student.extra",)
    missing = "layers.1.up.modulation.weight"
    torch.save(
        {"state_dict": {k: v for k, v in mobile.items() if not k.endswith(missing)}},
        tmp_path / "b.ckpt",
    )
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "b.ckpt")
    assert caught.value.missing == (missing,)


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("weight_permute", (4000, 4000, 1, 1), "1 x 1 convolution"),
        ("weight_dw", (1, 4000, 3, 3), "1 x 1 convolution"),
        ("style_inv", (1, 1, 90_000, 1, 1), "a style of 90000"),
        ("noise.weight", (90_000,), "one strength of noise"),
    ],
)
def test_shapes_that_would_be_multiplied_are_refused_first(mobile, name, shape, told, tmp_path):
    layer = "student.layers.0.conv1"
    whole = f"{layer}.{name}" if name == "noise.weight" else f"{layer}.conv.{name}"
    assert whole in mobile
    torch.save({"state_dict": mobile | {whole: torch.zeros(shape)}}, tmp_path / "m.ckpt")
    with pytest.raises(CheckpointError, match=told):
        open_checkpoint(tmp_path / "m.ckpt")


def test_depthwise_kernels_of_another_size_are_refused(mobile, tmp_path):
    name = "student.layers.0.conv1.conv.weight_dw"
    torch.save(
        {"state_dict": mobile | {name: torch.zeros(len(mobile[name]), 1, 3, 4000)}},
        tmp_path / "m.ckpt",
    )
    with pytest.raises(CheckpointError, match="3 x 3 depthwise kernels"):
        open_checkpoint(tmp_path / "m.ckpt")


def changed(foreign, path, change):
    state = {"g_ema": dict(foreign.g_ema), "d": dict(foreign.d)}
    change(state)
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("change", "says", "missing", "unexpected"),
    [
        (lambda s: s["g_ema"].pop("convs.3.activate.bias"), "missing",
         ("synthesis.b16.conv1.bias",), ()),
        (lambda s: s["g_ema"].update({"convs.9.x": torch.ones(1)}), "no place", (), ("convs.9.x",)),
        (lambda s: s["g_ema"].update({"style.2.bias": torch.ones(9)}), "has shape", (),
         ("mapping.fc.1.bias",)),
        (lambda s: s["g_ema"].update({"style.2.bias": torch.full((8,), torch.nan)}), "NaN", (),
         ("mapping.fc.1.bias",)),
        (lambda s: s["g_ema"].update({"input.input": torch.ones([])}), "no leading axis", None, None),
        (lambda s: s["g_ema"].update({"noises.noise_0": torch.ones(3)}), "holds|shape", None, None),
        (lambda s: s["g_ema"].update({"convs.0.conv.blur.kernel": torch.ones(4, 4) / 4}), "another filter", None, None),
        (lambda s: s["g_ema"].update({"to_rgbs.0.upsample.kernel": torch.ones(2, 2)}), "another filter", None, None),
        (lambda s: s["g_ema"].update({"conv1.conv.weight": s["g_ema"]["conv1.conv.weight"].repeat(3, 1, 1, 1, 1)}),
         "no leading axis of length 1", None, None),
    ],
)  # fmt: skip
def test_imports_are_strict_both_ways(foreign, tmp_path, change, says, missing, unexpected):
    file = changed(foreign, tmp_path / "x.pt", change)
    with pytest.raises(CheckpointError, match=says) as caught:
        import_checkpoint(file, tmp_path / "out")
    assert caught.value.path == file
    if missing is not None:
        assert (caught.value.missing, caught.value.unexpected) == (missing, unexpected)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("convs.2.skip.1.weight"), "does not fit StyleGAN2Critic"),
        (
            lambda d: d.update({"convs.1.conv3.weight": torch.ones(1)}),
            "has 1 tensors with no place",
        ),
        (lambda d: d.pop("final_conv.0.weight"), "holds no StyleGAN2 discriminator"),
        (lambda d: d.update({"final_conv.0.weight": torch.ones([])}), "sizes that do not go"),
        (lambda d: d.update({"convs.1.skip.0.kernel": torch.ones(4, 4) / 16}), "another filter"),
    ],
    ids=range(5),
)
def test_a_discriminator_that_cannot_be_read_is_left_out(foreign, tmp_path, change, says, capsys):
    file, out = tmp_path / "x.pt", tmp_path / "out"
    changed(foreign, file, lambda state: change(state["d"]))
    assert main(["import", str(file), "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert "left out: discriminator: " in told and says in told
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "generator.safetensors"]
    assert_same_generator(load_base_generator(out), foreign)
    assert list(open_checkpoint(file).left_out) == ["discriminator"]


def test_a_pickles_discriminator_is_left_out_only_beside_its_generator(foreign, tmp_path):
    file = tmp_path / "x.pkl"
    critic = foreign.Persistent()
    critic.register_buffer("extra", torch.ones(1))
    file.write_bytes(foreign.pickle(lambda _: {"G_ema": foreign.generator, "D": critic}, 4))
    found = open_checkpoint(file)
    assert [part.name for part in found.parts] == ["generator"]
    assert "no place in a StyleGAN2 discriminator" in found.left_out["discriminator"]
    assert str(file) not in found.left_out["discriminator"]
    file.write_bytes(foreign.pickle(lambda _: {"D": critic}, 4))
    with pytest.raises(CheckpointError, match="no place"):
        open_checkpoint(file)


OUT_OF_MEMORY = [
    MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]  # fmt: skip


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["Python", "torch"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(containers, "read_pickle"), (StoredTensor, "load"), (network, "load_strict")],
    ids=["reading", "loading", "building"],
)
def test_memory_that_runs_out_is_not_blamed_on_the_file(
    foreign, tmp_path, monkeypatch, owner, name, error
):
    def full(*_, **__):
        raise error

    file = changed(foreign, tmp_path / "x.pt", lambda state: None)
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(DeviceMemoryError, match="took more memory than there is"):
        import_checkpoint(file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [file]


def test_memory_that_runs_out_in_writing_is_named(foreign, tmp_path, monkeypatch):
    from facestyle.models.importers.checkpoints import folder

    def full(*_, **__):
        raise MemoryError

    file = changed(foreign, tmp_path / "x.pt", lambda state: None)
    monkeypatch.setattr(folder, "save_tensors", full)
    with pytest.raises(DeviceMemoryError, match="importing the checkpoint took more memory"):
        import_checkpoint(file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [file]


def test_settings_that_no_tensor_shows_are_looked_at(foreign, tmp_path):
    file = tmp_path / "x.pkl"

    def says(change):
        net = foreign.Generator()
        change(net)
        file.write_bytes(foreign.pickle(lambda _: {"G_ema": net}, 4))
        with pytest.raises(CheckpointError) as caught:
            import_checkpoint(file, tmp_path / "out")
        return str(caught.value)

    def filters(net):
        net.synthesis.b8.resample_filter += 1

    def activation(net):
        net.synthesis.b8.conv1.activation = "relu"

    def clamp(net):
        net.synthesis.b8.conv1.conv_clamp = 128

    def text_as_clamp(net):
        net.synthesis.b8.conv1.conv_clamp = "256"

    def labels(net):
        net.mapping.embed = foreign.Persistent()
        net.mapping.embed.register_buffer("weight", torch.ones(2))

    def twice(net):
        net.synthesis.b8 = net.synthesis.b16

    def shared(net):
        net.synthesis.b8.conv1._parameters = net.synthesis.b16.conv1._parameters

    def long(net):
        net.synthesis.b8.register_buffer("x" * 200, torch.ones(1))

    assert "another filter" in says(filters)
    assert "activation relu" in says(activation)
    assert "cut their results at different numbers" in says(clamp)
    assert "conv_clamp that is no number above 0" in says(text_as_clamp)
    assert "labelled classes" in says(labels)
    assert "no module of its own" in says(twice)
    assert "another module's too" in says(shared)
    assert "names of more than 200" in says(long)
    assert "learning rate" in says(lambda net: setattr(net, "mapping", foreign.MappingNetwork(0.1)))
    assert list(tmp_path.iterdir()) == [file]


def test_what_was_imported_is_written_down(nvidia, imported):
    import hashlib

    config = json.loads((imported / "config.json").read_text())
    part = config["parts"]["generator"]
    assert config["format"] == "facestyle-import"
    assert part["config"] == NVIDIA_SIZES and part["architecture"] == "stylegan2"
    digest = hashlib.sha256(nvidia.read_bytes()).hexdigest()
    assert part["origin"] == {"file": "ffhq.pkl", "kind": "nvidia-stylegan2", "sha256": digest,
                              "bytes": nvidia.stat().st_size}  # fmt: skip
    with safe_open(imported / "generator.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["origin"]) == part["origin"]
    names = sorted(path.name for path in imported.iterdir())
    assert names == ["config.json", "discriminator.safetensors", "generator.safetensors"]


def test_half_precision_is_half_the_size(foreign, nvidia, imported, tmp_path):
    import_checkpoint(nvidia, tmp_path / "half", half=True)
    whole, half = (f / "generator.safetensors" for f in (imported, tmp_path / "half"))
    tensors = read_tensors(half)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    for name, tensor in read_tensors(whole).items():
        assert torch.equal(tensors[name], tensor.half())
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    load_base_generator(tmp_path / "half")
    large = changed(
        foreign, tmp_path / "l.pt", lambda s: s["g_ema"].update({"style.1.bias": torch.full((8,), 1e5)})
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="beyond 65504"):
        import_checkpoint(large, tmp_path / "large", half=True)
    assert not (tmp_path / "large").exists()


def test_folders_of_other_things_are_left_alone(nvidia, imported, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"x")
    for out, says in ((tmp_path / "mine", "no earlier import"), (imported, "already")):
        before = sorted(path.name for path in out.iterdir())
        with pytest.raises(OutputError, match=says):
            import_checkpoint(nvidia, out)
        assert sorted(path.name for path in out.iterdir()) == before
    (tmp_path / "empty").mkdir()
    import_checkpoint(nvidia, tmp_path / "empty")
    assert load_base_generator(tmp_path / "empty").resolution == 32


def test_a_failed_write_leaves_nothing(nvidia, tmp_path, monkeypatch):
    from facestyle.models.importers.checkpoints import folder

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "save_tensors", full)
    with pytest.raises(OutputError, match="No space left"):
        import_checkpoint(nvidia, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_an_import_that_broke_off_is_made_anew(foreign, nvidia, tmp_path, monkeypatch, moved):
    from facestyle.models.importers.checkpoints import folder

    out, real, calls = tmp_path / "out", folder.shutil.move, []
    out.mkdir()

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) > moved:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(folder.shutil, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(nvidia, out)
    monkeypatch.undo()
    left = {path: path.read_bytes() for path in out.iterdir()}
    assert len(left) == moved and not (out / "config.json").exists()
    if left:
        torch.save({"g_ema": foreign.g_ema}, tmp_path / "other.pt")
        with pytest.raises(OutputError, match="no earlier import"):
            import_checkpoint(tmp_path / "other.pt", out)
        assert {path: path.read_bytes() for path in out.iterdir()} == left
    import_checkpoint(nvidia, out)
    assert_same_generator(load_base_generator(out), foreign, NVIDIA_SIZES)
    assert_same_critic(load_discriminator(out), foreign)


def test_the_command(nvidia, tmp_path, capsys):
    assert main(["import", str(nvidia), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    net = load_base_generator(tmp_path / "out")
    count = sum(p.numel() for p in net.parameters())
    assert "nvidia-stylegan2" in said and f"stylegan2, 32 px, {count:,} parameters" in said
    assert main(["import", str(nvidia), "-o", str(tmp_path / "half"), "--fp16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parts"]["generator"]["dtype"] == "float16"
    assert report["parts"]["generator"]["parameters"] == count
    assert main(["import", str(tmp_path / "absent.pkl"), "-o", str(tmp_path / "no")]) == 3
    assert "CheckpointError" in capsys.readouterr().err
    assert main(["import", str(nvidia), "-o", str(tmp_path / "out")]) == 4
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def e4e_folder(foreign, encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("e4e")
    options = {"start_from_latent_avg": True, "encoder_type": "Encoder4Editing"}
    file = psp_file(foreign, encoder, path / "e4e.pt", options, torch.zeros(8, 8))
    import_checkpoint(file, path / "out")
    return path / "out"


def test_an_import_is_not_drawn_by_an_encoder_of_another_w(imported, encoder, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(imported, folder)
    says = rf"mine: holds no encoder into w, .*train-encoder --base {folder} --space w"
    with pytest.raises(CheckpointError, match=says):
        FaceStylizer.from_pretrained(folder, device="cpu")
    save_encoder(Encoder(w_dim=16, input_px=32, hidden=16), folder / "encoder_w.safetensors")
    with pytest.raises(CheckpointError, match=r"1 x 16 numbers, and .* takes 1 x 8"):
        FaceStylizer.from_pretrained(folder, device="cpu")
    own = Encoder(w_dim=8, input_px=32, hidden=16)
    save_encoder(own, folder / "encoder_w.safetensors")
    stylizer = FaceStylizer.from_pretrained(folder, device="cpu", dtype="float32")
    assert stylizer.encoder.config() == own.config()


def test_an_import_of_the_bundled_w_is_drawn_by_the_bundled_encoder(tmp_path, astronaut):
    """Which corrects its codes by the bundled generator: this one's pictures show nobody."""
    net = StyleGAN2Generator(8, channel_base=8, channel_max=8)
    for ours, theirs in zip(net.mapping.fc, load_base_generator().mapping.layers, strict=True):
        ours.weight.data, ours.bias.data = theirs.weight / ours.gain, theirs.bias / ours.rate
    names = {"mapping.fc.": "mapping.fc", "synthesis.const": "synthesis.b4.const"}
    state = net.state_dict()
    for ours, theirs in names.items():
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "g.pt")
    import_checkpoint(tmp_path / "g.pt", tmp_path / "out")
    stylizer = FaceStylizer.from_pretrained(tmp_path / "out", device="cpu", dtype="float32")
    assert stylizer.encoder.config() == load_encoder().config()
    prepared = stylizer.prepare(astronaut.crop((100, 0, 356, 256)), aligned=True)
    with torch.no_grad():
        wanted = encode(load_encoder(), prepared.crops[0], load_base_generator())
        by_its_own = encode(
            load_encoder(), prepared.crops[0], stylizer.base, preview_of(stylizer.base)
        )
    assert (by_its_own - wanted).abs().max() > 0.1
    assert prepared.codes[0].shape == (4, 512)
    torch.testing.assert_close(prepared.codes[0], wanted.expand(4, -1), rtol=0, atol=1e-3)
    with torch.inference_mode():
        torch.testing.assert_close(
            encode(stylizer.encoder, prepared.crops[0], stylizer.base), wanted
        )
        exported = _Coding(stylizer.encoder, stylizer.base)(prepared.crops[0], torch.tensor(1.0))
    torch.testing.assert_close(exported[0], wanted.expand(4, -1), rtol=0, atol=1e-3)


def test_an_import_is_not_saved_as_a_style_of_the_bundled_generator(e4e_folder, tmp_path):
    stylizer = FaceStylizer.from_pretrained(e4e_folder, device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="copy that folder"):
        stylizer.save_pretrained(tmp_path / "style")
    assert not (tmp_path / "style").exists()


def test_an_import_stylizes_like_a_style(foreign, encoder, e4e_folder, astronaut):
    from facestyle.image import to_pil, to_tensor

    stylizer = FaceStylizer.from_pretrained(e4e_folder, device="cpu", dtype="float32")
    photo = astronaut.crop((100, 0, 356, 256))
    assert stylizer.config.psi == 1  # as that of the bundled styles
    face = stylizer(photo, aligned=True).faces[0]
    small = F.interpolate(to_tensor(photo), size=32, mode="bilinear", antialias=True)
    w = encoder(small)[:, 0]
    torch.testing.assert_close(face.w[None], w, rtol=0.05, atol=0.02)
    drawn = to_pil(foreign.generator.synthesis(face.w.expand(1, 8, 8)))
    levels = np.abs(np.asarray(face.portrait, int) - np.asarray(drawn, int))
    assert face.portrait.size == (32, 32) and levels.max() <= 1
    assert stylizer.encoder_into("w_plus").space == "w_plus"
    made = stylizer.variations(photo, n=2, aligned=True, mixing_level=4)
    assert len(made) == 2
    code = stylizer.encode_reference(photo, space="v", steps=2, init="mean", aligned=True)
    assert stylizer.with_reference(photo, code, mixing_level=4, aligned=True).faces


def test_training_reaches_the_blocks_of_its_stage(imported):
    from facestyle.training.finetune import _trained

    net = load_base_generator(imported)
    net.preview_resolution = 16

    def blocks(late_blocks, early_blocks=0):
        return {name.split(".")[0] for name, _ in _trained(net, early_blocks, late_blocks)}

    assert blocks(None) == blocks(0) == {"const", "b4", "b8", "b16"}
    assert blocks(1) == {"const", "b4", "b8", "b16", "b32"}
    assert blocks(1, early_blocks=2) == {"b16", "b32"}


def test_the_v_space_of_config_f_is_that_of_ui2i():
    from facestyle.models.stylegan2_generator import StyleGAN2Synthesis
    from facestyle.reference import modulation_weights

    with torch.device("meta"):
        net = StyleGAN2Synthesis(1024, w_dim=512, channel_base=32_768, channel_max=512)
    assert sum(len(weight) for weight in modulation_weights(net)) == 6560


def test_published_sizes_are_found_out():
    """Config f at 1024 px, from shapes alone."""
    from facestyle.models.stylegan2_generator import StyleGAN2Generator, sizes_of

    with torch.device("meta"):
        for side, base in ((1024, 32_768), (256, 16_384), (64, 32_768)):
            made = StyleGAN2Generator(side, channel_base=base)
            found = StyleGAN2Generator(**sizes_of(made.state_dict()))
            for a, b in zip(made.parameters(), found.parameters(), strict=True):
                assert a.shape == b.shape


def test_safetensors_files_are_told_apart(imported, tmp_path):
    file = imported / "generator.safetensors"
    with pytest.raises(
        CheckpointError, match=r"safetensors file already.*\(--style FOLDER\)"
    ) as caught:
        import_checkpoint(file, tmp_path / "out")
    assert caught.value.path == file and not (tmp_path / "out").exists()


def test_plain_pickles_of_other_things_are_named(tmp_path):
    for content in ({"a": 1}, [1, 2], 5, {}, {"g_ema": 3}, {"state_dict": {"x": 1}}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(CheckpointError, match="facestyle imports StyleGAN2"):
            import_checkpoint(tmp_path / "x.pkl", tmp_path / "out")
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, buffer)
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="facestyle imports StyleGAN2"):
        import_checkpoint(tmp_path / "x.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
