"""Pictures as a pen and flat colours leave them: locks that flow, few tones, dark lines along borders.

Hair is smoothed along its own direction and sharpened across it, over and over, so that hundreds of single hairs become
a few locks with crisp borders (Kyprianidis and Kang, Image and Video Abstraction by Coherence-Enhancing Filtering,
Computer Graphics Forum 30(2), 2011). Light is drawn towards a few tones (Winnemoeller, Olsen and Gooch, Real-Time Video
Abstraction, ACM TOG 25(3), 2006), and a pen's lines lie on the dark side of borders, where a difference of two blurs is
below zero (Winnemoeller, Kyprianidis and Olsen, Computers & Graphics 36(6), 2012).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["flowing", "in_tones", "outlined", "smoothed"]

_ROUNDS = 2
"""Of smoothing along and sharpening across."""
_SAMPLES = 3
"""On either side of a place along its line; between them the line's direction is looked up anew."""
_WIDE = 1 / 100
"""Over which directions are averaged, as a deviation in shares of the picture's side."""
_SHARP = 1 / 256
"""Deviation of the blur whose bend tells on which side of a border a place lies, in shares of the side."""
_STEP = 1 / 340
"""How far a place looks across for the tone it takes over, in shares of the side."""
_GAIN = 80.0
"""How surely it does so where that blur is bent."""
_TONE_EDGE = 2.0
"""How sharply one tone gives way to the next; 0 would not change light at all."""
_WIDTH = 1 / 256
"""Of a line, as the deviation of the narrower blur, in shares of the side."""
_WIDER, _LEAST, _STEEP = 1.6, 0.012, 30.0
"""The other blur; the difference from which there is a line; and how fast it darkens."""
_LUMA = (0.299, 0.587, 0.114)


def flowing(pictures: Tensor, reach: float) -> Tensor:
    """The pictures, smoothed along the lines in them and sharpened across: hair in locks, flat grounds.

    Args:
        pictures: [B, 3, H, W] in [-1, 1].
        reach: how far along a line is averaged to either side, in shares of the side; 0 gives the pictures as they are.
    """
    if not reach:
        return pictures
    side = pictures.shape[-1]
    for _ in range(_ROUNDS):
        tangent = _tangents(pictures, _WIDE * side)
        pictures = _along(pictures, tangent, reach * side, _SAMPLES)
        pictures = _sharpened(pictures, tangent, max(1.0, _SHARP * side), max(1.0, _STEP * side))
    return _along(pictures, _tangents(pictures, _WIDE * side), reach * side / 4, _SAMPLES - 1)


def in_tones(pictures: Tensor, steps: int) -> Tensor:
    """The pictures with their light drawn towards tones of equal distance; hue and saturation stay.

    Args:
        pictures: [B, 3, H, W] in [-1, 1].
        steps: from black to white, so that there are ``steps + 1`` tones; 0 gives the pictures as they are.
    """
    if not steps:
        return pictures
    light = (_luma(pictures) + 1) / 2
    border = ((light * steps).floor() + 0.5) / steps
    away = (light - border) * 2 * steps  # -1 to 1 from tone to tone
    wanted = border + torch.tanh(_TONE_EDGE * away) / math.tanh(_TONE_EDGE) / (2 * steps)
    share = (wanted + 0.02) / (light + 0.02)  # 0.02 keeps black from dividing
    return ((pictures + 1) * share).clamp(0, 2) - 1


def outlined(pictures: Tensor, strength: float) -> Tensor:
    """The pictures with dark lines along their borders.

    Args:
        pictures: [B, 3, H, W] in [-1, 1].
        strength: of the lines, 0 for none to 1 for black.
    """
    if not strength:
        return pictures
    light = (pictures.mean(1, keepdim=True) + 1) / 2
    width = _WIDTH * pictures.shape[-1]
    difference = _blurred(light, width) - _blurred(light, _WIDER * width)
    ink = -torch.tanh(_STEEP * (difference + _LEAST).clamp(max=0))
    return pictures - strength * ink * (pictures + 1)


