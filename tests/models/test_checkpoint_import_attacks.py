"""Files that would run code, exhaust memory, or are cut short: refused, with nothing run and nothing left behind."""

import builtins
import contextlib
import functools
import importlib
import io
import operator
import os
import pickle
import re
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from facestyle.errors import CheckpointError
from facestyle.models.importers.checkpoints import import_checkpoint, read_checkpoint
from facestyle.models.importers.checkpoints.safe_pickle import Budget
from facestyle.models.importers.checkpoints.stored import loaded


class Call:
    """Pickles as a call, of which plain unpicklers make a real one."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Only what could be called may be pickled as a call."""


def touch(marker):
    return f"open({str(marker)!r}, 'w').close()"


ATTACKS = {
    "posix.system": lambda m: Call(os.system, f"touch {m}"),
    "builtins.eval": lambda m: Call(eval, touch(m)),
    "builtins.exec": lambda m: Call(exec, touch(m)),
    "builtins.open": lambda m: Call(open, str(m), "w"),
    "builtins.__import__": lambda m: Call(exec, f"__import__('os').mknod({str(m)!r})"),
    "subprocess.Popen": lambda m: Call(subprocess.Popen, ["touch", str(m)]),
    "subprocess.check_output": lambda m: Call(subprocess.check_output, ["touch", str(m)]),
    "shutil.copyfile": lambda m: Call(shutil.copyfile, __file__, str(m)),
    "pathlib.Path.touch": lambda m: Call(Path.touch, Path(m)),
    "builtins.getattr": lambda m: Call(Call(getattr, Call(importlib.import_module, "os"), "mknod"), str(m)),
    "importlib.import_module": lambda m: Call(functools.partial(exec, touch(m))),
    "operator.attrgetter": lambda m: Call(operator.methodcaller("touch"), Path(m)),
    "numpy.load": lambda m: Call(np.load, str(m) + ".npy", None, True),
    "torch.load": lambda m: Call(functools.partial(torch.load, str(m) + ".pt", weights_only=False)),
    "torch.hub.load": lambda m: Call(
        functools.partial(torch.hub.load, str(Path(m).parent), "hubconf_entry", source="local")
    ),
}  # fmt: skip

NAMES = {
    "builtins.__import__": "exec", "builtins.getattr": "getattr|import_module",
    "importlib.import_module": "partial", "operator.attrgetter": "methodcaller",
    "pathlib.Path.touch": "getattr|touch", "torch.load": "partial", "torch.hub.load": "partial",
}  # fmt: skip
"""What is refused, where it is not the attack's own name."""


def prepared(folder, name):
    """The attack as an object, and its marker file."""
    marker = folder / "owned"
    (folder / "owned.npy").write_bytes(npy(Call(exec, touch(marker))))
    torch.save(Call(exec, touch(marker)), folder / "owned.pt")
    (folder / "hubconf.py").write_text(f"def hubconf_entry(): {touch(marker)}\n")
    return ATTACKS[name](marker), marker


def npy(content):
    buffer = io.BytesIO()
    boxed = np.empty((), dtype=object)
    boxed[()] = content
    np.save(buffer, boxed, allow_pickle=True)
    return buffer.getvalue()


def torch_bytes(content, is_zip):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def runs(attack, marker):
    """Whether a plain unpickler is owned by it."""
    made = pickle.loads(pickle.dumps(attack))
    if isinstance(made, subprocess.Popen):
        made.wait()
    elif hasattr(made, "close"):
        made.close()
    owned = marker.exists()
    marker.unlink()
    return owned


