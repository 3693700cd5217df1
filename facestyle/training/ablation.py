"""The paper's ablation (its Tables 4 and 5): every constraint by itself and together, and the three levels of pairs.

All variants of a style have the same steps, batches and seed; only the weights of the constraints, or the level of the
pairs, differ. "baseline" is the adversarial loss alone.

::

    OUT/STYLE/star, pairs     made once for all variants
    OUT/STYLE/VARIANT/        run, and metrics.json; variants of equal settings share the first one's
    OUT/STYLE.jpg             G above every variant, the same people
    OUT/report.md             both tables
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from facestyle.errors import ConfigError
from facestyle.evaluation.judges import check_judge, judging_device
from facestyle.evaluation.metrics import (
    QUICK,
    StyleJudge,
    read_metrics,
    save_metrics,
    style_metrics,
)
from facestyle.evaluation.people import People, pil_pictures, sample_people
from facestyle.evaluation.sheets import contact_sheet, save_sheet
from facestyle.evaluation.tables import comparison_table
from facestyle.files import write_whole
from facestyle.models.generator import Generator
from facestyle.processes import Processes
from facestyle.training.finetune import finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.pairs import PairStore
from facestyle.training.pipeline import TrainConfig, find_pairs

__all__ = ["CONSTRAINTS", "LEVELS", "ablate", "variant_config"]

_log = logging.getLogger(__name__)

CONSTRAINTS = ("baseline", "+SC", "+PC", "+SC&PC")
"""The paper's Table 4."""

LEVELS = ("W1+", "W2+", "W3+")
"""The paper's Table 5, beside the baseline."""


def variant_config(config: FinetuneConfig, variant: str) -> FinetuneConfig:
    """The style's config with the constraints of a variant; weights it keeps are the config's.

    Nothing is held out: all variants give their last weights, none is taken part of the way back by a score.

    Raises:
        ConfigError: an unknown variant.
    """
    config = replace(config, held_out=0)
    if variant in LEVELS:
        return replace(config, pair_level=LEVELS.index(variant) + 1)
    if variant not in CONSTRAINTS:
        raise ConfigError(f"variants are {', '.join((*CONSTRAINTS, *LEVELS))}, not {variant!r}")
    return replace(
        config,
        sem_weight=config.sem_weight if "SC" in variant else 0.0,
        pair_weight=config.pair_weight if "PC" in variant else 0.0,
    )


