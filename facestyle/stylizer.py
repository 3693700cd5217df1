"""The whole inference story on one page: detect -> align -> encode -> truncate -> synthesize -> paste.

Each stage is one short method of ``FaceStylizer``; ``__call__`` runs them in that order and keeps what each one made.
On a CPU several photos, or else the faces of one, are handled by as many single-threaded workers as there are cores,
each taking its photo through all stages: two small convolutions side by side beat one split in two.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm
from typing_extensions import Unpack

from facestyle import __version__
from facestyle.errors import ConfigError, FaceTooSmallError, NoFaceError
from facestyle.faces.align import align, full_image_quad, quad_side_px
from facestyle.faces.detect import Face, FaceDetector
from facestyle.faces.paste import paste
from facestyle.image import load_image, to_pil, to_tensor
from facestyle.inversion import Inverter
from facestyle.latents import broadcast, truncate
from facestyle.models.encoder import Encoder
from facestyle.models.generator import Generator
from facestyle.models.mobile import MobileSynthesis
from facestyle.models.settled import SettledSynthesis
from facestyle.models.zoo import load_base_generator, load_encoder, load_style_generator
from facestyle.runtime import choose_device, choose_dtype, parse_dtype, tune_allocator
from facestyle.styles import StyleConfig, find_style

__all__ = ["FaceStylizer", "StylizeResult", "StylizedFace"]

OnNoFace = Literal["error", "skip", "center"]
Faces = Literal["all", "largest"] | Sequence[int]

_SMALLEST_FACE_PX = 40
"""Side of the aligned square below which a face holds too little to go on."""

_SWITCH_S = 5e-4
"""Longest wait for the interpreter while photos are handled side by side, in seconds."""

ImageSource = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
"""A path, the bytes of a file, a PIL image, or an array [H, W, 3]."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class StylizedFace:
    """One face of a photo and what became of it.

    Attributes:
        portrait: the stylized portrait, 1024 x 1024.
        w: [512], the encoder's code, before truncation; with ``refine`` the mean over rows.
        w_plus: [num_ws, 512], the code that was drawn.
        quad: [4, 2], corners of the aligned square in photo pixels: upper left, lower left, lower right, upper right.
        face: the detection; None for a photo that was passed as aligned or centre-cropped.
        photo: the photo it was found in.
    """

    portrait: Image.Image
    w: Tensor
    w_plus: Tensor
    quad: NDArray[np.float64]
    face: Face | None
    photo: Image.Image = field(repr=False)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, upper, right, lower in photo pixels; of the whole square when nothing was detected."""
        if self.face is not None:
            return self.face.box
        (left, upper), (right, lower) = self.quad.min(0), self.quad.max(0)
        return float(left), float(upper), float(right), float(lower)

    @cached_property
    def crop(self) -> Image.Image:
        """The aligned photo at the portrait's size, for before and after."""
        return align(self.photo, self.quad, self.portrait.width)


@dataclass(frozen=True)
class StylizeResult:
    """A stylized photo and everything on the way to it.

    Attributes:
        image: the full photo with every chosen face stylized; the portrait itself for an aligned input.
        photo: the photo as it was read, upright, RGB.
        faces: largest first; empty when there was none and ``on_no_face="skip"``.
        seconds: by stage: "load", "detect", "align", "encode", "refine", "synthesize", "paste".
        settings: what it was made with; goes into the PNG's metadata.
    """

    image: Image.Image
    photo: Image.Image = field(repr=False)
    faces: list[StylizedFace]
    seconds: dict[str, float]
    settings: dict[str, Any]

    def metadata(self) -> dict[str, str]:
        """Text chunks for the PNG: style, settings and version, nothing about the photo."""
        return {
            "Software": f"facestyle {__version__}",
            "facestyle": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }


class StylizeOptions(TypedDict, total=False):
    """Keyword arguments of ``FaceStylizer.__call__``, which says what they mean."""

    psi: float | None
    strength: float
    keep_color: float | bool
    refine: int
    faces: Faces
    aligned: bool
    on_no_face: OnNoFace
    seed: int
    progress: bool


@dataclass
class _Job:
    """A photo on its way through the stages."""

    photo: Image.Image
    quads: list[NDArray[np.float64]] = field(default_factory=list)
    found: list[Face | None] = field(default_factory=list)
    crops: list[Tensor] = field(default_factory=list)
    codes: list[Tensor] = field(default_factory=list)
    is_aligned: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


