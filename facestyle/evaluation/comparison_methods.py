"""The methods of a comparison under one interface: ours, with and without a reference, and the baselines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from facestyle.baselines.base import PictureSources, count_parameters
from facestyle.baselines.diffusion import LatentDiffusion
from facestyle.baselines.diffusion_method import DiffusionBaseline
from facestyle.baselines.dualstylegan import DualStyleConfig
from facestyle.baselines.inst import Inst, InstConfig
from facestyle.baselines.inst_training import InstTraining
from facestyle.baselines.ntc import NtcConfig
from facestyle.baselines.registry import DIFFUSION, DiffusionModel, make_baseline
from facestyle.baselines.star import DEFAULT_STAR
from facestyle.baselines.styleid import StyleId, StyleIdConfig
from facestyle.baselines.toonify import ToonifyConfig, own_parameters
from facestyle.baselines.ugatit_training import UgatitConfig
from facestyle.baselines.ui2i import Ui2iConfig
from facestyle.errors import ConfigError, FacestyleError
from facestyle.evaluation.features import iter_pictures
from facestyle.evaluation.people import spread
from facestyle.faces.align import full_image_quad
from facestyle.image import to_pil, to_tensor
from facestyle.inversion import QUICK_STEPS
from facestyle.models.checkpoints import read_metadata, weights_sha256
from facestyle.models.generator import Generator
from facestyle.prepared import PreparedPhoto
from facestyle.runtime import dtype_name
from facestyle.training.state import read_rows

if TYPE_CHECKING:
    from PIL import Image

    from facestyle.reference import ReferenceCode
    from facestyle.stylizer import FaceStylizer

__all__ = [
    "METHODS",
    "ComparisonConfig",
    "Method",
    "Ours",
    "OursConfig",
    "SharedDiffusion",
    "make_method",
    "networks_of",
    "other_than",
    "our_parameters",
    "run_folder",
    "settings_of",
    "trained_with",
]

METHODS = (
    "ours", "toonify", "ugatit", "ntc", "ours-ref", "ui2i", "dualstylegan", "inst", "styleid",
)  # fmt: skip
"""The paper's Table 1: first those that take the style as a whole, then those that follow a picture of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OursConfig:
    """How ours draws a photo.

    Attributes:
        refine: steps of optimisation on its code; toonify and ui2i search for theirs too.
    """

    refine: int = QUICK_STEPS

    def __post_init__(self) -> None:
        if self.refine < 0:
            raise ConfigError(f"refine must be 0 or more steps, got {self.refine}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonConfig:
    """What is compared, and how the methods are set.

    Attributes:
        photos: how many.
        side_px: side at which pictures are measured.
        psi: truncation of the samples of G that stand in for photos where none are given.
        batch: photos that a method gets at once.
        references: pictures of the style, spread over the set, that "ours-ref" follows in turn.
        mixing_level: from which layer it follows them.
        sheet_faces: people on a style's sheet.
        ours: settings of "ours" and "ours-ref".
        toonify, ui2i, dualstylegan, ntc, inst, styleid: settings of these methods.
        diffusion: the model that ntc, inst and styleid draw with.
    """

    photos: int = 200
    side_px: int = 512
    psi: float = 0.8
    batch: int = 4
    references: int = 4
    mixing_level: int = 6
    sheet_faces: int = 8
    ours: OursConfig = field(default_factory=OursConfig)
    toonify: ToonifyConfig = field(default_factory=ToonifyConfig)
    ui2i: Ui2iConfig = field(default_factory=Ui2iConfig)
    dualstylegan: DualStyleConfig = field(default_factory=DualStyleConfig)
    ntc: NtcConfig = field(default_factory=NtcConfig)
    inst: InstConfig = field(default_factory=InstConfig)
    styleid: StyleIdConfig = field(default_factory=StyleIdConfig)
    diffusion: DiffusionModel = field(default_factory=DiffusionModel)

    def __post_init__(self) -> None:
        for name in ("photos", "side_px", "batch", "references", "sheet_faces"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")


class SharedDiffusion:
    """The diffusion model of one comparison: a context, inside which it is loaded once, when the first method asks.

    Where loading fails, those who ask later are told the same at once. At the end it is let go.

    Args:
        model: which.
        device: where it runs; the best there is when None.
    """

    def __init__(self, model: DiffusionModel, device: str | None = None) -> None:
        self.model = model
        self.device = device
        self._networks: LatentDiffusion | None = None
        self._failure: FacestyleError | None = None

    def __enter__(self) -> SharedDiffusion:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._networks = self._failure = None

    def load(self) -> LatentDiffusion:
        """The networks.

        Raises:
            FacestyleError: they cannot be had; see `LatentDiffusion.from_pretrained`.
        """
        if self._failure is None and self._networks is None:
            try:
                self._networks = self.model.load(self.device)
            except FacestyleError as error:
                error.__cause__ = error.__context__ = None  # whose frames hold what was loaded
                self._failure = error
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        assert self._networks is not None
        return self._networks


class Method(Protocol):
    """What a comparison needs of a method; every `Baseline` has it."""

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures."""

    @property
    def parameters(self) -> int:
        """Numbers in the networks that encode and draw."""

    def stylize(self, crops: Tensor, *, first: int = 0) -> Tensor:
        """Portraits [B, 3, R, R] in [-1, 1] of aligned photos, see `Baseline.stylize`."""


class Ours:
    """A style of this library, by the path a user's photo takes."""

    def __init__(self, stylizer: FaceStylizer, refine: int) -> None:
        self.stylizer = stylizer
        self.refine = refine

    @property
    def shared_codes(self) -> str:
        """A name that styles of one encoder and base generator share, which find the same codes of a photo."""
        base, encoder = self.stylizer.config.base_sha256, weights_sha256(self.stylizer.encoder)
        return f"ours_{base[:8]}_{encoder[:8]}"

    @property
    def resolution(self) -> int:
        """Side in pixels of the portraits."""
        return self.stylizer.generator.resolution

    @property
    def parameters(self) -> int:
        """Numbers in the encoder, in G, which draws what the encoder corrects its code by, and in G'."""
        return our_parameters(self.stylizer)

    def stylize(self, crops: Tensor, *, first: int = 0) -> Tensor:
        """Search, then draw; see `Method.stylize`."""
        return self.draw(self.project(crops), crops, first=first)

    def project(self, crops: Tensor) -> Tensor:
        """Codes [B, num_ws, w_dim] of the photos: the encoder's, refined."""
        prepare = partial(self.stylizer.prepare, aligned=True, refine=self.refine)
        return torch.stack([prepare(to_pil(crop)).codes[0] for crop in crops])

    def draw(self, codes: Tensor, crops: Tensor, *, first: int = 0) -> Tensor:
        """Portraits [B, 3, R, R] of photos whose codes ``project`` found."""
        made = self.stylizer(self._prepared(codes, crops))
        return _stacked([result.image for result in made])

    def _prepared(self, codes: Tensor, crops: Tensor) -> list[PreparedPhoto]:
        config = self.stylizer.config
        photos = [to_pil(crop) for crop in crops]
        return [
            PreparedPhoto(
                photo, faces=[None], quads=[full_image_quad(photo.size)], crops=[crop[None]], codes=[code],
                is_aligned=True, refine=self.refine, content_space="w", base_sha256=config.base_sha256,
                encoder_id=self.stylizer.encoder_id, seconds={},
            )
            for photo, crop, code in zip(photos, crops, codes, strict=True)
        ]  # fmt: skip


def our_parameters(stylizer: FaceStylizer) -> int:
    """Numbers in the encoder and in both synthesis networks; what G' has of G counts once."""
    drawing = own_parameters(stylizer.base, stylizer.generator)
    return count_parameters(stylizer.encoder) + drawing


class _OursLikeReferences(Ours):
    """The same, each photo like one of several pictures of the style."""

    def __init__(
        self,
        stylizer: FaceStylizer,
        refine: int,
        codes: Sequence[ReferenceCode],
        mixing_level: int,
    ) -> None:
        super().__init__(stylizer, refine)
        self.codes = codes
        self.mixing_level = mixing_level

    def draw(self, codes: Tensor, crops: Tensor, *, first: int = 0) -> Tensor:
        made = [
            self.stylizer.with_reference(
                photo, self.codes[(first + i) % len(self.codes)], mixing_level=self.mixing_level
            )
            for i, photo in enumerate(self._prepared(codes, crops))
        ]
        return _stacked([result.image for result in made])


def make_method(
    name: str,
    style: str,
    pictures: PictureSources | None,
    runs: str | Path | None,
    config: ComparisonConfig,
    base: Generator,
    *,
    device: str | None = None,
    diffusion: SharedDiffusion | None = None,
) -> Method:
    """A method with the style loaded.

    Args:
        name: of `METHODS`.
        style: its name; ours is looked for in ``RUNS/ours/STYLE``, then under this name.
        pictures: of the style, which "ours-ref" needs; of them "styleid" follows the first where it has no run, as
            all that it does with it is 50 steps of inversion.
        runs: holds ``METHOD/STYLE``, what ``facestyle baseline train`` or ``import`` left.
        config: how the methods are set.
        base: G.
        device: where it runs; the best there is when None.
        diffusion: the config's diffusion model, shared with other methods; one for this method alone when None.

    Raises:
        FacestyleError: it cannot run here; the message says why.
    """
    run = run_folder(name, style, runs)
    if name.startswith("ours"):
        return _ours(name, run or style, pictures, config, device)
    model: DiffusionModel | LatentDiffusion = config.diffusion
    if diffusion is not None and name in DIFFUSION:
        model = diffusion.load()
    method = make_baseline(
        name, stylize=settings_of(name, config), base=base, device=device, model=model
    )
    if name == "ntc":
        return method
    if run is None and pictures is not None and isinstance(method, StyleId):
        source = pictures if isinstance(pictures, str | Path) else pictures[0]
        return method.prepare(source, None, progress=False)
    if run is None:
        raise ConfigError(
            f"there is no folder {name}/{style} among the runs; make it with `facestyle baseline train {name}`"
            if name != "dualstylegan"
            else f"its authors' files are not here; `facestyle baseline import {name}` reads them"
        )
    return method.load(run)


def run_folder(name: str, style: str, runs: str | Path | None) -> Path | None:
    """``RUNS/METHOD/STYLE``, where it is there; "ours-ref" has that of "ours"."""
    run = Path(runs) / name.partition("-")[0] / style if runs is not None else None
    return run if run is not None and run.is_dir() else None


def settings_of(name: str, config: ComparisonConfig) -> Any:
    """The method's own settings in a comparison; None where it has none."""
    own = ("ours", "toonify", "ui2i", "dualstylegan", "ntc", "inst", "styleid")
    name = "ours" if name == "ours-ref" else name
    return getattr(config, name) if name in own else None


def trained_with(name: str, run: Path | None) -> dict[str, Any]:
    """How a run was trained, where that lies beside it: settings other than by default, and the steps of U-GAT-IT.

    Args:
        name: of `METHODS`.
        run: its folder.
    """
    if run is None:
        return {}
    if name == "inst":
        origin = json.loads(read_metadata(run / Inst.file).get("origin", "{}"))
        return other_than(InstTraining(), origin.get("training", {}))
    if name == "ugatit":
        rows = read_rows(run)
        made = {"steps": rows[-1]["step"]} if rows else {}
        return other_than(UgatitConfig(), _settings_in(run)) | made
    if name in ("toonify", "ui2i"):
        return other_than(DEFAULT_STAR, _settings_in(run / "star"))
    return {}


def _settings_in(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def other_than(usual: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a config dataclass's settings that are not as in ``usual``."""
    known = dataclasses.asdict(usual)
    return {k: v for k, v in settings.items() if k in known and v != known[k]}


def networks_of(method: Method) -> dict[str, Any]:
    """What a method draws with: "model", where it is a diffusion model or ours, its "sha256", and "dtype"."""
    if isinstance(method, DiffusionBaseline):
        model = method.model
        return {"model": model.name, "sha256": model.fingerprint, "dtype": dtype_name(model.dtype)}
    if isinstance(method, Ours):
        stylizer = method.stylizer
        return {
            "model": stylizer.config.name, "sha256": stylizer.style_sha256,
            "dtype": dtype_name(stylizer.dtype),
        }  # fmt: skip
    return {"model": None, "sha256": None, "dtype": "float32"}


def _ours(
    name: str,
    style: str | Path,
    pictures: PictureSources | None,
    config: ComparisonConfig,
    device: str | None,
) -> Method:
    from facestyle.stylizer import FaceStylizer

    stylizer = FaceStylizer.from_pretrained(style, device=device)
    if name == "ours":
        return Ours(stylizer, config.ours.refine)
    if pictures is None:
        raise ConfigError("it follows pictures of the style; give some with --pictures")
    known = list(iter_pictures(pictures))
    chosen = [known[i] for i in spread(len(known), config.references)]
    codes = [stylizer.encode_reference(picture, aligned=True) for picture in chosen]
    return _OursLikeReferences(stylizer, config.ours.refine, codes, config.mixing_level)


def _stacked(images: Sequence[Image.Image]) -> Tensor:
    return torch.cat([to_tensor(image) for image in images])
