"""What the demo computes, all of it by the public API of facestyle; what took long is kept, within bounds.

Convention: ``visitor`` is a browser session; nothing of one visitor is ever handed to another.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facestyle import (
    FaceStylizer,
    PreparedPhoto,
    ReferenceCode,
    StylizeResult,
    Variations,
    list_styles,
)
from facestyle.baselines.registry import DiffusionModel
from facestyle.errors import FacestyleError
from facestyle.evaluation.comparison_methods import ComparisonConfig
from facestyle.evaluation.photo_comparison import compare_photo
from facestyle.faces.align import align
from facestyle.inversion import QUICK_STEPS
from facestyle.options import OnNoFace
from facestyle.styles import StyleConfig, bundled_style
from space.examples import example_code, references, references_folder
from space.kept import PICTURES_S, Kept, PictureGoneError, digest
from space.one_thread import aside, in_one_thread
from space.own_training import OwnTraining, TrainingError
from space.zero_gpu import ON_ZERO_GPU, Failure, borrow_gpu

__all__ = ["Engine"]

_STYLES_KEPT = 6
_PHOTOS_KEPT, _PHOTOS_BYTES = 48, 2 * 2**30
_CODES_KEPT = 256
_IDLE_S = 30 * 60
_CLOSER_FACES = 4
_COMPARED_PX = 1024
_LONGEST_S = 120


@dataclass(frozen=True)
class _Own:
    """A style that a visitor trained: a copy, so that the next training leaves it alone."""

    visitor: str
    training: str
    copy: tempfile.TemporaryDirectory[str]

    @property
    def folder(self) -> Path:
        return Path(self.copy.name) / "style"


class Engine:
    """The stylizers, and what they need not find out twice.

    Args:
        styles: names that visitors may ask for; the bundled ones when None.
        load: makes the stylizer of a name; ``FaceStylizer.from_pretrained`` when None.
        likeness: steps of ``refine`` on every photo, after a first picture without; 0 leaves that as it is.
        clock: tells the time in seconds, by which what was made of pictures gets too old to be kept.
    """

    def __init__(
        self,
        styles: Sequence[str] | None = None,
        load: Callable[[str], FaceStylizer] | None = None,
        *,
        likeness: int = QUICK_STEPS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.styles = list(list_styles() if styles is None else styles)
        self.likeness = likeness
        self._load = load
        self._stylizers: Kept[FaceStylizer] = Kept(_STYLES_KEPT)
        self._prepared: Kept[PreparedPhoto] = Kept(
            _PHOTOS_KEPT, most_bytes=_PHOTOS_BYTES, parts=_parts, idle_s=_IDLE_S, whole_s=PICTURES_S,
            clock=clock,
        )  # fmt: skip
        self._codes: Kept[ReferenceCode] = Kept(
            _CODES_KEPT, idle_s=_IDLE_S, whole_s=PICTURES_S, clock=clock
        )
        self._own: dict[str, _Own] = {}
        self._trainings: dict[str, OwnTraining] = {}
        self._leaving: weakref.WeakValueDictionary[str, threading.Event] = (
            weakref.WeakValueDictionary()
        )
        self._lock = threading.Lock()
        self._examples = {
            (style, digest(path)): path for style in self.styles for path in references(style)
        }
        _ENGINES[id(self)] = self

    def closer(self, visitor: str, photo: str | Path, style: str, **cut: Any) -> dict[str, int]:
        """The option with which every tab draws a photo, see ``likeness``; none for a crowd, which would take long.

        Raises:
            ImageError: the photo cannot be used.
        """
        count = len(self.prepare(visitor, photo, style, **cut).codes)
        return {"refine": self.likeness} if self.likeness and count <= _CLOSER_FACES else {}

    def stylizer(self, style: str) -> FaceStylizer:
        """The stylizer of a style, loaded when it is first asked for.

        Raises:
            StyleNotFoundError: there is none of that name here.
        """
        return self._stylizer(style, self._own[style].folder if self.is_own(style) else None)

    def _stylizer(self, style: str, own: Path | None) -> FaceStylizer:
        """The same; ``own`` is the folder of a visitor's style, which a process forked before does not know."""
        if own is not None:
            return self._stylizers.get(style, lambda: FaceStylizer.from_pretrained(own))
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
        own = [name for name, made in self._own.items() if made.visitor == visitor]
        return [*self.styles, *own]

    def is_own(self, style: str) -> bool:
        """Whether a visitor trained it."""
        return style in self._own

    def address(self, style: str) -> str:
        """What ``FaceStylizer.from_pretrained`` takes for a style: its name, or the folder of a visitor's own."""
        return str(self._own[style].folder) if self.is_own(style) else style

    def address_for_people(self, style: str) -> str:
        """The same where the visitor works: their own style lies in the folder that they downloaded."""
        return f"./{self.config(style).name}" if self.is_own(style) else style

    def training(
        self, visitor: str, files: Sequence[str | Path], name: str, data_license: str,
        arguments: Sequence[str] = (),
    ) -> OwnTraining:  # fmt: skip
        """The visitor's training of these pictures, begun before or not; one of other pictures makes way.

        Styles that were adopted stay.

        Raises:
            ConfigError: there are no pictures.
            TrainingError: the visitor left while they were copied.
        """
        left = self.leaving(visitor)
        known = self._trainings.get(visitor)
        key = OwnTraining.key_of(files, name, data_license, arguments)
        if known is not None and known.key == key:
            return known
        made = OwnTraining(files, name, data_license, arguments)
        if known is not None:
            known.close()
        with self._lock:
            if not left.is_set():
                self._trainings[visitor] = made
                return made
        made.close()
        raise TrainingError("the page was left; train again")

    def leaving(self, visitor: str) -> threading.Event:
        """What `forget` sets, for all that is under way then; a visitor who comes back has another."""
        with self._lock:
            return self._leaving.setdefault(visitor, threading.Event())

    def running(self, visitor: str) -> OwnTraining | None:
        """The training a visitor asked for last."""
        return self._trainings.get(visitor)

    def is_training(self) -> bool:
        """Whether anybody's training is under way."""
        return any(training.is_running for training in tuple(self._trainings.values()))

    def adopt(self, visitor: str) -> str:
        """The visitor's finished style as one to draw with: its name here, which no one can guess.

        Raises:
            TrainingError: it is not finished, or gone.
        """
        training = self._trainings.get(visitor)
        if training is None:
            raise TrainingError(
                "there is no style any more: it goes when the page is left; train it again"
            )
        finished = training.check_done()
        for name, known in self._own.items():
            if (known.visitor, known.training) == (visitor, training.key):
                return name
        own = _Own(visitor, training.key, tempfile.TemporaryDirectory(prefix="facestyle-style-"))
        shutil.copytree(finished, own.folder)
        name = f"{training.name}.{secrets.token_hex(8)}"
        self._own[name] = own
        return name

    def push(self, visitor: str, repo: str, *, token: str, private: bool) -> str:
        """The visitor's finished style, uploaded to the Hub; the address of the commit.

        Raises:
            FacestyleError: it is not finished, or the Hub takes it not.
        """
        style = self.adopt(visitor)
        address: str = aside(
            lambda: self._compute(style, "push_to_hub", repo, token=token, private=private)
        )
        return address

    def psi(self, style: str) -> float:
        """A style's own truncation."""
        return self.config(style).psi

    def moves_shapes(self, style: str) -> bool:
        """Whether ``keep_shape`` does anything in a style, which is loaded for that; True on ZeroGPU, where it is not.

        Raises:
            FacestyleError: it cannot be loaded.
        """
        return ON_ZERO_GPU or self.stylizer(style).moves_shapes

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
        aligned: bool = False,
        on_no_face: OnNoFace = "error",
        progress: bool = False,
    ) -> PreparedPhoto:
        """A photo with all its faces encoded, kept for this visitor by the photo's content.

        Raises:
            ImageError: the photo cannot be used.
        """
        cut: dict[str, Any] = {"aligned": aligned, "on_no_face": on_no_face}
        key = self._photo_key(visitor, photo, style, **cut)
        file = Path(photo)

        def make(steps: int) -> PreparedPhoto:
            source = self._prepared.get((*key, 0), lambda: make(0), file=file) if steps else photo
            prepared: PreparedPhoto = self._draw(
                style, "prepare", source, refine=steps, progress=progress, **cut
            )
            return prepared

        left = self.leaving(visitor)
        prepared = self._prepared.get((*key, refine), lambda: make(refine), file=file)
        if left.is_set():
            self._drop_pictures(visitor)
        return prepared

    def has_faces(self, visitor: str, photo: str | Path, style: str, **cut: Any) -> bool:
        """Whether a photo was prepared for this visitor and has faces; nothing is computed."""
        with contextlib.suppress(PictureGoneError):
            return (*self._photo_key(visitor, photo, style, **cut), 0) in self._prepared
        return False

    def _photo_key(
        self, visitor: str, photo: str | Path, style: str, aligned: bool = False,
        on_no_face: OnNoFace = "error",
    ) -> tuple[object, ...]:  # fmt: skip
        """What codes of a photo are kept under, but for the steps they were refined."""
        config = self.config(style)
        return visitor, digest(photo), config.base_sha256, config.encoder, aligned, on_no_face

    def _begun(
        self, visitor: str, photo: str | Path, style: str, options: dict[str, Any]
    ) -> PreparedPhoto:
        """A photo prepared by those of the options that concern it, which are taken out."""
        names = ("refine", "aligned", "on_no_face", "progress")
        given = {name: options.pop(name) for name in names if name in options}
        return self.prepare(visitor, photo, style, **given)

    def stylize(self, visitor: str, photo: str | Path, style: str, **options: Any) -> StylizeResult:
        """The photo in a style; ``options`` as ``FaceStylizer`` takes them.

        Raises:
            FacestyleError: the photo or an option cannot be used.
        """
        prepared = self._begun(visitor, photo, style, options)
        result: StylizeResult = self._draw(style, "__call__", prepared, **options)
        return result

    def variations(
        self, visitor: str, photo: str | Path, style: str, n: int, **options: Any
    ) -> Variations:
        """Portraits of one photo.

        Raises:
            FacestyleError: the photo or an option cannot be used.
        """
        is_shown = options.get("progress", False)
        prepared = self._begun(visitor, photo, style, options)
        result: Variations = self._draw(
            style, "variations", prepared, n, progress=is_shown, **options
        )
        return result

    def compare(
        self, visitor: str, photo: str | Path, style: str, folder: Path, *,
        runs: str | None = None, diffusion: str | None = None, **cut: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """What `compare_photo` finds of a photo's largest face, and leaves in the folder.

        Args:
            visitor: whose photo it is.
            photo: a file.
            style: address of it.
            folder: for pictures and report.
            runs: folder of trained methods, as `compare_photo` takes it.
            diffusion: model that NTC, InST and StyleID draw with; the authors' when None.
            cut: of the photo, as for `prepare`.

        Raises:
            FacestyleError: the photo cannot be used.
        """
        prepared = self.prepare(visitor, photo, style, **cut)
        source: Any = photo
        if is_square := prepared.faces[0] is None:  # no face was looked for, or none found
            source = align(prepared.photo, prepared.quads[0], _COMPARED_PX)
        pictures = references_folder(style)
        model = DiffusionModel() if diffusion is None else DiffusionModel(model=diffusion)
        report: dict[str, Any] = self._draw(
            style, _compared, source, folder, self.address(style), runs=runs, aligned=is_square,
            config=ComparisonConfig(diffusion=model), pictures=pictures if pictures.is_dir() else None,
        )  # fmt: skip
        return report

    def is_example(self, reference: str | Path, style: str) -> bool:
        """Whether a picture is one of those that come with the demo for this style."""
        return (style, digest(reference)) in self._examples

    def has_code(self, visitor: str, reference: str | Path, style: str, *, aligned: bool) -> bool:
        """Whether a reference was studied before, or comes with the demo.

        Raises:
            PictureGoneError: the reference was deleted.
        """
        content = digest(reference)
        return (style, content) in self._examples or (
            (visitor, content, style, aligned) in self._codes
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
        content = digest(reference)
        if (style, content) in self._examples:
            return example_code(self._examples[style, content])
        key = (visitor, content, style, aligned)
        stopped = False

        def step(number: int) -> object:
            nonlocal stopped
            wanted = None if on_step is None else on_step(number)
            stopped = stopped or wanted is False
            return wanted

        def make() -> ReferenceCode:
            found: ReferenceCode = aside(
                lambda: self._compute(
                    style, "encode_reference", reference, aligned=aligned,
                    on_step=None if ON_ZERO_GPU else step,
                )
            )  # fmt: skip
            return found

        left = self.leaving(visitor)
        code = self._codes.get(key, make, file=Path(reference))
        if stopped or left.is_set():
            self._codes.drop(lambda one: one == key)
        return code

    def with_code(
        self, visitor: str, photo: str | Path, style: str, code: ReferenceCode, **options: Any
    ) -> StylizeResult:
        """The photo like a reference.

        Raises:
            FacestyleError: the photo or an option cannot be used.
        """
        prepared = self._begun(visitor, photo, style, options)
        result: StylizeResult = self._draw(style, "with_reference", prepared, code, **options)
        return result

    def _draw(self, style: str, work: str | Callable[..., Any], *args: Any, **options: Any) -> Any:
        return in_one_thread(lambda: self._compute(style, work, *args, **options))

    def _compute(
        self, style: str, work: str | Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        """A method of the style's stylizer, or a function of it, where there is a GPU for it.

        Raises:
            FacestyleError: as it does.
        """
        own = self._own[style].folder if self.is_own(style) else None
        done = _borrowing(id(self), style, own, work, *args, **options)
        if isinstance(done, Failure):
            raise done.error
        return done

    def forget(self, visitor: str) -> None:
        """Drop all that is kept of a visitor, and what is still being made; a training of theirs is stopped."""
        with self._lock:
            if (left := self._leaving.pop(visitor, None)) is not None:
                left.set()
            training = self._trainings.pop(visitor, None)
        self._drop_pictures(visitor)
        for style in [name for name, made in self._own.items() if made.visitor == visitor]:
            self._stylizers.drop(lambda key, style=style: key == style)  # type: ignore[misc]
            self._own.pop(style).copy.cleanup()
        if training is not None:
            training.close()

    def _drop_pictures(self, visitor: str) -> None:
        for kept in (self._prepared, self._codes):
            kept.drop(lambda key: isinstance(key, tuple) and key[0] == visitor)


_ENGINES: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()


@borrow_gpu(_LONGEST_S)
def _borrowing(
    engine_id: int, style: str, own: Path | None, work: str | Callable[..., Any], *args: Any, **options: Any,
) -> Any:  # fmt: skip
    """All that computes, by name, as it may have to reach the forked process that has the GPU; and back, so errors too.

    One function, as each that borrows has a process of its own, which would load the networks anew.
    """
    try:
        stylizer = _ENGINES[engine_id]._stylizer(style, own)
        return (
            work(stylizer, *args, **options)
            if callable(work)
            else getattr(stylizer, work)(*args, **options)
        )
    except FacestyleError as error:
        return Failure(error)


def _compared(
    stylizer: FaceStylizer, photo: Any, folder: Path, style: str, **options: Any
) -> dict[str, Any]:
    return compare_photo(photo, folder, style=style, base=stylizer.base, **options)


def _parts(prepared: PreparedPhoto) -> Iterator[tuple[object, int]]:
    """What takes memory in a prepared photo; those that were refined share it but for the codes."""
    yield prepared.photo, 4 * prepared.photo.width * prepared.photo.height  # as Pillow holds RGB
    for tensor in (*prepared.crops, *prepared.codes):
        yield tensor, tensor.nbytes
