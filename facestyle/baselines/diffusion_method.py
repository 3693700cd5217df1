"""What the diffusion baselines share: a model, photos one by one, and styles learned from one picture and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm
from typing_extensions import Self

from facestyle.baselines.base import Baseline, PictureSources, check_crops, prepared, resize
from facestyle.baselines.diffusion import OFFICIAL_MODEL, LatentDiffusion, guarded
from facestyle.errors import CheckpointError, ConfigError
from facestyle.image import IMAGE_SUFFIXES, load_image, to_tensor
from facestyle.models.checkpoints import read_metadata
from facestyle.picture_files import iter_images

__all__ = [
    "DiffusionBaseline",
    "OnStep",
    "Picture",
    "StyledDiffusionBaseline",
    "crop_noise",
    "picture_digest",
    "square_crop",
    "style_origin",
]

OnStep = Callable[[int, int, Tensor], None]
"""Called after each step with the steps done, the steps in all and the latents [1, C, H, W]; raising ends the run."""

Picture = str | Path | Image.Image

Config = TypeVar("Config")
Style = TypeVar("Style")


def square_crop(picture: Picture, side_px: int) -> Tensor:
    """The middle square of a picture as [1, 3, side_px, side_px] in [-1, 1], by Lanczos.

    StyleID's authors do the same; InST's and NTC's squeeze the whole picture, which for squares is no other thing.

    Raises:
        ImageError: the picture cannot be used.
    """
    size = (side_px, side_px)
    return to_tensor(ImageOps.fit(load_image(picture), size, Image.Resampling.LANCZOS))


def picture_digest(img: Tensor) -> str:
    """sha256 of a picture's levels, for cache keys."""
    levels = ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return hashlib.sha256(levels.cpu().contiguous().numpy().tobytes()).hexdigest()


def crop_noise(like: Tensor, seed: int, number: int) -> Tensor:
    """Gaussian noise for photo ``number``, the same on every device."""
    rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.randn(like.shape, generator=rng).to(like.device)


