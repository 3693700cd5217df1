"""The files that checkpoints come in: torch's two formats, plain pickles, numpy's npy."""

from __future__ import annotations

import io
import mmap
import struct
import tokenize
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facestyle.errors import CheckpointError, memory_named
from facestyle.models.importers.checkpoints.safe_pickle import (
    DAMAGE,
    Budget,
    ForeignError,
    Global,
    RefusedError,
    Stream,
    read_pickle,
)
from facestyle.models.importers.checkpoints.stored import Storage, StoredArray, make_table

__all__ = ["read_checkpoint"]

_MAGIC = 0x1950A86A20F9469CFC6C
"""First object of a torch file before version 1.6."""

_LOCAL_HEADER = 30
"""Bytes before a zip member's name."""

_CONTAINER_DAMAGE = (
    zipfile.BadZipFile, NotImplementedError, SyntaxError, tokenize.TokenError
)  # fmt: skip
"""What zipfile and numpy raise over damaged directories and headers, besides `DAMAGE`."""

_OTHER_FILES = (
    (b"<", "is a web page, not the file itself: a download that asked for a confirmation or was refused; get it anew"),
    (b"version https://git-lfs", "is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"\x1f\x8b", "is packed with gzip; unpack it first"),
    (b"\x89HDF", "is an HDF5 file, which holds no torch networks"),
)  # fmt: skip


def read_checkpoint(path: str | Path) -> Any:
    """Content of a ``.pt``, ``.pth``, ``.ckpt``, ``.pkl`` or ``.npy`` file, whatever it is called.

    Nothing in it is executed. Tensors and arrays are ``StoredTensor`` and ``StoredArray`` objects, whose ``load``
    reads them; foreign objects are ``Record`` objects.

    Raises:
        CheckpointError: it is absent, damaged, of another format, claims more than it holds, or asks for something that
            could run code.
        DeviceMemoryError: memory ran out.
    """
    try:
        with open(path, "rb") as file:
            if not file.seek(0, io.SEEK_END):
                raise CheckpointError("is empty; download it again", path=path)
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", path=path) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", path=path) from error
    if _is_safetensors(content):
        raise CheckpointError(
            "is a safetensors file already, and import converts others; a style or an import of facestyle's is used by "
            "its folder (--style FOLDER), and of another program's network import the .pkl, .pt or .ckpt that it was "
            "made of",
            path=path,
        )
    head = content[:64].lstrip()
    for start, says in _OTHER_FILES:
        if head.startswith(start):
            raise CheckpointError(says, path=path)
    try:
        with memory_named(f"reading {path}"):
            return _Reader(len(content)).read(content)
    except ForeignError as error:
        raise CheckpointError(str(error), path=path) from error
    except RefusedError as error:
        raise CheckpointError(
            f"{error} and is refused, because opening it could run code", path=path
        ) from error
    except (*DAMAGE, *_CONTAINER_DAMAGE) as error:
        said = str(error) or type(error).__name__
        raise CheckpointError(
            f"is damaged, truncated, or no checkpoint ({said[:200]}); download it again", path=path
        ) from error


def _is_safetensors(content: mmap.mmap) -> bool:
    """Whether it begins with the length of a header, and the header with a brace."""
    size = int.from_bytes(content[:8], "little")
    return content[8:9] == b"{" and 2 <= size <= len(content) - 8


