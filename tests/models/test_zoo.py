"""The bundled networks as they are loaded: whole, on the CPU, and without a wasted random start."""

import json
import os
import shutil
import stat

import pytest
import torch

from facestyle.errors import CheckpointError, ran_out
from facestyle.models.checkpoints import bundled, save_tensors
from facestyle.models.encoder import Encoder
from facestyle.models.importers.checkpoints import import_checkpoint
from facestyle.models.psp_encoder import PspEncoder
from facestyle.models.stylegan2 import StyleGAN2Critic
from facestyle.models.stylegan2_generator import StyleGAN2Generator
from facestyle.models.zoo import (
    base_sha256,
    load_base_generator,
    load_discriminator,
    load_encoder,
    load_style_generator,
)
from facestyle.styles import StyleConfig, bundled_style, bundled_styles


def everything(module):
    return [*module.parameters(), *module.buffers()]


def test_loaded_networks_are_whole_float32_and_frozen():
    base = load_base_generator()
    networks = [base, load_encoder()]
    networks += [load_style_generator(bundled_style(name), base) for name in bundled_styles()]
    for network in networks:
        assert not network.training
        for tensor in everything(network):
            assert tensor.device.type == "cpu"
            assert not tensor.requires_grad
            assert tensor.dtype in (torch.float32, torch.int64)


def test_an_encoder_built_plainly_draws_the_same_code():
    loaded = load_encoder()
    plain = Encoder(**loaded.config())
    plain.load_state_dict(loaded.state_dict())
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(x), loaded(x))


def test_styles_name_the_bundled_base():
    for name in bundled_styles():
        assert (
            StyleConfig.from_file(bundled_style(name) / "config.json").base_sha256 == base_sha256()
        )


def test_encoders_are_asked_for_by_their_space():
    for space in ("w", "w_plus", "z_plus"):
        assert load_encoder(space=space).space == space
    with pytest.raises(CheckpointError, match="into z_plus, and one into w was asked for"):
        load_encoder(bundled("encoder_z_plus.safetensors"))


@pytest.fixture(scope="module")
def base():
    return load_base_generator()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"w_dim": 200_000}, r"far larger than its weights, such as \[200000, 200000\]"),
        ({"w_dim": 1 << 62}, "far larger"),
        ({"w_dim": -5}, "negative dimension"),
        ({"w_dim": 256}, "has shape"),
        ({"w_dim": "512"}, "describes no MobileGenerator"),
        ({"channels": [512] * 8 + [1_000_000_000]}, "far larger"),
        ({"channels": [512] * 300}, "far larger"),
        ({"channels": 512}, "describes no MobileGenerator"),
        ({"mapping_depth": 1_000_000_000}, "1,000,000,000 layers, where 100 are the most"),
        ({"preview_resolution": []}, "preview_resolution must be"),
        ({"surprise": 1}, "surprise"),
    ],
    ids=range(11),
)
def test_sizes_of_a_style_are_those_of_its_weights(base, tmp_path, change, says):
    folder = tmp_path / "style"
    shutil.copytree(bundled_style("cartoon"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["generator"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=says) as caught:
        load_style_generator(folder, base)
    assert caught.value.path.parent == folder


@pytest.mark.parametrize("change", [{"generator": [1]}, {"architecture": ["mobile"]}])
def test_configs_of_other_shapes_are_named(base, tmp_path, change):
    folder = tmp_path / "style"
    shutil.copytree(bundled_style("cartoon"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError):
        load_style_generator(folder, base)


TRUNK = {"code_dim": 8, "input_px": 32, "widths": [2, 3, 4, 8], "units": [1, 1, 2, 1]}


@pytest.mark.parametrize(
    ("net", "config"),
    [
        (StyleGAN2Generator(8, channel_base=8, channel_max=8, w_dim=8), {"w_dim": 200_000}),
        (StyleGAN2Generator(8, channel_base=8, channel_max=8, w_dim=8), {"channel_max": -1}),
        (StyleGAN2Generator(8, channel_base=8, channel_max=8, w_dim=8), {"conv_clamp": "256"}),
        (StyleGAN2Critic(8, channel_base=8, channel_max=8), {"channel_max": 1 << 40, "channel_base": 1 << 60}),
        (Encoder(w_dim=8, input_px=32, hidden=16), {"hidden": 10**10}),
        (Encoder(w_dim=8, input_px=32, hidden=16), {"corrections": 10**10}),
        (PspEncoder(8, **TRUNK), {"units": [10**9, 1, 2, 1]}),
        (PspEncoder(8, **TRUNK), {"widths": [2, 3, 10**10, 8]}),
        (PspEncoder(8, **TRUNK), {"widths": []}),
    ],
    ids=range(9),
)  # fmt: skip
def test_sizes_in_a_header_are_those_of_the_weights(tmp_path, net, config):
    path = tmp_path / "x.safetensors"
    metadata = {"config": net.config() | config, "architecture": getattr(net, "architecture", "")}
    if isinstance(net, PspEncoder):
        metadata["architecture"] = "psp"
    save_tensors(net.state_dict(), path, metadata=metadata)
    with pytest.raises(CheckpointError) as caught:
        if isinstance(net, StyleGAN2Generator):
            load_base_generator(path)
        elif isinstance(net, StyleGAN2Critic):
            load_discriminator(path)
        else:
            load_encoder(path, space=net.space)
    assert caught.value.path == path and "describes no" in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="a system without a umask")
def test_an_imported_folder_has_the_permissions_that_the_umask_leaves(foreign, tmp_path):
    torch.save(foreign.generator.state_dict(), tmp_path / "g.pt")
    before = os.umask(0o027)
    try:
        import_checkpoint(tmp_path / "g.pt", tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


def test_memory_that_runs_out_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("facestyle.models.mobile.MobileMapping", full)
    with pytest.raises(RuntimeError) as caught:
        load_base_generator()
    assert ran_out(caught.value)
