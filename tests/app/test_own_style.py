"""A visitor's own style, trained for one step by the real command."""

import dataclasses
import gc
import json
import shutil
import subprocess
import zipfile
from types import SimpleNamespace

import pytest

from facestyle import FaceStylizer
from facestyle.errors import ConfigError, DatasetError
from facestyle.training.pipeline import PRESETS
from space import own_training
from space.app import build_app
from space.engine import Engine
from space.examples import people, references
from space.kept import PictureGoneError
from space.own_training import OwnTraining, Progress, TrainingError
from space.texts import LANGUAGES, say

SOON_S = 240


@pytest.fixture(scope="module")
def pictures():
    return [path for style in ("cartoon", "anime") for path in references(style)]


@pytest.fixture
def engine(stylizers):
    made = Engine(list(stylizers), stylizers.__getitem__)
    yield made
    for visitor in ("ada", "grace"):
        made.forget(visitor)


def test_a_stopped_training_goes_on_and_its_style_is_the_visitors_alone(
    engine, pictures, quick, tmp_path
):
    training = engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    training.start()
    training.stop()
    assert training.is_stopped and not training.is_running and training.style is None
    with pytest.raises(TrainingError, match="go on where it was"):
        engine.adopt("ada")
    again = engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    assert again is training
    again.start()
    assert again.wait(SOON_S)
    progress = again.progress()
    assert (progress.stage, progress.number, progress.stages) == ("run", 2, 2)  # level 1: no G*
    assert again.progress().preview.suffix == ".png"

    style = engine.adopt("ada")
    assert engine.adopt("ada") == style
    assert engine.names("ada") == ["cartoon", "illustration", style]
    assert engine.names("grace") == ["cartoon", "illustration"]
    assert engine.address_for_people(style) == "./mine"
    zipped = training.zipped(tmp_path)
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path)
    downloaded = FaceStylizer.from_pretrained(tmp_path / "mine", device="cpu")
    assert downloaded.config.data["license"] == "CC0-1.0"
    photo = people()[0]
    mine = engine.stylize("ada", photo, style).faces[0].portrait
    assert mine.tobytes() == downloaded(photo).faces[0].portrait.tobytes()

    folder = training.run
    engine.forget("ada")
    assert engine.names("ada") == ["cartoon", "illustration"]
    assert not folder.exists() and not engine.is_own(style) and not zipped.exists()


def test_other_pictures_take_the_place_of_the_last(engine, pictures, quick):
    first = engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    second = engine.training("ada", pictures[:5], "mine", "CC0-1.0", quick)
    assert second is not first
    assert not first.run.parent.exists()
    assert engine.running("ada") is second and engine.running("grace") is None


def test_who_leaves_while_the_pictures_are_copied_has_no_training_and_may_come_back(
    engine, pictures, quick, monkeypatch
):
    folders = []

    def slowly(files, folder):
        folders.append(folder.parent)
        engine.forget("ada")
        return gathered(files, folder)

    gathered = own_training._gathered
    monkeypatch.setattr(own_training, "_gathered", slowly)
    with pytest.raises(TrainingError, match="page was left"):
        engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    assert engine.running("ada") is None and not folders[0].exists()
    monkeypatch.undo()
    training = engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    engine.forget("ada")
    with pytest.raises(TrainingError, match="given up"):
        training.start()
    assert not training.is_running
    assert engine.training("ada", pictures, "mine", "CC0-1.0", quick) is engine.running("ada")


def test_pictures_are_looked_at_also_out_of_a_zip(pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in pictures[:3]:
            archive.write(path, path.name)
    (tmp_path / "notes.jpg").write_text("no picture")
    training = OwnTraining(
        [tmp_path / "set.zip", *pictures[3:], tmp_path / "notes.jpg"], "mine", "CC0-1.0"
    )
    report, sheet = training.look()
    assert (len(report.used), len(report.pictures)) == (6, 7)
    assert sheet.width > sheet.height > 100
    training.close()


def test_a_training_ends_with_the_one_who_holds_it(pictures, quick):
    training = OwnTraining(pictures, "mine", "CC0-1.0", quick)
    training.start()
    process, folder = training._process, training.run.parent
    del training
    gc.collect()
    assert process.wait(30) != 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "data_license", "advice"),
    [
        ("My Style", "CC0-1.0", "lower case"),
        ("", "CC0-1.0", "lower case"),
        ("mine", " ", "licence"),
    ],
)
def test_name_and_licence_are_asked_for(pictures, name, data_license, advice):
    training = OwnTraining(pictures, name, data_license)
    with pytest.raises(ConfigError, match=advice):
        training.start()
    training.close()


def test_what_the_command_complains_of_is_told(pictures, quick):
    with pytest.raises(ConfigError, match="pictures of the style"):
        OwnTraining([], "mine", "CC0-1.0")
    training = OwnTraining(pictures[:2], "mine", "CC0-1.0", quick)
    with pytest.raises(DatasetError, match="needs 5 or more"):
        training.look()
    training.start()
    assert training.wait(SOON_S)
    with pytest.raises(TrainingError, match=r"^only 2 of 2 pictures .* needs 5 or more"):
        training.check_done()
    training.close()


@pytest.mark.parametrize(
    ("preset", "stages"),
    [
        ("default", ["star", "pairs", "run"]),
        ("patches", ["run"]),
        ("portrait", ["run", "hair", "likeness"]),
    ],
)
def test_the_stages_of_a_preset_are_counted(preset, stages, pictures):
    training = OwnTraining(pictures[:1], "mine", "CC0-1.0", own_training.PRESETS[preset])
    assert training.progress() == Progress("check")
    training.run.mkdir()
    asked = dataclasses.asdict(PRESETS[preset])
    (training.run / "config.json").write_text(json.dumps(asked))
    for number, stage in enumerate(stages, 1):
        (training.run / stage).mkdir()
        assert training.progress() == Progress(stage, number=number, stages=len(stages))
    training.close()


