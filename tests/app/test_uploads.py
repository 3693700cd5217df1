"""Uploads that are deleted in time, whatever happens meanwhile."""

import gc
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
from gradio.route_utils import delete_files_created_by_app

from space import app, uploads
from space.kept import PICTURES_S
from space.uploads import delete_uploads, keep_deleting

SOON_S = 20.0


class Demo:
    """What a demo holds of files: three uploads, one of them gone, and one file that it keeps."""

    def __init__(self, folder):
        names = ("old.png", "other.png", "kept.zip")
        for name in names:
            (folder / name).write_bytes(b"a file")
        self.temp_file_sets = [{str(folder / name) for name in (*names, "gone.png")}]
        self.blocks = {1: SimpleNamespace(keep_in_cache={str(folder / "kept.zip")})}


@pytest.fixture
def demo(tmp_path):
    return Demo(tmp_path)


def test_uploads_go_when_they_are_old_and_what_is_gone_is_forgotten(demo, tmp_path):
    (files,) = demo.temp_file_sets
    delete_uploads(demo, 3600)
    assert (tmp_path / "old.png").exists() and str(tmp_path / "gone.png") not in files
    delete_uploads(demo, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.zip"]
    assert files == {str(tmp_path / "kept.zip")}


def wait_for(fact) -> None:
    ends = time.monotonic() + SOON_S
    while not fact() and time.monotonic() < ends:
        time.sleep(0.01)
    assert fact()


def test_uploads_that_arrive_meanwhile_and_errors_do_not_end_the_looking(
    demo, tmp_path, monkeypatch
):
    (files,) = demo.temp_file_sets
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    failing = [OSError("a disk that fails"), RuntimeError("anything")]

    def delete(demo, age_s):
        if failing:
            raise failing.pop()
        delete_uploads(demo, age_s)

    monkeypatch.setattr(uploads, "delete_uploads", delete)
    keep_deleting(demo, 0, look_s=0.01)
    for i in range(200):
        (tmp_path / f"{i}.png").write_bytes(b"a file")
        files.add(str(tmp_path / f"{i}.png"))
        time.sleep(0.001)
    wait_for(lambda: [path.name for path in tmp_path.iterdir()] == ["kept.zip"])
    assert len(told) == 2  # they are printed


def test_the_looking_keeps_no_demo_alive_and_ends_with_it(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(uploads, "delete_uploads", lambda demo, age_s: looked.append(age_s))
    demo = Demo(tmp_path)
    gone = weakref.ref(demo)
    keep_deleting(demo, 0, look_s=0.01)
    wait_for(lambda: looked)
    del demo
    wait_for(lambda: gone() is None)
    wait_for(
        lambda: (
            not any(
                isinstance(t, threading.Timer) and t.args[0] is gone for t in threading.enumerate()
            )
        )
    )


def test_the_demo_deletes_by_itself_and_all_when_it_ends(engine, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(app, "keep_deleting", lambda *given: begun.append(given))
    demo = app.build_app(engine)
    assert begun == [(demo, PICTURES_S)]
    photo = tmp_path / "new.png"
    photo.write_bytes(b"a file")
    demo.upload_file_set.add(str(photo))
    delete_uploads(demo, PICTURES_S)
    assert photo.exists()
    delete_files_created_by_app(demo, None)  # as Gradio does then
    assert not photo.exists()
    begun.clear()
    del demo
    gc.collect()  # as in test_space.py
