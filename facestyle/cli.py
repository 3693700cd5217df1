"""The command line: one command builds its options and calls one function.

Exit codes: 0 everything done; 1 some inputs failed, the others are done; 2 wrong usage or setting; 3 the style or a
weights file cannot be used, or memory is too small for it; 4 the output cannot be written or uploaded; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle.allocator import tune_allocator
from facestyle.cli_common import (
    add_config,
    add_style,
    configured,
    input_files,
    listed,
    load_stylizer,
    named_pictures,
    output_files,
)
from facestyle.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    DeviceMemoryError,
    DownloadError,
    FacestyleError,
    ImageError,
    MissingDependencyError,
    OutputError,
    StyleNotFoundError,
    UploadError,
)

if TYPE_CHECKING:
    from facestyle.stylizer import FaceStylizer, StylizeResult

__all__ = ["main"]

_CHUNK = 4
"""Photos in memory at a time; enough to keep every core of a small machine busy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    tune_allocator()
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING, format="%(levelname)s %(message)s"
    )
    try:
        code = args.run(args)
        assert isinstance(code, int)
        return code
    except (ConfigError, ImageError, DatasetError, MissingDependencyError) as error:
        return _fail(error, 2)
    except (StyleNotFoundError, CheckpointError, DownloadError, DeviceMemoryError) as error:
        return _fail(error, 3)
    except (OutputError, UploadError) as error:
        return _fail(error, 4)
    except KeyboardInterrupt:
        print("facestyle: interrupted", file=sys.stderr)
        return 130