def assert_refused(data, folder, marker, says="could run code"):
    file = folder / "evil"
    file.write_bytes(data)
    before = sorted(folder.iterdir())
    with pytest.raises(CheckpointError, match=says) as caught:
        import_checkpoint(file, folder / "out")
    assert caught.value.path == file
    assert not marker.exists(), "it ran"
    assert sorted(folder.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_by_name_wherever_they_stand(foreign, tmp_path, name):
    attack, marker = prepared(tmp_path, name)
    says = rf"asks for [\w.]+\.({NAMES.get(name, name.rpartition('.')[2])}) .*could run code"
    in_module = foreign.Persistent()
    in_module.surprise = attack
    nested = Call(torch.storage._load_from_bytes, torch_bytes(attack, False))
    with foreign.modules():
        module = pickle.dumps({"G_ema": in_module}, protocol=4)
    for data in (
        *(pickle.dumps({"G_ema": attack}, protocol=p) for p in (0, 2, 3, 4, 5)),
        module,
        pickle.dumps({"G_ema": nested}, protocol=4),
        torch_bytes({"g_ema": {"x": attack}}, True),
        torch_bytes({"g_ema": {"x": attack}}, False),
        torch_bytes({"g_ema": {"x": nested}}, True),
        npy({"a.jpg": attack}),
    ):
        assert_refused(data, tmp_path, marker, says)
    assert runs(attack, marker)


def test_source_text_in_the_file_is_not_run(foreign, tmp_path):
    marker = tmp_path / "owned"
    net = foreign.Persistent()
    net.source = touch(marker)
    with foreign.modules():
        data = pickle.dumps({"G_ema": net}, protocol=4)
        pickle.loads(data)
    assert marker.exists()  # the attack is a real one
    marker.unlink()
    assert_refused(data, tmp_path, marker, "no StyleGAN2 generator")


def text(value):
    data = value.encode()
    return b"\x8c" + struct.pack("<B", len(data)) + data


def stack_global(module, name):
    return text(module) + text(name) + b"\x93"


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("collections", "OrderedDict.__init__.__globals__"),
        ("collections", "OrderedDict.__class__"),
        ("torch", "storage._load_from_bytes"),
        ("torch", "Size.__class__.__base__.__subclasses__"),
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("torch.storage", "io.open"),
        ("numpy", "core.multiarray._reconstruct"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj.__globals__"),
        ("os.path", "os.system"),
        ("builtins", "__dict__"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.serialization", "load"),
        ("torch.jit", "load"),
        ("", "eval"),
        ("builtins", ""),
        ("BUILTINS", "eval"),
        ("builtins\x00", "set"),
        ("facestyle.models.importers.checkpoints.stored", "make_table"),
    ],
)
def test_dotted_and_odd_names_are_no_way_around(tmp_path, module, name):
    looked_up = b"\x80\x04" + stack_global(module, name) + b"."
    said = assert_refused(looked_up, tmp_path, tmp_path / "owned")
    assert f"{module}.{name}".replace("\0", r"\x00") in said
    protocol_0 = f"c{module}\n{name}\n.".encode()
    assert_refused(protocol_0, tmp_path, tmp_path / "owned")


def test_opcodes_are_no_way_around(tmp_path):
    marker = tmp_path / "owned"
    command = f"touch {marker}"
    system = (
        text("posix") + b"\x94" + text("system") + b"\x94" + b"00"
    )  # into the memo, off the stack
    ordered = stack_global("collections", "OrderedDict")
    tensor = stack_global("torch._utils", "_rebuild_tensor_v2")
    old = f"(S'{command}'\niposix\nsystem\n.".encode()
    for data, says in (
        (b"\x80\x04" + system + b"h\x00h\x01\x93" + text(command) + b"\x85R.", "posix.system"),
        (b"\x80\x04" + system + b"h\x01h\x00\x93.", "system.posix"),
        (old, "operation INST"),
        (b"\x80\x02(cposix\nsystem\nX\x01\x00\x00\x00xo.", "posix.system"),
        (b"\x80\x02(" + ordered + b"X\x01\x00\x00\x00xo.", "operation OBJ"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "operation EXT4"),
        (b"\x80\x04" + ordered + b")}\x92.", "operation NEWOBJ_EX"),
        (b"\x80\x05\x97.", "operation NEXT_BUFFER"),
        (b"\x80\x05C\x01x\x98.", "operation READONLY_BUFFER"),
        (b"\x80\x02" + text("x") + b"Q.", "outside the file"),
        (b"Pposix.system\n.", "operation PERSID"),
        (b"\x80\x04" + text("eval") + text("1") + b"\x85R.", "calls str"),
        (b"\x80\x04" + call(call(ordered)) + b".", "calls dict"),
        (b"\x80\x04" + stack_global("numpy", "ndarray") + b")R.", "calls numpy.ndarray"),
        (
            b"\x80\x04" + stack_global("torch", "FloatStorage") + b")\x81.",
            "calls torch.FloatStorage",
        ),
        (b"\x80\x04]" + b"}" + text("__class__") + text("x") + b"sb.", "state of a list"),
        (b"\x80\x04" + ordered + b"}b.", "state of a Global"),
        (b"\x80\x04" + tensor + b"N\x93.", "no text"),
    ):
        said = assert_refused(data, tmp_path, marker)
        assert says in said, said
    pickle.loads(old)  # the attack is a real one
    assert marker.exists()


def test_states_do_not_become_attributes(foreign, tmp_path):
    """A record keeps what it is given as data, and answers to nothing of it."""
    state = {"__class__": "x", "set_state": "y", "kind": "z", "__dict__": {"a": 1}}
    data = foreign.pickle(lambda _: None, 4)
    namespace = stack_global("argparse", "Namespace")
    data = b"\x80\x04" + namespace + b")\x81" + pickle.dumps(state, protocol=4)[2:-1] + b"b."
    (tmp_path / "x.pkl").write_bytes(data)
    record = read_checkpoint(tmp_path / "x.pkl")
    assert record.state == state and record.kind == "Namespace" and callable(record.set_state)


HUGE = struct.pack("<Q", 1 << 62)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + HUGE + b"x.",
        b"\x80\x04\x8d" + HUGE + b"x.",
        b"\x80\x05\x96" + HUGE + b"x.",
        b"\x80\x04B\xff\xff\xff\xffx.",
        b"\x80\x02\x8b\xff\xff\xff\x7fx.",
        b"\x80\x04\x95" + HUGE + b"N",
        b"\x80\x04Nr\xff\xff\xff\xff",
        b"\x80\x04j\xff\xff\xff\xff.",
        b"\x80\x04N" + b"\x85" * 100_000 + b"}\x94h\x000.",
        b"\x80\x04}N" + b"\x85" * 100_000 + b"Ns.",
        b"\x80\x04\x8f(N" + b"\x85" * 100_000 + b"\x90.",
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x04" + b"}" + b"(" * 100_000 + b"u.",
        b"\x80\x04" + b"N" * 510_000,
        b"I" + b"9" * 100_000 + b"\n.",
    ],
    ids=range(15),
)
def test_sizes_and_depths_do_no_harm(tmp_path, data):
    assert_refused(data, tmp_path, tmp_path / "owned", "damaged|no networks|holds")


