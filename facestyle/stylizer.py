"""The whole inference story on one page: detect -> align -> encode -> truncate -> synthesize -> paste.

Each stage is one short method of ``FaceStylizer``; ``__call__`` runs them in that order and keeps what each one made.
On a CPU several photos, or else the faces of one, are handled by as many single-threaded workers as there are cores,
each taking its photo through all stages: two small convolutions side by side beat one split in two. Elsewhere the faces
of several photos are encoded and drawn in batches.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm
from typing_extensions import Unpack

from facestyle.allocator import tune_allocator
from facestyle.drawing import draw_portraits, synthesis_at
from facestyle.errors import (
    ConfigError,
    FaceTooSmallError,
    NoFaceError,
    memory_named,
)
from facestyle.faces.align import align, full_image_quad, quad_side_px
from facestyle.faces.detect import Face, FaceDetector
from facestyle.image import load_image, to_tensor
from facestyle.inversion import Inverter, OnStep
from facestyle.latents import blend, check_mixing, style_mix, truncate
from facestyle.models.bases import encoder_for
from facestyle.models.checkpoints import weights_sha256
from facestyle.models.encode import encode
from facestyle.models.encoder import Encoder, Space, to_w_plus
from facestyle.models.generator import Generator
from facestyle.models.psp_encoder import AnyEncoder
from facestyle.models.zoo import load_style
from facestyle.multimodal import RANDOM_PSI, Latent, Variation, Variations, sample_styles
from facestyle.options import (
    CommonOptions,
    Faces,
    OnNoFace,
    Options,
    StylizeOptions,
    check_psi,
)
from facestyle.prepared import PreparedPhoto
from facestyle.reference import (
    STEPS,
    Init,
    ReferenceCode,
    ReferenceSpace,
    check_search,
    encode_reference,
    synthesis_sha256,
)
from facestyle.results import StylizedFace, StylizeResult, paste_all
from facestyle.runtime import choose_device, choose_dtype, parse_dtype
from facestyle.styles import StyleConfig, find_style
from facestyle.timing import wait_for
from facestyle.workers import side_by_side

__all__ = ["FaceStylizer", "StylizeResult", "StylizedFace"]

_SMALLEST_FACE_PX = 40
"""Side of the aligned square below which a face holds too little to go on."""

_BATCH = 8
"""Portraits drawn together where that is faster than one by one."""

_REFINED_AT_ONCE = 4
"""Faces refined together there."""

ImageSource = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
"""A path, the bytes of a file, a PIL image, or an array [H, W, 3]."""

PhotoSource = ImageSource | PreparedPhoto
"""The same, or what ``FaceStylizer.prepare`` gave."""

_P = TypeVar("_P", bound=PhotoSource)
_R = TypeVar("_R")
_T = TypeVar("_T")


@dataclass
class _Job:
    """A photo on its way through the stages."""

    photo: Image.Image
    quads: list[NDArray[np.float64]] = field(default_factory=list)
    found: list[Face | None] = field(default_factory=list)
    crops: list[Tensor] = field(default_factory=list)
    codes: list[Tensor] = field(default_factory=list)
    is_aligned: bool = False
    refine: int = 0
    content_space: Space = "w"
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def origin(self) -> dict[str, Any]:
        """How its codes were found, for the settings of a result."""
        return {"refine": self.refine, "content_space": self.content_space}


class FaceStylizer:
    """Turns faces in photos into portraits of one style.

    Args:
        generator: G', the style's.
        base: G, for ``strength`` and ``refine``.
        encoder: E_w.
        config: the style's.
        device: None takes the best there is.
        dtype: of synthesis; None takes the fastest that keeps the picture.

    Attributes:
        folder: that the style was loaded from, if it was.

    Example:
        >>> stylizer = FaceStylizer.from_pretrained("cartoon")    # doctest: +SKIP
        >>> stylizer("me.jpg").image.save("cartoon.png")          # doctest: +SKIP
    """

    def __init__(
        self,
        generator: Generator,
        base: Generator,
        encoder: AnyEncoder,
        config: StyleConfig,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        tune_allocator()
        self.device = choose_device(device)
        self.generator = generator.to(self.device)
        self.base = base.to(self.device)
        self.encoder = self._placed(encoder)
        self.config = config
        self.dtype = parse_dtype(dtype) or choose_dtype(self.device)
        self.detector = FaceDetector(self.device)
        self.folder: Path | None = None
        self._encoders: dict[Space, AnyEncoder] = {"w": self.encoder}
        self._blend: tuple[tuple[float, float, int], nn.Module] | None = None

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
            name_or_path: a bundled style ("cartoon"), a folder ("./my-style") of a style, of its training run, or of an
                import, or a Hub repository ("user/my-style").
            device: "cpu", "cuda", "mps"; None takes the best there is.
            dtype: "float32", "bfloat16", "float16"; None takes the fastest that keeps the picture.
            revision: branch, tag or commit of a Hub repository.
            token: Hub token, or True for the stored one.
            cache_dir: Hub cache folder.
            local_files_only: never ask the network.
            force_download: fetch again what is cached.

        Raises:
            StyleNotFoundError: no such style; the message lists the bundled ones.
            ConfigError: a revision of a style that is not of the Hub.
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
        with torch.inference_mode(False):  # refine sends gradients through G
            style = load_style(folder)
        stylizer = cls(
            style.generator, style.base, style.encoder, style.config, device=device, dtype=dtype
        )
        for encoder in style.others:
            stylizer._encoders[encoder.space] = stylizer._placed(encoder)
        stylizer.folder = folder
        return stylizer

    def save_pretrained(
        self, folder: str | Path, *, include_encoder: bool = False, samples: bool = True
    ) -> None:
        """Write the style as a folder that ``from_pretrained`` reads and ``push_to_hub`` uploads.

        It holds ``config.json``, ``generator.safetensors`` (float16), ``LICENSE.md``, ``training.json`` where the
        origin is known, a sheet of samples and the card ``README.md``; an own card or samples found there are kept. A
        base generator and an encoder of the style's own go with it.

        Args:
            folder: made where it lacks.
            include_encoder: also write E_w, 28 MB, which the style otherwise shares with all others.
            samples: draw people who do not exist in the style; about three seconds on two cores.

        Raises:
            ConfigError: it draws with an imported generator.
            OutputError: it cannot be written.
        """
        from facestyle.hub.package import write_package

        write_package(self, folder, include_encoder=include_encoder, samples=samples)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        license: str | None = None,
        data_license: str | None = None,
        include_encoder: bool = False,
    ) -> str:
        """Save the style to a temporary folder and upload it; the address of the commit or pull request.

        Args:
            repo_id: "user/name"; made if it is not there.
            private: of a repository that is made.
            create_pr: open a pull request in place of a commit.
            revision: branch that is written to.
            token: Hub token; the stored one when None.
            commit_message: title of the commit.
            license: of the weights, where the style does not say it.
            data_license: of the training pictures, where the style does not say it.
            include_encoder: see `save_pretrained`.

        Raises:
            ConfigError: the licence of the training pictures is not known, the style says another one, or ``repo_id``
                is no name.
            UploadError: the token, the rights or the network failed; call it again to go on.
        """
        from facestyle.hub.package import write_package
        from facestyle.hub.push import licensed, push_style

        config = licensed(self.config, license, data_license)
        with tempfile.TemporaryDirectory() as folder:
            write_package(
                self, folder, include_encoder=include_encoder, repo_id=repo_id, config=config
            )
            return push_style(
                folder, repo_id, private=private, create_pr=create_pr, revision=revision, token=token,
                commit_message=commit_message, again="push_to_hub(...)",
            )  # fmt: skip

    @overload
    def __call__(self, photos: PhotoSource, **options: Unpack[StylizeOptions]) -> StylizeResult: ...

    @overload
    def __call__(
        self, photos: list[PhotoSource], **options: Unpack[StylizeOptions]
    ) -> list[StylizeResult]: ...

    @overload
    def __call__(
        self, photos: list[_P], **options: Unpack[StylizeOptions]
    ) -> list[StylizeResult]: ...

    def __call__(
        self,
        photos: PhotoSource | list[_P],
        *,
        psi: float | None = None,
        strength: float = 1.0,
        keep_color: float | bool = 0.0,
        keep_texture: float | bool = 0.0,
        refine: int = 0,
        content_space: Space = "w",
        faces: Faces = "all",
        aligned: bool = False,
        on_no_face: OnNoFace = "error",
        seed: int = 0,
        progress: bool = False,
    ) -> StylizeResult | list[StylizeResult]:
        """The stylized photo, or one for each of a list.

        Args:
            photos: a path, the bytes of a file, a PIL image, an array [H, W, 3], what ``prepare`` gave, or a list of
                these.
            psi: truncation of the content code, 0 (everybody's mean face) to 1 (as encoded); None takes the style's.
            strength: 0 draws the photo's reconstruction, 1 the full style, by weights between G's and G''s; up to 2
                exaggerates the style.
            keep_color: 0 to 1 (or True), how much of the photo's own colours comes back.
            keep_texture: 0 to 1 (or True), how much of a natural texture of hair, beard and skin comes back on the
                style's shapes: the finest layers are drawn that much more as G does.
            refine: optimisation steps on the code for a closer likeness: 8 bring most of it, 50 are plenty; 0.15 to
                0.25 s each on two cores.
            content_space: where the face is encoded (paper section 6.2): "w" balances likeness and style; "z_plus" is
                nearer to natural faces and is less alike; "w_plus" holds more detail, and more artifacts with it.
            faces: "all", "largest", or indices into the faces sorted by size, largest first.
            aligned: the photo is an FFHQ-aligned square already; nothing is detected or pasted.
            on_no_face: "error", "skip" (give the photo back as it is) or "center" (take the centre square).
            seed: 0 lays brush strokes and strands of hair as they were trained, any other elsewhere, which shows most
                in ``impasto``.
            progress: show a bar.

        Raises:
            ConfigError: an option is out of range.
            CheckpointError: the encoder into ``content_space`` cannot be read, or there is none for the style's base.
            ImageError: a photo cannot be used; NoFaceError and FaceTooSmallError among them.
        """
        options = Options(
            psi=psi, strength=strength, keep_color=float(keep_color), keep_texture=float(keep_texture), refine=refine,
            content_space=content_space, faces=faces, aligned=aligned, on_no_face=on_no_face, seed=seed,
            progress=progress,
        )  # fmt: skip
        settings = self._settings(options, psi=self._psi(psi), seed=seed)
        sources = photos if isinstance(photos, list) else [photos]

        def finish(jobs: Sequence[_Job], network: nn.Module) -> list[StylizeResult]:
            codes = [self._content(job, psi) for job in jobs]
            return self._results(jobs, network, codes, options, settings)

        results = self._run(sources, options, finish)
        return results if isinstance(photos, list) else results[0]

    def prepare(
        self,
        photo: PhotoSource,
        *,
        refine: int = 0,
        content_space: Space = "w",
        faces: Faces = "all",
        aligned: bool = False,
        on_no_face: OnNoFace = "error",
        progress: bool = False,
    ) -> PreparedPhoto:
        """The photo with its faces found and encoded, to be passed in its place as often as wanted.

        Drawing it in another style or with other options (strength, psi, keep_color, keep_texture) skips the first
        half of the way.
        Later calls number the faces as they were prepared, take ``refine`` and ``content_space`` from here, and do not
        look at ``aligned`` and ``on_no_face`` again.

        Args:
            photo: a path, the bytes of a file, a PIL image, an array [H, W, 3], or a photo prepared before, which
                ``refine`` then starts from.
            refine: as in ``__call__``, like the others.
            content_space: where the faces are encoded.
            faces: which to prepare.
            aligned: the photo is an FFHQ-aligned square already.
            on_no_face: what to do without a face.
            progress: show a bar.

        Raises:
            ConfigError: an option is out of range.
            ImageError: the photo cannot be used; NoFaceError and FaceTooSmallError among them.
        """
        options = Options(
            refine=refine, content_space=content_space, faces=faces, aligned=aligned, on_no_face=on_no_face,
            progress=progress,
        )  # fmt: skip
        (job,) = self._start([photo], options)
        if refine:
            with self._timed([job], "refine"):
                self._refine([job], refine, progress)
        return PreparedPhoto(
            job.photo, job.found, job.quads, job.crops, [code.cpu() for code in job.codes], job.is_aligned,
            job.refine, job.content_space, self.config.base_sha256, self.encoder_id, job.seconds,
        )  # fmt: skip

    def variations(
        self,
        photo: PhotoSource,
        n: int = 8,
        *,
        mixing_level: int = 6,
        seed: int = 0,
        psi_content: float | None = None,
        psi_style: float | None = None,
        latent: Latent = "z+",
        faces: Faces = "largest",
        **options: Unpack[CommonOptions],
    ) -> Variations:
        """``n`` portraits of one photo: layers from ``mixing_level`` up follow random style codes (paper section 3.3).

        Portrait i is drawn with seed + i: asked for alone with that seed it comes out the same (but for rounding, by 2
        levels of 255 at most, on some processors).
        Of several faces each gets a code of its own from that seed, the largest the first.

        Args:
            photo: a path, the bytes of a file, a PIL image, an array [H, W, 3], or what ``prepare`` gave.
            n: how many.
            mixing_level: first row of the code that is random: 3 changes features and hair, 6 hair and clothes, 9 and
                12 colours; ``num_ws`` and above change nothing.
            seed: of the first portrait.
            psi_content: truncation of the face's code; None takes the style's.
            psi_style: truncation of the random codes; None takes the style's, 0.8 at most.
            latent: "z+" draws each row on its own, which evens colours out; "z" draws one code for all rows: bolder.
            faces: "all", "largest", or indices into the faces sorted by size, largest first.
            options: as in ``__call__``.

        Raises:
            ConfigError: an option is out of range, or is no option of variations.
            ImageError: the photo cannot be used; NoFaceError and FaceTooSmallError among them.
        """
        if "psi" in options:
            raise ConfigError(
                "variations have psi_content, of the face, and psi_style, of the random codes; not psi"
            )
        chosen = Options(faces=faces, **options)
        check_psi("psi_content", psi_content)
        check_psi("psi_style", psi_style)
        check_mixing(mixing_level)
        if n < 1:
            raise ConfigError(f"n must be 1 or more portraits, got {n}")
        psi = min(self.config.psi, RANDOM_PSI) if psi_style is None else psi_style

        def styles(i: int, count: int) -> list[Tensor]:
            return sample_styles(self.base, count, seed + i, latent=latent, psi=psi)

        for i in (0, n - 1):
            styles(i, 0)  # refuses a wrong seed or latent before any work
        settings = self._settings(
            chosen, psi_content=self._psi(psi_content), psi_style=psi, latent=latent,
            mixing_level=mixing_level, faces=faces if isinstance(faces, str) else " ".join(map(str, faces)),
        )  # fmt: skip

        def finish(jobs: Sequence[_Job], network: nn.Module) -> list[Variations]:
            (job,) = jobs
            content = self._content(job, psi_content)
            differ = n if mixing_level < self.base.num_ws else 1
            rounds = [_mixed(content, styles(i, len(content)), mixing_level) for i in range(differ)]
            made = self._portray([job] * differ, network, rounds, chosen) * (n // differ)
            results = [
                Variation(
                    job.photo, part, {**settings, **job.origin, "seed": seed + i}, job.is_aligned
                )
                for i, part in enumerate(made)
            ]
            return [Variations(results, job.seconds)]

        (variations,) = self._run([photo], chosen, finish)
        return variations

    def encode_reference(
        self,
        image: ImageSource,
        *,
        space: ReferenceSpace = "v",
        init: Init = "encoder",
        steps: int | None = None,
        aligned: bool = False,
        seed: int = 0,
        progress: bool = False,
        on_step: OnStep | None = None,
    ) -> ReferenceCode:
        """The code with which this style's generator draws a picture; kept with ``save``, it serves any later call.

        Args:
            image: a path, the bytes of a file, a PIL image, or an array [H, W, 3]; of several faces the largest is
                taken.
            space: where to search (paper section 6.3): "v" and "w" give one code for all rows, which mixes well;
                "w_plus" comes closer to the picture with artifacts when mixed; "z_plus" drifts from its colours.
            init: "encoder" starts from the encoder's code of the picture, which takes far fewer steps and mostly ends
                closer; "mean" from the mean face, for pictures that no encoder of photos understands.
            steps: of the search; None takes `STEPS` of ``init``: with the bundled generator under 30 s on two cores.
            aligned: the picture is an FFHQ-aligned square already, as it must be where no face can be found in it.
            seed: of the start in "z_plus"; nothing else is random.
            progress: show a bar.
            on_step: called with the number of steps done. ``False`` ends the search there, and the best code so far
                comes back; an exception goes through.

        Raises:
            ConfigError: an option is out of range.
            ImageError: the picture cannot be used; NoFaceError and FaceTooSmallError among them.
        """
        check_search(space, init, steps)
        job = self._find(image, "largest", aligned, "error")
        picture = to_tensor(align(job.photo, job.quads[0], self.generator.preview_resolution))
        encoder = None
        if init == "encoder":
            encoder = self.encoder_into("w" if space == "v" else space)
        steps = STEPS[init] if steps is None else steps
        with tqdm(total=steps, desc="reference", disable=not progress) as bar:

            def after(step: int) -> object:
                bar.update()
                return None if on_step is None else on_step(step)

            return encode_reference(
                self.generator, picture.to(self.device), self.config, space=space,
                encoder=encoder, steps=steps, seed=seed, on_step=after,
            )  # fmt: skip

    def with_reference(
        self,
        photo: PhotoSource,
        references: ReferenceCode | ImageSource | list[ReferenceCode | ImageSource],
        *,
        mixing_level: int = 6,
        alpha: float = 1.0,
        weights: Sequence[float] | None = None,
        **options: Unpack[StylizeOptions],
    ) -> StylizeResult:
        """The photo, stylized like a reference: layers from ``mixing_level`` up follow its code (paper section 3.3).

        Args:
            photo: a path, the bytes of a file, a PIL image, an array [H, W, 3], or what ``prepare`` gave.
            references: what ``encode_reference`` gave, or a picture, which is encoded first; or a list of these, which
                are blended.
            mixing_level: first row of the code taken from the reference: 3 takes features and hair over, 6 hair and
                clothes, 9 and 12 colours; ``num_ws`` and above change nothing.
            alpha: share of the reference in those rows, 0 to 1.
            weights: of several references, scaled to a sum of 1; None weighs all alike.
            options: as in ``__call__``; ``psi`` is of the photo's code, a reference is taken as it is.

        Raises:
            ConfigError: an option is out of range, or a code is of another style.
            LatentShapeError: a code has other rows than this style's generator.
            ImageError: a picture cannot be used; NoFaceError and FaceTooSmallError among them.
        """
        chosen = Options(**options)
        listed = references if isinstance(references, list) else [references]
        check_mixing(mixing_level, alpha, len(listed), weights)
        for code in listed:
            if isinstance(code, ReferenceCode):
                code.check(self.generator, self.config, self.style_sha256)
        codes = [
            item
            if isinstance(item, ReferenceCode)
            else self.encode_reference(item, progress=chosen.progress)
            for item in listed
        ]
        style = blend([code.w_plus for code in codes], weights).to(self.device)
        settings = self._settings(
            chosen, psi=self._psi(chosen.psi), mixing_level=mixing_level, alpha=alpha,
            references="+".join(code.digest for code in codes), seed=chosen.seed,
        )  # fmt: skip
        if weights is not None:
            settings["weights"] = "+".join(f"{weight:g}" for weight in weights)

        def finish(jobs: Sequence[_Job], network: nn.Module) -> list[StylizeResult]:
            contents = [self._content(job, chosen.psi) for job in jobs]
            codes = [_mixed(part, [style] * len(part), mixing_level, alpha) for part in contents]
            return self._results(jobs, network, codes, chosen, settings)

        (result,) = self._run([photo], chosen, finish)
        return result

    def _run(
        self,
        sources: Sequence[PhotoSource],
        options: Options,
        finish: Callable[[Sequence[_Job], nn.Module], list[_R]],
    ) -> list[_R]:
        """``finish`` of the photos, their faces found and encoded, with the network to draw with; several at a time.

        Raises:
            DeviceMemoryError: memory ran out.
        """
        with memory_named("stylizing"):
            return self._run_all(sources, options, finish)

    def _run_all(
        self,
        sources: Sequence[PhotoSource],
        options: Options,
        finish: Callable[[Sequence[_Job], nn.Module], list[_R]],
    ) -> list[_R]:
        network = self._synthesis_at(options.strength, float(options.keep_texture), options.seed)
        # Once, before there are several workers.
        encoder = self.encoder_into(options.content_space)
        if isinstance(encoder, Encoder) and encoder.corrections:
            self._base_network  # noqa: B018

        with tqdm(total=len(sources), desc="photos", disable=not options.progress) as bar:

            def end(jobs: Sequence[_Job]) -> list[_R]:
                results = finish(jobs, network)
                bar.update(len(jobs))
                return results

            def whole(part: Sequence[PhotoSource]) -> list[_R]:
                jobs = self._start(part, options)
                if options.refine:
                    with self._timed(jobs, "refine"):
                        self._refine(jobs, options.refine, options.progress)
                return end(jobs)

            at_once = self._at_once(_BATCH)
            parts = [sources[i : i + at_once] for i in range(0, len(sources), at_once)]
            if at_once > 1:
                return [result for part in parts for result in whole(part)]
            if not options.refine:
                return [result for (result,) in side_by_side(self.device, whole, parts)]
            jobs = [
                job for part in parts for job in self._start(part, options)
            ]  # not side by side, see `_at_once`
            with self._timed(jobs, "refine"):
                self._refine(jobs, options.refine, options.progress)
            return [result for (result,) in side_by_side(self.device, end, [[job] for job in jobs])]

    def _start(self, sources: Sequence[PhotoSource], options: Options) -> list[_Job]:
        """Photos with their faces found and encoded."""
        jobs, fresh = [], []
        for source in sources:
            if isinstance(source, PreparedPhoto):
                jobs.append(self._taken_up(source, options))
                continue
            job = self._find(source, options.faces, options.aligned, options.on_no_face)
            job.refine, job.content_space = options.refine, options.content_space
            jobs.append(job)
            fresh.append(job)
        if fresh:
            self._describe(fresh, self.encoder_into(options.content_space))
        return jobs

    def _taken_up(self, prepared: PreparedPhoto, options: Options) -> _Job:
        """A job that starts where ``prepare`` ended, with the faces asked for."""
        prepared.check(self.config, self.encoder_id, options)
        chosen = _choose(range(len(prepared.codes)), options.faces) if prepared.codes else []
        return _Job(
            prepared.photo,
            quads=[prepared.quads[i] for i in chosen],
            found=[prepared.faces[i] for i in chosen],
            crops=[prepared.crops[i] for i in chosen],
            codes=[prepared.codes[i].to(self.device) for i in chosen],
            is_aligned=prepared.is_aligned,
            refine=prepared.refine or options.refine,
            content_space=prepared.content_space,
        )

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
                    "no face found; use a photo in which the face is upright, in focus and not covered, or pass an "
                    "FFHQ-aligned square as such (aligned=True; in the shell --already-aligned, of a reference "
                    '--reference-aligned); on_no_face="center" (--on-no-face center) takes the middle of a photo',
                    image_size=job.photo.size,
                    path=path,
                )
            return job
        chosen = _choose(found, faces)
        usable = [face for face in chosen if quad_side_px(face.quad) >= _SMALLEST_FACE_PX]
        if not usable and on_no_face == "center":
            job.quads, job.found = [_centre_quad(job.photo.size)], [None]
            return job
        if not usable and on_no_face == "error":
            raise FaceTooSmallError(
                f"the face covers only {quad_side_px(chosen[0].quad):.0f} px; {_SMALLEST_FACE_PX} px is the least, "
                "200 px and more look good; use a larger photo",
                face_px=quad_side_px(chosen[0].quad),
                path=path,
            )
        job.quads, job.found = [face.quad for face in usable], list(usable)
        return job

    def _describe(self, jobs: Sequence[_Job], encoder: AnyEncoder) -> None:
        """Cut the photos' faces out and encode them: crops [1, 3, S, S] and codes [num_ws, 512]."""
        side = encoder.input_px

        def cut(job: _Job) -> list[Tensor]:
            return side_by_side(
                self.device, lambda quad: to_tensor(align(job.photo, quad, side)), job.quads
            )

        for job in jobs:
            with self._timed([job], "align"):
                job.crops = cut(job)
        with self._timed(jobs, "encode"), torch.inference_mode():
            at_once = self._at_once(_BATCH)
            crops = [crop for job in jobs for crop in job.crops]
            found: list[Tensor] = []
            for i in range(0, len(crops), at_once):
                img = torch.cat(crops[i : i + at_once]).to(self.device)
                img = img.contiguous(memory_format=torch.channels_last)
                codes = encode(encoder, img, self.base, self._draw_small)
                found += to_w_plus(codes, encoder.space, self.base).unbind()
        ready = iter(found)
        for job in jobs:
            job.codes = [next(ready) for _ in job.crops]
            job.seconds["refine"] = 0.0

    def _at_once(self, count: int) -> int:
        """How many faces are computed together, ``count`` at most.

        On a CPU each goes by itself, which takes no longer: together the last bits come out otherwise, as they do in a
        single-threaded worker, and refining makes a visible difference of them. So a face comes out the same whoever
        else is in the photo or the list.
        """
        return 1 if self.device.type == "cpu" else count

    def _refine(self, jobs: Sequence[_Job], steps: int, progress: bool) -> None:
        """Replace the codes by those after ``steps`` of optimisation."""
        at_once = self._at_once(_REFINED_AT_ONCE)
        crops = [crop for job in jobs for crop in job.crops]
        codes = [code for job in jobs for code in job.codes]
        refined: list[Tensor] = []
        bar = tqdm(total=steps * -(-len(crops) // at_once), desc="refine", disable=not progress)
        for i in range(0, len(crops), at_once):
            photos = torch.cat(crops[i : i + at_once]).to(self.device)
            start = torch.stack(codes[i : i + at_once]).clone()
            inverter = self._inverter
            refined += inverter(photos, start, steps, on_step=lambda _: bar.update()).unbind()
        bar.close()
        ready = iter(refined)
        for job in jobs:
            job.codes = [next(ready) for _ in job.codes]

    def _draw_small(self, w_plus: Tensor) -> Tensor:
        """What G's preview path draws, float32."""
        img: Tensor = self._base_network(
            w_plus.to(self.dtype), resolution=self.base.preview_resolution
        )
        return img.float()

    @cached_property
    def _base_network(self) -> nn.Module:
        return synthesis_at(0, self.generator, self.base, self.dtype)

    @cached_property
    def encoder_id(self) -> str:
        """Which E_w reads photos here: "base", the one that goes with G, or the sha256 of a style's own."""
        return "base" if self.config.encoder == "base" else weights_sha256(self.encoder)

    @cached_property
    def style_sha256(self) -> str:
        """Of the synthesis network's weights as the style's file stores them: what a picture was drawn with."""
        return synthesis_sha256(self.generator)

    def encoder_into(self, space: Space) -> AnyEncoder:
        """The encoder into a space; others than E_w are loaded when they are first asked for."""
        if space not in self._encoders:
            self._encoders[space] = self._placed(encoder_for(self.base, space))
        return self._encoders[space]

    def _placed(self, encoder: AnyEncoder) -> AnyEncoder:
        placed = encoder.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert isinstance(placed, AnyEncoder)
        return placed

    @cached_property
    def _inverter(self) -> Inverter:
        with torch.inference_mode(False):  # gradients go through its networks
            return Inverter(self.base)

    def _settings(self, options: Options, **more: Any) -> dict[str, Any]:
        """What a picture is made with, for its metadata."""
        return options.settings(self.config.name, style_sha256=self.style_sha256, **more)

    def _psi(self, psi: float | None) -> float:
        """``psi``, or the style's."""
        return self.config.psi if psi is None else psi

    def _content(self, job: _Job, psi: float | None) -> list[Tensor]:
        """Truncated codes [num_ws, 512] of a photo's faces."""
        return [truncate(code, self.base.w_avg, self._psi(psi)) for code in job.codes]

    def _results(
        self,
        jobs: Sequence[_Job],
        network: nn.Module,
        codes: Sequence[list[Tensor]],
        options: Options,
        settings: dict[str, Any],
    ) -> list[StylizeResult]:
        """The photos with their faces drawn from ``codes`` [num_ws, 512], a list of these for each photo."""
        results = []
        for job, faces in zip(jobs, self._portray(jobs, network, codes, options), strict=True):
            with self._timed([job], "paste"):
                image = paste_all(job.photo, faces, is_aligned=job.is_aligned)
            origin = {**settings, **job.origin}
            results.append(StylizeResult(image, job.photo, faces, job.seconds, origin))
        return results

    def _portray(
        self,
        jobs: Sequence[_Job],
        network: nn.Module,
        rounds: Sequence[list[Tensor]],
        options: Options,
    ) -> list[list[StylizedFace]]:
        """Faces of photos, each drawn from its code [num_ws, 512]; a photo may come again with other codes."""
        codes = [code for round_ in rounds for code in round_]
        is_shown = options.progress and len(rounds) > len(set(map(id, jobs)))
        with (
            self._timed(list({id(job): job for job in jobs}.values()), "synthesize"),
            tqdm(total=len(codes), desc="portraits", disable=not is_shown) as bar,
        ):
            drawn = draw_portraits(
                network, codes, [crop for job in jobs for crop in job.crops], dtype=self.dtype,
                keep_color=float(options.keep_color), batch=self._at_once(_BATCH), on_drawn=bar.update,
            )  # fmt: skip
        portraits = iter(drawn)
        return [
            [
                StylizedFace(next(portraits), w.mean(0).cpu(), w_plus.cpu(), quad, face, job.photo)
                for w, w_plus, quad, face in zip(
                    job.codes, round_, job.quads, job.found, strict=True
                )
            ]
            for job, round_ in zip(jobs, rounds, strict=True)
        ]

    def _timed(self, jobs: Sequence[_Job], stage: str) -> _Stopwatch:
        return _Stopwatch(jobs, stage, self.device)

    def _synthesis_at(self, strength: float, keep_texture: float, seed: int) -> nn.Module:
        """Synthesis network of a strength and texture, its noise laid by a seed; the last one asked for is kept."""
        if strength == seed == 0:
            return self._base_network
        kept = self._blend  # another thread may ask for another one meanwhile
        asked = (strength, keep_texture, seed)
        if kept is None or kept[0] != asked:
            network = synthesis_at(
                strength, self.generator, self.base, self.dtype, seed, keep_texture=keep_texture
            )
            kept = self._blend = asked, network
        return kept[1]


class _Stopwatch:
    """Context that books its share of wall time, to its end on the device, under a stage of every job."""

    def __init__(self, jobs: Sequence[_Job], stage: str, device: torch.device) -> None:
        self.jobs, self.stage, self.device = jobs, stage, device

    def __enter__(self) -> None:
        wait_for(self.device)
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        wait_for(self.device)
        elapsed = (time.perf_counter() - self.start) / max(1, len(self.jobs))
        for job in self.jobs:
            job.seconds[self.stage] = elapsed


def _mixed(
    content: Sequence[Tensor], styles: Sequence[Tensor], level: int, alpha: float = 1.0
) -> list[Tensor]:
    """Codes [num_ws, 512] of the faces with the upper rows of their styles."""
    pairs = zip(content, styles, strict=True)
    return [style_mix(code[None], style[None], level, alpha)[0] for code, style in pairs]


def _choose(found: Sequence[_T], faces: Faces) -> list[_T]:
    """The faces asked for, of those found, largest first."""
    if faces == "all":
        return list(found)
    if faces == "largest":
        return list(found[:1])
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
