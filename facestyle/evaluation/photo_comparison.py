"""One photo through several methods: a picture of all results, and a JSON of what each took and kept.

::

    OUT/photo.png          the aligned face that every method gets
    OUT/METHOD.png         its portrait, at the method's own resolution
    OUT/comparison.png     all side by side; a method that cannot run is shown with the reason
    OUT/comparison.json    seconds, memory, parameters, resolution, identity, perceptual distance, settings
"""

from __future__ import annotations

import dataclasses
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from facestyle.baselines.base import PictureSources, ProjectingBaseline, resize
from facestyle.baselines.diffusion_method import StyledDiffusionBaseline
from facestyle.baselines.registry import DIFFUSION
from facestyle.bench import machine
from facestyle.errors import ConfigError, FacestyleError, NoFaceError, memory_named
from facestyle.evaluation.comparison_methods import (
    METHODS,
    ComparisonConfig,
    Method,
    SharedDiffusion,
    make_method,
    networks_of,
    run_folder,
    settings_of,
    trained_with,
)
from facestyle.evaluation.judges import (
    check_judge,
    judging_device,
    load_judge,
)
from facestyle.evaluation.metrics import StyleJudge
from facestyle.evaluation.people import check_aligned
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.faces.align import align
from facestyle.faces.detect import FaceDetector
from facestyle.image import load_image, save_png, to_pil, to_tensor
from facestyle.memory import PeakMemory
from facestyle.models.generator import Generator
from facestyle.runtime import choose_device
from facestyle.timing import device_name, versions, wait_for
from facestyle.training.state import write_json

__all__ = ["compare_photo", "format_rows", "portraits_sheet"]

_MEASURES = ("lpips", "perceptual", "identity")
_WARM_S = 10.0
"""A method that took less than this is run again, since its first run also builds things."""


def compare_photo(
    photo: str | Path | bytes | Image.Image,
    out: str | Path,
    *,
    style: str,
    base: Generator,
    pictures: PictureSources | None = None,
    config: ComparisonConfig | None = None,
    methods: Sequence[str] = METHODS,
    runs: str | Path | None = None,
    aligned: bool = False,
    judge_name: str = "auto",
    device: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Every method's portrait of the largest face of one photo; what ``OUT/comparison.json`` holds.

    A method that cannot run here, or runs out of memory, has its place with the reason, and the rest goes on. Those
    that draw with a diffusion model run last, all on one, so that its memory counts for no other method. Of one photo
    there is no FID and no KID; `facestyle.evaluation.comparison.compare` has them.

    Args:
        photo: a path, the bytes of a file, or a PIL image.
        out: folder.
        style: name of the style; ours may also be a Hub repository's or a folder's.
        base: G.
        pictures: of the style, for methods that follow one; without them these cannot run.
        config: how the methods are set.
        methods: of `METHODS`, in the order they are shown.
        runs: folder with ``METHOD/STYLE``, see `comparison_methods.make_method`.
        aligned: the photo is an FFHQ-aligned square already.
        judge_name: identity network that judges.
        device: where methods run; the best there is when None.
        progress: show a bar.

    Returns:
        "photo" (side in px), "style", "methods" (a list: "method", and either "why", or "picture", "seconds" of a
        second, warm run, or of the first where that took 10 s or more, "style_seconds" of learning the style where
        that was done here, "peak_memory_mb", "parameters", "resolution", "identity_similarity", "perceptual",
        "lpips", "settings", "model" with its "sha256" and "dtype"), "memory_of", "device", "machine", "versions",
        "date".

    Raises:
        ConfigError: unknown methods.
        DownloadError: a judge asked for by name cannot be had; nothing was drawn.
        ImageError: the photo cannot be used; NoFaceError among them.
        OutputError: ``out`` cannot be written.
    """
    # One photo follows one reference.
    config = dataclasses.replace(config or ComparisonConfig(), references=1)
    if not methods or (unknown := set(methods) - set(METHODS)):
        raise ConfigError(
            f"expected methods of {', '.join(METHODS)}; got {', '.join(sorted(unknown)) if methods else 'none'}"
        )
    check_judge(judge_name)
    folder, place = Path(out), choose_device(device)
    if judge_name != "auto":
        load_judge(judge_name, judging_device(place))  # can it be had? methods take long
    face = _face(photo, min(1024, base.resolution), aligned, place)
    save_png(face, folder / "photo.png")
    crop = to_tensor(face)
    found: dict[str, dict[str, Any]] = {}
    portraits: dict[str, Image.Image] = {}
    with SharedDiffusion(config.diffusion, device) as diffusion:

        def run(name: str) -> tuple[dict[str, Any], Tensor]:
            method = make_method(
                name, style, pictures, runs, config, base, device=device, diffusion=diffusion
            )
            return _run(method, crop, place)

        in_turn = sorted(methods, key=lambda name: name in DIFFUSION)
        for name in tqdm(in_turn, desc="methods", disable=not progress):
            try:
                with memory_named(name):
                    row, img = run(name)
            except FacestyleError as error:
                found[name] = {"method": name, "why": str(error)}
                continue
            portraits[name] = to_pil(img[0])
            save_png(portraits[name], folder / f"{name}.png")
            settings = settings_of(name, config)
            described = {} if settings is None else dataclasses.asdict(settings)
            described.pop("training", None)  # of another run, if at all
            found[name] = {
                "method": name, "picture": f"{name}.png", **row, "settings": described,
                "trained": trained_with(name, run_folder(name, style, runs)),
            }  # fmt: skip
    rows = [found[name] for name in methods]
    _judge(rows, portraits, face, judge_name, config.side_px, place)
    on = "device" if place.type == "cuda" else "whole process"
    report = {
        "photo": {"side_px": face.width},
        "style": style,
        "methods": rows,
        "memory_of": on,
        "device": device_name(place),
        "machine": machine(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(folder / "comparison.json", report)
    save_sheet(portraits_sheet(face, rows, portraits), folder / "comparison.png")
    return report


def format_rows(report: dict[str, Any]) -> str:
    """A report's methods, a line each, for people."""
    lines = []
    for row in report["methods"]:
        if "why" in row:
            lines.append(f"{row['method']:<13} not here: {row['why']}")
            continue
        memory = row["peak_memory_mb"]
        identity = row["identity_similarity"]["value"]
        lines.append(
            f"{row['method']:<13} {row['seconds']:8.2f} s  {'-' if memory is None else memory:>6} MB  "
            f"{row['parameters'] / 1e6:7.1f} M  {row['resolution']:>5} px  identity "
            f"{'-' if identity is None else format(identity, '.3f')}"
        )
    return "\n".join(lines)


def _face(
    photo: str | Path | bytes | Image.Image, side_px: int, aligned: bool, device: torch.device
) -> Image.Image:
    """The largest face of a photo, cut out as FFHQ's are."""
    image = load_image(photo)
    if aligned:
        check_aligned(image)
        return image.resize((side_px, side_px), Image.Resampling.LANCZOS)
    found = FaceDetector(device).detect(image)
    if not found:
        raise NoFaceError(
            "no face found; use a photo in which the face is upright, in focus and not covered, or pass an aligned "
            "square with --already-aligned",
            image_size=image.size,
        )
    return align(image, found[0].quad, side_px)


def _run(method: Method, crop: Tensor, device: torch.device) -> tuple[dict[str, Any], Tensor]:
    """What a method took, and its picture [1, 3, R, R]."""
    is_searching = isinstance(method, ProjectingBaseline)  # by gradients
    with PeakMemory(device) as memory, torch.inference_mode(not is_searching):
        img, seconds = _timed(method, crop, device)
        if seconds < _WARM_S:
            img, seconds = _timed(method, crop, device)
    facts: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "peak_memory_mb": None if memory.bytes is None else round(memory.bytes / 1e6),
        "parameters": method.parameters,
        "resolution": method.resolution,
        **networks_of(method),
    }
    if isinstance(method, StyledDiffusionBaseline) and method.style_seconds is not None:
        facts["style_seconds"] = round(method.style_seconds, 3)
    return facts, img.detach().float().cpu()


