"""The process keeps the memory it has been given, in every thread; threads leave cores to others."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from facestyle.tuning import tune_allocator, usable_cores

_FAULTS = """
import resource, threading
{first}
import torch

def run():
    kept = [torch.ones(1, 32, 512, 512) for _ in range(3)]
    del kept
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(4):
        torch.ones(1, 32, 512, 512)
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

torch.set_num_threads(1)
for _ in range(6):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
"""


_FIRSTS = pytest.mark.parametrize(
    "first",
    [
        "from facestyle import FaceStylizer",
        "from facestyle import PreparedPhoto, FaceStylizer",
        "import facestyle.cli as c; c.tune_process()",
        "from facestyle.training.pipeline import train_style",
    ],
)


def _run(code: str, **environment: str) -> str:
    return _done(code, **environment).stdout


def _done(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_it_can_be_left_alone() -> None:
    code = "from facestyle.tuning import tune_allocator; print(tune_allocator())"
    assert _run(code, FACESTYLE_MALLOC="0").strip() == "False"
    assert tune_allocator() is tune_allocator()


def test_it_is_set_before_torch_is_there() -> None:
    code = (
        "import sys, facestyle.tuning, facestyle.cli; print({'torch', 'numpy'} & set(sys.modules))"
    )
    assert _run(code).strip() == "set()"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is tuned")
@_FIRSTS
def test_threads_reuse_large_tensors(first: str) -> None:
    faults = [int(line) for line in _run(_FAULTS.format(first=first)).split()]
    # Four tensors of 32 MiB mapped anew are 32768 pages; the first threads may still ask for memory.
    assert sorted(faults)[2] < 2000


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="GCC's OpenMP, as torch has it on Linux"
)
@_FIRSTS
def test_threads_do_not_wait_for_long(first: str) -> None:
    assert _spins(first) == "20000"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="GCC's OpenMP, as torch has it on Linux"
)
@pytest.mark.parametrize(
    ("own", "spins"), [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")]
)
def test_they_wait_as_the_environment_says(own: dict[str, str], spins: str) -> None:
    assert _spins("import facestyle.tuning as t; t.tune_threads()", **own) == spins


def _spins(first: str, **own: str) -> str:
    """Rounds that a waiting thread of torch takes, as its OpenMP tells."""
    told = _done(f"{first}\nimport torch", OMP_DISPLAY_ENV="verbose", **own).stderr
    return told.split("GOMP_SPINCOUNT = '")[1].split("'")[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control groups")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2), ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "10000 100000"}, 1), ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "1600000 100000"}, 4), ({}, 4), ({"cpu.max": "torn"}, 4),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
    ],
)  # fmt: skip
def test_a_container_has_its_share_of_the_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control groups")
@pytest.mark.parametrize(("own", "threads"), [({}, "2"), ({"OMP_NUM_THREADS": "1"}, "1")])
def test_torch_has_a_thread_for_each_of_them(own: dict[str, str], threads: str) -> None:
    code = (
        "import os, facestyle.tuning as t; os.sched_getaffinity = lambda _: set(range(8)); t._share = lambda _: 1.5\n"
        "t.tune_threads(); import torch; print(torch.get_num_threads())"
    )
    assert _run(code, **own).strip() == threads


def test_a_torch_that_is_there_keeps_its_threads() -> None:
    code = "import torch, os, facestyle.tuning as t; t.tune_threads(); print('GOMP_SPINCOUNT' in os.environ)"
    assert _run(code).strip() == "False"
