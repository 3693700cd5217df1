"""``facestyle evaluate``: reports and sheets of the encoder and of styles."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle.cli_common import (
    add_base,
    add_style,
    load_base,
    load_stylizer,
    refuse_unread,
    usual_of,
)
from facestyle.errors import ConfigError

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer

__all__ = ["add_parser"]

_SWEPT = ("psi", "strength", "keep_texture", "keep_shape", "likeness", "hair", "refine")
"""Settings that are swept."""
_REFINED = _SWEPT[:-1]
"""Those of them whose codes ``--refine`` goes before."""

_JUDGES = {"faces", "limit", "judge", "perceptual"}
_STYLE = {"style", "revision"}
_SWEEP = {*_JUDGES, *_STYLE, "pictures", "features_cache", "values"}
_READ: dict[str, set[str]] = {
    "encoder": {*_JUDGES, "encoder", "optimise"},
    "style": {*_JUDGES, *_STYLE, "pictures", "count", "features_cache", "download_clip"},
    "gallery": {*_STYLE, "dtype"},
    "styles": {"dtype"},
    "multimodal": {*_STYLE, "dtype", "ui2i"},
    "reference": {*_STYLE, "dtype", "references"},
    **{what: {*_SWEEP, "refine"} for what in _REFINED},
    "refine": _SWEEP,
}
"""Options that each of them reads, beside ``--base``, ``--device`` and ``--output``; measured is in float32."""


def add_parser(commands: Any) -> None:
    """Add the command to a command line's subparsers."""
    evaluate = commands.add_parser("evaluate", help="measure the encoder or a style; galleries")
    evaluate.add_argument(
        "what",
        choices=list(_WHAT),
        help="gallery: a style's options; styles: every bundled style on the same 24 faces; multimodal, reference: "
        f"many portraits of a few people; {', '.join(_SWEPT)}: at several values",
    )
    evaluate.add_argument(
        "--faces",
        help="folder or zip of aligned test photos (encoder, style; all at several values need it)",
    )
    evaluate.add_argument(
        "--pictures",
        help="folder or zip of the style's pictures (style, and all at several values)",
    )
    evaluate.add_argument(
        "--references",
        nargs="+",
        action="extend",
        default=[],
        help="aligned pictures to follow (reference)",
    )
    evaluate.add_argument(
        "--ui2i", help="folder of a trained ui2i, for rows of its results (multimodal)"
    )
    evaluate.add_argument(
        "--encoder",
        help="encoder file (encoder); default: the one beside --base, or the bundled one",
    )
    add_base(evaluate)
    evaluate.add_argument("--limit", type=int, help="use so many test photos")
    evaluate.add_argument(
        "--optimise",
        type=int,
        default=24,
        help="photos for the optimised rows, 1 or more (encoder)",
    )
    evaluate.add_argument("--count", type=int, default=100, help="samples of G to measure (style)")
    evaluate.add_argument(
        "--values",
        nargs="+",
        action="extend",
        type=float,
        default=[],
        help=f"to compare ({', '.join(_SWEPT)})",
    )
    evaluate.add_argument(
        "--refine",
        type=int,
        default=0,
        help=f"steps of refine on every code ({', '.join(_REFINED)})",
    )
    evaluate.add_argument("--features-cache", help="file that keeps the style pictures' features")
    evaluate.add_argument(
        "--download-clip", action="store_true", help="fetch CLIP, 1.7 GB, for CMMD (style)"
    )
    evaluate.add_argument("--judge", default="auto", help="identity network that judges")
    evaluate.add_argument("--perceptual", default="auto", help="perceptual network that judges")
    evaluate.add_argument("-o", "--output", required=True, help="folder for report and sheets")
    add_style(evaluate)
    usual = usual_of(evaluate, set().union(*_READ.values()))
    evaluate.set_defaults(run=lambda args: _evaluate(args, usual))


