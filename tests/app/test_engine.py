"""What is kept between calls, and for whom."""

import gc
import pickle
import weakref
from types import SimpleNamespace

import pytest
from PIL import Image

from facestyle import FaceStylizer
from facestyle.errors import NoFaceError, StyleNotFoundError
from space import engine as engine_module
from space.engine import Engine
from space.kept import PICTURES_S, PictureGoneError
from space.own_training import TrainingError
from space.zero_gpu import Failure


@pytest.fixture
def photo(astronaut, tmp_path):
    path = tmp_path / "me.png"
    astronaut.save(path)
    return path


def test_a_photo_is_encoded_once_and_drawn_as_the_library_would(stylizers, photo, monkeypatch):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    detector = stylizers["cartoon"].detector
    calls = []
    detect = detector.detect
    monkeypatch.setattr(detector, "detect", lambda image: calls.append(1) or detect(image))
    first = engine.stylize("ada", photo, "cartoon")
    second = engine.stylize("ada", photo, "cartoon", strength=0.5)
    third = engine.stylize("ada", photo, "illustration")
    assert len(calls) == 1
    direct = stylizers["cartoon"](photo, strength=0.5)
    assert second.image.tobytes() == direct.image.tobytes()
    assert second.settings == direct.settings
    assert len({one.image.tobytes() for one in (first, second, third)}) == 3


def test_a_crowd_is_not_drawn_closer_unasked(stylizers, photo, astronaut, tmp_path):
    engine = Engine(list(stylizers), stylizers.__getitem__, likeness=3)
    assert engine.closer("ada", photo, "cartoon") == {"refine": 3}
    crowd = Image.new("RGB", (5 * 512, 512), "white")
    for i in range(5):
        crowd.paste(astronaut, (i * 512, 0))
    crowd.save(tmp_path / "crowd.png")
    assert len(engine.prepare("ada", tmp_path / "crowd.png", "cartoon").codes) == 5
    assert engine.closer("ada", tmp_path / "crowd.png", "cartoon") == {}
    without = Engine(list(stylizers), stylizers.__getitem__, likeness=0)
    assert without.closer("ada", photo, "cartoon") == {}


def test_nothing_of_one_visitor_serves_another(stylizers, photo):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    mine = engine.prepare("ada", photo, "cartoon")
    assert engine.prepare("ada", photo, "cartoon") is mine
    assert engine.prepare("grace", photo, "cartoon") is not mine
    engine.forget("ada")
    assert engine.prepare("ada", photo, "cartoon") is not mine


def test_what_is_made_for_a_visitor_who_leaves_meanwhile_is_not_kept(stylizers, photo, monkeypatch):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    compute = engine._compute

    def leaving(*args, **options):
        done = compute(*args, **options)
        engine.forget("ada")
        return done

    monkeypatch.setattr(engine, "_compute", leaving)
    engine.prepare("ada", photo, "cartoon", 1)
    engine.code("ada", photo, "cartoon", on_step=lambda step: None)
    assert (len(engine._prepared), len(engine._codes)) == (0, 0)
    monkeypatch.undo()
    mine = engine.prepare("ada", photo, "cartoon")  # back again
    assert engine.prepare("ada", photo, "cartoon") is mine


def test_photos_and_codes_are_kept_no_longer_than_their_files(stylizers, photo):
    now = [0.0]
    engine = Engine(list(stylizers), stylizers.__getitem__, clock=lambda: now[0])

    def draw(visitor):
        engine.stylize(visitor, photo, "cartoon", refine=1)
        engine.code(visitor, photo, "cartoon", on_step=lambda step: None)

    def held():
        return len(engine._prepared), len(engine._codes)

    draw("an-event-of-curl")  # which never says that it leaves
    picture = weakref.ref(engine.prepare("an-event-of-curl", photo, "cartoon").photo)
    assert held() == (2, 1)
    for minutes in (20, 40, 49):  # in use all the time
        now[0] = minutes * 60.0
        draw("an-event-of-curl")
    assert held() == (1, 1)  # what it was refined from was not asked for again
    now[0] = float(PICTURES_S)
    for kept in (engine._prepared, engine._codes):
        kept.sweep()  # as the timer does
    assert held() == (0, 0)
    gc.collect()
    assert picture() is None
    assert PICTURES_S < 3600

    draw("ada")
    now[0] += 31 * 60.0
    for kept in (engine._prepared, engine._codes):
        kept.sweep()
    assert held() == (0, 0)

    draw("ada")
    photo.unlink()
    assert not engine.has_faces("ada", photo, "cartoon")
    with pytest.raises(PictureGoneError):
        draw("ada")
    for kept in (engine._prepared, engine._codes):
        kept.sweep()
    assert held() == (0, 0)


def test_a_refined_photo_takes_no_second_copy_of_its_pixels(stylizers, photo):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    first = engine.prepare("ada", photo, "cartoon")
    alone = engine._prepared.bytes
    pixels = 4 * first.photo.width * first.photo.height
    assert alone > pixels
    engine.prepare("ada", photo, "cartoon", 1)
    assert alone < engine._prepared.bytes < alone + pixels / 10


