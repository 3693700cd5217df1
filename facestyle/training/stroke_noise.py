"""Noise planes that begin as brush strokes and are trained, for styles that are painted.

A style of strokes has them wherever the brush happened to go. A generator whose noise is weak, as the distilled one's
is, can only draw what its code says, and turns strokes into wrinkles. With something to follow that is not the face, it
paints.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import ConfigError
from facestyle.latents import broadcast
from facestyle.models.generator import Generator
from facestyle.models.mobile import MobileSynthesis, StyledSeparable

__all__ = ["fill_planes", "planes_beside", "strokes"]

_DIRECTIONS = 8
_PATCHES = 8
"""A side of the field of directions."""

_ALONG_PX, _ACROSS_PX = 12.0, 2.2
"""Spread of a stroke in a picture of 256 px; what one sees of it is three times that."""


def planes_beside(generator: Generator, names: Collection[str]) -> list[tuple[str, nn.Parameter]]:
    """The noise planes of the layers whose parameters are named, with their own names; buffers, but to be trained."""
    layers = {name.rpartition(".")[0] for name in names}
    return [
        (name, plane)  # type: ignore[misc]
        for name, plane in generator.synthesis.named_buffers()
        if name.endswith(".noise") and name.removesuffix(".noise") in layers
    ]


@torch.no_grad()
def fill_planes(generator: Generator, share: float, blocks: Collection[int], seed: int) -> None:
    """Strokes in the noise planes of some blocks, in place.

    Args:
        generator: of the architecture "mobile".
        share: the strokes' spread, as a share of the spread of what the layer gives for the mean face, noise and
            activation included; that of what they are added to is about twice as large.
        blocks: numbers of the blocks; the others keep their planes.
        seed: of the strokes.

    Raises:
        ConfigError: the generator is of another architecture.
    """
    synthesis = generator.synthesis
    if not isinstance(synthesis, MobileSynthesis):
        raise ConfigError('noise_share is for generators of the architecture "mobile"')
    rng = torch.Generator().manual_seed(seed + 41)

    def fill(layer: nn.Module, _: object, out: Tensor) -> None:
        assert isinstance(layer, StyledSeparable)
        spread = out.std((2, 3)).mean()
        layer.noise.copy_(share * spread.cpu() * strokes(layer.noise.shape[-1], seed, rng))

    hooks = [
        layer.register_forward_hook(fill)
        for name, layer in synthesis.named_modules()
        if isinstance(layer, StyledSeparable) and int(name.split(".")[1]) in blocks
    ]
    try:
        synthesis(broadcast(generator.w_avg[None], generator.num_ws))
    finally:
        for hook in hooks:
            hook.remove()


def strokes(side: int, seed: int, rng: torch.Generator) -> Tensor:
    """[side, side] of spread 1: noise drawn out along a field of directions.

    Args:
        side: of the plane.
        seed: of the field, which has the same directions for every side.
        rng: of the noise.
    """
    field = torch.randn(
        _DIRECTIONS, 1, _PATCHES, _PATCHES, generator=torch.Generator().manual_seed(seed)
    )
    field = F.interpolate(field, size=(side, side), mode="bicubic")
    shares = torch.softmax(6 * field, 0)[:, 0]
    angles = torch.arange(_DIRECTIONS) * (torch.pi / _DIRECTIONS)
    y, x = torch.fft.fftfreq(side)[:, None], torch.fft.fftfreq(side)[None]
    along, across = _ALONG_PX * side / 256, _ACROSS_PX * side / 256
    plane = torch.zeros(side, side)
    for share, angle in zip(shares, angles, strict=True):
        u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        blur = torch.exp(-2 * torch.pi**2 * ((along * u).square() + (across * v).square()))
        noise = torch.randn(side, side, generator=rng)
        drawn = torch.fft.ifft2(torch.fft.fft2(noise) * blur).real
        plane += share * drawn / drawn.std()
    return plane / plane.std()
