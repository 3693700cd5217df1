"""The ablation on a tiny generator: what a variant changes, the tables, and that nothing is done twice."""

import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image

from facestyle.errors import ConfigError
from facestyle.evaluation.metrics import StyleJudge, read_metrics
from facestyle.training.ablation import CONSTRAINTS, LEVELS, ablate, variant_config
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.pairs import PairsConfig
from facestyle.training.pipeline import TrainConfig

CONFIG = TrainConfig(
    star=FinetuneConfig(
        coarse_steps=2, coarse_batch=2, full_steps=0, sem_weight=0, pair_weight=0, preview_every=2
    ),
    pairs=PairsConfig(count=4, steps=6, batch=4),
    style=FinetuneConfig(
        coarse_steps=2, coarse_batch=2, full_steps=1, full_batch=2, preview_every=2
    ),
)


@pytest.mark.parametrize(
    ("variant", "sem", "pair", "level"),
    [
        ("baseline", 0, 0, 2),
        ("+SC", 2, 0, 2),
        ("+PC", 0, 3, 2),
        ("+SC&PC", 2, 3, 2),
        ("W1+", 2, 3, 1),
        ("W3+", 2, 3, 3),
    ],
)
def test_a_variant_changes_its_constraint_alone(variant, sem, pair, level):
    config = FinetuneConfig(sem_weight=2.0, pair_weight=3.0, seed=5)
    changed = variant_config(config, variant)
    assert (changed.sem_weight, changed.pair_weight, changed.pair_level) == (sem, pair, level)
    assert (changed.seed, changed.coarse_steps) == (5, config.coarse_steps)
    with pytest.raises(ConfigError, match=r"\+SC&PC"):
        variant_config(config, "+XY")


def test_every_variant_is_trained_measured_and_tabled_once(
    tiny, folder, encoder_files, tmp_path, monkeypatch, caplog
):
    class Grid:
        name = "nine fields"

        def __call__(self, images):
            small = [image.resize((3, 3), Image.Resampling.BOX) for image in images]
            return np.stack([np.asarray(image, np.float32).ravel() / 255 for image in small])

    loaded = []

    def load(pictures, **_):
        loaded.append(pictures)
        files = sorted(folder.glob("*.png"))
        style = Grid()([Image.open(file) for file in files])
        return StyleJudge({"inception": style}, inception=Grid(), measures=("kid",))

    monkeypatch.setattr(StyleJudge, "load", load)

    def run(samples=4, **some):
        return ablate(
            tiny, {"red": folder}, tmp_path, CONFIG, encoder_z=encoder_files / "z_plus.safetensors",
            encoder_w_plus=encoder_files / "w_plus.safetensors", samples=samples, measures=("kid",), side_px=64,
            sheet_faces=2, progress=False, **some,
        )  # fmt: skip

    text = run().read_text()
    assert "## Constraints" in text and "## Levels of pairs" in text
    for variant in (*CONSTRAINTS, *LEVELS):
        assert variant in text
    values = {
        path.parent.name: read_metrics(path)["samples"]["kid_x1000"]["value"]
        for path in (tmp_path / "red").glob("*/metrics.json")
    }
    assert len(values) == len(CONSTRAINTS) + len(LEVELS) - 1  # +SC&PC is W2+
    logs = {name: (tmp_path / "red" / name / "log.jsonl").read_text() for name in values}
    first = {name: json.loads(log.splitlines()[0]) for name, log in logs.items()}
    assert {name for name, row in first.items() if "sem" in row} == {
        "sc",
        "sc_pc",
        "w1",
        "w3",
    }
    assert {name for name, row in first.items() if "pair" in row} == {
        "pc",
        "sc_pc",
        "w1",
        "w3",
    }
    assert len({first[name]["pair"] for name in ("w1", "sc_pc", "w3")}) == 3
    assert (tmp_path / "red.jpg").is_file()
    stamps = {p: os.stat(p).st_mtime_ns for p in (tmp_path / "red").rglob("*.safetensors")}
    run()
    assert {p: os.stat(p).st_mtime_ns for p in stamps} == stamps
    assert len(loaded) == 1
    config = json.loads((tmp_path / "red" / "sc" / "config.json").read_text())
    assert config["pair_weight"] == 0
    text = run(variants=("+SC",)).read_text()
    assert "+SC KID" in text and "## Levels of pairs" not in text
    measured = tmp_path / "red" / "sc" / "metrics.json"
    assert read_metrics(measured)["asked"]["samples"] == 4
    run(variants=("+SC",), samples=3)
    assert read_metrics(measured)["asked"]["samples"] == 3
    assert [line for line in caplog.messages if "measured anew" in line] == [
        "+SC of red is measured anew: by another judge, in other measures or on other people"
    ]


def test_known_pairs_are_not_of_the_ablation(tiny, folder, tmp_path):
    config = dataclasses.replace(CONFIG, style=dataclasses.replace(CONFIG.style, pair_level=0))
    with pytest.raises(ConfigError, match="known pairs, which ablate does not take"):
        ablate(tiny, {"red": folder}, tmp_path, config, variants=("+PC",), progress=False)
