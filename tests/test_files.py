"""Files written in one piece, by one process or several at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from facestyle.errors import ConfigError, OutputError
from facestyle.files import write_whole
from facestyle.training.state import TrainingState


def test_a_file_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = write_whole(b"one", tmp_path / "new" / "file.json")
    write_whole(memoryview(b"two"), path)
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = write_whole(b"one", tmp_path / "file.json")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_whole(b"two", path)
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_no_disk_takes_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole(b"one", tmp_path / "a\0b")


def test_several_may_begin_one_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find no config and both have written theirs before either puts it in its place."""
    both, replace, failed = threading.Barrier(2, timeout=30), os.replace, []

    def replace_together(source: str, target: str) -> None:
        both.wait()
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_together)

    def begin() -> None:
        try:
            TrainingState(tmp_path, {"steps": 3})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json"}
    with pytest.raises(ConfigError):
        TrainingState(tmp_path, {"steps": 4})
