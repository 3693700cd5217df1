"""One photo through several methods: every one has its place, with what it took or why it is not there."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.baselines.base import Baseline
from facestyle.baselines.diffusion import LatentDiffusion
from facestyle.baselines.ntc import NtcConfig
from facestyle.baselines.registry import DiffusionModel, make_baseline
from facestyle.baselines.toonify import ToonifyConfig
from facestyle.cli import main
from facestyle.errors import ConfigError, DownloadError, ImageError, NoFaceError
from facestyle.evaluation import photo_comparison
from facestyle.evaluation.comparison_methods import ComparisonConfig, make_method
from facestyle.evaluation.metrics import StyleJudge
from facestyle.evaluation.perceptual import PerceptualDistance
from facestyle.evaluation.photo_comparison import compare_photo, format_rows
from facestyle.image import load_image, to_pil, to_tensor

TOONIFY = ToonifyConfig(switch_px=16, steps=2)


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8))


@pytest.fixture
def runs(tmp_path, star_run):
    shutil.copytree(star_run, tmp_path / "runs" / "toonify" / "red")
    return tmp_path / "runs"


@pytest.fixture
def judged(monkeypatch):
    """A judge who compares mean colours, and has no LPIPS."""

    class Mean:
        name = "mean colour"

        def embed(self, img):
            return torch.nn.functional.normalize(img.mean((2, 3)) + 2, dim=1)

        same, different = 0.9, 0.4

    def load(pictures, *, measures, judge_name, device):
        assert list(pictures) == [] and judge_name == "auto"
        return StyleJudge(
            {}, identity=Mean(), measures=measures, missing={"lpips": "it is not here"},
            distances={"perceptual": PerceptualDistance("squares", lambda a, b: (a - b).square().mean((1, 2, 3)))},
        )  # fmt: skip

    monkeypatch.setattr(StyleJudge, "load", load)


def test_every_method_has_its_place(tiny, photo, runs, judged, tmp_path, tiny_diffusion_folder):
    config = ComparisonConfig(
        side_px=64, toonify=TOONIFY, ntc=NtcConfig(steps=10),
        diffusion=DiffusionModel(model=str(tiny_diffusion_folder)),
    )  # fmt: skip
    out = tmp_path / "out"
    report = compare_photo(
        photo, out, style="red", base=tiny, config=config, runs=runs, aligned=True, progress=False,
        methods=("toonify", "ntc", "ui2i", "ours", "inst"), device="cpu",
    )  # fmt: skip
    assert json.loads((out / "comparison.json").read_text()) == report
    rows = {row["method"]: row for row in report["methods"]}
    assert list(rows) == ["toonify", "ntc", "ui2i", "ours", "inst"]
    assert "no folder ui2i/red" in rows["ui2i"]["why"] and "red" in rows["ours"]["why"]
    for name in ("toonify", "ntc"):
        row = rows[name]
        picture = load_image(out / row["picture"])
        assert picture.size == (row["resolution"],) * 2
        assert row["seconds"] > 0 and row["parameters"] > 0
        assert -1 <= row["identity_similarity"]["value"] <= 1
        assert row["identity_similarity"]["by"] == "mean colour"
        assert row["perceptual"]["value"] > 0 and row["lpips"]["value"] is None
    assert rows["toonify"]["settings"]["steps"] == 2 and rows["toonify"]["model"] is None
    assert rows["ntc"]["settings"]["seed"] == 796
    assert rows["ntc"]["model"] == str(tiny_diffusion_folder)
    assert len(rows["ntc"]["sha256"]) == 16 and rows["ntc"]["dtype"] == "float32"
    assert report["device"] == "cpu" and report["versions"]["torch"] == torch.__version__
    assert load_image(out / "photo.png").size == (64, 64)
    sheet = load_image(out / "comparison.png")
    assert sheet.width > 5 * 320 and sheet.height > 2 * 320
    told = format_rows(report)
    assert told.count("not here") == 3 and "toonify" in told.splitlines()[0]


@pytest.mark.parametrize("at", ["loading", "drawing"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError("out of memory"),
    ],
)
def test_a_method_that_runs_out_of_memory_leaves_the_others_alone(
    tiny, photo, runs, judged, tmp_path, monkeypatch, error, at
):
    class Greedy(Baseline):
        name, resolution, parameters = "greedy", 64, 1

        def prepare(self, pictures, out, *, progress=True):
            return self

        def load(self, out):
            return self

        def stylize(self, crops, *, first=0, progress=False):
            raise error

    def made(name, *args, **options):
        if name == "ui2i" and at == "loading":
            raise error
        return Greedy() if name == "ui2i" else make_method(name, *args, **options)

    monkeypatch.setattr(photo_comparison, "make_method", made)
    report = compare_photo(
        photo, tmp_path / "out", style="red", base=tiny, config=ComparisonConfig(side_px=64, toonify=TOONIFY),
        runs=runs, aligned=True, progress=False, methods=("ui2i", "toonify"), device="cpu",
    )  # fmt: skip
    first, second = report["methods"]
    assert first["why"].startswith(f"ui2i took more memory than there is ({error})")
    assert "seconds" in second


def test_other_mistakes_are_not_taken_for_memory(tiny, photo, tmp_path, monkeypatch):
    def made(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(photo_comparison, "make_method", made)
    with pytest.raises(RuntimeError, match="shapes differ"):
        compare_photo(photo, tmp_path, style="red", base=tiny, aligned=True, device="cpu")


def test_one_model_serves_all_methods_and_draws_what_their_own_would(
    tiny, photo, judged, diffusion_config, diffusion_runs, loads, tmp_path, monkeypatch
):
    turns = []

    def alive():
        return sum(model() is not None for model in loads)

    def made(name, *args, **options):
        turns.append((name, alive()))
        return make_method(name, *args, **options)

    load = StyleJudge.load

    def loaded(*args, **options):
        turns.append(("judge", alive()))
        return load(*args, **options)

    monkeypatch.setattr(photo_comparison, "make_method", made)
    monkeypatch.setattr(StyleJudge, "load", loaded)
    report = compare_photo(
        photo, tmp_path, style="red", base=tiny, config=diffusion_config, runs=diffusion_runs, aligned=True,
        methods=("inst", "toonify", "ntc", "styleid"), device="cpu", progress=False,
    )  # fmt: skip
    assert [row["method"] for row in report["methods"]] == ["inst", "toonify", "ntc", "styleid"]
    assert turns == [("toonify", 0), ("inst", 0), ("ntc", 1), ("styleid", 1), ("judge", 0)]
    assert len(loads) == 1
    crop = to_tensor(load_image(tmp_path / "photo.png"))
    for row in report["methods"]:
        name = row["method"]
        own = make_method(name, "red", None, diffusion_runs, diffusion_config, tiny, device="cpu")
        expected = to_pil(own.stylize(crop)[0].detach())
        assert load_image(tmp_path / f"{name}.png").tobytes() == expected.tobytes()
    assert len(loads) == 4


def test_styleid_follows_the_first_picture_where_it_was_not_prepared(
    tiny, photo, judged, diffusion_config, style_folder, tmp_path
):
    report = compare_photo(
        photo, tmp_path / "out", style="red", base=tiny, pictures=style_folder, config=diffusion_config, aligned=True,
        methods=("styleid", "inst"), device="cpu", progress=False,
    )  # fmt: skip
    first, second = report["methods"]
    assert first["style_seconds"] > 0 and "no folder inst/red" in second["why"]
    run = make_baseline(
        "styleid", stylize=diffusion_config.styleid, model=diffusion_config.diffusion, device="cpu"
    )
    run.prepare(style_folder / "00.png", tmp_path / "run", progress=False)
    crop = to_tensor(load_image(tmp_path / "out" / "photo.png"))
    expected = to_pil(run.stylize(crop)[0])
    assert load_image(tmp_path / "out" / "styleid.png").tobytes() == expected.tobytes()


def test_a_model_that_cannot_be_had_is_asked_for_once_and_every_method_says_so(
    tiny, photo, diffusion_config, diffusion_runs, tmp_path, monkeypatch
):
    asked = []

    def fail(model, **_):
        asked.append(model)
        raise DownloadError("the network is dead")

    monkeypatch.setattr(LatentDiffusion, "from_pretrained", fail)
    report = compare_photo(
        photo, tmp_path, style="red", base=tiny, config=diffusion_config, runs=diffusion_runs, aligned=True,
        methods=("ntc", "inst", "styleid"), device="cpu", progress=False,
    )  # fmt: skip
    assert [row["why"] for row in report["methods"]] == ["the network is dead"] * 3
    assert asked == [diffusion_config.diffusion.model]


def test_bad_input_is_refused_by_name(tiny, tmp_path):
    blank = Image.new("RGB", (200, 200), "grey")
    with pytest.raises(ConfigError, match=r"expected methods of .*; got gatys"):
        compare_photo(blank, tmp_path, style="red", base=tiny, methods=["gatys"])
    with pytest.raises(ConfigError, match="got none"):
        compare_photo(blank, tmp_path, style="red", base=tiny, methods=[])
    with pytest.raises(NoFaceError, match="already-aligned"):
        compare_photo(blank, tmp_path, style="red", base=tiny, device="cpu")
    with pytest.raises(ImageError, match="squares"):
        compare_photo(
            blank.crop((0, 0, 200, 100)), tmp_path, style="red", base=tiny, aligned=True, device="cpu"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "one photo, or --table"),
        (["a.png", "--table"], "one photo, or --table"),
        (["--table"], "--pictures STYLE=PICTURES"),
        (["a.png"], "--style cartoon"),
        (
            ["a.png", "--style", "cartoon", "--faces", "b.zip"],
            "--faces and --download-clip are of --table",
        ),
        (["--table", "--pictures", "a=b", "--style", "a"], "--style and --already-aligned"),
        (["--table", "--pictures", "a=b", "--already-aligned"], "--style and --already-aligned"),
        (["a.png", "--style", "cartoon", "--methods", "gatys"], "expected methods of"),
    ],
)
def test_the_command_says_what_it_needs(words, told, tmp_path, capsys):
    assert main(["compare", *words, "-o", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


def test_the_command_compares_a_photo(
    photo, judged, diffusion_config, diffusion_runs, style_folder, tmp_path, capsys
):
    path = tmp_path / "me.png"
    photo.save(path)
    arguments = [
        "compare", str(path), "--already-aligned", "--style", "red", "--pictures", f"red={style_folder}", "-o",
        str(tmp_path / "out"), "--runs", str(diffusion_runs), "--device", "cpu", "--set", "ntc.steps=4",
        "--set", "styleid.steps=3", "--set", "side_px=128",
        "--set", f"diffusion.model={diffusion_config.diffusion.model}",
    ]  # fmt: skip
    assert main([*arguments, "--methods", "ntc,styleid,ui2i"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[:3]] == ["ntc", "styleid", "ui2i"]
    assert told[-1] == str(tmp_path / "out" / "comparison.png")
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [("why" in row) for row in report["methods"]] == [False, False, True]
    assert main([*arguments, "--methods", "ui2i"]) == 1  # nothing was drawn
