"""``facestyle variations`` and ``facestyle reference``, and what ``facestyle stylize`` has in common with them."""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle.cli_common import (
    add_style,
    load_stylizer,
    output_files,
    refuse_other_pictures,
    refuse_unread,
    usual_of,
)
from facestyle.errors import ConfigError
from facestyle.files import at_home

if TYPE_CHECKING:
    from facestyle.reference import ReferenceCode
    from facestyle.results import StylizeResult
    from facestyle.stylizer import FaceStylizer

__all__ = [
    "add_parsers",
    "add_portraits",
    "add_psi_and_seed",
    "add_stylizing",
    "print_row",
    "refuse_overwriting",
    "refuse_replacing",
    "save_result",
    "stylizing_options",
    "summary_row",
]

_CODE_SUFFIX = ".safetensors"

_SEARCH = ("space", "init", "steps", "reference_aligned")
"""Options of the search for the code of a reference picture."""


def add_parsers(commands: Any) -> None:
    """Add the two commands to a command line's subparsers."""
    variations = commands.add_parser("variations", help="many portraits of one photo")
    variations.add_argument("photo", metavar="PHOTO", help="picture file")
    variations.add_argument(
        "-o", "--output", required=True, help="folder for the portraits and grid"
    )
    add_style(variations)
    variations.add_argument("-n", "--n", type=int, default=8, help="how many; default: 8")
    _add_mixing_level(variations, "follows random codes")
    variations.add_argument("--seed", type=int, default=0, help="of the first; the next is 1 more")
    variations.add_argument("--psi-content", type=float, help="of the face; default: the style's")
    variations.add_argument("--psi-style", type=float, help="of the codes; default: 0.8 or less")
    variations.add_argument(
        "--latent", choices=["z+", "z"], default="z+", help="a random z for each layer, or for all"
    )
    add_stylizing(variations, faces="largest")
    variations.add_argument(
        "--photos", action="store_true", help="also save each full photo, its faces pasted in"
    )
    variations.set_defaults(run=_variations)

    reference = commands.add_parser("reference", help="stylize a photo like a reference picture")
    reference.add_argument("photo", metavar="PHOTO", help="picture file")
    reference.add_argument("-o", "--output", required=True, help="folder, or a .png")
    reference.add_argument(
        "--reference",
        nargs="+",
        action="extend",
        required=True,
        metavar="REFERENCE",
        help=f"pictures, or codes ({_CODE_SUFFIX}) that --save-code kept; several are blended",
    )
    add_style(reference)
    _add_mixing_level(reference, "follows the reference")
    reference.add_argument("--alpha", type=float, default=1.0, help="share of the reference, 0-1")
    reference.add_argument(
        "--weights", nargs="+", action="extend", type=float, help="of several references"
    )
    reference.add_argument(
        "--save-code", help=f"keep the code: a {_CODE_SUFFIX} file; for several pictures a folder"
    )
    reference.add_argument(
        "--space", choices=["v", "w", "w_plus", "z_plus"], default="v", help="of the codes"
    )
    reference.add_argument(
        "--init",
        choices=["encoder", "mean"],
        default="encoder",
        help="where the search for a code starts; mean face: for pictures far from any photo",
    )
    reference.add_argument("--steps", type=int, help="of the search for a code")
    reference.add_argument(
        "--reference-aligned", action="store_true",
        help="reference pictures are FFHQ crops, as they must be where no face is found in them",
    )  # fmt: skip
    add_psi_and_seed(reference)
    add_stylizing(reference, faces="all")
    add_portraits(reference)
    usual = usual_of(reference, _SEARCH)
    reference.set_defaults(run=lambda args: _reference(args, usual))


def _add_mixing_level(parser: argparse.ArgumentParser, does: str) -> None:
    parser.add_argument(
        "--mixing-level",
        type=int,
        default=6,
        help=f"first layer that {does}: 3 features, 6 hair and clothes, 9, 12 colours; default: 6",
    )


def add_psi_and_seed(parser: argparse.ArgumentParser) -> None:
    """``--psi`` and ``--seed``, for commands with one result a photo."""
    parser.add_argument("--psi", type=float, help="truncation, 0 to 1.5; default: the style's")
    parser.add_argument(
        "--seed", type=int, default=0, help="any but 0 lays brush strokes and hair elsewhere"
    )


