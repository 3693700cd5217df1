"""Model cards: what a style is, what was measured of it, and whom it fails on.

Every number on a card comes from the style's ``config.json`` and ``training.json``; only the scale of an identity judge
is facestyle's own. The prose is in ``card_template.md``.

::

    python -m facestyle.hub.cards -o hub_cards                          every bundled style
    python -m facestyle.hub.cards ./mine --report report/metrics.json   keep scores with a style, and print its card
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from facestyle.bench import known_speed
from facestyle.errors import ConfigError, FacestyleError
from facestyle.files import write_whole
from facestyle.hub.download import TAG, belongs
from facestyle.hub.scores import (
    cell,
    eval_results,
    line,
    read_training,
    record_scores,
    score_fields,
    training_seconds,
)
from facestyle.styles import StyleConfig, bundled_style, bundled_styles, find_style

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

__all__ = [
    "BASE_REPOS",
    "HUB_LICENSES",
    "check_card",
    "hub_license",
    "is_license_stated",
    "render_card",
]

HUB_LICENSES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m", "ecl-2.0",
    "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc",
    "lgpl", "lgpl-2.1", "lgpl-3.0", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1",
    "openrail", "openrail++", "osl-3.0", "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
})  # fmt: skip
"""Licences by the Hub's own ids (huggingface.co/docs/hub/repositories-licenses)."""

BASE_REPOS: dict[str, str] = {}
"""Hub repositories of base generators by the sha256 of their weights; none has been made yet."""

_REQUIRED = ("library_name", "pipeline_tag", "license", "tags")
_STAGES = {
    "star": "G\\*", "pairs": "pseudo-pairs", "style": "G'", "style before": "the run before", "hair": "hair",
    "likeness": "the map of codes",
}  # fmt: skip


def is_license_stated(text: str | None) -> bool:
    """Whether a licence, of weights or of pictures, says anything."""
    return (text or "").strip().lower() not in ("", "unknown")


def hub_license(text: str) -> tuple[str, str | None]:
    """A licence as the Hub writes it: its id, and the name of one that has none."""
    given = line(text).lower()
    known = re.sub(r"-(or-later|only)$", "", given)
    if known in HUB_LICENSES:
        return known, None
    return "other", re.sub(r"[^a-z0-9.]+", "-", given).strip("-") or "other"


def render_card(
    folder: str | Path,
    *,
    repo_id: str | None = None,
    config: StyleConfig | None = None,
    samples: Sequence[str] | None = None,
) -> str:
    """The card of a style's folder, README.md of its repository.

    Args:
        folder: with ``config.json``; ``training.json`` and ``samples/`` where they are there.
        repo_id: "user/name" of the repository, if it is known.
        config: what ``config.json`` is going to say; what it says when None.
        samples: pictures to show, by their names in the repository; those that are there when None.

    Raises:
        CheckpointError: a JSON file is absent or damaged.
        ConfigError: ``repo_id`` is no name of a repository.
    """
    import jinja2

    folder = Path(folder)
    config = config or StyleConfig.from_file(folder / "config.json")
    training = read_training(folder)
    is_bundled = (
        config.name in bundled_styles() and folder.resolve() == bundled_style(config.name).resolve()
    )
    samples = _samples(folder, is_bundled) if samples is None else samples
    data = _front_matter(folder, config, training, samples, repo_id)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = Path(__file__).with_name("card_template.md").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        front_matter=data.to_yaml(),
        samples=[quote(path) for path in samples],
        reference=repo_id or (config.name if is_bundled else f"./{config.name}"),
        is_local=repo_id is None and not is_bundled,
        is_bundled_style=is_bundled,
        license_file=data.license_link,
        **_config_fields(config, training),
        **_origin_fields(training),
        **score_fields(training),
        speed=_speed_rows() if _draws_as_measured(config) else [],
    ).rstrip() + "\n"  # fmt: skip


def check_card(text: str, folder: str | Path) -> None:
    """Refuse a card that the Hub cannot read, or that claims what was not measured.

    Args:
        text: of the card, front matter included.
        folder: of the style.

    Raises:
        ConfigError: the front matter is no YAML mapping or lacks a key, or its model-index holds a result other than
            those that ``training.json`` records with value, network and number of pictures.
        CheckpointError: ``training.json`` is damaged.
    """
    from huggingface_hub import ModelCard

    again = "render the card anew with python -m facestyle.hub.cards"
    try:
        data = ModelCard(text).data
    except Exception as error:  # of YAML, or whatever an odd shape makes the reader raise
        raise ConfigError(
            f"the card's front matter cannot be read ({line(error)}); {again}"
        ) from error
    if lacking := [key for key in _REQUIRED if not data.get(key)]:
        raise ConfigError(f"the card's front matter lacks {', '.join(lacking)}; {again}")
    measured = eval_results(read_training(folder))
    for result in data.get("eval_results") or []:
        if result not in measured:
            raise ConfigError(
                f"the card claims {result.metric_type} = {result.metric_value} ({result.metric_name}), and the style's "
                f"training.json has no such score with its value, network and number of pictures; {again}"
            )


def _samples(folder: Path, is_bundled: bool) -> list[str]:
    """Sample pictures by their names in the repository; a bundled style gets its sheet when it is packaged."""
    from facestyle.hub.package import SAMPLES

    inside = [path.relative_to(folder) for path in sorted((folder / "samples").glob("*"))]
    found = [path.as_posix() for path in inside if belongs(path)]
    return found or ([SAMPLES] if is_bundled else [])


