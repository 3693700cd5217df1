"""Processes that launchers start, and what is refused where they say too little."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from facestyle.cli import main
from facestyle.errors import ConfigError
from facestyle.processes import Processes


@pytest.fixture
def launched(monkeypatch):
    """An environment that a launcher said nothing in, to be told."""
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("count", ["", "0", "1"])
def test_one_process_needs_no_other(count, launched):
    launched.setenv("WORLD_SIZE", count)
    alone = Processes("cpu")
    assert (alone.rank, alone.count, str(alone.device)) == (0, 1, "cpu")


@pytest.mark.parametrize("count", ["two", "-2", "1.5"])
def test_a_count_that_is_no_number_is_named(count, launched):
    launched.setenv("PMI_SIZE", count)
    with pytest.raises(
        ConfigError, match=f"PMI_SIZE must be the number of processes, got '{count}'"
    ):
        Processes("cpu")


@pytest.mark.parametrize("is_coupled", [True, False])
@pytest.mark.parametrize("is_told", [True, False])
def test_processes_that_do_not_find_each_other_are_refused(is_coupled, is_told, launched):
    accelerate = pytest.importorskip("accelerate")

    def alone(**_):
        if is_told:
            raise ValueError("MASTER_ADDR was not set")
        return SimpleNamespace(num_processes=1)

    launched.setattr(accelerate, "Accelerator", alone)
    launched.setenv("WORLD_SIZE", "2")
    says = "MASTER_ADDR" if is_told else "alone"
    with pytest.raises(ConfigError, match=rf"cannot join the 2 processes.*{says}.*torchrun"):
        Processes("cpu", is_coupled=is_coupled)


def test_torchrun_alone_couples_processes_on_the_cpu():
    pytest.importorskip("accelerate")
    # One write a line: where PYTHONUNBUFFERED is set, print writes in pieces, and those of two processes mix.
    code = (
        "import os, torch; from facestyle.processes import Processes as P; p = P(); p.wait(); p.end(); "
        "has_left = not torch.distributed.is_initialized(); "
        "os.write(1, f'{p.rank} {p.count} {p.device.type} {has_left}\\n'.encode())"
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
         "--rdzv_endpoint", "localhost:0", "--no-python", sys.executable, "-c", code],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert sorted(done.stdout.split("\n")) == ["", "0 2 cpu True", "1 2 cpu True"]


@pytest.mark.parametrize(
    ("works", "words"),
    [
        ("pipeline.train_style", ["train", "--name", "red", "--data-license", "ours"]),
        ("pipeline.find_pairs", ["pairs"]),
        ("hair.give_hair", ["hair"]),
        ("likeness.liken_style", ["likeness"]),
    ],
)
def test_commands_leave_the_others_when_all_is_done(works, words, launched, tmp_path):
    done = []
    command, *rest = words
    source = "cartoon" if command in ("hair", "likeness") else str(tmp_path)

    def work(*_, **__):
        done.append("work")
        return tmp_path / "out" / "style"

    launched.setattr(f"facestyle.training.{works}", work)
    launched.setattr(Processes, "end", lambda self: done.append("end"))
    assert main([command, source, "-o", str(tmp_path / "out"), *rest]) == 0
    assert done == ["work", "end"]
