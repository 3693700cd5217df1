"""The command line: what it writes, what it prints, and its exit codes."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from facestyle import bench, cli, memory
from facestyle.bench import format_bench, known_speed, sample_photo
from facestyle.cli import _parser, main
from facestyle.cli_common import configured, output_files
from facestyle.errors import ConfigError, StyleNotFoundError
from facestyle.memory import PeakMemory
from facestyle.stylizer import FaceStylizer
from facestyle.training import encoder
from facestyle.training.pipeline import PRESETS


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with two good photos, one in EXIF orientation 6 with a GPS tag, and three bad files."""
    folder = tmp_path_factory.mktemp("photos")
    astronaut = Image.fromarray(data.astronaut())
    astronaut.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    astronaut.transpose(Image.Transpose.ROTATE_90).save(folder / "b.jpg", exif=exif, quality=95)
    (folder / "c.jpg").write_bytes((folder / "b.jpg").read_bytes()[:3000])
    (folder / "d.png").write_bytes(b"")
    Image.fromarray(data.coffee()).save(folder / "e.png")
    return folder


def test_a_folder_goes_on_past_bad_files_and_reports_them(photos, tmp_path, capsys):
    assert main(["stylize", str(photos), "-o", str(tmp_path / "out"), "--json"]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["done"], report["failed"]) == (2, 3)
    errors = {os.path.basename(r["input"]): r["error"] for r in report["results"] if "error" in r}
    assert errors == {
        "c.jpg": "NotAnImageError",
        "d.png": "NotAnImageError",
        "e.png": "NoFaceError",
    }
    assert captured.err.count("facestyle:") == 3
    assert "Traceback" not in captured.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "report.json"]
    done = [r for r in report["results"] if "error" not in r]
    assert all(r["faces"] == 1 and r["seconds"]["synthesize"] > 0 for r in done)
    turned = Image.open(tmp_path / "out" / "b.png")
    upright = Image.open(tmp_path / "out" / "a.png")
    assert turned.size == upright.size == (512, 512)
    change = np.asarray(turned, int)[300:] - np.asarray(upright, int)[300:]
    assert np.abs(change).mean() < 6  # the same picture but for JPEG
    assert set(turned.text) == {"Software", "facestyle"}
    assert len(turned.getexif()) == 0
    assert b"GPS" not in (tmp_path / "out" / "b.png").read_bytes()


