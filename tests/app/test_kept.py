"""How long values are kept, and how many."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from facestyle.errors import ImageError
from space.kept import PICTURES_S, Kept, PictureGoneError, digest

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 20.0


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Value:
    """Something that tells when it is gone."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait_for(fact) -> None:
    ends = time.monotonic() + SOON_S
    while not fact() and time.monotonic() < ends:
        time.sleep(0.01)
    assert fact()


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


def test_nothing_of_what_a_value_was_asked_for_by_outlives_it():
    kept: Kept[int] = Kept()
    key = Value()
    ref = weakref.ref(key)
    for _ in range(2):
        assert kept.get(key, lambda: 7) == 7
    kept.drop(lambda one: one is ref())
    del key
    gc.collect()
    assert ref() is None


def test_a_value_that_nobody_asks_for_goes_and_one_in_use_goes_in_the_end(clock):
    kept: Kept[int] = Kept(idle_s=30, whole_s=50, clock=clock)
    kept.put("idle", 1)
    kept.put("used", 2)
    for clock.now in (20.0, 40.0):
        assert kept.get("used", lambda: 0) == 2
    assert "idle" not in kept
    clock.now = 49.0
    assert "used" in kept
    clock.now = 50.0
    assert "used" not in kept
    assert kept.get("used", lambda: 3) == 3


def test_what_is_too_old_goes_though_nobody_calls(clock):
    kept: Kept[Value] = Kept(whole_s=PICTURES_S, clock=clock, look_s=0.02)
    kept.put("photo", Value())
    gone = weakref.ref(kept._entries["photo"].value)
    time.sleep(0.1)
    assert gone() is not None
    clock.now = PICTURES_S
    wait_for(lambda: gone() is None)
    wait_for(lambda: kept._timer is None)  # nothing is left to look for
    kept.put("next", Value())
    gone = weakref.ref(kept._entries["next"].value)
    clock.now *= 2
    wait_for(lambda: gone() is None)


def test_a_value_goes_with_the_file_that_it_was_made_from(tmp_path):
    (tmp_path / "me.png").write_bytes(b"me")
    kept: Kept[int] = Kept(whole_s=PICTURES_S, look_s=0.02)
    kept.get("me", lambda: 1, file=tmp_path / "me.png")
    kept.sweep()
    assert len(kept) == 1
    (tmp_path / "me.png").unlink()
    assert "me" not in kept
    wait_for(lambda: len(kept) == 0)
    with pytest.raises(PictureGoneError, match="add it again") as error:
        digest(tmp_path / "me.png")
    assert isinstance(error.value, ImageError)


def test_bytes_are_bounded_and_counted_once_where_values_share_them():
    photo, other = bytearray(60), bytearray(60)
    kept: Kept[list[bytearray]] = Kept(
        most_bytes=100, parts=lambda value: [(one, len(one)) for one in value]
    )
    kept.put("first", [photo])
    kept.put("refined", [photo, bytearray(20)])
    assert (len(kept), kept.bytes) == (2, 80)
    kept.put("next", [other])
    assert "first" not in kept and "refined" not in kept
    assert kept.bytes == 60
    kept.put("huge", [bytearray(1000)])
    assert "huge" in kept and len(kept) == 1  # it is in use


def test_those_that_go_are_let_go_once_and_not_when_they_are_kept_anew(clock):
    ended = []
    kept: Kept[str] = Kept(2, whole_s=10, clock=clock, let_go=ended.append)
    kept.put(1, "a")
    kept.put(1, "a")
    assert ended == []
    kept.put(2, "b")
    kept.put(3, "c")
    assert ended == ["a"]
    kept.drop(lambda key: key == 2)
    clock.now = 10.0
    kept.sweep()
    assert ended == ["a", "b", "c"]


def test_the_timer_keeps_neither_the_values_nor_the_process_alive():
    kept: Kept[Value] = Kept(idle_s=1000)
    kept.put("photo", Value())
    assert kept._timer is not None and kept._timer.daemon
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is None
    code = "from space.kept import Kept; kept = Kept(idle_s=1000); kept.put(1, 1)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=True)
