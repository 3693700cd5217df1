"""Reports a person reads: how good the encoder is, and how good a style is.

Each leaves ``report.md`` and its numbers as JSON beside its sheets, with date, machine and the names of the networks
that judged. None of these networks took part in training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from facestyle.bench import machine
from facestyle.errors import ConfigError
from facestyle.evaluation.features import Pictures
from facestyle.evaluation.judges import IdentityJudge, judging_device, load_judge
from facestyle.evaluation.metrics import MEASURES, StyleJudge, save_metrics, style_metrics
from facestyle.evaluation.people import (
    SAMPLE_PSI,
    encode_people,
    pil_pictures,
    sample_people,
    spread,
)
from facestyle.evaluation.perceptual import PerceptualDistance, load_perceptual
from facestyle.evaluation.sheets import before_after, contact_sheet, save_sheet
from facestyle.evaluation.tables import measured_on, metrics_table
from facestyle.files import write_whole
from facestyle.image import to_pil, to_tensor
from facestyle.inversion import refiner
from facestyle.latents import broadcast
from facestyle.models.bases import encoder_for
from facestyle.models.encode import encode
from facestyle.models.encoder import Encoder
from facestyle.models.generator import Generator
from facestyle.models.zoo import load_base_generator, sha256_of
from facestyle.picture_files import read_images
from facestyle.runtime import choose_device

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["encoder_report", "measures_with", "style_report"]

SIDE_PX = 512
"""Side that styles are measured at."""


def encoder_report(
    faces: str | Path,
    folder: str | Path,
    *,
    encoder: str | Path | None = None,
    generator: Generator | None = None,
    limit: int | None = None,
    optimise: int = 24,
    refine_steps: int = 50,
    ceiling_steps: int = 200,
    judge_name: str = "auto",
    perceptual_name: str = "auto",
    device: str | None = None,
) -> dict[str, Any]:
    """How close G(E(x)) comes to x: the encoder beside the mean face, ``refine`` and direct optimisation.

    Args:
        faces: folder or zip of aligned photos, used for nothing else.
        folder: where report and sheets go.
        encoder: its file; the one that goes with G when None, see ``models.bases.find_encoder``.
        generator: G; the bundled one when None.
        limit: use so many photos.
        optimise: photos for the rows that optimise, spread evenly over the set; they take minutes.
        refine_steps: of the ``refine`` row.
        ceiling_steps: of the optimised row, which starts from the mean face.
        judge_name: identity network, see ``load_judge``.
        perceptual_name: perceptual network, see ``load_perceptual``.
        device: where the networks run; the best there is when None.

    Raises:
        ConfigError: ``optimise`` is below 1, or a network is unknown.

    Returns:
        The report: "rows" (method -> identity similarity, perceptual distance, photos) and "gap_closed", the share of
        the way from the encoder to the ceiling that ``refine`` goes, for either measure.
    """
    if optimise < 1:
        raise ConfigError(f"optimise must be 1 photo or more, got {optimise}")
    folder, place = Path(folder), choose_device(device)
    generator = (generator or load_base_generator()).to(place)
    net = encoder_for(generator, "w", encoder).to(place)
    judging = judging_device(place)
    judge, perceptual = load_judge(judge_name, judging), load_perceptual(perceptual_name, judging)
    photos = [to_tensor(image, device=place) for _, image in read_images(faces, limit=limit)]
    subset = spread(len(photos), optimise)
    everybody = list(range(len(photos)))
    with torch.inference_mode():
        w = torch.cat(
            [encode(net, photo, generator) for photo in tqdm(photos, desc="encode")]
        ).clone()
        uncorrected = {}
        if isinstance(net, Encoder) and net.corrections:
            first = torch.cat([net(photo) for photo in photos]).clone()
            uncorrected["encoder, uncorrected"] = first, everybody
    mean = generator.w_avg.expand(len(photos), -1)
    inverter = refiner(generator)
    chosen = torch.cat([F.interpolate(photos[i], size=256, mode="area") for i in subset])

    def optimised(start: Tensor, steps: int, label: str) -> Tensor:
        bar = tqdm(total=steps * -(-len(subset) // 4), desc=label)
        parts = [
            inverter(chosen[i : i + 4], start[i : i + 4], steps, on_step=lambda _: bar.update())
            for i in range(0, len(subset), 4)
        ]
        bar.close()
        return torch.cat(parts)

    codes = {
        "mean face": (mean, everybody),
        **uncorrected,
        "encoder": (w, everybody),
        "encoder (subset)": (w[subset], subset),
        f"encoder + refine={refine_steps}": (
            optimised(w[subset], refine_steps, f"refine {refine_steps}"), subset,
        ),
        f"optimised, {ceiling_steps} steps from the mean": (
            optimised(mean[subset], ceiling_steps, f"optimise {ceiling_steps}"), subset,
        ),
    }  # fmt: skip
    rows: dict[str, dict[str, float]] = {}
    drawn: dict[str, list[Image.Image]] = {}
    for name, (latents, indices) in codes.items():
        targets = [photos[i] for i in indices]
        rows[name], drawn[name] = _compare(generator, latents, targets, judge, perceptual, name)
    start, end = rows["encoder (subset)"], rows[f"optimised, {ceiling_steps} steps from the mean"]
    middle = rows[f"encoder + refine={refine_steps}"]
    gap = {
        key: (middle[key] - start[key]) / (end[key] - start[key])
        for key in ("identity", "perceptual")
    }
    report = {
        "what": "encoder",
        "photos": Path(faces).name,
        "judge": judge.name,
        "perceptual": perceptual.name,
        "base_sha256": sha256_of(generator),
        "rows": rows,
        "gap_closed": gap,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    shown = subset[:12]
    titles = ["photo", "encoder", f"refine={refine_steps}", f"optimised {ceiling_steps}"]
    names = [name for name, (_, indices) in codes.items() if indices is subset]
    sheet = [
        [to_pil(photos[index][0]), *(drawn[name][k] for name in names)]
        for k, index in enumerate(shown)
    ]
    save_sheet(contact_sheet(sheet, cell_px=200, titles=titles), folder / "sheet.jpg")
    lines = [
        f"# Encoder on {report['photos']}",
        "",
        f"Identity: cosine similarity by {_scale(judge)}; higher is closer. Perceptual: {perceptual.name} "
        f"(lower is closer). {measured_on([report])}",
        "",
        "| method | photos | identity | perceptual |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['photos']:.0f} | {row['identity']:.3f} | {row['perceptual']:.3f} |"
            for name, row in rows.items()
        ),
        "",
        f"refine={refine_steps} goes {gap['identity']:.0%} of the way from the encoder to the optimised code in "
        f"identity and {gap['perceptual']:.0%} in perceptual distance.",
        "",
    ]
    _write(folder / "report.md", "\n".join(lines))
    _write(folder / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _compare(
    generator: Generator,
    latents: Tensor,
    photos: Sequence[Tensor],
    judge: IdentityJudge,
    perceptual: PerceptualDistance,
    label: str,
) -> tuple[dict[str, float], list[Image.Image]]:
    """Mean scores of G's pictures beside the photos, and the first pictures."""
    identity: list[float] = []
    distance: list[float] = []
    pictures: list[Image.Image] = []
    with torch.inference_mode():
        for w, photo in tqdm(list(zip(latents.split(1), photos, strict=True)), desc=label):
            img = generator.synthesis(broadcast(w, generator.num_ws))
            img = F.interpolate(img, size=photo.shape[-2:], mode="area").clamp(-1, 1)
            identity.append(float(judge.similarity(img, photo)))
            distance.append(float(perceptual(img, photo)))
            if len(pictures) < 12:
                pictures.append(to_pil(img[0]))
    scores = {
        "photos": float(len(photos)),
        "identity": fmean(identity),
        "perceptual": fmean(distance),
    }
    return scores, pictures


