"""``facestyle stylize``: photos or whole folders, by one process or by several under ``accelerate launch``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from facestyle.cli_common import add_style, input_files, load_stylizer, output_files
from facestyle.portraits_cli import (
    add_portraits,
    add_psi_and_seed,
    add_stylizing,
    print_row,
    refuse_overwriting,
    refuse_replacing,
    stylizing_options,
    summary_row,
)

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to a command line's subparsers."""
    stylize = commands.add_parser("stylize", help="stylize photos or a folder of photos")
    stylize.add_argument("inputs", nargs="+", metavar="IN", help="picture files or folders")
    stylize.add_argument(
        "-o", "--output", required=True,
        help="folder, or a .png for one input; of several photos, those that stand in it already are not drawn again",
    )  # fmt: skip
    add_style(stylize)
    add_psi_and_seed(stylize)
    add_stylizing(stylize, faces="all")
    add_portraits(stylize)
    stylize.set_defaults(run=_stylize)


def _stylize(args: argparse.Namespace) -> int:
    from facestyle.bulk import stylize_files
    from facestyle.bulk_report import Report
    from facestyle.options import Options
    from facestyle.processes import Processes

    photos = input_files(args.inputs)
    targets = output_files(photos, Path(args.output), portraits=args.portraits)
    pictures = list(targets.values())
    refuse_overwriting(pictures, photos, portraits_of=pictures if args.portraits else [])
    refuse_replacing(path for path in pictures if path != Path(args.output))
    options = Options(
        psi=args.psi, seed=args.seed, progress=len(photos) > 1 and not args.json, **stylizing_options(args)
    )  # fmt: skip
    processes = Processes(args.device, is_coupled=False)
    args.device = processes.device
    stylizer = load_stylizer(args)
    report = Report(_folder_with_report(args, targets), processes.rank)
    drawn = stylize_files(
        stylizer, targets, report, processes, options, portraits=args.portraits, dtype=args.dtype
    )
    processes.end()
    if not processes.is_main:
        return 0  # launchers end all processes when one of them fails: only the main one tells
    rows = {photo: _shown(photo, target, report) for photo, target in targets.items()}
    failed = [row for row in rows.values() if "error" in row]
    kept = len(rows) - len(drawn)
    if args.json:
        print(json.dumps({"style": args.style, "done": len(rows) - len(failed), "kept": kept,
                          "failed": len(failed), "results": list(rows.values())}, indent=2))  # fmt: skip
    else:
        for photo, row in rows.items():
            if photo in drawn and "error" not in row:
                print_row(row)
        if kept:
            print(f"{kept} of {len(rows)} stood already, made from the same photos and settings")
    for row in failed:
        print(f"facestyle: {row['error']}: {row['message']}", file=sys.stderr)
    return 1 if failed else 0


def _folder_with_report(args: argparse.Namespace, targets: dict[Path, Path]) -> Path | None:
    """Where the report goes; a single photo is drawn every time, and needs none."""
    output = Path(args.output)
    is_one = len(args.inputs) == 1 and not os.path.isdir(args.inputs[0])
    return None if is_one or output in targets.values() else output


def _shown(photo: Path, target: Path, report: Any) -> dict[str, Any]:
    """What the summary says of a photo."""
    row = report.rows[target.name]
    if "error" in row:
        return {"input": str(photo), "error": row["error"], "message": row["message"]}
    written = [target.parent / name for name in row["files"]]
    return summary_row(photo, written, row["faces"], row["seconds"])
