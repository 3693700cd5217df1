"""Reports a person reads: how good the encoder is, how good a style is, and pictures of both.

Each leaves ``report.md`` and ``report.json`` beside its sheets, with date, machine and the names of the networks that
judged. None of these networks took part in training.
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
from facestyle.errors import OutputError
from facestyle.evaluation.images import read_images
from facestyle.evaluation.inception import load_inception
from facestyle.evaluation.judges import IdentityJudge, load_judge
from facestyle.evaluation.kid import fid, kid
from facestyle.evaluation.perceptual import PerceptualDistance, load_perceptual
from facestyle.evaluation.sheets import before_after, contact_sheet, save_sheet
from facestyle.evaluation.skin import drift_by_group, skin_drift
from facestyle.image import to_pil, to_tensor
from facestyle.inversion import Inverter
from facestyle.latents import broadcast, truncate
from facestyle.models.generator import Generator, sample_z
from facestyle.models.zoo import load_base_generator, load_encoder

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["encoder_report", "gallery", "sample_faces", "style_report"]

SAMPLE_SEED = 200
"""First seed of the sample people in sheets; no training draws them one by one."""

HERO_SEEDS = (203, 213, 223, 207)
"""The four people at the head of the README."""


def sample_faces(
    count: int, *, psi: float = 0.8, first_seed: int = SAMPLE_SEED
) -> list[Image.Image]:
    """Pictures of people who do not exist: samples of G at 1024 px, one seed each."""
    generator = load_base_generator()
    faces = []
    with torch.inference_mode():
        for seed in range(first_seed, first_seed + count):
            w = truncate(generator.mapping(sample_z(1, seed)), generator.w_avg, psi)
            img = generator.synthesis(broadcast(w, generator.num_ws))
            faces.append(to_pil(img[0]))
    return faces


def gallery(stylizer: FaceStylizer, folder: str | Path, *, count: int = 24) -> None:
    """Before and after on sample people, and on the astronaut where scikit-image is installed.

    Leaves ``before_after.png``, ``hero.png``, ``strength.png``, and ``astronaut.png``.
    """
    folder = Path(folder)
    faces = sample_faces(count)
    results = stylizer(list(faces), aligned=True)
    after = [result.image for result in results]
    save_sheet(before_after(faces, after, per_row=6, cell_px=200), folder / "before_after.png")
    chosen = [seed - SAMPLE_SEED for seed in HERO_SEEDS if seed - SAMPLE_SEED < count]
    hero = before_after([faces[i] for i in chosen], [after[i] for i in chosen], cell_px=256)
    save_sheet(hero, folder / "hero.png")
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    rows = []
    for face in faces[:4]:
        drawn = [stylizer(face, aligned=True, strength=share).image for share in shares]
        kept = stylizer(face, aligned=True, keep_color=1.0).image
        rows.append([face, *drawn, kept])
    titles = ["photo", *(f"strength {share:g}" for share in shares), "keep_color 1"]
    save_sheet(contact_sheet(rows, cell_px=256, titles=titles), folder / "strength.png")
    lines = [
        f"# Gallery of {stylizer.config.name}",
        "",
        f"Samples of the base generator, seeds {SAMPLE_SEED} to {SAMPLE_SEED + count - 1}, psi 0.8.",
        "",
        "![](before_after.png)",
        "![](strength.png)",
    ]
    try:
        from skimage import data
    except ImportError:
        pass
    else:
        photo = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]
        rows = []
        for steps in (0, 50):
            result = stylizer(photo, refine=steps)
            found = result.faces[0]
            rows.append([photo, result.image, found.crop, found.portrait])
        titles = ["photo", "pasted back", "aligned face", "portrait"]
        labels = ["as encoded", "refine=50"]
        sheet = contact_sheet(rows, cell_px=400, titles=titles, row_labels=labels)
        save_sheet(sheet, folder / "astronaut.png")
        lines += ["![](astronaut.png)"]
    _write(folder, "report.md", "\n".join(lines) + "\n")


def encoder_report(
    faces: str | Path,
    folder: str | Path,
    *,
    encoder: str | Path | None = None,
    limit: int | None = None,
    optimise: int = 24,
    refine_steps: int = 50,
    ceiling_steps: int = 200,
    judge_name: str = "auto",
    perceptual_name: str = "auto",
) -> dict[str, Any]:
    """How close G(E(x)) comes to x: the encoder beside the mean face, ``refine`` and direct optimisation.

    Args:
        faces: folder or zip of aligned photos, used for nothing else.
        folder: where report and sheets go.
        encoder: its file; the bundled one when None.
        limit: use so many photos.
        optimise: photos for the rows that optimise, spread evenly over the set; they take minutes.
        refine_steps: of the ``refine`` row.
        ceiling_steps: of the optimised row, which starts from the mean face.
        judge_name: identity network, see ``load_judge``.
        perceptual_name: perceptual network, see ``load_perceptual``.

    Returns:
        The report: "rows" (method -> identity similarity, perceptual distance, photos) and "gap_closed", the share of
        the way from the encoder to the ceiling that ``refine`` goes, for either measure.
    """
    folder = Path(folder)
    generator, net = load_base_generator(), load_encoder(encoder)
    judge, perceptual = load_judge(judge_name), load_perceptual(perceptual_name)
    photos = [to_tensor(image) for _, image in read_images(faces, limit=limit)]
    step = max(1, len(photos) // max(1, optimise))
    subset = list(range(0, len(photos), step))[:optimise]
    with torch.inference_mode():
        w = torch.cat([net(photo) for photo in tqdm(photos, desc="encode")]).clone()
    mean = generator.w_avg.expand(len(photos), -1)
    inverter = Inverter(generator)
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
        "mean face": (mean, list(range(len(photos)))),
        "encoder": (w, list(range(len(photos)))),
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
        "rows": rows,
        "gap_closed": gap,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    shown = subset[:12]
    titles = ["photo", "encoder", f"refine={refine_steps}", f"optimised {ceiling_steps}"]
    names = [name for name in codes if name not in ("mean face", "encoder")]
    sheet = [
        [to_pil(photos[index][0]), *(drawn[name][k] for name in names)]
        for k, index in enumerate(shown)
    ]
    save_sheet(contact_sheet(sheet, cell_px=200, titles=titles), folder / "sheet.png")
    lines = [
        f"# Encoder on {report['photos']}",
        "",
        f"Identity: cosine similarity by {_scale(judge)}; higher is closer. Perceptual: {perceptual.name} "
        f"(lower is closer). {_where(report)}",
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
    _write(folder, "report.md", "\n".join(lines))
    _write(folder, "report.json", json.dumps(report, indent=2) + "\n")
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
    pictures: str | Path,
    folder: str | Path,
    *,
    count: int = 100,
    shown: int = 40,
    judge_name: str = "auto",
    perceptual_name: str = "auto",
) -> dict[str, Any]:
    """How much of the style there is in a style's portraits, and how much of the person is left.

    The people are samples of G, each drawn by its own code, so nothing of the encoder's error is in the numbers.

    Args:
        stylizer: of the style.
        pictures: folder or zip of the style's own pictures.
        folder: where report and sheets go.
        count: people that are measured.
        shown: people on the sheet.
        judge_name: identity network, see ``load_judge``.
        perceptual_name: perceptual network, see ``load_perceptual``.

    Returns:
        The report: KID and FID to the style set (and of the plain samples, for scale), identity similarity, perceptual
        distance, and drift of skin tone by group.
    """
    folder = Path(folder)
    base, psi = stylizer.base, stylizer.config.psi
    judge, perceptual = load_judge(judge_name), load_perceptual(perceptual_name)
    before, after, identity, distance = [], [], [], []
    with torch.inference_mode():
        for seed in tqdm(range(SAMPLE_SEED, SAMPLE_SEED + count), desc="portraits"):
            w = truncate(base.mapping(sample_z(1, seed)), base.w_avg, psi)
            w_plus = broadcast(w, base.num_ws)
            photo, portrait = (
                F.interpolate(net.synthesis(w_plus), size=512, mode="area").clamp(-1, 1)
                for net in (base, stylizer.generator)
            )
            identity.append(float(judge.similarity(portrait, photo)))
            distance.append(float(perceptual(portrait, photo)))
            before.append(to_pil(photo[0]))
            after.append(to_pil(portrait[0]))
    features = load_inception()
    style = features(image for _, image in read_images(pictures))
    sets = {"portraits": features(after), "plain samples of G": features(before)}
    scores = {}
    for name, values in sets.items():
        distance_k, distance_f = kid(values, style), fid(values, style)
        scores[name] = {
            "kid_x1000": 1000 * distance_k.mean,
            "fid": distance_f.value,
            "n": distance_k.n_a,
            "n_style": distance_k.n_b,
        }
    drift = drift_by_group([skin_drift(a, b) for a, b in zip(before, after, strict=True)])
    report = {
        "what": "style",
        "style": stylizer.config.name,
        "psi": psi,
        "pictures": Path(pictures).name,
        "inception": features.name,
        "judge": judge.name,
        "perceptual_by": perceptual.name,
        "distance_to_style": scores,
        "identity": fmean(identity),
        "perceptual": fmean(distance),
        "skin_drift": drift,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    sheet = before_after(before[:shown], after[:shown], per_row=5, cell_px=256)
    save_sheet(sheet, folder / "sheet.png")
    lines = [
        f"# {stylizer.config.title}",
        "",
        f"{count} samples of G (seeds {SAMPLE_SEED} and up, psi {psi:g}) and their portraits by the same codes, at "
        f"512 px. {_where(report)}",
        "",
        f"By {features.name}:",
        "",
        "| set | KID x 1000 | FID | portraits | style pictures |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['kid_x1000']:.1f} | {row['fid']:.1f} | {row['n']} | {row['n_style']} |"
            for name, row in scores.items()
        ),
        "",
        f"Identity similarity to the sample: {report['identity']:.3f} ({_scale(judge)}). Perceptual distance: "
        f"{report['perceptual']:.3f} ({perceptual.name}).",
        "",
        "| skin of the sample | people | change of L* | colour difference | change of ITA, degrees |",
        "|---|---|---|---|---|",
        *(
            f"| {group} | {row['n']:.0f} | {row['delta_l']:+.1f} | {row['delta_e']:.1f} | "
            f"{row['delta_ita_deg']:+.1f} |"
            for group, row in drift.items()
        ),
        "",
    ]
    _write(folder, "report.md", "\n".join(lines))
    _write(folder, "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _scale(judge: IdentityJudge) -> str:
    """The judge's name and how to read its numbers."""
    if judge.same is None or judge.different is None:
        return judge.name
    return (
        f"{judge.name}, which gives {judge.same:.2f} to one person and {judge.different:.2f} to two"
    )


def _where(report: dict[str, Any]) -> str:
    facts = report["machine"]
    return f"Measured on {facts['processor']}, {facts['cores']} cores, {report['date']}."


def _write(folder: Path, name: str, text: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{name}.part"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)
    except OSError as error:
        raise OutputError(f"cannot be written ({error})", path=folder / name) from error
