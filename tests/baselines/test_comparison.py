"""Methods on the same photos: every row is there, done once, and the arithmetic of the tables."""

import dataclasses
import gc
import shutil
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import facestyle.evaluation.comparison
import facestyle.reference
from facestyle.baselines import diffusion
from facestyle.baselines.base import count_parameters
from facestyle.baselines.inst import InstConfig
from facestyle.baselines.inst_training import InstTraining
from facestyle.baselines.registry import DiffusionModel
from facestyle.baselines.toonify import Toonify, ToonifyConfig
from facestyle.baselines.ugatit import Ugatit
from facestyle.baselines.ugatit_networks import UgatitGenerator
from facestyle.baselines.ugatit_training import save_generator
from facestyle.baselines.ui2i import Ui2iConfig
from facestyle.cli import main
from facestyle.errors import (
    ConfigError,
    DeviceMemoryError,
    DownloadError,
    FacestyleError,
    ImageError,
)
from facestyle.evaluation.comparison import compare
from facestyle.evaluation.comparison_methods import (
    METHODS,
    ComparisonConfig,
    Ours,
    OursConfig,
    SharedDiffusion,
    make_method,
)
from facestyle.evaluation.comparison_report import comparison_report, cost_table, ratio_table
from facestyle.evaluation.features import iter_pictures
from facestyle.evaluation.judges import IdentityJudge, Preprocess
from facestyle.evaluation.metrics import StyleJudge, read_metrics
from facestyle.evaluation.people import pil_pictures, sample_people, to_levels
from facestyle.image import load_image, to_pil, to_tensor
from facestyle.models.bases import encoder_for
from facestyle.models.zoo import load_base_generator
from facestyle.stylizer import FaceStylizer

CONFIG = ComparisonConfig(
    photos=3, side_px=64, batch=2, sheet_faces=2, toonify=ToonifyConfig(switch_px=16, steps=2),
    diffusion=DiffusionModel(model="/nowhere/at/all"),
)  # fmt: skip


class Grid:
    name = "nine fields"

    def __call__(self, images):
        small = [image.resize((3, 3), Image.Resampling.BOX) for image in images]
        return np.stack([np.asarray(image, np.float32).ravel() / 255 for image in small])


@pytest.fixture
def judged(style_folder, monkeypatch):
    def load(pictures, **_):
        style = Grid()(list(iter_pictures(style_folder)))
        return StyleJudge({"inception": style}, inception=Grid(), measures=("kid", "fid"))

    monkeypatch.setattr(StyleJudge, "load", load)


@pytest.fixture
def drawn(monkeypatch):
    """Names of the methods whose portraits are drawn, as it goes on."""
    drawn = []
    draw = facestyle.evaluation.comparison._portraits
    monkeypatch.setattr(
        facestyle.evaluation.comparison,
        "_portraits",
        lambda *args: drawn.append(args[1]) or draw(*args),
    )
    return drawn


@pytest.fixture
def runs(tmp_path, star_run):
    """A G* for toonify, an untrained U-GAT-IT; nothing for the others."""
    shutil.copytree(star_run, tmp_path / "runs" / "toonify" / "red")
    torch.manual_seed(0)
    save_generator(UgatitGenerator(32, width=4, blocks=1), tmp_path / "runs" / "ugatit" / "red")
    return tmp_path / "runs"


