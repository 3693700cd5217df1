"""The contract every generator meets, whatever its architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "Generator", "Noise", "Source", "is_fine", "moves_shapes", "same_w", "sample_z", "shape_stage",
    "weights_between",
]  # fmt: skip

Noise = Literal["const", "none"]

_BLOCK = re.compile(r"blocks\.(\d+)\.|b(\d+)\.")
"""A block of "mobile", by its place from a grid of 8 on, or of "stylegan2", by the side of its grid."""
_FINE_PX = 128
_SHAPES_PX = (16, 32)
_SAME_W = 0.05


@dataclass(frozen=True, slots=True)
class Source:
    """The file that a generator was loaded from.

    Attributes:
        path: of the file; encoders made for the generator lie beside it.
        sha256: of its bytes.
    """

    path: Path
    sha256: str


class Generator(nn.Module):
    """A face generator in two parts: ``mapping`` (z to w) and ``synthesis`` (w_plus to picture).

    Attributes:
        architecture: name under which the checkpoint registry knows it.
        resolution: side in pixels of the full picture.
        preview_resolution: side in pixels of the cheap low-resolution output.
        num_ws: rows of a w_plus code.
        w_dim: numbers in a row.
        mapping: module, [B, w_dim] -> [B, w_dim].
        synthesis: module, ``(w_plus [B, num_ws, w_dim], *, noise="const", resolution=None)`` ->
            [B, 3, R, R] in about [-1, 1] (not clamped).
        source: the base generator's file; None for the bundled one, and for one that was built and not loaded.
    """

    architecture: ClassVar[str]
    resolution: int
    preview_resolution: int
    num_ws: int
    w_dim: int
    mapping: nn.Module
    synthesis: nn.Module
    source: Source | None = None

    @property
    def w_avg(self) -> Tensor:
        """[w_dim], the mean of W."""
        w_avg = self.mapping.w_avg
        assert isinstance(w_avg, Tensor)
        return w_avg

    def config(self) -> dict[str, Any]:
        """What is needed to build the same generator again, JSON-able."""
        raise TypeError(f"{type(self).__name__} does not describe itself; override config()")

    def forward(self, z: Tensor, *, resolution: int | None = None) -> Tensor:
        """Pictures [B, 3, R, R] from z [B, 512], no truncation, constant noise."""
        from facestyle.latents import broadcast

        img = self.synthesis(broadcast(self.mapping(z), self.num_ws), resolution=resolution)
        assert isinstance(img, Tensor)
        return img


def sample_z(count: int, seed: int, w_dim: int = 512) -> Tensor:
    """``count`` standard normal z's [count, w_dim], the same on every machine for one seed (drawn on the CPU)."""
    return torch.randn(count, w_dim, generator=torch.Generator().manual_seed(seed))


def same_w(w: Tensor, other: Tensor) -> bool:
    """Whether two mappings lead into one W: what they make of equal z's, [N, w_dim], differs by 5 % of its spread."""
    spread = (w - w.mean(0)).square().mean()
    return bool((w - other).square().mean() <= _SAME_W**2 * spread)


def weights_between(
    base: nn.Module,
    styled: nn.Module,
    share: float,
    fine_share: float | None = None,
    keep_shape: float = 0.0,
) -> dict[str, Tensor]:
    """Weights on the line from G's synthesis network (share 0) through that of a style finetuned from it (1).

    Shares above 1 go on past the style: what finetuning changed is exaggerated. Worked out in float64, so that
    processors agree on the rounded result.

    Args:
        base: G's synthesis network.
        styled: the style's.
        share: of the change in its weights.
        fine_share: of the change in those that draw textures, see `is_fine`; ``share`` when None.
        keep_shape: how far those that draw shapes go back to G, 0 to 1: first all on grids up to 16, then those on 32.
            What has gone back before is left out, so that each share of the way does something.
    """
    start, end = base.state_dict(), styled.state_dict()
    fine_share = share if fine_share is None else fine_share
    back: dict[str, float] = {}
    if keep_shape:
        left = _moved_stages(start, end)
        for index, names in enumerate(left):
            back |= dict.fromkeys(names, min(1.0, max(0.0, keep_shape * len(left) - index)))
    return {
        name: torch.lerp(
            _exact(start[name]),
            _exact(tensor),
            fine_share if is_fine(name) else share * (1 - back.get(name, 0.0)),
        ).to(tensor)
        for name, tensor in end.items()
    }


def moves_shapes(base: nn.Module, styled: nn.Module) -> bool:
    """Whether a style's synthesis network draws shapes of its own, which ``keep_shape`` brings back."""
    return bool(_moved_stages(base.state_dict(), styled.state_dict()))


def _moved_stages(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of the weights that draw shapes, by stage, coarsest first; stages that are G's are left out."""
    stages = [[name for name in end if shape_stage(name) == stage] for stage in _SHAPES_PX]
    return [names for names in stages if any(_differ(start[name], end[name]) for name in names)]


def is_fine(name: str) -> bool:
    """Whether a synthesis network's weight draws textures: grids of 128 and finer, heads to a picture, all noise.

    Hair's strands and stubble lie there; shapes, eyes and colours mostly do not.

    Args:
        name: of the weight, in the architecture "mobile" or "stylegan2".
    """
    is_head = name.startswith("to_") or ".torgb." in name
    return is_head or "noise" in name or _grid_px(name) >= _FINE_PX


def shape_stage(name: str) -> int | None:
    """Of a weight that draws shapes 16 or 32, the largest grid of its kind; None of all others.

    Most of a head's size, its hairline and its expression lies up to 16, more of its features at 32; lines and paint
    later.

    Args:
        name: of the weight, in the architecture "mobile" or "stylegan2".
    """
    if is_fine(name):
        return None
    return next((most for most in _SHAPES_PX if _grid_px(name) <= most), None)


def _grid_px(name: str) -> int:
    """Side of the grid that a weight works on; 4 of what stands before all blocks."""
    block = _BLOCK.match(name)
    if block is None:
        return 4
    index, side = block.groups()
    return 8 << int(index) if index else int(side)


def _differ(a: Tensor, b: Tensor) -> bool:
    """By more than a file of float16 rounds."""
    return not torch.allclose(a.float(), b.float(), rtol=2e-3, atol=1e-6)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.cpu().double()  # in this order: MPS has no float64
