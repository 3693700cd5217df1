"""The most memory in use inside a context."""

import sys

import numpy as np
import pytest
import torch

from facestyle.memory import PeakMemory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells it on Linux")
def test_what_was_used_inside_is_counted_and_what_was_used_before_is_not():
    before = np.ones(60_000_000, np.uint8)
    with PeakMemory(torch.device("cpu")) as little:
        pass
    with PeakMemory(torch.device("cpu")) as much:
        np.ones(80_000_000, np.uint8)
    del before
    with PeakMemory(torch.device("cpu")) as after:
        pass
    assert little.bytes and much.bytes and after.bytes
    assert 70e6 < much.bytes - little.bytes < 100e6
    assert after.bytes < much.bytes


def test_a_device_that_cannot_tell_says_so():
    with PeakMemory(torch.device("meta")) as memory:
        pass
    assert memory.bytes is None
