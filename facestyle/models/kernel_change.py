"""A change of convolutions' weights, kernels and biases, in small numbers: what a finished style learned since.

It is added to them when the style is loaded, and costs nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from facestyle.errors import CheckpointError
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors

__all__ = ["KernelChange"]

_FORMAT = "facestyle-kernel-change"
_STEP = 0.25
"""Between the numbers that a file can hold, in a kernel's root mean square change."""
_UNIT = ".unit"
"""Ends the name of the factor of a kernel's numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelChange:
    """What is added to some of a network's kernels.

    Attributes:
        parts: by the kernel's name in the synthesis network, of its shape.
    """

    parts: Mapping[str, Tensor]

    def work_into(self, synthesis: nn.Module, share: float = 1.0) -> None:
        """Change a network's kernels.

        Args:
            synthesis: of a generator; changed.
            share: of the change; 0 changes nothing, above 1 goes on past what was learned.

        Raises:
            CheckpointError: the network has no such kernel, or one of another shape.
        """
        kernels = dict(synthesis.named_parameters())
        for name, part in self.parts.items():
            if name not in kernels:
                raise CheckpointError(f"the network has no {name} for a change of kernels")
            if part.shape != kernels[name].shape:
                raise CheckpointError(
                    f"a change of {list(part.shape)} does not fit {name} of {list(kernels[name].shape)}"
                )
        with torch.no_grad():
            for name, part in self.parts.items():
                kernels[name].add_(part.to(kernels[name]), alpha=share)

    def save(self, path: str | Path) -> None:
        """Write it in whole numbers of a quarter of each kernel's root mean square change, a byte each.

        Raises:
            OutputError: it cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            unit = (_STEP * part.square().mean().sqrt()).clamp(min=torch.finfo(torch.float32).tiny)
            tensors[name] = (part / unit).round().clamp(-127, 127).to(torch.int8)
            tensors[name + _UNIT] = unit.float().reshape(1)
        save_tensors(tensors, path, metadata={"format": _FORMAT, "version": "1"})

    @classmethod
    def from_file(cls, path: str | Path) -> KernelChange:
        """Read what :meth:`save` wrote, as float32.

        Raises:
            CheckpointError: absent, damaged, or something else.
        """
        tensors = read_tensors(path)
        names = [name for name in tensors if not name.endswith(_UNIT)]
        whole = tensors.keys() == {*names, *(name + _UNIT for name in names)}
        if not whole or read_metadata(path).get("format") != _FORMAT:
            raise CheckpointError("is no change of kernels that facestyle learned", path=path)
        # A factor of many numbers would make far more of a kernel than the file holds.
        for name in names:
            if tensors[name + _UNIT].shape != (1,):
                shape = list(tensors[name + _UNIT].shape)
                raise CheckpointError(f"has a {name + _UNIT} of {shape}, not one number", path=path)
        parts = {name: tensors[name].float() * tensors[name + _UNIT].float() for name in names}
        if not all(bool(torch.isfinite(part).all()) for part in parts.values()):
            raise CheckpointError("holds NaN or infinity; the file is damaged", path=path)
        return cls(parts)
