"""Where the app computes: in one thread for all that draws, and aside for what takes long."""

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from space.engine import Engine
from space.one_thread import aside, in_one_thread


def here() -> str:
    return threading.current_thread().name


def test_whoever_asks_one_thread_draws():
    with ThreadPoolExecutor(4) as visitors:
        names = set(visitors.map(lambda _: in_one_thread(here), range(16)))
    assert len(names) == 1 and here() not in names
    from_there = in_one_thread(lambda: in_one_thread(here))
    assert from_there in names


def test_a_thread_aside_ends_with_its_work():
    before = threading.active_count()
    first, second = aside(here), in_one_thread(here)
    assert len({here(), first, second}) == 3
    assert threading.active_count() <= before + 1  # the one that draws, if it was not there yet
    assert in_one_thread(lambda: aside(here)) != second


def test_values_errors_and_progress_come_through():
    bar = contextvars.ContextVar("bar")
    bar.set("the visitor's")
    for way in (in_one_thread, aside):
        assert way(lambda: bar.get()) == "the visitor's"
        with pytest.raises(ZeroDivisionError):
            way(lambda: 1 / 0)


def test_the_engine_draws_in_it_and_studies_aside(stylizers, astronaut, tmp_path, monkeypatch):
    engine = Engine(list(stylizers), stylizers.__getitem__)
    astronaut.save(tmp_path / "me.png")
    names = {}
    style = stylizers["cartoon"]
    for method in ("prepare", "variations", "encode_reference"):
        usual = getattr(style, method)

        def noted(*args, method=method, usual=usual, **options):
            names[method] = here()
            return usual(*args, **options)

        monkeypatch.setattr(style, method, noted)
    engine.variations("ada", tmp_path / "me.png", "cartoon", 1)
    engine.code("ada", tmp_path / "me.png", "cartoon", on_step=lambda step: False)
    assert names["prepare"] == names["variations"] == in_one_thread(here)
    assert names["encode_reference"] not in (names["prepare"], here())
