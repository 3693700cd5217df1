"""Strict loading and whole writing."""

import pytest
import torch
from torch import nn

from facestyle.errors import CheckpointError, OutputError
from facestyle.models import checkpoints
from facestyle.models.checkpoints import (
    bundled,
    load_strict,
    read_metadata,
    read_tensors,
    save_tensors,
)


def test_round_trip_keeps_values_names_and_header(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "n": torch.tensor([1, 2])}
    save_tensors(tensors, path, metadata={"format": "f", "config": {"k": [1]}})
    loaded = read_tensors(path)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert read_metadata(path) == {"format": "f", "config": '{"k": [1]}'}


def test_dtype_touches_floats_only(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.ones(2), "n": torch.tensor([1])}, path, metadata={}, dtype=torch.half)
    loaded = read_tensors(path)
    assert (loaded["a"].dtype, loaded["n"].dtype) == (torch.float16, torch.int64)


def test_values_beyond_float16_are_kept_as_they_are(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"large": torch.tensor([1.0, -7e4]), "small": torch.ones(2), "none": torch.ones(0)}
    save_tensors(tensors, path, metadata={}, dtype=torch.half)
    loaded = read_tensors(path)
    assert torch.equal(loaded["large"], tensors["large"])
    assert loaded["small"].dtype == loaded["none"].dtype == torch.float16


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_tensors({"a": torch.ones(1)}, tmp_path / "x.safetensors", metadata={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "absent"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.ones(1000)}, path, metadata={})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("tensors", "missing", "unexpected"),
    [
        ({"weight": torch.ones(2, 3)}, ("bias",), ()),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}, (), ("more",)),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, (), ("weight",)),
        ({"weight": torch.full((2, 3), torch.nan), "bias": torch.ones(2)}, (), ("weight",)),
    ],
)
def test_strictness(tensors, missing, unexpected):
    with pytest.raises(CheckpointError) as caught:
        load_strict(nn.Linear(3, 2), tensors)
    assert (caught.value.missing, caught.value.unexpected) == (missing, unexpected)


def test_unwritable_target_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        save_tensors({"a": torch.ones(1)}, tmp_path / "file" / "x.safetensors", metadata={})
    target = tmp_path / "folder.safetensors"
    target.mkdir()
    with pytest.raises(OutputError):
        save_tensors({"a": torch.ones(1)}, target, metadata={})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_a_missing_bundled_file_says_reinstall():
    with pytest.raises(CheckpointError, match="reinstall"):
        bundled("no-such.safetensors")
