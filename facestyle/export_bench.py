"""How fast an exported style is in the runtimes that are installed, beside PyTorch."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from facestyle.bench import machine, sample_photo
from facestyle.drawing import synthesis_at
from facestyle.errors import ConfigError
from facestyle.image import load_image, to_tensor
from facestyle.latents import truncate
from facestyle.models.encode import encode
from facestyle.models.encoder import to_w_plus

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["time_backends"]

Given = dict[str, NDArray[np.float32]]
"""What a network is given: "face" [1, 3, S, S] and "psi" [], or "w_plus" [1, num_ws, w_dim]."""

Runner = Callable[[Given], NDArray[np.float32]]


def time_backends(stylizer: FaceStylizer, folder: str | Path, *, runs: int = 9) -> dict[str, Any]:
    """Median seconds of one face by runtime and network, float32, on the CPU, with as many threads as PyTorch has.

    All do the same work: "encoder" goes from an aligned face to its truncated code, with the corrections that the
    encoder has learned and the small portraits drawn for them; "generator" from there to the portrait.

    Args:
        stylizer: the style, on the CPU.
        folder: of its ONNX export.
        runs: timed runs after two warm ones; the runtimes take turns, as a machine's speed drifts.

    Returns:
        "seconds": runtime ("pytorch", and "onnxruntime" and "openvino" where installed) to "encoder" and "generator";
        "mean_error": of the others, likewise, how far a result is from PyTorch's, in its standard deviations (a few
        hundredths for OpenVINO's codes, as it shrinks pictures in another way); "threads", "machine", "date".

    Raises:
        ConfigError: the folder holds no ONNX export, ``runs`` is below 1, or the style is not on the CPU.
    """
    if runs < 1:
        raise ConfigError(f"runs must be 1 or more, got {runs}")
    if stylizer.device.type != "cpu":
        raise ConfigError(
            f'the runtimes are timed on the CPU, and the style is on {stylizer.device}; load it with device="cpu"'
        )
    paths = {name: Path(folder) / f"{name}.onnx" for name in ("encoder", "generator")}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise ConfigError(f"{folder} holds no {missing[0]}; export the style as onnx first")
    given = _given(stylizer)
    makers = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}
    seconds: dict[str, dict[str, float]] = {"pytorch": {}}
    mean_error: dict[str, dict[str, float]] = {}
    for name, path in paths.items():
        runners = {"pytorch": _in_pytorch(stylizer, name)}
        runners |= {
            runtime: make(path) for runtime, make in makers.items()
            if importlib.util.find_spec(runtime) is not None
        }  # fmt: skip
        wanted = runners["pytorch"](given[name])
        for runtime in runners.keys() - {"pytorch"}:
            error = np.abs(runners[runtime](given[name]) - wanted).mean() / wanted.std()
            mean_error.setdefault(runtime, {})[name] = float(f"{error:.2g}")
        rows: dict[str, list[float]] = {runtime: [] for runtime in runners}
        for run in range(runs + 1):
            for runtime, runner in runners.items():
                began = time.perf_counter()
                runner(given[name])
                if run >= 1:
                    rows[runtime].append(time.perf_counter() - began)
        for runtime, times in rows.items():
            seconds.setdefault(runtime, {})[name] = round(statistics.median(times), 4)
    return {
        "seconds": seconds,
        "mean_error": mean_error,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _given(stylizer: FaceStylizer) -> dict[str, Given]:
    """Inputs by network: the sample photo, which is aligned, and the code of the mean face."""
    side = stylizer.encoder.input_px
    face = to_tensor(load_image(sample_photo()).resize((side, side)))
    w_avg = stylizer.base.w_avg.float().cpu().numpy()
    return {
        "encoder": {"face": face.contiguous().numpy(), "psi": np.array(0.7, np.float32)},
        "generator": {"w_plus": w_avg[None, None].repeat(stylizer.base.num_ws, axis=1)},
    }


def _in_pytorch(stylizer: FaceStylizer, name: str) -> Runner:
    """As `FaceStylizer` itself encodes and draws."""
    generator, base, encoder = stylizer.generator, stylizer.base, stylizer.encoder
    network = synthesis_at(0 if name == "encoder" else 1, generator, base, torch.float32)

    def draw_small(w_plus: torch.Tensor) -> torch.Tensor:
        img: torch.Tensor = network(w_plus, resolution=base.preview_resolution)
        return img

    def run(given: Given) -> NDArray[np.float32]:
        with torch.inference_mode():
            if name == "encoder":
                face = torch.from_numpy(given["face"])
                face = face.contiguous(memory_format=torch.channels_last)
                codes = to_w_plus(encode(encoder, face, base, draw_small), encoder.space, base)
                result = truncate(codes, base.w_avg, float(given["psi"]))
            else:
                result = network(torch.from_numpy(given["w_plus"]))
        found: NDArray[np.float32] = result.numpy()
        return found

    return run


def _in_onnxruntime(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)[0]


def _in_openvino(path: Path) -> Runner:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"
    }  # fmt: skip
    network = openvino.Core().compile_model(path, "CPU", settings)
    return lambda given: network(given)[0]
