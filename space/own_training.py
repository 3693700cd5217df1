"""A visitor's own style: the pictures looked at, and a training in a process of its own that can be stopped.

The process is ``facestyle train`` itself. Its memory goes back when it ends, a stop or a crash of it leaves the demo
alone, and a stopped run goes on where it was, as one started from a shell would.

::

    FOLDER/given/     the pictures as they were uploaded
    FOLDER/run/       what ``facestyle train`` leaves
    FOLDER/log.txt    what it prints
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from facestyle.errors import ConfigError, FacestyleError
from facestyle.styles import check_style_name
from facestyle.training.folder import check_folder
from facestyle.training.folder_report import FolderReport
from facestyle.training.prepare import folder_sheet
from space.kept import digest

__all__ = [
    "PRESETS",
    "NoLicenseError",
    "NoPicturesError",
    "NoTokenError",
    "OwnTraining",
    "Progress",
    "TrainingError",
]

PRESETS: Mapping[str, Sequence[str]] = {
    name: ("--preset", name) for name in ("fast", "patches", "portrait", "default", "faithful")
}
"""What a visitor may choose from, and the arguments it stands for."""

_BAR = re.compile(r"(\w+): +\d+%\|[^|]*\| *(\d+)/(\d+) \[[\d:]+<([\d:?]+)")
_ERROR = re.compile(r"facestyle: \w+: (.+)")
"""How the command tells what was wrong."""

_KINDNESS = 10
"""How far the process stands back behind visitors who want a portrait, on the scale of ``nice``."""

_PATIENCE_S = 10.0


class NoPicturesError(ConfigError):
    """There is nothing to learn from."""


class NoLicenseError(ConfigError):
    """It is not said under which licence the pictures are."""


class NoTokenError(ConfigError):
    """There is none to push with."""


class TrainingError(FacestyleError):
    """The training ended without a style; the message is its own."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is.

    Attributes:
        stage: "check", "star", "pairs", "run", "hair" or "likeness".
        done: steps of the stage that are done.
        total: all of them; 0 while they are not known.
        left: time the stage still needs, as "MM:SS"; "?" while it is not known.
        preview: the newest sheet of held-out faces, photo above portrait.
        number: of the stage, from 1; 0 of the check.
        stages: how many there are; 0 while that is not known.
    """

    stage: str = "check"
    done: int = 0
    total: int = 0
    left: str = "?"
    preview: Path | None = None
    number: int = 0
    stages: int = 0

    @property
    def share(self) -> float:
        """Of the stage, 0 to 1."""
        return self.done / self.total if self.total else 0.0


class OwnTraining:
    """One visitor's pictures, and the style that is made of them; all its files are deleted with it.

    Args:
        files: pictures and zips as they were uploaded.
        name: short name of the style, lower case.
        data_license: of the pictures.
        arguments: further ones of ``facestyle train``.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        name: str,
        data_license: str,
        arguments: Sequence[str] = (),
    ) -> None:
        if not files:
            raise NoPicturesError("add some pictures of the style, or a zip of them")
        self.name, self.data_license = name.strip(), data_license.strip()
        self._arguments = list(arguments)
        self._folder = tempfile.TemporaryDirectory(prefix="facestyle-own-")
        root = Path(self._folder.name)
        self.run = root / "run"
        self._log = root / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None
        self._archive: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self.is_stopped = self._is_closed = False
        self.key = self.key_of(files, name, data_license, arguments)
        self.sources = _gathered([Path(file) for file in files], root / "given")

    @staticmethod
    def key_of(
        files: Sequence[str | Path], name: str, data_license: str, arguments: Sequence[str] = ()
    ) -> str:
        """Tells whether two requests mean the same training.

        Raises:
            PictureGoneError: the uploaded pictures were deleted; the training has copies of its own.
        """
        parts = [digest(file) for file in files]
        said = "\n".join([*sorted(parts), name.strip(), data_license.strip(), *arguments])
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def style(self) -> Path | None:
        """Folder of the finished style."""
        folder = self.run / "style"
        return folder if (folder / "training.json").is_file() else None

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def look(self) -> tuple[FolderReport, Image.Image]:
        """What is used and what is left out, and a sheet of it.

        Raises:
            DatasetError: there are no pictures, or too few that can be used.
        """
        report = check_folder(self.sources, progress=False)
        return report, folder_sheet(report, cell_px=112, per_row=8, limit=96)

    @staticmethod
    def check(name: str, data_license: str) -> None:
        """Refuse what cannot be trained, before another training makes way for it.

        Raises:
            ConfigError: the name is none, or the licence is missing.
        """
        check_style_name(name.strip())
        if not data_license.strip():
            raise NoLicenseError(
                "say under which licence the pictures are; it is kept with the style"
            )

    def start(self) -> None:
        """Begin, or go on where it was stopped.

        Raises:
            ConfigError: the name is none, or the licence is missing.
            TrainingError: it was closed.
        """
        self.check(self.name, self.data_license)
        command = [
            sys.executable, "-m", "facestyle", "train", *map(str, self.sources), "-o", str(self.run),
            "--name", self.name, "--data-license", self.data_license, *self._arguments,
        ]  # fmt: skip
        with self._lock:
            if self._is_closed:
                raise TrainingError("this training was given up; train again")
            self.is_stopped = False
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    preexec_fn=_stand_back if os.name == "posix" else None,
                )  # fmt: skip
            weakref.finalize(
                self, _signal, self._process, signal.SIGTERM
            )  # also when the demo ends

    def stop(self) -> None:
        """End the process; `start` goes on from its last checkpoint."""
        with self._lock:
            process = self._process
            self.is_stopped = True
        if process is None:
            return
        _signal(process, signal.SIGTERM)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()

    def wait(self, seconds: float) -> bool:
        """Whether the process has ended, after at most so long."""
        ends = time.monotonic() + seconds
        while self.is_running and time.monotonic() < ends:
            time.sleep(0.1)
        return not self.is_running

    def progress(self) -> Progress:
        """How far it is."""
        planned = self._planned()
        number = next(
            (i for i in range(len(planned), 0, -1) if (self.run / planned[i - 1]).is_dir()), 0
        )
        stage = planned[number - 1] if number else "check"
        bars = _BAR.findall(self._said()[-4000:])
        sheets = [path for part in planned for path in (self.run / part / "previews").glob("*.png")]
        newest = max(sheets, key=lambda path: path.stat().st_mtime, default=None)
        _, done, total, left = bars[-1] if bars else ("", 0, 0, "?")
        return Progress(stage, int(done), int(total), left, newest, number, len(planned))

    def _planned(self) -> tuple[str, ...]:
        """The stages that the run's settings ask for; none before they are written."""
        from facestyle.training.pipeline import TrainConfig

        try:
            return TrainConfig.from_run(self.run).stages
        except FileNotFoundError:
            return ()

    def check_done(self) -> Path:
        """The finished style's folder.

        Raises:
            TrainingError: there is none; the message says what the process said last.
        """
        if self.style is not None:
            return self.style
        lines = [line.strip() for line in re.split(r"[\r\n]", self._said()) if line.strip()]
        told = [found.group(1) for line in lines if (found := _ERROR.match(line))]
        message = (
            told[-1] if told else "the training ended early; train again to go on where it was"
        )
        for source in self.sources:  # not our folders
            message = message.replace(f"{source}: ", "")
        raise TrainingError(message)

    def zipped(self, folder: Path) -> Path:
        """The finished style as ``NAME.zip``, in a new folder within this one, as long as the training is held.

        Raises:
            TrainingError: there is none.
        """
        style = self.check_done()
        if self._archive is None:
            self._archive = tempfile.TemporaryDirectory(dir=folder)
        target = Path(self._archive.name) / f"{self.name}.zip"
        with zipfile.ZipFile(target, "w") as archive:  # weights do not get smaller
            for path in sorted(style.iterdir()):
                archive.write(path, f"{self.name}/{path.name}")
        return target

    def close(self) -> None:
        """Stop for good, and delete all files."""
        with self._lock:
            self._is_closed = True
        self.stop()
        self._folder.cleanup()
        if self._archive is not None:
            self._archive.cleanup()

    def _said(self) -> str:
        try:
            return self._log.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""


def _gathered(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copies of the uploaded files: a folder of the pictures, and the zips."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    sources = []
    for i, file in enumerate(files):
        is_zip = file.suffix.lower() == ".zip"
        target = (folder if is_zip else pictures) / file.name
        if target.exists():
            target = target.with_name(f"{i:04d}_{file.name}")
        shutil.copyfile(file, target)
        if is_zip:
            sources.append(target)
    return [*sources, pictures] if any(pictures.iterdir()) else sources


def _stand_back() -> None:
    os.nice(_KINDNESS)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the process and those it has started, if it lives."""
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, number)
    except (AttributeError, ProcessLookupError):  # no groups on Windows; or it has just ended
        process.send_signal(number)