def test_a_name_that_is_too_long_does_not_end_the_others(photos, tmp_path, capsys):
    too_long = "x" * 300 + ".png"
    out = tmp_path / "out"
    assert main(["stylize", too_long, str(photos / "a.png"), "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert (out / "a.png").is_file()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("facestyle:")]
    assert line.startswith(f"facestyle: ImageError: {too_long}: cannot be read: ")


@pytest.mark.parametrize("ending", ["", ".png"])
def test_an_output_whose_name_is_too_long_is_named(photos, tmp_path, capsys, ending):
    out = str(tmp_path / ("x" * 300)) + ending
    pictures = [str(photos / "a.png"), str(photos / "b.jpg")][: 1 if ending else 2]
    assert main(["stylize", *pictures, "-o", out]) == 4
    assert "OutputError" in capsys.readouterr().err.strip().splitlines()[-1]


def test_one_input_can_name_its_output(tmp_path, capsys):
    out = tmp_path / "deep" / "me.png"
    code = main(
        ["stylize", str(sample_photo()), "-o", str(out), "--already-aligned", "--portraits"]
    )
    assert code == 0
    for path in (out, out.with_stem("me_face0")):
        with Image.open(path) as picture:
            assert picture.size == (1024, 1024)
    assert "1 face" in capsys.readouterr().out


def test_inputs_of_one_name_do_not_overwrite_each_other(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.open(sample_photo()).resize((256, 256)).save(tmp_path / folder / "a.png")
    inputs = [str(tmp_path / "x"), str(tmp_path / "y")]
    assert main(["stylize", *inputs, "-o", str(tmp_path / "out"), "--already-aligned"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["a-1.png", "a.png"]


def test_pictures_of_others_are_not_replaced(tmp_path, capsys):
    photo, other = tmp_path / "a.jpg", tmp_path / "a.png"
    Image.open(sample_photo()).convert("RGB").resize((256, 256)).save(photo)
    Image.new("RGB", (64, 64), "teal").save(other)
    kept = other.read_bytes()
    words = ["stylize", str(photo), "--already-aligned", "-o"]
    assert main([*words, str(tmp_path)]) == 2
    assert "was not made by facestyle" in capsys.readouterr().err and other.read_bytes() == kept
    out = tmp_path / "out"
    assert main([*words, str(out)]) == main([*words, str(out), "--strength", "0.5"]) == 0
    assert main([*words, str(other)]) == 0, "whose name was given"


def test_a_photo_named_like_a_portrait_of_another_keeps_its_own_name(tmp_path):
    photos = [tmp_path / "me.jpg", tmp_path / "me_face0.jpg", tmp_path / "you_face0.jpg"]
    plain = [path.name for path in output_files(photos, tmp_path / "out").values()]
    assert plain == ["me.png", "me_face0.png", "you_face0.png"]
    beside = output_files(photos, tmp_path / "out", portraits=True)
    assert [path.name for path in beside.values()] == ["me.png", "me_face0-1.png", "you_face0.png"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_given_out_is_no_portraits_of_another_either(tmp_path, order):
    photos = [tmp_path / name for name in ("x/a.jpg", "y/a.jpg", "z/a-1_face0.jpg")][::order]
    names = [path.stem for path in output_files(photos, tmp_path / "out", portraits=True).values()]
    assert len({*names, *(f"{name}_face0" for name in names)}) == 6


def test_a_link_to_itself_is_an_input_that_cannot_be_read(photos, tmp_path, capsys):
    (tmp_path / "loop.png").symlink_to("loop.png")
    words = ["stylize", str(tmp_path / "loop.png"), "-o", str(tmp_path / "out")]
    assert main(words) == 1
    assert "ImageError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "flag"), [("on", True), ("TRUE", True), ("off", False), ("0", False)]
)
def test_a_switch_is_set_by_any_usual_word(word, flag):
    assert configured(PRESETS["fast"], [f"style.flip={word}"]).style.flip is flag
    with pytest.raises(ConfigError, match="must be true or false, got 'ture'"):
        configured(PRESETS["fast"], ["style.flip=ture"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["stylize", "{photo}", "-o", "{out}", "--style", "nope"], 3, "cartoon"),
        (["stylize", "{photo}", "-o", "{out}", "--revision", "v1"], 2, "a revision is of styles of the Hub"),
        (["stylize", "{photo}", "{photo2}", "-o", "{out}.png"], 2, "folder"),
        (["stylize", "{photo}", "-o", "{photo}"], 2, "one of the inputs"),
        (["stylize", "{photo}", "-o", "{out}", "--strength", "7"], 2, "strength"),
        (["stylize", "{empty}", "-o", "{out}"], 2, "no pictures"),
        (["stylize", "{absent}", "-o", "{out}"], 1, "absent"),
        (["stylize", "{photo}", "-o", "{out}.jpg"], 2, "written as PNG"),
        (["stylize", "{small}", "-o", "{out}"], 1, "200 px and more look good"),
        (["bench", "--style", "nope"], 3, "cartoon"),
        (["bench", "--size", "tiny"], 2, "--size is of"),
        (["bench", "--generator", "--baselines"], 2, "one at a time"),
        (["bench", "--generator", "--style", "anime"], 2, "leave --style"),
        (["baseline", "train", "toonify", "{empty}", "-o", "{out}", "--model", "x"], 2, "are of ntc"),
        (["baseline", "stylize", "ugatit", "{photo}", "-o", "{out}", "--run", "{empty}", "--memory", "low"],
         2, "leave them out of ugatit"),
        (["evaluate", "style", "-o", "{out}", "--judge", "nobody"], 2, "unknown judge"),
        (["evaluate", "style", "-o", "{out}", "--encoder", "x"], 2, "--encoder"),
        (["evaluate", "encoder", "-o", "{out}", "--style", "anime"], 2, "--style is not read: it is of evaluate style"),
        (["evaluate", "styles", "-o", "{out}", "--pictures", "x"], 2, "it is of evaluate style, psi"),
        (["evaluate", "style", "-o", "{out}", "--dtype", "bfloat16"], 2, "--dtype is not read"),
        (["evaluate", "refine", "-o", "{out}", "--refine", "8"], 2, "--refine is not read"),
        (["evaluate", "gallery", "-o", "{out}", "--features-cache", "x"], 2, "--features-cache"),
        (["compare", "{photo}", "-o", "{out}", "--style", "cartoon", "--judge", "nobody"], 2, "unknown judge"),
        (["evaluate", "encoder", "-o", "{out}", "--faces", "{empty}", "--optimise", "0"], 2, "optimise"),
        (["stylize", "{photo}", "-o", "{file}/out"], 4, "file"),
        (["stylize", "{photo}", "-o", "{out}", "--device", "abacus"], 2, "abacus"),
        (["train", "{empty}", "-o", "{out}", "--name", "x", "--data-license", "MIT"], 2, "no pict"),
        (["train", "{empty}", "-o", "{out}", "--name", "x", "--data-license", "MIT",
          "--set", "sed=1"], 2, "unknown setting"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line_and_their_code(arguments, code, says, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    for name in ("photo", "photo2"):
        Image.open(sample_photo()).resize((300, 300)).save(tmp_path / f"{name}.png")
    names = {
        "photo": tmp_path / "photo.png", "photo2": tmp_path / "photo2.png", "out": tmp_path / "out",
        "empty": tmp_path / "empty", "absent": tmp_path / "absent.png", "file": tmp_path / "file",
        "small": tmp_path / "small.png",
    }  # fmt: skip
    small = Image.new("RGB", (400, 400), (90, 90, 90))
    face = Image.fromarray(data.astronaut()).crop((100, 0, 340, 240)).resize((36, 36))
    small.paste(face, (150, 150))
    small.save(names["small"])
    assert main([part.format(**names) for part in arguments]) == code
    captured = capsys.readouterr().err
    line = captured.strip().splitlines()[-1]
    assert line.startswith("facestyle: ")
    assert says in line
    assert "Traceback" not in captured


def test_every_command_with_a_style_takes_its_revision(monkeypatch, tmp_path):
    asked = []

    def from_pretrained(style, **options):
        asked.append((style, options["revision"]))
        raise StyleNotFoundError("nobody is at home", name=style, available=())

    monkeypatch.setattr(FaceStylizer, "from_pretrained", from_pretrained)
    photo = str(sample_photo())
    for words in (
        ["stylize", photo], ["variations", photo], ["reference", photo, "--reference", photo], ["export"],
        ["evaluate", "gallery"],
    ):  # fmt: skip
        out = str(tmp_path / words[0])
        assert main([*words, "-o", out, "--style", "ada/mine", "--revision", "v1"]) == 3
    assert asked == [("ada/mine", "v1")] * 5


def test_dry_run_prints_the_settings_and_what_the_check_finds(capsys, tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(6):
        noise = np.random.default_rng(i).integers(255, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((200, 200)).save(tmp_path / "set" / f"{i}.png")
    (tmp_path / "set" / "broken.png").write_bytes(b"no picture")
    arguments = ["train", str(tmp_path / "set"), "-o", str(tmp_path / "o"), "--name", "x",
                 "--data-license", "MIT", "--aligned", "yes", "--dry-run"]  # fmt: skip
    assert main([*arguments, "--set", "style.seed=7", "--set", "style.flip=no"]) == 0
    printed = capsys.readouterr().out
    assert "style.seed=7" in printed
    assert "style.flip=False" in printed
    assert "6 of 7" in printed and "broken.png" in printed
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "x", "-o", "{o}", "--name", "My Style", "--data-license", "MIT", "--dry-run"], "lower case"),
        (["train", "x", "-o", "{o}", "--name", "x", "--data-license", " ", "--dry-run"], "--data-license is empty"),
        (["train", "x", "-o", "{o}", "--name", "x", "--data-license", "MIT",
          "--set", "style=3"], "is a group"),
        (["train", "x", "-o", "{o}", "--name", "x", "--data-license", "MIT",
          "--set", "style.flop=3"], "style.flop"),
        (["train", "x", "-o", "{o}", "--name", "x", "--data-license", "MIT",
          "--set", "pairs.steps=many"], "of type int"),
        (["train", "x", "-o", "{o}", "--name", "x", "--data-license", "MIT",
          "--set", "style.pair_level=3"], "pairs.level"),
        (["train", "{o}", "-o", "{o}/run", "--name", "x", "--data-license", "MIT"], "no such folder"),
        (["pairs", "x", "-o", "{o}", "--set", "steps=0"], "steps"),
        (["ablate", "x", "-o", "{o}"], "NAME=PICTURES"),
        (["ablate", "x=y", "x=z", "-o", "{o}"], "named twice"),
    ],
)  # fmt: skip
def test_training_commands_name_what_is_wrong(arguments, says, tmp_path, capsys):
    assert main([part.format(o=tmp_path / "o") for part in arguments]) == 2
    captured = capsys.readouterr().err
    assert says in captured.strip().splitlines()[-1]
    assert "Traceback" not in captured
    assert not (tmp_path / "o").exists() or not any((tmp_path / "o").rglob("*.safetensors"))


def test_an_encoder_is_trained_on_the_device_asked_for(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(encoder, "train_encoder", lambda *_, device, **__: asked.append(device))
    words = ["train-encoder", "--faces", "x", "--val-faces", "y", "-o", str(tmp_path)]
    assert main(words) == main([*words, "--device", "cpu"]) == 0
    assert asked == [None, "cpu"]


def test_settings_that_depend_on_each_other_are_set_together(capsys, tmp_path):
    arguments = ["ablate", "a=x", "-o", str(tmp_path / "o"), "--dry-run"]
    assert main([*arguments, "--set", "style.psi_max=0.4", "--set", "style.psi_min=0.3"]) == 0
    assert "style.psi_max=0.4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["compare", "-o", "out", "--pictures", "a=x", "--pictures", "b=y"], "pictures"),
        (["compare", "-o", "out", "--faces", "a=x", "--faces", "b=y"], "faces"),
        (["reference", "me.png", "-o", "o", "--reference", "a=x", "--reference", "b=y"], "reference"),
        (["evaluate", "reference", "-o", "o", "--references", "a=x", "--references", "b=y"], "references"),
    ],
)  # fmt: skip
def test_an_option_given_twice_takes_both(words, name):
    assert getattr(_parser().parse_args(words), name) == ["a=x", "b=y"]


@pytest.mark.parametrize(
    ("words", "usage", "says"),
    [
        (["export", "impasto", "-o", "x"], "usage: facestyle export", "arguments: impasto\n"),
        (
            ["variations", "a.png", "-o", "x", "--mixing-levels", "3"],
            "usage: facestyle variations",
            "arguments: --mixing-levels 3; did you mean --mixing-level?\n",
        ),
        (["stylize", "a.png", "-o", "x", "--stlye=anime"], "usage: facestyle stylize", "--style?"),
        (
            ["baseline", "train", "toonify", "x", "-o", "x", "--xyzzy"],
            "usage: facestyle baseline train",
            "unrecognized arguments: --xyzzy\n",
        ),
    ],
)
def test_an_unknown_option_is_answered_by_its_command(words, usage, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    answer = capsys.readouterr().err
    assert answer.startswith(usage) and says in answer


def test_info_names_styles_weights_and_licences(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "cartoon" in facts["styles"]
    assert all(len(row["sha256"]) == 64 for row in facts["weights"].values())
    assert not any("see NOTICE" in row["license"] for row in facts["weights"].values())
    assert facts["device"]["cores"] >= 1
    anime = facts["styles"]["anime"]
    assert (anime["share"], anime["likeness"], anime["hair"]) == (1.2, 1, 0.6)
    beside = [name for name in facts["weights"] if name.startswith("styles/anime/")]
    assert {name.rpartition("/")[2] for name in beside} == {
        "generator.safetensors", "hair.safetensors", "likeness.safetensors"
    }  # fmt: skip
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "share 1.2, likeness 1, hair 0.6, keep_shape 0" in shown
    assert facts["styles"]["fantasy"]["keep_shape"] == 0.5
    assert all(0 < row["photo_s"] < row["refined_s"] for row in facts["speed"].values())
    assert shown.count("facestyle bench measures this machine") == len(facts["speed"]) > 1
    assert facts["weights"]["styles/anime/hair.safetensors"]["sha256"] in shown


def test_bench_measures_every_stage(capsys):
    assert main(["bench", "--runs", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    known = set(known_speed()[0]) - {"command"}
    assert known <= report.keys()  # what cards and info read
    assert all(report["stages"][name] > 0 for name in ("detect", "encode", "synthesize", "paste"))
    assert sum(report["stages"].values()) <= report["total"] * 1.05
    assert report["cold_start"] > report["total"]
    assert report["peak_memory_mb"] > 100
    assert report["batch"]["per_second_8"] > 0
    large = report["large"]
    assert large["photo_px"] == [4000, 3000]
    assert report["stages"]["detect"] < large["detect"] < large["total"]
    assert f"{large['total']:7.3f} s   (4000 x 3000 px; to find" in format_bench(report)


def test_bench_tells_the_memory_of_a_gpu(monkeypatch, tmp_path):
    class FakeMemory(PeakMemory):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.bytes = 3_000_000

    monkeypatch.setattr(memory, "PeakMemory", FakeMemory)
    drawn = []
    for kind, peak in (("cuda", 3.0), ("cpu", None)):
        stylizer = MagicMock(device=torch.device(kind), side_effect=drawn.append)
        assert bench._gpu_peak_mb(stylizer, tmp_path) == peak
    assert drawn == [tmp_path]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_that_nobody_takes_is_no_traceback(options):
    info = [sys.executable, "-m", "facestyle", "info", *options]
    with subprocess.Popen(info, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `head` does, before anything is printed
        assert process.stderr.read() == b""
    assert process.returncode == 4
    with open("/dev/full", "w") as full:
        done = subprocess.run(info, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("facestyle: OutputError: standard output: cannot be written")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [("cp1252", "写真.png", b"\\u5199\\u771f.png"), ("utf-8", "caf\udce9.png", b"caf\\udce9.png")],
)
def test_names_that_standard_output_cannot_say_are_spelled(encoding, name, shown, monkeypatch):
    bytes_out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_out, encoding=encoding))
    monkeypatch.setattr(cli, "_export", lambda args: print(args.output) or 0)
    assert main(["export", "-o", name]) == 0
    assert bytes_out.getvalue().strip() == shown


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes standard output")
def test_closed_standard_output_is_silence():
    command = ["sh", "-c", '"$0" -m facestyle styles >&-', sys.executable]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_taken_for_standard_output(number, monkeypatch, capsys):
    def fill(args):
        print("begun")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "_export", fill)
    assert main(["export", "-o", "out"]) == 4
    said = capsys.readouterr()
    assert said.out == "begun\n"
    assert said.err.startswith("facestyle: OutputError: out: the disk is full; free some space")


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'timm', 'torchvision', 'facenet_pytorch', 'huggingface_hub', 'PIL'}"
    printed = run_python(f"import sys, facestyle; print(sorted({heavy} & set(sys.modules)))")
    assert printed.strip() == "[]"


def test_importing_the_package_is_quick():
    code = "import time; s = time.process_time(); import facestyle; print(time.process_time() - s)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.3


def test_python_m_facestyle_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "facestyle", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("facestyle ")
