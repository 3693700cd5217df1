"""``facestyle baseline``: train, import and run the methods facestyle is compared with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle.cli_common import (
    add_base,
    configured,
    input_files,
    listed,
    load_base,
    output_files,
    set_paths,
)
from facestyle.errors import ConfigError, FacestyleError, ImageError, NoFaceError

if TYPE_CHECKING:
    from torch import Tensor

    from facestyle.baselines.registry import DiffusionModel
    from facestyle.faces.detect import FaceDetector
    from facestyle.models.generator import Generator

__all__ = ["add_parser"]

_TRAINED = ("inst", "styleid", "toonify", "ugatit", "ui2i")
_IMPORTED = ("dualstylegan", "ugatit")
_METHODS = tuple(sorted({*_TRAINED, *_IMPORTED, "ntc"}))
_ON_A_BASE = ("toonify", "ugatit", "ui2i")


def add_parser(commands: Any) -> None:
    """Add ``baseline`` with its own commands to a command line's subparsers."""
    baseline = commands.add_parser("baseline", help="methods to compare with: train, import, run")
    actions = baseline.add_subparsers(required=True, metavar="ACTION")

    train = actions.add_parser("train", help="train a method on a style's pictures")
    train.add_argument("method", choices=_TRAINED)
    train.add_argument("pictures", nargs="+", help="folders or zips of aligned style pictures")
    train.add_argument("-o", "--output", required=True, help="folder of the run; resumed if there")
    train.add_argument(
        "--faces",
        nargs="+",
        action="extend",
        help="ugatit: folders or zips of aligned photos; default: people of the base generator",
    )
    train.add_argument("--minutes", type=float, help="ugatit: train so long, all sittings together")
    train.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_base(train)
    _add_model(train)
    train.add_argument("--dry-run", action="store_true", help="print the settings and stop")
    _add_set(train, "of its training")
    train.set_defaults(run=_train)

    stylize = actions.add_parser("stylize", help="stylize photos: the largest face of each")
    stylize.add_argument("method", choices=_METHODS)
    stylize.add_argument("inputs", nargs="+", metavar="PHOTO", help="picture files or folders")
    stylize.add_argument("--run", dest="folder", help="trained or imported folder; ntc needs none")
    stylize.add_argument("-o", "--output", required=True, help="folder, or a .png for one input")
    stylize.add_argument("--already-aligned", action="store_true", help="inputs are FFHQ crops")
    stylize.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    add_base(stylize)
    _add_model(stylize)
    _add_set(stylize, "of how a photo becomes a picture")
    stylize.set_defaults(run=_stylize)

    imported = actions.add_parser("import", help="convert the authors' checkpoint files")
    imported.add_argument("method", choices=_IMPORTED)
    imported.add_argument(
        "files", nargs="+",
        help="dualstylegan: generator.pt, encoder.pt, exstyle_code.npy; ugatit: a params file",
    )  # fmt: skip
    imported.add_argument("-o", "--output", required=True, help="folder")
    imported.set_defaults(run=_import)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", help="ntc, inst, styleid: Hub repository or folder of a Stable Diffusion 1.x"
    )
    parser.add_argument("--dtype", default="auto", help="of its networks; default: auto")
    parser.add_argument(
        "--memory", default="all", choices=("all", "low"), help="low: one network at a time on CUDA"
    )
    parser.add_argument("--revision", default="", help="branch, tag or commit of the repository")
    parser.add_argument("--variant", default="", help="of its weights' files, such as fp16")


def _model(args: argparse.Namespace) -> DiffusionModel:
    """The Stable Diffusion that is named.

    Raises:
        ConfigError: the method draws with none.
    """
    from facestyle.baselines.registry import DIFFUSION, DiffusionModel

    asked = {name: getattr(args, name) for name in ("dtype", "memory", "revision", "variant")}
    given = DiffusionModel(**asked, **({} if args.model is None else {"model": args.model}))
    if args.method not in DIFFUSION and (args.model is not None or given != DiffusionModel()):
        raise ConfigError(
            f"--model, --dtype, --memory, --revision and --variant are of {', '.join(DIFFUSION)}; leave them out of "
            f"{args.method}"
        )
    return given


