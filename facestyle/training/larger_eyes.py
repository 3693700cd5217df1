"""Portraits with their eyes drawn larger, as something for a style to follow.

Drawn faces have taller and larger eyes than people. A style loss that meets a narrow eye fills it with what such eyes
hold, and it goes black; told to follow a face whose eyes are already large, it finds room for white, iris and light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from facestyle.errors import ConfigError
from facestyle.faces.detect import FaceDetector
from facestyle.faces.windows import EYES

__all__ = ["enlarge_eyes", "find_eyes"]

_REACH = 0.62  # of the change around an eye, in distances between the eyes
_LEAST_REACH, _MOST_REACH = 0.1, 0.155  # in shares of the side


def find_eyes(pictures: Tensor) -> Tensor:
    """Centres of both eyes, [B, 2, 2] as (left, right) x (x, y) in shares of the side, of aligned faces.

    Where no face is found near the place of aligned ones, their usual place counts. The result is on the CPU.

    Args:
        pictures: [B, 3, S, S] in [-1, 1].
    """
    on_gpu = pictures.device.type == "cuda"
    detector = FaceDetector(device=str(pictures.device) if on_gpu else "cpu")
    levels = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()
    found = [_eyes_of(Image.fromarray(level.numpy()), detector) for level in levels]
    return torch.tensor(found, dtype=torch.float32)


def _eyes_of(picture: Image.Image, detector: FaceDetector) -> Sequence[Sequence[float]]:
    faces = detector.detect(picture)
    if not faces:
        return EYES
    eyes = (faces[0].landmarks[:2] + 0.5) / picture.width
    is_aligned = all(math.dist(eye, usual) < 0.08 for eye, usual in zip(eyes, EYES, strict=True))
    if not is_aligned:
        return EYES
    measured: list[list[float]] = eyes.tolist()
    return measured


def enlarge_eyes(pictures: Tensor, eyes: Tensor, scale: float) -> Tensor:
    """The pictures [B, 3, S, S] with eyes ``scale`` times as tall and its square root times as wide.

    So it is at the eye's centre; the change fades out around it, and elsewhere the picture stays as it is.

    Args:
        pictures: [B, 3, S, S] in [-1, 1].
        eyes: [B, 2, 2], see ``find_eyes``.
        scale: 1 to 3.

    Raises:
        ConfigError: ``scale`` lies outside 1 to 3.
    """
    if not 1 <= scale <= 3:
        raise ConfigError(f"the eyes' scale must lie in 1 to 3, got {scale}")
    if scale == 1:
        return pictures
    side = pictures.shape[-1]
    at = (torch.arange(side, device=pictures.device) + 0.5) / side
    places = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)  # [S, S, 2] of (x, y)
    eyes = eyes.to(pictures.device)
    apart = (eyes[:, 1] - eyes[:, 0]).norm(dim=1)
    reach = (_REACH * apart).clamp(_LEAST_REACH, _MOST_REACH)[:, None, None, None]
    shrink = 1 - 1 / torch.tensor([scale**0.5, scale], device=pictures.device)
    moved = places.expand(len(pictures), -1, -1, -1)
    for i in range(2):
        away = places - eyes[:, i, None, None]
        fade = (1 - (away / reach).square().sum(-1, keepdim=True)).clamp(min=0).square()
        moved = moved - away * shrink * fade
    return F.grid_sample(
        pictures, 2 * moved - 1, mode="bicubic", padding_mode="border", align_corners=False
    ).clamp(-1, 1)