class DiffusionBaseline(Baseline, Generic[Config]):
    """A method that draws with a Stable Diffusion.

    Args:
        model: the diffusion model.
        config: how a photo becomes a picture; the authors' settings when None.
    """

    settings: ClassVar[Callable[[], Any]]

    def __init__(self, model: LatentDiffusion, config: Config | None = None) -> None:
        self.model = model
        self.config: Config = config if config is not None else type(self).settings()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = OFFICIAL_MODEL,
        *,
        config: Config | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        memory: str = "all",
        revision: str | None = None,
        variant: str | None = None,
    ) -> Self:
        """The method on a model; arguments and errors of :meth:`LatentDiffusion.from_pretrained`."""
        networks = LatentDiffusion.from_pretrained(
            model, device=device, dtype=dtype, memory=memory, revision=revision, variant=variant
        )
        return cls(networks, config)

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures."""
        return self.model.side_px

    @property
    def parameters(self) -> int:
        """Of the UNet, the autoencoder and the text encoder."""
        return self.model.parameters

    def _changed(self, **changes: Any) -> Config:
        """The settings, with those that are not None put in."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self.config, **given)  # type: ignore[type-var]

    def _each(self, crops: Tensor, first: int, draw: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Pictures of crops; ``draw`` makes new latents of a crop's latents and its number."""
        check_crops(crops)
        drawn = []
        with guarded(self.name), torch.no_grad():
            for number, crop in enumerate(crops.split(1), start=first):
                latents = self.model.encode(resize(crop.float(), self.resolution))
                drawn.append(self.model.decode(draw(latents, number)))
        return torch.cat(drawn)

    def _steps(self, pairs: list[tuple[int, int]], progress: bool) -> Iterator[tuple[int, int]]:
        """The steps, behind a bar."""
        yield from tqdm(pairs, desc=self.name, disable=not progress)


class StyledDiffusionBaseline(DiffusionBaseline[Config], Generic[Config, Style]):
    """A method that learns a style from one picture.

    Args:
        model: the diffusion model.
        config: how a photo becomes a picture; the authors' settings when None.
        cache: folder that keeps what ``stylize`` learns from style pictures.

    Attributes:
        file: name of the file that a style is kept in.
        format: what its metadata call it.
    """

    file: ClassVar[str]
    format: ClassVar[str]

    def __init__(
        self,
        model: LatentDiffusion,
        config: Config | None = None,
        *,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__(model, config)
        self.cache = None if cache is None else Path(cache)
        self.style: Style | None = None
        self._known: dict[str, Style] = {}

    def prepare(self, pictures: PictureSources, out: str | Path, *, progress: bool = True) -> Self:
        """Learn one style picture: the file given, or the first by name of a folder or zip.

        See :meth:`Baseline.prepare`.
        """
        img = square_crop(_first_picture(pictures), self.resolution)
        self.style = self._learn(img, Path(out), progress=progress)
        return self

    def load(self, out: str | Path) -> Self:
        """What ``prepare`` left in ``out``; see :meth:`Baseline.load`."""
        self.style = self._read(Path(out) / self.file)
        return self

    @abstractmethod
    def stylize(
        self,
        crops: Tensor,
        style: Picture | None = None,
        *,
        first: int = 0,
        progress: bool = False,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Portraits; see :meth:`Baseline.stylize`.

        Args:
            crops: [B, 3, S, S] in [-1, 1].
            style: a picture to learn, once, and to keep in the folder ``cache``; the prepared style when None.
            first: number of the first crop; where noise is drawn, it depends on the crop's number.
            progress: show bars.
            on_step: called after each step down.
        """

    def _style_of(self, picture: Picture | None, progress: bool) -> Style:
        """What was learned of a picture, once a picture; the prepared style when None."""
        if picture is None:
            return prepared(self.style, self)
        img = square_crop(picture, self.resolution)
        key = hashlib.sha256(json.dumps(self._key(img), sort_keys=True).encode()).hexdigest()[:16]
        if key not in self._known:
            folder = None if self.cache is None else self.cache / f"{self.name}-{key}"
            self._known = {key: self._learn(img, folder, progress=progress)}
        return self._known[key]

    @abstractmethod
    def _key(self, img: Tensor) -> dict[str, Any]:
        """All that what is learned depends on, JSON-able."""

    def _learn(self, img: Tensor, folder: Path | None, *, progress: bool) -> Style:
        """The style of a picture [1, 3, R, R]; from ``folder``, where it is there, else left there."""
        origin = self._key(img)
        path = None if folder is None else folder / self.file
        if path is None or not path.is_file():
            return self._learn_anew(img, path, origin, progress)
        if style_origin(path, self.format) != origin:
            raise ConfigError(
                f"{path} is of another picture or of other settings; name another folder"
            )
        return self._read(path)

    @abstractmethod
    def _learn_anew(
        self, img: Tensor, path: Path | None, origin: dict[str, Any], progress: bool
    ) -> Style:
        """The style of a picture [1, 3, R, R]; left in ``path``, with its origin, where that is not None."""

    @abstractmethod
    def _read(self, path: Path) -> Style:
        """The style a file holds.

        Raises:
            CheckpointError: it holds none, or one of another model.
        """


def style_origin(path: Path, kind: str) -> dict[str, Any]:
    """What a style's file was made of.

    Raises:
        CheckpointError: the file is absent, damaged, or of another format than ``kind``.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != kind:
        raise CheckpointError(f"holds no style ({kind})", path=path)
    origin: dict[str, Any] = json.loads(metadata["origin"])
    return origin


def _first_picture(pictures: PictureSources) -> Picture:
    source = pictures if isinstance(pictures, str | Path) else next(iter(pictures), None)
    if source is None:
        raise ConfigError("expected a style picture, got none")
    path = Path(source)
    if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir():
        return path
    return next(iter_images(path))[1]
