"""All drawing in one thread, whichever of the server's threads asks for it; ``python -m space.one_thread`` says why.

OpenMP gives every thread that computes a pool of helpers. As soon as there are more helpers than cores, those who wait
for each other sleep where they otherwise spin, and a portrait takes a third to a half as long again, for as long as
the pools live. A server answers in many threads; so that there is one pool, the computing is handed to a thread of
its own.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from space.zero_gpu import ON_ZERO_GPU

__all__ = ["aside", "in_one_thread"]

_NAME = "drawing"
_drawing = ThreadPoolExecutor(1, thread_name_prefix=_NAME)

_T = TypeVar("_T")


def in_one_thread(function: Callable[[], _T]) -> _T:
    """What the function gives, called in the thread that draws; progress bars are shown as if it were called here."""
    if ON_ZERO_GPU or threading.current_thread().name.startswith(_NAME):
        return function()
    return _drawing.submit(contextvars.copy_context().run, function).result()


def aside(function: Callable[[], _T]) -> _T:
    """The same in a thread that ends with it, and its pool too: for what takes long, while others want to draw."""
    if ON_ZERO_GPU:
        return function()
    with ThreadPoolExecutor(1, thread_name_prefix="aside") as executor:
        return executor.submit(contextvars.copy_context().run, function).result()


def _main() -> None:
    """Print the seconds a photo takes in a process where one thread has computed, and then where two have."""
    from facestyle import FaceStylizer
    from facestyle.bench import machine, sample_photo
    from facestyle.timing import seconds_of

    stylizer = in_one_thread(lambda: FaceStylizer.from_pretrained("cartoon"))

    def seconds() -> float:
        stylizer(sample_photo())
        return round(seconds_of(lambda: stylizer(sample_photo()), stylizer.device, 9), 3)

    found = {"one_pool": in_one_thread(seconds)}
    stylizer(sample_photo())  # in the main thread, whose pool stays
    found["two_pools"] = in_one_thread(seconds)
    date = time.strftime("%Y-%m-%d")
    print(json.dumps({**found, "machine": machine(), "date": date}, indent=2))


if __name__ == "__main__":
    _main()
