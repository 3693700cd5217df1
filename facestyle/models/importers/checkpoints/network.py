"""From tensors to a network that is known to hold them: the common end of every importer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from facestyle.errors import CheckpointError, ConfigError, ran_out, too_little_memory
from facestyle.models.checkpoints import check_fit, load_strict, unfilled
from facestyle.models.importers.checkpoints.safe_pickle import DAMAGE
from facestyle.models.importers.checkpoints.stored import StoredTensor

__all__ = ["LONGEST_NAME", "Part", "fitted", "named_errors", "part_of", "tensors_in"]

LONGEST_NAME = 200
"""Letters of a tensor's name, its modules' included."""

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the networks of a checkpoint, under facestyle's names.

    Attributes:
        name: of its file: "generator", "discriminator", "encoder" or "exemplars".
        architecture: what it is built from.
        config: arguments of its constructor.
        tensors: by name.
        about: what to tell of it: resolution and the like.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    about: dict[str, Any]


@contextmanager
def named_errors(path: Path, expected: str) -> Iterator[None]:
    """Context in which whatever a file's content makes go wrong becomes an error that names the file.

    Args:
        path: of the file.
        expected: which files are imported, for the message.

    Raises:
        CheckpointError: something went wrong.
        DeviceMemoryError: memory ran out, for which the file is not to blame.
    """
    try:
        yield
    except CheckpointError as error:
        if error.path is not None:
            raise
        raise CheckpointError(
            str(error), path=path, missing=error.missing, unexpected=error.unexpected
        ) from error
    except (*DAMAGE, MemoryError, RuntimeError, ConfigError) as error:
        if ran_out(error):
            raise too_little_memory(f"reading {path}", error) from error
        raise CheckpointError(
            f"holds networks of sizes that do not go together ({str(error)[:200]}); {expected}",
            path=path,
        ) from error


def part_of(name: str, net: nn.Module, architecture: str, **about: Any) -> Part:
    """A network as a part; it must have a ``config()``.

    Args:
        name: of its file.
        net: the network.
        architecture: what it is built from.
        about: what else to tell of it.
    """
    config = net.config()  # type: ignore[operator]
    about["parameters"] = sum(parameter.numel() for parameter in net.parameters())
    return Part(
        name=name, architecture=architecture, config=config, tensors=net.state_dict(), about=about
    )


def fitted(make: Callable[[], Net], tensors: Mapping[str, Tensor], path: Path) -> Net:
    """The network with these tensors, none missing and none left over.

    Sizes are compared before memory is taken for them.

    Raises:
        CheckpointError: they are not the network's.
        ConfigError: there is no network of such sizes.
    """
    with torch.device("meta"):
        check_fit(make(), tensors, path=path)
    with unfilled():
        net = make()
    load_strict(net, tensors, path=path)
    return net.eval().requires_grad_(False)


def tensors_in(state: Any, path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a file's state dictionary whose names begin with ``prefix``, without it.

    Raises:
        CheckpointError: it is none.
    """
    if not isinstance(state, dict) or any(len(str(name)) > LONGEST_NAME for name in state):
        raise CheckpointError(f"holds a {type(state).__name__} in place of tensors", path=path)
    tensors = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, StoredTensor):
            raise CheckpointError(f"entry {str(name)!r} is no tensor", path=path)
        if name.startswith(prefix):
            tensors[name.removeprefix(prefix)] = value.load()
    return tensors
