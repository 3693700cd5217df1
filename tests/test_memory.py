"""The most memory in use inside a context."""

import subprocess
import sys

import pytest
import torch

from facestyle.memory import PeakMemory

# In a process of its own: one that has freed memory before may hand that out again, and does not grow.
_CODE = """
import numpy as np
import torch
from facestyle.memory import PeakMemory

before = np.ones(60_000_000, np.uint8)
with PeakMemory(torch.device("cpu")) as little:
    pass
with PeakMemory(torch.device("cpu")) as much:
    np.ones(80_000_000, np.uint8)
del before
with PeakMemory(torch.device("cpu")) as after:
    pass
print(little.bytes, much.bytes, after.bytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells it on Linux")
def test_what_was_used_inside_is_counted_and_what_was_used_before_is_not():
    done = subprocess.run(
        [sys.executable, "-c", _CODE], env={"PATH": "", "FACESTYLE_MALLOC": "0"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    little, much, after = map(int, done.stdout.split())
    assert 70e6 < much - little < 100e6
    assert after < much


def test_a_device_that_cannot_tell_says_so():
    with PeakMemory(torch.device("meta")) as memory:
        pass
    assert memory.bytes is None