class _Reader:
    """Reads one file, within its budget."""

    def __init__(self, size: int) -> None:
        self.budget = Budget.of_file(size)
        self.table = make_table(self.nested_storage, self.budget)

    def read(self, content: mmap.mmap) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in damaged text
            if content[:4] == b"PK\x03\x04":
                return self.read_zip(content)
            if content[:6] == b"\x93NUMPY":
                return self.read_npy(content)
            return self.read_stream(content, memoryview(content))

    def pickle(self, stream: Stream, persistent: Callable[[Any], Any] | None = None) -> Any:
        return read_pickle(stream, self.table, self.budget, persistent=persistent)

    def plain(self, stream: Stream) -> Any:
        """The next pickle, which may name nothing."""
        return read_pickle(stream, {}, self.budget)

    def read_stream(self, stream: Stream, data: memoryview) -> Any:
        """A plain pickle, or torch's format before 1.6, which begins with one.

        Args:
            stream: of the bytes.
            data: the same bytes.
        """
        first = self.pickle(stream)
        return self.read_legacy(stream, data) if first == _MAGIC else first

    def nested_storage(self, content: bytes) -> Storage:
        """The storage that a plain pickle holds as a whole torch file."""
        stream = io.BytesIO(content)
        if self.plain(stream) != _MAGIC:
            raise ValueError("a storage of an unknown format")
        storage = self.read_legacy(stream, memoryview(content))
        if not isinstance(storage, Storage):
            raise ValueError("a damaged storage")
        return storage

    def read_legacy(self, stream: Stream, data: memoryview) -> Any:
        """What stands behind the magic number: version, machine, content, order of the storages, the storages."""
        version, machine = self.plain(stream), self.plain(stream)
        if (
            version != 1001
            or not isinstance(machine, dict)
            or machine.get("little_endian") is not True
        ):
            raise ValueError("a torch file of an unknown version or machine")
        storages: dict[str, Storage] = {}

        def find(identity: Any) -> Storage:
            key, storage = _described(identity, self.budget)
            known = storages.setdefault(key, storage)
            if (known.dtype, known.count) != (storage.dtype, storage.count):
                raise ValueError("two storages of one name")
            return known

        content = self.pickle(stream, find)
        keys = self.plain(stream)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("a damaged list of storages")
        if sorted(keys) != sorted(storages):
            raise ValueError("storages are missing")
        place = stream.tell()
        for key in keys:
            storage = storages[key]
            (count,) = struct.unpack_from("<q", data, place)
            size = storage.count * storage.dtype.itemsize
            if count != storage.count or place + 8 + size > len(data):
                raise ValueError(f"a storage of {storage.count:,} numbers is cut short")
            storage.data = data[place + 8 : place + 8 + size]
            place += 8 + size
        return content

    def read_zip(self, content: mmap.mmap) -> Any:
        """Torch's format since 1.6: a zip of a pickle and one uncompressed file a storage."""
        data = memoryview(content)
        with zipfile.ZipFile(content) as archive:  # type: ignore[call-overload]
            _check_apart(archive.infolist())
            entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("a zip file without a pickle of torch's")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise RefusedError("is a TorchScript program")

        def member(name: str) -> memoryview:
            return _member(entries[name], data)

        if f"{root}byteorder" in entries and bytes(member(f"{root}byteorder")) != b"little":
            raise ValueError("a file of a big-endian machine")
        storages: dict[str, Storage] = {}

        def find(identity: Any) -> Storage:
            key, storage = _described(identity, self.budget)
            if key in storages:
                return storages[key]
            storage.data = member(f"{root}data/{key}")
            if len(storage.data) != storage.count * storage.dtype.itemsize:
                raise ValueError(f"storage {key} has {len(storage.data):,} bytes")
            storages[key] = storage
            return storage

        return self.pickle(io.BytesIO(member(pickles[0])), find)

    def read_npy(self, content: mmap.mmap) -> Any:
        """A numpy array, or the objects pickled in its place."""
        stream = io.BytesIO(content[:])
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read_header(stream)
        if not dtype.hasobject:
            flat = np.frombuffer(stream.read(), dtype)
            return flat.reshape(shape, order="F" if is_fortran else "C").copy()
        if shape != ():
            raise ValueError("an array of objects")
        found = self.pickle(stream)
        return found.load() if isinstance(found, StoredArray) else found


def _described(identity: Any, budget: Budget) -> tuple[str, Storage]:
    """Key and storage of a persistent id: ("storage", class, key, device, count), in old files with None behind."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("an unknown kind of object outside the pickle")
    _, kind, key, _, count, *view = identity
    if (
        not isinstance(kind, Global)
        or not kind.name.endswith("Storage")
        or view not in ([], [None])
    ):
        raise ValueError("an unknown kind of storage")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("a damaged storage")
    return key, Storage(kind.value, count, budget)


def _check_apart(members: list[zipfile.ZipInfo]) -> None:
    """Whether no two members of a zip claim the same bytes.

    Raises:
        ValueError: two do.
    """
    place = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < place:
            raise ValueError(f"{info.filename[:100]} lies over another member")
        place = info.header_offset + _LOCAL_HEADER + info.compress_size


def _member(info: zipfile.ZipInfo, data: memoryview) -> memoryview:
    """Bytes of an uncompressed member of a zip."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename} is compressed, claiming {info.file_size:,} bytes")
    start = info.header_offset
    name_size, extra_size = struct.unpack_from("<HH", data, start + 26)
    start += _LOCAL_HEADER + name_size + extra_size
    if start + info.file_size > len(data):
        raise ValueError(f"{info.filename} is cut short")
    return data[start : start + info.file_size]
