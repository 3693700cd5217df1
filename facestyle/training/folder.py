"""A folder of style pictures, looked at before training: which are used, which are left out, and why.

Training wants faces where FFHQ puts them. Sets come in two kinds:

- *aligned* pictures are squares around one head each and are used whole. MTCNN finds few drawn faces (66 in 900
  anime heads, 75 in 162 emoji), so squares in most of which no face is found count as aligned, too. Where those that
  are found agree that the set has its heads elsewhere than FFHQ, as emoji and anime have, every picture is cut by the
  same square, their median: else eyes are learned where a photo has none;
- *whole* pictures hold a face somewhere; its FFHQ square is cut out (`facestyle.faces.align`). Those without
  a face, or with too small a one, are left out.

Of near-copies (saved anew, resized, mirrored) the first stays, or a clearly larger one; copies cut otherwise are not
recognised. A hash of brightness steps does not do here: over 150 pairs of different emoji are within 2 of 64 bits.
Colour copies of 32 x 32 pixels do: saved at JPEG quality 15 or at a third of the size, 95 in 100 pictures of any of
the five styles move by less than 3.7 levels of 255 (root mean square), while different ones, down to a raised
eyebrow, are at least 5.9 apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from facestyle.errors import (
    ConfigError,
    DatasetError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
)
from facestyle.faces.align import full_image_quad, quad_side_px, to_photo
from facestyle.faces.detect import Face, FaceDetector
from facestyle.image import MIN_SIDE_PX, load_image
from facestyle.picture_files import iter_picture_files, no_pictures
from facestyle.training.folder_report import (
    LEAST_PX,
    Aligned,
    CheckedPicture,
    FolderReport,
    Verdict,
)

__all__ = ["COPY_LEVELS", "FEW_PICTURES", "MIN_PICTURES", "check_folder"]

MIN_PICTURES = 5
"""Fewer usable pictures are refused."""

FEW_PICTURES = 20
"""Fewer usable pictures are warned of."""

COPY_LEVELS = 4.5
"""Near-copies: 32 x 32 colour copies differ by less than this, root mean square, in levels of 255."""

_AS_YES, _AS_NO = (f'--aligned {word}, in Python aligned="{word}"' for word in ("yes", "no"))
_HEIC = (".heic", ".heif")  # broken without a package that reads them
_COPY_PX = 32
_LARGER = 1.1  # a near-copy with so many times the pixels is preferred
_SQUARE = 0.02  # sides that differ by at most this share make a square
_LEAST_INSIDE = 0.75  # share of a face's square that must lie in the picture
_LEAST_AGREEING = 10  # faces that it takes to move a whole set
_SET_OFFSET, _SET_SIDE = 0.02, 0.06  # a median square nearer to the picture's is the picture's
_SET_ERROR = 0.03  # standard error of that median above which there is no agreement
_MAD_TO_ERROR = (
    1.4826 * 1.2533
)  # to a normal's deviation, and from that to its median's error times sqrt(n)
_WHOLE = (0.0, 0.0, 1.0)  # of a set's square
_SHARP_PX = 256  # training looks at pictures of this side, and enlarges smaller ones

# The face's square against the picture's, in its short sides. Faces found in the five styles have sides of 0.89 to
# 1.24, except in anime, where they are few and their landmarks poor.
_LEAST_SIDE, _MOST_SIDE, _MOST_OFFSET, _MOST_ROLL_DEG = 0.8, 1.25, 0.15, 15.0
_STRAY_SIDE, _STRAY_OFFSET = (
    0.65,
    0.25,
)  # in an aligned set: a face smaller or further off is cut out


def check_folder(
    sources: str | Path | Sequence[str | Path],
    *,
    aligned: Aligned = "auto",
    min_side_px: int = LEAST_PX,
    min_pictures: int = MIN_PICTURES,
    detector: FaceDetector | None = None,
    progress: bool = True,
) -> FolderReport:
    """Look at every picture of a style set and decide which to use; nothing is written.

    Args:
        sources: folder or zip, or several.
        aligned: "yes" uses all pictures whole, or their central squares, and looks for no faces; "no" cuts
            out the largest face of each; "auto" decides by where the faces are.
        min_side_px: least side of what is used: of the picture, or of the face's square (twice the face).
        min_pictures: fewer usable ones are an error; 0 never is, for looking only.
        detector: finds faces; by default one that looks for faces from half the least size on.
        progress: show a progress bar.

    Raises:
        DatasetError: no such folder or zip, no pictures, or too few that can be used; the message says what was
            left out, why, and what to do.
        ConfigError: ``aligned`` or ``min_side_px`` is out of range.
    """
    if aligned not in get_args(Aligned):
        raise ConfigError(f'aligned must be "auto", "yes" or "no", got {aligned!r}')
    if min_side_px < MIN_SIDE_PX:
        raise ConfigError(
            f"min_side_px (--min-side) must be {MIN_SIDE_PX} or more, got {min_side_px}"
        )
    listed = [Path(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]
    if not listed:
        raise ConfigError("no folder of style pictures was given")
    if detector is None:
        detector = FaceDetector(min_face_px=max(20.0, min_side_px / 4))
    total = sum(1 for source in listed for _ in iter_picture_files(source))
    if total == 0:
        raise no_pictures(listed[0])

    looks: list[_Look] = []
    copies = _Copies()
    with tqdm(total=total, desc="check", disable=not progress) as bar:
        for source in listed:
            for name, read in iter_picture_files(source):
                picture, image = _opened(str(source), name, read, min_side_px)
                faces: tuple[Face, ...] = ()
                if image is not None:
                    is_kept = copies.add(image, position=len(looks))
                    if is_kept and aligned != "yes":
                        faces = tuple(detector.detect(image))
                looks.append(_Look(picture, faces))
                bar.update()
    for group in copies.groups:
        best = copies.best(group)
        for one in group:
            if one is not best:
                word = "copy" if one.is_mirrored == best.is_mirrored else "mirrored copy"
                reason = f"{word} of {looks[best.position].picture.name}"
                picture = looks[one.position].picture
                picture = replace(picture, verdict="copy", reason=reason, copy_of=best.position)
                looks[one.position] = _Look(picture)

    plan = _planned(looks, aligned)
    pictures = tuple(_judged(look, plan, min_side_px) for look in looks)
    report = FolderReport(
        sources=tuple(str(source) for source in listed),
        pictures=pictures,
        is_aligned=plan.is_aligned,
        alignment=plan.why,
        asked=aligned,
        min_side_px=min_side_px,
        warnings=(*plan.warnings, *_warnings(pictures)),
    )
    if len(report.used) < min_pictures:
        raise _too_few(report, min_pictures)
    return report


@dataclass(frozen=True, slots=True)
class _Look:
    """A picture with the verdict it has by itself, and the faces in it, the largest first."""

    picture: CheckedPicture
    faces: tuple[Face, ...] = ()

    @property
    def size_px(self) -> tuple[int, int]:
        assert self.picture.size_px is not None  # asked only of pictures that were decoded
        return self.picture.size_px

    @property
    def is_square(self) -> bool:
        width, height = self.size_px
        return abs(width - height) <= _SQUARE * max(width, height)

    @property
    def side(self) -> float:
        """Side of the largest face's square, in the picture's short sides."""
        return self.faces[0].side_px / min(self.size_px)

    @property
    def gap(self) -> NDArray[np.float64]:
        """[2] from the picture's centre to that square's, in the picture's short sides."""
        gap = self.faces[0].quad.mean(axis=0) - full_image_quad(self.size_px).mean(axis=0)
        return np.asarray(gap / min(self.size_px))

    @property
    def offset(self) -> float:
        """Length of ``gap``."""
        return float(np.hypot(*self.gap))

    @property
    def is_in_place(self) -> bool:
        """The face lies where FFHQ puts it."""
        across = self.faces[0].quad[3] - self.faces[0].quad[0]
        roll_deg = float(np.degrees(np.arctan2(across[1], across[0])))
        return (
            _LEAST_SIDE <= self.side <= _MOST_SIDE
            and self.offset <= _MOST_OFFSET
            and abs(roll_deg) <= _MOST_ROLL_DEG
        )

    @property
    def is_tight(self) -> bool:
        """The picture is cut closer to the face than FFHQ's; there is nothing around it to align it with."""
        return self.side > _MOST_SIDE and self.offset <= _STRAY_OFFSET * self.side

    @property
    def is_stray(self) -> bool:
        """The face is far from where FFHQ puts it, and the picture has more around it."""
        return not self.is_tight and (self.side < _STRAY_SIDE or self.offset > _STRAY_OFFSET)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What holds for the whole set.

    Attributes:
        is_aligned: squares are used whole.
        uses_all: so is everything else, by its central square.
        trusts_faces: faces are found often enough to believe those that are not where they should be.
        square: what is used of those squares: centre from the picture's, and side, in the picture's sides.
        why: a sentence.
        warnings: more sentences.
    """

    is_aligned: bool
    uses_all: bool = False
    trusts_faces: bool = True
    square: tuple[float, float, float] = _WHOLE
    why: str
    warnings: tuple[str, ...] = ()

    def quad(self, size_px: tuple[int, int]) -> tuple[tuple[float, float], ...]:
        """What is used of an aligned picture of this size."""
        x, y, side = self.square
        whole = full_image_quad(size_px)
        middle = whole.mean(axis=0)
        return _plain(middle + (whole - middle) * side + np.array([x, y]) * min(size_px))


class _Copy(NamedTuple):
    """A picture of a group of near-copies; mirrored against the group's first or not."""

    position: int
    is_mirrored: bool
    pixels: int


