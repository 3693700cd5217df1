"""Pseudo-pairs on a tiny generator: levels, optimisation, resuming, and what is refused."""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.cli import main
from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.latents import broadcast, truncate
from facestyle.models.checkpoints import (
    read_metadata,
    read_tensors,
    save_tensors,
    weights_sha256,
)
from facestyle.models.encoder import to_w_plus
from facestyle.models.features import LiteFeatures, PerceptualLoss
from facestyle.models.generator import sample_z
from facestyle.training import pairs as pairs_module
from facestyle.training import style_cli
from facestyle.training.data import PictureSet
from facestyle.training.pair_report import (
    measure_pairs,
    pair_sheet,
    pair_table,
    read_report,
    write_report,
)
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


def test_pictures_may_have_the_longest_names(tiny, folder, tiny_encoders, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    for i, path in enumerate(sorted((tmp_path / "set").iterdir())):
        path.rename(path.with_name(f"{i:02d}" + "x" * 249 + ".png"))
    config = dataclasses.replace(CONFIG, level=1)
    make_pairs(
        tiny, PictureSet(tmp_path / "set", 32), tmp_path / "out", config,
        encoder_z=tiny_encoders["z_plus"], progress=False,
    )  # fmt: skip
    assert len(list((tmp_path / "out" / "p1").iterdir())) == config.count


def test_pairs_of_other_settings_are_not_mixed(make, tmp_path):
    make(tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        make(tmp_path, dataclasses.replace(CONFIG, psi=0.9))


def test_pairs_of_other_pictures_or_encoders_are_not_mixed(
    make, tiny, tiny_encoders, folder, tmp_path
):
    config = dataclasses.replace(CONFIG, level=1, count=2)
    store = make(tmp_path / "run", config, star=None)
    other = copy.deepcopy(tiny_encoders["z_plus"])
    with torch.no_grad():
        other.start.add_(1)
    with pytest.raises(ConfigError, match=r"other settings \(encoder_z\)"):
        make(tmp_path / "run", config, star=None, encoder_z=other)
    mine = shutil.copytree(folder, tmp_path / "mine")
    Image.new("RGB", (40, 40), "red").save(sorted(mine.iterdir())[0])
    with pytest.raises(ConfigError, match=r"other settings \(pictures_sha256\)"):
        make_pairs(
            tiny, PictureSet(mine, 32), tmp_path / "run", config, encoder_z=tiny_encoders["z_plus"]
        )
    path = tmp_path / "run" / "config.json"
    begun = json.loads(path.read_text())  # by a version that did not note them
    path.write_text(
        json.dumps({k: v for k, v in begun.items() if not k.startswith(("enc", "pictures_"))})
    )
    assert torch.equal(make(tmp_path / "run", config, star=None).codes(1), store.codes(1))


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
    with pytest.raises(LatentShapeError, match=r"7 codes for 12 pictures; give a code for every"):
        given_pairs(pictures, w[:7], tiny.num_ws)


def test_other_files_are_no_pairs(tmp_path):
    save_tensors({"x": torch.zeros(1)}, tmp_path / "pairs.safetensors", metadata={})
    with pytest.raises(CheckpointError, match="holds no pairs"):
        PairStore.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"level": 4},
        {"steps": 0},
        {"batch": 0},
        {"psi": -0.1},
        {"count": -1},
        {"refine_from": "P1"},
        {"replace_background": "Yes"},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigError):
        PairsConfig(**change)


# ---- how good they are --------------------------------------------------------------------------------------------


def test_refining_from_s_encodes_the_picture_itself(make, tiny, folder, tiny_encoders, tmp_path):
    refined = make(tmp_path / "p2")
    direct = make(tmp_path / "s", dataclasses.replace(CONFIG, refine_from="S"))
    pictures = PictureSet(folder, 32).batch(direct.indices)
    expected = tiny_encoders["w_plus"](pictures)
    torch.testing.assert_close(direct.codes(3), expected, rtol=0, atol=1e-5)
    assert torch.equal(direct.codes(2), refined.codes(2))
    assert (refined.codes(3) - expected).abs().max() > 1e-4  # an untrained encoder sees little


def test_the_file_says_what_made_it(make, tiny, folder, tmp_path):
    settings = make(tmp_path).settings
    assert settings == PairStore.load(tmp_path).settings
    assert (settings["psi"], settings["steps"], settings["level"]) == (0.5, 6, 3)
    assert settings["star"] == weights_sha256(tiny.synthesis)
    path = tmp_path / "pairs.safetensors"
    old = {k: v for k, v in read_metadata(path).items() if k != "settings"}
    tensors = {k: v for k, v in read_tensors(path).items() if not k.startswith("star_")}
    save_tensors(tensors, path, metadata=old)
    before = PairStore.load(path)
    assert (before.settings, before.star_likeness) == ({}, {})
    assert torch.equal(before.codes(3), PairStore.load(tmp_path).codes(3))


