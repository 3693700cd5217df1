"""Values kept between calls: those asked for last, for so long, and no more of them than there is room for."""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from facestyle.errors import ImageError

__all__ = ["PICTURES_S", "Kept", "PictureGoneError", "digest"]

PICTURES_S = 50 * 60
"""For how long a visitor's picture, and what was made of it, is kept at most; it is then gone within a few minutes."""

_LOOK_S = 60.0

_T = TypeVar("_T")


class PictureGoneError(ImageError):
    """A visitor's picture was deleted, as they all are within the hour."""


def digest(path: str | Path) -> str:
    """Of a picture's file, by which it is known again.

    Raises:
        PictureGoneError: it is not there any more.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except FileNotFoundError:
        raise PictureGoneError(
            "this picture was deleted, as all are within the hour; add it again"
        ) from None


@dataclass(slots=True)
class _Entry(Generic[_T]):
    """A value and what decides how long it is kept; times as the clock tells them."""

    value: _T
    file: Path | None
    made: float
    used: float


class Kept(Generic[_T]):
    """The values asked for last, within bounds; each is made once, also where several ask at a time.

    What is too old goes also when nobody calls: as long as there is anything that can grow old, a timer looks for it.
    The timer keeps neither this object nor the process alive.

    Args:
        size: how many at most.
        idle_s: for how long after a value was last asked for.
        whole_s: for how long after it was made, asked for or not.
        most_bytes: that all take together; the newest is kept in any case.
        parts: what a value takes: whatever holds memory, which several values may share, and its bytes.
        let_go: called with each value that goes.
        clock: tells the time in seconds.
        look_s: how often the timer looks.
    """

    def __init__(
        self,
        size: int | None = None,
        *,
        idle_s: float | None = None,
        whole_s: float | None = None,
        most_bytes: int | None = None,
        parts: Callable[[_T], Iterable[tuple[object, int]]] = lambda value: (),
        let_go: Callable[[_T], object] = lambda value: None,
        clock: Callable[[], float] = time.monotonic,
        look_s: float = _LOOK_S,
    ) -> None:
        self._size, self._most_bytes, self._parts = size, most_bytes, parts
        self._idle_s, self._whole_s, self._clock, self._look_s = idle_s, whole_s, clock, look_s
        self._let_go = let_go
        self._entries: OrderedDict[Hashable, _Entry[_T]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            entry = self._entries.get(key)
            return entry is not None and not self._is_old(entry)

    @property
    def bytes(self) -> int:
        """What all values take; what several share counts once."""
        with self._lock:
            return self._bytes()

    def get(self, key: Hashable, make: Callable[[], _T], *, file: Path | None = None) -> _T:
        """The value of a key, made if it is not there.

        Args:
            key: of the value.
            make: makes it.
            file: that it was made from: as soon as that is deleted, the value goes too.
        """
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            try:
                self.sweep()
                with self._lock:
                    if key in self._entries:
                        self._entries.move_to_end(key)
                        self._entries[key].used = self._clock()
                        return self._entries[key].value
                value = make()
                self.put(key, value, file=file)
                return value
            finally:
                with self._lock:
                    self._making.pop(key, None)

    def put(self, key: Hashable, value: _T, *, file: Path | None = None) -> None:
        """Keep a value, and let the oldest go where there are too many."""
        now, gone = self._clock(), []
        with self._lock:
            self._entries[key] = _Entry(value, file, now, now)
            self._entries.move_to_end(key)
            while len(self._entries) > 1 and self._is_too_much():
                gone.append(self._entries.popitem(last=False)[1])
            self._look_later()
        self._end(gone)

    def drop(self, is_old: Callable[[Any], bool]) -> None:
        """Let all go whose key is old."""
        with self._lock:
            gone = [self._entries.pop(key) for key in list(self._entries) if is_old(key)]
        self._end(gone)

    def sweep(self) -> None:
        """Let all go that is too old."""
        with self._lock:
            old = [key for key, entry in self._entries.items() if self._is_old(entry)]
            gone = [self._entries.pop(key) for key in old]
        self._end(gone)

    def _is_old(self, entry: _Entry[_T]) -> bool:
        now = self._clock()
        return (
            (self._idle_s is not None and now - entry.used >= self._idle_s)
            or (self._whole_s is not None and now - entry.made >= self._whole_s)
            or (entry.file is not None and not entry.file.exists())
        )

    def _is_too_much(self) -> bool:
        return (self._size is not None and len(self._entries) > self._size) or (
            self._most_bytes is not None and self._bytes() > self._most_bytes
        )

    def _bytes(self) -> int:
        taken = {
            id(holder): size
            for entry in self._entries.values()
            for holder, size in self._parts(entry.value)
        }
        return sum(taken.values())

    def _end(self, gone: Iterable[_Entry[_T]]) -> None:
        for entry in gone:
            self._let_go(entry.value)

    def _look_later(self) -> None:
        """Set the timer, if there is anything to look for; the lock is held."""
        if self._timer is not None or not self._entries:
            return
        if self._idle_s is None and self._whole_s is None:
            return
        self._timer = threading.Timer(self._look_s, _look, [weakref.ref(self)])
        self._timer.daemon = True
        self._timer.start()


def _look(ref: weakref.ref[Kept[Any]]) -> None:
    kept = ref()
    if kept is None:
        return
    try:
        kept.sweep()
    finally:
        with kept._lock:
            kept._timer = None
            kept._look_later()