def add_stylizing(parser: argparse.ArgumentParser, *, faces: str) -> None:
    """Options that every way of stylizing takes; `stylizing_options` reads them."""
    parser.add_argument(
        "--strength", type=float, default=1.0, help="0 the photo, 1 full style, to 2: exaggerated"
    )
    parser.add_argument("--keep-color", type=float, default=0.0, help="0 to 1")
    parser.add_argument(
        "--keep-texture", type=float, default=0.0, help="0 to 1: hair, beard and skin as they are"
    )
    parser.add_argument(
        "--keep-shape", type=float, default=0.0, help="0 to 1: the face's shapes as they are"
    )
    parser.add_argument("--refine", type=int, default=0, help="optimisation steps for likeness")
    parser.add_argument(
        "--content-space",
        choices=["w", "w_plus", "z_plus"],
        default="w",
        help="where the face is encoded",
    )
    parser.add_argument(
        "--faces",
        type=_faces,
        default=faces,
        help=f'"all", "largest" or "0,2" (0 is the largest); default: {faces}',
    )
    parser.add_argument("--already-aligned", action="store_true", help="photos are FFHQ crops")
    parser.add_argument("--on-no-face", choices=["error", "skip", "center"], default="error")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")


def add_portraits(parser: argparse.ArgumentParser) -> None:
    """``--portraits``, for commands that write whole photos."""
    parser.add_argument(
        "--portraits", action="store_true", help="also save each face's 1024 px portrait"
    )


def _faces(text: str) -> str | list[int]:
    if text in ("all", "largest"):
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not all, largest or numbers: {text!r}") from None