def _base(args: argparse.Namespace) -> Generator | None:
    """The base generator that is named, if one is.

    Raises:
        ConfigError: the method builds on none, or it is no import.
    """
    if args.base is None:
        return None
    if args.method not in _ON_A_BASE:
        raise ConfigError(
            f"--base is for {', '.join(_ON_A_BASE)}; {args.method} brings its own networks"
        )
    return load_base(args)


def _add_set(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help=f"any of the method's settings {what}; may be repeated",
    )  # fmt: skip


def _train(args: argparse.Namespace) -> int:
    from facestyle.baselines.registry import (
        DIFFUSION,
        check_train_settings,
        make_baseline,
        train_config,
    )

    config = configured(train_config(args.method), args.set)
    check_train_settings(args.method, set_paths(args.set))
    print(listed(config))
    if args.dry_run:
        return 0
    settings = {"stylize": config} if args.method in DIFFUSION else {"train": config}
    method = make_baseline(
        args.method, faces=args.faces, minutes=args.minutes, device=args.device, model=_model(args),
        base=_base(args), **settings,
    )  # fmt: skip
    method.prepare(args.pictures, args.output)
    print(args.output)
    return 0


def _stylize(args: argparse.Namespace) -> int:
    from facestyle.baselines.registry import check_draw_settings, make_baseline, stylize_config
    from facestyle.faces.detect import FaceDetector
    from facestyle.image import save_png, to_pil
    from facestyle.portraits_cli import refuse_overwriting
    from facestyle.runtime import choose_device

    if args.folder is None and args.method != "ntc":
        raise ConfigError(f"{args.method} needs --run, the folder it was trained or imported into")
    if args.folder is not None and args.method == "ntc":
        raise ConfigError("ntc learns nothing, so that there is nothing in --run; leave it out")
    config = stylize_config(args.method)
    if args.set:
        config = configured(config, args.set)
        check_draw_settings(args.method, set_paths(args.set))
    inputs = input_files(args.inputs)
    outputs = output_files(inputs, Path(args.output))
    refuse_overwriting(outputs.values(), inputs)
    method = make_baseline(
        args.method, stylize=config, device=args.device, model=_model(args), base=_base(args)
    )
    if args.method != "ntc":
        method.load(args.folder)
    detector = None if args.already_aligned else FaceDetector(choose_device(args.device))
    failed = 0
    for number, path in enumerate(inputs):
        try:
            crop = _crop(path, detector)
        except ImageError as error:
            failed += 1
            print(_line(error), file=sys.stderr)
            continue
        img = method.stylize(crop, first=number, progress=True)
        print(save_png(to_pil(img), outputs[path]))
    return 1 if failed else 0


def _line(error: FacestyleError) -> str:
    return f"facestyle: {type(error).__name__}: {error}"


def _crop(path: Path, detector: FaceDetector | None) -> Tensor:
    """[1, 3, 512, 512], the largest face of a photo, or the whole of an aligned one.

    Raises:
        ImageError: the photo cannot be read, or shows no face.
    """
    from facestyle.faces.align import align, full_image_quad
    from facestyle.image import load_image, to_tensor

    photo = load_image(path)
    if detector is None:
        quad = full_image_quad(photo.size)
    else:
        found = detector.detect(photo)
        if not found:
            raise NoFaceError(
                "no face found; pass an aligned square with --already-aligned",
                image_size=photo.size,
                path=path,
            )
        quad = found[0].quad
    return to_tensor(align(photo, quad, 512))


def _import(args: argparse.Namespace) -> int:
    from facestyle.errors import ConfigError

    if args.method == "dualstylegan":
        from facestyle.baselines.dualstylegan import import_dualstylegan

        for path in import_dualstylegan(args.files, args.output):
            print(path)
        return 0
    from facestyle.baselines.ugatit import import_ugatit

    if len(args.files) != 1:
        raise ConfigError(f"ugatit is imported from one file, got {len(args.files)}")
    print(import_ugatit(args.files[0], args.output))
    return 0