def test_references_do_not_multiply(tmp_path):
    """Thirty lists, each twice in the next, are a billion when they are written out."""
    data = b"\x80\x04(]\x94"
    for level in range(30):
        data += b"](" + 2 * (b"h" + bytes([level])) + b"e\x94"
    data += b"t."
    (tmp_path / "x.pkl").write_bytes(data)
    *_, last = loaded(read_checkpoint(tmp_path / "x.pkl"))
    assert last[0] is last[1] and len(last[0]) == 2
    assert_refused(data, tmp_path, tmp_path / "owned", "no networks")


def zipped(pickled, storages=(), compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, data in storages:
            archive.writestr(f"x/data/{name}", data)
    return buffer.getvalue()


def storage_id(kind="FloatStorage", key="0", count=4):
    number = b"\x8a\x08" + struct.pack("<q", count)
    named = b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    return b"(" + text("storage") + named + number + b"tQ"


def tensor_of(storage, offset, shape, stride):
    def numbers(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    start = b"\x8a\x08" + struct.pack("<q", offset)
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return b"\x80\x02" + call(rebuild, storage, start, numbers(shape), numbers(stride)) + b"."


@pytest.mark.parametrize(
    "pickled",
    [
        tensor_of(storage_id(), 0, (5,), (1,)),
        tensor_of(storage_id(), 3, (2,), (1,)),
        tensor_of(storage_id(), 0, (1 << 30, 1 << 30), (0, 0)),
        tensor_of(storage_id(), 0, (-1,), (1,)),
        tensor_of(storage_id(), 0, (2,), (-1,)),
        tensor_of(storage_id(), -1, (2,), (1,)),
        tensor_of(storage_id(), 0, (2, 2), (1,)),
        tensor_of(storage_id(), 0, (1,) * 70, (1,) * 70),
        tensor_of(storage_id(count=1 << 60), 0, (4,), (1,)),
        tensor_of(storage_id(count=-4), 0, (4,), (1,)),
        tensor_of(storage_id(key="1"), 0, (4,), (1,)),
        tensor_of(storage_id(key="../data.pkl"), 0, (4,), (1,)),
        tensor_of(b"N", 0, (4,), (1,)),
        tensor_of(b"K\x07Q", 0, (4,), (1,)),
    ],
    ids=range(14),
)
def test_tensors_that_are_not_in_the_file_are_refused(tmp_path, pickled):
    data = zipped(pickled, [("0", bytes(16))])
    assert_refused(data, tmp_path, tmp_path / "owned", "damaged")


def test_a_whole_tensor_in_the_same_container_is_read(tmp_path):
    values = np.arange(4, dtype="<f4").tobytes()
    file = tmp_path / "x.pt"
    file.write_bytes(zipped(tensor_of(storage_id(), 0, (2, 2), (1, 2)), [("0", values)]))
    assert read_checkpoint(file).load().tolist() == [[0, 2], [1, 3]]


def test_zip_bombs_are_not_unpacked(tmp_path):
    pickled = tensor_of(storage_id(count=1 << 24), 0, (1 << 24,), (1,))
    data = zipped(pickled, [("0", bytes(1 << 26))], zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 20
    assert "compressed" in assert_refused(data, tmp_path, tmp_path / "owned", "damaged")
    whole = bytearray(zipped(pickled, [("0", bytes(16))]))
    place = whole.rfind(b"PK\x01\x02")
    whole[place + 20 : place + 28] = struct.pack("<II", 1 << 26, 1 << 26)
    assert "cut short" in assert_refused(bytes(whole), tmp_path, tmp_path / "owned", "damaged")


def test_names_and_shared_numbers_take_no_memory(foreign, tmp_path):
    """Layers at resolutions without end, and one storage behind thousands of tensors."""
    shared = torch.zeros(1 << 18)
    views = {f"convs.0.{i}.weight": shared[:] for i in range(1000)}
    strengths = {f"convs.{n}.noise.weight": torch.zeros(1) for n in (26, 40, 98)}
    few = {k: v for k, v in foreign.g_ema.items() if not k.startswith("noises")}
    far = {f"convs.{10**14}.conv.weight": torch.zeros(1)}
    mobile = {f"student.layers.{i}.conv2.bias": torch.zeros(4) for i in range(20)}
    mobile["student.conv1.bias"] = torch.zeros(4)
    for content in (
        {"g_ema": views}, {"g_ema": few | strengths}, {"g_ema": few | far}, {"state_dict": mobile},
    ):  # fmt: skip
        assert_refused(
            torch_bytes(content, True), tmp_path, tmp_path / "owned", "facestyle|fit|no place|1024"
        )


def put(index):
    """Into the memo, off the stack."""
    return b"q" + bytes([index]) + b"0"


def get(index):
    return b"h" + bytes([index])


def many(count, *parts):
    """A list of one value again and again."""
    return b"](" + b"".join(parts) * count + b"e."


def binary(data):
    return b"B" + struct.pack("<I", len(data)) + data


def dtype(code):
    return (
        call(stack_global("numpy", "dtype"), text(code))
        + b"(K\x03"
        + text("<")
        + b"NNNK\x00K\x00K\x00tb"
    )


def nested(storage, count=2000):
    """One storage's bytes, opened again and again."""
    load = stack_global("torch.storage", "_load_from_bytes")
    opened = get(1) + get(0) + b"\x85R"
    return b"\x80\x04" + binary(storage) + put(0) + load + put(1) + many(count, opened)


def storage_bytes(count, operations=0):
    """A storage as plain pickles hold it, with so many operations that do nothing."""
    data = torch_bytes(torch.zeros(count)._typed_storage(), False)
    return data[:2] + b"N0" * (operations // 2) + data[2:]


LONG = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000
ARRAY = call(
    stack_global("numpy.core.multiarray", "_reconstruct"), stack_global("numpy", "ndarray"),
    b"K\x00\x85", b"C\x01b",
)  # fmt: skip
NAMESPACE = stack_global("argparse", "Namespace") + b")\x81"
ATTACKS_ON_MEMORY = {
    "text of a device": b"\x80\x04" + LONG + put(0) + b"(" + get(0) * 64 + b"t" + put(1)
    + stack_global("torch", "device") + put(2) + many(500, get(2), get(1), b"R"),
    "lists as a device": b"\x80\x04(K\x00K\x00t" + put(0) + b"".join(
        get(i) + get(i) + b"\x86" + put(i + 1) for i in range(12)
    ) + stack_global("torch", "device") + put(20) + many(50, get(20), get(12), b"\x85R"),
    "numbers that are text": b"\x80\x04" + binary(bytes(999_998) + b"x") + put(0) + dtype("S999999")
    + get(0) + b"\x86" + put(1) + stack_global("numpy.core.multiarray", "scalar") + put(2)
    + many(50, get(2), get(1), b"R"),
    "an array's numbers": b"\x80\x04" + binary(bytes(100_000)) + put(0) + dtype("f4") + put(1)
    + b"(K\x01M\xa8\x61\x85" + get(1) + b"\x89" + get(0) + b"t" + put(2)
    + many(50, ARRAY, get(2), b"b"),
    "a storage's bytes": nested(storage_bytes(10_000)),
    "sets": b"\x80\x04(" + b"".join(text(str(i)) for i in range(64)) + b"t\x85" + put(0)
    + stack_global("builtins", "set") + put(1) + many(2000, get(1), get(0), b"R"),
}  # fmt: skip
ATTACKS_ON_TIME = {
    "operations of storages": nested(storage_bytes(1, 9000), 10),
    "long arguments": b"\x80\x04(" + b"N" * 5000 + b"t" + put(0)
    + stack_global("collections", "OrderedDict") + put(1) + many(100, get(1), get(0), b"R"),
    "long states": b"\x80\x04}(" + b"".join(text(str(i)) + b"N" for i in range(3000)) + b"u" + put(0)
    + NAMESPACE + (get(0) + b"b") * 100 + b".",
    "long keys": b"\x80\x04(" + b"N" * 5000 + b"t" + put(0) + b"}(" + (get(0) + b"N") * 100 + b"u.",
    "long numbers as keys": b"\x80\x04\x8b" + struct.pack("<I", 10_000) + b"\x7f" * 10_000 + put(0)
    + b"}(" + (get(0) + b"N") * 100 + b"u.",
}  # fmt: skip


@pytest.fixture
def scant(monkeypatch):
    """Budgets without what small files have on top, and of a few operations."""
    monkeypatch.setattr(Budget, "of_file", lambda size: Budget(8 * size, 20_000))


@pytest.mark.parametrize("data", ATTACKS_ON_MEMORY.values(), ids=ATTACKS_ON_MEMORY)
def test_what_is_named_again_and_again_takes_no_memory(scant, tmp_path, data):
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises((CheckpointError, ValueError), match=r"more numbers|a text in|a damaged"):
        loaded(read_checkpoint(tmp_path / "x.pkl"))


@pytest.mark.parametrize("data", ATTACKS_ON_TIME.values(), ids=ATTACKS_ON_TIME)
def test_what_is_named_again_and_again_takes_no_time(scant, tmp_path, data):
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"operations, which no|as a key"):
        read_checkpoint(tmp_path / "x.pkl")


def test_one_number_is_not_many_tensors(tmp_path):
    """Strides of 0 make 16,384 numbers of one, 2,000 times."""
    sizes = b"K\x00", b"(K\x80K\x80t", b"(K\x00K\x00t"
    tensor = call(b"ctorch._utils\n_rebuild_tensor_v2\n", storage_id(count=1), *sizes)
    data = zipped(b"\x80\x02" + many(2000, tensor), [("0", bytes(4))])
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(ValueError, match="more numbers"):
        loaded(read_checkpoint(tmp_path / "x.pt"))


def test_members_of_a_zip_do_not_share_their_bytes(tmp_path):
    """Twenty entries of the directory for one member."""
    members = [(str(i), bytes(16 if i == 0 else 0)) for i in range(20)]
    data = zipped(tensor_of(storage_id(key="9"), 0, (4,), (1,)), members)
    _, first, *others = (match.start() for match in re.finditer(b"PK\x01\x02", data))
    shared = bytearray(data)
    for place in others:
        for start, end in ((16, 28), (42, 46)):  # checksum and sizes; where it lies
            shared[place + start : place + end] = data[first + start : first + end]
    assert "lies over" in assert_refused(bytes(shared), tmp_path, tmp_path / "owned", "damaged")


def test_shapes_of_endless_numbers_are_refused(tmp_path):
    endless = b"\x8b" + struct.pack("<I", 1000) + b"\x7f" * 1000
    sizes = b"K\x00", b"(" + endless + b"K\x00t", b"(K\x01K\x01t"
    tensor = call(b"ctorch._utils\n_rebuild_tensor_v2\n", storage_id(), *sizes)
    data = zipped(b"\x80\x02" + tensor + b".", [("0", bytes(16))])
    assert "whole numbers" in assert_refused(data, tmp_path, tmp_path / "owned", "damaged")
    state = b"(K\x01" + endless + b"\x85" + get(0) + b"\x89C\x00tb."
    array = b"\x80\x04" + dtype("f4") + put(0) + ARRAY + state
    assert "numpy array" in assert_refused(array, tmp_path, tmp_path / "owned", "damaged")


def test_an_array_that_is_never_filled_is_refused(tmp_path):
    data = b"\x80\x04}" + text("a.jpg") + ARRAY + b"s."
    assert_refused(data, tmp_path, tmp_path / "owned", "array without numbers")


def test_whole_checkpoints_take_three_times_their_size(monkeypatch, foreign, tmp_path):
    """As bytes, as older text, and as tensors; copies in half precision and optimisers' states included."""
    monkeypatch.setattr(Budget, "of_file", lambda size: Budget(3 * size, 50_000))
    half = {name: tensor.half() for name, tensor in foreign.g_ema.items()}
    optimizer = {"state": {0: {"step": 1, "exp_avg": list(foreign.g_ema.values())}}}
    content = {"g": foreign.g_ema, "g_ema": half, "d": foreign.d, "g_optim": optimizer}
    networks = {"G": foreign.Generator(), "D": foreign.critic, "G_ema": foreign.generator}
    files = [foreign.pickle(lambda _: networks, protocol) for protocol in (0, 2, 4)]
    files += [torch_bytes(content, is_zip) for is_zip in (True, False)]
    for number, data in enumerate(files):
        (tmp_path / "x").write_bytes(data)
        import_checkpoint(tmp_path / "x", tmp_path / str(number))
        loaded(read_checkpoint(tmp_path / "x"))


def test_pickles_of_tensorflow_are_told_apart(tmp_path):
    network = stack_global("dnnlib.tflib.network", "Network") + b")\x81" + b"}b"
    for data in (
        b"\x80\x04" + network * 3 + b"\x87.",
        b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81.",
    ):
        said = assert_refused(
            data, tmp_path, tmp_path / "owned", r"TensorFlow .*legacy\.py --source"
        )
        assert "could run" not in said


@pytest.fixture(scope="module")
def whole_files(foreign):
    """A good file of every container."""
    few = {name: t for name, t in foreign.g_ema.items() if not name.startswith("noises")}
    codes = {"a.jpg": np.ones((1, 8, 8), np.float32), "b.jpg": np.ones((1, 8, 8), np.float32)}
    return {
        "pickle": foreign.pickle(lambda _: {"G_ema": foreign.generator}, 4),
        "zip": torch_bytes({"g_ema": few}, True),
        "legacy": torch_bytes({"g_ema": few}, False),
        "npy": npy(codes),
    }


@pytest.mark.parametrize("container", ["pickle", "zip", "legacy", "npy"])
def test_truncated_files_leave_nothing(whole_files, tmp_path, container):
    data = whole_files[container]
    file = tmp_path / "x"
    places = {*range(0, 12), *(len(data) * i // 12 for i in range(12)), len(data) - 1}
    for length in sorted(places):
        file.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            import_checkpoint(file, tmp_path / "out")
        assert list(tmp_path.iterdir()) == [file]
    file.write_bytes(data)
    import_checkpoint(file, tmp_path / "out")


def test_random_bytes_are_refused(whole_files, tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "x.pkl"
    heads = (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x80\x02", b"\x80\x04\x95", b"\x8a\n")
    for i in range(120):
        file.write_bytes(heads[i % 6] + rng.bytes(int(rng.integers(1, 4000))))
        with pytest.raises(CheckpointError):
            import_checkpoint(file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [file]


def test_flipped_bytes_are_refused_or_read_but_never_run(whole_files, tmp_path):
    """Whatever comes out of a damaged file, it is an error with a name, or tensors."""
    rng = np.random.default_rng(1)
    file = tmp_path / "x"
    for data in whole_files.values():
        for _ in range(40):
            broken = bytearray(data)
            for place in rng.integers(0, min(len(data), 20_000), size=3):
                broken[place] = int(rng.integers(256))
            file.write_bytes(broken)
            with contextlib.suppress(CheckpointError, ValueError):
                loaded(read_checkpoint(file))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x1f\x8b" + zlib.compress(b"x"), "gzip"),
        (b"\x89HDF\r\n", "HDF5"),
    ],
)
def test_other_files_are_told_apart(tmp_path, data, says):
    file = tmp_path / "x.pt"
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=says):
        import_checkpoint(file, tmp_path / "out")


def test_script_programs_are_refused(tmp_path):
    torchscript = tmp_path / "x.pt"
    with zipfile.ZipFile(torchscript, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"x/{name}", pickle.dumps({}))
    with pytest.raises(CheckpointError, match="TorchScript"):
        import_checkpoint(torchscript, tmp_path / "out")


def test_folders_and_absent_files_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pt"):
        with pytest.raises(CheckpointError) as caught:
            import_checkpoint(path, tmp_path / "out")
        assert caught.value.path == path


def test_reading_looks_nothing_up(monkeypatch, whole_files, tmp_path):
    """Not one import happens while a file is read."""
    file = tmp_path / "x"
    for data in whole_files.values():
        file.write_bytes(data)
        read_checkpoint(file)
    imported = []
    real = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *a, **k: (imported.append(name), real(name, *a, **k))[1]
    )  # fmt: skip
    for data in whole_files.values():
        file.write_bytes(data)
        read_checkpoint(file)
    monkeypatch.undo()
    assert not {"torch_utils", "dnnlib", "torch_utils.persistence", "argparse"} & set(imported)