def stylizing_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_stylizing` read, as arguments of the stylizer."""
    return {
        "strength": args.strength, "keep_color": args.keep_color, "keep_texture": args.keep_texture,
        "keep_shape": args.keep_shape, "refine": args.refine, "content_space": args.content_space, "faces": args.faces,
        "aligned": args.already_aligned, "on_no_face": args.on_no_face,
    }  # fmt: skip


def save_result(result: StylizeResult, target: Path, *, portraits: bool) -> list[Path]:
    """Write the photo, and each face's portrait beside it where wanted; what was written."""
    from facestyle.image import save_png

    written = [save_png(result.image, target, result.metadata())]
    if portraits:
        for i, face in enumerate(result.faces):
            path = target.with_stem(f"{target.stem}_face{i}")
            written.append(save_png(face.portrait, path, result.metadata()))
    return written


def refuse_overwriting(
    written: Iterable[Path],
    read: Iterable[Path],
    *,
    what: str = "inputs",
    portraits_of: Iterable[Path] = (),
) -> None:
    """Refuse to write over a file that the command reads, whatever path leads to it.

    Args:
        written: files that the command writes.
        read: files that it reads.
        what: these are, for the message.
        portraits_of: pictures beside which their faces' portraits are written too.

    Raises:
        ConfigError: a file is both.
    """
    sources = {_identity(path): path for path in read}
    pictures = {path.stem.lower(): path for path in portraits_of}
    portraits = []
    for source in sources.values():
        named = re.fullmatch(r"(.+)(_face\d+)", Path(os.path.realpath(at_home(source))).stem)
        if named and (picture := pictures.get(named[1].lower())):
            portraits.append(picture.with_stem(picture.stem + named[2]))
    for path in (*written, *portraits):
        if _identity(path) in sources:
            raise ConfigError(f"the output {path} is one of the {what}; name another")


def refuse_replacing(pictures: Iterable[Path]) -> None:
    """Refuse to write over pictures that facestyle did not make, and whose names nobody gave.

    Raises:
        ConfigError: there is one.
    """
    for path in pictures:
        if os.path.isfile(at_home(path)) and not _may_go(at_home(path)):
            raise ConfigError(
                f"{path} is there already and was not made by facestyle; name another folder, or move it away"
            )


def _may_go(path: Path) -> bool:
    """Whether a file says that facestyle made it, or is no picture."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return str(picture.info.get("Software", "")).startswith("facestyle")
    except (OSError, SyntaxError, ValueError):
        return True


def _identity(path: Path) -> tuple[int, int] | str:
    """The same for all paths of a file, there or not."""
    path = at_home(path)
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def summary_row(
    source: Path, written: Sequence[Path], faces: int, seconds: dict[str, float]
) -> dict[str, Any]:
    """What the summary says of a photo that is done."""
    return {
        "input": str(source), "outputs": [str(path) for path in written], "faces": faces,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }  # fmt: skip


def print_row(row: dict[str, Any]) -> None:
    """The same in one line."""
    print(f"{row['outputs'][0]}  {row['faces']} face(s)  {sum(row['seconds'].values()):.2f} s")


def _print_one(args: argparse.Namespace, row: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps({"style": args.style, **row}, indent=2))
    else:
        print_row(row)


def _variations(args: argparse.Namespace) -> int:
    from facestyle.image import save_png

    photo, folder = Path(args.photo), Path(args.output)
    if folder.suffix.lower() == ".png" and not os.path.isdir(folder):
        raise ConfigError(f"{args.n} portraits cannot go into the one file {folder}; name a folder")
    refuse_other_pictures(folder)
    grid = folder / f"{photo.stem}_grid.png"
    refuse_overwriting([grid], [photo])
    refuse_replacing([grid, *at_home(folder).glob(f"{glob.escape(photo.stem)}_seed*.png")])
    made = load_stylizer(args).variations(
        photo, args.n, mixing_level=args.mixing_level, seed=args.seed, psi_content=args.psi_content,
        psi_style=args.psi_style, latent=args.latent, progress=not args.json, **stylizing_options(args),
    )  # fmt: skip
    written = [save_png(made.grid(), grid, made[0].metadata())]
    for one in made:
        name = f"{photo.stem}_seed{one.seed}"
        for i, face in enumerate(one.faces):
            path = folder / f"{name}_face{i}.png" if len(one.faces) > 1 else folder / f"{name}.png"
            written.append(save_png(face.portrait, path, one.metadata()))
        if args.photos or not one.faces:
            written.append(save_png(one.image, folder / f"{name}_photo.png", one.metadata()))
    _print_one(args, summary_row(photo, written, len(made[0].faces), made.seconds))
    return 0


def _reference(args: argparse.Namespace, usual: Mapping[str, Any]) -> int:
    photo = Path(args.photo)
    references = [Path(text) for text in args.reference]
    (target,) = output_files([photo], Path(args.output)).values()
    kept = _code_files(references, args.save_code)
    written, with_portraits = [target, *kept.values()], [target] if args.portraits else []
    refuse_overwriting(written, [photo], portraits_of=with_portraits)
    refuse_overwriting(written, references, what="references", portraits_of=with_portraits)
    refuse_replacing([] if target == Path(args.output) else [target])
    if not _pictures_among(references):
        refuse_unread(args, usual, _SEARCH, "all references are codes, and none is searched for")
    _check_reference(args)
    stylizer = load_stylizer(args)
    codes = [_code(stylizer, path, kept.get(path), args) for path in references]
    result = stylizer.with_reference(
        photo, list(codes), mixing_level=args.mixing_level, alpha=args.alpha, weights=args.weights,
        psi=args.psi, seed=args.seed, **stylizing_options(args),
    )  # fmt: skip
    written = save_result(result, target, portraits=args.portraits)
    _print_one(args, summary_row(photo, written, len(result.faces), result.seconds))
    return 0


def _pictures_among(references: Sequence[Path]) -> list[Path]:
    return [path for path in references if path.suffix.lower() != _CODE_SUFFIX]


def _check_reference(args: argparse.Namespace) -> None:
    """Refuse wrong settings before a code is searched.

    Raises:
        ConfigError: one is out of range.
    """
    from facestyle.latents import check_mixing
    from facestyle.options import Options
    from facestyle.reference import check_search

    Options(psi=args.psi, seed=args.seed, **stylizing_options(args))
    check_mixing(args.mixing_level, args.alpha, len(args.reference), args.weights)
    check_search(args.space, args.init, args.steps)


def _code_files(references: Sequence[Path], save_code: str | None) -> dict[Path, Path]:
    """Where the code of each reference picture is kept.

    Raises:
        ConfigError: there is no picture to make a code of, or one file for several.
    """
    if save_code is None:
        return {}
    target = Path(save_code)
    pictures = _pictures_among(references)
    if not pictures:
        raise ConfigError("--save-code keeps the codes of pictures, and all references are codes")
    if target.suffix.lower() == _CODE_SUFFIX and not os.path.isdir(target):
        if len(pictures) > 1:
            raise ConfigError(f"{len(pictures)} codes cannot go into {target}; name a folder")
        return {pictures[0]: target}
    files = {path: target / f"{path.stem}{_CODE_SUFFIX}" for path in pictures}
    if len(set(files.values())) < len(files):
        raise ConfigError("two reference pictures share a name; keep their codes one at a time")
    return files


def _code(
    stylizer: FaceStylizer, path: Path, kept: Path | None, args: argparse.Namespace
) -> ReferenceCode:
    """The code of a reference, read or searched, and kept."""
    from facestyle.reference import ReferenceCode

    if path.suffix.lower() == _CODE_SUFFIX:
        return ReferenceCode.load(path)
    code = stylizer.encode_reference(
        path, space=args.space, init=args.init, steps=args.steps, aligned=args.reference_aligned,
        seed=args.seed, progress=not args.json,
    )  # fmt: skip
    if kept is not None:
        code.save(kept)
    return code
