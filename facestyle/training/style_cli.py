"""``facestyle train-encoder``, ``train``, ``hair``, ``likeness``, ``pairs``, ``ablate``: encoders and styles."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle.cli_common import (
    add_base,
    add_config,
    configured,
    listed,
    load_base,
    named_pictures,
    refuse_unread,
    usual_of,
)
from facestyle.errors import ConfigError
from facestyle.training.folder_report import LEAST_PX

if TYPE_CHECKING:
    from facestyle.training.pairs import PairStore
    from facestyle.training.pipeline import TrainConfig

__all__ = ["add_parsers"]

_SEARCH = ("level", "star", "set", "encoder_z", "encoder_w_plus")
"""Options of the search for codes, which known codes take the place of."""
_OF_PAIRS = ("star", "pairs")
"""Groups of settings that say how pairs are found; of level 1 they take no G*, whose settings are let be."""
_OFF = ("hair.steps=0", "hair.full_steps=0", "likeness.steps=0")
"""What leaves a stage out, which is read."""
_UNREAD = {
    **dict.fromkeys(
        _OF_PAIRS,
        "no pairs are looked for where style.pair_weight is 0 or --pairs names known ones",
    ),
    "hair": "hair is learned where hair.steps or hair.full_steps is above 0, such as 200 and 120",
    "likeness": "the map of codes is learned where likeness.steps is above 0, such as 250",
}
"""Why the settings of a stage are not read where it is left out."""


def add_parsers(commands: Any) -> None:
    """Add the commands to a command line's subparsers."""
    encoder = commands.add_parser("train-encoder", help="train an encoder: aligned photo to code")
    encoder.add_argument(
        "--faces", nargs="+", action="extend", required=True, help="folders or zips, aligned photos"
    )
    encoder.add_argument("--val-faces", required=True, help="folder or zip of held-out photos")
    encoder.add_argument(
        "-o", "--output", required=True, help="folder of the run; resumed if there"
    )
    encoder.add_argument("--init", help="encoder file to start from")
    encoder.add_argument(
        "--space", choices=["w", "w_plus", "z_plus"], default="w", help="latent space of the codes"
    )
    add_base(encoder)
    encoder.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(encoder, "facestyle.training.encoder", "EncoderConfig")
    encoder.set_defaults(run=_train_encoder)

    train = commands.add_parser("train", help="train a style from a folder of pictures")
    train.add_argument("pictures", nargs="+", help="folders or zips of style pictures")
    train.add_argument(
        "--aligned",
        choices=["auto", "yes", "no"],
        default="auto",
        help="are they squares around one head each? no: faces are looked for and cut out",
    )
    train.add_argument(
        "--min-side", type=int, metavar="PX", default=LEAST_PX,
        help="least side of what is used of a picture; smaller ones are left out; default: %(default)s",
    )  # fmt: skip
    train.add_argument("-o", "--output", required=True, help="folder of the run; resumed if there")
    train.add_argument("--name", required=True, help="short name of the style, lower case")
    train.add_argument(
        "--data-license", required=True, help="licence of the pictures, kept with the style"
    )
    train.add_argument(
        "--license", help="licence of the style's weights, such as CC-BY-4.0, kept with the style"
    )
    train.add_argument("--psi", type=float, default=1.0, help="default truncation of the style")
    train.add_argument(
        "--keep-shape", type=float, metavar="SHARE",
        help="how much of people's own shapes and expression the finished style keeps, 0 to 1; default: 0, or what it "
        "had; a finished one takes another when the command is run again",
    )  # fmt: skip
    train.add_argument(
        "--preset",
        choices=["fast", "default", "quality", "faithful", "patches", "portrait"],
        default="default",
    )
    train.add_argument("--init", help="style's folder, run or weights to start from, instead of G")
    train.add_argument("--pairs", help="pairs made by facestyle pairs, found or known")
    train.add_argument("--encoder", help="file of E_w, which reads photos; kept with the style")
    add_base(train)
    _add_plus_encoders(train)
    train.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(train, "facestyle.training.pipeline", "TrainConfig")
    of_train = usual_of(train, ("aligned", "min_side", "encoder_z", "encoder_w_plus"))
    train.set_defaults(run=lambda args: _train(args, of_train))

    hair = commands.add_parser(
        "hair", help="give a finished style's portraits their people's own hair, clothes and ground"
    )
    _add_finished(hair)
    add_config(hair, "facestyle.training.hair", "HairConfig")
    hair.set_defaults(run=_hair)

    likeness = commands.add_parser(
        "likeness", help="make a finished style's portraits more like their people"
    )
    _add_finished(likeness)
    add_config(likeness, "facestyle.training.likeness", "LikenessConfig")
    likeness.set_defaults(run=_likeness)

    pairs = commands.add_parser("pairs", help="make pseudo-pairs of style pictures and faces")
    pairs.add_argument("pictures", nargs="+", help="folders or zips of aligned style pictures")
    pairs.add_argument("-o", "--output", required=True, help="folder of the run; resumed if there")
    pairs.add_argument("--level", type=int, choices=[1, 2, 3], default=2, help="highest level")
    pairs.add_argument("--star", help="folder of a run of G*; trained if absent, default OUT/star")
    pairs.add_argument("--codes", help="safetensors with known codes w, a row a picture: no search")
    add_base(pairs)
    _add_plus_encoders(pairs)
    pairs.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(pairs, "facestyle.training.pairs", "PairsConfig")
    of_pairs = usual_of(pairs, _SEARCH)
    pairs.set_defaults(run=lambda args: _pairs(args, of_pairs))

    ablate = commands.add_parser("ablate", help="each constraint and pair level alone: two tables")
    ablate.add_argument(
        "styles", nargs="+", metavar="NAME=PICTURES", help="styles: a name, and a folder or zip"
    )
    ablate.add_argument(
        "-o", "--output", required=True, help="folder of the runs; resumed if there"
    )
    ablate.add_argument("--variants", default="", help="comma-separated; default: all seven")
    ablate.add_argument("--samples", type=int, default=64, help="people on whom it is measured")
    ablate.add_argument("--judge", default="auto", help="identity network that judges")
    ablate.add_argument(
        "--preset", choices=["fast", "default", "quality", "faithful"], default="fast"
    )
    add_base(ablate)
    _add_plus_encoders(ablate)
    ablate.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(ablate, "facestyle.training.pipeline", "TrainConfig")
    ablate.set_defaults(run=_ablate)


