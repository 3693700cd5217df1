"""The tables of a comparison: quality, cost, and ours over each peer's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from facestyle.baselines.registry import DIFFUSION
from facestyle.evaluation.tables import chosen_entry, comparison_table, measured_on

__all__ = ["comparison_report", "cost_table", "ratio_table"]

Row = Mapping[str, Any]

_QUALITY = ("FID", "KID", "Perc.", "Person")
_OPTIONAL = {"CMMD": "cmmd", "Hair": "hair_color"}
"""Columns of what was asked for beyond, and the entries that say so."""
_COSTS = {
    "parameters": "parameters",
    "test time": "seconds_per_photo",
    "training time": "training_seconds",
}
_OURS = "ours"


def comparison_report(rows: Sequence[Row], styles: Sequence[str], who: str) -> str:
    """All tables in Markdown.

    Args:
        rows: metrics of one style and method each, with "parameters", "resolution", "seconds_per_photo",
            "training_seconds" and "settings"; or "why" a method could not run.
        styles: in the order of the sheets.
        who: the photos in words.
    """
    measured = [row for row in rows if "why" not in row]
    lines = [f"# Methods compared on {who}", ""]
    if not measured:
        reasons = dict.fromkeys(f"- {row['style']} {row['variant']}: {row['why']}" for row in rows)
        return "\n".join([*lines, "No method could run here:", "", *reasons]) + "\n"
    lines += ["## Quality", "", comparison_table(rows, columns=_columns(rows), people="photos")]
    lines += ["## Cost", "", cost_table(rows)]
    if any(row["variant"] == _OURS for row in measured):
        lines += ["## Ours to each peer", "", ratio_table(rows)]
    lines += [f"{measured_on(rows)}", ""]
    lines += [f"![{style}]({style}.jpg)" for style in styles]
    return "\n".join(lines) + "\n"


def cost_table(rows: Sequence[Row]) -> str:
    """Size, resolution and times of every method, means over its styles (the paper's Table 3)."""
    lines = [
        "| method | parameters, M | resolution, px | test time, s a photo | training time, min a style |",
        "|---|---|---|---|---|",
    ]
    notes, networks, trained = [], [], []
    if shared := next((row["comparison"] for row in rows if row.get("comparison")), None):
        notes.append(f"- all: {_told(shared)}.")
    for name, mine in _by_method(rows).items():
        done = [row for row in mine if "why" not in row]
        if not done:
            lines.append(f"| {name} | – | – | – | – |")
            continue
        size, test, training = (_mean(done, key) for key in _COSTS.values())
        lines.append(
            f"| {name} | {_shown(size, 1e6, '.1f')} | {done[0]['resolution']} | {_shown(test, 1, '.2f')} | "
            f"{_shown(training, 60, '.1f')} |"
        )
        if settings := done[0].get("settings"):
            notes.append(f"- {name}: {_told(settings)}.")
        if net := done[0].get("networks"):
            model = f"{net['model']}, " if name in DIFFUSION else ""
            networks.append(f"{name} {model}{net['dtype']}")
        trained += [
            f"- {name} {row['style']}: {_told(row['trained'])}."
            for row in done
            if row.get("trained")
        ]
    lines += [
        "",
        "Test time: an aligned photo to its portrait, the search for its code included, where there is one; a "
        "reference's own code is found once and not counted. Training time: what a new style takes, without G and "
        "encoder, which exist before it.",
    ]
    if notes:
        lines += ["", "Set otherwise than by default:", "", *notes]
    if trained:
        lines += ["", "Trained otherwise than by default:", "", *trained]
    if networks:
        lines += ["", f"Drawn in: {'; '.join(networks)}."]
    return "\n".join(lines) + "\n"


def ratio_table(rows: Sequence[Row]) -> str:
    """Ours divided by each peer's, geometric means over the styles both have: below 1 ours is lower, so better."""
    methods = _by_method(rows)
    ours = {row["style"]: row for row in methods.pop(_OURS) if "why" not in row}
    columns = _columns(rows)
    heads = [*columns, *_COSTS]
    measured = [row for row in rows if "why" not in row]
    entries = {head: chosen_entry(measured, head, "photos") for head in columns}
    lines = [f"| ours / | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, theirs in methods.items():
        pairs = [(ours[r["style"]], r) for r in theirs if "why" not in r and r["style"] in ours]
        cells = [
            _ratio([(_value(a, head, entries), _value(b, head, entries)) for a, b in pairs])
            for head in heads
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "Below 1 ours is lower, which is better in every column."]
    return "\n".join(lines) + "\n"


def _columns(rows: Sequence[Row]) -> list[str]:
    asked = {entry for row in rows for entry in row["photos"]}
    return [*_QUALITY, *(column for column, entry in _OPTIONAL.items() if entry in asked)]


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["variant"], []).append(row)
    return grouped


def _value(row: Row, head: str, entries: Mapping[str, str]) -> float | None:
    entry = row if head in _COSTS else row["photos"].get(entries[head], {})
    value = entry.get(_COSTS.get(head, "value"))
    return None if value is None else float(value)


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return fmean(values) if values else None


def _shown(value: float | None, unit: float, form: str) -> str:
    return "–" if value is None else format(value / unit, form)


def _ratio(pairs: Sequence[tuple[float | None, float | None]]) -> str:
    """Geometric mean of a / b; a dash where a value lacks or is not above 0, as KID may be."""
    known = [(a, b) for a, b in pairs if a is not None and b is not None and a > 0 and b > 0]
    if not known or len(known) < len(pairs):
        return "–"
    value = math.exp(fmean(math.log(a / b) for a, b in known))
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"
