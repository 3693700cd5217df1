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

from facestyle.bench import machine
from facestyle.errors import ConfigError

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["time_backends"]

Runner = Callable[[dict[str, Any]], object]


def time_backends(stylizer: FaceStylizer, folder: str | Path, *, runs: int = 9) -> dict[str, Any]:
    """Median seconds of one face by runtime and network, float32, on the CPU, with as many threads as PyTorch has.

    Args:
        stylizer: the style, on the CPU.
        folder: of its ONNX export.
        runs: timed runs after two warm ones; the runtimes take turns, as a machine's speed drifts.

    Returns:
        "seconds": runtime ("pytorch", and "onnxruntime" and "openvino" where installed) to "encoder" and "generator";
        "threads", "machine", "date".

    Raises:
        ConfigError: the folder holds no ONNX export, or ``runs`` is below 1.
    """
    if runs < 1:
        raise ConfigError(f"runs must be 1 or more, got {runs}")
    paths = {name: Path(folder) / f"{name}.onnx" for name in ("encoder", "generator")}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise ConfigError(f"{folder} holds no {missing[0]}; export the style as onnx first")
    side = stylizer.encoder.input_px
    given = {
        "encoder": {
            "face": np.zeros((1, 3, side, side), np.float32), "psi": np.array(0.7, np.float32),
        },
        "generator": {
            "w_plus": stylizer.base.w_avg.numpy()[None, None].repeat(stylizer.base.num_ws, axis=1)
        },
    }  # fmt: skip
    makers = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}
    seconds: dict[str, dict[str, float]] = {"pytorch": {}}
    for name, path in paths.items():
        runners = {"pytorch": _in_pytorch(stylizer, name)}
        runners |= {
            runtime: make(path) for runtime, make in makers.items()
            if importlib.util.find_spec(runtime) is not None
        }  # fmt: skip
        rows: dict[str, list[float]] = {runtime: [] for runtime in runners}
        for run in range(runs + 2):
            for runtime, runner in runners.items():
                began = time.perf_counter()
                runner(given[name])
                if run >= 2:
                    rows[runtime].append(time.perf_counter() - began)
        for runtime, times in rows.items():
            seconds.setdefault(runtime, {})[name] = round(statistics.median(times), 4)
    return {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _in_pytorch(stylizer: FaceStylizer, name: str) -> Runner:
    """As `FaceStylizer` itself encodes and draws."""
    from facestyle.drawing import synthesis_at

    network: Callable[..., Any] = stylizer.encoder
    if name == "generator":
        network = synthesis_at(1.0, stylizer.generator, stylizer.base, torch.float32)

    def run(given: dict[str, Any]) -> object:
        x = torch.from_numpy(given["face" if name == "encoder" else "w_plus"])
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return network(x)

    return run


def _in_onnxruntime(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)


def _in_openvino(path: Path) -> Runner:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"
    }  # fmt: skip
    network = openvino.Core().compile_model(path, "CPU", settings)
    return lambda given: network(list(given.values()))
