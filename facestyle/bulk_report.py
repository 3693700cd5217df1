"""What stands in a folder of stylized pictures: ``report.json``, and the lines that processes at work append beside it.

Killed processes leave their lines. The next run, by as many processes or not, takes them into the report first.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from facestyle import __version__
from facestyle.errors import OutputError
from facestyle.files import at_home, write_whole

__all__ = ["REPORT_FILE", "Report", "Row", "photo_state"]

REPORT_FILE = "report.json"
_PARTS = "report.part*.jsonl"
_FORMAT = "facestyle-stylize"
_VERSION = 1

Row = dict[str, Any]
"""What is known of a picture.

What was asked: "input", the photo's "bytes" and "mtime_ns", "settings". Then what came of it: "files" (names and
bytes), "faces" and "seconds", or "error" and "message".
"""


class Report:
    """Rows of the pictures in a folder, by the name of their file.

    Args:
        folder: of the pictures; None keeps the rows in memory alone.
        rank: of this process, whose lines go into a file of their own.

    Attributes:
        rows: as they were when last merged, and what this process has added since.
    """

    def __init__(self, folder: Path | None, rank: int = 0) -> None:
        self.rows: dict[str, Row] = {}
        self._folder = None if folder is None else at_home(folder)
        self._rank = rank
        self._lock = threading.Lock()

    def add(self, name: str, row: Row) -> None:
        """Keep a row for good, whatever becomes of this process; threads may come here together.

        Raises:
            OutputError: it cannot be written.
        """
        with self._lock:
            self.rows[name] = row
            if self._folder is None:
                return
            path = self._folder / _PARTS.replace("*", str(self._rank))
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([name, row]) + "\n")
            except OSError as error:
                raise OutputError(f"cannot be written: {error.strerror}", path=path) from error

    def added(self) -> int:
        """Rows that all processes have added since the last merge."""
        if self._folder is None:
            return len(self.rows)
        return sum(part.read_bytes().count(b"\n") for part in self._parts())

    def merge(self, asked: Collection[str]) -> None:
        """Take the lines of all processes, killed ones too, into ``report.json``. Only the main process may come here.

        Args:
            asked: names of the pictures of this run. Of others, rows stay whose files still stand.

        Raises:
            OutputError: the report cannot be written, or the one that is there is another program's.
        """
        if self._folder is None:
            return
        parts = self._parts()
        rows = self._read()
        for part in parts:
            rows.update(_lines(part))
        self.rows = {
            name: rows[name] for name in sorted(rows) if name in asked or self._is_whole(rows[name])
        }
        write_whole(_packed(self.rows), self._folder / REPORT_FILE)
        for part in parts:
            part.unlink(missing_ok=True)

    def stands(self, name: str, photo: Path, settings: Mapping[str, Any]) -> bool:
        """Whether a picture is there, made from the photo as it now is, with these settings."""
        row = self.rows.get(name)
        if row is None or row["settings"] != settings or Path(row["input"]).name != photo.name:
            return False
        is_same = all(row[key] == value for key, value in photo_state(photo).items())
        return is_same and self._is_whole(row)

    def own_files(
        self, names: Collection[str], targets: Mapping[Path, Path]
    ) -> dict[str, dict[str, int]]:
        """Files and their bytes of the rows of some pictures, without those that are anything else's, too.

        Args:
            names: of the pictures.
            targets: of this run: picture of each photo; photos are not among what is found.
        """
        if self._folder is None:
            return {}
        rows = {name: self.rows[name].get("files", {}) for name in names if name in self.rows}
        owners = {target.name: {target.name} for target in targets.values()}
        for name, row in self.rows.items():
            for file in row.get("files", {}):
                owners.setdefault(file, set()).add(name)
        photos = {_identity(at_home(photo)) for photo in targets} if rows else set()
        return {
            name: {
                file: size
                for file, size in files.items()
                if owners[file] == {name} and _identity(self._folder / file) not in photos
            }
            for name, files in rows.items()
        }

    def remove(self, files: Mapping[str, int], kept: Collection[str]) -> None:
        """Remove files of the folder that have the bytes they were written with, but for those ``kept``.

        Raises:
            OutputError: one cannot be removed.
        """
        if self._folder is None:
            return
        for name, size in files.items():
            path = self._folder / name
            if name in kept or Path(name).name != name:
                continue
            try:
                if path.is_file() and path.stat().st_size == size:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"cannot be removed: {error.strerror}", path=path) from error

    def _parts(self) -> list[Path]:
        """Files of the processes' lines; none where the folder cannot be seen."""
        if self._folder is None or not os.path.isdir(self._folder):
            return []
        return sorted(self._folder.glob(_PARTS))

    def _is_whole(self, row: Row) -> bool:
        """Whether all files of a row are there, of the size they were written with."""
        if self._folder is None or not row.get("files"):
            return False
        try:
            return all(
                (self._folder / name).stat().st_size == size for name, size in row["files"].items()
            )
        except OSError:
            return False

    def _read(self) -> dict[str, Row]:
        assert self._folder is not None
        path = self._folder / REPORT_FILE
        try:
            report = json.loads(path.read_bytes())
            if (report["format"], report["version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"of format {report['format']!r}, version {report['version']!r}")
            settings = report["settings"]
            return {
                name: {**row, "settings": settings[row["settings"]]}
                for name, row in report["pictures"].items()
            }
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise OutputError(f"cannot be read: {error.strerror}", path=path) from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise OutputError(
                "is not the report that this facestyle writes beside pictures; name another folder, or move it away to "
                "draw all pictures anew",
                path=path,
            ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    """The same for all paths of a file; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def photo_state(photo: Path) -> Row:
    """What tells whether a photo's file has changed: its "bytes" and "mtime_ns", None where it cannot be seen."""
    try:
        found = at_home(photo).stat()
    except OSError:
        return {"bytes": None, "mtime_ns": None}
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _packed(rows: Mapping[str, Row]) -> bytes:
    """The report's text; settings, alike in nearly all rows, stand in it once."""
    settings: list[Any] = []
    pictures = {}
    for name, row in rows.items():
        if row["settings"] not in settings:
            settings.append(row["settings"])
        pictures[name] = {**row, "settings": settings.index(row["settings"])}
    failed = sum("error" in row for row in rows.values())
    report = {
        "format": _FORMAT, "version": _VERSION, "facestyle": __version__, "done": len(rows) - failed,
        "failed": failed, "settings": settings, "pictures": pictures,
    }  # fmt: skip
    return (json.dumps(report, indent=2) + "\n").encode()


def _lines(part: Path) -> Iterator[tuple[str, Row]]:
    """Names and rows of a process; a line that was cut short is passed over."""
    for line in part.read_text(encoding="utf-8").splitlines():
        try:
            name, row = json.loads(line)
        except ValueError:
            continue
        yield name, row
