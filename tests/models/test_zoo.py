"""The bundled networks as they are loaded: whole, on the CPU, and without a wasted random start."""

import pytest
import torch

from facestyle.errors import CheckpointError
from facestyle.models.checkpoints import bundled
from facestyle.models.encoder import Encoder
from facestyle.models.zoo import (
    base_sha256,
    load_base_generator,
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