def smoothed(pictures: Tensor, contrast: float, reach: float = 1 / 128) -> Tensor:
    """The pictures without their faint grain; whatever stands out by more than ``contrast`` stays as sharp as it was.

    The guided filter of a picture by itself (He, Sun and Tang, IEEE TPAMI 35(6), 2013), each channel on its own.

    Args:
        pictures: [B, 3, H, W] in [-1, 1].
        contrast: deviation, in shares of the pictures' range, that is half smoothed away; 0 gives them as they are.
        reach: of the neighbourhood, in shares of the side.
    """
    if not contrast:
        return pictures
    reach_px = max(1, round(reach * pictures.shape[-1]))

    middle = _mean(pictures, reach_px)
    spread = (_mean(pictures.square(), reach_px) - middle.square()).clamp(min=0)
    kept = spread / (spread + (2 * contrast) ** 2)
    return _mean(kept, reach_px) * pictures + _mean((1 - kept) * middle, reach_px)


def _luma(pictures: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, device=pictures.device, dtype=pictures.dtype)
    return (pictures * weights[:, None, None]).sum(1, keepdim=True)


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    """By a Gaussian, in a pass each way: the same as at once, and faster where it is wide."""
    from torchvision.transforms.functional import gaussian_blur

    side_px = 2 * math.ceil(3 * sigma) + 1
    for sides_px in ([side_px, 1], [1, side_px]):
        pictures = gaussian_blur(pictures, sides_px, [sigma] * 2)
    return pictures


def _mean(pictures: Tensor, reach_px: int) -> Tensor:
    """Of the square around each place, in a pass each way likewise."""
    padded = F.pad(pictures, (reach_px,) * 4, mode="reflect")
    side = 2 * reach_px + 1
    return F.avg_pool2d(F.avg_pool2d(padded, (side, 1), 1), (1, side), 1)


def _tangents(pictures: Tensor, sigma: float) -> Tensor:
    """[B, 2, H, W], unit vectors (x, y) along the lines: of the structure tensor, in doubled angles, blurred."""
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([sobel, sobel.T]).to(pictures)[:, None]
    padded = F.pad(pictures, (1,) * 4, mode="replicate")
    slopes = F.conv2d(padded.flatten(0, 1)[:, None], kernels)
    x, y = slopes.view(*pictures.shape[:2], 2, *pictures.shape[2:]).unbind(2)
    doubled = torch.stack([(x * x - y * y).sum(1), (2 * x * y).sum(1)], 1)
    doubled = _blurred(doubled, sigma)
    across = torch.atan2(doubled[:, 1], doubled[:, 0]) / 2
    return torch.stack([-across.sin(), across.cos()], 1)


def _places(like: Tensor) -> Tensor:
    """[1, H, W, 2], middles of pixels (x, y)."""
    x, y = (torch.arange(side, device=like.device) + 0.5 for side in like.shape[:-3:-1])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]


def _at(maps: Tensor, places: Tensor) -> Tensor:
    sides = torch.tensor(maps.shape[:-3:-1], device=maps.device)
    return F.grid_sample(maps, places / sides * 2 - 1, padding_mode="border", align_corners=False)


def _along(pictures: Tensor, tangent: Tensor, reach_px: float, samples: int) -> Tensor:
    """Weighted mean of every place and its neighbours along its line, to either side."""
    step = reach_px / samples
    total, weights = pictures, 1.0
    both = torch.cat([pictures, tangent], 1)
    for sign in (1, -1):
        toward = sign * tangent.movedim(1, -1)
        places = _places(pictures) + step * toward
        for index in range(1, samples + 1):
            weight = math.exp(-2 * (index / samples) ** 2)
            found = _at(both, places)
            total, weights = total + weight * found[:, :3], weights + weight
            turned = found[:, 3:].movedim(
                1, -1
            )  # a line has no sense of its own: keep to the last one's
            turned = torch.where((turned * toward).sum(-1, keepdim=True) < 0, -turned, turned)
            toward = F.normalize(turned, dim=-1)
            places = places + step * toward
    return total / weights


def _sharpened(pictures: Tensor, tangent: Tensor, sigma: float, step_px: float) -> Tensor:
    """Every place takes the lightest or the darkest of itself and its neighbours across the line: a shock filter."""
    across = torch.stack([tangent[:, 1], -tangent[:, 0]], -1)
    here = _places(pictures)
    blurred = _blurred(_luma(pictures), sigma)
    bend = _at(blurred, here + sigma * across) + _at(blurred, here - sigma * across) - 2 * blurred
    near = torch.stack(
        [pictures, *(_at(pictures, here + way * step_px * across) for way in (1, -1))]
    )
    light = torch.stack([_luma(one) for one in near])
    index = torch.where(bend < 0, light.argmax(0), light.argmin(0))
    taken = near.gather(0, index.expand(-1, 3, -1, -1)[None])[0]
    return torch.lerp(pictures, taken, torch.tanh(_GAIN * bend.abs()))
