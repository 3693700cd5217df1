"""The command line: one command builds its options and calls one function.

Exit codes: 0 everything done; 1 some inputs failed, the others are done; 2 wrong usage or setting; 3 the style or a
weights file cannot be used, or memory is too small for it; 4 the output cannot be written or uploaded; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from facestyle.cli_common import add_style, load_stylizer
from facestyle.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    DeviceMemoryError,
    DownloadError,
    FacestyleError,
    ImageError,
    LatentShapeError,
    MissingDependencyError,
    OutputError,
    StyleNotFoundError,
    UploadError,
    ran_out,
    too_little_memory,
)
from facestyle.tuning import tune_process

__all__ = ["main"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk, or a share of it, that is full."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    tune_process()
    _ready_stdout()
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING, format="%(levelname)s %(message)s"
    )
    try:
        with contextlib.redirect_stdout(_Stdout(sys.stdout)):
            code = args.run(args)
            sys.stdout.flush()
        assert isinstance(code, int)
        return code
    except ImageError as error:
        return _fail(error, 1)
    except (ConfigError, DatasetError, LatentShapeError, MissingDependencyError) as error:
        return _fail(error, 2)
    except (StyleNotFoundError, CheckpointError, DownloadError, DeviceMemoryError) as error:
        return _fail(error, 3)
    except (OutputError, UploadError) as error:
        return _fail(error, 4)
    except FacestyleError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("facestyle: interrupted", file=sys.stderr)
        return 130
    except _UnheardError as error:
        return _unheard(error.cause)
    except OSError as error:
        if error.errno == errno.EPIPE and error.filename is None:
            return _unheard(error)
        if error.errno not in _FULL:
            raise
        where = error.filename or getattr(args, "output", ".")
        why = "the disk is full; free some space and run the same command again"
        return _fail(OutputError(why, path=where), 4)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        return _fail(too_little_memory("the command", error), 3)


def _ready_stdout() -> None:
    """Standard output that takes every path, and says nothing where it is closed."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(error: FacestyleError, code: int) -> int:
    print(f"facestyle: {type(error).__name__}: {error}", file=sys.stderr)
    return code


def _unheard(error: OSError) -> int:
    """The exit code where standard output takes no more: its reader has left, as ``head`` does, or a disk is full."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # for what is still to be flushed
    if error.errno == errno.EPIPE:
        return 4
    return _fail(OutputError(f"cannot be written to: {error.strerror}", path="standard output"), 4)


class _UnheardError(Exception):
    """Standard output takes no more."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Stdout:
    """Standard output whose failures are told from those of other files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream itself.

        Raises:
            _UnheardError: it cannot.
        """
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _UnheardError(error) from error

    def flush(self) -> None:
        """As the stream itself.

        Raises:
            _UnheardError: it cannot.
        """
        try:
            self._stream.flush()
        except OSError as error:
            raise _UnheardError(error) from error