def ablate(
    generator: Generator,
    styles: Mapping[str, str | Path | Sequence[str | Path]],
    out: str | Path,
    config: TrainConfig,
    *,
    encoder_z: str | Path | None = None,
    encoder_w_plus: str | Path | None = None,
    variants: Sequence[str] = (*CONSTRAINTS, *LEVELS),
    samples: int = 64,
    psi: float = 0.8,
    measures: Sequence[str] = (*QUICK, "fid", "lpips"),
    judge_name: str = "auto",
    side_px: int = 512,
    sheet_faces: int = 8,
    processes: Processes | None = None,
    progress: bool = True,
) -> Path:
    """Train and measure every variant of every style; the path of ``OUT/report.md``.

    A killed run goes on where it was; a variant that was measured is not measured again, unless by another judge, in
    other measures or on other people.

    Args:
        generator: G.
        styles: name -> pictures.
        out: folder.
        config: of all runs; the level of ``style.pair_level`` is the one of +PC and +SC&PC.
        encoder_z: file of E_z+; the one that goes with G when None, see ``models.bases.find_encoder``.
        encoder_w_plus: file of E_w+, for W3+; likewise.
        variants: of ``CONSTRAINTS`` and ``LEVELS``.
        samples: people of G, from seed 200 on, on whom variants are measured.
        psi: their truncation.
        measures: see ``evaluation.metrics.MEASURES``.
        judge_name: identity network that judges; none of the training.
        side_px: side at which pictures are measured; G's own where that is less.
        sheet_faces: people on the sheets.
        processes: who shares the work; when None this one, on the best device there is.
        progress: show progress bars.

    Raises:
        ConfigError: an unknown variant, one of pairs of level 0, or ``out`` holds runs of other settings or of another
            G.
        DatasetError: a style's pictures cannot be used.
        CheckpointError: there is no encoder that goes with G.
        OutputError: ``out`` cannot be written.
    """
    check_judge(judge_name)
    processes = processes or Processes()
    plans = {name: variant_config(config.style, name) for name in variants}
    if any(plan.pair_weight and not plan.pair_level for plan in plans.values()):
        raise ConfigError(
            "style.pair_level 0 is of known pairs, which ablate does not take; choose 1, 2 or 3"
        )
    level = max([plan.pair_level for plan in plans.values() if plan.pair_weight], default=0)
    folder = Path(out)
    side_px = min(side_px, generator.resolution)
    people = sample_people(generator, samples, psi=psi, side_px=side_px)
    asked = {
        "judge": judge_name, "measures": sorted(measures), "samples": samples, "psi": psi, "side_px": side_px,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    networks: StyleJudge | None = None
    for style, source in styles.items():
        here = folder / style
        pairs: PairStore | None = None
        if level:
            pairs = find_pairs(
                generator, source, here / "pairs", replace(config.pairs, level=level),
                star=here / "star", star_config=config.star, encoder_z=encoder_z,
                encoder_w_plus=encoder_w_plus, processes=processes, progress=progress,
            )  # fmt: skip
        judge: StyleJudge | None = None
        drawn: dict[str, list[Any]] = {}
        done: dict[FinetuneConfig, str] = {}
        for variant, plan in plans.items():
            if plan in done:  # the same settings under two names, such as +SC&PC and W2+
                if processes.is_main:
                    drawn[variant] = drawn[done[plan]]
                    same = read_metrics(here / _slug(done[plan]) / "metrics.json")
                    rows.append({**same, "variant": variant})
                continue
            done[plan] = variant
            net = finetune(
                generator, source, here / _slug(variant), plan,
                pairs=pairs if plan.pair_weight else None, processes=processes, progress=progress,
            )  # fmt: skip
            if not processes.is_main:
                continue
            portraits = people.drawn_by(net)
            drawn[variant] = list(pil_pictures(portraits[:sheet_faces]))
            path = here / _slug(variant) / "metrics.json"
            if not _stands(path, asked, f"{variant} of {style}"):
                cache = here / "style.safetensors"
                if judge is None and networks is not None:
                    judge = networks.of_style(source, cache=cache)
                if judge is None:
                    judge = networks = StyleJudge.load(
                        source, measures=measures, judge_name=judge_name, cache=cache,
                        device=judging_device(processes.device),
                    )  # fmt: skip
                measured = style_metrics(
                    judge, net, {"samples": people}, style=style, variant=variant,
                    portraits={"samples": portraits},
                )  # fmt: skip
                save_metrics(measured | {"asked": asked}, path)
            rows.append(read_metrics(path))
        if processes.is_main:
            _sheet(people, drawn, folder / f"{style}.jpg", sheet_faces)
    if processes.is_main:
        text = _report(rows, plans, list(styles))
        write_whole(text.encode(), folder / "report.md")
    processes.wait()
    return folder / "report.md"


def _stands(path: Path, asked: Mapping[str, Any], what: str) -> bool:
    """Whether a variant's measures are there, and are what is asked for; that they are made anew is logged."""
    if not path.is_file():
        return False
    if read_metrics(path).get("asked") == asked:
        return True
    _log.warning(
        "%s is measured anew: by another judge, in other measures or on other people", what
    )
    return False


def _slug(variant: str) -> str:
    return variant.lower().replace("+", "").replace("&", "_")


def _sheet(people: People, drawn: Mapping[str, Sequence[Any]], path: Path, count: int) -> None:
    sources = list(pil_pictures(people.sources[:count]))
    sheet = contact_sheet(
        [sources, *drawn.values()], cell_px=200, row_labels=["G(w)", *drawn.keys()]
    )
    save_sheet(sheet, path)


def _report(
    rows: Sequence[Mapping[str, Any]], plans: Mapping[str, FinetuneConfig], styles: Sequence[str]
) -> str:
    lines = ["# Ablation", ""]
    told: set[str] = set()
    for title, wanted in (
        ("Constraints", CONSTRAINTS),
        ("Levels of pairs", ("baseline", *LEVELS)),
    ):
        chosen = [row for row in rows if row["variant"] in wanted]
        names = {row["variant"] for row in chosen}
        if names - told:
            told |= names
            lines += [f"## {title}", "", comparison_table(chosen, down="styles")]
    some = next(iter(plans.values()))
    lines += [
        f"Every variant: {some.coarse_steps} steps of {some.coarse_batch} on the 256 px path, {some.full_steps} of "
        f"{some.full_batch} in full, seed {some.seed}.",
        "",
        *(f"![{style}]({style}.jpg)" for style in styles),
    ]
    return "\n".join(lines) + "\n"
