"""A style at several values of one setting: how much style, and how much of the person, each of them leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from facestyle.errors import ConfigError
from facestyle.evaluation.features import Pictures
from facestyle.evaluation.judges import APPEARANCE_NET, judging_device
from facestyle.evaluation.metrics import StyleJudge, portrait_metrics, save_metrics
from facestyle.evaluation.people import People, draw, encode_people, pil_pictures
from facestyle.evaluation.report import measures_with
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.evaluation.tables import comparison_table
from facestyle.files import write_whole
from facestyle.inversion import refiner
from facestyle.latents import truncate
from facestyle.models.generator import Generator, weights_between
from facestyle.models.zoo import load_style_generator
from facestyle.options import MOST_STRENGTH
from facestyle.styles import ADJUSTMENTS, StyleConfig

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["SETTINGS", "Setting", "sweep_report"]

Setting = Literal["psi", "strength", "refine", "keep_texture", "keep_shape", "likeness", "hair"]

SETTINGS: dict[Setting, tuple[float, ...]] = {
    "psi": (0.7, 0.8, 0.9, 1.0, 1.15),
    "strength": (0.6, 0.8, 1.0, 1.2, 1.4, 1.6),
    "refine": (0, 4, 8, 16, 50),
    "keep_texture": (0.0, 0.25, 0.5, 0.75, 1.0),
    "keep_shape": (0.0, 0.25, 0.5, 0.75, 1.0),
    "likeness": (0.0, 0.5, 1.0, 1.5),
    "hair": (0.0, 0.5, 0.75, 1.0),
}
"""Settings that can be swept, and their usual values."""

SIDE_PX = 512
_LARGEST = {
    "psi": 1.5,
    "strength": MOST_STRENGTH,
    "refine": 1000,
    "keep_texture": 1.0,
    "keep_shape": 1.0,
    "likeness": 2.0,
    "hair": 2.0,
}
_LEARNED = {"likeness": "map of codes", "hair": "change of kernels"}
"""What of a style lies in a file of its own, is worked in with a share, and is learned by the command of that name."""
_FACES_AT_ONCE = 4


def sweep_report(
    stylizer: FaceStylizer,
    setting: Setting,
    pictures: Pictures,
    photos: Pictures,
    folder: str | Path,
    *,
    values: Sequence[float] = (),
    refine: int = 0,
    limit: int | None = None,
    shown: int = 14,
    judge_name: str = "auto",
    perceptual_name: str = "auto",
    cache: str | Path | None = None,
) -> str:
    """The table of a style's portraits of the same photos at every value of a setting, and a sheet of them.

    Leaves ``report.md``, ``sheet.jpg`` (a row each: the photos, then every value) and a JSON for each value.

    Args:
        stylizer: of the style.
        setting: "psi" truncates the codes; "strength" is the share of the way from G's weights to G''s, or beyond;
            "refine" optimises the codes by so many steps; "keep_texture" draws the finest layers as G does,
            "keep_shape" the coarsest, in place of what the style's ``config.json`` has; "likeness" is the share of the
            style's map of codes, see ``training.likeness``, and "hair" of its change of kernels, see ``training.hair``.
        pictures: the style's own pictures: a folder or zip, or several.
        photos: aligned test photos, likewise.
        folder: where the files go.
        values: of the setting; its `SETTINGS` when empty.
        refine: steps of optimisation on all codes, where the setting is another.
        limit: use so many photos.
        shown: photos on the sheet, spread evenly.
        judge_name: identity network, see ``load_judge``.
        perceptual_name: "auto", or a perceptual network, which is then the only one.
        cache: file that keeps the style pictures' features, see ``set_features``.

    Raises:
        ConfigError: the setting is unknown; a value twice or out of range; the style has no map of codes or
            change of kernels whose share could be swept; or an unknown network.
        ImageError: a photo is no square of 128 px or more.
    """
    if setting not in get_args(Setting):
        raise ConfigError(f"expected {', '.join(SETTINGS)}, got {setting!r}")
    values = values or SETTINGS[setting]
    if len(set(values)) < len(values) or min(values) < 0 or max(values) > _LARGEST[setting]:
        raise ConfigError(
            f"expected different values of {setting} from 0 to {_LARGEST[setting]:g}, got {list(values)}"
        )
    if setting == "refine" and any(value != int(value) for value in values):
        raise ConfigError(f"refine is a number of steps, got {list(values)}")
    if setting in _LEARNED and not _carded(stylizer, setting):
        raise ConfigError(
            f"the style {stylizer.config.name} has no {_LEARNED[setting]}; facestyle {setting} learns one"
        )
    folder = Path(folder)
    judge = StyleJudge.load(
        pictures, measures=measures_with(perceptual_name), judge_name=judge_name,
        cache=cache, device=judging_device(stylizer.device),
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
    portraits_at = _portraits(stylizer, setting, people, refine, side_px)
    for value in values:
        portraits = portraits_at(value)
        drawn = list(pil_pictures(portraits))
        sheet.append([drawn[i] for i in columns])
        row = portrait_metrics(
            judge,
            portraits,
            people.photos,
            style=config.name,
            variant=f"{setting} {value:g}",
            who=f"{n} encoded photos",
        )
        rows.append(row)
        save_metrics(row, folder / f"{setting}_{value:g}.json")
    save_sheet(contact_sheet(sheet, cell_px=200), folder / "sheet.jpg")
    if setting in ADJUSTMENTS:
        usual = _carded(stylizer, setting)
    else:
        usual = {"psi": config.psi, "strength": 1.0}.get(setting, 0.0)
    others = f" All codes went through {refine} steps of refine." if refine else ""
    lines = [
        f"# {config.title} by {setting}",
        "",
        f"The style's own is {usual:g}. Portraits at {side_px} px.{others}",
        "",
        comparison_table(rows, columns=("KID", "Perc.", "Person", "Hair"), people="photos"),
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
        *_looks_table(rows),
    ]
    text = "\n".join(lines)
    write_whole(text.encode(), folder / "report.md")
    return text


def _looks_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines: of how many women and men the portraits still look so, and how many years the groups gain."""
    looks = [(row["variant"], row["photos"].get("by_appearance", {})) for row in rows]
    names = [
        name for name, group in looks[0][1].items() if name != "all" and isinstance(group, dict)
    ]
    if not names:
        return []
    heads = " | ".join(f"{name} ({looks[0][1][name]['n']})" for name in names)

    def cell(group: dict[str, float]) -> str:
        kept = f"{group['kept']:.0%}, " if "kept" in group else ""
        return f"{kept}{group['delta_years']:+.1f}"

    return [
        f"| still seen so, change of years, by {APPEARANCE_NET} | {heads} |",
        "|---" * (1 + len(names)) + "|",
        *(
            f"| {variant} | " + " | ".join(cell(groups[name]) for name in names) + " |"
            for variant, groups in looks
        ),
        "",
    ]


