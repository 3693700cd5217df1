"""What was measured of a style: kept in its ``training.json``, shown on its card.

A score counts where a value, the network that measured it and the number of pictures are all recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle.errors import CheckpointError, ConfigError
from facestyle.files import write_whole
from facestyle.styles import StyleConfig

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = [
    "cell",
    "eval_results",
    "line",
    "read_training",
    "record_scores",
    "score_fields",
    "training_seconds",
]

_FEW = 10
"""Below so many people, a group's mean says little."""

_KID, _PLAIN = "kid_x1000", "kid_x1000_of_plain_samples"
_MEASURES = {
    _KID: ("KID x 1000 to the style's pictures", "kid_by", ".1f"),
    _PLAIN: ("KID x 1000 of the same faces before the style", "kid_by", ".1f"),
    "identity_distance": ("identity distance, face to portrait", "judge", ".3f"),
    "perceptual": ("perceptual distance, face to portrait (not LPIPS)", "perceptual_by", ".3f"),
}
"""Key of a score -> what it is called, key of the network that measured it, how it is printed."""

_SKIN = {"delta_l": "+.1f", "delta_e": ".1f", "delta_ita_deg": "+.1f", "identity_distance": ".3f"}
_LOOKS = {
    "kept": ".2f", "delta_male": "+.2f", "years": ".0f", "delta_years": "+.1f", "identity_distance": ".3f",
}  # fmt: skip
"""Columns of the tables of groups, and how they are printed."""


def read_training(folder: str | Path) -> dict[str, Any]:
    """A style's ``training.json``; nothing where there is none.

    Raises:
        CheckpointError: it is no JSON object.
    """
    path = Path(folder) / "training.json"
    return _mapping(path) if path.is_file() else {}