class _Copies:
    """The pictures so far in groups of near-copies, recognised by small colour copies of each group's first."""

    def __init__(self) -> None:
        self.groups: list[list[_Copy]] = []
        self._rows = np.zeros((64, 3 * _COPY_PX**2), dtype=np.float32)
        self._aspects: list[float] = []

    def add(self, image: Image.Image, position: int) -> bool:
        """Sort a picture in; whether it is the one of its group that stays, as far as is known."""
        small = image.resize((_COPY_PX, _COPY_PX), Image.Resampling.BILINEAR, reducing_gap=3.0)
        colors = np.asarray(small, dtype=np.float32)
        aspect, pixels = image.width / image.height, image.width * image.height
        count = len(self.groups)
        alike = np.abs(np.array(self._aspects) / aspect - 1) <= _SQUARE
        for turned, is_mirrored in ((colors, False), (colors[:, ::-1], True)):
            levels = _root_mean_square(self._rows[:count] - turned.reshape(-1))
            near = np.flatnonzero(alike & (levels < COPY_LEVELS))
            if len(near):
                group = self.groups[int(near[0])]
                group.append(_Copy(position, is_mirrored, pixels))
                return self.best(group).position == position
        if count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[count] = colors.reshape(-1)
        self._aspects.append(aspect)
        self.groups.append([_Copy(position, False, pixels)])
        return True

    @staticmethod
    def best(group: Sequence[_Copy]) -> _Copy:
        """The first, unless a later one is clearly larger."""
        best = group[0]
        for one in group[1:]:
            if one.pixels > _LARGER * best.pixels:
                best = one
        return best