def test_the_report_has_the_means_of_what_is_measured_on_p_and_on_the_picture_of_g_star(
    make, tiny, folder, tmp_path
):
    star = copy.deepcopy(tiny)
    with torch.no_grad():
        for p in star.synthesis.parameters():
            p.mul_(1.3)
    config = dataclasses.replace(CONFIG, level=2, replace_background="no")
    store = make(tmp_path, config, star=star)
    loss = PerceptualLoss(LiteFeatures())
    pictures = PictureSet(folder, 32).batch(store.indices)
    report = json.loads((tmp_path / "report.json").read_text())
    for level in (1, 2):
        row = report["levels"][str(level)]
        for net, key in ((tiny, "perceptual"), (star, "star_perceptual")):
            drawn = net.synthesis(store.codes(level), resolution=32)
            assert row[key] == pytest.approx(loss(drawn, pictures).mean().item(), rel=1e-3)
        assert abs(row["perceptual"] - row["star_perceptual"]) > 1e-3
        assert row["identity_distance"] == pytest.approx(1 - store.identity[level].mean().item())
        for i, each in enumerate(report["each"]):
            assert each["name"] == store.names[i]
            assert each["levels"][str(level)]["perceptual"] == store.likeness[level][i].item()
    text = (tmp_path / "report.md").read_text()
    assert f"{report['levels']['2']['star_perceptual']:.2f}" in text and "not LPIPS" in text
    worst = store.names[int(store.likeness[2].argmax())]
    assert f"Least alike at level 2, by P to S: {worst} (" in text


def test_realism_is_1_and_0_for_samples_of_g_and_worse_far_from_them(tiny, folder):
    pictures = PictureSet(folder, 32)
    w = tiny.mapping(sample_z(12, 7, 8))

    def measured(psi):
        codes = truncate(broadcast(w, tiny.num_ws), tiny.w_avg, psi)
        store = PairStore(tuple(range(12)), tuple(pictures.names), {2: codes}, {}, {})
        report = measure_pairs(
            tiny, store, pictures, psi=0.5, device=torch.device("cpu"), samples=48
        )
        return report["levels"]["2"], report["scale"]

    own, scale = measured(1.0)
    assert own["code_distance"] == pytest.approx(1, rel=0.25)
    assert scale["samples"]["code_distance"] == pytest.approx(0.25, rel=0.25)
    assert own.keys() == {"code_distance", "kid"}
    far, _ = measured(6.0)
    assert far["code_distance"] == pytest.approx(36 * own["code_distance"])
    assert abs(own["kid"]) < 0.2 * far["kid"]
    assert abs(own["kid"]) < 0.2 * scale["pictures"]["kid"]
    assert measured(0.0)[0]["code_distance"] == 0


def test_a_table_names_what_was_not_measured_with_a_dash(tiny, folder, tmp_path):
    pictures = PictureSet(folder, 32)
    codes = tiny.w_avg.expand(1, tiny.num_ws, 8).contiguous()
    store = PairStore((3,), (pictures.names[3],), {1: codes}, {1: torch.tensor([2.5])}, {})
    report = measure_pairs(tiny, store, pictures, psi=0.7, device=torch.device("cpu"), samples=4)
    row = pair_table(report).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["P1", "-", "2.50", "-", "0.00", "-"]
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert read_report(tmp_path / "absent") is None


def test_the_sheet_has_the_likeness_of_each_p_in_its_corner_and_none_on_s():
    plain = [Image.new("RGB", (64, 64), (200, 40, 40))] * 2
    sheet, noted = (
        np.asarray(pair_sheet(plain, {1: plain, 2: plain}, likeness=likeness, per_row=1))
        for likeness in (None, {2: [1.25, 3.5]})
    )
    changed = (sheet != noted).any(axis=2)
    assert sheet.shape == noted.shape and changed.any()
    columns = np.nonzero(changed)[1]
    third = 2 * 164 + 4  # where the column of P2 begins
    assert columns.min() >= third and columns.max() < third + 80
    first, second = noted[-2 * 164 : -164, third:], noted[-164:, third:]
    assert (first != second).any()  # 1.25 is not 3.50


def test_pairs_of_an_older_version_stay_and_get_a_report(make, tmp_path):
    store = make(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("refine_from")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "report.json").unlink()
    for chunk in list((tmp_path / "chunks").iterdir())[:1]:
        kept = {k: v for k, v in read_tensors(chunk).items() if not k.startswith("star_")}
        save_tensors(kept, chunk, metadata=read_metadata(chunk))
    before = (tmp_path / "pairs.safetensors").stat().st_mtime_ns
    again = make(tmp_path)
    assert (tmp_path / "pairs.safetensors").stat().st_mtime_ns == before
    assert again.star_likeness == {} and torch.equal(again.codes(3), store.codes(3))
    report = read_report(tmp_path)
    assert "star_perceptual" not in report["levels"]["2"] and "perceptual" in report["levels"]["2"]
    with pytest.raises(ConfigError, match="refine_from"):
        make(tmp_path, dataclasses.replace(CONFIG, refine_from="S"))


def test_the_command_ends_with_the_table(
    tiny, folder, encoder_files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(style_cli, "load_base", lambda args: tiny)
    arguments = ["pairs", str(folder), "-o", str(tmp_path), "--level", "1", "--device", "cpu"]
    arguments += ["--encoder-z", str(encoder_files / "z_plus.safetensors"), "--set", "count=3"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert pair_table(read_report(tmp_path)) in told and "| P1 " in told
    assert told.splitlines()[-1].endswith("sheet.png")