def test_every_method_has_its_row_and_is_measured_once(
    tiny, style_folder, runs, judged, tmp_path, monkeypatch
):
    def run(**changes):
        options = {"methods": ("toonify", "ugatit", "ui2i", "dualstylegan", "ntc"), "runs": runs}
        return compare(
            {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, progress=False, **(options | changes)
        )  # fmt: skip

    text = run().read_text()
    out = tmp_path / "out"
    row = read_metrics(out / "red" / "toonify" / "metrics.json")
    assert row["photos"]["kid_x1000"]["n"] == 3
    assert row["resolution"] == 64 and row["seconds_per_photo"] > 0 and row["training_seconds"] > 0
    assert row["settings"] == {"steps": 2, "switch_px": 16}
    assert (
        row["comparison"] == {"side_px": 64, "batch": 2} and "- all: side_px=64, batch=2." in text
    )
    drawn = read_metrics(out / "red" / "ugatit" / "metrics.json")
    assert drawn["resolution"] == 32 and drawn["training_seconds"] is None
    assert drawn["photos"]["kid_x1000"] != row["photos"]["kid_x1000"]
    for name in ("ui2i", "dualstylegan", "ntc"):
        assert f"| {name} | –" in text, "a method that cannot run keeps its row"
    assert "no folder ui2i/red" in text and (
        "/nowhere/at/all" in text or "facestyle[diffusion]" in text
    )
    with Image.open(out / "red.jpg") as sheet:
        assert sheet.height > 3 * 200, "photos and two methods"

    def refuse(*_):
        raise AssertionError("was drawn again")

    monkeypatch.setattr("facestyle.evaluation.comparison._portraits", refuse)
    assert run().read_text() == text
    with pytest.raises(ConfigError, match="other settings"):
        run(faces=[Image.new("RGB", (128, 128))])


def test_a_row_of_other_weights_pictures_or_judge_is_measured_anew(
    tiny, style_folder, runs, judged, tmp_path, drawn
):
    pictures = shutil.copytree(style_folder, tmp_path / "pictures")

    def times(**changes):
        options = {"methods": ("ugatit",), "runs": runs, "base": tiny, "progress": False}
        compare({"red": pictures}, tmp_path / "out", CONFIG, **(options | changes))
        return len(drawn)

    assert (times(), times()) == (1, 1)
    torch.manual_seed(1)
    save_generator(UgatitGenerator(32, width=4, blocks=1), runs / "ugatit" / "red")
    assert (times(), times()) == (2, 2)
    Image.new("RGB", (64, 64), "blue").save(sorted(pictures.iterdir())[0])
    assert (times(), times()) == (3, 3)
    (runs / "ugatit" / "red" / "config.json").write_text('{"share": 1.4}')
    assert (times(), times()) == (4, 4)
    assert times(judge_name="faceres") == 5
    with pytest.raises(ConfigError, match="unknown judge"):
        times(judge_name="nobody")


def test_a_style_that_ours_lacks_keeps_its_row(tiny, style_folder, runs, judged, tmp_path):
    report = compare(
        {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, methods=("ours", "toonify"), runs=runs,
        progress=False,
    ).read_text()  # fmt: skip
    assert "| ours | –" in report and "no style is called 'red'" in report
    assert "| toonify | –" not in report


@pytest.mark.parametrize(
    "error",
    [
        DeviceMemoryError("it took more than there is"),
        torch.OutOfMemoryError("CUDA out of memory: it took more than there is"),
        RuntimeError("can't allocate memory: it took more than there is"),
    ],
)
def test_a_method_whose_memory_runs_out_keeps_its_row(
    tiny, style_folder, runs, judged, tmp_path, monkeypatch, error
):
    def stylize(*_, **__):
        raise error

    monkeypatch.setattr(Ugatit, "stylize", stylize)
    report = compare(
        {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, methods=("ugatit", "toonify"), runs=runs,
        progress=False,
    ).read_text()  # fmt: skip
    assert "| ugatit | –" in report and "it took more than there is" in report
    assert "| toonify | –" not in report


def test_a_model_in_a_folder_is_known_by_its_files(tiny, tmp_path):
    digest = partial(facestyle.evaluation.comparison._weights, "ntc", "red", None, tiny)
    (tmp_path / "unet").mkdir()
    path = tmp_path / "unet" / "diffusion.safetensors"
    path.write_bytes(b"one")
    here, owner, other = (
        ComparisonConfig(diffusion=DiffusionModel(model=model))
        for model in (str(tmp_path), "owner/name", "owner/other")
    )
    before = digest(here)
    assert digest(here) == before
    path.write_bytes(b"three")
    assert digest(here) != before
    assert digest(owner) == digest(other)  # which the settings tell apart


def test_another_reference_under_the_same_name_is_measured_anew(
    tiny, style_folder, star_run, judged, tmp_path, drawn
):
    picture = tmp_path / "reference.png"
    shutil.copytree(star_run, tmp_path / "runs" / "ui2i" / "red")
    config = dataclasses.replace(CONFIG, ui2i=Ui2iConfig(steps=1, reference=str(picture)))
    for color, times in (("blue", 1), ("blue", 1), ("yellow", 2)):
        Image.new("RGB", (64, 64), color).save(picture)
        compare(
            {"red": style_folder}, tmp_path / "out", config, base=tiny, methods=("ui2i",),
            runs=tmp_path / "runs", progress=False,
        )  # fmt: skip
        assert len(drawn) == times


def test_the_report_names_models_number_types_and_how_runs_were_trained(
    tiny, style_folder, diffusion_config, diffusion_runs, judged, tmp_path
):
    runs = shutil.copytree(diffusion_runs, tmp_path / "runs")
    torch.manual_seed(0)
    save_generator(UgatitGenerator(32, width=4, blocks=1), runs / "ugatit" / "red")
    (runs / "ugatit" / "red" / "config.json").write_text('{"side_px": 32, "lr": 0.0001}')
    (runs / "ugatit" / "red" / "log.jsonl").write_text('{"step": 6}\n{"step": 7}\n')
    config = dataclasses.replace(diffusion_config, inst=InstConfig(steps=3))
    text = compare(
        {"red": style_folder}, tmp_path / "out", config, base=tiny, methods=("inst", "ugatit", "toonify"),
        runs=runs, device="cpu", progress=False,
    ).read_text()  # fmt: skip
    assert "- inst: steps=3." in text, "of drawing, and none of its training"
    trained = text[text.index("Trained otherwise") :]
    steps = diffusion_config.inst.training.steps
    assert f"- inst red: steps={steps}," in trained and steps != InstTraining().steps
    assert "- ugatit red: side_px=32, steps=7." in trained
    assert "- toonify red: coarse_steps=2," in trained
    assert f"inst {config.diffusion.model}, float32; ugatit float32" in text


def test_what_ours_after_a_reference_is_set_to_is_told():
    config = ComparisonConfig(mixing_level=12, ours=OursConfig(refine=4))
    described = facestyle.evaluation.comparison._described
    assert described("ours-ref", config) == {"mixing_level": 12, "refine": 4}
    assert described("ours", config) == {"refine": 4} and described("ugatit", config) == {}


def test_judges_are_there_before_anything_is_drawn(
    tiny, style_folder, runs, tmp_path, monkeypatch, drawn
):
    def away(*_, **__):
        raise DownloadError("the judge is away")

    monkeypatch.setattr(StyleJudge, "load", away)
    with pytest.raises(DownloadError, match="the judge is away"):
        compare(
            {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, methods=("ugatit",), runs=runs,
            judge_name="faceres", progress=False,
        )  # fmt: skip
    assert drawn == []


def test_pictures_too_small_to_judge_are_refused_at_once(style_folder, tmp_path, capsys):
    words = ["compare", "--table", "--pictures", f"red={style_folder}", "-o", str(tmp_path)]
    assert main([*words, "--set", "side_px=64"]) == 2
    assert "need faces of 128 px, and side_px is 64" in capsys.readouterr().err


def test_the_encoder_that_a_projection_starts_from_counts():
    base = load_base_generator()
    counts = []
    for start in ("mean", "encoder"):
        method = Toonify(base, ToonifyConfig(start=start))
        method.blended = base
        counts.append(method.parameters)
    assert counts[1] - counts[0] == count_parameters(encoder_for(base, "w"))


def test_cmmd_has_its_column_where_it_was_asked_for(
    tiny, style_folder, runs, tmp_path, monkeypatch
):
    style = Grid()(list(iter_pictures(style_folder)))
    missing = {"clip": "CLIP is away"}

    def report(clip, **more):
        monkeypatch.setattr(
            StyleJudge, "load",
            lambda *_, **__: StyleJudge(
                {"inception": style, "clip": style}, inception=Grid(), clip=clip, measures=("kid", "cmmd"), **more
            ),
        )  # fmt: skip
        return compare(
            {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, methods=("ugatit", "toonify"), runs=runs,
            measures=("kid", "cmmd"), progress=False,
        ).read_text()  # fmt: skip

    away = report(None, missing=missing)
    assert "red CMMD |" in away and "CLIP is away" in away
    text = report(Grid())
    value = read_metrics(tmp_path / "out" / "red" / "ugatit" / "metrics.json")["photos"]["cmmd"]
    assert f"{value['value']:.3f}" in text and "CLIP is away" not in text


def test_one_model_and_one_set_of_judging_networks_serve_all_styles(
    tiny, style_folder, diffusion_config, diffusion_runs, judged, loads, tmp_path, monkeypatch
):
    for style in ("red", "rouge"):
        for name in ("styleid", "toonify"):
            shutil.copytree(diffusion_runs / name / "red", tmp_path / "runs" / name / style)
    judges = []
    load = StyleJudge.load
    monkeypatch.setattr(
        StyleJudge, "load", lambda *args, **options: judges.append(args) or load(*args, **options)
    )
    out = tmp_path / "out"
    text = compare(
        {"red": style_folder, "rouge": style_folder}, out, diffusion_config, base=tiny,
        methods=("styleid", "toonify", "ntc"), runs=tmp_path / "runs", device="cpu", progress=False,
    ).read_text()  # fmt: skip
    assert len(loads) == len(judges) == 1 and loads[0]() is None
    first = text.index("| styleid |")
    assert first < text.index("| toonify |", first) < text.index("| ntc |", first)
    people = sample_people(tiny, 2, psi=0.8, side_px=64).sources
    crops = people.float().div(127.5).sub(1)
    for name in ("styleid", "ntc"):
        own = make_method(
            name, "red", None, tmp_path / "runs", diffusion_config, tiny, device="cpu"
        )
        expected = next(pil_pictures(to_levels(own.stylize(crops)))).tobytes()
        for style in ("red", "rouge"):
            assert load_image(out / style / name / "0.png").tobytes() == expected


def test_what_was_loaded_before_loading_failed_is_let_go(diffusion_config, monkeypatch):
    nets = []

    def full(pipe, *_):
        nets.append(weakref.ref(pipe.unet))
        raise torch.OutOfMemoryError("all is full")

    monkeypatch.setattr(diffusion, "_check_room", full)
    with SharedDiffusion(diffusion_config.diffusion, "cpu") as shared:
        for _ in range(3):
            with pytest.raises(DeviceMemoryError, match="all is full"):
                shared.load()
        gc.collect()
        assert len(nets) == 1 and nets[0]() is None


def test_settings_that_are_tuples_are_given_with_commas(tmp_path, style_folder, capsys):
    arguments = ["compare", "--table", "--pictures", f"red={style_folder}", "-o", str(tmp_path)]
    assert main([*arguments, "--dry-run", "--set", "styleid.layers=9,10"]) == 0
    assert "styleid.layers=9,10\n" in capsys.readouterr().out
    assert main([*arguments, "--dry-run", "--set", "styleid.layers=all"]) == 2
    assert "styleid.layers must be of type int" in capsys.readouterr().err


def test_codes_are_searched_once_for_all_styles(
    tiny, style_folder, runs, judged, tmp_path, monkeypatch
):
    shutil.copytree(runs / "toonify" / "red", runs / "toonify" / "rouge")
    compare(
        {"red": style_folder, "rouge": style_folder}, tmp_path / "out", CONFIG, base=tiny,
        methods=("toonify",), runs=runs, progress=False,
    )  # fmt: skip
    files = sorted((tmp_path / "out" / "codes").iterdir())
    assert [f.name.split("_")[::2] for f in files] == [
        ["toonify", "00000.safetensors"], ["toonify", "00002.safetensors"]
    ]  # fmt: skip
    rows = [
        read_metrics(tmp_path / "out" / s / "toonify" / "metrics.json") for s in ("red", "rouge")
    ]
    assert rows[0]["photos"] == rows[1]["photos"]


@pytest.mark.parametrize("changed", ["SEARCH", "_encoder_sha256", "device_name"])
def test_another_search_is_neither_a_standing_row_nor_its_codes(
    changed, tiny, style_folder, runs, judged, tmp_path, monkeypatch
):
    searched = []
    project = Toonify.project
    monkeypatch.setattr(
        Toonify, "project", lambda own, crops: searched.append(1) or project(own, crops)
    )

    def run():
        compare(
            {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, methods=("toonify",), runs=runs,
            progress=False,
        )  # fmt: skip
        return len(searched)

    assert (run(), run()) == (2, 2)
    value = 99 if changed == "SEARCH" else lambda *_: "another"
    monkeypatch.setattr(facestyle.evaluation.comparison, changed, value)
    assert (run(), run()) == (4, 4)


def test_what_a_row_lacks_is_measured_when_it_can_be(
    tiny, style_folder, runs, tmp_path, monkeypatch, drawn
):
    style = Grid()(list(iter_pictures(style_folder)))

    def run(by, methods=("ugatit",)):
        """With an identity network of a name, or none."""
        preprocess = Preprocess(
            frame_px=(16, 16), top=0, left=0, size_px=16, mean=(127.5,) * 3, scale=64.0
        )
        judge = by and IdentityJudge(by, torch.nn.Flatten(), preprocess)
        monkeypatch.setattr(IdentityJudge, "embed", lambda own, img: img.mean((2, 3)))
        missing = {} if by else {"identity": "the network is away"}
        monkeypatch.setattr(
            StyleJudge, "load",
            lambda *_, **__: StyleJudge(
                {"inception": style}, inception=Grid(), identity=judge, measures=("kid", "identity"),
                missing=missing,
            ),
        )  # fmt: skip
        text = compare(
            {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, methods=methods, runs=runs,
            progress=False,
        ).read_text()  # fmt: skip
        return len(drawn), text

    assert "the network is away" in run(None)[1] and len(drawn) == 1
    assert run(None)[0] == 1, "nor can it be had now"
    count, text = run("one")
    assert count == 2 and "the network is away" not in text
    assert run("two")[0] == 2, "no network is loaded to find that out"
    count, text = run("two", ("ugatit", "toonify"))
    assert count == 4 and "by two" in text, "judged alike"
    shutil.rmtree(tmp_path / "out" / "red" / "ugatit")
    assert run("one")[0] == 5, "where toonify was judged by two"
    count, text = run("one", ("ugatit", "toonify"))
    assert count == 6 and "by one" in text, "both stood, and were judged alike all the same"


def test_a_method_that_cannot_run_any_more_is_not_on_the_sheet(
    tiny, style_folder, runs, judged, tmp_path
):
    def height(methods=("ugatit", "toonify")):
        compare(
            {"red": style_folder}, tmp_path / "out", CONFIG, base=tiny, methods=methods, runs=runs,
            progress=False,
        )  # fmt: skip
        with Image.open(tmp_path / "out" / "red.jpg") as sheet:
            return sheet.height

    both = height()
    shutil.rmtree(runs / "ugatit")
    assert height() < both


def test_our_styles_share_their_codes(tiny, style_folder, judged, tmp_path, monkeypatch):
    searched = []
    project = Ours.project
    monkeypatch.setattr(
        Ours, "project", lambda own, crops: searched.append(len(crops)) or project(own, crops)
    )
    config = dataclasses.replace(CONFIG, photos=1, references=1, ours=OursConfig(refine=0))
    monkeypatch.setitem(facestyle.reference.STEPS, "encoder", 0)
    out = tmp_path / "out"
    compare(
        {"cartoon": style_folder, "anime": style_folder}, out, config, base=tiny,
        methods=("ours", "ours-ref"), device="cpu", progress=False,
    )  # fmt: skip
    assert len(list((out / "codes").iterdir())) == 1
    assert len(searched) == 5, "once for all, and each row's first call, which is not timed"
    drawn = {
        load_image(out / style / name / "0.png").tobytes()
        for style in ("cartoon", "anime")
        for name in ("ours", "ours-ref")
    }
    assert len(drawn) == 4


def test_bad_input_is_refused(tiny, style_folder, tmp_path):
    with pytest.raises(ConfigError, match="expected styles"):
        compare({"red": style_folder}, tmp_path, CONFIG, base=tiny, methods=["gatys"])
    with pytest.raises(ConfigError, match="expected styles"):
        compare({}, tmp_path, CONFIG, base=tiny)
    with pytest.raises(ImageError, match="squares"):
        compare({"red": style_folder}, tmp_path, CONFIG, base=tiny,
                faces=[Image.new("RGB", (200, 100))])  # fmt: skip
    with pytest.raises(ConfigError, match="photos must be 1"):
        ComparisonConfig(photos=0)
    with pytest.raises(ConfigError, match="side_px must be 1"):
        ComparisonConfig(side_px=0)


def row(method, style="red", **facts):
    entries = {
        key: {"value": facts[key], "n": 2, "n_style": 2, "by": "a network"}
        for key in ("fid", "kid_x1000", "perceptual", "identity_distance")
    }
    return {
        "style": style, "variant": method, "photos": {"who": "2 photos", **entries},
        "parameters": facts["size"], "resolution": 64, "seconds_per_photo": facts["test"],
        "training_seconds": facts["training"], "settings": {}, "date": "2026-01-02",
        "machine": {"processor": "abacus", "cores": 2},
    }  # fmt: skip


OURS = {"fid": 50.0, "kid_x1000": 10.0, "perceptual": 1.0, "identity_distance": 0.2,
        "size": 10_000_000, "test": 0.5, "training": 600.0}  # fmt: skip
PEER = {"fid": 100.0, "kid_x1000": -1.0, "perceptual": 4.0, "identity_distance": 0.4,
        "size": 40_000_000, "test": 500.0, "training": None}  # fmt: skip


def test_ratios_are_geometric_means_of_ours_to_the_peer():
    rows = [
        row("ours", **OURS), row("peer", **PEER),
        row("ours", "blue", **OURS), row("peer", "blue", **(PEER | {"fid": 12.5})),
    ]  # fmt: skip
    table = ratio_table(rows)
    # fid: sqrt(50/100 * 50/12.5) = sqrt(2); KID is not above 0; training is not known
    assert "| peer | 1.41 | – | 0.25 | 0.50 | 0.25 | 0.0010 | – |" in table
    assert "| ours |" not in table


def test_a_ratio_is_of_the_same_measure_in_both():
    ours, peer = row("ours", **OURS), row("peer", **OURS)
    ours["photos"]["lpips"] = {"value": 0.125, "n": 2, "by": "LPIPS"}
    assert "| peer | 1.00 | 1.00 | 1.00 |" in ratio_table([ours, peer])


def test_costs_are_means_over_styles():
    rows = [row("ours", **OURS), row("ours", "blue", **(OURS | {"test": 1.5, "training": None}))]
    absent = {"style": "red", "variant": "ntc", "why": "no GPU", "photos": {"who": "2 photos"}}
    table = cost_table([*rows, absent])
    assert "| ours | 10.0 | 64 | 1.00 | 10.0 |" in table
    assert "| ntc | – | – | – | – |" in table
    assert "no GPU" in comparison_report([*rows, absent], ["red", "blue"], "2 photos")


def test_ours_takes_the_users_path_and_references_change_it(style_folder, monkeypatch):
    base = load_base_generator()
    config = ComparisonConfig(references=2)
    crops = sample_people(base, 2, psi=0.8).sources.float().div(127.5).sub(1)
    ours = make_method("ours", "cartoon", style_folder, None, config, base, device="cpu")
    img = ours.stylize(crops)
    assert img.shape == (2, 3, 1024, 1024)
    user = FaceStylizer.from_pretrained("cartoon", device="cpu")
    own = user(to_pil(crops[1]), aligned=True, refine=config.ours.refine)
    assert torch.equal(img[1:], to_tensor(own.image))
    assert Ours(user, 8).shared_codes == ours.shared_codes
    with torch.no_grad():
        user.encoder.out.weight.mul_(2)
    assert Ours(user, 8).shared_codes != ours.shared_codes
    assert ours.resolution == 1024 and 10e6 < ours.parameters < 60e6
    monkeypatch.setitem(facestyle.reference.STEPS, "encoder", 0)
    like = make_method("ours-ref", "cartoon", style_folder, None, config, base, device="cpu")
    followed = like.stylize(crops[:1], first=1)
    assert (followed - img[:1]).abs().mean() > 0.02
    assert torch.equal(like.stylize(crops[:1], first=3), followed), "the second of two, again"


def test_unknown_styles_and_methods_say_what_to_do(tiny, style_folder, tmp_path):
    for name in set(METHODS) - {"ours", "ours-ref"}:
        with pytest.raises(
            FacestyleError, match=r"facestyle baseline|/nowhere|facestyle\[diffusion"
        ):
            make_method(name, "red", style_folder, tmp_path, CONFIG, tiny, device="cpu")


def test_the_command_prints_settings_and_stops(style_folder, tmp_path, capsys):
    arguments = ["compare", "--table", "--pictures", f"red={style_folder}", "-o", str(tmp_path)]
    assert main([*arguments, "--dry-run", "--set", "toonify.steps=7"]) == 0
    assert "toonify.steps=7" in capsys.readouterr().out
    assert main([*arguments[:3], "red=", *arguments[4:]]) == 2
    assert not list(tmp_path.iterdir())
