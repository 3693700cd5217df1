"""Pseudo-pairs on a tiny generator: levels, optimisation, resuming, and what is refused."""

import dataclasses

import pytest
import torch

from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.latents import truncate
from facestyle.models.encoder import to_w_plus
from facestyle.training import pairs as pairs_module
from facestyle.training.data import PictureSet
from facestyle.training.pairs import PairsConfig, PairStore, given_pairs, make_pairs

CONFIG = PairsConfig(level=3, count=5, steps=6, batch=2, psi=0.5)


@pytest.fixture
def make(tiny, folder, tiny_encoders):
    def run(out, config=CONFIG, **changes):
        arguments = {
            "encoder_z": tiny_encoders["z_plus"],
            "encoder_w_plus": tiny_encoders["w_plus"],
            "star": tiny,
            "progress": False,
        } | changes
        return make_pairs(tiny, PictureSet(folder, 32), out, config, **arguments)

    return run


def test_levels_are_what_the_equations_say(make, tiny, folder, tiny_encoders, tmp_path):
    store = make(tmp_path)
    pictures = PictureSet(folder, 32)
    assert store.indices == (0, 2, 5, 7, 10)  # spread over the twelve
    assert store.names == tuple(pictures.names[i] for i in store.indices)
    z = tiny_encoders["z_plus"](pictures.batch(store.indices))
    assert z.norm(dim=2) == pytest.approx(8**0.5, abs=1e-4)
    first = truncate(to_w_plus(z, "z_plus", tiny), tiny.w_avg, 0.5)
    torch.testing.assert_close(store.codes(1), first, rtol=0, atol=1e-5)
    p2 = tiny.synthesis(store.codes(2), resolution=32).clamp(-1, 1)
    torch.testing.assert_close(store.codes(3), tiny_encoders["w_plus"](p2), rtol=0, atol=1e-4)


def test_optimised_codes_draw_the_picture_better_than_their_start(make, tiny, folder, tmp_path):
    config = dataclasses.replace(CONFIG, level=2, psi=1.0, steps=20, row_weight=0.0)
    store = make(tmp_path, config)
    # G* is G here and nothing is truncated, so P2 is the very picture that was optimised.
    loss = store.likeness[2] + 0.1 * (1 - store.identity[2])
    start = store.likeness[1] + 0.1 * (1 - store.identity[1])
    assert (loss < start).sum() >= 4


def test_everything_is_kept_and_read_back(make, tmp_path):
    store = make(tmp_path)
    again = PairStore.load(tmp_path)
    assert again.names == store.names and again.indices == store.indices
    for level in (1, 2, 3):
        assert torch.equal(again.codes(level), store.codes(level))
        assert torch.equal(again.likeness[level], store.likeness[level])
        assert len(list((tmp_path / f"p{level}").glob("*.png"))) == 5
    assert (tmp_path / "sheet.png").is_file()
    with pytest.raises(ConfigError, match=r"levels \[1, 2, 3\], not 0"):
        again.codes(0)


def test_a_killed_run_goes_on_to_the_same_pairs(make, tmp_path, monkeypatch):
    whole = make(tmp_path / "whole")
    real, calls = pairs_module.save_tensors, []

    def killed_after_two(*args, **kwargs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(args[1])
        real(*args, **kwargs)

    monkeypatch.setattr(pairs_module, "save_tensors", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut")
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in calls}
    resumed = make(tmp_path / "cut")
    assert {path: path.stat().st_mtime_ns for path in calls} == kept  # not made again
    for level in (1, 2, 3):
        assert torch.equal(resumed.codes(level), whole.codes(level))


def test_pairs_of_other_settings_are_not_mixed(make, tmp_path):
    make(tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        make(tmp_path, dataclasses.replace(CONFIG, psi=0.9))


@pytest.mark.parametrize(("level", "absent"), [(2, "star"), (3, "encoder_w_plus")])
def test_a_network_that_a_level_needs_is_asked_for(make, tmp_path, level, absent):
    with pytest.raises(ConfigError, match=f"level {level}"):
        make(tmp_path, dataclasses.replace(CONFIG, level=level), **{absent: None})


def test_given_codes_become_level_0(tiny, folder, tmp_path):
    pictures = PictureSet(folder, 32)
    w = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    given_pairs(pictures, w, tiny.num_ws).save(tmp_path / "pairs.safetensors")
    store = PairStore.load(tmp_path / "pairs.safetensors")
    assert store.codes(0).shape == (12, tiny.num_ws, 8)
    assert torch.equal(store.codes(0)[:, 3], w)
    with pytest.raises(LatentShapeError, match="7 codes for 12 pictures"):
        given_pairs(pictures, w[:7], tiny.num_ws)


def test_other_files_are_no_pairs(tmp_path):
    from facestyle.models.checkpoints import save_tensors

    save_tensors({"x": torch.zeros(1)}, tmp_path / "pairs.safetensors", metadata={})
    with pytest.raises(CheckpointError, match="holds no pairs"):
        PairStore.load(tmp_path)


@pytest.mark.parametrize(
    "change", [{"level": 4}, {"steps": 0}, {"batch": 0}, {"psi": -0.1}, {"count": -1}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigError):
        PairsConfig(**change)