def _evaluate(args: argparse.Namespace, usual: Mapping[str, Any]) -> int:
    from facestyle.evaluation.judges import check_judge

    check_judge(args.judge)
    for name in sorted(usual.keys() - _READ[args.what]):
        readers = ", ".join(what for what, read in _READ.items() if name in read)
        refuse_unread(args, usual, [name], f"it is of evaluate {readers}")
    print(_WHAT[args.what](args, Path(args.output)))
    return 0


def _encoder(args: argparse.Namespace, folder: Path) -> Path:
    from facestyle.evaluation.report import encoder_report

    if not args.faces:
        raise ConfigError("evaluate encoder needs --faces, a folder or zip of aligned photos")
    encoder_report(
        args.faces, folder, encoder=args.encoder, generator=load_base(args), limit=args.limit,
        optimise=args.optimise, judge_name=args.judge, perceptual_name=args.perceptual,
        device=args.device,
    )  # fmt: skip
    return folder / "report.md"


def _style(args: argparse.Namespace, folder: Path) -> Path:
    from facestyle.evaluation.report import style_report

    if not args.pictures:
        raise ConfigError("evaluate style needs --pictures, the style's own pictures")
    style_report(
        _stylizer(args), args.pictures, folder, count=args.count, photos=args.faces,
        limit=args.limit, judge_name=args.judge, perceptual_name=args.perceptual,
        cache=args.features_cache, allow_download=args.download_clip,
    )  # fmt: skip
    return folder / "report.md"


def _sweep(args: argparse.Namespace, folder: Path) -> Path:
    from facestyle.evaluation.sweep import sweep_report

    if not args.pictures or not args.faces:
        raise ConfigError(
            f"evaluate {args.what} needs --pictures, the style's own, and --faces, aligned photos of people"
        )
    sweep_report(
        _stylizer(args), args.what, args.pictures, args.faces, folder, values=args.values,
        refine=args.refine, limit=args.limit, judge_name=args.judge,
        perceptual_name=args.perceptual, cache=args.features_cache,
    )  # fmt: skip
    return folder / "report.md"


def _gallery(args: argparse.Namespace, folder: Path) -> Path:
    from facestyle.evaluation.gallery import gallery

    gallery(_stylizer(args), folder)
    return folder / "report.md"


def _styles(args: argparse.Namespace, folder: Path) -> Path:
    from facestyle.evaluation.gallery import styles_gallery

    styles_gallery(folder, generator=load_base(args), device=args.device, dtype=args.dtype)
    return folder / "report.md"


def _multimodal(args: argparse.Namespace, folder: Path) -> Path:
    from facestyle.baselines.ui2i import Ui2i
    from facestyle.evaluation.portraits_gallery import multimodal_gallery

    stylizer = _stylizer(args)
    ui2i = Ui2i(stylizer.base).load(args.ui2i) if args.ui2i else None
    return multimodal_gallery(stylizer, folder, ui2i=ui2i)


def _reference(args: argparse.Namespace, folder: Path) -> Path:
    from facestyle.evaluation.portraits_gallery import reference_gallery

    return reference_gallery(_stylizer(args), folder, references=args.references)


def _stylizer(args: argparse.Namespace) -> FaceStylizer:
    """The style, which brings its base generator; one that is named beside it must be that.

    Raises:
        ConfigError: it is another.
    """
    from facestyle.models.zoo import sha256_of

    stylizer = load_stylizer(args)
    if args.base is not None and sha256_of(load_base(args)) != stylizer.config.base_sha256:
        raise ConfigError(
            f"the style {args.style} was not made from the generator in {args.base}; name a style that was with "
            "--style, or leave --base out: a style brings its own"
        )
    return stylizer


_WHAT = {
    "encoder": _encoder,
    "gallery": _gallery,
    "multimodal": _multimodal,
    "reference": _reference,
    "style": _style,
    "styles": _styles,
    **dict.fromkeys(_SWEPT, _sweep),
}