def test_a_photo_may_be_cut_out_otherwise(stylizers, photo, astronaut, tmp_path):
    engine = Engine(list(stylizers), stylizers.__getitem__, likeness=1)
    style = stylizers["cartoon"]
    astronaut.crop((0, 350, 150, 500)).save(tmp_path / "no_face.png")
    ways = [(tmp_path / "no_face.png", {"on_no_face": "center"}), (photo, {"aligned": True})]
    for path, cut in ways:
        assert not engine.has_faces("ada", path, "cartoon", **cut)
        drawn = engine.stylize(
            "ada", path, "cartoon", seed=3, **cut, **engine.closer("ada", path, "cartoon", **cut)
        )
        direct = style(path, seed=3, refine=1, **cut)
        assert drawn.image.tobytes() == direct.image.tobytes()
        assert drawn.settings == direct.settings
        assert engine.has_faces("ada", path, "cartoon", **cut)
        one = engine.variations("ada", path, "cartoon", 1, **cut)[0]
        same = style.variations(path, 1, **cut)[0]
        assert one.faces[0].portrait.tobytes() == same.faces[0].portrait.tobytes()
    found = engine.stylize("ada", photo, "cartoon")
    assert found.image.tobytes() == style(photo).image.tobytes()


def test_errors_are_facestyles_own(stylizers, tmp_path, astronaut):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    astronaut.crop((0, 350, 150, 500)).save(tmp_path / "no_face.png")
    with pytest.raises(NoFaceError):
        engine.prepare("ada", tmp_path / "no_face.png", "cartoon")
    with pytest.raises(StyleNotFoundError, match="bundled"):
        Engine().stylizer("no-such-style")


class _Searching:
    """A stylizer whose search takes ten steps."""

    def encode_reference(self, image, *, aligned, on_step):
        for number in range(1, 11):
            if on_step(number) is False:
                break
        return number


def test_a_search_cut_short_is_not_kept(photo):
    engine = Engine(["slow"], lambda name: _Searching())
    assert engine.code("ada", photo, "slow", on_step=lambda number: number < 3) == 3
    assert not engine.has_code("ada", photo, "slow", aligned=False)
    assert engine.code("ada", photo, "slow") == 10
    assert engine.has_code("ada", photo, "slow", aligned=False)
    assert not engine.has_code("grace", photo, "slow", aligned=False)


@pytest.fixture
def borrowed(monkeypatch):
    """Whether a GPU is held; what is to run on it gets there, and back, as bytes."""
    held = SimpleNamespace(now=False)
    run = engine_module._borrowing

    def on_gpu(*args, **options):
        sent = pickle.loads(pickle.dumps((args, options)))
        held.now = True
        try:
            return pickle.loads(pickle.dumps(run(*sent[0], **sent[1])))
        finally:
            held.now = False

    monkeypatch.setattr(engine_module, "_borrowing", on_gpu)
    return held


def test_all_that_computes_borrows_the_gpu(stylizers, photo, tmp_path, monkeypatch, borrowed):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    seen = {}

    def compare(source, folder, **options):
        seen["compare"] = borrowed.now, source, options
        return {"methods": []}

    monkeypatch.setattr(engine_module, "compare_photo", compare)
    assert engine.compare("ada", photo, "cartoon", tmp_path, runs="runs") == {"methods": []}
    was_held, source, options = seen["compare"]
    assert was_held and source == photo
    assert options["base"] is stylizers["cartoon"].base
    assert (options["style"], options["runs"], options["aligned"]) == ("cartoon", "runs", False)
    engine.compare("ada", photo, "cartoon", tmp_path, aligned=True)
    was_held, source, options = seen["compare"]
    assert was_held and options["aligned"] and source.size == (1024, 1024)

    style = stylizers["cartoon"]

    def push(self, repo, **how):
        seen["push"] = borrowed.now, repo, how
        return "there"

    monkeypatch.setattr(FaceStylizer, "push_to_hub", push)
    monkeypatch.setattr(FaceStylizer, "from_pretrained", staticmethod(lambda name, **_: style))
    engine._trainings["ada"] = finished(tmp_path / "run")
    assert engine.push("ada", "ada/mine", token="hf", private=True) == "there"
    assert seen["push"] == (True, "ada/mine", {"token": "hf", "private": True})
    assert not borrowed.now


def test_advice_comes_back_from_the_process_with_the_gpu(stylizers, tmp_path, borrowed):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "grey.png")
    with pytest.raises(NoFaceError, match="no face found") as error:
        engine.prepare("ada", tmp_path / "grey.png", "cartoon")
    assert error.value.image_size == (300, 200)
    assert error.value.path == tmp_path / "grey.png"
    plain = pickle.loads(pickle.dumps(Failure(TrainingError("why"))))
    assert isinstance(plain.error, TrainingError) and str(plain.error) == "why"


def finished(folder, key="mine"):
    """A training that has left a style."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return SimpleNamespace(
        key=key, name="mine", is_running=False, check_done=lambda: folder, close=lambda: None
    )


def test_a_style_in_use_outlives_its_training_and_goes_with_its_visitor(stylizers, tmp_path):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    with pytest.raises(TrainingError, match="train it again"):
        engine.adopt("ada")
    engine._trainings["ada"] = finished(tmp_path / "first")
    first = engine.adopt("ada")
    assert engine.adopt("ada") == first
    engine._trainings["ada"] = finished(tmp_path / "second", key="other")
    (tmp_path / "first" / "config.json").unlink()
    second = engine.adopt("ada")
    assert engine.names("ada") == [*stylizers, first, second]
    folders = [engine._own[name].folder for name in (first, second)]
    assert all((folder / "config.json").is_file() for folder in folders)
    engine.forget("ada")
    assert not any(folder.exists() for folder in folders)
    assert engine.names("ada") == list(stylizers)