def training_seconds(training: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by stage of a ``training.json``, with those of hair and likeness that commands of their own learned."""
    seconds = dict(training.get("seconds") or {})
    for stage in ("likeness", "hair"):
        took = (training.get(stage) or {}).get("seconds")
        if took is not None:
            seconds.setdefault(stage, took)
    return seconds


def record_scores(folder: str | Path, report: str | Path) -> None:
    """Keep the scores of a report of ``facestyle evaluate style`` in the style's ``training.json``.

    Args:
        folder: of the style.
        report: its ``metrics.json``.

    Raises:
        CheckpointError: a file is no JSON, or no report.
        ConfigError: the report is of another style, or has no samples of the base generator.
        OutputError: ``training.json`` cannot be written.
    """
    metrics, training = _mapping(Path(report)), read_training(folder)
    name = StyleConfig.from_file(Path(folder) / "config.json").name
    if metrics.get("format") != "facestyle-metrics":
        raise CheckpointError("is no report of facestyle evaluate style", path=report)
    if metrics.get("style") != name or metrics.get("variant") or "samples" not in metrics:
        raise ConfigError(
            f"expected a report of samples in the style {name!r}, got one of {metrics.get('style')!r} in {report}"
        )
    entries = metrics["samples"]
    kid, identity, seen = (
        entries.get(key, {}) for key in (_KID, "identity_distance", "perceptual")
    )
    found = {
        "report": str(report),
        "n": next((entry["n"] for entry in (kid, identity, seen) if "n" in entry), None),
        "n_style": kid.get("n_style"),
        _KID: kid.get("value"),
        _PLAIN: metrics.get("plain", {}).get(_KID, {}).get("value"),
        "kid_by": kid.get("by"),
        "identity_distance": identity.get("value"),
        "judge": identity.get("by"),
        "perceptual": seen.get("value"),
        "perceptual_by": seen.get("by"),
        **_groups_of(entries, entries.get("who")),
    }  # fmt: skip
    if "to_photo" in (
        photos := metrics.get("photos", {})
    ):  # groups of real people, where there were some
        who = f"{photos.get('who')}; what the encoder misses counts too"
        found |= _groups_of(photos["to_photo"], who)
    training["scores"] = {key: value for key, value in found.items() if value is not None}
    write_whole((json.dumps(training, indent=1) + "\n").encode(), Path(folder) / "training.json")


def eval_results(training: Mapping[str, Any]) -> list[EvalResult]:
    """The scores as results of a card's model-index; the report is linked where it has an address."""
    from huggingface_hub import EvalResult

    report = (training.get("scores") or {}).get("report")
    is_address = isinstance(report, str) and report.startswith(("http://", "https://"))
    return [
        EvalResult(
            task_type="image-to-image",
            task_name="Face stylization",
            dataset_type="synthetic-faces",
            dataset_name=f"{score['n']} samples of facestyle's base generator",
            metric_type=score["key"],
            metric_value=score["value"],
            metric_name=f"{score['label']}, by {score['by']}, n = {score['n']}",
            metric_args={"by": score["by"], "n": score["n"]},
            source_name="facestyle evaluate style" if is_address else None,
            source_url=report if is_address else None,
        )
        for score in _measured(training)
    ]


def score_fields(training: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of cards shows of the scores."""
    scores = training.get("scores") or {}
    skin, looks = (_groups(scores.get(key)) for key in ("by_skin", "by_appearance"))
    worst = _worst(
        *({k: row for k, row in groups.items() if k != "all"} for groups in (skin, looks))
    )
    return {
        "measures": [{**score, "by": cell(score["by"])} for score in _measured(training)],
        "scale": _scale(training),
        "report": line(scores.get("report") or ""),
        "groups_of": line(scores.get("groups_of") or ""),
        "skin": _rows(skin, _SKIN),
        "looks": _rows(looks, _LOOKS),
        "worst": worst,
    }


def _groups_of(entries: Mapping[str, Any], who: Any) -> dict[str, Any]:
    """Tables of groups of people, and who they are; entries without a value are left out."""
    tables = {key: entries.get(key) for key in ("by_skin", "by_appearance")}
    found = {key: table for key, table in tables.items() if table and "value" not in table}
    return found | ({"groups_of": who} if found else {})


def _groups(table: Any) -> dict[str, Any]:
    """Groups with a count, by names that fit a cell."""
    return {
        cell(group): row
        for group, row in (table or {}).items()
        if isinstance(row, dict) and _is_count(row.get("n"))
    }


def _rows(groups: Mapping[str, Any], forms: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"group": group, "n": row["n"]}
        | {key: format(row[key], form) if _is_number(row.get(key)) else "–" for key, form in forms.items()}
        for group, row in groups.items()
    ]  # fmt: skip


def line(value: object) -> str:
    """Text on one line."""
    return " ".join(str(value).split())


def cell(value: object) -> str:
    """Text for a cell of a table."""
    return line(value).replace("|", "\\|")


def _measured(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    scores = training.get("scores") or {}
    found = []
    for key, (label, by, form) in _MEASURES.items():
        value, network, n = scores.get(key), scores.get(by), scores.get("n")
        if _is_number(value) and isinstance(network, str) and line(network) and _is_count(n):
            shown = format(value, form)
            found.append(
                {"key": key, "label": label, "value": value, "by": line(network), "n": n, "shown": shown}
            )  # fmt: skip
    return found


def _scale(training: Mapping[str, Any]) -> dict[str, str] | None:
    """What the identity judge gives to two photos of one person, and of two."""
    from facestyle.evaluation.judge_specs import JUDGES

    by = {score["key"]: score["by"] for score in _measured(training)}.get("identity_distance")
    spec = JUDGES.get(str(by))
    if spec is None or spec.same is None or spec.different is None:
        return None
    same, different = (f"{1 - cosine:.3f}" for cosine in (spec.same, spec.different))
    return {"judge": str(by), "same": same, "different": different}


def _worst(
    skin: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The groups that change most and lose most likeness, each with its n; then the small ones."""
    lines = []
    for groups, key, sign, form in (
        (skin, "delta_l", 1, "Skin changes most where it is {}: L\\* {:+.1f} (n = {})."),
        (skin, "identity_distance", 1, "Likeness is lost most where skin is {}: identity distance {:.3f} (n = {})."),
        (looks, "kept", -1, "Of {} fewest are still seen as such: a share of {:.2f} (n = {})."),
        (looks, "delta_years", 1, "Age changes most in pictures of {}: {:+.1f} years (n = {})."),
    ):  # fmt: skip
        known = [
            (sign * abs(row[key]), name) for name, row in groups.items() if _is_number(row.get(key))
        ]
        if known:
            name = max(known)[1]
            lines.append(form.format(name, groups[name][key], groups[name]["n"]))
    everybody = [*skin.items(), *looks.items()]
    if few := [f"{name} (n = {row['n']})" for name, row in everybody if row["n"] < _FEW]:
        lines.append(
            f"Too few people to rely on: {', '.join(few)}. Look at results of your own before you use it there."
        )
    return lines


def _mapping(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot be read as JSON ({error})", path=path) from error
    if not isinstance(raw, dict):
        raise CheckpointError("holds no JSON object", path=path)
    return raw


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
