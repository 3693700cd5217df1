"""A visitor's own style, trained for one step by the real command."""

import gc
import zipfile

import pytest

from facestyle import FaceStylizer
from facestyle.errors import ConfigError, DatasetError
from space.engine import Engine
from space.examples import people, references
from space.own_training import OwnTraining, TrainingError
from space.texts import say

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
    assert again.progress().stage == "run"
    assert again.progress().preview.suffix == ".png"

    style = engine.adopt("ada")
    assert engine.adopt("ada") == style
    assert engine.names("ada") == ["cartoon", "illustration", style]
    assert engine.names("grace") == ["cartoon", "illustration"]
    assert engine.address_for_people(style) == "./mine"
    with zipfile.ZipFile(training.zipped(tmp_path)) as archive:
        archive.extractall(tmp_path)
    downloaded = FaceStylizer.from_pretrained(tmp_path / "mine", device="cpu")
    assert downloaded.config.data["license"] == "CC0-1.0"
    photo = people()[0]
    mine = engine.stylize("ada", photo, style).faces[0].portrait
    assert mine.tobytes() == downloaded(photo).faces[0].portrait.tobytes()

    folder = training.run
    engine.forget("ada")
    assert engine.names("ada") == ["cartoon", "illustration"]
    assert not folder.exists() and not engine.is_own(style)


def test_other_pictures_take_the_place_of_the_last(engine, pictures, quick):
    first = engine.training("ada", pictures, "mine", "CC0-1.0", quick)
    second = engine.training("ada", pictures[:5], "mine", "CC0-1.0", quick)
    assert second is not first
    assert not first.run.parent.exists()
    assert engine.running("ada") is second and engine.running("grace") is None


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


def test_stages_have_words_in_every_language():
    for stage in ("check", "star", "pairs", "run"):
        assert say(None, f"stage_{stage}")
