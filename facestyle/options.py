"""Options of stylizing, checked once for every way of doing it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat, TypedDict

from facestyle.errors import ConfigError
from facestyle.models.encoder import SPACES, Space
from facestyle.seeds import check_seed, whole

__all__ = [
    "MOST_STRENGTH", "CommonOptions", "Faces", "OnNoFace", "Options", "StylizeOptions", "check_faces",
    "check_psi", "check_steps",
]  # fmt: skip

OnNoFace = Literal["error", "skip", "center"]
Faces = Literal["all", "largest"] | Sequence[int]

MOST_STRENGTH = 2.0
"""Up to which a style may be exaggerated."""


class CommonOptions(TypedDict, total=False):
    """Keyword arguments that every way of stylizing takes; ``FaceStylizer.__call__`` says what they mean."""

    strength: float
    keep_color: float | bool
    keep_texture: float | bool
    keep_shape: float | bool
    refine: int
    content_space: Space
    aligned: bool
    on_no_face: OnNoFace
    progress: bool


class StylizeOptions(CommonOptions, total=False):
    """Keyword arguments of ``FaceStylizer.__call__``."""

    psi: float | None
    faces: Faces
    seed: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """The same, checked.

    Raises:
        ConfigError: one is out of range, or no number; the message names it.
    """

    psi: float | None = None
    strength: float = 1.0
    keep_color: float = 0.0
    keep_texture: float = 0.0
    keep_shape: float = 0.0
    refine: int = 0
    content_space: Space = "w"
    faces: Faces = "all"
    aligned: bool = False
    on_no_face: OnNoFace = "error"
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("psi", "strength", "keep_color", "keep_texture", "keep_shape", "refine"):
            value = getattr(self, name)
            if not isinstance(value, SupportsFloat) and (name, value) != ("psi", None):
                raise ConfigError(f"{name} must be a number, got {value!r}")
        check_psi("psi", self.psi)
        if not 0 <= self.strength <= MOST_STRENGTH:
            raise ConfigError(
                f"strength must be in [0, {MOST_STRENGTH:g}], got {self.strength}; 1 is the full style"
            )
        for name in ("keep_color", "keep_texture", "keep_shape"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        check_steps("refine", self.refine)
        object.__setattr__(self, "faces", check_faces(self.faces))
        object.__setattr__(self, "seed", check_seed(self.seed))
        if self.content_space not in SPACES:
            raise ConfigError(
                f"content_space must be one of {', '.join(SPACES)}, got {self.content_space!r}"
            )
        if self.on_no_face not in ("error", "skip", "center"):
            raise ConfigError(
                f'on_no_face must be "error", "skip" or "center", got {self.on_no_face!r}'
            )

    def settings(self, style: str, **more: Any) -> dict[str, Any]:
        """What a picture was made with, for its metadata."""
        return {
            "style": style, **more, "strength": self.strength, "keep_color": float(self.keep_color),
            "keep_texture": float(self.keep_texture), "keep_shape": float(self.keep_shape), "refine": self.refine,
            "content_space": self.content_space,
        }  # fmt: skip


def check_faces(faces: Faces) -> Faces:
    """The word, or the faces' numbers as Python's; what names no faces is refused, whatever the photo holds.

    Raises:
        ConfigError: it is empty, neither a word nor a list of numbers, or names a face twice.
    """
    if isinstance(faces, str) and faces in ("all", "largest"):
        return faces
    if isinstance(faces, str) or not isinstance(faces, Collection):
        number = whole(faces)
        hint = "" if number is None else f"; that one face is faces=[{number}]"
        raise ConfigError(
            f'faces must be "all", "largest" or a list of numbers, got {faces!r}{hint}'
        )
    if not len(faces):
        raise ConfigError('faces is an empty list; name one at least, or "all"')
    numbers = [number for number in map(whole, faces) if number is not None]
    if len(numbers) < len(faces):
        raise ConfigError(f'faces must be "all", "largest" or a list of numbers, got {faces!r}')
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"faces names a face twice: {numbers}")
    return tuple(numbers)


def check_steps(name: str, steps: int) -> None:
    """Refuse a number of steps that is negative or not whole, under its name.

    Raises:
        ConfigError: it is.
    """
    if steps < 0 or not float(steps).is_integer():
        raise ConfigError(f"{name} must be a whole number of steps, 0 or more, got {steps}")


def check_psi(name: str, psi: float | None) -> None:
    """Refuse a truncation outside [0, 1.5] under its name; None is the style's.

    Raises:
        ConfigError: it is outside.
    """
    if psi is not None and not 0 <= psi <= 1.5:
        raise ConfigError(f"{name} must be in [0, 1.5], got {psi}")
