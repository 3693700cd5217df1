"""From codes to portraits: the network of a strength, and the photo's own colours brought back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from facestyle.image import to_pil
from facestyle.models.generator import Generator, weights_between
from facestyle.models.mobile import MobileSynthesis
from facestyle.models.settled import SettledSynthesis
from facestyle.models.settled_stylegan2 import SettledStyleGAN2
from facestyle.models.stylegan2_generator import StyleGAN2Synthesis
from facestyle.workers import side_by_side

__all__ = ["draw_portraits", "lay_noise", "synthesis_at"]

_GREY = 5 / 127.5
"""The most that channels of a photo without colours differ by: JPEG leaves a few levels."""

_NOISE = ("noise", "noise_const")
"""Names of the planes in generators of both kinds."""


@torch.inference_mode(False)  # its tensors do not tell a network that they changed
def synthesis_at(
    strength: float,
    generator: Generator,
    base: Generator,
    dtype: torch.dtype,
    seed: int = 0,
    *,
    keep_texture: float = 0.0,
    keep_shape: float = 0.0,
) -> nn.Module:
    """A synthesis network of its own, ready to draw and not to be trained.

    Args:
        strength: its weights lie between G's (0) and G''s (1), or beyond.
        generator: G'.
        base: G.
        dtype: number type of the network.
        seed: see `lay_noise`.
        keep_texture: share of the way back to G in the weights that draw textures, 0 to 1, see ``is_fine``.
        keep_shape: share of the way back to G in those that draw shapes, see ``weights_between``.
    """
    network = copy.deepcopy(generator.synthesis).requires_grad_(False)
    if strength != 1 or keep_texture or keep_shape:
        fine = strength * (1 - keep_texture)
        network.load_state_dict(
            weights_between(base.synthesis, network, strength, fine, keep_shape)
        )
    lay_noise(network, seed)
    if generator.w_avg.device.type == "cpu":
        if isinstance(network, MobileSynthesis):
            network = SettledSynthesis(network)
        elif isinstance(network, StyleGAN2Synthesis):
            network = SettledStyleGAN2(network)
    return network.to(dtype)


def lay_noise(network: nn.Module, seed: int) -> None:
    """Mirror and transpose the noise planes at random, each for itself: strokes and strands of hair lie elsewhere.

    A generator learned what to make of its own planes, so they are turned and not drawn anew, and not rolled, which
    leaves lines where a plane's edges come to lie.

    Args:
        network: synthesis, changed in place.
        seed: 0 leaves the planes as they are.
    """
    if seed == 0:
        return
    rng = torch.Generator().manual_seed(seed)
    for name, plane in network.named_buffers():
        if name.rpartition(".")[2] in _NOISE:
            across, down, transposed = torch.randint(2, (3,), generator=rng).tolist()
            turned = plane.flip([-1] * across + [-2] * down)
            plane.copy_(turned.mT if transposed else turned)


def draw_portraits(
    network: nn.Module,
    codes: Sequence[Tensor],
    crops: Sequence[Tensor],
    *,
    dtype: torch.dtype,
    keep_color: float = 0.0,
    batch: int = 1,
    on_drawn: Callable[[int], object] | None = None,
) -> list[Image.Image]:
    """Portraits of the codes, on a CPU side by side.

    Args:
        network: synthesis.
        codes: [num_ws, 512] each, on the network's device.
        crops: the face of each, [1, 3, S, S], whose colours ``keep_color`` brings back.
        dtype: number type of the network.
        keep_color: share of these colours, 0 to 1.
        batch: how many are drawn at a time.
        on_drawn: called with the number of portraits just drawn.
    """

    def draw(first: int) -> list[Image.Image]:
        part = slice(first, first + batch)
        with torch.inference_mode():
            w_plus = torch.stack(list(codes[part])).to(dtype)
            imgs = network(w_plus).float()
            if keep_color:
                photos = torch.cat(list(crops[part])).to(imgs.device)
                imgs = _with_color_of(imgs, photos, keep_color)
            portraits = [to_pil(img) for img in imgs]
        if on_drawn is not None:
            on_drawn(len(portraits))
        return portraits

    if not codes:
        return []
    groups = side_by_side(codes[0].device, draw, range(0, len(codes), batch))
    return [portrait for group in groups for portrait in group]


def _with_color_of(img: Tensor, photo: Tensor, share: float) -> Tensor:
    """``img`` with the broad colours of ``photo``: the difference of both, blurred, is added back, brightness less so.

    A photo without colours takes them away everywhere, and not only broadly.

    Args:
        img: [B, 3, R, R] in about [-1, 1].
        photo: [B, 3, S, S], the same faces.
        share: 0 changes nothing, 1 takes the photo's colours over.
    """
    change = _broad(photo) - _broad(img.clamp(-1, 1))
    brightness = _brightness(change)
    change = (change - brightness) + 0.5 * brightness
    change = change.to(img.device)
    img = img + share * F.interpolate(change, size=img.shape[-2:], mode="bicubic")
    is_grey = (photo.amax(1, True) - photo.amin(1, True)).amax((2, 3), True) <= _GREY
    return img + (share * is_grey).to(img) * (_brightness(img) - img)


def _brightness(img: Tensor) -> Tensor:
    """[B, 1, H, W] of [B, 3, H, W]."""
    red, green, blue = img.split(1, 1)
    brightness: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return brightness


def _broad(img: Tensor) -> Tensor:
    """[B, 3, 6, 6], the mean colours; on the CPU in place of MPS, which pools only into sides that divide."""
    img = img.cpu() if img.device.type == "mps" else img
    return F.interpolate(img, size=(6, 6), mode="area")