def _add_finished(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("style", help="name, ./folder or user/repository of a style")
    parser.add_argument("-o", "--output", required=True, help="folder of the run; resumed if there")
    parser.add_argument("--device", help="cpu, cuda or mps; default: the best there is")


def _add_plus_encoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder-z", help="file of E_z+; default: the base generator's")
    parser.add_argument("--encoder-w-plus", help="file of E_w+; default: the base generator's")


def _refuse_settings(assignments: Iterable[str], unread: Mapping[str, str]) -> None:
    """Refuse settings that are not read, by name or with all of their stage, each with the reason.

    Raises:
        ConfigError: there is one.
    """
    for text in assignments:
        name = text.partition("=")[0]
        why = unread.get(name, unread.get(name.partition(".")[0]))
        if why is not None and text not in _OFF:
            raise ConfigError(f"{name} is not read: {why}; leave it out")


def _train_encoder(args: argparse.Namespace) -> int:
    from facestyle.training.encoder import EncoderConfig, train_encoder

    config = configured(EncoderConfig(space=args.space), args.set)
    print(listed(config))
    if args.dry_run:
        return 0
    train_encoder(
        load_base(args), args.output, args.faces, args.val_faces, config,
        init=args.init, device=args.device,
    )  # fmt: skip
    print(Path(args.output) / "encoder.safetensors")
    return 0


def _train_config(
    args: argparse.Namespace, usual: Mapping[str, Any], known: PairStore | None
) -> TrainConfig:
    """What to train.

    Raises:
        ConfigError: the settings contradict each other or the pairs, or options would not be read.
    """
    from facestyle.training.pipeline import PRESETS

    preset = PRESETS[args.preset]
    if known is not None:
        # Which levels there are, these pairs say.
        preset = replace(preset, pairs=replace(preset.pairs, level=3))
    config: TrainConfig = configured(preset, args.set)
    config.check_pairs(are_known=known is not None)
    if known is not None:
        if not config.style.pair_weight:
            raise ConfigError(
                "--pairs is not read where style.pair_weight is 0; leave it out, or --set style.pair_weight=1"
            )
        known.codes(config.style.pair_level)
        refuse_unread(args, usual, usual, "--pairs names known pairs of the pictures as they are")
        level = max(PRESETS[args.preset].pairs.level, config.style.pair_level)
        config = replace(config, pairs=replace(config.pairs, level=level))
    if not config.uses_pairs:
        refuse_unread(args, usual, ("encoder_z", "encoder_w_plus"), _UNREAD["pairs"])
    if config.pairs.level < 3:
        refuse_unread(args, usual, ("encoder_w_plus",), "it is for pairs of level 3")
    searches = config.uses_pairs and known is None
    read = {*config.stages, *_OF_PAIRS} if searches else set(config.stages) - set(_OF_PAIRS)
    _refuse_settings(args.set, {stage: _UNREAD[stage] for stage in _UNREAD if stage not in read})
    return config


def _train(args: argparse.Namespace, usual: Mapping[str, Any]) -> int:
    from facestyle.processes import Processes
    from facestyle.styles import check_style_name
    from facestyle.training.folder import check_folder
    from facestyle.training.pair_report import pair_table, read_report
    from facestyle.training.pairs import PairStore
    from facestyle.training.pipeline import train_style

    check_style_name(args.name)
    if not args.data_license.strip():
        raise ConfigError(
            "--data-license is empty; say under which licence the pictures are, or: unknown"
        )
    known = PairStore.load(args.pairs) if args.pairs else None
    config = _train_config(args, usual, known)
    print(listed(config))
    if args.dry_run:
        if known is None:
            found = check_folder(args.pictures, aligned=args.aligned, min_side_px=args.min_side)
            print(found.format(examples=40))
        return 0
    processes = Processes(args.device)
    folder = train_style(
        load_base(args), args.pictures, args.output, config,
        name=args.name, psi=args.psi, keep_shape=args.keep_shape, data_license=args.data_license,
        license=args.license, aligned=args.aligned,
        min_side_px=args.min_side, pairs=known, init=args.init, encoder=args.encoder, encoder_z=args.encoder_z,
        encoder_w_plus=args.encoder_w_plus, processes=processes,
    )  # fmt: skip
    processes.end()
    if not processes.is_main:
        return 0
    run = folder.parent
    if known is None and config.uses_pairs and (report := read_report(run / "pairs")):
        print(f"{pair_table(report)}\n")
    name = run if run.is_absolute() else f"./{run}"
    print(f'{folder}  load it with FaceStylizer.from_pretrained("{name}")')
    return 0


def _hair(args: argparse.Namespace) -> int:
    from facestyle.training.hair import HairConfig, give_hair

    return _changed(args, HairConfig(), give_hair, "hair")


def _likeness(args: argparse.Namespace) -> int:
    from facestyle.training.likeness import LikenessConfig, liken_style

    return _changed(args, LikenessConfig(), liken_style, "likeness")


def _changed(args: argparse.Namespace, config: Any, change: Callable[..., Path], run: str) -> int:
    """Change a finished style by a function of its folder, the output folder and the settings."""
    from facestyle.processes import Processes
    from facestyle.styles import find_style

    config, style = configured(config, args.set), find_style(args.style)
    print(listed(config))
    if args.dry_run:
        return 0
    processes = Processes(args.device)
    folder = change(style, args.output, config, processes=processes)
    processes.end()
    if processes.is_main:
        shown = folder if folder.is_absolute() else f"./{folder}"
        print(f"{folder}  look at {folder.parent / run / 'previews'}")
        print(f'load it with FaceStylizer.from_pretrained("{shown}")')
    return 0


def _pairs(args: argparse.Namespace, usual: Mapping[str, Any]) -> int:
    from facestyle.models.checkpoints import read_tensors
    from facestyle.portraits_cli import refuse_overwriting
    from facestyle.processes import Processes
    from facestyle.training.data import PictureSet
    from facestyle.training.pair_report import pair_table, read_report
    from facestyle.training.pairs import FILE, PairsConfig, given_pairs
    from facestyle.training.pipeline import find_pairs

    if args.codes:
        refuse_unread(args, usual, _SEARCH, "--codes names known codes, and none are looked for")
    config = configured(PairsConfig(level=args.level), args.set)
    if config.level < 2:
        refuse_unread(args, usual, ("star",), "G* is for levels 2 and 3")
    if config.level < 3:
        refuse_unread(args, usual, ("encoder_w_plus",), "it is for level 3")
    print(listed(config))
    if args.dry_run:
        return 0
    folder = Path(args.output)
    generator = load_base(args)
    if args.codes:
        refuse_overwriting([folder / FILE], [Path(args.codes)], what="codes")
        pictures = PictureSet(args.pictures, generator.preview_resolution)
        tensors = read_tensors(args.codes)
        if len(tensors) != 1:
            raise ConfigError(f"{args.codes} holds {len(tensors)} tensors; expected one, the codes")
        (codes,) = tensors.values()
        given_pairs(pictures, codes, generator.num_ws).save(folder / FILE)
        print(folder / FILE)
        return 0
    processes = Processes(args.device)
    find_pairs(
        generator, args.pictures, folder, config, star=args.star or folder / "star",
        encoder_z=args.encoder_z, encoder_w_plus=args.encoder_w_plus, processes=processes,
    )  # fmt: skip
    processes.end()
    if not processes.is_main:
        return 0
    if report := read_report(folder):
        print(f"{pair_table(report)}\n")
    print(f"{folder / FILE}  look at {folder / 'sheet.png'}")
    return 0


def _ablate(args: argparse.Namespace) -> int:
    from facestyle.processes import Processes
    from facestyle.training.ablation import CONSTRAINTS, LEVELS, ablate
    from facestyle.training.pipeline import PRESETS

    styles = named_pictures(args.styles)
    config = configured(PRESETS[args.preset], args.set)
    variants = args.variants.split(",") if args.variants else (*CONSTRAINTS, *LEVELS)
    _refuse_settings(
        args.set,
        dict.fromkeys(("hair", "likeness"), "ablate trains G' alone")
        | {
            "pairs.level": "variants say of which level pairs are",
            "style.held_out": "ablate keeps every variant's last",
        },
    )
    if args.encoder_w_plus and "W3+" not in variants and config.style.pair_level != 3:
        raise ConfigError(
            "--encoder-w-plus is for pairs of level 3, and no variant takes them; leave it out"
        )
    print(listed(config))
    if args.dry_run:
        return 0
    processes = Processes(args.device)
    report = ablate(
        load_base(args), styles, args.output, config,
        encoder_z=args.encoder_z, encoder_w_plus=args.encoder_w_plus, variants=variants,
        samples=args.samples, judge_name=args.judge, processes=processes,
    )  # fmt: skip
    processes.end()
    print(report)
    return 0
