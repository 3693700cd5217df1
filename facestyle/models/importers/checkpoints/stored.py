"""Tensors and arrays of foreign files, and the names that may occur in their pickles.

Hardly anything is copied while a pickle is read: a tensor is a description of bytes in the file until it is asked for.
What is made then is counted against the file's `Budget`, so a small file cannot claim much memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facestyle.models.importers.checkpoints.safe_pickle import (
    Budget,
    ForeignError,
    Global,
    Record,
    Table,
)

__all__ = ["Storage", "StoredArray", "StoredTensor", "loaded", "make_table"]

_SMALL = 1 << 14
"""Elements that a tensor may have even if it repeats its storage."""

_MOST_AXES = 8

_ITEM = 128
"""Bytes that an item of a set takes at most."""

_DTYPES = {
    "BFloat16": torch.bfloat16, "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8,
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "Int": torch.int32,
    "Long": torch.int64, "Short": torch.int16,
}  # fmt: skip


@dataclass(eq=False, slots=True)
class Storage:
    """A block of numbers in a file.

    Attributes:
        dtype: of the numbers.
        count: how many there are.
        budget: of the file.
        data: their bytes, little-endian; None until they are found.
    """

    dtype: torch.dtype
    count: int
    budget: Budget
    data: memoryview | None = None


@dataclass(eq=False, slots=True)
class StoredTensor:
    """A tensor in a file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.stride) or len(self.shape) > _MOST_AXES:
            raise ValueError("a tensor's shape and strides do not fit")
        if not _are_sizes((self.offset, *self.shape, *self.stride)):
            raise ValueError("a tensor's shape is not made of whole numbers")
        if self.offset + self.span > self.storage.count:
            raise ValueError(f"a tensor of shape {list(self.shape)} reaches beyond its storage")
        if math.prod(self.shape) > max(self.span, _SMALL):
            raise ValueError(f"a tensor claims the shape {list(self.shape)} without the numbers")

    @property
    def span(self) -> int:
        """Numbers from the first to the last element."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in steps)

    def load(self) -> Tensor:
        """The tensor, in memory of its own, contiguous."""
        dtype = self.storage.dtype
        if self.span == 0:
            return torch.empty(self.shape, dtype=dtype)
        assert self.storage.data is not None
        self.storage.budget.take(max(self.span, math.prod(self.shape)) * dtype.itemsize)
        first = self.offset * dtype.itemsize
        piece = self.storage.data[first : first + self.span * dtype.itemsize]
        flat = torch.frombuffer(bytearray(piece), dtype=dtype)
        return flat.as_strided(self.shape, self.stride).contiguous()


def _are_sizes(numbers: Sequence[Any]) -> bool:
    """Whether all are whole numbers that a length can be; longer ones would take their time."""
    return all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)


@dataclass(eq=False, slots=True)
class _Dtype:
    """A numpy dtype as pickled: its letter and size, then, as state, its byte order."""

    code: str
    order: str = "<"

    def __post_init__(self) -> None:
        if not isinstance(self.code, str) or not re.fullmatch(
            r"[<>|=]?([biufc]\d{1,2}|O8?|[US]\d{1,6})", self.code
        ):
            raise ValueError("a numpy dtype that no checkpoint has")
        self.code = self.code.lstrip("<>|=")

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[1] not in ("<", ">", "|", "=") or state[3]:
            raise ValueError("a numpy dtype that no checkpoint has")
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order.replace("|", "<") + self.code)


@dataclass(eq=False, slots=True)
class StoredArray:
    """A numpy array as pickled."""

    budget: Budget
    shape: tuple[int, ...] = ()
    dtype: _Dtype | None = None
    is_fortran: bool = False
    content: Any = b""

    def set_state(self, state: Any) -> None:
        """Take over what numpy pickles of an array."""
        _, shape, dtype, is_fortran, content = state
        is_shape = isinstance(shape, tuple) and len(shape) <= _MOST_AXES and _are_sizes(shape)
        if not is_shape or not isinstance(dtype, _Dtype):
            raise ValueError("a damaged numpy array")
        if not isinstance(content, list if dtype.code.startswith("O") else bytes):
            raise ValueError("a damaged numpy array")
        self.shape, self.dtype, self.is_fortran, self.content = shape, dtype, is_fortran, content

    def load(self) -> Any:
        """The array; of an array of one object, the object."""
        if self.dtype is None:
            raise ValueError("a numpy array without numbers")
        if isinstance(self.content, list):
            if self.shape != () or len(self.content) != 1:
                raise ValueError("an array of objects")
            return self.content[0]
        self.budget.take(len(self.content))
        flat = np.frombuffer(self.content, self.dtype.numpy())
        order = "F" if self.is_fortran else "C"
        return flat.reshape(self.shape, order=order).copy()  # type: ignore[call-overload]


def _make_scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
        raise ValueError("a damaged number")
    if dtype.code[0] not in "biufc":
        raise ValueError("a text in place of a number")
    (value,) = np.frombuffer(content, dtype.numpy())
    return value.item()


def _make_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *_: Any, **__: Any
) -> StoredTensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple | list):
        raise ValueError("a damaged tensor")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _make_parameter(data: Any, *_: Any) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise ValueError("a parameter that is no tensor")
    return data


def _make_device(*parts: Any) -> str:
    """Such as "cuda:0"."""
    if len(parts) > 2 or not all(map(_is_short, parts)):
        raise ValueError("a damaged device")
    return ":".join(str(part)[:32] for part in parts)


def _is_short(item: Any) -> bool:
    """Whether it is a text, or a number that is quick to hash and to write out."""
    return isinstance(item, str) or (isinstance(item, int) and item.bit_length() <= 64)


def _make_empty(*arguments: Any) -> dict[str, Any]:
    """A dictionary whose items follow in the stream."""
    if any(arguments):
        raise ValueError("a damaged dictionary")
    return {}


def _make_tensorflow_network(*_: Any) -> Any:
    raise ForeignError(
        "is a pickle of NVIDIA's TensorFlow code; if you trust it, convert it with their stylegan2-ada-pytorch, which "
        "opens it as Python does and knows StyleGAN2: python legacy.py --source=OLD.pkl --dest=NEW.pkl"
    )


class _Calls:
    """Functions that draw on the file's budget."""

    def __init__(self, storage_of: Callable[[bytes], Storage], budget: Budget) -> None:
        self.storage_of = storage_of
        self.budget = budget

    def array(self, kind: Any, shape: Any, letter: Any) -> StoredArray:
        if kind != "ndarray":
            raise ValueError("an array of a foreign class")
        return StoredArray(self.budget)

    def storage(self, content: Any) -> Storage:
        """The storage in the bytes that a plain pickle keeps of it."""
        if not isinstance(content, bytes):
            raise ValueError("a damaged storage")
        self.budget.take(len(content))
        return self.storage_of(content)

    def encode(self, text: Any, encoding: Any) -> bytes:
        """Text to bytes, as older protocols write them."""
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("damaged bytes")
        self.budget.take(len(text))
        return text.encode("latin1")

    def few(self, items: Any = ()) -> Sequence[Any]:
        """The items of a small set or size."""
        if not isinstance(items, tuple | list) or len(items) > 64:
            raise ValueError("a damaged set")
        if not all(map(_is_short, items)):
            raise ValueError("a damaged set")
        self.budget.take(_ITEM * len(items))
        return items

    def persistent(self, meta: Any) -> Record:
        """A module of NVIDIA's; the source text that comes with it is left where it is."""
        if not isinstance(meta, dict) or meta.get("type") != "class":
            raise ValueError("a damaged module")
        if not isinstance(name := meta.get("class_name"), str):
            raise ValueError("a damaged module")
        state = meta.get("state")
        self.budget.work(len(state) if isinstance(state, dict) else 0)
        record = Record(name)
        record.set_state(state)
        return record


