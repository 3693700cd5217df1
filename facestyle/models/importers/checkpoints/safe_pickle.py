"""A pickle reader that cannot run what it reads.

Python's own unpickler looks names up in modules and calls what it finds. This one follows the same instructions (parsed
by the standard library's ``pickletools``, which executes nothing) on values of its own: a name in the stream is a key
into a table, a call is a call of a function in that table, and everything else is refused by name. Attributes are never
looked up, classes never made, dotted names and extension codes never followed.

What a stream may take of memory and time is its file's `Budget`, on which the streams within it draw too.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "DAMAGE", "Budget", "ForeignError", "Global", "Record", "RefusedError", "Stream", "Table",
    "read_pickle",
]  # fmt: skip

_MOST_OPERATIONS = 500_000
"""NVIDIA's snapshot of three networks has 61,000, most of them in its storages; each may take memory."""

_MOST_PARTS = 8
"""Of a key that is a tuple."""

DAMAGE = (
    EOFError, ValueError, TypeError, KeyError, IndexError, ArithmeticError, RecursionError,
    AttributeError, struct.error,
)  # fmt: skip
"""What reading damaged bytes raises, here or in pickletools."""


class RefusedError(Exception):
    """The stream asks for something that no checkpoint needs and that could run code."""


class ForeignError(Exception):
    """The stream is harmless and of a program whose files are not read; the message says what to do."""


@dataclass(eq=False, slots=True)
class Budget:
    """What may still be made of one file, however often it asks for the same bytes.

    A whole checkpoint takes three times its size at most: as bytes in the pickle, as text where these are older, and as
    tensors.

    Attributes:
        size: of it, in bytes.
        operations: of its pickles, with the items that they hand to calls and states.
    """

    size: int
    operations: int = _MOST_OPERATIONS

    @classmethod
    def of_file(cls, size: int) -> Budget:
        """For a file of ``size`` bytes."""
        return cls(8 * size + (64 << 20))

    def take(self, size: int) -> None:
        """Count bytes that are about to be made.

        Raises:
            ValueError: the file has no more to claim.
        """
        self.size -= size
        if self.size < 0:
            raise ValueError("it claims more numbers than a file of its size has")

    def work(self, operations: int = 1) -> None:
        """Count what is about to be done.

        Raises:
            ValueError: the file has no more to claim.
        """
        self.operations -= operations
        if self.operations < 0:
            raise ValueError(f"more than {_MOST_OPERATIONS:,} operations, which no checkpoint has")


class Stream(Protocol):
    """What a pickle is read from: an open file, `io.BytesIO` or a memory map."""

    def read(self, count: int = -1, /) -> bytes:
        """The next ``count`` bytes, or fewer at the end."""

    def readline(self) -> bytes:
        """The next bytes up to a line's end."""

    def tell(self) -> int:
        """Position."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that may stand in a stream.

    Attributes:
        name: as in the stream, module and all.
        make: called in place of what the name means; None if it may be named and not called.
        value: what the name stands for where it is not called.
    """

    name: str
    make: Callable[..., Any] | None = None
    value: Any = None


Table = Mapping[tuple[str, str], Global]


@dataclass(eq=False, slots=True)
class Record:
    """An object of a foreign class: its name and its fields, without behaviour."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        """Take the object's fields over."""
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise ValueError(f"the state of a {self.kind} is no dictionary of names")
        self.state = state