def style_report(
    stylizer: FaceStylizer,
    pictures: Pictures,
    folder: str | Path,
    *,
    count: int = 100,
    shown: int = 40,
    photos: Pictures | None = None,
    limit: int | None = None,
    judge_name: str = "auto",
    perceptual_name: str = "auto",
    cache: str | Path | None = None,
    allow_download: bool = False,
) -> dict[str, Any]:
    """How much of the style there is in a style's portraits, and how much of the person is left.

    The people are samples of G, truncated by `SAMPLE_PSI`, each drawn by its own code, so nothing of the encoder's
    error is in the numbers; with ``photos`` also these, by the encoder's codes and the style's own ``psi``.
    Leaves ``metrics.json``, ``report.md`` and ``sheet.jpg``.

    Args:
        stylizer: of the style.
        pictures: the style's own pictures: a folder or zip, or several.
        folder: where report and sheet go.
        count: samples that are measured.
        shown: people on the sheet.
        photos: aligned test photos to measure as well.
        limit: use so many photos.
        judge_name: identity network, see ``load_judge``.
        perceptual_name: "auto" measures LPIPS, where it can be had, and the offline distance; a name only that one.
        cache: file that keeps the style pictures' features, see ``set_features``.
        allow_download: fetch CLIP, for CMMD, if it is not there.

    Returns:
        The metrics, see ``style_metrics``, with "psi", "sample_psi" and "pictures".
    """
    folder = Path(folder)
    judge = StyleJudge.load(
        pictures,
        measures=measures_with(perceptual_name),
        judge_name=judge_name,
        cache=cache,
        device=judging_device(stylizer.device),
        allow_download=allow_download,
    )
    base, config = stylizer.base, stylizer.config
    side_px = min(SIDE_PX, base.resolution)
    people = {"samples": sample_people(base, count, psi=SAMPLE_PSI, side_px=side_px)}
    if photos is not None:
        people["photos"] = encode_people(
            base, stylizer.encoder, photos, psi=config.psi, side_px=side_px, limit=limit
        )
    drawn = {name: group.drawn_by(stylizer.generator) for name, group in people.items()}
    metrics = {
        **style_metrics(
            judge,
            stylizer.generator,
            people,
            style=config.name,
            with_plain=True,
            portraits=drawn,
        ),
        "psi": config.psi,
        "sample_psi": SAMPLE_PSI,
        "pictures": [Path(p).name for p in _paths(pictures)],
    }
    before = list(pil_pictures(people["samples"].sources[:shown]))
    after = list(pil_pictures(drawn["samples"][:shown]))
    save_sheet(before_after(before, after, per_row=5, cell_px=160), folder / "sheet.jpg")
    save_metrics(metrics, folder / "metrics.json")
    lines = [
        f"# {config.title}",
        "",
        f"Portraits by the same codes as G's pictures, at {side_px} px.",
        "",
        metrics_table(metrics),
    ]
    _write(folder / "report.md", "\n".join(lines))
    return metrics


def measures_with(perceptual_name: str) -> list[str]:
    """All measures, or with one perceptual network only.

    Raises:
        ConfigError: there is no such network.
    """
    left_out = {"auto": "", "lpips-alex": "perceptual", "hed-vgg16": "lpips"}
    if perceptual_name not in left_out:
        raise ConfigError(
            f"unknown perceptual distance {perceptual_name!r}; known: {', '.join(left_out)}"
        )
    return [name for name in MEASURES if name != left_out[perceptual_name]]


def _paths(pictures: Pictures) -> list[str | Path]:
    if isinstance(pictures, str | Path):
        return [pictures]
    return [item for item in pictures if isinstance(item, str | Path)]


def _scale(judge: IdentityJudge) -> str:
    """The judge's name and how to read its numbers."""
    if judge.same is None or judge.different is None:
        return judge.name
    return (
        f"{judge.name}, which gives {judge.same:.2f} to one person and {judge.different:.2f} to two"
    )


def _write(path: Path, text: str) -> None:
    write_whole(text.encode(), path)
