"""An affine change of W of few directions, learned for a style so that its portraits are more like their people.

A finetuned generator draws what tells people apart (brows, jaws, glasses, age) more weakly than G does. Codes that have
more of it make up for that. The change is linear, and so is the layer that every code meets first: it is worked into
those layers when a style is loaded, and costs nothing then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from facestyle.errors import CheckpointError
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.mobile import HaarUp
from facestyle.models.stylegan2_generator import EqualLinear

__all__ = ["LatentMap"]

_FORMAT = "facestyle-latent-map"


@dataclass(frozen=True, slots=True, eq=False)
class LatentMap:
    """``w + (w - centre) @ down @ up``.

    Attributes:
        centre: [w_dim], the code that stays as it is.
        down: [w_dim, rank], what is read of a code.
        up: [rank, w_dim], where that leads.
    """

    centre: Tensor
    down: Tensor
    up: Tensor

    def __post_init__(self) -> None:
        w_dim, rank = self.down.shape
        if self.centre.shape != (w_dim,) or self.up.shape != (rank, w_dim):
            shapes = [list(part.shape) for part in (self.centre, self.down, self.up)]
            raise CheckpointError(f"no map of W: its parts have the shapes {shapes}")

    def __call__(self, w: Tensor) -> Tensor:
        """Codes [..., w_dim] to codes, likewise."""
        return w + (w - self.centre) @ self.down @ self.up

    def balanced(self) -> LatentMap:
        """The same map, ``down`` and ``up`` of equal scale and in order of weight: float16 loses least of it then."""
        left, sizes, right = torch.linalg.svd(self.down.double() @ self.up.double())
        rank = self.down.shape[1]
        root = sizes[:rank].sqrt()
        return LatentMap(
            self.centre,
            (left[:, :rank] * root).to(self.down),
            (root[:, None] * right[:rank]).to(self.up),
        )

    def work_into(self, synthesis: nn.Module, share: float = 1.0) -> None:
        """Change every layer that meets a code, so that the network draws of ``w`` what it drew of the mapped one.

        Args:
            synthesis: of a generator; changed.
            share: of the change of the codes; 0 changes nothing, above 1 goes on past what was learned.

        Raises:
            CheckpointError: the network's codes have another size.
        """
        layers = list(_layers(synthesis))
        for layer in layers:
            if layer.weight.shape[1] != len(self.centre):
                raise CheckpointError(
                    f"a map of {len(self.centre)} numbers does not fit codes of {layer.weight.shape[1]}"
                )
        change = share * (self.down.double() @ self.up.double())  # w' = w + (w - centre) @ change
        moved = -self.centre.double() @ change
        with torch.no_grad():
            for layer in layers:
                weight = layer.weight.cpu().double()
                # An EqualLinear scales weight and bias, each by its own factor.
                unit = layer.gain / layer.rate if isinstance(layer, EqualLinear) else 1.0
                layer.bias.copy_(layer.bias.cpu().double() + unit * (weight @ moved))
                layer.weight.copy_(weight + weight @ change.T)

    def save(self, path: str | Path) -> None:
        """Write it in float16, about 2 kB a direction.

        Raises:
            OutputError: it cannot be written.
        """
        part = self.balanced()
        save_tensors(
            {"centre": part.centre, "down": part.down, "up": part.up},
            path,
            metadata={"format": _FORMAT, "version": "1"},
            dtype=torch.float16,
        )

    @classmethod
    def from_file(cls, path: str | Path) -> LatentMap:
        """Read what :meth:`save` wrote, as float32.

        Raises:
            CheckpointError: absent, damaged, or something else.
        """
        tensors = read_tensors(path)
        if read_metadata(path).get("format") != _FORMAT or tensors.keys() != {
            "centre",
            "down",
            "up",
        }:
            raise CheckpointError("is no map of codes that facestyle learned", path=path)
        parts = {name: tensor.float() for name, tensor in tensors.items()}
        if not all(bool(torch.isfinite(part).all()) for part in parts.values()):
            raise CheckpointError("holds NaN or infinity; the file is damaged", path=path)
        try:
            return cls(**parts)
        except (CheckpointError, ValueError) as error:
            raise CheckpointError(f"is damaged ({error})", path=path) from error


def _layers(synthesis: nn.Module) -> Iterator[nn.Linear | EqualLinear | HaarUp]:
    """All layers of a synthesis network that meet a code; of each, ``weight`` is [C, w_dim]."""
    for module in synthesis.modules():
        if isinstance(module, HaarUp):
            yield module
        elif isinstance(affine := getattr(module, "affine", None), nn.Linear | EqualLinear):
            yield affine
