"""Training pictures out of folders and zip files, decoded on request, and their augmentation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from facestyle.errors import ImageError
from facestyle.image import load_image
from facestyle.picture_files import iter_picture_files, no_pictures

__all__ = ["PictureSet", "jitter", "shuffled_batches"]

_log = logging.getLogger(__name__)


class PictureSet(Sequence[Tensor]):
    """Square pictures [3, side, side], uint8, of one or several folders or zip files, in name order.

    Pictures are assumed to be aligned already; other shapes are centre-cropped to a square. Each is read as
    :func:`facestyle.image.load_image` reads it; broken ones are left out and named in the log.

    Args:
        sources: folders or zip files.
        side_px: side of what comes out.
        limit: stop after so many pictures.

    Raises:
        DatasetError: a source is absent or broken, or there is no picture at all.
    """

    def __init__(
        self, sources: str | Path | Sequence[str | Path], side_px: int, *, limit: int | None = None
    ) -> None:
        self.side_px = side_px
        listed = [sources] if isinstance(sources, str | Path) else list(sources)
        self.names: list[str] = []
        self._bytes: list[bytes] = []
        broken = 0
        for source in listed:
            for name, read in iter_picture_files(source):
                if limit is not None and len(self.names) >= limit:
                    break
                try:
                    data = read()
                    load_image(data)  # here, rather than in the middle of training
                except ImageError as error:
                    broken += 1
                    _log.warning("%s in %s is left out: %s", name, source, error)
                    continue
                self.names.append(name)
                self._bytes.append(data)
        if not self.names:
            raise no_pictures(listed[0], broken)

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        """[3, side, side] uint8."""
        image = load_image(self._bytes[index])
        side = min(image.size)
        if image.size != (side, side):
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        if side != self.side_px:
            image = image.resize((self.side_px, self.side_px), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def digest(self) -> str:
        """Sha256 of all names and files, in order."""
        total = hashlib.sha256()
        for name, data in zip(self.names, self._bytes, strict=True):
            total.update(f"{name} {len(data)} ".encode())
            total.update(data)
        return total.hexdigest()

    def batch(self, indices: Sequence[int]) -> Tensor:
        """[B, 3, side, side] float in [-1, 1], channels last in memory."""
        img = torch.stack([self[i] for i in indices]).float() / 127.5 - 1
        return img.contiguous(memory_format=torch.channels_last)


def shuffled_batches(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Index batches for ever; every picture comes up once before any comes up again."""
    queue: list[int] = []
    while True:
        while len(queue) < size:
            queue += torch.randperm(count, generator=generator).tolist()
        batch, queue = queue[:size], queue[size:]
        yield batch


def jitter(img: Tensor, generator: torch.Generator, *, strength: float = 1.0) -> Tensor:
    """Pictures as a careless camera and aligner would give them: same shape, range [-1, 1].

    Each gets a small shift, scale and rotation (reflected at the border), brightness, contrast and saturation, a
    random blur and some grain.

    Args:
        img: [B, 3, S, S] in [-1, 1].
        generator: source of every random number.
        strength: 0 changes nothing.
    """
    if strength == 0:
        return img
    batch = img.shape[0]

    def normal(std: float) -> Tensor:
        return torch.randn(batch, generator=generator) * std * strength

    angle, zoom = normal(0.025), (normal(0.025)).exp()
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * angle.cos(), -zoom * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = zoom * angle.sin(), zoom * angle.cos()
    theta[:, 0, 2], theta[:, 1, 2] = normal(0.015), normal(0.015)
    grid = F.affine_grid(theta, list(img.shape), align_corners=False)
    img = F.grid_sample(img, grid, padding_mode="reflection", align_corners=False)

    def column(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    img = img * column(normal(0.10).exp()) + column(normal(0.08))
    grey = img.mean(1, keepdim=True)
    img = grey + (img - grey) * column(normal(0.2).exp())
    side = img.shape[-1]
    factor = 1 + 2 * float(torch.rand((), generator=generator)) * strength
    small = F.interpolate(img, size=round(side / factor), mode="bilinear", antialias=True)
    soft = F.interpolate(small, size=side, mode="bilinear")
    share = (torch.rand(batch, generator=generator) < 0.5 * strength).float()
    img = torch.lerp(img, soft, column(share))
    img = img + torch.randn(img.shape, generator=generator) * column(normal(0.02).abs())
    return img.clamp(-1, 1)
