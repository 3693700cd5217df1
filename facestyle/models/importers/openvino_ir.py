"""OpenVINO's intermediate representation (``.xml`` graph and ``.bin`` constants), read with numpy.

Only what importing weights takes: the layers in topological order, who feeds whom, and constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from facestyle.errors import CheckpointError

__all__ = ["Graph", "Layer", "read_ir"]

DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "i64": np.dtype("<i8"),
    "i32": np.dtype("<i4"),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One node: its type (``"Const"``, ``"Convolution"``, ...), name and input nodes' ids in port order."""

    id: str
    type: str
    name: str
    inputs: tuple[str, ...]


@dataclass(slots=True)
class Graph:
    """A network.

    Attributes:
        layers: by id, in topological order.
        constants: arrays of the ``Const`` layers by id; read-only views of the ``.bin``.
    """

    layers: dict[str, Layer]
    constants: dict[str, npt.NDArray[np.generic]]
    _users: dict[str, list[Layer]] = field(init=False)

    def __post_init__(self) -> None:
        self._users = {id_: [] for id_ in self.layers}
        for layer in self.layers.values():
            for source in layer.inputs:
                self._users[source].append(layer)

    def of_type(self, type_: str) -> Iterator[Layer]:
        """The layers of one type, in topological order."""
        return (layer for layer in self.layers.values() if layer.type == type_)

    def user(self, layer: Layer, type_: str) -> Layer:
        """The one layer of a type that reads this layer's output.

        Raises:
            CheckpointError: there is none, or several.
        """
        found = [user for user in self._users[layer.id] if user.type == type_]
        if len(found) != 1:
            raise CheckpointError(
                f"expected one {type_} after {layer.name!r}, found {len(found)}: another network"
            )
        return found[0]

    def constant_input(self, layer: Layer) -> tuple[str, npt.NDArray[np.generic]]:
        """(name, array) of the one constant that feeds a layer.

        Raises:
            CheckpointError: there is none, or several.
        """
        found = [source for source in layer.inputs if source in self.constants]
        if len(found) != 1:
            raise CheckpointError(
                f"expected one constant into {layer.name!r}, found {len(found)}: another network"
            )
        return self.layers[found[0]].name, self.constants[found[0]]


def read_ir(xml: bytes, weights: bytes) -> Graph:
    """The network that an ``.xml`` and its ``.bin`` describe.

    Raises:
        CheckpointError: the graph is not OpenVINO's, is cut short, or does not fit the constants.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise CheckpointError(f"the OpenVINO graph is damaged: {error}") from error
    try:
        nodes = {node.attrib["id"]: node for node in root.iterfind("layers/layer")}
        feeds: dict[str, dict[int, str]] = {id_: {} for id_ in nodes}
        for edge in root.iterfind("edges/edge"):
            port = int(edge.attrib["to-port"])
            feeds[edge.attrib["to-layer"]][port] = nodes[edge.attrib["from-layer"]].attrib["id"]
        inputs = {id_: tuple(ports[p] for p in sorted(ports)) for id_, ports in feeds.items()}
        order = list(TopologicalSorter(inputs).static_order())
        layers = {
            id_: Layer(id_, nodes[id_].attrib["type"], nodes[id_].attrib["name"], inputs[id_])
            for id_ in order
        }
        constants = {
            id_: _constant(nodes[id_], weights) for id_ in order if layers[id_].type == "Const"
        }
    except (KeyError, ValueError, CycleError) as error:
        raise CheckpointError(f"the OpenVINO graph is damaged: {error!r}") from error
    if not layers:
        raise CheckpointError(f"expected an OpenVINO graph, got <{root.tag}> without layers")
    return Graph(layers, constants)


def _constant(node: ElementTree.Element, weights: bytes) -> npt.NDArray[np.generic]:
    data = node.find("data")
    if data is None:
        raise KeyError("data")
    shape = tuple(int(n) for n in data.attrib["shape"].split(",") if n.strip())
    dtype = DTYPES[data.attrib["element_type"]]
    offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
    count = int(np.prod(shape, dtype=np.int64))
    if size != count * dtype.itemsize:
        raise ValueError(f"{node.attrib['name']}: {size} bytes do not make {shape} of {dtype}")
    if offset < 0 or offset + size > len(weights):
        raise CheckpointError(
            f"the constants end at byte {len(weights)}, but {node.attrib['name']!r} needs "
            f"{offset + size}: the .bin is cut short"
        )
    array: npt.NDArray[np.generic] = np.frombuffer(weights, dtype, count, offset).reshape(shape)
    return array
