"""A style for other runtimes: encoder, generator and preview as ONNX or TorchScript files, checked against PyTorch.

::

    OUT/encoder.onnx     face [B, 3, S, S] in [-1, 1], psi [] -> w_plus [B, num_ws, w_dim], truncated
    OUT/generator.onnx   w_plus -> portrait [B, 3, R, R] in about [-1, 1]
    OUT/preview.onnx     w_plus -> the cheap small portrait
    OUT/export.json      style, sizes, its usual psi, and how far each file is from PyTorch
    OUT/stylize.py       an aligned face to a portrait in a few lines, with onnxruntime and without torch

TorchScript files end in ``.pt`` and come without the script. Inputs and outputs are float32 whatever the weights are.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from facestyle.errors import ConfigError, FacestyleError, MissingDependencyError, OutputError
from facestyle.files import write_whole
from facestyle.latents import broadcast, truncate
from facestyle.models.encode import corrected, corrects_by
from facestyle.models.encoder import Encoder
from facestyle.models.generator import Generator
from facestyle.models.portable import portable
from facestyle.models.psp_encoder import AnyEncoder
from facestyle.training.state import write_json

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["EXPORT_FORMATS", "ExportFormat", "export_style"]

ExportFormat = Literal["onnx", "torchscript"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

TOLERANCE = {"float32": 1e-4, "float16": 0.02}
"""How far a file's results may be from PyTorch's float32: mean error in units of their standard deviation."""

_SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torchscript": ".pt"}
_SCRIPT, _REPORT = "stylize.py", "export.json"
_EXAMPLE = Path(__file__).parent / "assets" / "stylize_onnx.py"
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def export_style(
    stylizer: FaceStylizer,
    out: str | Path,
    format: ExportFormat = "onnx",
    *,
    dtype: str = "float32",
    progress: bool = True,
) -> dict[str, Any]:
    """Write a style's networks for another runtime, and compare what each draws there; what ``OUT/export.json`` holds.

    Each file is run there with a batch of two and of one.

    Args:
        stylizer: the style.
        out: folder; files of an earlier export in it are replaced once all is done, those of the other format
            removed.
        format: "onnx" for onnxruntime, OpenVINO and others, "torchscript" for ``torch.jit.load``.
        dtype: of generator and preview, "float32" or "float16", which halves their files. The encoder stays in
            float32: its antialiased resize has no half-precision kernel on CPUs.
        progress: show a bar.

    Returns:
        "style", "format", "dtype", "face_px", "portrait_px", "preview_px", "num_ws", "w_dim", "psi", "files" (name to
        "bytes" and "mean_error", in standard deviations of the result), "versions".

    Raises:
        ConfigError: no such format or dtype.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        FacestyleError: a file's results are not PyTorch's; nothing is written then.
        OutputError: ``out`` cannot be written.
    """
    if format not in EXPORT_FORMATS:
        raise ConfigError(f"format must be one of {', '.join(EXPORT_FORMATS)}, got {format!r}")
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
    if format == "onnx":
        _check_onnx()
    folder = Path(out)
    earlier = _files_of(folder / _REPORT)
    parts = _parts(stylizer)
    files: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as made:
        for name, (module, given) in tqdm(parts.items(), desc="export", disable=not progress):
            path = Path(made) / f"{name}{_SUFFIXES[format]}"
            wanted = _run(module, given)
            alone = tuple(one[:1] if one.ndim else one for one in given)
            part_dtype = "float32" if name == "encoder" else dtype
            kept = _Cast(module, _DTYPES[part_dtype]).eval()
            if format == "onnx":
                _write_onnx(kept, given, path)
                found = _run_onnx(path, given, alone)
            else:
                _write_torchscript(kept, given, path)
                found = _run_torchscript(path, given, alone)
            wanted = torch.cat([wanted, wanted[:1]])
            error = ((found - wanted).abs().mean() / wanted.std()).item()
            if not error <= TOLERANCE[part_dtype]:
                raise FacestyleError(
                    f"{path.name} gives other results than PyTorch, off by {error:.3g} standard deviations of "
                    f"{TOLERANCE[part_dtype]} allowed; nothing was written. Try dtype float32, or other versions of "
                    "torch and onnxruntime"
                )
            files[path.name] = {
                "bytes": path.stat().st_size,
                "mean_error": float(f"{error:.2g}"),
            }
        if format == "onnx":
            shutil.copyfile(_EXAMPLE, Path(made) / _SCRIPT)
        report = _described(stylizer, format, dtype) | {"files": files}
        write_json(Path(made) / _REPORT, report)
        names = sorted(path.name for path in Path(made).iterdir())
        for name in names:
            write_whole((Path(made) / name).read_bytes(), folder / name)
    for name in earlier.difference(names):
        _remove(folder / name)
    return report


class _Coding(nn.Module):
    """An aligned face to the truncated code that the generator draws."""

    w_avg: Tensor

    def __init__(self, encoder: AnyEncoder, base: Generator) -> None:
        super().__init__()
        self.encoder, self.num_ws = encoder, base.num_ws
        self.mapping = base.mapping if encoder.space == "z_plus" else None
        corrections = encoder.corrections if isinstance(encoder, Encoder) else 0
        seen = corrects_by(encoder, base)
        side, self.preview_ws = seen.preview_resolution, seen.num_ws
        self.preview = portable(seen.synthesis, side) if corrections else None
        self.corrections = corrections
        self.register_buffer("w_avg", base.w_avg.detach().clone())

    def forward(self, face: Tensor, psi: Tensor) -> Tensor:
        encoder = self.encoder
        if self.preview is not None and isinstance(encoder, Encoder):
            codes = corrected(encoder, face, self._draw, self.corrections)
        else:
            codes = encoder(face)
        rows = self._rows(codes, self.num_ws)
        return self.w_avg + psi * (rows - self.w_avg)

    def _rows(self, codes: Tensor, num_ws: int) -> Tensor:
        rows = broadcast(codes, num_ws)
        return rows if self.mapping is None else self.mapping(rows)

    def _draw(self, codes: Tensor) -> Tensor:
        assert self.preview is not None
        img: Tensor = self.preview(self._rows(codes, self.preview_ws))
        return img


class _Cast(nn.Module):
    """A copy of a module in another number type, with float32 outside."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).to(dtype)
        self.dtype = dtype

    def forward(self, *given: Tensor) -> Tensor:
        result = self.module(*(one.to(self.dtype) for one in given))
        assert isinstance(result, Tensor)
        return result.float()


