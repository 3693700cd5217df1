"""What was found in a folder of style pictures: each with a verdict and a reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from facestyle.errors import ConfigError

__all__ = ["LEAST_PX", "Aligned", "CheckedPicture", "FolderReport", "Verdict"]

LEAST_PX = 192
"""Least side, if no other is asked for, of what is used of a picture."""

Verdict = Literal[
    "used", "broken", "too large", "too small", "copy", "no face", "face too small", "face cut off"
]
"""What becomes of a picture; all but "used" are left out."""

Aligned = Literal["auto", "yes", "no"]
"""Whether a set's pictures are squares around heads already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPicture:
    """One file and what becomes of it.

    Attributes:
        source: the folder or zip it is in, as given.
        name: path inside that, with forward slashes.
        sha256: of the file; None when it could not be read.
        size_px: width and height, upright; None when it could not be decoded.
        verdict: "used", or why it is left out.
        reason: more about it, in a few words.
        quad: what is cut out, see `facestyle.faces.align`; None when left out.
        copy_of: for near-copies, the position among the report's pictures of the one that stays.
    """

    source: str
    name: str
    sha256: str | None = None
    size_px: tuple[int, int] | None = None
    verdict: Verdict = "used"
    reason: str = ""
    quad: tuple[tuple[float, float], ...] | None = None
    copy_of: int | None = None

    @property
    def is_used(self) -> bool:
        """Whether training sees it."""
        return self.verdict == "used"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What was found in a set of style pictures.

    Attributes:
        sources: folders and zips, as given.
        pictures: every picture file, source by source, by name.
        is_aligned: the set's pictures are squares around heads and used whole.
        alignment: how that was decided, in a sentence.
        asked: "auto", "yes" or "no", as it was asked for.
        min_side_px: least side that was asked for.
        warnings: sentences for the person who trains.
    """

    sources: tuple[str, ...]
    pictures: tuple[CheckedPicture, ...]
    is_aligned: bool
    alignment: str
    asked: Aligned
    min_side_px: int
    warnings: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[CheckedPicture, ...]:
        """The pictures that training sees."""
        return tuple(picture for picture in self.pictures if picture.is_used)

    @property
    def left_out(self) -> tuple[CheckedPicture, ...]:
        """The others."""
        return tuple(picture for picture in self.pictures if not picture.is_used)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Pictures by verdict, those verdicts that occur."""
        found = Counter(picture.verdict for picture in self.pictures)
        return {verdict: found[verdict] for verdict in get_args(Verdict) if found[verdict]}

    def format(self, examples: int = 4) -> str:
        """The report in lines, for a terminal.

        Args:
            examples: pictures named for each verdict.
        """
        lines = [f"{len(self.used)} of {len(self.pictures)} pictures are used. {self.alignment}"]
        lines += [f"left out, {line}" for line in self.left_out_lines(examples)]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])

    def left_out_lines(self, examples: int = 4) -> list[str]:
        """A line for each verdict but "used": how many pictures, and some by name with the reason."""
        lines = []
        for verdict, count in self.counts.items():
            if verdict == "used":
                continue
            chosen = [picture for picture in self.pictures if picture.verdict == verdict]
            named = [f"{p.name} ({p.reason})" if p.reason else p.name for p in chosen[:examples]]
            if count > len(named):
                named.append(f"{count - len(named)} more")
            lines.append(f"{verdict}: {count}: " + ", ".join(named))
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it; `from_dict` undoes it."""
        return dataclasses.asdict(self) | {"counts": self.counts}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FolderReport:
        """The report that `as_dict` gave, also after a way through JSON.

        Raises:
            ConfigError: it is of another shape.
        """
        try:
            fields = {name: value for name, value in content.items() if name != "counts"}
            pictures = tuple(_picture(row) for row in fields.pop("pictures"))
            for name in ("sources", "warnings"):
                fields[name] = tuple(fields[name])
            return cls(pictures=pictures, **fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is no report of a style folder ({error!r})") from error


def _picture(row: Mapping[str, Any]) -> CheckedPicture:
    fields = dict(row)
    if fields["size_px"] is not None:
        fields["size_px"] = tuple(fields["size_px"])
    if fields["quad"] is not None:
        fields["quad"] = tuple((x, y) for x, y in fields["quad"])
    return CheckedPicture(**fields)
