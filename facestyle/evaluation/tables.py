"""Tables of metrics in Markdown: of one style, or of variants of several styles (the paper's Tables 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from facestyle.errors import ConfigError
from facestyle.evaluation.judges import APPEARANCE_NET

__all__ = ["COLUMNS", "comparison_table", "measured_on", "metrics_table"]

Metrics = Mapping[str, Any]

COLUMNS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "FID": (("fid",), ".1f", "FID to the style set"),
    "KID": (("kid_x1000",), ".1f", "1000 times KID to the style set"),
    "CMMD": (("cmmd",), ".3f", "CMMD to the style set"),
    "Dis.": (("lpips", "perceptual"), ".3f", "distance of each portrait to G's picture of the same code"),
    "ID": (("identity_distance",), ".3f", "identity distance, 1 - cosine, to G's picture of the same code"),
    "Perc.": (("lpips", "perceptual"), ".3f", "distance of each portrait to its photo"),
    "Hair": (("hair_color",), ".1f", "change of hair's colours, CIE76, from the photo"),
    "Person": (("identity_distance",), ".3f", "identity distance, 1 - cosine, of each portrait to its photo"),
}  # fmt: skip
"""Column -> (entries, the first that every row has; number format; what it is). All are better lower."""

_PLAIN = {
    "fid": ("FID", ".1f"),
    "kid_x1000": ("KID x 1000", ".1f"),
    "cmmd": ("CMMD", ".3f"),
}
_PAIRS = {
    "lpips": ("LPIPS", ".3f"),
    "perceptual": ("perceptual distance (not LPIPS)", ".3f"),
    "identity_distance": ("identity distance", ".3f"),
    "identity_spread": ("identity distance between two portraits", ".3f"),
    "hair_color": ("colours of hair, change", ".1f"),
}
_GROUPS = {"samples": "samples of G", "photos": "photos"}


def metrics_table(metrics: Metrics) -> str:
    """One style's metrics: every value with its numbers of pictures and its network, then people by group."""
    lines = ["| measure | value | pictures | by |", "|---|---|---|---|"]
    for group in _GROUPS:
        if scores := metrics.get(group):
            lines += _set_rows(scores, f"{_GROUPS[group]}, to the style set")
            what = "semantic distance G(w) to G'(w)"
            lines += _pair_rows(scores, f"{_GROUPS[group]}, {what}")
            lines += _pair_rows(scores.get("to_photo", {}), "portrait to its photo")
    if scores := metrics.get("plain"):
        lines += _set_rows(scores, "G's own samples, to the style set")
    for entry, tabled in (("by_skin", _skin_lines), ("by_appearance", _appearance_lines)):
        for group in _GROUPS:
            scores = metrics.get(group, {})
            lines += tabled(scores.get(entry), f"{_GROUPS[group]}, G(w) to G'(w)")
            lines += tabled(scores.get("to_photo", {}).get(entry), "portrait to its photo")
    people = [metrics[group]["who"] for group in _GROUPS if group in metrics]
    lines += ["", f"{'; '.join(people)}. {measured_on([metrics])}"]
    return "\n".join(lines) + "\n"