def _fail(error: FacestyleError, code: int) -> int:
    print(f"facestyle: {type(error).__name__}: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    from facestyle import __version__, portraits_cli
    from facestyle.baselines.cli import add_parser as add_baseline
    from facestyle.compare_cli import add_parser as add_compare
    from facestyle.evaluation.cli import add_parser as add_evaluate
    from facestyle.hub.cli import add_parsers as add_hub
    from facestyle.import_cli import add_parser as add_import
    from facestyle.training.cli import add_parser as add_train_diffusion

    parser = argparse.ArgumentParser(
        prog="facestyle",
        description="Turn face photos into stylized portraits.",
        epilog=__doc__.split("\n\n")[1],
    )
    parser.add_argument("--version", action="version", version=f"facestyle {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    stylize = commands.add_parser("stylize", help="stylize photos or a folder of photos")
    stylize.add_argument("inputs", nargs="+", metavar="IN", help="picture files or folders")
    stylize.add_argument("-o", "--output", required=True, help="folder, or a .png for one input")
    add_style(stylize)
    portraits_cli.add_psi_and_seed(stylize)
    portraits_cli.add_stylizing(stylize, faces="all")
    portraits_cli.add_portraits(stylize)
    stylize.set_defaults(run=_stylize)
    portraits_cli.add_parsers(commands)

    info = commands.add_parser("info", help="styles, weights, licences, device, versions")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_info)

    bench = commands.add_parser("bench", help="median seconds by stage, cold start, peak memory")
    add_style(bench)
    bench.add_argument("--runs", type=int, default=9, help="timed runs after the warm-up")
    bench.add_argument(
        "--baselines", action="store_true",
        help="NTC, InST and StyleID beside ours, on a Stable Diffusion of random weights",
    )  # fmt: skip
    bench.add_argument(
        "--generator", action="store_true",
        help="the networks that encode and draw, StyleGAN2 at 1024 px too, in every form there is for the device",
    )  # fmt: skip
    bench.add_argument(
        "--size", choices=("full", "tiny"), help="of that model; default: full on CUDA, else tiny"
    )
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(run=_bench)

    export = commands.add_parser("export", help="a style as ONNX or TorchScript files")
    export.add_argument("-o", "--output", required=True, help="folder")
    add_style(export)
    export.add_argument("--format", choices=("onnx", "torchscript"), default="onnx")
    export.add_argument(
        "--time", action="store_true", help="onnx: also time the runtimes that are installed"
    )
    export.add_argument("--json", action="store_true")
    export.set_defaults(run=_export)

    encoder = commands.add_parser("train-encoder", help="train an encoder: aligned photo to code")
    encoder.add_argument(
        "--faces", nargs="+", required=True, help="folders or zips, aligned photos"
    )
    encoder.add_argument("--val-faces", required=True, help="folder or zip of held-out photos")
    encoder.add_argument(
        "-o", "--output", required=True, help="folder of the run; resumed if there"
    )
    encoder.add_argument("--init", help="encoder file to start from")
    encoder.add_argument(
        "--space", choices=["w", "w_plus", "z_plus"], default="w", help="latent space of the codes"
    )
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
    train.add_argument("-o", "--output", required=True, help="folder of the run; resumed if there")
    train.add_argument("--name", required=True, help="short name of the style, lower case")
    train.add_argument(
        "--data-license", required=True, help="licence of the pictures, kept with the style"
    )
    train.add_argument("--psi", type=float, default=0.7, help="default truncation of the style")
    train.add_argument(
        "--preset", choices=["fast", "default", "quality", "faithful"], default="default"
    )
    train.add_argument("--init", help="style's folder or weights to start from, instead of G")
    train.add_argument("--pairs", help="known pairs, made by: facestyle pairs --codes")
    _add_plus_encoders(train)
    train.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(train, "facestyle.training.pipeline", "TrainConfig")
    train.set_defaults(run=_train)

    pairs = commands.add_parser("pairs", help="make pseudo-pairs of style pictures and faces")
    pairs.add_argument("pictures", nargs="+", help="folders or zips of aligned style pictures")
    pairs.add_argument("-o", "--output", required=True, help="folder of the run; resumed if there")
    pairs.add_argument("--level", type=int, choices=[1, 2, 3], default=2, help="highest level")
    pairs.add_argument("--star", help="folder of a run of G*; trained if absent, default OUT/star")
    pairs.add_argument("--codes", help="safetensors with known codes w, a row a picture: no search")
    _add_plus_encoders(pairs)
    pairs.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(pairs, "facestyle.training.pairs", "PairsConfig")
    pairs.set_defaults(run=_pairs)

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
    _add_plus_encoders(ablate)
    ablate.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_config(ablate, "facestyle.training.pipeline", "TrainConfig")
    ablate.set_defaults(run=_ablate)

    add_evaluate(commands)
    add_train_diffusion(commands)
    add_baseline(commands)
    add_compare(commands)
    add_hub(commands)
    add_import(commands)
    return parser


def _add_plus_encoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder-z", help="file of E_z+; default: the bundled one")
    parser.add_argument("--encoder-w-plus", help="file of E_w+; default: the bundled one")


def _stylize(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from facestyle.portraits_cli import print_row, save_result, stylizing_options, summary_row

    inputs = input_files(args.inputs)
    outputs = output_files(inputs, Path(args.output))
    stylizer = load_stylizer(args)
    options = {"psi": args.psi, "seed": args.seed, **stylizing_options(args)}
    rows: list[dict[str, Any]] = []
    bar = tqdm(total=len(inputs), desc=args.style, disable=len(inputs) < 2 or args.json)
    for start in range(0, len(inputs), _CHUNK):
        chunk = inputs[start : start + _CHUNK]
        for source, outcome in zip(chunk, _attempt(stylizer, chunk, options), strict=True):
            if isinstance(outcome, FacestyleError):
                rows.append({"input": str(source), "error": type(outcome).__name__,
                             "message": str(outcome)})  # fmt: skip
            else:
                written = save_result(outcome, outputs[source], portraits=args.portraits)
                rows.append(summary_row(source, written, len(outcome.faces), outcome.seconds))
            bar.update()
    bar.close()
    failed = [row for row in rows if "error" in row]
    if args.json:
        print(json.dumps({"style": args.style, "done": len(rows) - len(failed),
                          "failed": len(failed), "results": rows}, indent=2))  # fmt: skip
    else:
        for row in rows:
            if "error" not in row:
                print_row(row)
    for row in failed:
        print(f"facestyle: {row['error']}: {row['message']}", file=sys.stderr)
    return 1 if failed else 0


def _attempt(
    stylizer: FaceStylizer, chunk: list[Path], options: dict[str, Any]
) -> list[StylizeResult | FacestyleError]:
    """Results of a chunk, together if all goes well, else one by one with each one's error."""
    if len(chunk) > 1:
        try:
            return list(stylizer(list(chunk), **options))
        except ImageError:
            pass
    outcomes: list[StylizeResult | FacestyleError] = []
    for path in chunk:
        try:
            outcomes.append(stylizer(path, **options))
        except ImageError as error:
            outcomes.append(error)
    return outcomes


def _info(args: argparse.Namespace) -> int:
    from facestyle.bench import describe

    facts = describe()
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for title, rows in facts.items():
        print(title)
        for name, value in rows.items():
            shown = "  ".join(str(v) for v in value.values()) if isinstance(value, dict) else value
            print(f"  {name:<32} {shown}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    if args.baselines:
        from facestyle.baselines.bench import bench_baselines, format_baselines

        timed = bench_baselines(
            size=args.size, device=args.device, dtype=args.dtype, runs=args.runs, style=args.style
        )
        print(json.dumps(timed, indent=2) if args.json else format_baselines(timed))
        return 0
    if args.generator:
        from facestyle.generator_bench import bench_generators, format_generators

        found = bench_generators(device=args.device, runs=args.runs)
        print(json.dumps(found, indent=2) if args.json else format_generators(found))
        return 0
    from facestyle.bench import format_bench, run_bench

    report = run_bench(args.style, device=args.device, dtype=args.dtype, runs=args.runs)
    print(json.dumps(report, indent=2) if args.json else format_bench(report))
    return 0


def _export(args: argparse.Namespace) -> int:
    from facestyle.export import export_style

    dtype = "float32" if args.dtype == "auto" else args.dtype
    if args.time and args.format != "onnx":
        raise ConfigError(
            "--time compares runtimes of ONNX files; leave it out, or use --format onnx"
        )
    args.device, args.dtype = args.device or "cpu", "float32"
    stylizer = load_stylizer(args)
    report = export_style(stylizer, args.output, args.format, dtype=dtype)
    if args.time:
        from facestyle.export_bench import time_backends

        report["timing"] = time_backends(stylizer, args.output)
    if args.json:
        print(json.dumps(report, indent=2))
        return 0
    for name, facts in report["files"].items():
        size, error = facts["bytes"] / 1e6, facts["mean_error"]
        print(
            f"{Path(args.output) / name}  {size:.1f} MB, {error} standard deviations from PyTorch"
        )
    for runtime, seconds in report.get("timing", {}).get("seconds", {}).items():
        print(f"{runtime:<12} " + "  ".join(f"{part} {s:.3f} s" for part, s in seconds.items()))
    return 0


def _train_encoder(args: argparse.Namespace) -> int:
    from facestyle.models.zoo import load_base_generator
    from facestyle.training.encoder import EncoderConfig, train_encoder

    config = configured(EncoderConfig(space=args.space), args.set)
    print(listed(config))
    if args.dry_run:
        return 0
    train_encoder(
        load_base_generator(), args.output, args.faces, args.val_faces, config, init=args.init
    )
    print(Path(args.output) / "encoder.safetensors")
    return 0


def _train(args: argparse.Namespace) -> int:
    from facestyle.models.zoo import load_base_generator
    from facestyle.training.folder import check_folder
    from facestyle.training.pairs import PairStore
    from facestyle.training.pipeline import PRESETS, train_style
    from facestyle.training.processes import Processes

    config = configured(PRESETS[args.preset], args.set)
    known = PairStore.load(args.pairs) if args.pairs else None
    print(listed(config))
    if args.dry_run:
        if known is None:
            print(check_folder(args.pictures, aligned=args.aligned).format(examples=40))
        return 0
    folder = train_style(
        load_base_generator(), args.pictures, args.output, config,
        name=args.name, psi=args.psi, data_license=args.data_license, aligned=args.aligned, pairs=known,
        init=args.init,
        encoder_z=args.encoder_z, encoder_w_plus=args.encoder_w_plus,
        processes=Processes(args.device),
    )  # fmt: skip
    name = folder if folder.is_absolute() else f"./{folder}"
    print(f'{folder}  load it with FaceStylizer.from_pretrained("{name}")')
    return 0


def _pairs(args: argparse.Namespace) -> int:
    from facestyle.models.checkpoints import read_tensors
    from facestyle.models.zoo import load_base_generator
    from facestyle.training.data import PictureSet
    from facestyle.training.pairs import FILE, PairsConfig, given_pairs
    from facestyle.training.pipeline import find_pairs
    from facestyle.training.processes import Processes

    config = configured(PairsConfig(level=args.level), args.set)
    print(listed(config))
    if args.dry_run:
        return 0
    folder = Path(args.output)
    generator = load_base_generator()
    if args.codes:
        pictures = PictureSet(args.pictures, generator.preview_resolution)
        tensors = read_tensors(args.codes)
        if len(tensors) != 1:
            raise ConfigError(f"{args.codes} holds {len(tensors)} tensors; expected one, the codes")
        (codes,) = tensors.values()
        given_pairs(pictures, codes, generator.num_ws).save(folder / FILE)
        print(folder / FILE)
        return 0
    find_pairs(
        generator, args.pictures, folder, config, star=args.star or folder / "star",
        encoder_z=args.encoder_z, encoder_w_plus=args.encoder_w_plus,
        processes=Processes(args.device),
    )  # fmt: skip
    print(f"{folder / FILE}  look at {folder / 'sheet.png'}")
    return 0


def _ablate(args: argparse.Namespace) -> int:
    from facestyle.models.zoo import load_base_generator
    from facestyle.training.ablation import CONSTRAINTS, LEVELS, ablate
    from facestyle.training.pipeline import PRESETS
    from facestyle.training.processes import Processes

    styles = named_pictures(args.styles)
    config = configured(PRESETS[args.preset], args.set)
    print(listed(config))
    if args.dry_run:
        return 0
    variants = args.variants.split(",") if args.variants else (*CONSTRAINTS, *LEVELS)
    report = ablate(
        load_base_generator(), styles, args.output, config,
        encoder_z=args.encoder_z, encoder_w_plus=args.encoder_w_plus, variants=variants,
        samples=args.samples, judge_name=args.judge, processes=Processes(args.device),
    )  # fmt: skip
    print(report)
    return 0
