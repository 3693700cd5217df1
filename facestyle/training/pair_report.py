"""What made pairs look like and how good they are: every P as a picture, a sheet, and a report.

Likeness of P to S, and realism of P, without a download: the networks are those of training. They compare levels and
settings with each other and are no result to report; ``facestyle evaluate`` measures with others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from facestyle.evaluation.kid import kid
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.files import write_whole
from facestyle.image import save_png, to_pil
from facestyle.latents import broadcast, truncate
from facestyle.models.features import LiteFeatures, fold_batch_norm
from facestyle.models.generator import Generator, sample_z
from facestyle.training.data import PictureSet
from facestyle.training.prepare import plain_stem
from facestyle.training.state import write_json

if TYPE_CHECKING:
    from facestyle.training.pairs import PairStore

__all__ = [
    "REPORT",
    "draw_pairs",
    "measure_pairs",
    "pair_sheet",
    "pair_table",
    "read_report",
    "write_report",
]

REPORT = "report.json"

_FORMAT = "facestyle-pairs-report"
_SAMPLES = 64
_FIRST_SEED = 91_000
"""Of G's samples; training draws from seeds it makes of its own."""

_BY = {
    "perceptual": "EfficientNet-Lite0 of ImageNet, strides 2 to 16: the training loss, not LPIPS",
    "identity": "MobileFaceNet",
    "kid": "EfficientNet-Lite0 of ImageNet, means over positions of strides 4 to 32: not Inception",
}


def draw_pairs(
    generator: Generator, store: PairStore, pictures: PictureSet, folder: Path, device: torch.device
) -> None:
    """Every P as a PNG in ``p1`` and so on, and ``sheet.png`` with at most 24 of them."""
    faces: dict[int, list[Image.Image]] = {level: [] for level in store.w_plus}
    for level, codes in store.w_plus.items():
        for part in codes.split(8):
            faces[level] += [to_pil(one) for one in _drawn(generator, part.to(device)).cpu()]
        for i, face in enumerate(faces[level]):
            save_png(face, folder / f"p{level}" / f"{i:04d}_{plain_stem(store.names[i])}.png")
    shown = [round(i * len(store) / min(24, len(store))) for i in range(min(24, len(store)))]
    styles = [to_pil(pictures[store.indices[i]].float() / 127.5 - 1) for i in shown]
    sheet = pair_sheet(
        styles,
        {level: [row[i] for i in shown] for level, row in faces.items()},
        likeness={k: [value[i].item() for i in shown] for k, value in store.likeness.items()},
    )
    save_sheet(sheet, folder / "sheet.png")


def pair_sheet(
    pictures: Sequence[Image.Image],
    faces: Mapping[int, Sequence[Image.Image]],
    *,
    likeness: Mapping[int, Sequence[float]] | None = None,
    per_row: int = 2,
    cell_px: int = 160,
) -> Image.Image:
    """Sheet of S beside P of every level, ``per_row`` groups to a row, from which a person chooses a level.

    Args:
        pictures: S.
        faces: level -> P.
        likeness: level -> perceptual distance of P to S, which is written on P in small print.
        per_row: groups in a row.
        cell_px: side of a picture.
    """
    levels = sorted(faces)
    cells: list[list[Image.Image]] = []
    for i, picture in enumerate(pictures):
        shown = [faces[level][i] for level in levels]
        for k, level in enumerate(levels):
            if likeness and level in likeness:
                shown[k] = _noted(shown[k], f"to S {likeness[level][i]:.2f}", cell_px)
        cells.append([picture, *shown])
    groups = [cells[i : i + per_row] for i in range(0, len(cells), per_row)]
    rows = [[cell for group in row for cell in group] for row in groups]
    titles = ["S", *(f"P{level}" for level in levels)] * min(per_row, len(cells))
    return contact_sheet(rows, cell_px=cell_px, titles=titles)


