"""The process keeps the memory it has been given, in every thread."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from facestyle.allocator import tune_allocator

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


def _run(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_it_can_be_left_alone() -> None:
    code = "from facestyle.allocator import tune_allocator; print(tune_allocator())"
    assert _run(code, FACESTYLE_MALLOC="0").strip() == "False"
    assert tune_allocator() is tune_allocator()


def test_it_is_set_before_torch_is_there() -> None:
    code = "import sys, facestyle.allocator, facestyle.cli; print({'torch', 'numpy'} & set(sys.modules))"
    assert _run(code).strip() == "set()"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is tuned")
@pytest.mark.parametrize(
    "first",
    [
        "from facestyle import FaceStylizer",
        "import facestyle.cli as c; c.tune_allocator()",
        "from facestyle.training.pipeline import train_style",
    ],
)
def test_threads_reuse_large_tensors(first: str) -> None:
    faults = [int(line) for line in _run(_FAULTS.format(first=first)).split()]
    # Four tensors of 32 MiB mapped anew are 32768 pages; the first threads may still ask for memory.
    assert sorted(faults)[2] < 2000