def read_pickle(
    stream: Stream,
    table: Table,
    budget: Budget,
    *,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The object that the next pickle of the stream describes; the stream then stands behind it.

    Args:
        stream: what is read.
        table: the names that may occur.
        budget: what the file may still take.
        persistent: gives the object of a persistent id, which torch uses for storages.

    Raises:
        RefusedError: it asks for a name that is not in the table, or calls what may not be called.
        Exception: one of `DAMAGE`, where the bytes are no pickle or a truncated one.
    """
    return _Machine(table, budget, persistent).run(stream)


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()


class _Machine:
    def __init__(
        self, table: Table, budget: Budget, persistent: Callable[[Any], Any] | None
    ) -> None:
        self.table = table
        self.budget = budget
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: Stream) -> Any:
        for operation, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            self.budget.work()
            name = operation.name
            if name == "STOP":
                (result,) = self.stack
                return result
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name not in _NOTHING:
                raise RefusedError(f"uses the pickle operation {name}, which no checkpoint needs")
        raise EOFError("the pickle has no end")

    def pop(self) -> Any:
        if self.stack and self.stack[-1] is _MARK:
            raise ValueError("a mark in place of a value")
        return self.stack.pop()

    def pop_group(self) -> list[Any]:
        """The values behind the last mark."""
        start = len(self.stack) - 1
        while start >= 0 and self.stack[start] is not _MARK:
            start -= 1
        if start < 0:
            raise ValueError("no mark on the stack")
        group = self.stack[start + 1 :]
        del self.stack[start:]
        return group

    def last(self, kind: type[Any]) -> Any:
        """The topmost value, which must be of a kind."""
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {type(self.stack[-1]).__name__} in place of a {kind.__name__}")
        return self.stack[-1]

    def fill(self, target: dict[Any, Any], group: list[Any]) -> None:
        if len(group) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(group[::2], group[1::2], strict=True):
            target[_hashable(key)] = value

    def look_up(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("asks for something whose name is no text")
        found = self.table.get((module, name))
        if found is None:
            shown = f"{module[:200]}.{name[:200]}".encode("unicode_escape").decode("ascii")
            raise RefusedError(f"asks for {shown}")
        self.stack.append(found)

    def call(self, arguments: Any) -> None:
        function = self.pop()
        if not isinstance(function, Global) or function.make is None:
            what = function.name if isinstance(function, Global) else type(function).__name__
            raise RefusedError(f"calls {what}, which is nothing to be called")
        if not isinstance(arguments, tuple):
            raise ValueError("the arguments of a call are no tuple")
        self.budget.work(len(arguments))
        self.stack.append(function.make(*(_plain(item) for item in arguments)))

    def build(self, state: Any) -> None:
        target = self.stack[-1]
        self.budget.work(len(state) if isinstance(state, dict | tuple) else 0)
        if hasattr(type(target), "set_state"):
            target.set_state(state)
        elif not isinstance(
            target, dict
        ):  # a dictionary's attributes, such as torch's _metadata, are left out
            raise RefusedError(f"sets the state of a {type(target).__name__}")

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]


def _plain(value: Any) -> Any:
    """A named constant's value; other values as they are."""
    return value.value if isinstance(value, Global) and value.make is None else value


def _hashable(key: Any) -> Any:
    """A key that is safe to hash: deep tuples would exhaust the stack, long ones and long numbers take their time.

    A class as a key becomes its name.
    """
    if isinstance(key, Global):
        return key.name
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > _MOST_PARTS or not all(map(_is_plain, parts)):
        raise ValueError(f"a {type(key).__name__} as a key")
    return key


def _is_plain(part: Any) -> bool:
    if isinstance(part, int):
        return part.bit_length() <= 64
    return part is None or isinstance(part, str | bytes | float)


def _set_items(machine: _Machine, _: Any) -> None:
    group = machine.pop_group()
    machine.fill(machine.last(dict), group)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.fill(machine.last(dict), [key, value])


def _make_dict(machine: _Machine, _: Any) -> None:
    made: dict[Any, Any] = {}
    machine.fill(made, machine.pop_group())
    machine.stack.append(made)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    machine.last(list).append(value)


def _appends(machine: _Machine, _: Any) -> None:
    group = machine.pop_group()
    machine.last(list).extend(group)


def _add_items(machine: _Machine, _: Any) -> None:
    group = machine.pop_group()
    machine.last(set).update(_hashable(item) for item in group)


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return make


def _find(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.look_up(module, name)


def _find_on_stack(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.look_up(module, name)


def _persistent(machine: _Machine, _: Any) -> None:
    if machine.persistent is None:
        raise RefusedError("refers to objects outside the file")
    machine.stack.append(machine.persistent(machine.pop()))


_VALUES = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
_NOTHING = frozenset(("PROTO", "FRAME"))
_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_group(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_group()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_group())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "FROZENSET": lambda machine, _: machine.stack.append(
        frozenset(_hashable(item) for item in machine.pop_group())
    ),
    "DICT": _make_dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "ADDITEMS": _add_items,
    "GET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "PUT": lambda machine, index: machine.remember(index),
    "BINPUT": lambda machine, index: machine.remember(index),
    "LONG_BINPUT": lambda machine, index: machine.remember(index),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GLOBAL": _find,
    "STACK_GLOBAL": _find_on_stack,
    "REDUCE": lambda machine, _: machine.call(machine.pop()),
    "NEWOBJ": lambda machine, _: machine.call(machine.pop()),
    "BUILD": lambda machine, _: machine.build(machine.pop()),
    "BINPERSID": _persistent,
}
