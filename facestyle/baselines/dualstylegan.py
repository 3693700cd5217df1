"""DualStyleGAN as a baseline, on the authors' checkpoint files, which the user brings (their licence: S-Lab 1.0)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

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
from facestyle.baselines.torch_files import read_named_arrays, read_torch_file
from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import (
    load_strict,
    read_metadata,
    read_tensors,
    save_tensors,
    unfilled,
)
from facestyle.models.psp_encoder import PspEncoder
from facestyle.models.stylegan2_generator import StyleGAN2Generator, estimate_w_avg
from facestyle.runtime import choose_device

__all__ = ["DualStyle", "DualStyleConfig", "import_dualstylegan"]

_log = logging.getLogger(__name__)

_GENERATOR, _ENCODER, _EXEMPLARS = (
    f"{name}.safetensors" for name in ("generator", "encoder", "exemplars")
)
_FORMAT = "facestyle-dualstylegan"
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
        if file.suffix == ".npy":
            codes = {k: torch.from_numpy(v).float() for k, v in read_named_arrays(file).items()}
            codes = {k: v[0] if v.ndim == 3 and len(v) == 1 else v for k, v in codes.items()}
            _check_codes(codes, file)
            written.append(_write(codes, Path(out) / _EXEMPLARS, {}))
            continue
        content = read_torch_file(file)
        if not isinstance(content, dict):
            raise CheckpointError(f"holds {type(content).__name__}, no networks", path=file)
        if "g_ema" in content:
            net = _generator_from(content, file)
            written.append(_write(net.state_dict(), Path(out) / _GENERATOR, net.config()))
        elif "state_dict" in content:
            encoder = _encoder_from(content, file)
            written.append(_write(encoder.state_dict(), Path(out) / _ENCODER, encoder.config()))
        else:
            raise CheckpointError(
                f"holds neither g_ema (generator.pt) nor state_dict (encoder.pt), but {sorted(map(str, content))[:5]}",
                path=file,
            )
    return written


def _generator_from(content: Mapping[str, Any], file: Path) -> DualStyleGenerator:
    config, tensors = from_public(content["g_ema"])
    with unfilled():
        net = DualStyleGenerator(config["generator"], structure_rows=config["structure_rows"])
    inner: StyleGAN2Generator = net.generator
    tensors["generator.mapping.w_avg"] = content.get("latent_avg", torch.zeros(inner.w_dim))
    load_strict(net, tensors, path=file)
    if "latent_avg" not in content:
        inner.w_avg.copy_(estimate_w_avg(inner))
    return net


def _encoder_from(content: Mapping[str, Any], file: Path) -> PspEncoder:
    """The encoder of a pSp checkpoint; the copy of the decoder in it is passed over."""
    state, options = content["state_dict"], content.get("opts", {})
    parts = {name.partition(".")[0] for name in state}
    if "encoder" not in parts or parts - {"encoder", "decoder", "face_pool", "latent_avg"}:
        raise CheckpointError(f"holds no pSp encoder, but {sorted(parts)[:5]}", path=file)
    tensors = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    config = _encoder_config(tensors, file)
    shape = (config["rows"], config["code_dim"])
    tensors["start"] = torch.zeros(shape)
    if options.get("start_from_latent_avg") and "latent_avg" in content:
        _log.warning("%s: its codes start from the latent_avg it holds", file)
        tensors["start"] = content["latent_avg"].expand(shape).contiguous()
    with unfilled():
        encoder = PspEncoder(**config)
    load_strict(encoder, tensors, path=file)
    return encoder


def _encoder_config(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """Arguments of the encoder, read off its tensors."""
    try:
        widths = [len(tensors["input_layer.0.weight"])]
        units: list[int] = [0]
        unit = 0
        while (name := f"body.{unit}.res_layer.1.weight") in tensors:
            if len(tensors[name]) != widths[-1]:
                widths.append(len(tensors[name]))
                units.append(0)
            units[-1] += 1
            unit += 1
        rows = sum(name.endswith(".linear.weight") for name in tensors)
        convs = sum(name.startswith("styles.0.convs.") for name in tensors) // 2
        return {
            "rows": rows, "code_dim": len(tensors["styles.0.linear.weight"]),
            "input_px": 16 << convs, "widths": widths, "units": units,
        }  # fmt: skip
    except KeyError as error:
        raise CheckpointError(
            f"holds no pSp encoder: {error} is missing", path=file, missing=[str(error.args[0])]
        ) from error


def _check_codes(codes: Mapping[str, Tensor], file: Path) -> None:
    shapes = {tuple(code.shape) for code in codes.values()}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise CheckpointError(f"expected codes [rows, 512], got {sorted(shapes)[:3]}", path=file)
    if bad := sorted(name for name, code in codes.items() if not code.isfinite().all()):
        raise CheckpointError(f"code {bad[0]!r} holds NaN or infinity", path=file)


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