def _root_mean_square(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N] of [N, D]."""
    levels: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", rows, rows) / rows.shape[1])
    return levels


def _opened(
    source: str, name: str, read: Callable[[], bytes], min_side_px: int
) -> tuple[CheckedPicture, Image.Image | None]:
    """A file with the verdict it has by itself, and the picture unless it is left out."""
    picture = CheckedPicture(source=source, name=name)
    try:
        data = read()
        picture = replace(picture, sha256=hashlib.sha256(data).hexdigest())
        image = load_image(data)
    except ImageError as error:
        verdicts: dict[type[ImageError], Verdict] = {
            ImageTooLargeError: "too large",
            ImageTooSmallError: "too small",
        }
        verdict = verdicts.get(type(error), "broken")
        return replace(picture, verdict=verdict, reason=str(error).split(";")[0]), None
    picture = replace(picture, size_px=image.size)
    if min(image.size) < min_side_px:
        reason = f"{image.width} x {image.height} px"
        return replace(picture, verdict="too small", reason=reason), None
    return picture, image


def _planned(looks: Sequence[_Look], asked: Aligned) -> _Plan:
    """Decide for the set whether its pictures are aligned."""
    if asked == "yes":
        return _Plan(is_aligned=True, uses_all=True, why="They are used whole, as asked.")
    if asked == "no":
        return _Plan(is_aligned=False, why="Each face is cut out, as asked.")
    usable = [look for look in looks if look.picture.is_used]
    squares = [look for look in usable if look.is_square]
    found = [look for look in squares if look.faces]
    in_place = sum(look.is_in_place for look in found)
    tight = sum(look.is_tight for look in found)
    is_misplaced = 2 * (in_place + tight) < len(found)
    if 2 * len(squares) < len(usable):
        why = f"Each face is cut out: only {len(squares)} of {len(usable)} pictures are square."
        return _Plan(is_aligned=False, why=why)
    square, moved = _common_square(found)
    if 2 * len(found) < len(squares):
        why = (
            f"They are squares and {moved}: a face is found in only {len(found)} of {len(squares)}, "
            "as is usual for drawn ones."
        )
        warning = (
            f"most of the {len(found)} faces found are not where heads should be; unless these are pictures of heads "
            f"alone, crop them, or have the faces cut out ({_AS_NO})"
        )
        warnings = (warning,) if len(found) >= MIN_PICTURES and is_misplaced else ()
        return _Plan(is_aligned=True, trusts_faces=False, square=square, why=why, warnings=warnings)
    where = f"{in_place} of {len(found)} faces lie where FFHQ puts them."
    if is_misplaced:
        return _Plan(is_aligned=False, why=f"Each face is cut out: only {where}")
    warning = (
        f"{tight} of {len(found)} pictures are cut closer to the face than FFHQ's, which show hair and neck; the "
        "portraits will be as close"
    )
    warnings = (warning,) if tight > in_place else ()
    why = f"They are squares and {moved}: {where}"
    return _Plan(is_aligned=True, square=square, why=why, warnings=warnings)


def _common_square(found: Sequence[_Look]) -> tuple[tuple[float, float, float], str]:
    """What to use of every picture of an aligned set, and that in words.

    That is the median of the faces' squares, those cut out by themselves left out, where the faces agree on one that is
    not the picture's; else the whole picture.
    """
    heads = [look for look in found if not look.is_stray and not look.is_tight]
    whole = _WHOLE, "used whole"
    if len(heads) < _LEAST_AGREEING:
        return whole
    rows = np.array([[*look.gap, look.side] for look in heads])
    middle = np.median(rows, axis=0)
    spread = np.median(np.abs(rows - middle), axis=0).max()
    if _MAD_TO_ERROR * spread / len(heads) ** 0.5 > _SET_ERROR:
        return whole
    x, y, side = (round(float(v), 3) for v in middle)
    if np.hypot(x, y) <= _SET_OFFSET and abs(side - 1) <= _SET_SIDE:
        return whole
    moved = (
        f"cut by one square, {side:.2f} of their side and {abs(y):.1%} further {'down' if y > 0 else 'up'}, "
        f"where {len(heads)} heads are by FFHQ's measure"
    )
    return (x, y, side), moved


def _judged(look: _Look, plan: _Plan, min_side_px: int) -> CheckedPicture:
    """The verdict on a picture, given what holds for the set."""
    picture = look.picture
    if not picture.is_used:
        return picture
    if plan.is_aligned and (look.is_square or plan.uses_all):
        is_whole = not (look.faces and plan.trusts_faces and look.is_stray)
        if is_whole:
            reason = "whole" if plan.square == _WHOLE else "by the set's square"
            return replace(picture, reason=reason, quad=plan.quad(look.size_px))
    if not look.faces:
        reason = "and it is not square" if plan.is_aligned else ""
        return replace(picture, verdict="no face", reason=reason)
    for face in look.faces:
        if face.side_px >= min_side_px and _share_inside(face.quad, look.size_px) >= _LEAST_INSIDE:
            reason = f"face, {face.side_px:.0f} px"
            return replace(picture, reason=reason, quad=_plain(face.quad))
    largest = look.faces[0]
    if largest.side_px < min_side_px:
        reason = f"its square has {largest.side_px:.0f} px"
        return replace(picture, verdict="face too small", reason=reason)
    outside = 1 - _share_inside(largest.quad, look.size_px)
    reason = f"{outside:.0%} of its square is outside"
    return replace(picture, verdict="face cut off", reason=reason)


def _share_inside(quad: NDArray[np.float64], size_px: tuple[int, int]) -> float:
    """Share of a quad's area that lies in the picture, to about 1 %."""
    ticks = np.arange(64)
    points = to_photo(np.stack(np.meshgrid(ticks, ticks), axis=-1), quad, 64)
    is_inside = (points > -0.5) & (points < np.array(size_px) - 0.5)
    return float(is_inside.all(axis=-1).mean())