def _carded(stylizer: FaceStylizer, setting: str) -> float:
    """A share with which a style is loaded; 0 where it is no style's folder."""
    path = None if stylizer.folder is None else stylizer.folder / "config.json"
    if path is None or not path.is_file():
        return 0.0
    return float(getattr(StyleConfig.from_file(path), setting))


def _portraits(
    stylizer: FaceStylizer, setting: Setting, people: People, refine: int, side_px: int
) -> Callable[[float], Tensor]:
    """From a value of the setting to everybody's portraits, uint8 [N, 3, side_px, side_px]."""
    base, config = stylizer.base, stylizer.config
    codes = people.w if setting == "refine" else _refined(base, people, refine)

    def drawn(codes: Tensor, psi: float, generator: Generator = stylizer.generator) -> Tensor:
        return draw(generator, truncate(codes, base.w_avg, psi), side_px=side_px)

    def with_shares(share: float, fine_share: float | None = None, keep_shape: float = 0) -> Tensor:
        generator = copy.deepcopy(stylizer.generator)
        weights = weights_between(
            base.synthesis, generator.synthesis, share, fine_share, keep_shape
        )
        generator.synthesis.load_state_dict(weights)
        return drawn(codes, config.psi, generator)

    def with_card(share: float) -> Tensor:
        folder = stylizer.folder
        assert folder is not None
        changed: dict[str, Any] = {setting: share}
        card = replace(StyleConfig.from_file(folder / "config.json"), **changed)
        generator = load_style_generator(folder, base, card).to(base.w_avg.device)
        return drawn(codes, config.psi, generator)

    ways: dict[Setting, Callable[[float], Tensor]] = {
        "psi": lambda value: drawn(codes, value),
        "strength": with_shares,
        "keep_texture": lambda value: with_shares(1, 1 - value),
        "keep_shape": lambda value: (
            with_card(value) if stylizer.folder else with_shares(1, keep_shape=value)
        ),
        "likeness": with_card,
        "hair": with_card,
        "refine": lambda value: drawn(_refined(base, people, int(value)), config.psi),
    }
    return ways[setting]


def _refined(base: Generator, people: People, steps: int) -> Tensor:
    """Everybody's codes after so many steps of optimisation."""
    if not steps:
        return people.w
    assert people.photos is not None
    inverter = refiner(base)
    parts = list(
        zip(people.photos.split(_FACES_AT_ONCE), people.w.split(_FACES_AT_ONCE), strict=True)
    )
    return torch.cat(
        [
            inverter(photos.to(codes).div(127.5).sub(1), codes, steps)
            for photos, codes in tqdm(parts, desc=f"refine {steps}")
        ]
    )