def comparison_table(
    rows: Sequence[Metrics],
    *,
    columns: Sequence[str] = ("FID", "KID", "Dis.", "ID"),
    people: str = "samples",
    down: Literal["variants", "styles"] = "variants",
) -> str:
    """Variants of styles side by side, the best of each style bold; beneath, who and what measured.

    Args:
        rows: metrics of one style and variant each, see ``style_metrics``, in the order they should appear.
        columns: keys of :data:`COLUMNS`.
        people: the group that is shown, "samples" or "photos".
        down: what goes down the page; the other goes across. The paper's tables have styles down.

    Raises:
        ConfigError: no rows, unknown columns, a style and variant twice, or values that cannot be compared, since
            another network, other people or another number of pictures made them.
    """
    if not rows or not columns or (unknown := [c for c in columns if c not in COLUMNS]):
        unknown = [c for c in columns if c not in COLUMNS]
        raise ConfigError(
            f"expected metrics and columns of {', '.join(COLUMNS)}, got {len(rows)} metrics and "
            f"{', '.join(unknown or columns) or 'no columns'}"
        )
    cells = {(row["style"], row["variant"]): row for row in rows}
    if len(cells) < len(rows):
        raise ConfigError("a style and variant is there twice; keep one of them")
    if lacking := [_called(row) for row in rows if people not in row]:
        raise ConfigError(f"{', '.join(lacking)}: not measured on {people}")
    styles, variants = (_once(row[key] for row in rows) for key in ("style", "variant"))
    entries = {column: chosen_entry(rows, column, people) for column in columns}
    for style in styles:
        _check_alike([row for row in rows if row["style"] == style], entries.values(), people)
    _check_networks(rows, entries.values(), people)

    values = {
        (style, variant, column): row[people].get(entries[column], {}).get("value")
        for (style, variant), row in cells.items()
        for column in columns
    }

    def cell(style: str, variant: str, column: str) -> str:
        value = values.get((style, variant, column))
        if value is None:
            return "–"
        rivals = [
            format(v, COLUMNS[column][1])
            for (s, _, c), v in values.items()
            if (s, c) == (style, column) and v is not None
        ]
        text = format(value, COLUMNS[column][1])
        return f"**{text}**" if len(rivals) > 1 and float(text) == min(map(float, rivals)) else text

    outer, inner = (variants, styles) if down == "variants" else (styles, variants)
    heads = [f"{_safe(name)} {column}".strip() for name in inner for column in columns]
    lines = [
        _line(["variant" if down == "variants" else "style", *heads]),
        "|---" * (len(heads) + 1) + "|",
    ]
    for first in outer:
        pairs = [(second, first) if down == "variants" else (first, second) for second in inner]
        shown = [cell(*pair, column) for pair in pairs for column in columns]
        lines.append(_line([_safe(first), *shown]))
    lines += ["", *_notes(rows, entries, people), "", measured_on(rows)]
    return "\n".join(lines) + "\n"


def chosen_entry(rows: Sequence[Metrics], column: str, people: str) -> str:
    """The first of the column's entries that every row has a value of; else the one that most have."""
    keys = COLUMNS[column][0]
    counts = [
        sum(row[people].get(key, {}).get("value") is not None for row in rows) for key in keys
    ]
    return keys[counts.index(max(counts))]


def _check_alike(rows: Sequence[Metrics], keys: Iterable[str], people: str) -> None:
    """Rows of one style must be of the same people and style pictures: FID depends on both numbers."""
    facts = {"people": {row[people].get("who") for row in rows}}
    for key in keys:
        found = [row[people].get(key, {}) for row in rows]
        found = [entry for entry in found if entry.get("value") is not None]
        facts[f"{key} of pictures"] = {(entry["n"], entry.get("n_style")) for entry in found}
    for what, values in facts.items():
        if len(values) > 1:
            shown = " and ".join(str(value) for value in sorted(values, key=str))
            raise ConfigError(
                f"{rows[0]['style']}: {what} differ among the variants: {shown}; measure them again alike"
            )


def _check_networks(rows: Sequence[Metrics], keys: Iterable[str], people: str) -> None:
    for key in keys:
        found = {row[people].get(key, {}).get("by") for row in rows} - {None}
        if len(found) > 1:
            raise ConfigError(
                f"{key} was measured by {' and by '.join(sorted(found))}, whose scales differ; "
                "measure again with one of them"
            )


def _notes(rows: Sequence[Metrics], entries: Mapping[str, str], people: str) -> list[str]:
    lines = []
    reasons: dict[tuple[str, str], list[str]] = {}
    for column, key in entries.items():
        found = [(row, row[people].get(key, {})) for row in rows]
        measured = [(row, entry) for row, entry in found if entry.get("value") is not None]
        what = COLUMNS[column][2]
        if measured:
            name = f"by {measured[0][1]['by']}" + ("; not LPIPS" if key == "perceptual" else "")
            count = _once(str(entry["n"]) for _, entry in measured)
            text = f"- {column}: {what}, {name}; lower is better. N = {', '.join(count)}"
            pictures = _once(
                f"{_safe(row['style'])} {entry['n_style']}"
                for row, entry in measured
                if "n_style" in entry
            )
            lines.append(text + (f"; style pictures: {', '.join(pictures)}." if pictures else "."))
        absent: dict[str, list[str]] = {}
        for row, entry in found:
            if entry.get("value") is None:
                why = entry.get("why") or row.get("why", "not measured")
                absent.setdefault(why, []).append(_called(row))
        for why, names in absent.items():
            whose = "" if len(names) == len(rows) else f" ({', '.join(names)})"
            reasons.setdefault((whose, why), []).append(column)
    for (whose, why), columns in reasons.items():
        lines.append(f"- {', '.join(columns)}: –{whose}: {_safe(why)}.")
    people_of = _once(row[people].get("who", "") for row in rows)
    return [*lines, f"- People: {'; '.join(people_of)}."]


