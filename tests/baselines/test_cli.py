"""``facestyle baseline``: what it writes, what it prints, and its exit codes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.baselines.registry import make_baseline, stylize_config, train_config
from facestyle.baselines.ugatit_networks import UgatitGenerator
from facestyle.baselines.ugatit_training import save_generator
from facestyle.cli import main
from facestyle.errors import ConfigError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained U-GAT-IT in its folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_generator(UgatitGenerator(32, width=4, blocks=1), folder)
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory, astronaut):
    path = tmp_path_factory.mktemp("photo") / "me.png"
    astronaut.save(path)
    return path


def test_a_photos_face_is_cut_out_and_stylized(run, photo, tmp_path, capsys):
    arguments = ["baseline", "stylize", "ugatit", "--run", str(run), "--device", "cpu"]
    assert main([*arguments, str(photo), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "me.png")
    with Image.open(tmp_path / "out" / "me.png") as picture:
        cut = np.asarray(picture)
    assert cut.shape == (32, 32, 3)
    whole = tmp_path / "whole.png"
    assert main([*arguments, str(photo), "-o", str(whole), "--already-aligned"]) == 0
    with Image.open(whole) as picture:
        assert np.abs(cut.astype(int) - np.asarray(picture).astype(int)).mean() > 1


def test_no_photo_is_written_over_by_whatever_path_leads_to_it(run, photo, tmp_path, capsys):
    (tmp_path / "IMG_1.PNG").write_bytes(photo.read_bytes())
    (tmp_path / "IMG_1.png").hardlink_to(tmp_path / "IMG_1.PNG")  # as a disk that ignores case
    arguments = ["baseline", "stylize", "ugatit", "--run", str(run), str(tmp_path / "IMG_1.PNG")]
    assert main([*arguments, "-o", str(tmp_path)]) == 2
    assert "IMG_1.png is one of the inputs" in capsys.readouterr().err
    assert (tmp_path / "IMG_1.PNG").read_bytes() == photo.read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "styleid", "--set", "steps=3", "--set", "gamma=0.3"], "gamma: styleid does not"),
        (["train", "inst", "--set", "training.steps=3", "--set", "strength=0.3"], "strength: inst"),
        (["stylize", "inst", "--run", ".", "--set", "training.steps=3"], "baseline train inst"),
    ],
)
def test_settings_that_would_not_be_read_are_refused(words, told, photo, tmp_path, capsys):
    assert main(["baseline", *words, str(photo), "-o", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


def test_a_comparison_takes_no_settings_of_insts_training(photo, tmp_path, capsys):
    words = ["compare", str(photo), "--style", "cartoon", "-o", str(tmp_path), "--dry-run"]
    assert main([*words, "--set", "inst.training.steps=3"]) == 2
    assert "training.steps: inst draws with what it learned" in capsys.readouterr().err


def test_photos_without_a_face_are_told_and_the_others_done(run, photo, tmp_path, capsys):
    plain = tmp_path / "plain.png"
    Image.new("RGB", (256, 256), (90, 120, 90)).save(plain)
    arguments = ["baseline", "stylize", "ugatit", "--run", str(run), "--device", "cpu"]
    assert main([*arguments, str(plain), str(photo), "-o", str(tmp_path / "out")]) == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["me.png"]
    assert "NoFaceError" in capsys.readouterr().err


def test_a_trained_run_is_what_stylize_takes(style_folder, photo, tmp_path, capsys):
    sizes = ["side_px=32", "width=4", "blocks=1", "discriminator_width=4", "global_layers=4",
             "local_layers=3", "steps=1"]  # fmt: skip
    options = [part for size in sizes for part in ("--set", size)]
    arguments = ["baseline", "train", "ugatit", str(style_folder), "-o", str(tmp_path / "run")]
    arguments += ["--faces", str(style_folder), "--device", "cpu", *options]
    assert main([*arguments, "--dry-run"]) == 0
    assert "side_px=32" in capsys.readouterr().out and not (tmp_path / "run").exists()
    assert main(arguments) == 0
    stylize = ["baseline", "stylize", "ugatit", "--run", str(tmp_path / "run"), str(photo)]
    stylize += ["-o", str(tmp_path / "me.png"), "--already-aligned", "--device", "cpu"]
    assert main(stylize) == 0
    with Image.open(tmp_path / "me.png") as picture:
        assert picture.size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "toonify", "{absent}", "-o", "{out}", "--minutes", "3"], 2, "ugatit"),
        (["train", "ugatit", "{absent}", "-o", "{out}"], 2, "absent"),
        (["train", "ugatit", "{absent}", "-o", "{out}", "--set", "sids=3"], 2, "unknown setting"),
        (["stylize", "dualstylegan", "{photo}", "--run", "{absent}", "-o", "{out}"], 3, "import"),
        (["stylize", "ugatit", "{photo}", "--run", "{absent}", "-o", "{out}"], 3, "absent"),
        (["stylize", "ugatit", "{photo}", "--run", "{out}", "-o", "{out}", "--set", "psi=1"],
         2, "unknown setting"),
        (["stylize", "ui2i", "{photo}", "--run", "{out}", "-o", "{out}", "--set", "swap_layer=2"],
         2, "swap_layer"),
        (["stylize", "ntc", "{photo}", "--run", "{absent}", "-o", "{out}"], 2, "leave it out"),
        (["stylize", "ui2i", "{photo}", "--run", "{out}", "-o", "{out}", "--revision", "v2"],
         2, "leave them out of ui2i"),
        (["train", "styleid", "{photo}", "{photo}", "-o", "{out}", "--model", "{absent}"],
         2, "neither a folder nor"),
        (["import", "ugatit", "{photo}", "{photo}", "-o", "{out}"], 2, "one file"),
        (["import", "dualstylegan", "{photo}", "-o", "{out}"], 3, "me.png"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line_and_their_code(arguments, code, says, photo, tmp_path, capsys):
    names = {"photo": photo, "out": tmp_path / "out", "absent": tmp_path / "absent"}
    assert main(["baseline", *(part.format(**names) for part in arguments)]) == code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("facestyle: ") and says in line


def test_the_diffusion_methods_run_from_the_command_line(
    tiny_diffusion_folder, tiny_clip_folder, style_picture, photo, tmp_path, capsys
):
    model = ["--model", str(tiny_diffusion_folder), "--device", "cpu"]
    of_training = ["--set", "training.steps=2", "--set", f"training.clip={tiny_clip_folder}"]
    for name, steps in (("ntc", 10), ("styleid", 3), ("inst", 3)):
        options = ["--set", f"steps={steps}"]
        run = tmp_path / name
        if name != "ntc":
            train = [
                "baseline",
                "train",
                name,
                str(style_picture),
                "-o",
                str(run),
                *model,
                *(of_training if name == "inst" else options),
            ]
            assert main(train) == 0
            assert capsys.readouterr().out.splitlines()[-1] == str(run)
        stylize = ["baseline", "stylize", name, str(photo), "-o", str(tmp_path / f"{name}.png")]
        taken = [] if name == "ntc" else ["--run", str(run)]
        assert main([*stylize, *taken, *model, *options]) == 0
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (64, 64) and len(picture.getcolors(4096)) > 100


def test_two_style_pictures_are_refused(tiny_diffusion_folder, style_picture, tmp_path, capsys):
    arguments = ["baseline", "train", "styleid", str(style_picture), str(style_picture)]
    arguments += ["-o", str(tmp_path / "run"), "--model", str(tiny_diffusion_folder)]
    assert main([*arguments, "--device", "cpu"]) == 2
    assert "one style picture" in capsys.readouterr().err


def test_listing_the_commands_loads_no_torch():
    program = "import sys; from facestyle.cli import _parser; _parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_every_method_is_made_by_its_name(tiny):
    for name in ("dualstylegan", "toonify", "ugatit", "ui2i"):
        method = make_baseline(name, stylize=stylize_config(name), base=tiny, device="cpu")
        assert method.name == name
    assert make_baseline("toonify", base=tiny, device="cpu").resolution == 64
    star = train_config("toonify")
    assert star.sem_weight == star.pair_weight == 0
    for wrong in ("dualstylegan", "nope"):
        with pytest.raises(ConfigError):
            train_config(wrong)
    with pytest.raises(ConfigError, match="no method"):
        make_baseline("nope")
