"""DualStyleGAN as a baseline, on the authors' checkpoint files, which the user brings (their licence: S-Lab 1.0)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from facestyle.baselines.base import (
    Baseline,
    PictureSources,
    check_crops,
    count_parameters,
    prepared,
    resize,
)
from facestyle.baselines.dualstylegan_network import DualStyleGenerator, from_public
from facestyle.baselines.torch_files import named_arrays
from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import (
    load_strict,
    read_metadata,
    read_tensors,
    save_tensors,
    unfilled,
)
from facestyle.models.importers.checkpoints.containers import read_checkpoint
from facestyle.models.importers.checkpoints.network import fitted, named_errors, tensors_in
from facestyle.models.importers.checkpoints.psp import psp_encoder
from facestyle.models.importers.checkpoints.stored import StoredArray
from facestyle.models.importers.checkpoints.stylegan2 import mean_of_w
from facestyle.models.psp_encoder import PspEncoder
from facestyle.models.stylegan2_generator import StyleGAN2Generator, estimate_w_avg
from facestyle.runtime import choose_device

__all__ = [
    "DualStyle",
    "DualStyleConfig",
    "import_dualstylegan",
    "public_codes",
    "public_generator",
]

_log = logging.getLogger(__name__)

_GENERATOR, _ENCODER, _EXEMPLARS = (
    f"{name}.safetensors" for name in ("generator", "encoder", "exemplars")
)
_FORMAT = "facestyle-dualstylegan"
_PUBLIC_FILES = "expected the authors' generator.pt, encoder.pt, or exstyle_code.npy"
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class DualStyleConfig:
    """How a photo becomes a picture; the defaults are those of the authors' script.

    Attributes:
        structure_weight: of the extrinsic path in the coarse rows.
        color_weight: of the extrinsic path in the fine rows.
        psi: shrinks the photo's code.
        keep_color: fine rows of the style are the photo's own.
        exemplar: name of the style picture, as in the codes' file; empty takes them by turns, in name order.
    """

    structure_weight: float = 0.75
    color_weight: float = 1.0
    psi: float = 0.75
    keep_color: bool = False
    exemplar: str = ""


class DualStyle(Baseline):
    """DualStyleGAN behind its z_plus encoder.

    Args:
        config: how a photo becomes a picture.
        device: where it runs; the best there is when None.
    """

    name: ClassVar[str] = "dualstylegan"

    def __init__(
        self, config: DualStyleConfig | None = None, *, device: str | torch.device | None = None
    ) -> None:
        self.config = config or DualStyleConfig()
        self.device = choose_device(device)
        self.net: DualStyleGenerator | None = None
        self.encoder: PspEncoder | None = None
        self.exemplars: list[Tensor] = []

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures."""
        return prepared(self.net, self).generator.resolution

    @property
    def parameters(self) -> int:
        """Of the generator with its extrinsic path, and of the encoder."""
        return count_parameters(prepared(self.net, self), prepared(self.encoder, self))

    def prepare(self, pictures: PictureSources, out: str | Path, *, progress: bool = True) -> Self:
        """Load what was imported into ``out``: a style of this method is trained by its authors' code.

        Raises:
            CheckpointError: ``out`` holds no import; the message tells how to make one.
        """
        return self.load(out)

    def load(self, out: str | Path) -> Self:
        """The files that :func:`import_dualstylegan` left in ``out``.

        Raises:
            CheckpointError: one is absent or damaged, or the codes do not fit.
            ConfigError: there is no exemplar of that name.
        """
        folder = Path(out)
        missing = [n for n in (_GENERATOR, _ENCODER, _EXEMPLARS) if not (folder / n).is_file()]
        if missing:
            raise CheckpointError(
                f"lacks {', '.join(missing)}; import the authors' generator.pt, encoder.pt and exstyle_code.npy: "
                "facestyle baseline import dualstylegan FILE... -o FOLDER",
                path=folder,
            )
        net = _read(DualStyleGenerator, folder / _GENERATOR)
        encoder = _read(PspEncoder, folder / _ENCODER)
        if encoder.space != "z_plus":
            _log.warning(
                "%s: its options say that codes start from latent_avg, as those of W+ do, and DualStyleGAN takes them "
                "for codes of Z+; its authors' encoder.pt is meant, not encoder_wplus.pt or another pSp",
                folder / _ENCODER,
            )
        shape = (net.generator.num_ws, net.generator.w_dim)
        if (encoder.rows, encoder.code_dim) != shape:
            raise CheckpointError(
                f"makes codes [{encoder.rows}, {encoder.code_dim}]; the generator takes {list(shape)}",
                path=folder / _ENCODER,
            )
        codes = read_tensors(folder / _EXEMPLARS)
        if wrong := sorted(name for name, code in codes.items() if code.shape != shape):
            raise CheckpointError(
                f"code {wrong[0]!r} has shape {list(codes[wrong[0]].shape)}, expected {list(shape)}",
                path=folder / _EXEMPLARS,
            )
        wanted = self.config.exemplar
        if wanted and wanted not in codes:
            raise ConfigError(
                f"no exemplar {wanted!r}; there are {', '.join(sorted(codes)[:8])} ..."
            )
        names = [wanted] if wanted else sorted(codes)
        self.exemplars = [codes[name].to(self.device) for name in names]
        self.net, self.encoder = net.to(self.device), encoder.to(self.device)
        return self

    def stylize(self, crops: Tensor, *, first: int = 0, progress: bool = False) -> Tensor:
        """Encode, then draw with an exemplar's code; see :meth:`Baseline.stylize`."""
        check_crops(crops)
        net, encoder, config = prepared(self.net, self), prepared(self.encoder, self), self.config
        count, rows = len(self.exemplars), net.generator.num_ws
        style = torch.stack([self.exemplars[(first + i) % count] for i in range(len(crops))])
        coarse = net.structure_rows
        weights = [config.structure_weight] * coarse + [config.color_weight] * (rows - coarse)
        with torch.inference_mode():
            content = encoder(resize(crops.to(self.device), encoder.input_px))
            if config.keep_color:
                style = torch.cat([style[:, :coarse], content[:, coarse:]], dim=1)
            img: Tensor = net(content, style, weights, psi=config.psi)
        return img.clamp(-1, 1)


