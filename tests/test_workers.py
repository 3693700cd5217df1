"""Workers of a CPU: really at the same time, in order, and leaving things as they were."""

import sys
import threading

import pytest
import torch

from facestyle.errors import ConfigError
from facestyle.workers import side_by_side

pytestmark = pytest.mark.usefixtures("two_threads")
CPU = torch.device("cpu")


def test_two_items_are_worked_on_at_the_same_time_by_a_thread_each():
    meet = threading.Barrier(2, timeout=30)  # one after the other they would never meet

    def work(item: int) -> tuple[int, int]:
        meet.wait()
        return item, torch.get_num_threads()

    assert side_by_side(CPU, work, [3, 1, 4, 1]) == [(3, 1), (1, 1), (4, 1), (1, 1)]


@pytest.mark.parametrize("fails", [False, True])
def test_threads_and_the_switch_interval_are_put_back(fails):
    interval = sys.getswitchinterval()

    def work(item: int) -> int:
        if fails and item == 2:
            raise ConfigError("the third")
        return item

    if fails:
        with pytest.raises(ConfigError, match="the third"):
            side_by_side(CPU, work, range(4))
    else:
        side_by_side(CPU, work, range(4))
    assert torch.get_num_threads() == 2
    assert sys.getswitchinterval() == interval


def test_a_worker_that_comes_again_does_its_items_itself():
    def work(item: int) -> list[int]:
        return side_by_side(CPU, lambda _: threading.get_ident(), range(item))

    for item, seen in zip((3, 5), side_by_side(CPU, work, [3, 5]), strict=True):
        assert len(seen) == item
        assert len(set(seen)) == 1

    def work_with_two_threads(item: int) -> list[int]:
        torch.set_num_threads(2)
        return work(item)

    assert [len(set(seen)) for seen in side_by_side(CPU, work_with_two_threads, [3, 5])] == [1, 1]


def test_a_thread_that_meets_torch_meanwhile_has_all_threads():
    seen = []

    def work(_: int) -> None:
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()

    side_by_side(CPU, work, range(4))
    assert seen == [2] * 4


def test_one_thread_asked_for_is_kept():
    torch.set_num_threads(1)
    here = threading.get_ident()
    assert side_by_side(CPU, lambda _: threading.get_ident(), range(3)) == [here] * 3
    assert torch.get_num_threads() == 1


def test_calls_of_several_threads_that_overlap_leave_things_as_they_were():
    interval = sys.getswitchinterval()
    late, first_is_over = threading.Event(), threading.Event()
    inside = []

    def second(_: int) -> None:
        late.set()
        assert first_is_over.wait(30)
        inside.append(sys.getswitchinterval())

    other = threading.Thread(target=side_by_side, args=(CPU, second, range(2)))

    def first(item: int) -> None:
        if item == 0:
            other.start()
        assert late.wait(30)

    side_by_side(CPU, first, range(2))
    first_is_over.set()
    other.join()
    assert max(inside) < interval == sys.getswitchinterval()
    assert torch.get_num_threads() == 2


def test_a_worker_that_cannot_be_started_is_an_error_and_no_wait(monkeypatch):
    start, started = threading.Thread.start, []

    def full(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", full)
    with pytest.raises(RuntimeError, match="can't start"):
        side_by_side(CPU, str, range(4))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("device", "items"), [("cpu", [1]), ("cuda", [1, 2]), ("cpu", [])])
def test_where_workers_would_not_help_there_are_none(device, items):
    here = threading.get_ident()
    assert side_by_side(torch.device(device), lambda _: threading.get_ident(), items) == [
        here for _ in items
    ]
