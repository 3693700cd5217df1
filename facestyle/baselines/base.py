"""The interface every compared method meets: prepare a style, then stylize crops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from facestyle.errors import ConfigError

__all__ = [
    "Baseline",
    "PictureSources",
    "ProjectingBaseline",
    "check_crops",
    "count_parameters",
    "prepared",
    "resize",
]

PictureSources = str | Path | Sequence[str | Path]
"""Folders or zip files of aligned style pictures."""

T = TypeVar("T")


class Baseline(ABC):
    """A stylization method and one style of it.

    Attributes:
        name: under which tables and the command line know the method.
        resolution: side in pixels of its pictures.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Side in pixels of the pictures."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Numbers in the networks that encode, project into and draw; a projection's loss networks are not counted.

        Raises:
            ConfigError: no style was prepared or loaded yet.
        """

    @abstractmethod
    def prepare(self, pictures: PictureSources, out: str | Path, *, progress: bool = True) -> Self:
        """Train what the style needs in the folder ``out``, where an unfinished run goes on, and load it.

        Args:
            pictures: of the style.
            out: folder of the run.
            progress: show progress bars.

        Returns:
            This object, ready to stylize.

        Raises:
            ConfigError: ``out`` holds a run with other settings.
            DatasetError: the pictures cannot be used.
            OutputError: ``out`` cannot be written.
        """

    @abstractmethod
    def load(self, out: str | Path) -> Self:
        """What an earlier ``prepare``, or an import, left in ``out``; returns this object.

        Raises:
            CheckpointError: a file is absent, damaged, or of another method.
        """

    @abstractmethod
    def stylize(self, crops: Tensor, *, first: int = 0, progress: bool = False) -> Tensor:
        """Stylized faces.

        Args:
            crops: [B, 3, S, S] FFHQ-aligned faces in [-1, 1], float32, any side.
            first: number of the first crop in a longer series; random choices depend on a crop's number alone, so that
                results do not depend on how the series is cut into batches.
            progress: show a bar where it takes long.

        Returns:
            [B, 3, R, R] in [-1, 1], float32, on the device of the networks.

        Raises:
            ConfigError: no style was prepared or loaded yet, or ``crops`` has another shape.
        """


class ProjectingBaseline(Baseline):
    """A method that finds the photo's code in G by optimisation, which takes long and is the same for every style."""

    @abstractmethod
    def project(self, crops: Tensor, *, progress: bool = False) -> Tensor:
        """Codes [B, ...] of photos [B, 3, S, S]; no style need be loaded."""

    @abstractmethod
    def check_ready(self) -> None:
        """Refuse to begin without a style.

        Raises:
            ConfigError: no style was prepared or loaded yet.
        """

    @abstractmethod
    def draw(self, codes: Tensor, *, first: int = 0) -> Tensor:
        """Portraits [B, 3, R, R] in [-1, 1] of codes that ``project`` found; ``first`` as in ``stylize``.

        Raises:
            ConfigError: no style was prepared or loaded yet.
        """

    def stylize(self, crops: Tensor, *, first: int = 0, progress: bool = False) -> Tensor:
        """Project, then draw; see :meth:`Baseline.stylize`."""
        check_crops(crops)
        self.check_ready()
        return self.draw(self.project(crops, progress=progress), first=first)


def prepared(part: T | None, method: Baseline) -> T:
    """``part``, unless it is None because nothing was prepared.

    Raises:
        ConfigError: it is None.
    """
    if part is None:
        raise ConfigError(f"{method.name} has no style yet; call prepare() or load() first")
    return part


def check_crops(crops: Tensor) -> None:
    """Refuse what is no batch of square pictures.

    Raises:
        ConfigError: the shape or type is another.
    """
    is_square = crops.ndim == 4 and crops.shape[1] == 3 and crops.shape[2] == crops.shape[3]
    if not is_square or not crops.is_floating_point():
        raise ConfigError(
            f"expected crops [B, 3, S, S] of floats in [-1, 1], got {crops.dtype} {list(crops.shape)}"
        )


def resize(img: Tensor, side_px: int) -> Tensor:
    """Pictures [B, 3, S, S] at another side, by area where that is a whole division, else antialiased bilinear."""
    if img.shape[-1] == side_px:
        return img
    if img.shape[-1] % side_px == 0:
        return F.interpolate(img, size=side_px, mode="area")
    return F.interpolate(img, size=(side_px, side_px), mode="bilinear", antialias=True)


def count_parameters(*modules: nn.Module) -> int:
    """Distinct parameters of several modules together."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())
