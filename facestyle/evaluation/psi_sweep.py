"""A style at several truncations: how much style, and how much of the person, each psi leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from facestyle.errors import ConfigError
from facestyle.evaluation.features import Pictures
from facestyle.evaluation.metrics import StyleJudge, portrait_metrics, save_metrics
from facestyle.evaluation.people import draw, encode_people, pil_pictures
from facestyle.evaluation.report import measures_with
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.evaluation.tables import comparison_table
from facestyle.files import write_whole
from facestyle.latents import truncate

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["psi_report"]

PSIS = (0.7, 0.8, 0.9, 1.0, 1.15)
SIDE_PX = 512


def psi_report(
    stylizer: FaceStylizer,
    pictures: Pictures,
    photos: Pictures,
    folder: str | Path,
    *,
    psis: Sequence[float] = PSIS,
    limit: int | None = None,
    shown: int = 14,
    judge_name: str = "auto",
    perceptual_name: str = "auto",
    cache: str | Path | None = None,
) -> str:
    """The table of a style's portraits of the same photos at every psi, and a sheet of them.

    Leaves ``report.md``, ``sheet.jpg`` (a row each: the photos, then every psi) and a JSON for each psi.

    Args:
        stylizer: of the style.
        pictures: the style's own pictures: a folder or zip, or several.
        photos: aligned test photos, likewise.
        folder: where the files go.
        psis: truncations, 0 to 1.5.
        limit: use so many photos.
        shown: photos on the sheet, spread evenly.
        judge_name: identity network, see ``load_judge``.
        perceptual_name: "auto", or a perceptual network, which is then the only one.
        cache: file that keeps the style pictures' features, see ``set_features``.

    Raises:
        ConfigError: no psi, one twice or out of range, or an unknown network.
        ImageError: a photo is no square of 128 px or more.
    """
    if not psis or len(set(psis)) < len(psis) or min(psis) < 0 or max(psis) > 1.5:
        raise ConfigError(f"expected different psi from 0 to 1.5, got {list(psis)}")
    folder = Path(folder)
    judge = StyleJudge.load(
        pictures, measures=measures_with(perceptual_name), judge_name=judge_name,
        cache=cache, device=stylizer.device,
    )  # fmt: skip
    base, config = stylizer.base, stylizer.config
    side_px = min(SIDE_PX, base.resolution)
    people = encode_people(base, stylizer.encoder, photos, psi=1.0, side_px=side_px, limit=limit)
    assert people.photos is not None
    n = len(people.w)
    columns = range(0, n, -(-n // shown))
    faces = list(pil_pictures(people.photos))
    sheet = [[faces[i] for i in columns]]
    rows = []
    for psi in tqdm(psis, desc="psi"):
        with torch.no_grad():
            codes = truncate(people.w, base.w_avg, psi)
            portraits = draw(stylizer.generator, codes, side_px=side_px)
        drawn = list(pil_pictures(portraits))
        sheet.append([drawn[i] for i in columns])
        row = portrait_metrics(
            judge,
            portraits,
            people.photos,
            style=config.name,
            variant=f"psi {psi:g}",
            who=f"{n} encoded photos",
        )
        rows.append(row)
        save_metrics(row, folder / f"psi_{psi:g}.json")
    save_sheet(contact_sheet(sheet, cell_px=200), folder / "sheet.jpg")
    lines = [
        f"# {config.title} by psi",
        "",
        f"The style's own is {config.psi:g}. Portraits at {side_px} px.",
        "",
        comparison_table(rows, columns=("KID", "Perc.", "Person"), people="photos"),
        "| change of L* of the skin | "
        + " | ".join(f"{name} ({row['n']})" for name, row in rows[0]["photos"]["by_skin"].items())
        + " |",
        "|---" * (1 + len(rows[0]["photos"]["by_skin"])) + "|",
        *(
            f"| {row['variant']} | "
            + " | ".join(f"{group['delta_l']:+.1f}" for group in row["photos"]["by_skin"].values())
            + " |"
            for row in rows
        ),
        "",
    ]
    text = "\n".join(lines)
    write_whole(text.encode(), folder / "report.md")
    return text
