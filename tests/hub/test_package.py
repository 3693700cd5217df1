"""A style's folder: what is in it, that it is the same style elsewhere, and what is never taken or given."""

import copy
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from facestyle import FaceStylizer
from facestyle.bench import sample_photo
from facestyle.cli import main
from facestyle.errors import CheckpointError, ConfigError, OutputError, StyleNotFoundError
from facestyle.files import write_whole
from facestyle.hub.cards import render_card
from facestyle.hub.download import pull_style
from facestyle.hub.package import complete, copy_style, write_package, write_style
from facestyle.hub.push import plan_push, push_style
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.zoo import load_base_generator, load_style_generator
from facestyle.styles import VERSION, StyleConfig, bundled_style, find_style, style_folder
from facestyle.training.blend import blend_files
from facestyle.training.pipeline import TrainConfig
from facestyle.training.state import TrainingState

LOAD = """
import hashlib, sys
from facestyle import FaceStylizer
from facestyle.bench import sample_photo
image = FaceStylizer.from_pretrained(sys.argv[1], device="cpu")(sample_photo()).image
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def stylizer():
    return FaceStylizer.from_pretrained("illustration", device="cpu")


@pytest.fixture
def style(tmp_path):
    """A whole style, to be damaged."""
    folder = tmp_path / "style"
    shutil.copytree(bundled_style("illustration"), folder)
    return folder


@pytest.fixture(scope="module")
def saved(stylizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "mine"
    stylizer.save_pretrained(folder, include_encoder=True)
    return folder


def test_a_saved_style_is_whole_and_draws_the_same_in_another_process(stylizer, saved):
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert names == {
        "config.json", "generator.safetensors", "encoder.safetensors", "LICENSE.md", "README.md",
        "training.json", "samples/before_after.jpg",
    }  # fmt: skip
    header = read_metadata(saved / "generator.safetensors")
    assert header["style"] == "illustration" and header["version"] == str(VERSION)
    assert header["base_sha256"] == stylizer.config.base_sha256
    assert "GPL-3.0-or-later".lower() in (saved / "LICENSE.md").read_text().lower()
    here = hashlib.sha256(stylizer(sample_photo()).image.tobytes()).hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(saved)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here


def test_an_own_card_and_samples_are_kept(stylizer, tmp_path):
    stylizer.save_pretrained(tmp_path, samples=False)
    assert not (tmp_path / "samples").exists()
    (tmp_path / "README.md").write_text("mine")
    stylizer.save_pretrained(tmp_path, samples=False)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style": "other"}, "not of one style"),
        ({"base_sha256": "0" * 64}, "not of one style"),
        ({"format": "pt"}, "not of one style"),
        ({"version": "7"}, "update facestyle"),
        ({"version": "9" * 5000}, "update facestyle"),
    ],
)
def test_a_generator_file_of_another_style_is_refused(style, change, message):
    path = style / "generator.safetensors"
    save_tensors(read_tensors(path), path, metadata=read_metadata(path) | change)
    with pytest.raises(CheckpointError, match=message):
        load_style_generator(style, load_base_generator())


def test_a_missing_an_unexpected_and_a_misshapen_tensor_are_named(style):
    path = style / "generator.safetensors"
    tensors, header = read_tensors(path), read_metadata(path)
    name = next(iter(tensors))
    others = {key: value for key, value in tensors.items() if key != name}
    for changed in (
        others,
        tensors | {"extra": tensors[name].clone()},
        tensors | {name: tensors[name][:1]},
    ):
        save_tensors(changed, path, metadata=header)
        with pytest.raises(CheckpointError) as caught:
            load_style_generator(style, load_base_generator())
        assert (*caught.value.missing, *caught.value.unexpected) in ((name,), ("extra",))


def test_what_training_left_as_it_was_is_not_stored(stylizer, tmp_path):
    base = stylizer.base
    before = base.synthesis.state_dict()
    painted = copy.deepcopy(base)
    with torch.no_grad():
        painted.synthesis.blocks[4].conv1.bias.add_(1)
    write_style(painted, stylizer.config, tmp_path, base)
    path = tmp_path / "generator.safetensors"
    assert list(read_tensors(path)) == ["blocks.4.conv1.bias"]
    loaded = load_style_generator(tmp_path, base).synthesis.state_dict()
    averaged = blend_files(["base", path], [0.5, 0.5])
    for name, tensor in loaded.items():
        changed = name == "blocks.4.conv1.bias"
        torch.testing.assert_close(
            tensor, before[name] + changed, rtol=1e-3 if changed else 0, atol=0
        )
        torch.testing.assert_close(averaged[name], (tensor + before[name]) / 2)
    header = read_metadata(path)
    save_tensors({"extra": torch.ones(1)}, path, metadata=header)
    with pytest.raises(CheckpointError, match="extra"):
        load_style_generator(tmp_path, base)
    save_tensors(read_tensors(path), path, metadata=header | {"base_sha256": "0" * 64})
    with pytest.raises(CheckpointError, match="base generator of its own"):
        blend_files(["base", path], [0.5, 0.5])


def test_pickles_are_refused_by_name(style):
    (style / "generator.safetensors").rename(style / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*run anything") as caught:
        FaceStylizer.from_pretrained(style)
    assert caught.value.unexpected == ("pytorch_model.bin",)


@pytest.mark.parametrize("name", ["../encoder.safetensors", "encoder.pt", "/etc/passwd"])
def test_a_config_names_no_other_encoder_file(style, name):
    config = json.loads((style / "config.json").read_text()) | {"encoder": name}
    (style / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="encoder must be"):
        StyleConfig.from_file(style / "config.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": "4"}, "has the version '4', which is no number"),
        ({"version": None}, "has the version None"),
        ({"data": ["x"]}, "data must be an object"),
        ({"data": None}, "data must be an object"),
        ({"generator": []}, "generator must be an object"),
        ({"title": 3}, "title must be text"),
        ({"license": None}, "license must be text"),
        (None, "cannot be read as JSON"),
    ],
)
def test_a_config_of_odd_values_is_named(style, change, says):
    path = style / "config.json"
    config = json.loads(path.read_text())
    path.write_text("[" * 100_000 if change is None else json.dumps(config | change))
    with pytest.raises(CheckpointError, match=says):
        StyleConfig.from_file(find_style(style) / "config.json")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "a" * 300, "./" + "a" * 300, "./a\0b"])
def test_names_that_no_folder_can_have_are_no_styles(name):
    with pytest.raises(StyleNotFoundError, match="bundled"):
        find_style(name)


def test_a_folder_that_may_not_be_read_is_named(style, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may read everything
    with pytest.raises(CheckpointError, match="change the folder's permissions"):
        find_style(style)


def test_pushing_takes_what_a_style_is_made_of_and_nothing_else(style, tmp_path, astronaut):
    for name in ("pictures/a.png", "pictures/b.jpg", "run/coarse.pt", "run/snap.safetensors"):
        (style / name).parent.mkdir(exist_ok=True)
        astronaut.save(style / name) if name[-3:] in ("png", "jpg") else (style / name).touch()
    plan = plan_push(style, "me/mine")
    assert set(plan.files) == {
        "LICENSE.md", "README.md", "config.json", "generator.safetensors", "samples/before_after.jpg", "training.json",
    }  # fmt: skip
    assert plan.files["generator.safetensors"] > 10e6
    assert plan.left_out == sorted(
        ["pictures/a.png", "pictures/b.jpg", "run/coarse.pt", "run/snap.safetensors"]
    )
    told = plan.format()
    assert (
        "stays here: pictures/a.png" in told
        and "to be drawn  samples/before_after" in told
        and "library_name: facestyle" in told
    )
    both = plan_push(style, "me/mine", include_pictures=True)
    assert both.pictures == 2 and {"pictures/a.png", "pictures/b.jpg"} <= set(both.files)
    assert not any(name.endswith(".pt") for name in both.files)
    assert not (style / "README.md").exists(), "a plan writes nothing"
    style.rename(tmp_path / "run")
    (tmp_path / "outer").mkdir()
    (tmp_path / "run").rename(tmp_path / "outer" / "style")
    assert style_folder(tmp_path / "outer") == tmp_path / "outer" / "style"
    with pytest.raises(CheckpointError, match="holds no style"):
        style_folder(tmp_path)


@pytest.mark.parametrize("pictures", [[], ["mine.jpeg", "mine.webp", "other.bmp"]])
def test_a_plan_names_what_is_pushed(style, monkeypatch, pictures):
    for name in pictures:
        (style / "samples").mkdir(exist_ok=True)
        (style / "samples" / name).write_bytes(b"a picture")
    hub = MagicMock()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: hub)
    monkeypatch.setattr("facestyle.stylizer.FaceStylizer.from_pretrained", MagicMock())
    monkeypatch.setattr(
        "facestyle.hub.package.draw_samples", lambda _, path: write_whole(b"drawn", path)
    )
    plan = plan_push(style, "me/mine")
    push_style(style, "me/mine")
    pushed = hub.upload_folder.call_args.kwargs["allow_patterns"]
    assert list(plan.files) == pushed and all((style / name).is_file() for name in pushed)
    assert plan.card == (style / "README.md").read_text()
    assert plan.files["LICENSE.md"] == (style / "LICENSE.md").stat().st_size
    shown = re.findall(r"\]\((samples/.*)\)", plan.card)
    assert shown == [name for name in pushed if name.startswith("samples/")]
    assert len(shown) == (2 if pictures else 1)


def test_a_run_is_named_in_place_of_its_style(style, tmp_path, monkeypatch):
    run = tmp_path / "out"
    TrainingState(run, dataclasses.asdict(TrainConfig()) | {"name": "mine"})
    style.rename(run / "style")
    monkeypatch.chdir(tmp_path)
    for named in (run, run / "style", "./out", "./out/style"):
        assert find_style(named).resolve() == run / "style"
    assert FaceStylizer.from_pretrained("./out", device="cpu").config.name == "illustration"
    assert plan_push("./out", "me/mine").files == plan_push(run / "style", "me/mine").files


def test_a_run_that_has_not_finished_says_how_to_go_on(style, tmp_path):
    run = tmp_path / "out"
    again = "has not finished.*the same facestyle train command again"
    (run / "pictures").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no style"):
        find_style(run)
    (run / "pictures" / "manifest.json").write_text("{}")  # the first that a run leaves behind
    with pytest.raises(CheckpointError, match=again):
        find_style(run)
    TrainingState(run, dataclasses.asdict(TrainConfig()) | {"name": "mine"})
    style.rename(run / "style")
    (run / "style" / "config.json").unlink()  # the last that a style gets
    for attempt in (FaceStylizer.from_pretrained, lambda folder: plan_push(folder, "me/mine")):
        with pytest.raises(CheckpointError, match=again) as caught:
            attempt(run)
        assert caught.value.path == run


def test_the_licence_of_the_pictures_is_asked_for(style, capsys, monkeypatch):
    config = StyleConfig.from_file(style / "config.json")
    unstated = dataclasses.replace(config, data={"count": 3, "license": "unknown"})
    unstated.save(style / "config.json")
    with pytest.raises(ConfigError, match="--data-license"):
        plan_push(style, "me/mine")
    plan_push(style, "me/mine", data_license="CC0-1.0")
    arguments = ["push", str(style), "me/mine", "--dry-run"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(arguments) == 2
    assert "--data-license" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "CC0-1.0")
    assert main(arguments) == 0
    assert "generator.safetensors" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", MagicMock(side_effect=EOFError))
    assert main(arguments) == 2
    assert "ConfigError: the licence of the training pictures" in capsys.readouterr().err


def test_texts_that_call_the_pictures_licence_unknown_do_not_go_with_one(style):
    config = StyleConfig.from_file(style / "config.json")
    dataclasses.replace(config, data={"count": 3, "license": "unknown"}).save(style / "config.json")
    (style / "README.md").write_text(render_card(style))
    with pytest.raises(ConfigError, match=r"README\.md in .* delete them and push"):
        plan_push(style, "me/mine", data_license="CC0-1.0")
    (style / "README.md").unlink()
    assert "trained on: **CC0-1.0**" in plan_push(style, "me/mine", data_license="CC0-1.0").card


def test_a_card_that_is_no_utf_8_text_is_named(style):
    card = plan_push(style, "me/mine").card
    (style / "README.md").write_bytes(f"{card}\nGemälde\n".encode("latin-1", errors="replace"))
    with pytest.raises(ConfigError, match=r"README\.md is no UTF-8 text"):
        plan_push(style, "me/mine")


@pytest.mark.parametrize("change", ["weights", "pictures", "words"])
def test_texts_that_name_another_licence_than_the_style_does_do_not_go_with_it(style, change):
    (style / "samples").mkdir()
    complete(style, None)
    plan_push(style, "me/mine")
    old = StyleConfig.from_file(style / "config.json")
    if change == "pictures":
        new = dataclasses.replace(old, data=old.data | {"license": "CC-BY-4.0"})
    else:
        license = "MIT" if change == "weights" else "For my friends | and theirs"
        new = dataclasses.replace(old, license=license)
    new.save(style / "config.json")
    with pytest.raises(ConfigError, match=r"README\.md and LICENSE\.md in .* delete them and push"):
        plan_push(style, "me/mine")
    (style / "README.md").unlink()
    with pytest.raises(ConfigError, match=r"^LICENSE\.md in"):
        plan_push(style, "me/mine")
    (style / "LICENSE.md").write_text("My own licence: the weights in this folder are GPL-2.0.")
    card = plan_push(style, "me/mine").card
    head = card[: card.index("\n---\n") + 5]
    (style / "README.md").write_text(head + "# Mine\n\nThe weights are under another licence.\n")
    plan_push(style, "me/mine")
    (style / "LICENSE.md").unlink()
    complete(style, None)
    plan_push(style, "me/mine")
    if change != "pictures":
        other = re.sub(r"(?m)^license.*\n", "", head).replace("---", "---\nlicense: wtfpl", 1)
        (style / "README.md").write_text(other)
        with pytest.raises(ConfigError, match=r"^README\.md in"):
            plan_push(style, "me/mine")


def test_a_licence_file_of_another_style_is_written_anew_unless_somebody_wrote_in_it(
    tiny_stylizer, tmp_path
):
    folder = tmp_path / "style"
    for license in ("MIT", "CC0-1.0"):
        config = dataclasses.replace(tiny_stylizer.config, license=license)
        write_package(tiny_stylizer, folder, samples=False, config=config)
        text = (folder / "LICENSE.md").read_text()
        assert f"in this folder: **{license}**" in text
    for own in (text + "\nAsk me first.\n", "Mine."):
        (folder / "LICENSE.md").write_text(own)
        tiny_stylizer.save_pretrained(folder, samples=False)
        assert (folder / "LICENSE.md").read_text() == own


def test_licences_given_to_push_to_hub_stand_in_config_and_card(style, monkeypatch):
    config = StyleConfig.from_file(style / "config.json")
    silent = dataclasses.replace(config, license="unknown", data={"count": 3, "license": "unknown"})
    stylizer = FaceStylizer.from_pretrained(style)
    stylizer.config, stylizer.folder = silent, None
    texts = {}

    def push(folder, *_, **__):
        for name in ("config.json", "README.md", "LICENSE.md"):
            texts[name] = (Path(folder) / name).read_text()
        return "address"

    monkeypatch.setattr("facestyle.hub.push.push_style", push)
    with pytest.raises(ConfigError, match="licence of the training pictures"):
        stylizer.push_to_hub("me/mine")
    assert stylizer.push_to_hub("me/mine", license="MIT", data_license="CC0-1.0") == "address"
    assert all("CC0-1.0" in text and "MIT" in text for text in texts.values())
    assert not any("**unknown**" in text or "not stated" in text for text in texts.values())


def test_the_licence_of_the_weights_can_be_given_where_none_is_stated(style):
    plain = plan_push(style, "me/mine", license="GPL-3.0-or-later").card
    assert plain == plan_push(style, "me/mine").card, "it says so already"
    with pytest.raises(ConfigError, match=r"gpl-3\.0-or-later, and MIT was asked for.*--license"):
        plan_push(style, "me/mine", license="MIT")
    stated = StyleConfig.from_file(style / "config.json")
    dataclasses.replace(stated, license="unknown").save(style / "config.json")
    silent = plan_push(style, "me/mine").card
    assert "Weights of this style: **not stated**" in silent and "license: unknown\n" in silent
    card = plan_push(style, "me/mine", license="MIT").card
    assert "Weights of this style: **MIT**" in card and "license: mit\n" in card
    (style / "README.md").write_text(silent)
    (style / "LICENSE.md").write_text("- The weights in this folder: **unknown**.\n")
    with pytest.raises(ConfigError, match=r"README\.md and LICENSE\.md in .* delete them and push"):
        plan_push(style, "me/mine", license="MIT")
    (style / "README.md").write_text(card)
    (style / "LICENSE.md").unlink()
    plan_push(style, "me/mine", license="MIT")


@pytest.mark.parametrize("name", ["noslash", "a/b/c", "a/", ""])
def test_a_plan_refuses_what_is_no_repository(style, name):
    with pytest.raises(
        ConfigError, match="is no name of a Hub repository; it is written USER/NAME"
    ):
        plan_push(style, name)


def test_a_damaged_style_and_a_boasting_card_are_not_pushed(style):
    (style / "README.md").write_text(plan_push(style, "me/mine").card)
    plan_push(style, "me/mine")
    scores = json.loads((style / "training.json").read_text())["scores"]
    boast = (style / "README.md").read_text().replace(str(scores["kid_x1000"]), "1.0")
    boast = boast.replace(f"{scores['kid_x1000']:.1f}", "1.0")
    (style / "README.md").write_text(boast)
    with pytest.raises(ConfigError):
        plan_push(style, "me/mine")
    (style / "README.md").unlink()
    weights = style / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-99])
    with pytest.raises(CheckpointError):
        plan_push(style, "me/mine")


def test_copies_are_whole_or_not_there(style, tmp_path):
    with pytest.raises(OutputError, match="not empty"):
        copy_style(style, style, ["config.json"])
    with pytest.raises(OutputError):
        copy_style(style, tmp_path / "new", ["config.json", "absent"])
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob("*.part"))
    copy_style(style, tmp_path / "new", ["config.json", "generator.safetensors"])
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_a_copy_goes_into_an_empty_folder_here_and_leaves_the_neighbours_alone(
    style, tmp_path, monkeypatch
):
    (tmp_path / "mine.part").mkdir()
    (tmp_path / "mine.part" / "thesis.txt").write_text("the only copy")
    copy_style(style, tmp_path / "mine", ["config.json"])
    assert (tmp_path / "mine.part" / "thesis.txt").exists()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(OutputError, match="copied"):
        copy_style(style, Path("."), ["config.json", "absent"])
    copy_style(style, Path("."), ["config.json", "training.json"])
    assert sorted(os.listdir(".")) == ["config.json", "training.json"]
    with pytest.raises(OutputError, match="too long"):
        copy_style(style, Path("x" * 300), ["config.json"])


def test_a_pull_takes_no_file_but_a_styles_own_and_reads_its_encoder(style, tmp_path, monkeypatch):
    monkeypatch.setattr("facestyle.hub.download.download_style", lambda *_, **__: style)
    for name in ("run.py", "setup.pkl", "LICENSE/run.py", "samples/a.jpeg"):
        (style / name).parent.mkdir(exist_ok=True)
        (style / name).touch()
    wanted = {"config.json", "generator.safetensors", "training.json", "samples/a.jpeg"}
    folder = pull_style("me/mine", tmp_path / "out")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == wanted
    config = StyleConfig.from_file(style / "config.json")
    dataclasses.replace(config, encoder="encoder.safetensors").save(style / "config.json")
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors"):
        pull_style("me/mine", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_style_of_its_own_encoder_keeps_it(tiny_stylizer, tmp_path):
    config = dataclasses.replace(tiny_stylizer.config, license="CC0-1.0")
    write_style(tiny_stylizer.generator, config, tmp_path, tiny_stylizer.base)
    assert StyleConfig.from_file(tmp_path / "config.json").encoder == "base"
    tiny_stylizer.save_pretrained(tmp_path, include_encoder=True, samples=False)
    assert StyleConfig.from_file(tmp_path / "config.json").encoder == "encoder.safetensors"
    assert read_metadata(tmp_path / "encoder.safetensors")["format"] == "facestyle-encoder"
