"""``facestyle import``: a public checkpoint becomes a folder that facestyle loads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to a command line's subparsers."""
    parser = commands.add_parser(
        "import", help="convert a public checkpoint, running nothing that is in it",
        description="NVIDIA's StyleGAN2 .pkl, rosinality .pt, pSp and e4e .pt, DualStyleGAN .pt and .npy, "
        "MobileStyleGAN .ckpt; which one it is, and its sizes, are found out.",
    )  # fmt: skip
    parser.add_argument("file", help="the checkpoint")
    parser.add_argument("-o", "--output", required=True, help="folder, new or of an earlier import")
    parser.add_argument("--fp16", action="store_true", help="store float16, half the size")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> int:
    from facestyle.models.importers.checkpoints import import_checkpoint

    report = import_checkpoint(args.file, args.output, half=args.fp16)
    if args.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"{args.file}: {report['kind']}, sha256 {report['origin']['sha256'][:12]}")
    for part in report["parts"].values():
        print(f"  {Path(args.output) / part['file']}  {_described(part)}")
    for name, why in report["left_out"].items():
        print(f"  left out: {name}: {why}")
    return 0


def _described(part: dict[str, Any]) -> str:
    facts = [part["architecture"]]
    facts += [f"{part['resolution']} px"] if "resolution" in part else []
    facts += [f"codes of {part['space']}"] if "space" in part else []
    facts += [f"{part['codes']} codes"] if "codes" in part else []
    facts += [f"{part['parameters']:,} parameters"] if part.get("parameters") else []
    return ", ".join(facts)
