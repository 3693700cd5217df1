"""What the demo computes, all of it by the public API of facestyle; what took long is kept, within bounds.

Convention: ``visitor`` is a browser session; nothing of one visitor is ever handed to another.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from facestyle import (
    FaceStylizer,
    PreparedPhoto,
    ReferenceCode,
    StylizeResult,
    Variations,
    list_styles,
)
from facestyle.inversion import QUICK_STEPS
from facestyle.styles import StyleConfig, bundled_style
from space.examples import example_code, references
from space.one_thread import aside, in_one_thread
from space.own_training import OwnTraining
from space.zero_gpu import ON_ZERO_GPU, borrow_gpu

__all__ = ["Engine", "Kept"]

_STYLES_KEPT = 6
_PHOTOS_KEPT = 48
_CODES_KEPT = 256
_CLOSER_FACES = 4
_LONGEST_S = 120

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """The values asked for last, up to a number; each is made once, also where several ask at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, _T] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The value of a key, made if it is not there."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key]
            try:
                value = make()
                self.put(key, value)
                return value
            finally:
                with self._lock:
                    self._making.pop(key, None)

    def put(self, key: Hashable, value: _T) -> None:
        """Keep a value, and let the oldest go where there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)

    def drop(self, is_old: Callable[[Any], bool]) -> None:
        """Let all go whose key is old."""
        with self._lock:
            for key in [key for key in self._values if is_old(key)]:
                del self._values[key]


class Engine:
    """The stylizers, and what they need not find out twice.

    Args:
        styles: names that visitors may ask for; the bundled ones when None.
        load: makes the stylizer of a name; ``FaceStylizer.from_pretrained`` when None.
        likeness: steps of ``refine`` on every photo, after a first picture without; 0 leaves that as it is.
    """

    def __init__(
        self,
        styles: Sequence[str] | None = None,
        load: Callable[[str], FaceStylizer] | None = None,
        *,
        likeness: int = QUICK_STEPS,
    ) -> None:
        self.styles = list(list_styles() if styles is None else styles)
        self.likeness = likeness
        self._load = load
        self._stylizers: Kept[FaceStylizer] = Kept(_STYLES_KEPT)
        self._prepared: Kept[PreparedPhoto] = Kept(_PHOTOS_KEPT)
        self._codes: Kept[ReferenceCode] = Kept(_CODES_KEPT)
        self._own: dict[str, tuple[str, Path]] = {}
        self._trainings: dict[str, OwnTraining] = {}
        self._examples = {
            (style, _digest(path)): path for style in self.styles for path in references(style)
        }
        _ENGINES[id(self)] = self

    def closer(self, visitor: str, photo: str | Path, style: str) -> dict[str, int]:
        """The option with which every tab draws a photo, see ``likeness``; none for a crowd, which would take long.

        Raises:
            ImageError: the photo cannot be used.
        """
        count = len(self.prepare(visitor, photo, style).codes)
        return {"refine": self.likeness} if self.likeness and count <= _CLOSER_FACES else {}

    def stylizer(self, style: str) -> FaceStylizer:
        """The stylizer of a style, loaded when it is first asked for.

        Raises:
            StyleNotFoundError: there is none of that name here.
        """
        if self.is_own(style):
            return self._stylizers.get(
                style, lambda: FaceStylizer.from_pretrained(self.address(style))
            )
        if style not in self.styles:
            bundled_style(style)  # names those that there are
        return self._stylizers.get(
            style, lambda: (self._load or FaceStylizer.from_pretrained)(style)
        )

    def config(self, style: str) -> StyleConfig:
        """What is known of a style; it need not be loaded for that."""
        if self.is_own(style):
            return StyleConfig.from_file(Path(self.address(style)) / "config.json")
        if self._load is not None:
            return self.stylizer(style).config
        return StyleConfig.from_file(bundled_style(style) / "config.json")

    def names(self, visitor: str) -> list[str]:
        """Styles that a visitor may choose from: those of the demo, then the visitor's own."""
        own = [name for name, (whose, _) in self._own.items() if whose == visitor]
        return [*self.styles, *own]

    def is_own(self, style: str) -> bool:
        """Whether a visitor trained it."""
        return style in self._own

    def address(self, style: str) -> str:
        """What ``FaceStylizer.from_pretrained`` takes for a style: its name, or the folder of a visitor's own."""
        return str(self._own[style][1]) if self.is_own(style) else style

    def address_for_people(self, style: str) -> str:
        """The same where the visitor works: their own style lies in the folder that they downloaded."""
        return f"./{self.config(style).name}" if self.is_own(style) else style

    def training(
        self, visitor: str, files: Sequence[str | Path], name: str, data_license: str,
        arguments: Sequence[str] = (),
    ) -> OwnTraining:  # fmt: skip
        """The visitor's training of these pictures, begun before or not; one of other pictures makes way.

        Raises:
            ConfigError: there are no pictures.
        """
        known = self._trainings.get(visitor)
        key = OwnTraining.key_of(files, name, data_license, arguments)
        if known is not None and known.key == key:
            return known
        made = OwnTraining(files, name, data_license, arguments)
        self._forget_own(visitor)
        self._trainings[visitor] = made
        return made

    def running(self, visitor: str) -> OwnTraining | None:
        """The training a visitor asked for last."""
        return self._trainings.get(visitor)

    def adopt(self, visitor: str) -> str:
        """The visitor's finished style as one to draw with: its name here, which no one can guess.

        Raises:
            TrainingError: it is not finished.
        """
        training = self._trainings[visitor]
        folder = training.check_done()
        for name, known in self._own.items():
            if known == (visitor, folder):
                return name
        name = f"{training.name}.{secrets.token_hex(8)}"
        self._own[name] = (visitor, folder)
        return name

    def psi(self, style: str) -> float:
        """A style's own truncation."""
        return self.config(style).psi

    def title(self, style: str) -> str:
        """A style's name for people."""
        return self.config(style).title or style

    def prepare(
        self,
        visitor: str,
        photo: str | Path,
        style: str,
        refine: int = 0,
        *,
        progress: bool = False,
    ) -> PreparedPhoto:
        """A photo with all its faces encoded, kept for this visitor by the photo's content.

        Raises:
            ImageError: the photo cannot be used.
        """
        config = self.config(style)
        key = _photo_key(visitor, photo, config)

        def make(steps: int) -> PreparedPhoto:
            source = self._prepared.get((*key, 0), lambda: make(0)) if steps else photo
            prepared: PreparedPhoto = self._draw(
                style, "prepare", source, refine=steps, progress=progress
            )
            return prepared

        return self._prepared.get((*key, refine), lambda: make(refine))

    def has_faces(self, visitor: str, photo: str | Path, style: str) -> bool:
        """Whether a photo was prepared for this visitor and has faces; nothing is computed."""
        config = self.config(style)
        return (*_photo_key(visitor, photo, config), 0) in self._prepared

    def stylize(
        self, visitor: str, photo: str | Path, style: str, *, refine: int = 0, progress: bool = False,
        **options: Any,
    ) -> StylizeResult:  # fmt: skip
        """The photo in a style; ``options`` as ``FaceStylizer`` takes them.

        Raises:
            FacestyleError: the photo or an option cannot be used.
        """
        prepared = self.prepare(visitor, photo, style, refine, progress=progress)
        result: StylizeResult = self._draw(style, "__call__", prepared, **options)
        return result

    def variations(
        self,
        visitor: str,
        photo: str | Path,
        style: str,
        n: int,
        *,
        refine: int = 0,
        **options: Any,
    ) -> Variations:
        """Portraits of one photo.

        Raises:
            FacestyleError: the photo or an option cannot be used.
        """
        prepared = self.prepare(visitor, photo, style, refine)
        result: Variations = self._draw(style, "variations", prepared, n, **options)
        return result

    def is_example(self, reference: str | Path, style: str) -> bool:
        """Whether a picture is one of those that come with the demo for this style."""
        return (style, _digest(reference)) in self._examples

    def has_code(self, visitor: str, reference: str | Path, style: str, *, aligned: bool) -> bool:
        """Whether a reference was studied before, or comes with the demo."""
        digest = _digest(reference)
        return (style, digest) in self._examples or (
            (visitor, digest, style, aligned) in self._codes
        )

    def code(
        self,
        visitor: str,
        reference: str | Path,
        style: str,
        *,
        aligned: bool = False,
        on_step: Callable[[int], object] | None = None,
    ) -> ReferenceCode:
        """The code of a reference, kept for this visitor by the picture's content, unless the search was cut short.

        Raises:
            ImageError: the reference cannot be used.
        """
        digest = _digest(reference)
        if (style, digest) in self._examples:
            return example_code(self._examples[style, digest])
        key = (visitor, digest, style, aligned)
        stopped = False

        def step(number: int) -> object:
            nonlocal stopped
            wanted = None if on_step is None else on_step(number)
            stopped = stopped or wanted is False
            return wanted

        def make() -> ReferenceCode:
            return aside(
                lambda: _compute(
                    id(self), style, "encode_reference", reference, aligned=aligned,
                    on_step=None if ON_ZERO_GPU else step,
                )
            )  # fmt: skip

        code = self._codes.get(key, make)
        if stopped:
            self._codes.drop(lambda one: one == key)
        return code

    def with_code(
        self, visitor: str, photo: str | Path, style: str, code: ReferenceCode, *, refine: int = 0,
        **options: Any,
    ) -> StylizeResult:  # fmt: skip
        """The photo like a reference.

        Raises:
            FacestyleError: the photo or an option cannot be used.
        """
        prepared = self.prepare(visitor, photo, style, refine)
        result: StylizeResult = self._draw(style, "with_reference", prepared, code, **options)
        return result

    def _draw(self, style: str, method: str, *args: Any, **options: Any) -> Any:
        return in_one_thread(lambda: _compute(id(self), style, method, *args, **options))

    def forget(self, visitor: str) -> None:
        """Drop all that is kept of a visitor; a training of theirs is stopped."""
        for kept in (self._prepared, self._codes):
            kept.drop(lambda key: isinstance(key, tuple) and key[0] == visitor)
        self._forget_own(visitor)

    def _forget_own(self, visitor: str) -> None:
        for style in [name for name, (whose, _) in self._own.items() if whose == visitor]:
            del self._own[style]
            self._stylizers.drop(lambda key, style=style: key == style)  # type: ignore[misc]
        if (training := self._trainings.pop(visitor, None)) is not None:
            training.close()


_ENGINES: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()


@borrow_gpu(_LONGEST_S)
def _compute(engine_id: int, style: str, method: str, *args: Any, **options: Any) -> Any:
    """One call of a stylizer, all by name, as it may have to reach the forked process that has the GPU."""
    return getattr(_ENGINES[engine_id].stylizer(style), method)(*args, **options)


def _photo_key(visitor: str, photo: str | Path, config: StyleConfig) -> tuple[str, ...]:
    """What codes of a photo are kept under, but for the steps they were refined."""
    return visitor, _digest(photo), config.base_sha256, config.encoder


def _digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