def _front_matter(
    folder: Path,
    config: StyleConfig,
    training: Mapping[str, Any],
    samples: Sequence[str],
    repo_id: str | None,
) -> ModelCardData:
    """What the Hub reads; ``base_model`` must be a repository, so only a base generator that has one is named."""
    from huggingface_hub import ModelCardData, hf_hub_url
    from huggingface_hub.errors import HFValidationError

    license, license_name = hub_license(config.license)
    files = [path.name for path in sorted(folder.glob("LICENSE*"))]
    try:
        thumbnail = hf_hub_url(repo_id, samples[0]) if repo_id and samples else None
    except HFValidationError as error:
        raise ConfigError(
            f"{repo_id!r} is no name of a Hub repository, USER/NAME: {error}"
        ) from error
    base_repo = BASE_REPOS.get(config.base_sha256)
    return ModelCardData(
        library_name="facestyle",
        pipeline_tag="image-to-image",
        license=license,
        license_name=license_name,
        license_link=next(iter(files), "LICENSE.md") if license_name else None,
        base_model=base_repo,
        base_model_relation="finetune" if base_repo else None,
        tags=[TAG, "face-stylization", "image-to-image", "stylegan2", "art", config.name],
        model_name=config.name,
        eval_results=eval_results(training) or None,
        thumbnail=thumbnail,
    )


def _config_fields(config: StyleConfig, training: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of ``config.json``, and of the pictures in ``training.json``."""
    from facestyle.models.zoo import base_sha256

    data = {**(training.get("data") or {}), **config.data}
    source = data.get("source") or ", ".join(map(str, data.get("sources") or []))
    return {
        "title": line(config.title) or config.name,
        "description": line(config.description),
        "name": config.name,
        "psi": config.psi,
        "license": line(config.license) if is_license_stated(config.license) else None,
        "source": cell(source) or "not recorded",
        "count": cell(data.get("count") or "not recorded"),
        "side_px": cell(data.get("side_px") or ""),
        "ground": cell(data.get("ground") or ""),
        "data_license": cell(data.get("license") or "unknown"),
        "base_sha256": config.base_sha256,
        "base_repo": BASE_REPOS.get(config.base_sha256),
        "is_bundled_base": config.base_sha256 == base_sha256(),
    }


def _origin_fields(training: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of how the style was trained."""
    machine, seconds = training.get("machine"), training_seconds(training)
    if isinstance(machine, dict):
        machine = (
            f"{machine.get('processor')}, {machine.get('cores')} cores, {machine.get('system')}"
        )
    device = training.get("device")
    gpu = device if device != "cpu" else None
    return {
        "method": line(training.get("method") or "").replace("*", "\\*"),
        "has_settings": bool(training.get("settings")),
        "commands": [line(command) for command in training.get("commands") or []],
        "seconds": ", ".join(f"{_STAGES.get(stage, stage)} {took}" for stage, took in seconds.items()),
        "where": ", ".join(line(part) for part in (gpu, machine, training.get("date")) if part),
        "limits": [line(limit) for limit in training.get("limits") or []],
    }  # fmt: skip


def _draws_as_measured(config: StyleConfig) -> bool:
    """Whether a style draws with a network like the bundled ones, which were timed, and reads photos as they do."""
    usual = StyleConfig.from_file(bundled_style("cartoon") / "config.json")
    return (config.architecture, config.generator, config.encoder) == (
        usual.architecture, usual.generator, usual.encoder,
    )  # fmt: skip


def _speed_rows() -> list[dict[str, str]]:
    """What the template shows of `facestyle bench` on the machines it was run on."""
    return [
        {
            "machine": f"{cell(row['machine']['note'])}, {row['machine']['cores']} cores",
            "date": row["date"],
            "dtype": row["dtype"],
            "photo_s": f"{row['total']:.2f}",
            "refined_s": f"{row['closer']['total']:.1f}",
            "cold_s": f"{row['cold_start']:.1f}",
            "memory_gb": f"{row['peak_memory_mb'] / 1000:.1f}",
        }
        for row in known_speed()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m facestyle.hub.cards STYLE... -o FOLDER``: write NAME.md of styles; by default of the bundled."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("styles", nargs="*", metavar="STYLE", help="bundled names, or ./folders")
    parser.add_argument("-o", "--output", help="folder of the cards; without it they are printed")
    parser.add_argument(
        "--report", help="metrics.json of facestyle evaluate style; its scores are kept with the one style named"
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        if args.report:
            _record(args.styles, args.report)
        for style in args.styles or bundled_styles():
            folder = find_style(style)
            card = render_card(folder)
            if args.output is None:
                print(card, end="")
            else:
                name = StyleConfig.from_file(folder / "config.json").name
                print(write_whole(card.encode(), Path(args.output) / f"{name}.md"))
    except FacestyleError as error:
        print(f"facestyle: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def _record(styles: Sequence[str], report: str) -> None:
    """Keep a report's scores with a style that is here: what lies in the Hub's cache is not ours to change."""
    if len(styles) != 1 or not (styles[0] in bundled_styles() or Path(styles[0]).is_dir()):
        raise ConfigError(
            f"--report goes with one style, a bundled name or a folder, got {list(styles)}; "
            "facestyle pull fetches a style from the Hub into a folder"
        )
    record_scores(find_style(styles[0]), report)


if __name__ == "__main__":
    raise SystemExit(main())