class _Parser(argparse.ArgumentParser):
    """Each command tells what it does not know itself, with its own usage and the option that may have been meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            message = f"unrecognized arguments: {' '.join(unknown)}"
            options = [name for name in self._option_string_actions if name.startswith("--")]
            wrong = next((name for name in unknown if name.startswith("--")), "")
            near = difflib.get_close_matches(wrong.split("=")[0], options, n=1)
            self.error(f"{message}; did you mean {near[0]}?" if near else message)
        return known, unknown


def _parser() -> argparse.ArgumentParser:
    from facestyle import __version__, portraits_cli
    from facestyle.baselines.cli import add_parser as add_baseline
    from facestyle.compare_cli import add_parser as add_compare
    from facestyle.evaluation.cli import add_parser as add_evaluate
    from facestyle.hub.cli import add_parsers as add_hub
    from facestyle.import_cli import add_parser as add_import
    from facestyle.stylize_cli import add_parser as add_stylize
    from facestyle.training.cli import add_parser as add_train_diffusion
    from facestyle.training.style_cli import add_parsers as add_training

    parser = _Parser(
        prog="facestyle",
        description="Turn face photos into stylized portraits.",
        epilog=__doc__.split("\n\n")[1],
    )
    parser.add_argument("--version", action="version", version=f"facestyle {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_stylize(commands)
    portraits_cli.add_parsers(commands)

    info = commands.add_parser("info", help="styles, weights, licences, device, versions")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_info)

    bench = commands.add_parser("bench", help="median seconds by stage, cold start, peak memory")
    add_style(bench, revision=False)
    bench.add_argument(
        "--runs", type=int, help="timed runs after the warm-up; default: 9, of --training 3"
    )
    bench.add_argument(
        "--baselines", action="store_true",
        help="NTC, InST and StyleID beside ours, on a Stable Diffusion of random weights",
    )  # fmt: skip
    bench.add_argument(
        "--generator", action="store_true",
        help="the networks that encode and draw, StyleGAN2 at 1024 px too, in every form there is for the device",
    )  # fmt: skip
    bench.add_argument(
        "--training", action="store_true", help="what facestyle train takes here, from a few steps of each stage"
    )  # fmt: skip
    bench.add_argument("--preset", help="of --training; default: default")
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

    add_training(commands)
    add_evaluate(commands)
    add_train_diffusion(commands)
    add_baseline(commands)
    add_compare(commands)
    add_hub(commands)
    add_import(commands)
    return parser


def _info(args: argparse.Namespace) -> int:
    from facestyle.bench import describe
    from facestyle.styles import ADJUSTMENTS

    facts = describe()
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for title, rows in facts.items():
        print(title)
        for name, value in rows.items():
            if title == "styles":
                shares = ", ".join(f"{key} {value[key]:g}" for key in ADJUSTMENTS)
                shown = f"{value['title']}  {value['license']}  {shares}"
            elif title == "speed":
                shown = (
                    f"{value['photo_s']:.2f} s a photo, {value['refined_s']:.1f} s with refine=8, "
                    f"{value['peak_memory_mb'] / 1000:.1f} GB, {value['date']}; facestyle bench measures this machine"
                )
            else:
                shown = "  ".join(map(str, value.values())) if isinstance(value, dict) else value
            print(f"  {name:<40} {shown}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    if args.baselines + args.generator + args.training > 1:
        raise ConfigError(
            "--baselines, --generator and --training are benchmarks of their own; ask for one at a time"
        )
    if args.preset and not args.training:
        raise ConfigError("--preset is of --training; leave it out")
    if args.size and not args.baselines:
        raise ConfigError("--size is of the model of --baselines; leave it out")
    own = {
        "generator": "times the base networks in every number type",
        "training": "trains in float32 from the base",
    }
    for name, why in own.items():
        if getattr(args, name) and (args.style, args.dtype) != ("cartoon", "auto"):
            raise ConfigError(f"--{name} {why}; leave --style and --dtype out")
    runs = (3 if args.training else 9) if args.runs is None else args.runs
    if args.training:
        from facestyle.training.training_bench import bench_training, format_training

        taken = bench_training(
            args.preset or "default", device=args.device, runs=runs, progress=not args.json
        )
        print(json.dumps(taken, indent=2) if args.json else format_training(taken))
        return 0
    if args.baselines:
        from facestyle.baselines.bench import bench_baselines, format_baselines

        timed = bench_baselines(
            size=args.size,
            device=args.device,
            dtype=args.dtype,
            runs=runs,
            style=args.style,
            progress=not args.json,
        )
        print(json.dumps(timed, indent=2) if args.json else format_baselines(timed))
        return 0
    if args.generator:
        from facestyle.generator_bench import bench_generators, format_generators

        found = bench_generators(device=args.device, runs=runs)
        print(json.dumps(found, indent=2) if args.json else format_generators(found))
        return 0
    from facestyle.bench import format_bench, run_bench

    report = run_bench(args.style, device=args.device, dtype=args.dtype, runs=runs)
    print(json.dumps(report, indent=2) if args.json else format_bench(report))
    return 0


def _export(args: argparse.Namespace) -> int:
    from facestyle.export import export_style

    dtype = "float32" if args.dtype == "auto" else args.dtype
    if args.time and args.format != "onnx":
        raise ConfigError(
            "--time compares runtimes of ONNX files; leave it out, or use --format onnx"
        )
    if args.time and args.device not in (None, "cpu"):
        raise ConfigError("--time compares runtimes on the CPU; leave it out, or --device")
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
