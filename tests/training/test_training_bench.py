"""What a training is said to take: its rows and its arithmetic, on a tiny generator."""

import dataclasses
import json

import pytest

from facestyle.cli import main
from facestyle.errors import ConfigError
from facestyle.training import training_bench
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.hair import HairConfig
from facestyle.training.likeness import LikenessConfig
from facestyle.training.pairs import PairsConfig
from facestyle.training.pipeline import PRESETS, TrainConfig
from facestyle.training.training_bench import bench_training, format_training

_SMALL = {"coarse_batch": 2, "full_batch": 2, "preview_every": 10}
CONFIG = TrainConfig(
    star=FinetuneConfig(coarse_steps=40, full_steps=0, sem_weight=0, pair_weight=0, **_SMALL),
    pairs=PairsConfig(count=9, steps=7, batch=2),
    style=FinetuneConfig(coarse_steps=25, full_steps=11, held_out=4, **_SMALL),
    hair=HairConfig(steps=6, batch=2, full_steps=0),
    likeness=LikenessConfig(steps=5, batch=2, rank=2, preview_every=2),
)


@pytest.fixture(scope="module")
def report(tiny, encoder_files):
    return bench_training(
        config=CONFIG, generator=tiny, encoder_z=encoder_files / "z_plus.safetensors", runs=1,
        pictures=12, device="cpu", progress=False,
    )  # fmt: skip


def test_every_stage_is_told_with_the_steps_it_would_have(report):
    assert {row["stage"]: (row["steps"], row["looks"]) for row in report["rows"]} == {
        "pictures": (0, 0), "star, coarse": (40, 4), "pairs": (5 * 7, 0), "style, coarse": (25, 3),
        "style, full": (11, 2), "hair, coarse": (6, 1), "likeness": (5, 3),
    }  # fmt: skip
    for row in report["rows"]:
        parts = row["steps"] * row["step_s"] + row["looks"] * row["look_s"] + row["rest_s"]
        assert row["seconds"] == pytest.approx(parts, abs=0.1)
        assert (row["step_s"] > 0) == (row["steps"] > 0) or row["stage"] == "pairs"
    assert report["seconds"] == pytest.approx(sum(row["seconds"] for row in report["rows"]))
    assert json.loads(json.dumps(report)) == report
    shown = format_training(report)
    assert "--preset default, 12 pictures: about" in shown and "style, full" in shown


@pytest.mark.parametrize(("in_its_own", "in_the_next"), [(30, 0), (0, 30), (22, 8)])
def test_a_look_is_told_from_the_steps(in_its_own, in_the_next):
    log, now = [], 100.0  # the first step warms up
    for step in range(1, 10):
        now += 2.0 + in_its_own * (step % 3 == 0) + in_the_next * (step % 3 == 1 and step > 1)
        log.append({"stage": "coarse", "step": step, "seconds": now})
    log += [{"stage": "full", "step": 1 + i, "seconds": 5.0 * (1 + i)} for i in range(6)]
    whole = log[8]["seconds"] + 30.0 + 8.0
    coarse, full = training_bench._stage_rows("style", whole, log, {"coarse": 50, "full": 9}, 20)
    assert (coarse["step_s"], coarse["look_s"], coarse["looks"]) == (2.0, 30.0, 3)
    assert (coarse["seconds"], coarse["rest_s"]) == (50 * 2.0 + 3 * 30.0, 0.0)
    assert (full["step_s"], full["look_s"], full["seconds"]) == (5.0, 0.0, 9 * 5.0 + 8.0)


def test_what_pairs_take_grows_with_their_batches_and_steps():
    def search(batches, steps):  # 4 s to load, 1 s a batch, 0.5 s a step of it
        return 4.0 + batches * (1.0 + 0.5 * steps)

    for count, pictures, batches in ((64, 100, 16), (0, 100, 25), (160, 30, 8)):
        wanted = PairsConfig(count=count, batch=4, steps=50)
        row = training_bench._pairs_row(search, wanted, pictures)
        assert row["steps"] == batches * 50
        assert row["seconds"] == pytest.approx(search(batches, 50))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_shortened_preset_has_the_same_stages(preset):
    short = training_bench._shortened(PRESETS[preset], 7)
    assert short.stages == PRESETS[preset].stages
    assert {short.style.coarse_steps, short.style.full_steps} == {7}
    same = dataclasses.replace(
        short.style, coarse_steps=PRESETS[preset].style.coarse_steps, full_steps=PRESETS[preset].style.full_steps,
        preview_every=PRESETS[preset].style.preview_every,
    )  # fmt: skip
    assert same == PRESETS[preset].style


def test_bad_requests_are_named(capsys):
    with pytest.raises(ConfigError, match="runs must be 1"):
        bench_training(runs=0)
    with pytest.raises(ConfigError, match="there are fast, default, quality"):
        bench_training("slow")
    for arguments, words in (
        (["--training", "--generator"], "one at a time"),
        (["--preset", "fast"], "--preset is of --training"),
        (["--training", "--dtype", "bfloat16"], "leave --style and --dtype out"),
        (["--training", "--preset", "slow"], "no preset is called 'slow'"),
    ):
        assert main(["bench", *arguments]) == 2
        assert words in capsys.readouterr().err
