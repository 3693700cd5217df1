"""``facestyle train-diffusion``: a small diffusion model of faces that needs no download."""

from __future__ import annotations

import argparse
from typing import Any

from facestyle.cli_common import add_config, configured, listed

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add ``train-diffusion`` to a command line's subparsers."""
    train = commands.add_parser(
        "train-diffusion",
        help="train facestyle-tiny-diffusion, on which NTC, InST and StyleID run without a download",
    )
    train.add_argument("-o", "--output", required=True, help="folder of the run; resumed if there")
    train.add_argument(
        "--styles", nargs="*", help="names or ./folders of styles beside people; default: bundled"
    )
    train.add_argument(
        "--minutes", type=float, help="train the networks so long, all sittings together"
    )
    train.add_argument("--steps", type=int, help="of the UNet: short for --set unet_steps=")
    train.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(train, "facestyle.training.tiny_diffusion_models", "TinyDiffusionConfig")
    train.set_defaults(run=_train_diffusion)


def _train_diffusion(args: argparse.Namespace) -> int:
    from facestyle.baselines.diffusion import need_diffusers
    from facestyle.training.tiny_diffusion_models import TinyDiffusionConfig

    steps = [] if args.steps is None else [f"unet_steps={args.steps}"]
    config = configured(TinyDiffusionConfig(), [*args.set, *steps])
    print(listed(config))
    if args.dry_run:
        return 0
    need_diffusers()
    from facestyle.training.tiny_diffusion import train_tiny_diffusion
    from facestyle.training.tiny_diffusion_pictures import bundled_sources

    folder = train_tiny_diffusion(
        args.output, config, sources=bundled_sources(args.styles), minutes=args.minutes, device=args.device
    )  # fmt: skip
    print(f"{folder}  try it with: facestyle baseline stylize ntc PHOTO -o OUT --model {folder}")
    return 0
