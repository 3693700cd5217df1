"""``facestyle compare``: the methods on the same photos."""

from __future__ import annotations

import argparse
from typing import Any

from facestyle.cli_common import add_config, configured, listed, named_pictures

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to a command line's subparsers."""
    compare = commands.add_parser("compare", help="measure methods on the same photos")
    compare.add_argument(
        "--table", action="store_true", required=True,
        help="quality, size and times of every method, with sheets; a killed run goes on",
    )  # fmt: skip
    compare.add_argument(
        "--pictures", nargs="+", required=True, metavar="STYLE=PICTURES",
        help="style and folder or zip of its pictures",
    )  # fmt: skip
    compare.add_argument("-o", "--output", required=True, help="folder for tables and sheets")
    compare.add_argument(
        "--runs",
        help="folder that holds METHOD/STYLE, what `facestyle baseline` trained or imported",
    )
    compare.add_argument(
        "--faces", nargs="+",
        help="folders or zips of aligned test photos; default: people of the base generator",
    )  # fmt: skip
    compare.add_argument("--methods", help="comma-separated; default: all")
    compare.add_argument("--judge", default="auto", help="identity network that judges")
    compare.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(compare, "facestyle.evaluation.comparison_methods", "ComparisonConfig")
    compare.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from facestyle.evaluation.comparison import compare
    from facestyle.evaluation.comparison_methods import METHODS, ComparisonConfig
    from facestyle.models.zoo import load_base_generator

    styles = named_pictures(args.pictures)
    config = configured(ComparisonConfig(), args.set)
    print(listed(config))
    if args.dry_run:
        return 0
    report = compare(
        styles, args.output, config, base=load_base_generator(),
        methods=args.methods.split(",") if args.methods else METHODS, runs=args.runs,
        faces=args.faces, judge_name=args.judge, device=args.device,
    )  # fmt: skip
    print(report)
    return 0
