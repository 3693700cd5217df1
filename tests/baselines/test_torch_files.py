"""Foreign files of arrays: arrays come out, code does not run."""

import pickle

import numpy as np
import pytest

from facestyle.baselines.torch_files import read_named_arrays
from facestyle.errors import CheckpointError


def save_object(path, content):
    """An npy file of a pickled object, as numpy writes dictionaries."""
    boxed = np.empty((), dtype=object)
    boxed[()] = content
    with open(path, "wb") as file:
        np.save(file, boxed, allow_pickle=True)
    return path


@pytest.mark.parametrize("nested", [True, False])
def test_an_npy_file_that_would_run_code_is_refused(tmp_path, exploit, nested):
    from pathlib import Path

    content = {"a.jpg": np.zeros(3), "b.jpg": exploit} if nested else exploit
    file = save_object(tmp_path / "evil.npy", content)
    with pytest.raises(CheckpointError, match=r"builtins\.exec.*could run code"):
        read_named_arrays(file)
    assert not Path(exploit.path).exists()
    np.load(file, allow_pickle=True)  # the attack is a real one
    assert Path(exploit.path).read_text() == "owned"


def test_an_object_array_cannot_smuggle_code(tmp_path, exploit):
    from pathlib import Path

    inner = np.empty(1, dtype=object)
    inner[0] = exploit
    with pytest.raises(CheckpointError, match="could run code"):
        read_named_arrays(save_object(tmp_path / "evil.npy", {"a": inner}))
    assert not Path(exploit.path).exists()


def test_named_arrays_come_out(tmp_path):
    codes = {f"{i}.jpg": np.random.default_rng(i).normal(size=(1, 4, 8)) for i in range(3)}
    codes["3.jpg"] = np.ones((1, 4, 8), np.float32)
    read = read_named_arrays(save_object(tmp_path / "codes.npy", codes))
    assert read.keys() == codes.keys()
    for name, value in codes.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == value.dtype


def test_older_numpy_names_are_read(tmp_path):
    file = save_object(tmp_path / "codes.npy", {"a": np.arange(4.0)})
    file.write_bytes(file.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    protocol_3 = pickle.dumps(np.array({"a": np.arange(4.0)}, dtype=object), protocol=3)
    old = protocol_3.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    header = file.read_bytes()[:128]
    file.write_bytes(header + old)
    np.testing.assert_array_equal(read_named_arrays(file)["a"], np.arange(4.0))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "npy"),
        (b"no such format", "npy"),
        ([1, 2], "no arrays by name"),
        ({}, "no arrays by name"),
        ({"a": 3.0}, "'a' is no array"),
        ({1: np.zeros(2)}, "1 is no array"),
        ({"a": np.array(["text"])}, "'a' is no array"),
    ],
)
def test_other_npy_files_are_named(tmp_path, content, says):
    file = tmp_path / "x.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        save_object(file, content)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_named_arrays(file)
    assert caught.value.path == file


def test_damaged_and_absent_files_are_named(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match="plain array"):
        read_named_arrays(tmp_path / "plain.npy")
    file = save_object(tmp_path / "cut.npy", {"a": np.zeros(100)})
    file.write_bytes(file.read_bytes()[:-200])
    for name in ("cut.npy", "absent.npy"):
        with pytest.raises(CheckpointError) as caught:
            read_named_arrays(tmp_path / name)
        assert caught.value.path == tmp_path / name
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(CheckpointError):
        read_named_arrays(tmp_path / "empty.npy")
