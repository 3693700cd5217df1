"""What the diffusion baselines share: a model, photos one by one, and styles learned from one picture and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm
from typing_extensions import Self

from facestyle.baselines.base import (
    Baseline,
    PictureSources,
    check_crops,
    prepared,
    resize,
)
from facestyle.baselines.diffusion import OFFICIAL_MODEL, LatentDiffusion, guarded
from facestyle.errors import CheckpointError, ConfigError
from facestyle.image import IMAGE_SUFFIXES, load_image, to_tensor
from facestyle.models.checkpoints import read_metadata
from facestyle.picture_files import iter_images
from facestyle.seeds import numbered_seed
from facestyle.timing import wait_for

__all__ = [
    "STYLE_NUMBER",
    "DiffusionBaseline",
    "OnStep",
    "Picture",
    "StyledDiffusionBaseline",
    "crop_noise",
    "latent_rng",
    "picture_digest",
    "square_crop",
    "squashed",
    "style_origin",
    "truncated",
]

OnStep = Callable[[int, int, Tensor], None]
"""Called after each step with the steps done, the steps in all and the latents [1, C, H, W]; raising ends the run."""

Picture = str | Path | Image.Image

STYLE_NUMBER = -1
"""Number of the style picture where photos are numbered from 0."""


class _Settings(Protocol):
    @property
    def official_quirks(self) -> bool: ...

    @property
    def seed(self) -> int: ...

    @property
    def steps(self) -> int: ...


Config = TypeVar("Config", bound=_Settings)
Style = TypeVar("Style")


def square_crop(picture: Picture, side_px: int) -> Tensor:
    """The middle square of a picture as [1, 3, side_px, side_px] in [-1, 1], by Lanczos; StyleID's authors do the same.

    Raises:
        ImageError: the picture cannot be used.
    """
    size = (side_px, side_px)
    return to_tensor(ImageOps.fit(load_image(picture), size, Image.Resampling.LANCZOS))


def squashed(picture: Picture, side_px: int, filter: Image.Resampling) -> Tensor:
    """The whole of a picture, pressed into [1, 3, side_px, side_px] in [-1, 1], as InST's and NTC's authors do.

    Raises:
        ImageError: the picture cannot be used.
    """
    return to_tensor(load_image(picture).resize((side_px, side_px), filter))


def truncated(img: Tensor) -> Tensor:
    """Pictures in [-1, 1] at the next of 256 levels below, where ``astype(uint8)`` leaves them."""
    return ((img + 1) / 2 * 255).floor() / 127.5 - 1


def picture_digest(img: Tensor) -> str:
    """sha256 of a picture's levels, for cache keys."""
    levels = ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return hashlib.sha256(levels.cpu().contiguous().numpy().tobytes()).hexdigest()


def crop_noise(like: Tensor, seed: int, number: int) -> Tensor:
    """Gaussian noise for photo ``number``, the same on every device."""
    rng = torch.Generator().manual_seed(numbered_seed(seed, number))
    return torch.randn(like.shape, generator=rng).to(like.device)


def latent_rng(seed: int, number: int) -> torch.Generator:
    """What draws the sample of a picture's latent: other numbers than `crop_noise`, the same on every device."""
    return torch.Generator().manual_seed(numbered_seed(seed, number + 500_009))