def measured_on(rows: Sequence[Metrics]) -> str:
    """The sentence that names machine and date of metrics and reports; of several, all."""
    rows = [row for row in rows if "machine" in row]
    machines = _once(
        ("" if r.get("device", "cpu") == "cpu" else f"{r['device']}, ")
        + f"{r['machine']['processor']}, {r['machine']['cores']} cores"
        for r in rows
    )
    dates = sorted({row["date"] for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured on {' and '.join(machines)}, {when}."


def _set_rows(scores: Metrics, whose: str) -> list[str]:
    return [
        _row(f"{title} ({whose})", scores[key], form)
        for key, (title, form) in _PLAIN.items()
        if key in scores
    ]


def _pair_rows(scores: Metrics, whose: str) -> list[str]:
    rows = []
    for key, (title, form) in _PAIRS.items():
        if entry := scores.get(key):
            scale = ""
            if entry.get("same") is not None and entry.get("different") is not None:
                scale = f"; one person {entry['same']:.2f}, two {entry['different']:.2f}"
            if entry.get("of_sources") is not None:
                scale = f"; {entry['of_sources']:.3f} between their sources"
            if entry.get("delta_l") is not None:
                scale = f"; L* {entry['delta_l']:+.1f}"
            rows.append(_row(f"{title} ({whose})", entry, form, scale))
    return rows


def _row(title: str, entry: Metrics, form: str, scale: str = "") -> str:
    if entry.get("value") is None:
        return _line([title, "–", "–", _safe(entry.get("why", "not measured"))])
    value = format(entry["value"], form)
    if entry.get("std") is not None:
        value += f" (± {entry['std']:.1f} over blocks of {entry['block_size']})"
    count = f"{entry['n']} to {entry['n_style']}" if "n_style" in entry else str(entry["n"])
    return _line([title, value, count, _safe(entry["by"]) + scale])


def _skin_lines(table: Metrics | None, whose: str) -> list[str]:
    if not table or "value" in table:
        return []
    lines = [
        "",
        f"| skin ({whose}) | people | identity distance | change of L* | colour difference | change of ITA, degrees |",
        "|---|---|---|---|---|---|",
    ]
    for group, row in table.items():
        apart = f"{row['identity_distance']:.3f}" if "identity_distance" in row else "–"
        lines.append(
            f"| {group} | {row['n']} | {apart} | {row['delta_l']:+.1f} | {row['delta_e']:.1f} | "
            f"{row['delta_ita_deg']:+.1f} |"
        )
    return lines


def _appearance_lines(table: Metrics | None, whose: str) -> list[str]:
    if not table or "value" in table:
        return []
    lines = [
        "",
        f"| who they look like ({whose}), by {APPEARANCE_NET} | people | identity distance | still seen so | "
        "change of P(male) | years | change of years |",
        "|---|---|---|---|---|---|---|",
    ]
    for group, row in table.items():
        apart = f"{row['identity_distance']:.3f}" if "identity_distance" in row else "–"
        kept = f"{row['kept']:.0%}" if "kept" in row else "–"
        lines.append(
            f"| {group} | {row['n']} | {apart} | {kept} | {row['delta_male']:+.2f} | {row['years']:.0f} | "
            f"{row['delta_years']:+.1f} |"
        )
    return lines


def _called(row: Metrics) -> str:
    return f"{row['style']} {row['variant']}".strip()


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _safe(text: str) -> str:
    """Text that does not end a table's cell."""
    return " ".join(text.replace("|", "\\|").split())