def _parts(stylizer: FaceStylizer) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Modules by name, on the CPU in float32, each with inputs to try: a batch of two."""
    generator, base, encoder = stylizer.generator, stylizer.base, stylizer.encoder
    rng = torch.Generator().manual_seed(0)
    side = encoder.input_px
    faces = torch.rand(2, 3, side // 16, side // 16, generator=rng) * 2 - 1
    faces = nn.functional.interpolate(faces, size=(side, side), mode="bicubic").clamp(-1, 1)
    with torch.no_grad():
        z = torch.randn(2, base.w_dim, generator=rng)
        w = base.mapping(z.to(base.w_avg.device)).float().cpu()
        w = truncate(w, base.w_avg.float().cpu(), 0.7)
    rows = w[:, None].repeat(1, generator.num_ws, 1)
    made: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "encoder": (_Coding(encoder, base), (faces, torch.tensor(0.7))),
        "generator": (portable(generator.synthesis, generator.resolution), (rows,)),
        "preview": (portable(generator.synthesis, generator.preview_resolution), (rows,)),
    }
    return {
        name: (copy.deepcopy(module).float().cpu().eval(), given)
        for name, (module, given) in made.items()
    }


def _files_of(report: Path) -> set[str]:
    """Names of the files that an earlier export left beside its report; none where it is no such report."""
    try:
        found = json.loads(report.read_bytes())
        suffix = _SUFFIXES[found["format"]]
        names = {name for name in found["files"] if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    listed = {name for name in names if name.endswith(suffix)}
    return listed | {_SCRIPT} if found["format"] == "onnx" else listed


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be removed: {error.strerror}", path=path) from error


def _run(module: Callable[..., Tensor], given: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        return module(*given).float()


def _write_onnx(module: nn.Module, given: tuple[Tensor, ...], path: Path) -> None:
    """One file, for batches of any size."""
    batch = torch.export.Dim("batch", min=2, max=1024)  # 1 would be taken for a constant
    names = ["face", "psi"] if len(given) > 1 else ["w_plus"]
    for part in module.modules():
        if isinstance(part, nn.ReLU6):
            part.inplace = False  # nothing is in ONNX, and in place each takes the exporter 0.04 s
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, about its insides
        program = torch.onnx.export(
            module, given, dynamo=True, input_names=names,
            output_names=["w_plus" if len(given) > 1 else "portrait"],
            dynamic_shapes=(tuple({0: batch} if one.ndim else None for one in given),),
            optimize=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(path, external_data=False)


def _run_onnx(path: Path, *batches: tuple[Tensor, ...]) -> Tensor:
    """The results of all batches, one after the other."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    results = [
        session.run(None, {name: one.numpy() for name, one in zip(names, given, strict=True)})[0]
        for given in batches
    ]
    return torch.cat([torch.from_numpy(result) for result in results])


def _write_torchscript(module: nn.Module, given: tuple[Tensor, ...], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # torch names its newer exporter, which is the other format here
        # What it draws is checked with the file.
        traced = torch.jit.trace(module, given, check_trace=False)
        torch.jit.save(traced, path)


def _run_torchscript(path: Path, *batches: tuple[Tensor, ...]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # likewise
        module = torch.jit.load(path)
        return torch.cat([_run(module, given) for given in batches])


def _check_onnx() -> None:
    # Modules, not packages: onnxruntime-gpu and others bring onnxruntime too.
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"export to ONNX needs {name}, which is not installed; run: pip install 'facestyle[export]'"
            )


def _described(stylizer: FaceStylizer, format: str, dtype: str) -> dict[str, Any]:
    generator = stylizer.generator
    versions = {"torch": metadata.version("torch")}
    if format == "onnx":
        import onnxruntime

        versions |= {name: metadata.version(name) for name in ("onnx", "onnxscript")}
        versions["onnxruntime"] = onnxruntime.__version__
    return {
        "style": stylizer.config.name,
        "format": format,
        "dtype": dtype,
        "face_px": stylizer.encoder.input_px,
        "portrait_px": generator.resolution,
        "preview_px": generator.preview_resolution,
        "num_ws": generator.num_ws,
        "w_dim": generator.w_dim,
        "psi": stylizer.config.psi,
        "versions": versions,
    }
