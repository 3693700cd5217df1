"""What is kept between calls, and for whom."""

import threading

import pytest
from PIL import Image

from facestyle.errors import NoFaceError, StyleNotFoundError
from space.engine import Engine, Kept


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


def test_the_oldest_goes_and_a_value_is_made_once_for_all_who_wait():
    kept: Kept[int] = Kept(2)
    for number in range(3):
        kept.get(number, lambda: 0)
    assert len(kept) == 2
    assert 0 not in kept
    made = []
    gate = threading.Event()

    def make() -> int:
        gate.wait(5)
        made.append(1)
        return 7

    threads = [threading.Thread(target=kept.get, args=("slow", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