def make_table(storage_of: Callable[[bytes], Storage], budget: Budget) -> Table:
    """The names that may occur, for one file.

    Args:
        storage_of: reads the storage in the bytes that a plain pickle keeps of it.
        budget: what the file may still take.
    """
    calls = _Calls(storage_of, budget)
    functions: dict[str, Callable[..., Any]] = {
        "torch_utils.persistence._reconstruct_persistent_obj": calls.persistent,
        "dnnlib.tflib.network.Network": _make_tensorflow_network,
        "dnnlib.util.EasyDict": _make_empty,
        "collections.OrderedDict": _make_empty,
        "argparse.Namespace": lambda: Record("Namespace"),
        "pytorch_lightning.utilities.parsing.AttributeDict": _make_empty,
        "addict.addict.Dict": _make_empty,
        "torch.storage._load_from_bytes": calls.storage,
        "torch._utils._rebuild_tensor_v2": _make_tensor,
        "torch._utils._rebuild_tensor": _make_tensor,
        "torch._utils._rebuild_parameter": _make_parameter,
        "torch.Size": lambda items=(): tuple(calls.few(items)),
        "torch.device": _make_device,
        "numpy.dtype": lambda code, *_: _Dtype(code),
        "_codecs.encode": calls.encode,
    }
    for module in ("builtins", "__builtin__"):
        functions[f"{module}.set"] = lambda items=(): set(calls.few(items))
        functions[f"{module}.frozenset"] = lambda items=(): frozenset(calls.few(items))
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        functions[f"{module}._reconstruct"] = calls.array
        functions[f"{module}.scalar"] = _make_scalar
    constants: dict[str, Any] = {
        "numpy.ndarray": "ndarray",
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": "ModelCheckpoint",
    }
    constants |= {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()}
    constants |= {str(dtype): dtype for dtype in _DTYPES.values()}
    made = [Global(name, make=function) for name, function in functions.items()]
    made += [Global(name, value=value) for name, value in constants.items()]
    return {_split(item.name): item for item in made}


def _split(name: str) -> tuple[str, str]:
    module, _, last = name.rpartition(".")
    return module, last


def loaded(content: Any) -> Any:
    """Plain containers with all stored tensors and arrays in them loaded; foreign objects stay `Record` objects.

    What occurs several times in the content is loaded once.

    Raises:
        ValueError: an array holds objects.
        RecursionError: the containers are nested without end.
    """
    known: dict[int, Any] = {}

    def load(item: Any) -> Any:
        if id(item) not in known:
            known[id(item)] = load_new(item)
        return known[id(item)]

    def load_new(item: Any) -> Any:
        if isinstance(item, StoredTensor):
            return item.load()
        if isinstance(item, StoredArray):
            return load(item.load()) if isinstance(item.content, list) else item.load()
        if isinstance(item, dict):
            return {key: load(value) for key, value in item.items()}
        if isinstance(item, list | tuple):
            return type(item)(load(value) for value in item)
        return item.value if isinstance(item, Global) else item

    return load(content)