def _timed(method: Method, crop: Tensor, device: torch.device) -> tuple[Tensor, float]:
    began = time.perf_counter()
    img = method.stylize(crop)
    wait_for(device)
    return img, time.perf_counter() - began


def _judge(
    rows: Sequence[dict[str, Any]],
    portraits: dict[str, Image.Image],
    face: Image.Image,
    judge_name: str,
    side_px: int,
    device: torch.device,
) -> None:
    """Add to each row how much of the person and of the picture its portrait keeps."""
    if not portraits:
        return
    judge = StyleJudge.load(
        [], measures=_MEASURES, judge_name=judge_name, device=judging_device(device)
    )
    source = resize(to_tensor(face), side_px)
    for row in rows:
        if "why" in row:
            continue
        scores = judge.score(resize(to_tensor(portraits[row["method"]]), side_px), source)
        identity = scores.pop("identity_distance")
        scores.pop("identity_spread", None)
        if identity["value"] is not None:
            identity = {"value": 1 - identity["value"], "by": identity["by"]}
        row |= {"identity_similarity": identity, **scores}


def portraits_sheet(
    face: Image.Image, rows: Sequence[dict[str, Any]], portraits: Mapping[str, Image.Image]
) -> Image.Image:
    """The photo and every method's portrait, or the reason why there is none, up to five in a row.

    Args:
        face: the photo's face.
        rows: "methods" of what `compare_photo` returns.
        portraits: of the methods that have one, by name.
    """
    cell_px = 320
    cells = [face] + [portraits.get(row["method"]) or _notice(row["why"], cell_px) for row in rows]
    names = ["photo"] + [
        row["method"] if "why" in row else f"{row['method']}, {row['seconds']:.2f} s" for row in rows
    ]  # fmt: skip
    width = min(5, len(cells))
    starts = range(0, len(cells), width)
    parts = [
        contact_sheet(
            [cells[i : i + width]], cell_px=cell_px, titles=names[i : i + width]
        )
        for i in starts
    ]  # fmt: skip
    sheet = Image.new(
        "RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white"
    )
    y = 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height
    return sheet


def _notice(why: str, side_px: int) -> Image.Image:
    """A grey square that says why there is no picture."""
    tile = Image.new("RGB", (side_px, side_px), (236, 236, 236))
    font = ImageFont.load_default(size=side_px // 20)
    lines = textwrap.wrap(f"not here: {why}", 34)[:14]
    ImageDraw.Draw(tile).multiline_text(
        (side_px // 16, side_px // 8), "\n".join(lines), (70, 70, 70), font, spacing=4
    )
    return tile
