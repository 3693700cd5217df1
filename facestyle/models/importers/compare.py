"""Do rebuilt weights equal a stored file's?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["differences"]

ADDED = "synthesis.to_preview."
"""The cheap image head of the bundled generator: fitted by facestyle, in no package."""


def differences(rebuilt: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> list[str]:
    """One line for every tensor of a rebuilt set that the stored set does not hold bit for bit.

    Stored fp16 is compared with the rebuilt values rounded to fp16. The bundled generator's preview
    head is no difference: no package has it.
    """
    extra = sorted(name for name in stored.keys() - rebuilt.keys() if not name.startswith(ADDED))
    lines = [f"{name}: only in the file" for name in extra]
    for name, ours in sorted(rebuilt.items()):
        theirs = stored.get(name)
        if theirs is None:
            lines.append(f"{name}: missing in the file")
        elif theirs.shape != ours.shape:
            lines.append(f"{name}: expected shape {list(ours.shape)}, found {list(theirs.shape)}")
        elif theirs.is_floating_point() != ours.is_floating_point():
            lines.append(f"{name}: expected {ours.dtype}, found {theirs.dtype}")
        elif not torch.equal(_bits(ours.to(theirs.dtype)), _bits(theirs)):
            worst = (ours.to(theirs.dtype).double() - theirs.double()).abs().max().item()
            lines.append(f"{name}: values differ, by up to {worst:.3g}")
    return lines


def _bits(tensor: Tensor) -> Tensor:
    """Its bytes, so that -0 is not 0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