class DiffusionBaseline(Baseline, Generic[Config]):
    """A method that draws with a Stable Diffusion.

    Args:
        model: the diffusion model.
        config: how a photo becomes a picture; the authors' settings when None.
        cache: folder that keeps what ``stylize`` learns of style pictures, if the method learns anything of them.

    Attributes:
        squash: how the authors press a whole picture into a square, where they do; ``official_quirks`` do it too.
    """

    settings: ClassVar[Callable[[], Any]]
    squash: ClassVar[Image.Resampling | None] = None

    def __init__(
        self,
        model: LatentDiffusion,
        config: Config | None = None,
        *,
        cache: str | Path | None = None,
    ) -> None:
        self.model = model
        self.config: Config = config if config is not None else type(self).settings()
        self.cache = None if cache is None else Path(cache)

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path = OFFICIAL_MODEL,
        *,
        config: Config | None = None,
        cache: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        memory: str = "all",
        revision: str | None = None,
        variant: str | None = None,
    ) -> Self:
        """The method on a model in a folder or Hub repository.

        Args:
            model_id: a folder that diffusers saved, or ``OWNER/NAME`` on the Hub.
            config: the class's.
            cache: likewise.
            device: of :meth:`LatentDiffusion.from_pretrained`, whose errors come too.
            dtype: likewise.
            memory: likewise.
            revision: likewise.
            variant: likewise.
        """
        networks = LatentDiffusion.from_pretrained(
            model_id, device=device, dtype=dtype, memory=memory, revision=revision, variant=variant
        )
        return cls(networks, config, cache=cache)

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures."""
        return self.model.side_px

    @property
    def parameters(self) -> int:
        """Of the UNet, the autoencoder and the text encoder."""
        return self.model.parameters

    @abstractmethod
    def stylize(
        self,
        content: Tensor | Picture,
        style: Picture | None = None,
        *,
        seed: int | None = None,
        steps: int | None = None,
        first: int = 0,
        progress: bool = False,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Pictures in the style, by one and the same call for every diffusion method.

        Args:
            content: crops [B, 3, S, S] of photos in [-1, 1], float, any side; or one photo, as a PIL picture or a file,
                of which the middle square is taken. Faces are neither looked for nor aligned.
            style: a picture, or for NTC a text; what was prepared, or is set, when None.
            seed: of every random number; the settings' when None.
            steps: of DDIM; likewise.
            first: number of the first photo; where numbers are drawn, they depend on the photo's number.
            progress: show bars.
            on_step: called after each step down.

        Returns:
            [B, 3, R, R] in [-1, 1], float32, on the model's device.

        Raises:
            ConfigError: there is no style yet, the crops have another shape, or a setting is out of range.
            ImageError: a picture cannot be used.
            DeviceMemoryError: memory ran out.
        """

    def _changed(self, **changes: Any) -> Config:
        """The settings, with those that are not None put in."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self.config, **given)  # type: ignore[type-var]

    def _square(self, picture: Picture) -> Tensor:
        """A picture as the model sees it, [1, 3, R, R] in [-1, 1]."""
        if self.squash is None or not self.config.official_quirks:
            return square_crop(picture, self.resolution)
        return squashed(picture, self.resolution, self.squash)

    def _each(
        self,
        content: Tensor | Picture,
        first: int,
        config: Config,
        draw: Callable[[Tensor, int], Tensor],
    ) -> Tensor:
        """Pictures of photos; ``draw`` makes new latents of a photo's latents and its number."""
        crops = content if isinstance(content, Tensor) else self._square(content)
        check_crops(crops)
        drawn = []
        with guarded(self.name), torch.no_grad():
            for number, crop in enumerate(crops.split(1), start=first):
                latents = self._latents(resize(crop.float(), self.resolution), config, number)
                drawn.append(self._picture(draw(latents, number), config))
        return torch.cat(drawn)

    def _latents(self, img: Tensor, config: Config, number: int) -> Tensor:
        """Latents [1, C, H, W] of a picture [1, 3, R, R]: the mean, or with ``official_quirks`` a sample."""
        rng = latent_rng(config.seed, number) if config.official_quirks else None
        return self.model.encode(img, rng=rng)

    def _picture(self, latents: Tensor, config: Config) -> Tensor:
        """The picture of latents; with ``official_quirks`` at the level below, as the authors save it."""
        img = self.model.decode(latents)
        return truncated(img) if config.official_quirks else img

    def _steps(self, pairs: list[tuple[int, int]], progress: bool) -> Iterator[tuple[int, int]]:
        """The steps, behind a bar."""
        yield from tqdm(pairs, desc=self.name, disable=not progress)


