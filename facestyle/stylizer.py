"""The whole inference story on one page: detect -> align -> encode -> truncate -> synthesize -> paste.

`PhotoReader` goes the first half of the way, from photos to codes; `FaceStylizer` draws and pastes, and keeps what each
stage made. On a CPU several photos, or else the faces of one, are handled by as many single-threaded workers as there
are cores, each taking its photo through all stages: two small convolutions side by side beat one split in two.
Elsewhere the faces of several photos are encoded and drawn in batches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from tqdm import tqdm
from typing_extensions import Unpack

from facestyle.drawing import draw_portraits, synthesis_at
from facestyle.errors import ConfigError, memory_named
from facestyle.faces.align import align
from facestyle.faces.detect import FaceDetector
from facestyle.files import at_home
from facestyle.image import to_tensor
from facestyle.inversion import OnStep
from facestyle.latents import blend, check_mixing, style_mix, truncate
from facestyle.models.encoder import Space
from facestyle.models.generator import Generator, moves_shapes
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
from facestyle.photo_reader import BATCH, ImageSource, PhotoReader, PhotoSource, ReadPhoto
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
from facestyle.seeds import check_seed
from facestyle.styles import StyleConfig, find_style
from facestyle.timing import booked
from facestyle.tuning import tune_process
from facestyle.workers import side_by_side

__all__ = ["FaceStylizer", "StylizeResult", "StylizedFace"]

_P = TypeVar("_P", bound=PhotoSource)
_R = TypeVar("_R")


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
        tune_process()
        self.device = choose_device(device)
        self.generator = generator.to(self.device)
        self.base = base.to(self.device)
        self.config = config
        self.dtype = parse_dtype(dtype) or choose_dtype(self.device)
        self._reader = PhotoReader(self.base, encoder, config, self.device, self.dtype)
        self.folder: Path | None = None
        self._blend: tuple[tuple[float, ...], nn.Module] | None = None

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
            ConfigError: a revision of a style that is not of the Hub, or an unknown or absent device or number type.
            CheckpointError: a weights file is damaged; the message names it.
            DownloadError: the Hub cannot be reached, or with ``local_files_only`` the style is not in its cache.
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
            stylizer._reader.add(encoder, encoder.space)
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

        write_package(self, at_home(Path(folder)), include_encoder=include_encoder, samples=samples)

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
        keep_shape: float | bool = 0.0,
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
            psi: truncation of the content code, 0 (everybody's mean face) to 1 (as encoded), up to 1.5 (exaggerated);
                None takes the style's.
            strength: 0 draws the photo's reconstruction, 1 the full style, by weights between G's and G''s; up to 2
                exaggerates the style.
            keep_color: 0 to 1 (or True), how much of the photo's own colours comes back.
            keep_texture: 0 to 1 (or True), how much of a natural texture of hair, beard and skin comes back on the
                style's shapes: the finest layers are drawn that much more as G does.
            keep_shape: 0 to 1 (or True), how much of the face's own shapes comes back under the style's lines and
                paint: the coarsest layers are drawn that much more as G does.
            refine: optimisation steps on the code for a closer likeness: 8 bring most of it, 50 are plenty; 0.15 to
                0.4 s each on two cores.
            content_space: where the face is encoded (paper section 6.2): "w" balances likeness and style; "z_plus" is
                nearer to natural faces and is less alike; "w_plus" holds more detail, and more artifacts with it.
            faces: "all", "largest", or indices into the faces sorted by size, largest first.
            aligned: the photo is an FFHQ-aligned square already (of another shape the middle square is taken); nothing
                is detected, checked or pasted, so that a photo which is not gives a wrong face without a word.
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
            psi=psi, strength=strength, keep_color=float(keep_color), keep_texture=float(keep_texture),
            keep_shape=float(keep_shape), refine=refine, content_space=content_space, faces=faces,
            aligned=aligned, on_no_face=on_no_face, seed=seed, progress=progress,
        )  # fmt: skip
        settings = self._settings(options, psi=self._psi(psi), seed=options.seed)
        sources = photos if isinstance(photos, list) else [photos]

        def finish(jobs: Sequence[ReadPhoto], network: nn.Module) -> list[StylizeResult]:
            codes = [self._content(job, psi) for job in jobs]
            return self._results(jobs, network, codes, options, settings)

        results = self._run(sources, options, finish)
        return results if isinstance(photos, list) else results[0]

    @memory_named("preparing the photo")
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

        Drawing it in another style or with other options (strength, psi, keep_color, keep_texture, keep_shape) skips
        the first half of the way.
        Later calls number the faces as they were prepared, take ``content_space`` from here, and do not look at
        ``aligned`` and ``on_no_face`` again. A photo prepared without ``refine`` may be refined later, here or by the
        call that draws; one that was refined is refused with ``refine``.

        Args:
            photo: a path, the bytes of a file, a PIL image, an array [H, W, 3], or a photo prepared before without
                ``refine``, which then starts from its codes.
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
        (job,) = self._reader.read([photo], options)
        if refine:
            self._reader.refine([job], refine, progress)
        return PreparedPhoto(
            job.photo, job.found, job.quads, job.crops, [code.cpu() for code in job.codes], job.is_aligned,
            job.refine, job.content_space, self.config.base_sha256, self.encoder_id, job.seconds,
            job.left_out,
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
            ConfigError: an option is out of range, or ``psi`` is given.
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
        seed = check_seed(seed)

        def styles(i: int, count: int) -> list[Tensor]:
            return sample_styles(self.base, count, seed + i, latent=latent, psi=psi)

        for i in (0, n - 1):
            styles(i, 0)  # refuses a wrong seed or latent before any work
        settings = self._settings(
            chosen, psi_content=self._psi(psi_content), psi_style=psi, latent=latent,
            mixing_level=mixing_level,
            faces=chosen.faces if isinstance(chosen.faces, str) else " ".join(map(str, chosen.faces)),
        )  # fmt: skip

        def finish(jobs: Sequence[ReadPhoto], network: nn.Module) -> list[Variations]:
            (job,) = jobs
            content = self._content(job, psi_content)
            differ = n if mixing_level < self.base.num_ws else 1
            rounds = [_mixed(content, styles(i, len(content)), mixing_level) for i in range(differ)]
            made = self._portray([job] * differ, network, rounds, chosen) * (n // differ)
            results = [
                Variation(
                    job.photo,
                    part,
                    {**settings, **job.origin, "seed": seed + i},
                    job.is_aligned,
                    job.left_out,
                )
                for i, part in enumerate(made)
            ]
            return [Variations(results, job.seconds)]

        (variations,) = self._run([photo], chosen, finish)
        return variations

    @memory_named("encoding the reference")
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
        seed = check_seed(seed)
        job = self._reader.find(image, "largest", aligned, "error")
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

        def finish(jobs: Sequence[ReadPhoto], network: nn.Module) -> list[StylizeResult]:
            contents = [self._content(job, chosen.psi) for job in jobs]
            codes = [_mixed(part, [style] * len(part), mixing_level, alpha) for part in contents]
            return self._results(jobs, network, codes, chosen, settings)

        (result,) = self._run([photo], chosen, finish)
        return result

    @property
    def encoder(self) -> AnyEncoder:
        """E_w."""
        return self._reader.encoder

    @property
    def detector(self) -> FaceDetector:
        """What finds the faces."""
        return self._reader.detector

    @property
    def encoder_id(self) -> str:
        """Which E_w reads photos here: "base", the one that goes with G, or the sha256 of a style's own."""
        return self._reader.encoder_id

    def encoder_into(self, space: Space) -> AnyEncoder:
        """The encoder into a space; others than E_w are loaded when they are first asked for."""
        return self._reader.encoder_into(space)

    @cached_property
    def moves_shapes(self) -> bool:
        """Whether the style draws shapes of its own; where it does not, ``keep_shape`` changes nothing."""
        return moves_shapes(self.base.synthesis, self.generator.synthesis)

    @cached_property
    def style_sha256(self) -> str:
        """Of the synthesis network's weights as the style's file stores them: what a picture was drawn with."""
        return synthesis_sha256(self.generator)

    def _run(
        self,
        sources: Sequence[PhotoSource],
        options: Options,
        finish: Callable[[Sequence[ReadPhoto], nn.Module], list[_R]],
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
        finish: Callable[[Sequence[ReadPhoto], nn.Module], list[_R]],
    ) -> list[_R]:
        network = self._synthesis_at(options)
        reader = self._reader
        reader.make_ready(options.content_space)

        with tqdm(total=len(sources), desc="photos", disable=not options.progress) as bar:

            def end(jobs: Sequence[ReadPhoto]) -> list[_R]:
                results = finish(jobs, network)
                bar.update(len(jobs))
                return results

            def whole(part: Sequence[PhotoSource]) -> list[_R]:
                jobs = reader.read(part, options)
                if options.refine:
                    reader.refine(jobs, options.refine, options.progress)
                return end(jobs)

            at_once = reader.at_once(BATCH)
            parts = [sources[i : i + at_once] for i in range(0, len(sources), at_once)]
            if at_once > 1:
                return [result for part in parts for result in whole(part)]
            if not options.refine:
                return [result for (result,) in side_by_side(self.device, whole, parts)]
            # Not side by side, see `PhotoReader.at_once`.
            jobs = [job for part in parts for job in reader.read(part, options)]
            reader.refine(jobs, options.refine, options.progress)
            return [result for (result,) in side_by_side(self.device, end, [[job] for job in jobs])]

    def _settings(self, options: Options, **more: Any) -> dict[str, Any]:
        """What a picture is made with, for its metadata."""
        return options.settings(self.config.name, style_sha256=self.style_sha256, **more)

    def _psi(self, psi: float | None) -> float:
        """``psi``, or the style's."""
        return self.config.psi if psi is None else psi

    def _content(self, job: ReadPhoto, psi: float | None) -> list[Tensor]:
        """Truncated codes [num_ws, 512] of a photo's faces."""
        return [truncate(code, self.base.w_avg, self._psi(psi)) for code in job.codes]

    def _results(
        self,
        jobs: Sequence[ReadPhoto],
        network: nn.Module,
        codes: Sequence[list[Tensor]],
        options: Options,
        settings: dict[str, Any],
    ) -> list[StylizeResult]:
        """The photos with their faces drawn from ``codes`` [num_ws, 512], a list of these for each photo."""
        results = []
        for job, faces in zip(jobs, self._portray(jobs, network, codes, options), strict=True):
            with booked([job.seconds], "paste", self.device):
                image = paste_all(
                    job.photo, faces, is_aligned=job.is_aligned, left_out=job.left_out
                )
            origin = {**settings, **job.origin}
            results.append(StylizeResult(image, job.photo, faces, job.seconds, origin))
        return results

    def _portray(
        self,
        jobs: Sequence[ReadPhoto],
        network: nn.Module,
        rounds: Sequence[list[Tensor]],
        options: Options,
    ) -> list[list[StylizedFace]]:
        """Faces of photos, each drawn from its code [num_ws, 512]; a photo may come again with other codes."""
        codes = [code for round_ in rounds for code in round_]
        is_shown = options.progress and len(rounds) > len(set(map(id, jobs)))
        with (
            booked(
                list({id(job): job.seconds for job in jobs}.values()), "synthesize", self.device
            ),
            tqdm(total=len(codes), desc="portraits", disable=not is_shown) as bar,
        ):
            drawn = draw_portraits(
                network, codes, [crop for job in jobs for crop in job.crops], dtype=self.dtype,
                keep_color=float(options.keep_color), batch=self._reader.at_once(BATCH), on_drawn=bar.update,
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

    def _synthesis_at(self, options: Options) -> nn.Module:
        """Synthesis network of a strength, its noise laid by a seed; the last one asked for is kept."""
        strength, seed = options.strength, options.seed
        keeps = {
            "keep_texture": float(options.keep_texture),
            "keep_shape": float(options.keep_shape),
        }
        if strength == seed == 0:
            return self._reader.base_network
        kept = self._blend  # another thread may ask for another one meanwhile
        asked = (strength, seed, *keeps.values())
        if kept is None or kept[0] != asked:
            network = synthesis_at(strength, self.generator, self.base, self.dtype, seed, **keeps)
            kept = self._blend = asked, network
        return kept[1]


def _mixed(
    content: Sequence[Tensor], styles: Sequence[Tensor], level: int, alpha: float = 1.0
) -> list[Tensor]:
    """Codes [num_ws, 512] of the faces with the upper rows of their styles."""
    pairs = zip(content, styles, strict=True)
    return [style_mix(code[None], style[None], level, alpha)[0] for code, style in pairs]
