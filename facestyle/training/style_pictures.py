"""Style pictures as a discriminator sees them: cut out of plain grounds, mirrored, jittered in colour and place."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facestyle.errors import MissingDependencyError
from facestyle.training.data import PictureSet

__all__ = ["StylePictures", "augment", "plain_ground_matte"]

_log = logging.getLogger(__name__)


def plain_ground_matte(img: Tensor, tolerance: float = 0.025) -> Tensor | None:
    """Share of foreground [1, S, S] in [0, 1] of a picture on a plain ground; None when the ground is not plain.

    The ground is what hangs together with the border and has the border's colour; light hair inside the outline stays.

    Args:
        img: [3, S, S] in [-1, 1].
        tolerance: largest difference from the border's colour, in units of the full range.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise MissingDependencyError(
            "scipy cuts style pictures out of plain grounds: pip install 'facestyle[train]' "
            "(or set replace_background=no)"
        ) from error
    ring = torch.cat([img[:, 0], img[:, -1], img[:, :, 0], img[:, :, -1]], dim=1)
    color = ring.median(dim=1).values
    near_ring = ((ring - color[:, None]).abs().amax(0) < 2 * tolerance).float().mean()
    if near_ring < 0.75:
        return None
    distance = (img - color[:, None, None]).abs().amax(0).numpy() / 2
    labels, _ = ndimage.label(distance < tolerance)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    ground = np.isin(labels, edge[edge > 0])
    reach = img.shape[-1] // 32  # light hair runs into a light ground: close bites, not notches
    solid = ndimage.binary_closing(np.pad(~ground, reach), iterations=reach)[
        reach:-reach, reach:-reach
    ]
    bites = ndimage.binary_opening(solid & ground, iterations=max(1, reach // 2))
    ground = ndimage.binary_dilation(ground & ~bites, iterations=2)
    soft = ndimage.gaussian_filter(1.0 - ground.astype(np.float32), 0.8)
    return torch.from_numpy(soft)[None]


class StylePictures:
    """Batches of style pictures for the discriminator.

    Args:
        pictures: the set.
        replace_background: "yes", "no", or "auto": yes when most of the set stands on a plain ground.
        flip: mirror at random.
    """

    def __init__(self, pictures: PictureSet, *, replace_background: str, flip: bool) -> None:
        self.pictures = pictures
        self.flip = flip
        self.mattes: list[Tensor | None] = [None] * len(pictures)
        if replace_background != "no":
            mattes = [plain_ground_matte(pictures.batch([i])[0]) for i in range(len(pictures))]
            count = sum(m is not None for m in mattes)
            if replace_background == "yes" or count > len(mattes) / 2:
                self.mattes = mattes
                _log.info("%d of %d pictures stand on a plain ground", count, len(mattes))

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def coverage(self) -> Tensor | None:
        """[1, S, S], share of the pictures, mirrored ones too, with foreground at a place; None if none is cut out."""
        cut = [matte for matte in self.mattes if matte is not None]
        if not cut:
            return None
        shown = (torch.stack(cut).sum(0) + len(self.mattes) - len(cut)) / len(self.mattes)
        return (shown + shown.flip(-1)) / 2

    def batch(self, indices: Sequence[int], scenes: Tensor, rng: torch.Generator) -> Tensor:
        """[B, 3, S, S] in [-1, 1]; cut-out pictures stand before a blurred scene of the batch.

        Args:
            indices: of the pictures.
            scenes: [B, 3, S, S], samples of G; blurred, they are the new grounds.
            rng: source of every random number.
        """
        rows = []
        for i, index in enumerate(indices):
            img = self.pictures.batch([index])[0]
            matte = self.mattes[index]
            if matte is not None:
                factor = (8, 12, 16)[int(torch.randint(3, (), generator=rng))]
                scene = F.interpolate(scenes[i : i + 1], size=img.shape[-1] // factor, mode="area")
                scene = F.interpolate(scene, size=img.shape[-1], mode="bicubic")[0].clamp(-1, 1)
                img = scene + matte * (img - scene)
            if self.flip and torch.rand((), generator=rng) < 0.5:
                img = img.flip(-1)
            rows.append(img)
        return torch.stack(rows).contiguous(memory_format=torch.channels_last)


def augment(img: Tensor, rng: torch.Generator) -> Tensor:
    """Differentiable colour, shift and cutout (arXiv:2006.10738), each picture its own; [B, 3, S, S]."""
    batch, _, side, _ = img.shape

    def uniform(low: float, high: float) -> Tensor:
        values = low + (high - low) * torch.rand(batch, generator=rng)
        return values.view(-1, 1, 1, 1).to(img.device)

    img = img + uniform(-0.2, 0.2)
    grey = img.mean(1, keepdim=True)
    img = grey + (img - grey) * uniform(0.6, 1.4)
    mean = img.mean((1, 2, 3), keepdim=True)
    img = mean + (img - mean) * uniform(0.75, 1.25)
    reach = side // 16
    padded = F.pad(img, (reach, reach, reach, reach), mode="reflect")
    shifts = torch.randint(0, 2 * reach + 1, (batch, 2), generator=rng).tolist()
    img = torch.stack([padded[i, :, y : y + side, x : x + side] for i, (y, x) in enumerate(shifts)])
    hole = side // 4
    keep = torch.ones(batch, 1, side, side)
    for i, (y, x) in enumerate(torch.randint(0, side - hole, (batch, 2), generator=rng).tolist()):
        if torch.rand((), generator=rng) < 0.5:
            keep[i, :, y : y + hole, x : x + hole] = 0
    return (img * keep.to(img.device)).contiguous(memory_format=torch.channels_last)
