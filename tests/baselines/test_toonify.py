"""Toonify: what it draws is the blend at the projected code."""

import pytest
import torch

from facestyle.baselines.layer_blend import blend_layers, switch_position
from facestyle.baselines.star import load_star, train_star_in
from facestyle.baselines.toonify import Toonify, ToonifyConfig
from facestyle.errors import CheckpointError, ConfigError
from facestyle.latents import broadcast
from facestyle.models.encoder import Encoder
from facestyle.training.finetune_config import FinetuneConfig


def test_star_is_trained_once_and_comes_back(tiny, star_run, style_folder, star_config):
    star = load_star(star_run, tiny)
    w_plus = broadcast(tiny.w_avg[None], tiny.num_ws)
    assert (star.synthesis(w_plus) - tiny.synthesis(w_plus)).abs().max() > 1e-3
    assert star.mapping is tiny.mapping
    log = (star_run / "star" / "log.jsonl").read_text()
    train_star_in(star_run, tiny, style_folder, star_config, progress=False)
    assert (star_run / "star" / "log.jsonl").read_text() == log
    again = load_star(star_run, tiny)
    assert torch.equal(again.synthesis(w_plus), star.synthesis(w_plus))


def test_star_takes_no_constraints_and_no_other_base(tiny, other, star_run, style_folder, tmp_path):
    with pytest.raises(ConfigError, match="without constraints"):
        train_star_in(tmp_path, tiny, style_folder, FinetuneConfig())
    with pytest.raises(CheckpointError, match="another generator"):
        load_star(star_run, other)
    with pytest.raises(CheckpointError, match="train the method"):
        load_star(tmp_path, tiny)


@pytest.mark.parametrize("coarse", ["style", "base"])
def test_no_steps_draw_the_mean_with_the_blend(tiny, star_run, crops, coarse):
    config = ToonifyConfig(coarse=coarse, switch_px=16, steps=0)
    method = Toonify(tiny, config).load(star_run)
    img = method.stylize(crops)
    star = load_star(star_run, tiny)
    low, high = (star, tiny) if coarse == "style" else (tiny, star)
    blended = blend_layers(low, high, switch_position(16, 0))
    expected = blended.synthesis(broadcast(tiny.w_avg.expand(2, -1), tiny.num_ws)).clamp(-1, 1)
    assert torch.equal(img, expected)
    assert img.shape == (2, 3, method.resolution, method.resolution) == (2, 3, 64, 64)
    assert (img - tiny.synthesis(tiny.w_avg.expand(1, 8, -1))).abs().max() > 1e-3


def test_the_projection_finds_a_picture_of_the_generator(tiny, star_run):
    torch.manual_seed(3)
    w = tiny.w_avg + torch.randn(1, 8)
    photo = tiny.synthesis(broadcast(w, tiny.num_ws), resolution=32).clamp(-1, 1)
    method = Toonify(tiny, ToonifyConfig(steps=40, lr=1.0)).load(star_run)
    found = method.project(photo)
    far = (tiny.synthesis(tiny.w_avg.expand(1, 8, -1), resolution=32) - photo).abs().mean()
    near = (tiny.synthesis(found, resolution=32) - photo).abs().mean()
    assert near < 0.7 * far


def test_the_projection_can_start_at_the_encoder(tiny, star_run, crops):
    torch.manual_seed(0)
    encoder = Encoder(w_dim=8, input_px=32, hidden=16).eval().requires_grad_(False)
    config = ToonifyConfig(steps=0, start="encoder")
    method = Toonify(tiny, config, encoder=encoder).load(star_run)
    expected = broadcast(encoder(crops), tiny.num_ws)
    torch.testing.assert_close(method.project(crops), expected)


def test_prepare_trains_and_parameters_count_shared_tensors_once(
    tiny, style_folder, star_config, tmp_path, crops
):
    method = Toonify(tiny, ToonifyConfig(switch_px=128, coarse="base", steps=0), star=star_config)
    with pytest.raises(ConfigError, match="no style yet"):
        method.stylize(crops)
    with pytest.raises(ConfigError, match="no style yet"):
        _ = method.parameters
    assert method.prepare(style_folder, tmp_path, progress=False) is method
    own = sum(p.numel() for p in tiny.synthesis.parameters())
    assert method.parameters == own  # nothing of G* is left above 64 px
    method = Toonify(tiny, ToonifyConfig(switch_px=64, coarse="base", steps=0)).load(tmp_path)
    assert (
        own
        <= method.parameters
        <= own + sum(p.numel() for p in tiny.synthesis.to_image.parameters())
    )


@pytest.mark.parametrize(
    "wrong", [{"coarse": "left"}, {"start": "z"}, {"steps": -1}, {"switch_px": 60}, {"width": -1.0}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        ToonifyConfig(**wrong)


def test_crops_are_checked(tiny, star_run):
    method = Toonify(tiny, ToonifyConfig(steps=0)).load(star_run)
    for wrong in (torch.zeros(1, 3, 8, 9), torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8).byte()):
        with pytest.raises(ConfigError, match="expected crops"):
            method.stylize(wrong)