def test_stages_have_words_in_every_language():
    for stage in ("check", "star", "pairs", "run", "hair", "likeness"):
        assert say(None, f"stage_{stage}")


@pytest.fixture
def tab(engine, quick):
    """What the tab's buttons call, by name, and a request for each visitor."""
    demo = build_app(engine, {"fast": quick})
    calls = {f.name: f.fn for f in demo.fns.values()}  # of two by one name this tab's is the last
    yield lambda name, who, *given, headers=(): calls[name](
        *given, SimpleNamespace(session_hash=who, headers=dict(headers))
    )
    del demo
    gc.collect()  # as in test_space.py


def finish(training):
    """As if it had been trained."""
    style = training.run / "style"
    style.mkdir(parents=True)
    for name in ("config.json", "training.json"):
        (style / name).write_text("{}")
    return style


def test_a_look_at_other_pictures_leaves_the_finished_style(engine, tab, pictures, quick):
    training = engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    finish(training)
    message, _, sheet = tab("look_at", "ada", pictures[:5], "other", "", "fast")
    assert not message["visible"] and sheet["visible"]
    assert engine.running("ada") is training
    assert engine.adopt("ada").startswith("mine.")


@pytest.mark.parametrize(("name", "data_license"), [("No Name", "CC0-1.0"), ("other", " ")])
def test_a_training_that_cannot_begin_takes_no_ones_place(
    engine, tab, pictures, quick, name, data_license
):
    training = engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    style = finish(training)
    *_, (message, status, _, done, _) = tab("learn", "ada", pictures, name, data_license, "fast")
    assert message["visible"] and not status["visible"]
    assert "visible" not in done  # the buttons of the finished one stay
    assert engine.running("ada") is training and style.is_dir()


def test_a_training_that_was_asked_for_by_a_page_left_since_is_not_made(
    engine, tab, pictures, quick
):
    asked = tab("learn", "ada", pictures, "mine", "CC0-1.0", "fast")
    next(asked)
    engine.forget("ada")
    assert list(asked) == []
    assert engine.running("ada") is None


def test_a_style_that_is_gone_is_told_of(engine, tab, pictures, quick):
    message, *rest = tab("take_up", "ada")
    assert message["visible"] and "train it again" in message["value"]
    assert all("value" not in one for one in rest)
    message, _ = tab("give", "ada", "ada/mine", "hf", True)
    assert "train it again" in message["value"]
    engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    message, *_ = tab("take_up", "ada")
    assert "ended early" in message["value"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_missing_is_asked_for_in_the_visitors_language(tab, pictures, language):
    texts, in_it = LANGUAGES[language], {"accept-language": language}
    message, *_ = tab("look_at", "ada", None, "mine", "CC0-1.0", "fast", headers=in_it)
    assert message["value"] == texts["NoPicturesError"]
    *_, (message, *_) = tab("learn", "ada", pictures, "mine", " ", "fast", headers=in_it)
    assert message["value"] == texts["NoLicenseError"]
    message, _ = tab("give", "ada", "ada/mine", " ", True, headers=in_it)
    assert message["value"] == texts["NoTokenError"]


def test_uploads_that_were_deleted_are_asked_for_again(engine, tab, pictures, quick, tmp_path):
    files = [shutil.copy(path, tmp_path / f"{i}.jpg") for i, path in enumerate(pictures)]
    training = engine.training("ada", files, "mine", "CC0-1.0", quick)
    (tmp_path / "0.jpg").unlink()
    with pytest.raises(PictureGoneError):
        engine.training("ada", files, "mine", "CC0-1.0", quick)
    *_, (message, *_) = tab("learn", "ada", files, "mine", "CC0-1.0", "fast")
    assert "Add it again" in message["value"]
    assert engine.training("ada", pictures, "mine", "CC0-1.0", quick) is training


def test_stop_is_heard_while_a_training_waits_and_when_none_does(
    engine, tab, pictures, quick, monkeypatch
):
    started = []

    def start(self):
        started.append(self)
        self._process = subprocess.Popen(["sleep", "60"], start_new_session=True)

    monkeypatch.setattr(OwnTraining, "start", start)
    asked = (pictures, "mine", "CC0-1.0", "fast")
    assert all("value" not in one for one in tab("end", "ada"))
    _, status = tab("ask", "ada")
    assert "Looking at the pictures" in status["value"]
    trained = tab("learn", "ada", *asked)
    next(trained), next(trained)
    assert len(started) == 1

    _, status = tab("ask", "grace")
    assert say(None, "own_waiting").split(".")[0].replace("'", "&#x27;") in status["value"]
    message, status = tab("end", "grace")
    assert "Stopped" in message["value"] and not status["visible"]
    *_, (message, *_) = tab("learn", "grace", *asked)  # had it come to its turn nonetheless
    assert "Stopped" in message["value"] and len(started) == 1

    message, _ = tab("end", "ada")
    assert "Stopped" in message["value"] and not engine.is_training()
    *_, (message, *_) = trained
    assert "Stopped" in message["value"]
    tab("ask", "grace")
    again = tab("learn", "grace", *asked)
    next(again), next(again)
    assert len(started) == 2
    tab("end", "grace")
    again.close()