class FaceStylizer:
    """Turns faces in photos into portraits of one style.

    Args:
        generator: G', the style's.
        base: G, for ``strength`` and ``refine``.
        encoder: E_w.
        config: the style's.
        device: None takes the best there is.
        dtype: of synthesis; None takes the fastest that keeps the picture.

    Example:
        >>> stylizer = FaceStylizer.from_pretrained("cartoon")    # doctest: +SKIP
        >>> stylizer("me.jpg").image.save("cartoon.png")          # doctest: +SKIP
    """

    def __init__(
        self,
        generator: Generator,
        base: Generator,
        encoder: Encoder,
        config: StyleConfig,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        tune_allocator()
        self.device = choose_device(device)
        self.generator = generator.to(self.device)
        self.base = base.to(self.device)
        self.encoder = encoder.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config
        self.dtype = parse_dtype(dtype) or choose_dtype(generator, self.device)
        self.detector = FaceDetector(
            device="cpu" if self.device.type == "mps" else str(self.device)
        )
        self._blend: tuple[float, nn.Module] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> FaceStylizer:
        """A stylizer, ready to be called.

        Args:
            name_or_path: a bundled style ("cartoon"), a folder ("./my-style"), or a Hub repository ("user/my-style").
            device: "cpu", "cuda", "mps"; None takes the best there is.
            dtype: "float32", "bfloat16", "float16"; None takes the fastest that keeps the picture.
            revision: branch, tag or commit of a Hub repository.
            token: Hub token, or True for the stored one.
            cache_dir: Hub cache folder.
            local_files_only: never ask the network.
            force_download: fetch again what is cached.

        Raises:
            StyleNotFoundError: no such style; the message lists the bundled ones.
            CheckpointError: a weights file is damaged; the message names it.
            DownloadError: the Hub cannot be reached.
        """
        folder = find_style(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        config = StyleConfig.from_file(folder / "config.json")
        base = load_base_generator()
        own_encoder = None if config.encoder == "base" else folder / config.encoder
        return cls(
            load_style_generator(folder, base),
            base,
            load_encoder(own_encoder),
            config,
            device=device,
            dtype=dtype,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the style as a folder that ``from_pretrained`` reads: config and generator, each whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        from facestyle.hub.package import write_style

        write_style(self.generator, self.config, folder)

    @overload
    def __call__(self, photos: ImageSource, **options: Unpack[StylizeOptions]) -> StylizeResult: ...

    @overload
    def __call__(
        self, photos: list[ImageSource], **options: Unpack[StylizeOptions]
    ) -> list[StylizeResult]: ...

    def __call__(
        self,
        photos: ImageSource | list[ImageSource],
        *,
        psi: float | None = None,
        strength: float = 1.0,
        keep_color: float | bool = 0.0,
        refine: int = 0,
        faces: Faces = "all",
        aligned: bool = False,
        on_no_face: OnNoFace = "error",
        seed: int = 0,
        progress: bool = False,
    ) -> StylizeResult | list[StylizeResult]:
        """The stylized photo, or one for each of a list.

        Args:
            photos: a path, the bytes of a file, a PIL image, an array [H, W, 3], or a list of these.
            psi: truncation of the content code, 0 (everybody's mean face) to 1 (as encoded); None takes the style's.
            strength: 0 draws the photo's reconstruction, 1 the full style; in between G's and G''s weights are blended.
            keep_color: 0 to 1 (or True), how much of the photo's own colours comes back.
            refine: optimisation steps on the code for a closer likeness, 50 is plenty; about 0.5 s each on two cores.
            faces: "all", "largest", or indices into the faces sorted by size, largest first.
            aligned: the photo is an FFHQ-aligned square already; nothing is detected or pasted.
            on_no_face: "error", "skip" (give the photo back as it is) or "center" (take the centre square).
            seed: recorded with the result; this path draws no random numbers.
            progress: show a bar.

        Raises:
            ConfigError: an option is out of range.
            ImageError: a photo cannot be used; NoFaceError and FaceTooSmallError among them.
        """
        _check_options(psi, strength, float(keep_color), refine, on_no_face)
        psi = self.config.psi if psi is None else psi
        settings = {
            "style": self.config.name, "psi": psi, "strength": strength, "keep_color": float(keep_color),
            "refine": refine, "seed": seed,
        }  # fmt: skip
        sources = photos if isinstance(photos, list) else [photos]
        network = self._synthesis_at(strength)
        bar = tqdm(total=len(sources), desc="faces", disable=not progress)

        def start(source: ImageSource) -> _Job:
            job = self._find(source, faces, aligned, on_no_face)
            self._describe(job)
            return job

        def finish(job: _Job) -> StylizeResult:
            drawn = [truncate(w, self.base.w_avg, psi) for w in job.codes]
            with _timed([job], "synthesize"):
                portraits = self._synthesize(network, drawn, job.crops, float(keep_color))
            rows = zip(portraits, job.codes, drawn, job.quads, job.found, strict=True)
            made = [
                StylizedFace(portrait, w.mean(0).cpu(), w_plus.cpu(), quad, face, job.photo)
                for portrait, w, w_plus, quad, face in rows
            ]
            with _timed([job], "paste"):
                image = _paste_all(job, made)
            bar.update()
            return StylizeResult(image, job.photo, made, job.seconds, settings)

        if refine:  # faces of all photos together
            jobs = self._map(start, sources)
            with _timed(jobs, "refine"):
                self._refine(jobs, refine, progress)
            results = self._map(finish, jobs)
        else:
            results = self._map(lambda source: finish(start(source)), sources)
        bar.close()
        return results if isinstance(photos, list) else results[0]

    def _find(self, source: ImageSource, faces: Faces, aligned: bool, on_no_face: OnNoFace) -> _Job:
        """Read one photo and decide which squares of it are faces."""
        start = time.perf_counter()
        job = _Job(load_image(source), is_aligned=aligned)
        job.seconds["load"] = time.perf_counter() - start
        path = source if isinstance(source, str | Path) else None
        start = time.perf_counter()
        if aligned:
            job.quads, job.found = [full_image_quad(job.photo.size)], [None]
            return job
        found = self.detector.detect(job.photo)
        job.seconds["detect"] = time.perf_counter() - start
        if not found:
            if on_no_face == "center":
                job.quads, job.found = [_centre_quad(job.photo.size)], [None]
            if on_no_face == "error":
                raise NoFaceError(
                    "no face found; use a photo in which the face is upright, in focus and not covered, pass an "
                    'aligned square with aligned=True, or set on_no_face to "skip" or "center"',
                    image_size=job.photo.size,
                    path=path,
                )
            return job
        chosen = _choose(found, faces)
        usable = [face for face in chosen if quad_side_px(face.quad) >= _SMALLEST_FACE_PX]
        if not usable and on_no_face != "skip":
            raise FaceTooSmallError(
                f"the face covers only {quad_side_px(chosen[0].quad):.0f} px; {_SMALLEST_FACE_PX} px is the least, "
                "200 px and more look good; use a larger photo",
                face_px=quad_side_px(chosen[0].quad),
                path=path,
            )
        job.quads, job.found = [face.quad for face in usable], list(usable)
        return job

    def _describe(self, job: _Job) -> None:
        """Cut a photo's faces out and encode them: crops [1, 3, S, S] and codes [num_ws, 512], all rows alike."""
        side = self.encoder.input_px
        with _timed([job], "align"):
            job.crops = self._map(lambda quad: to_tensor(align(job.photo, quad, side)), job.quads)
        with _timed([job], "encode"), torch.inference_mode():
            for i in range(0, len(job.crops), 8):
                img = torch.cat(job.crops[i : i + 8]).to(self.device)
                img = img.contiguous(memory_format=torch.channels_last)
                job.codes += broadcast(self.encoder(img), self.base.num_ws).unbind()
        job.seconds["refine"] = 0.0

    def _refine(self, jobs: Sequence[_Job], steps: int, progress: bool) -> None:
        """Replace the codes by those after ``steps`` of optimisation, faces four at a time."""
        crops = [crop for job in jobs for crop in job.crops]
        codes = [code for job in jobs for code in job.codes]
        refined: list[Tensor] = []
        bar = tqdm(total=steps * -(-len(crops) // 4), desc="refine", disable=not progress)
        for i in range(0, len(crops), 4):
            photos = torch.cat(crops[i : i + 4]).to(self.device)
            start = torch.stack(codes[i : i + 4]).clone()
            inverter = self._inverter
            refined += inverter(photos, start, steps, on_step=lambda _: bar.update()).unbind()
        bar.close()
        ready = iter(refined)
        for job in jobs:
            job.codes = [next(ready) for _ in job.codes]

    @cached_property
    def _inverter(self) -> Inverter:
        return Inverter(self.base)

    def _synthesize(
        self,
        network: nn.Module,
        codes: Sequence[Tensor],
        crops: Sequence[Tensor],
        keep_color: float,
    ) -> list[Image.Image]:
        """Portraits of the codes [num_ws, 512]."""

        def draw(pair: tuple[Tensor, Tensor]) -> Image.Image:
            w_plus, crop = pair
            with torch.inference_mode():
                img = network(w_plus[None].to(self.dtype)).float()
                if keep_color:
                    img = _with_color_of(img, crop.to(self.device), keep_color)
                return to_pil(img[0])

        return self._map(draw, list(zip(codes, crops, strict=True)))

    def _synthesis_at(self, strength: float) -> nn.Module:
        """Synthesis network with weights between G's (0) and G''s (1); the last one asked for is kept."""
        if self._blend is None or self._blend[0] != strength:
            network = copy.deepcopy(self.generator.synthesis)
            if strength != 1:
                base = self.base.synthesis.state_dict()
                blended = {
                    name: torch.lerp(base[name], tensor, strength)
                    for name, tensor in network.state_dict().items()
                }
                network.load_state_dict(blended)
            if isinstance(network, MobileSynthesis) and self.device.type == "cpu":
                network = SettledSynthesis(network)
            self._blend = strength, network.to(self.dtype)
        return self._blend[1]

    def _map(self, function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """``function`` of every item, in order; on a CPU by a single-threaded worker a core, and one to fill gaps.

        A worker that comes here again does its items itself.
        """
        threads = torch.get_num_threads()
        workers = min(len(items), threads + 1)
        if workers < 2 or threads < 2 or self.device.type != "cpu":
            return [function(item) for item in items]
        interval = sys.getswitchinterval()
        # A worker back from a computation waits for the interpreter: 5 ms by default, which batches feel.
        sys.setswitchinterval(min(interval, _SWITCH_S))
        try:
            with ThreadPoolExecutor(
                workers, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                return list(pool.map(function, items))
        finally:
            sys.setswitchinterval(interval)
            torch.set_num_threads(threads)


class _timed:
    """Context that books its share of wall time under a stage of every job."""

    def __init__(self, jobs: Sequence[_Job], stage: str) -> None:
        self.jobs, self.stage = jobs, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        elapsed = (time.perf_counter() - self.start) / max(1, len(self.jobs))
        for job in self.jobs:
            job.seconds[self.stage] = elapsed


def _check_options(
    psi: float | None, strength: float, keep_color: float, refine: int, on_no_face: str
) -> None:
    if psi is not None and not 0 <= psi <= 1.5:
        raise ConfigError(f"psi must be in [0, 1.5], got {psi}")
    if not 0 <= strength <= 1.5:
        raise ConfigError(f"strength must be in [0, 1.5], got {strength}; 1 is the full style")
    if not 0 <= keep_color <= 1:
        raise ConfigError(f"keep_color must be in [0, 1], got {keep_color}")
    if refine < 0:
        raise ConfigError(f"refine must be 0 or more steps, got {refine}")
    if on_no_face not in ("error", "skip", "center"):
        raise ConfigError(f'on_no_face must be "error", "skip" or "center", got {on_no_face!r}')


def _choose(found: list[Face], faces: Faces) -> list[Face]:
    """The faces asked for, of those found, largest first."""
    if faces == "all":
        return found
    if faces == "largest":
        return found[:1]
    if not all(isinstance(i, int) for i in faces):
        raise ConfigError(f'faces must be "all", "largest" or a list of numbers, got {faces!r}')
    if bad := [i for i in faces if not 0 <= i < len(found)]:
        raise ConfigError(
            f"there is no face {bad}; {len(found)} were found, numbered from 0, largest first"
        )
    return [found[i] for i in faces]


def _centre_quad(size: tuple[int, int]) -> NDArray[np.float64]:
    """The largest centred square of a photo."""
    side = min(size)
    offset = np.array([(size[0] - side) / 2, (size[1] - side) / 2])
    quad: NDArray[np.float64] = full_image_quad((side, side)) + offset
    return quad


def _paste_all(job: _Job, made: list[StylizedFace]) -> Image.Image:
    """The photo with every portrait in its place, far (small) ones first."""
    if job.is_aligned:
        return made[0].portrait
    image = job.photo
    for face in sorted(made, key=lambda item: quad_side_px(item.quad)):
        image = paste(image, face.portrait, face.quad)
    return image


def _with_color_of(img: Tensor, photo: Tensor, share: float) -> Tensor:
    """``img`` with the broad colours of ``photo``: the difference of both, blurred, is added back, brightness less so.

    Args:
        img: [1, 3, R, R] in about [-1, 1].
        photo: [1, 3, S, S], the same face.
        share: 0 changes nothing, 1 takes the photo's colours over.
    """
    coarse = 6
    wanted = F.interpolate(photo, size=(coarse, coarse), mode="area")
    present = F.interpolate(img.clamp(-1, 1), size=(coarse, coarse), mode="area")
    change = wanted - present
    brightness = (change * change.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, True)
    change = (change - brightness) + 0.5 * brightness
    return img + share * F.interpolate(change, size=img.shape[-2:], mode="bicubic")
