"""``facestyle compare``: the methods on one photo, or measured on many."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facestyle.cli_common import (
    add_base,
    add_config,
    configured,
    listed,
    load_base,
    named_pictures,
    set_paths,
)
from facestyle.errors import ConfigError

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to a command line's subparsers."""
    compare = commands.add_parser(
        "compare", help="methods side by side on a photo, or measured on the same photos"
    )
    compare.add_argument("photo", nargs="?", help="picture file; the largest face in it is taken")
    compare.add_argument(
        "--table", action="store_true",
        help="instead of one photo: quality, size and times of every method; a killed run goes on",
    )  # fmt: skip
    compare.add_argument("--style", help="of the one photo; default: the first of --pictures")
    compare.add_argument(
        "--pictures", nargs="+", action="extend", default=[], metavar="STYLE=PICTURES",
        help="style and folder or zip of its pictures",
    )  # fmt: skip
    compare.add_argument("-o", "--output", required=True, help="folder for tables and pictures")
    compare.add_argument(
        "--runs",
        help="folder that holds METHOD/STYLE, what `facestyle baseline` trained or imported",
    )
    compare.add_argument(
        "--faces", nargs="+", action="extend",
        help="folders or zips of aligned test photos; default: people of the base generator",
    )  # fmt: skip
    compare.add_argument("--methods", help="comma-separated; default: all")
    compare.add_argument("--judge", default="auto", help="identity network that judges")
    compare.add_argument(
        "--download-clip", action="store_true", help="fetch CLIP, 1.7 GB, for CMMD (--table)"
    )
    compare.add_argument("--already-aligned", action="store_true", help="the photo is an FFHQ crop")
    compare.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_base(compare)
    add_config(compare, "facestyle.evaluation.comparison_methods", "ComparisonConfig")
    compare.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from facestyle.baselines.registry import check_draw_settings
    from facestyle.evaluation.comparison_methods import METHODS, ComparisonConfig
    from facestyle.evaluation.judges import check_side

    styles = named_pictures(args.pictures)
    if bool(args.photo) == args.table:
        raise ConfigError("give one photo, or --table for many")
    if args.table and (args.style is not None or args.already_aligned):
        raise ConfigError(
            "--style and --already-aligned are of one photo; --table measures the styles of --pictures on aligned "
            "photos"
        )
    if not args.table and (args.faces or args.download_clip):
        raise ConfigError(
            "--faces and --download-clip are of --table; leave them out, or ask for --table"
        )
    config = configured(ComparisonConfig(), args.set)
    check_side(config.side_px)
    of_inst = [p.removeprefix("inst.") for p in set_paths(args.set) if p.startswith("inst.")]
    check_draw_settings("inst", of_inst)
    methods = args.methods.split(",") if args.methods else METHODS
    if args.table:
        if not styles:
            raise ConfigError("--table needs --pictures STYLE=PICTURES")
        return _table(args, styles, config, methods)
    return _photo(args, styles, config, methods)


def _table(args: argparse.Namespace, styles: dict[str, str], config: Any, methods: Any) -> int:
    from facestyle.evaluation.comparison import compare

    print(listed(config))
    if args.dry_run:
        return 0
    report = compare(
        styles, args.output, config, base=load_base(args), methods=methods, runs=args.runs,
        faces=args.faces, judge_name=args.judge, device=args.device, allow_download=args.download_clip,
    )  # fmt: skip
    print(report)
    return 0


def _photo(args: argparse.Namespace, styles: dict[str, str], config: Any, methods: Any) -> int:
    from facestyle.evaluation.photo_comparison import compare_photo, format_rows

    style = args.style or next(iter(styles), None)
    if style is None:
        raise ConfigError("name the style: --style cartoon")
    if args.dry_run:
        print(listed(config))
        return 0
    report = compare_photo(
        args.photo, args.output, style=style, base=load_base(args), pictures=styles.get(style), config=config,
        methods=methods, runs=args.runs, aligned=args.already_aligned, judge_name=args.judge, device=args.device,
    )  # fmt: skip
    print(format_rows(report))
    print(Path(args.output) / "comparison.png")
    return 1 if all("why" in row for row in report["methods"]) else 0