def _noted(face: Image.Image, text: str, side_px: int) -> Image.Image:
    """The face at the sheet's size with a line in its lower left corner."""
    face = face.resize((side_px, side_px), Image.Resampling.LANCZOS)
    font = ImageFont.load_default(size=max(9, side_px // 14))
    draw = ImageDraw.Draw(face)
    at = (3, side_px - 3)
    draw.rectangle(draw.textbbox(at, text, font, anchor="ls"), fill=(255, 255, 255))
    draw.text(at, text, (30, 30, 30), font, anchor="ls")
    return face


def measure_pairs(
    generator: Generator,
    store: PairStore,
    pictures: PictureSet,
    *,
    psi: float,
    device: torch.device,
    samples: int = _SAMPLES,
) -> dict[str, Any]:
    """How like S and how natural P is, by level and by pair, with what G's own samples score; JSON-able.

    A level has the means of ``star_perceptual`` (G*'s picture of the kept code to S), ``perceptual`` (P to S) and
    ``identity_distance`` (1 - cosine of P and S), each only where the store has it, and two measures of realism:

    - ``code_distance``: mean squared distance of the codes' rows from w_avg, in that of G's samples. 1 is as far out as
      G's own samples lie, psi^2 is where truncation puts these.
    - ``kid``: KID of the P to samples of G, in the units of its network. About 0 is as natural as these samples; None
      for a single pair.

    Args:
        generator: G, on ``device``.
        store: the pairs.
        pictures: the style's.
        psi: by which the codes of levels 1 and 2 are truncated, and the samples that give the scale.
        device: where to compute.
        samples: of G, for each side of the scale.
    """
    features = LiteFeatures()
    fold_batch_norm(features.eval()).requires_grad_(False).to(device)

    def described(img: Tensor) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = _described(features, img.to(device)).cpu().numpy()
        return found

    def of_codes(w_plus: Tensor) -> npt.NDArray[np.float32]:
        parts = [described(_drawn(generator, part.to(device))) for part in w_plus.split(8)]
        return np.concatenate(parts)

    def mapped(count: int, seed: int) -> Tensor:
        with torch.no_grad():
            found: Tensor = generator.mapping(sample_z(count, seed, generator.w_dim).to(device))
        return found

    w, others = mapped(2 * samples, _FIRST_SEED).split(samples)
    spread = float((mapped(4096, _FIRST_SEED + 1) - generator.w_avg).square().mean())

    def distance(codes: Tensor) -> float:
        return float((codes.to(device) - generator.w_avg).square().mean()) / spread

    real = of_codes(broadcast(w, generator.num_ws))
    truncated = truncate(others, generator.w_avg, psi)
    levels: dict[str, dict[str, float | None]] = {}
    for level, codes in sorted(store.w_plus.items()):
        levels[str(level)] = {
            **{name: float(np.mean(each)) for name, each in _each(store, level).items()},
            "code_distance": distance(codes),
            "kid": _kid(of_codes(codes), real),
        }
    chunks = torch.tensor(store.indices).split(8)
    style = np.concatenate([described(pictures.batch(chunk.tolist())) for chunk in chunks])
    return {
        "format": _FORMAT,
        "version": 1,
        "pairs": len(store),
        "psi": psi,
        "samples": samples,
        "levels": levels,
        "scale": {
            "pictures": {"kid": _kid(style, real)},
            "samples": {
                "code_distance": distance(truncated),
                "kid": _kid(of_codes(broadcast(truncated, generator.num_ws)), real),
            },
        },
        "by": _BY,
        "each": [
            {
                "name": name,
                "levels": {
                    str(level): {key: each[i] for key, each in _each(store, level).items()}
                    for level in sorted(store.w_plus)
                },
            }
            for i, name in enumerate(store.names)
        ],
    }


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Leave ``report.md`` and then ``report.json`` in the folder.

    Raises:
        OutputError: it cannot be written.
    """
    lines = ["# Pseudo-pairs", "", pair_table(report), ""]
    for level in report["levels"]:
        each = [(row["levels"][level].get("perceptual"), row["name"]) for row in report["each"]]
        worst = sorted(((d, name) for d, name in each if d is not None), reverse=True)[:5]
        if worst:
            named = ", ".join(f"{name} ({d:.2f})" for d, name in worst)
            lines.append(f"- Least alike at level {level}, by P to S: {named}.")
    lines += ["", f"Every pair's numbers are in [{REPORT}]({REPORT})."]
    write_whole(("\n".join(lines) + "\n").encode(), folder / "report.md")
    write_json(folder / REPORT, report)


def read_report(folder: str | Path) -> dict[str, Any] | None:
    """The report in a folder of pairs; None where there is none."""
    try:
        report = json.loads((Path(folder) / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and report.get("format") == _FORMAT else None


def pair_table(report: Mapping[str, Any]) -> str:
    """The report's table, in Markdown that reads well in a terminal too, and what its columns are."""
    columns = {
        "star_perceptual": ("G* to S", ".2f"),
        "perceptual": ("P to S", ".2f"),
        "identity_distance": ("identity", ".3f"),
        "code_distance": ("code", ".2f"),
        "kid": ("  KID", ".2f"),
    }
    named = {f"P{level}": scores for level, scores in report["levels"].items()}
    named["S"] = report["scale"]["pictures"]
    named[f"samples of G, psi {report['psi']:g}"] = report["scale"]["samples"]
    wide = max(map(len, named))
    lines = [
        f"| {'':{wide}} | " + " | ".join(title for title, _ in columns.values()) + " |",
        "|" + "-" * (wide + 2) + "|" + "|".join("-" * len(t) + "-:" for t, _ in columns.values()) + "|",
    ]  # fmt: skip
    for name, scores in named.items():
        cells = []
        for key, (title, form) in columns.items():
            value = scores.get(key)
            cells.append(f"{'-' if value is None else format(value, form):>{len(title)}}")
        lines.append(f"| {name:{wide}} | " + " | ".join(cells) + " |")
    by = report["by"]
    lines += [
        "",
        f"Means over {report['pairs']} pairs; P = G(code), and lower is better.",
        f"- To S, how like S: perceptual distance of G*'s picture of the code, and of P, by {by['perceptual']}.",
        f"- Identity: 1 - cosine of P and S, by {by['identity']}.",
        "- Code, how natural P is: mean squared distance of the codes from the mean of W, 1 for G's samples.",
        f"- KID, likewise: of P to {report['samples']} samples of G that are not truncated, by {by['kid']}.",
        "",
        "The last two rows give the scale. The networks took part in training: this compares levels and settings.",
    ]
    return "\n".join(lines)


def _each(store: PairStore, level: int) -> dict[str, list[float]]:
    """What the store holds of every pair at a level."""
    found: dict[str, list[float]] = {}
    if level in store.star_likeness:
        found["star_perceptual"] = store.star_likeness[level].tolist()
    if level in store.likeness:
        found["perceptual"] = store.likeness[level].tolist()
    if level in store.identity:
        found["identity_distance"] = (1 - store.identity[level]).tolist()
    return found


def _drawn(generator: Generator, w_plus: Tensor) -> Tensor:
    with torch.no_grad():
        img = generator.synthesis(w_plus, resolution=generator.preview_resolution)
    assert isinstance(img, Tensor)
    return img


def _described(features: LiteFeatures, img: Tensor) -> Tensor:
    """[B, 496] of [B, 3, S, S]: means over positions of every map but the finest, each of root mean square 1."""
    with torch.no_grad():
        maps = features(img.clamp(-1, 1))[1:]
    parts = [F.normalize(m.mean((2, 3)), dim=1) for m in maps]
    scale: float = (sum(part.shape[1] for part in parts) / len(parts)) ** 0.5
    return torch.cat(parts, dim=1) * scale


def _kid(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float | None:
    if min(len(a), len(b)) < 2:
        return None
    return kid(a, b, block_size=2, blocks=1).mean