def import_dualstylegan(files: Sequence[str | Path], out: str | Path) -> list[Path]:
    """Convert public DualStyleGAN files into a folder for :meth:`DualStyle.load`; each by what it holds.

    Args:
        files: any of ``generator.pt``, ``encoder.pt`` (of z_plus) and one codes' file, ``exstyle_code.npy`` or
            ``refined_exstyle_code.npy``.
        out: folder; files imported earlier stay.

    Returns:
        The files written.

    Raises:
        CheckpointError: a file is damaged, would run code, or holds something else.
        OutputError: ``out`` cannot be written.
    """
    written = []
    for file in map(Path, files):
        content = read_checkpoint(file)
        with named_errors(file, _PUBLIC_FILES):
            name, tensors, config = _recognized(content, file)
        written.append(_write(tensors, Path(out) / name, config))
    return written


def _recognized(content: Any, file: Path) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Name of our file, tensors and constructor's arguments of what a public file holds."""
    if not isinstance(content, dict):
        raise CheckpointError(f"holds {type(content).__name__}, no networks", path=file)
    if "g_ema" in content:
        net = public_generator(content, file)
        return _GENERATOR, net.state_dict(), net.config()
    if "state_dict" in content:
        encoder = psp_encoder(content, file)
        return _ENCODER, encoder.state_dict(), encoder.config()
    if all(isinstance(value, StoredArray) for value in content.values()):
        return _EXEMPLARS, public_codes(content, file), {}
    found = sorted(str(name)[:60] for name in content)[:5]
    raise CheckpointError(
        f"holds neither g_ema (generator.pt) nor state_dict (encoder.pt), but {found}", path=file
    )


def public_generator(content: Mapping[str, Any], file: Path) -> DualStyleGenerator:
    """The generator of the authors' ``generator.pt``, as ``read_checkpoint`` reads it.

    Raises:
        CheckpointError: it holds another network.
    """
    config, tensors = from_public(tensors_in(content["g_ema"], file))
    w_avg = mean_of_w(content.get("latent_avg"))
    w_dim = config["generator"]["w_dim"]
    tensors["generator.mapping.w_avg"] = torch.zeros(w_dim) if w_avg is None else w_avg
    net = fitted(
        lambda: DualStyleGenerator(config["generator"], structure_rows=config["structure_rows"]),
        tensors,
        file,
    )
    inner: StyleGAN2Generator = net.generator
    if w_avg is None:
        inner.w_avg.copy_(estimate_w_avg(inner))
    return net


def public_codes(content: Any, file: Path) -> dict[str, Tensor]:
    """Codes [rows, 512] by picture, of the authors' ``exstyle_code.npy``, as ``read_checkpoint`` reads it.

    Raises:
        CheckpointError: it holds something else, or codes of several shapes.
    """
    with np.errstate(over="ignore"):  # what is too large for float32 is named below
        arrays = {k: v.astype(np.float32) for k, v in named_arrays(content, file).items()}
    codes = {k: torch.from_numpy(v) for k, v in arrays.items()}
    codes = {k: v[0] if v.ndim == 3 and len(v) == 1 else v for k, v in codes.items()}
    shapes = {tuple(code.shape) for code in codes.values()}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise CheckpointError(f"expected codes [rows, 512], got {sorted(shapes)[:3]}", path=file)
    if bad := sorted(name for name, code in codes.items() if not code.isfinite().all()):
        raise CheckpointError(f"code {bad[0]!r} holds NaN or infinity", path=file)
    return codes


def _write(tensors: Mapping[str, Tensor], path: Path, config: Mapping[str, Any]) -> Path:
    save_tensors(tensors, path, metadata={"format": _FORMAT, "config": dict(config)})
    return path


def _read(kind: type[Net], path: Path) -> Net:
    """A network from our own file, frozen."""
    try:
        with unfilled():
            net = kind(**json.loads(read_metadata(path)["config"]))
    except (KeyError, ValueError, TypeError, ConfigError) as error:
        raise CheckpointError(f"describes no {kind.__name__} ({error})", path=path) from error
    load_strict(net, read_tensors(path), path=path)
    return net.eval().requires_grad_(False)
