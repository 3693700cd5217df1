"""How long the diffusion baselines take beside ours: a full-size Stable Diffusion 1.x of random weights, end to end.

Weights do not change the time of dense layers, so no download is needed; the pictures mean nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from facestyle.baselines.diffusion import LatentDiffusion, guarded, network_dtype
from facestyle.baselines.diffusion_method import DiffusionBaseline, square_crop
from facestyle.baselines.inst import Inst, InstStyle
from facestyle.baselines.inst_training import InstInverter, training_loss
from facestyle.baselines.ntc import Ntc
from facestyle.baselines.random_diffusion import random_model
from facestyle.baselines.styleid import StyleId
from facestyle.bench import machine, sample_photo
from facestyle.errors import ConfigError
from facestyle.evaluation.comparison_methods import our_parameters
from facestyle.hub.scores import read_training, training_seconds
from facestyle.image import load_image, to_tensor
from facestyle.memory import PeakMemory
from facestyle.runtime import choose_device, dtype_name
from facestyle.timing import device_name, seconds_of, versions, wait_for

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["bench_baselines", "format_baselines"]

_R = TypeVar("_R")

_WARM_UP, _WARM_UP_S = 3, 20.0
"""Calls ahead of those that are timed, and seconds after which no further one is begun."""

_TIMED = ("steps", "strength", "disturbance_time", "features", "inversion", "refine")


def bench_baselines(
    *,
    size: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    runs: int = 3,
    style: str = "cartoon",
    ours: FaceStylizer | None = None,
    configs: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Seconds and memory of NTC, InST and StyleID on one photo, and of ours, in one run.

    Each gets an aligned photo and gives a picture. What is done once a style (InST's training, StyleID's inversion of
    the style) is a column of its own.

    Args:
        size: of the diffusion model, "full" or "tiny"; full on CUDA, else tiny, when None.
        device: where all run; the best there is when None.
        dtype: of the diffusion model; bfloat16 on CUDA, else float32, when None: random weights overflow float16.
        runs: of which the median counts, behind warm-up.
        style: of ours.
        ours: the stylizer itself, instead.
        configs: settings by method's name, where not the defaults.
        progress: show a bar for each picture of a diffusion model; full size takes minutes a picture on a CPU.

    Returns:
        "model" (what was run, in words), "rows" (a mapping for each method: "method", "parameters", "resolution",
        "seconds" in the median behind three calls of warm-up, fewer where they take 20 s, "peak_memory_mb",
        "style_seconds" of learning a style, of ours what its training is known to have taken, "finite", "dtype",
        "settings"), "memory_of" ("device", or "whole process" on a CPU), "parts" (seconds of single calls),
        "inst_training_step" (seconds), "device", "dtype" of the diffusion model, "runs", "machine", "versions", "date".

    Raises:
        ConfigError: ``runs`` is below 1, there is no such size or device, or it does not compute in ``dtype``.
        DeviceMemoryError: the model does not fit.
        MissingDependencyError: the extra ``diffusion`` is not installed.
    """
    if runs < 1:
        raise ConfigError(f"runs must be 1 or more, got {runs}")
    place = choose_device(device)
    is_cuda = place.type == "cuda"
    size = size or ("full" if is_cuda else "tiny")
    kind = network_dtype(dtype, place, default=torch.bfloat16)
    rows = [_ours_row(ours, style, place, runs)]
    with guarded("the baselines' bench"):
        model = random_model(size, device=place, dtype=kind)
        training_step = _training_step(model, runs)
        for method, style_seconds in _methods(model, dict(configs or {}), training_step):
            photo = _photo(method.resolution, place)
            row = _row(method.name, partial(method.stylize, photo, progress=progress), place, runs)
            rows.append(
                row | {
                    "parameters": method.parameters, "style_seconds": style_seconds,
                    "dtype": dtype_name(kind), "settings": dataclasses.asdict(method.config),
                }
            )  # fmt: skip
        parts = _parts(model, runs)
    return {
        "model": model.name,
        "rows": rows,
        "memory_of": "device" if is_cuda else "whole process",
        "parts": parts,
        "inst_training_step": training_step,
        "device": device_name(place),
        "dtype": dtype_name(kind),
        "runs": runs,
        "machine": machine(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def format_baselines(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['model']}; {report['device']}, one aligned photo, the median of {report['runs']} behind "
        f"{_WARM_UP}, or what {_WARM_UP_S:g} s take, of warm-up; memory of the {report['memory_of']}",
        f"  {'':<10}{'parameters':>12}{'pixels':>8}{'seconds':>9}{'memory':>10}{'once a style':>14}  settings",
    ]
    for row in report["rows"]:
        memory = row["peak_memory_mb"]
        lines.append(
            f"  {row['method']:<10}{row['parameters'] / 1e6:>10.2f} M{row['resolution']:>8}"
            f"{row['seconds']:>9.3f}{f'{memory} MB' if memory is not None else 'n/a':>10}"
            f"{_spelled(row['style_seconds']):>14}  {row['dtype']}, {_told(row['settings'])}"
            + ("" if row["finite"] else "; its pictures are not finite")
        )
    lines += [f"  {name:<22}{seconds:>9.4f} s" for name, seconds in report["parts"].items()]
    lines.append(
        "once a style: InST's is its step's time, times its steps; ours is what its training took, as recorded with "
        "the style"
    )
    lines.append(
        f"{report['machine']['processor']}, {report['machine']['cores']} cores, {report['date']}"
    )
    return "\n".join(lines)


def _told(settings: Mapping[str, Any]) -> str:
    """The settings that decide about a method's time."""
    return ", ".join(f"{name}={settings[name]}" for name in _TIMED if name in settings)


def _spelled(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _methods(
    model: LatentDiffusion, configs: dict[str, Any], training_step: float
) -> list[tuple[DiffusionBaseline[Any], float | None]]:
    """The methods with a style of random numbers, and the seconds that it takes to learn one."""
    inst = Inst(model, configs.get("inst"))
    statistics_of = torch.zeros(1, 4, 1, 1, device=model.device)
    vector = torch.zeros(1, model.unet.config.cross_attention_dim, device=model.device)
    inst.style = InstStyle(vector, statistics_of, statistics_of + 1)
    styleid = StyleId(model, configs.get("styleid"))
    began = time.perf_counter()
    styleid.style = styleid.follow(_photo(styleid.resolution, model.device))
    wait_for(model.device)
    inverted = time.perf_counter() - began
    learned = training_step * inst.config.training.steps
    return [(Ntc(model, configs.get("ntc")), None), (inst, learned), (styleid, inverted)]


def _ours_row(
    ours: FaceStylizer | None, style: str, device: torch.device, runs: int
) -> dict[str, Any]:
    if ours is None:
        from facestyle.stylizer import FaceStylizer

        ours = FaceStylizer.from_pretrained(style, device=str(device))
    photo = load_image(sample_photo())
    stylizer = ours

    def draw() -> Tensor:
        return to_tensor(stylizer(photo, aligned=True).image)

    training = {} if stylizer.folder is None else read_training(stylizer.folder)
    learned = sum(training_seconds(training).values())
    return _row("ours", draw, device, runs) | {
        "parameters": our_parameters(stylizer), "style_seconds": learned or None,
        "dtype": dtype_name(stylizer.dtype), "settings": {"refine": 0},
    }  # fmt: skip


def _row(
    method: str, draw: Callable[[], Tensor], device: torch.device, runs: int
) -> dict[str, Any]:
    """What drawing one picture costs."""
    with PeakMemory(device) as memory:
        img = _warm_up(draw, device)
        seconds = seconds_of(draw, device, runs)
    return {
        "method": method,
        "resolution": img.shape[-1],
        "seconds": round(seconds, 4),
        "peak_memory_mb": None if memory.bytes is None else round(memory.bytes / 1e6),
        "finite": bool(img.isfinite().all()),
    }


def _parts(model: LatentDiffusion, runs: int) -> dict[str, float]:
    """Seconds of single calls of the networks."""
    side, channels = model.unet.config.sample_size, model.unet.config.in_channels
    photo = _photo(model.side_px, model.device)
    calls: dict[str, Callable[[], Any]] = {}
    with torch.no_grad():
        for batch in (1, 2, 3):
            x = torch.randn(batch, channels, side, side, device=model.device)
            states = model.text([""] * batch)
            calls[f"UNet, batch {batch}"] = partial(model.predict_noise, x, 500, states)
        latents = model.encode(photo)
        calls["picture to latent"] = partial(model.encode, photo)
        calls["latent to picture"] = partial(model.decode, latents)
        calls["text"] = partial(model.text, ["a photo of a face"])
        found = {}
        for name, call in calls.items():
            _warm_up(call, model.device)
            found[name] = round(seconds_of(call, model.device, runs), 5)
    return found


def _training_step(model: LatentDiffusion, runs: int) -> float:
    """Seconds of a step of InST's training."""
    width, side = model.unet.config.cross_attention_dim, model.unet.config.sample_size
    inverter = InstInverter(width).to(model.device)
    optimizer = torch.optim.AdamW(inverter.parameters(), lr=0.0)
    seen = torch.randn(1, width, device=model.device)
    x = torch.randn(1, model.unet.config.in_channels, side, side, device=model.device)

    def step() -> None:
        loss = training_loss(model, inverter(seen), x, x, 500)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    _warm_up(step, model.device)
    return round(seconds_of(step, model.device, runs), 5)


def _warm_up(call: Callable[[], _R], device: torch.device) -> _R:
    """What the last of the calls gives that make it warm."""
    began = time.perf_counter()
    found = call()
    for _ in range(_WARM_UP - 1):
        wait_for(device)
        if time.perf_counter() - began > _WARM_UP_S:
            break
        found = call()
    return found


def _photo(side_px: int, device: torch.device) -> Tensor:
    """The sample photo as a crop [1, 3, side_px, side_px]."""
    return square_crop(sample_photo(), side_px).to(device)
