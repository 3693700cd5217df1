"""Average snapshots of finetuning, and G: an early one keeps more of the person, a late one has more of the style.

All descend from G, so their weights can be averaged (arXiv:2203.05482); the average is also cleaner than either,
because what training was still undecided about cancels out. Encoders can be averaged the same way, and told to make
fewer corrections than they have learned.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import read_metadata, save_tensors
from facestyle.models.zoo import REST, base_sha256, load_base_generator, read_style_tensors

__all__ = ["blend_files"]


def blend_files(files: Sequence[str | Path], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weighted mean of generator files, float32.

    Args:
        files: safetensors files of one architecture; "base" is the bundled G.
        shares: one weight a file, not negative, of sum 1.

    Raises:
        ConfigError: the shares do not fit.
        CheckpointError: a file is damaged, or the files hold different tensors.
    """
    if len(files) != len(shares) or not files:
        raise ConfigError(
            f"expected one share a file, got {len(files)} files, {len(shares)} shares"
        )
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"the shares must not be negative and sum to 1, got {list(shares)}")
    total: dict[str, Tensor] = {}
    for path, share in zip(files, shares, strict=True):
        tensors = _whole(path)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if total and shapes != {name: tensor.shape for name, tensor in total.items()}:
            raise CheckpointError("holds other tensors than the file before", path=path)
        for name, tensor in tensors.items():
            before = total.get(name, torch.zeros(tensor.shape))
            total[name] = before + share * tensor.float()
    return total


def _whole(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a file, with those of the bundled G where it leaves them to that; or that G's."""
    if path == "base":
        return load_base_generator().synthesis.state_dict()
    metadata = read_metadata(path)
    if REST in metadata and metadata.get("base_sha256") != base_sha256():
        raise CheckpointError(
            "was finetuned from a base generator of its own and leaves tensors to that; only styles of the bundled one "
            "can be averaged",
            path=path,
        )
    return read_style_tensors(path, load_base_generator().synthesis)


def _with_corrections(metadata: dict[str, str], count: int, path: str) -> dict[str, str]:
    config = json.loads(metadata.get("config", "{}"))
    learned = config.get("corrections", 0)
    if not 1 <= count <= learned:
        raise ConfigError(
            f"{path} has learned {learned} corrections; {count} cannot be asked of it"
        )
    return metadata | {"config": json.dumps(config | {"corrections": count})}


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m facestyle.training.blend A B --shares 0.4 0.6 -o OUT``: write the weighted mean."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="+", help='generator files; "base" is the bundled G')
    parser.add_argument("--shares", nargs="+", action="extend", type=float, required=True)
    parser.add_argument(
        "-o", "--output", required=True, help="such as RUN/style/generator.safetensors"
    )
    parser.add_argument(
        "--corrections", type=int, help="of an encoder: how many it makes, at most what it learned"
    )
    args = parser.parse_args(argv)
    tensors = blend_files(args.files, args.shares)
    output = Path(args.output)
    if args.corrections is not None:
        source = args.files[-1]
        metadata = _with_corrections(read_metadata(source), args.corrections, source)
    else:
        own = [file for file in args.files if file != "base"]
        metadata = read_metadata(output if output.is_file() or not own else own[-1])
    save_tensors(tensors, args.output, metadata=metadata, dtype=torch.float16)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
