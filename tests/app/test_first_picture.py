"""The command that measures how long a visitor waits."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from facestyle.errors import FacestyleError, MissingDependencyError
from space import first_picture
from space.examples import people


def test_without_a_browser(monkeypatch):
    pytest.importorskip("playwright")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match="chromium"):
        first_picture.measure(people())


def test_a_demo_that_does_not_start_says_why(monkeypatch, tmp_path):
    pytest.importorskip("playwright")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/true")
    monkeypatch.setattr(first_picture, "_APP", tmp_path / "app.py")
    (tmp_path / "app.py").write_text("raise SystemExit('the port is taken')")
    with pytest.raises(FacestyleError, match="the port is taken"):
        first_picture.measure(people())


@pytest.mark.slow
def test_the_real_demo_is_measured(chromium):
    # In a thread of its own, as the fixture's browser has a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(first_picture.measure, people()[:2]).result()
    assert 0 < found["opened"] < 60
    assert 0 < found["warm"] <= 3 * found["cold"]
    assert found["warm"] < found["closer"]