def _plain(quad: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in quad)


def _warnings(pictures: Sequence[CheckedPicture]) -> list[str]:
    used = [picture for picture in pictures if picture.quad is not None]
    warnings = []
    if MIN_PICTURES <= len(used) < FEW_PICTURES:
        warnings.append(
            f"{len(used)} pictures are few: the style will repeat them; 30 to 300 are good"
        )
    small = sum(quad_side_px(p.quad) < _SHARP_PX - 0.5 for p in used if p.quad is not None)
    if small:
        warnings.append(
            f"{small} of {len(used)} are smaller than {_SHARP_PX} px and will be enlarged: the style may look soft"
        )
    return warnings


def _too_few(report: FolderReport, min_pictures: int) -> DatasetError:
    """The error that says what was left out, why, and what helps."""
    counts = report.counts
    advice = []
    if counts.get("no face"):
        advice.append(f"if they are drawn heads, crop them to squares and say so ({_AS_YES})")
    if counts.get("too small", 0) + counts.get("face too small", 0):
        advice.append(
            f"find larger ones, or allow less than {report.min_side_px} px (--min-side PX, in Python min_side_px)"
        )
    if counts.get("face cut off"):
        advice.append(f"cut less closely, or use them as they are ({_AS_YES})")
    broken = [Path(p.name).suffix.lower() for p in report.pictures if p.verdict == "broken"]
    if any(suffix in _HEIC for suffix in broken):
        advice.append("save HEIC photos as JPEG or PNG, or pip install pillow-heif")
    if any(suffix not in _HEIC for suffix in broken):
        advice.append("copy or download the broken ones again")
    advice.append("add more pictures; 30 to 300 are good")
    used, total = len(report.used), len(report.pictures)
    lines = [
        f"only {used} of {total} pictures can be used, and training needs {min_pictures} or more."
    ]
    lines += [f"Left out, {line}." for line in report.left_out_lines()]
    return DatasetError(
        " ".join([*lines, "What helps: " + "; ".join(advice)]), path=report.sources[0]
    )
