"""The baselines' bench at the tiny size: every method has its row, and the label says what was run."""

import pytest
import torch

pytest.importorskip("diffusers", reason="needs the extra diffusion")

from facestyle.baselines import bench
from facestyle.baselines.bench import bench_baselines, format_baselines
from facestyle.baselines.inst import InstConfig
from facestyle.baselines.ntc import NtcConfig
from facestyle.baselines.random_diffusion import random_pipeline
from facestyle.baselines.styleid import StyleIdConfig
from facestyle.errors import ConfigError
from facestyle.memory import PeakMemory


def test_every_method_is_timed_in_one_run(tiny_stylizer):
    configs = {
        "ntc": NtcConfig(steps=4), "inst": InstConfig(steps=2), "styleid": StyleIdConfig(steps=2),
    }  # fmt: skip
    report = bench_baselines(device="cpu", runs=1, ours=tiny_stylizer, configs=configs)
    rows = {row["method"]: row for row in report["rows"]}
    assert list(rows) == ["ours", "ntc", "inst", "styleid"]
    assert {row["resolution"] for row in rows.values()} == {64}
    assert all(row["seconds"] > 0 and row["finite"] for row in rows.values())
    assert report["memory_of"] == "whole process"
    with PeakMemory(torch.device("cpu")) as memory:
        pass
    if memory.bytes is not None:  # this kernel tells
        assert all(row["peak_memory_mb"] > 0 for row in rows.values())
    assert rows["ntc"]["parameters"] == rows["inst"]["parameters"]
    assert rows["inst"]["style_seconds"] == report["inst_training_step"] * 6100
    assert rows["ours"]["dtype"] == "float32" and rows["ours"]["style_seconds"] is None
    assert rows["ntc"]["settings"]["steps"] == 4 and rows["styleid"]["settings"]["gamma"] == 0.75
    text = format_baselines(report)
    assert "steps=2, features=replay" in text and "refine=0" in text
    assert "tiny Stable Diffusion 1.x, random weights" in text
    assert all(name in text for name in rows)


@pytest.mark.parametrize(("limit_s", "times"), [(20.0, 3), (0.0, 1)])
def test_what_takes_long_is_warm_sooner(limit_s, times, monkeypatch):
    monkeypatch.setattr(bench, "_WARM_UP_S", limit_s)
    calls = iter(range(9))
    assert bench._warm_up(lambda: next(calls), torch.device("cpu")) == times - 1
    assert next(calls) == times


def test_the_full_size_is_stable_diffusions():
    """Parameters of the public checkpoints, counted without memory for them."""
    with torch.device("meta"):
        pipe = random_pipeline("full", device="meta")
    counts = {
        name: sum(p.numel() for p in getattr(pipe, name).parameters())
        for name in ("unet", "vae", "text_encoder")
    }
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


def test_runs_and_sizes_out_of_range_are_refused(tiny_stylizer):
    with pytest.raises(ConfigError, match="runs"):
        bench_baselines(runs=0)
    with pytest.raises(ConfigError, match="size"):
        bench_baselines(device="cpu", size="medium", runs=1, ours=tiny_stylizer)
    with pytest.raises(ConfigError, match="float16 is for GPUs"):
        bench_baselines(device="cpu", dtype="float16", runs=1, ours=tiny_stylizer)
