"""The bench of the networks, on tiny ones: its rows, its arithmetic, and what cannot run."""

import json

import pytest
import torch

from facestyle import generator_bench
from facestyle.cli import main
from facestyle.errors import ConfigError
from facestyle.generator_bench import bench_generators, format_generators
from facestyle.models.encoder import Encoder
from facestyle.models.mobile import MobileGenerator
from facestyle.models.stylegan2_generator import StyleGAN2Generator


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return {
        "mobile": MobileGenerator(
            (16, 16, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=16
        ),
        "stylegan2": StyleGAN2Generator(
            32, w_dim=8, channel_base=128, channel_max=8, mapping_depth=2
        ),
        "encoder": Encoder(w_dim=8, input_px=32).requires_grad_(False),
    }  # fmt: skip


@pytest.fixture(scope="module")
def report(tiny):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator_bench, "_MATRIX", {"cpu": 64})
        patch.setattr(generator_bench, "cpu_has_bfloat16", lambda: False)
        return bench_generators(device="cpu", runs=2, **tiny)


def test_every_form_is_timed_beside_the_plain_one(report):
    forms = {(row["network"], row["form"], row["dtype"]) for row in report["rows"]}
    for network, form in (
        ("mobile 64 px", "settled"), ("stylegan2 32 px", "settled"), ("encoder", "channels last")
    ):  # fmt: skip
        assert {(network, "plain", "float32"), (network, form, "float32")} <= forms
    for row in report["rows"]:
        if "why" in row:
            continue
        assert row["difference"] < 1e-4
        assert row["form"] != "plain" or row["times_plain"] == 1
        speed = report["work"][row["network"]] / row["seconds"]
        share = speed / report["ceiling"][row["dtype"]]
        assert row["share"] == pytest.approx(share, abs=0.01, rel=0.3)


def test_forms_are_compared_within_a_round(tiny, monkeypatch):
    monkeypatch.setattr(generator_bench, "_MATRIX", {"cpu": 64})
    monkeypatch.setattr(generator_bench, "cpu_has_bfloat16", lambda: False)
    rounds = iter([[3.0, 30.0, 4.0], [1.0, 10.0, 4.0]] * 3)  # the machine was slow in the second
    monkeypatch.setattr(
        generator_bench,
        "seconds_in_turns",
        lambda calls, *_: {name: next(rounds) for name in calls},
    )
    row = bench_generators(device="cpu", runs=3, **tiny)["rows"][1]
    assert (row["seconds"], row["times_plain"]) == (4.0, 3.0)


def test_work_is_counted_by_hand_for_one_layer(report, tiny):
    """A lower bound: the last convolution and head alone; an upper one: every layer at full side and width."""
    operations = report["work"]["stylegan2 32 px"] * 1e9
    last = 2 * 32 * 32 * (4 * 4 * 9 + 4 * 3)
    assert last < operations < 2 * 7 * 34 * 34 * (8 * 8 * 9 + 8 * 3)


def test_what_cannot_run_is_a_row_with_the_reason(report):
    missing = [row for row in report["rows"] if row["dtype"] == "bfloat16"]
    assert len(missing) == 3
    assert all("no instructions" in row["why"] for row in missing)
    text = format_generators(report)
    assert text.count("no instructions") == 3
    assert text.count("\n| ") == len(report["rows"])


def test_bfloat16_runs_where_the_processor_has_it(tiny, monkeypatch):
    monkeypatch.setattr(generator_bench, "_MATRIX", {"cpu": 64})
    monkeypatch.setattr(generator_bench, "cpu_has_bfloat16", lambda: True)
    rows = bench_generators(device="cpu", runs=1, **tiny)["rows"]
    halves = [row for row in rows if row["dtype"] == "bfloat16"]
    assert all(1e-6 < row["difference"] < 0.2 for row in halves)


def test_a_form_that_fails_leaves_the_others(tiny, monkeypatch):
    monkeypatch.setattr(generator_bench, "_MATRIX", {"cpu": 64})

    class Failing(torch.nn.Module):
        def __init__(self, network):
            super().__init__()

        def forward(self, x):
            raise RuntimeError("no kernel here")

    monkeypatch.setattr(generator_bench, "SettledStyleGAN2", Failing)
    rows = bench_generators(device="cpu", runs=1, **tiny)["rows"]
    failed = [row for row in rows if row["network"].startswith("stylegan2") and "why" in row]
    assert "float32" in {row["dtype"] for row in failed}
    assert any("no kernel here" in row["why"] for row in failed)
    others = [row for row in rows if not row["network"].startswith("stylegan2")]
    assert all("seconds" in row for row in others if row["dtype"] == "float32")


def test_requests(tmp_path):
    with pytest.raises(ConfigError, match="runs"):
        bench_generators(runs=0)


def test_the_command(tiny, report, monkeypatch, capsys):
    monkeypatch.setattr(generator_bench, "bench_generators", lambda **_: report)
    assert main(["bench", "--generator", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["work"] == report["work"]
    assert main(["bench", "--generator"]) == 0
    assert "times the plain form" in capsys.readouterr().out
