"""Blending by layers: each end is one of the generators, and the switch is where it says."""

import pytest
import torch

from facestyle.baselines.layer_blend import (
    blend_layers,
    fine_share,
    layer_position,
    switch_position,
)
from facestyle.errors import CheckpointError, ConfigError
from facestyle.latents import broadcast
from facestyle.models.generator import sample_z
from facestyle.models.mobile import MobileGenerator
from facestyle.models.stylegan2_generator import StyleGAN2Generator


@pytest.fixture(scope="module")
def w_plus(tiny):
    return broadcast(tiny.mapping(sample_z(2, 0, 8)), tiny.num_ws)


@pytest.mark.parametrize("width", [0.0, 0.5, 2.0])
def test_a_switch_far_away_gives_one_generator_exactly(tiny, other, w_plus, width):
    all_fine = blend_layers(tiny, other, -1000.0, width=width)
    all_coarse = blend_layers(tiny, other, 1000.0, width=width)
    assert torch.equal(all_fine.synthesis(w_plus), other.synthesis(w_plus))
    assert torch.equal(all_coarse.synthesis(w_plus), tiny.synthesis(w_plus))
    assert all_fine.mapping is tiny.mapping


@pytest.mark.parametrize(
    ("side", "level", "last_coarse", "first_fine"),
    [
        (4, 0, [], ["const", "stem.weight"]),
        (4, 1, ["const"], ["stem.weight", "stem.affine.weight"]),
        (8, 0, ["stem.weight"], ["blocks.0.up.weight", "blocks.0.conv1.weight"]),
        (16, 0, ["blocks.0.conv2.weight"], ["blocks.1.up.weight", "blocks.1.conv1.noise"]),
        (16, 1, ["blocks.1.up.weight", "blocks.1.conv1.weight"], ["blocks.1.conv2.weight"]),
        (64, 0, ["blocks.2.conv2.weight"], ["to_image.weight"]),
        (128, 0, ["to_image.weight"], []),
    ],
)
def test_a_hard_switch_is_at_the_stated_layer(tiny, other, side, level, last_coarse, first_fine):
    blended = blend_layers(tiny, other, switch_position(side, level)).synthesis.state_dict()
    low, high = tiny.synthesis.state_dict(), other.synthesis.state_dict()
    for name in last_coarse:
        assert torch.equal(blended[name], low[name]) and not torch.equal(low[name], high[name])
    for name in first_fine:
        assert torch.equal(blended[name], high[name]) and not torch.equal(low[name], high[name])
    order = [layer_position(name, tiny) for name in blended]
    for name, position in zip(blended, order, strict=True):
        source = high if position >= switch_position(side, level) else low
        assert torch.equal(blended[name], source[name])


def test_a_smooth_blend_is_the_logistic_curve(tiny, other):
    assert fine_share(8, 8, 0.7) == 0.5
    assert fine_share(10, 8, 2.0) == pytest.approx(0.7310585786)
    assert fine_share(6, 8, 2.0) == pytest.approx(1 - 0.7310585786)
    blended = blend_layers(tiny, other, switch_position(16, 0), width=1.0).synthesis
    expected = (tiny.synthesis.const + other.synthesis.const * torch.e**-4) / (1 + torch.e**-4)
    torch.testing.assert_close(blended.const, expected)
    middle = (tiny.synthesis.blocks[1].up.weight + other.synthesis.blocks[1].up.weight) / 2
    torch.testing.assert_close(blended.blocks[1].up.weight, middle)


def test_direction_matters(tiny, other, w_plus):
    switch = switch_position(16, 0)
    one = blend_layers(tiny, other, switch).synthesis(w_plus)
    reverse = blend_layers(other, tiny, switch).synthesis(w_plus)
    assert (one - reverse).abs().max() > 1e-3


def test_stylegan2_has_the_same_positions():
    torch.manual_seed(0)
    net = StyleGAN2Generator(32, w_dim=8, channel_base=128, channel_max=8, mapping_depth=1)
    at = {name: layer_position(name, net) for name in net.synthesis.state_dict()}
    assert at["const"] == 0
    assert at["b4.conv1.weight"] == at["b4.torgb.affine.bias"] == 1
    assert at["b16.conv0.noise_const"] == 4
    assert at["b16.conv1.bias"] == at["b16.torgb.weight"] == 5
    assert max(at.values()) == at["b32.torgb.bias"] == 7


def test_what_cannot_be_blended_is_named(tiny, other):
    wide = MobileGenerator((16, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    with pytest.raises(CheckpointError, match="architecture"):
        blend_layers(tiny, wide, 4)
    with pytest.raises(ConfigError, match="width"):
        blend_layers(tiny, other, 4, width=-1)
    for side, level in ((48, 0), (2, 0), (64, 2)):
        with pytest.raises(ConfigError, match="power of two"):
            switch_position(side, level)
    with pytest.raises(CheckpointError, match=r"b0\.surprise"):
        layer_position("b0.surprise", tiny)