class StyledDiffusionBaseline(DiffusionBaseline[Config], Generic[Config, Style]):
    """A method that learns a style from one picture.

    Args:
        model: the diffusion model.
        config: how a photo becomes a picture; the authors' settings when None.
        cache: folder that keeps what ``stylize`` learns of style pictures.

    Attributes:
        file: name of the file that a style is kept in.
        format: what its metadata call it.
        style_seconds: that ``prepare`` took, once it was called.
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
        super().__init__(model, config, cache=cache)
        self.style: Style | None = None
        self.style_seconds: float | None = None
        self._known: dict[str, Style] = {}

    def prepare(
        self, pictures: PictureSources, out: str | Path | None, *, progress: bool = True
    ) -> Self:
        """Learn one style picture: the file given, or the first by name of a folder or zip.

        Nothing is kept when ``out`` is None, for which InST takes too long. See :meth:`Baseline.prepare`.

        Raises:
            ConfigError: several were given.
        """
        img = self._square(_first_picture(pictures))
        folder = None if out is None else Path(out)
        began = time.perf_counter()
        self.style = self._learn(img, folder, self.config, progress=progress)
        wait_for(self.model.device)
        self.style_seconds = time.perf_counter() - began
        return self

    def load(self, out: str | Path) -> Self:
        """What ``prepare`` left in ``out``; see :meth:`Baseline.load`."""
        self.style = self._read(Path(out) / self.file, self.config)
        return self

    def _style_of(self, picture: Picture | None, config: Config, progress: bool) -> Style:
        """What was learned of a picture, once a picture; the prepared style when None."""
        if picture is None:
            return prepared(self.style, self)
        img = self._square(picture)
        origin = json.dumps(self._key(img, config), sort_keys=True)
        key = hashlib.sha256(origin.encode()).hexdigest()[:16]
        if key not in self._known:
            folder = None if self.cache is None else self.cache / f"{self.name}-{key}"
            self._known = {key: self._learn(img, folder, config, progress=progress)}
        return self._known[key]

    @abstractmethod
    def _key(self, img: Tensor, config: Config) -> dict[str, Any]:
        """All that what is learned depends on, JSON-able."""

    def _learn(self, img: Tensor, folder: Path | None, config: Config, *, progress: bool) -> Style:
        """The style of a picture [1, 3, R, R]; from ``folder``, where it is there, else left there."""
        origin = self._key(img, config)
        path = None if folder is None else folder / self.file
        if path is None or not path.is_file():
            return self._learn_anew(img, path, origin, config, progress)
        if style_origin(path, self.format) != origin:
            raise ConfigError(
                f"{path} is of another picture, model or number type, or of other settings; name another folder"
            )
        return self._read(path, config)

    @abstractmethod
    def _learn_anew(
        self,
        img: Tensor,
        path: Path | None,
        origin: dict[str, Any],
        config: Config,
        progress: bool,
    ) -> Style:
        """The style of a picture [1, 3, R, R]; left in ``path``, with its origin, where that is not None."""

    @abstractmethod
    def _read(self, path: Path, config: Config) -> Style:
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
    if metadata.get("format") != kind or "origin" not in metadata:
        raise CheckpointError(
            f"holds no style ({kind}); name a folder that `facestyle baseline train` made",
            path=path,
        )
    origin: dict[str, Any] = json.loads(metadata["origin"])
    return origin


def _first_picture(pictures: PictureSources) -> Picture:
    sources = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    if len(sources) != 1:
        raise ConfigError(
            f"the method follows one style picture, a file or the first of a folder or zip; got {len(sources)}"
        )
    path = Path(sources[0])
    if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir():
        return path
    return next(iter_images(path))[1]
