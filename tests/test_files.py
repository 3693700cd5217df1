"""Files written in one piece, by one process or several at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from facestyle.errors import ConfigError, OutputError
from facestyle.files import at_home, write_whole
from facestyle.models.checkpoints import save_tensors
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_whole(b"one", path),
        lambda path: save_tensors({"a": torch.ones(2)}, path, metadata={}),
    ],
)
def test_the_umask_and_a_files_own_permissions_count(tmp_path: Path, write: Any) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "private")
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
        os.umask(0o002)
        write(tmp_path / "shared")
        assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o664
        (tmp_path / "shared").chmod(0o640)
        write(tmp_path / "shared")
        assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["写" * 83 + ".png", "x" * 251 + ".png"])  # 253 and 255 bytes
def test_names_may_be_as_long_as_the_disk_takes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"plainly")
    assert write_whole(b"one", tmp_path / name).read_bytes() == b"one"


def test_a_tilde_alone_is_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    assert at_home(Path("~/me.png")) == Path("/home/ada/me.png")
    for name in ("~me.png", "./~me.png", "~nobody/me.png", "photos/~/me.png"):
        assert at_home(Path(name)) == Path(name)


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
