"""What the commands share: which style, which files, and settings from ``--set FIELD=VALUE``."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facestyle.errors import ConfigError

if TYPE_CHECKING:
    from facestyle.models.generator import Generator
    from facestyle.stylizer import FaceStylizer

__all__ = [
    "add_base",
    "add_config",
    "add_style",
    "configured",
    "input_files",
    "listed",
    "load_base",
    "load_stylizer",
    "named_pictures",
    "output_files",
    "refuse_other_pictures",
    "refuse_unread",
    "set_paths",
    "usual_of",
]

_log = logging.getLogger(__name__)

_SWITCH = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)
"""Words for a setting that is on or off."""


def add_style(parser: argparse.ArgumentParser, *, revision: bool = True) -> None:
    """``--style``, ``--device``, ``--dtype`` and, unless told not to, ``--revision``; `load_stylizer` reads them."""
    parser.add_argument("--style", default="cartoon", help="name, ./folder or user/repository")
    if revision:
        parser.add_argument("--revision", help="branch, tag or commit of a style of the Hub")
    parser.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")


def load_stylizer(args: argparse.Namespace) -> FaceStylizer:
    """The stylizer that the options name.

    Raises:
        FacestyleError: the style cannot be had, see ``find_style``.
    """
    from facestyle.stylizer import FaceStylizer

    return FaceStylizer.from_pretrained(
        args.style, revision=args.revision, device=args.device, dtype=args.dtype
    )


def add_base(parser: argparse.ArgumentParser) -> None:
    """``--base``; `load_base` reads it."""
    parser.add_argument(
        "--base", metavar="FOLDER",
        help="base generator, a folder that facestyle import made; default: the bundled one",
    )  # fmt: skip


def load_base(args: argparse.Namespace) -> Generator:
    """The base generator that ``--base`` names.

    Raises:
        ConfigError: it names something else than an import.
        CheckpointError: no generator is in it.
    """
    from facestyle.models.bases import open_base

    return open_base(args.base)


def input_files(inputs: Sequence[str]) -> list[Path]:
    """Files as given, folders replaced by the pictures in them.

    Raises:
        ConfigError: a folder holds no pictures.
    """
    from facestyle.image import iter_image_files

    files: list[Path] = []
    for text in inputs:
        path = Path(text)
        # not Path.is_dir, which raises where a name is too long or a folder may not be seen
        if not os.path.isdir(path):
            files.append(path)
            continue
        found = list(iter_image_files(path))
        if not found:
            raise ConfigError(f"the folder {path} holds no pictures")
        files += found
        if folders := [
            p for p in path.iterdir() if os.path.isdir(p) and not p.name.startswith(".")
        ]:
            _log.warning(
                "%s: %d folders in it are not looked into; name them too, if they hold photos",
                path,
                len(folders),
            )
    return list(dict.fromkeys(files))


def named_pictures(texts: Sequence[str]) -> dict[str, str]:
    """Style -> pictures, of STYLE=PICTURES.

    Raises:
        ConfigError: a text names no pictures, or a style is named twice.
    """
    named = dict(text.partition("=")[::2] for text in texts)
    if len(named) < len(texts):
        raise ConfigError(
            "a style is named twice; give each once, with one folder or zip of its pictures"
        )
    if not all(named.values()):
        raise ConfigError("give each style as NAME=PICTURES, such as anime=anime.zip")
    return named


def output_files(
    inputs: Sequence[Path], output: Path, *, portraits: bool = False
) -> dict[Path, Path]:
    """Where each input's picture goes; no two share a name, no input is overwritten.

    Args:
        inputs: the photos.
        output: folder, or a .png for one input.
        portraits: beside ``NAME.png`` its faces' portraits are written, ``NAME_face0.png`` and so on; no picture takes
            such a name.

    Raises:
        ConfigError: one .png for several inputs, a picture that is no PNG, or an output that is an input.
    """
    refuse_other_pictures(output)
    if output.suffix.lower() == ".png" and not os.path.isdir(output):
        if len(inputs) > 1:
            raise ConfigError(
                f"{len(inputs)} inputs cannot go into the one file {output}; name a folder"
            )
        targets = {inputs[0]: output}
    else:
        stems = {path.stem.lower() for path in inputs} if portraits else None
        taken: set[str] = set()
        targets = {path: output / f"{_free_name(path.stem, taken, stems)}.png" for path in inputs}
    sources = {os.path.realpath(path) for path in inputs}
    if clash := [path for path in targets.values() if os.path.realpath(path) in sources]:
        raise ConfigError(f"the output {clash[0]} is one of the inputs; name another folder")
    return targets


def refuse_other_pictures(output: Path) -> None:
    """Refuse an output named like a picture that is not written, before it becomes a folder of that name.

    Raises:
        ConfigError: it ends in .jpg or the like.
    """
    from facestyle.image import IMAGE_SUFFIXES

    suffix = output.suffix.lower()
    if suffix != ".png" and suffix in IMAGE_SUFFIXES and not os.path.isdir(output):
        raise ConfigError(
            f"pictures are written as PNG; name {output.with_suffix('.png')} or a folder"
        )


def _free_name(stem: str, taken: set[str], with_portraits: set[str] | None) -> str:
    """The stem, or one like it, that is no other picture's and of no portrait beside one.

    Args:
        stem: of the input.
        taken: lower-case names that are given out; the new one joins them.
        with_portraits: lower-case names beside which portraits are written, if any are; likewise.
    """
    name, count = stem, 1
    while name.lower() in taken or _portrayed(name) in (with_portraits or ()):
        name, count = f"{stem}-{count}", count + 1
    taken.add(name.lower())
    if with_portraits is not None:
        with_portraits.add(name.lower())
        taken.add(_portrayed(name))  # whose portrait would have this name
    return name


def _portrayed(name: str) -> str:
    """Beside which picture a portrait of this name is written; nothing where it is no portrait's."""
    of_portrait = re.fullmatch(r"(.+)_face\d+", name.lower())
    return of_portrait[1] if of_portrait else ""


def usual_of(parser: argparse.ArgumentParser, names: Iterable[str]) -> dict[str, Any]:
    """What options are where they are not given."""
    return {name: parser.get_default(name) for name in names}


def refuse_unread(
    args: argparse.Namespace, usual: Mapping[str, Any], names: Iterable[str], why: str
) -> None:
    """Refuse options that would not be read.

    Raises:
        ConfigError: one of the names is given.
    """
    for name in names:
        if getattr(args, name) != usual[name]:
            raise ConfigError(f"--{name.replace('_', '-')} is not read: {why}; leave it out")


def add_config(parser: argparse.ArgumentParser, module: str, name: str) -> None:
    """``--dry-run`` and ``--set FIELD=VALUE`` for a command that a config dataclass steers."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the settings and stop; train also checks its pictures",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help=f"any field of {module}.{name}, such as seed=1; may be repeated",
    )


def configured(base: Any, assignments: Sequence[str]) -> Any:
    """A config dataclass with ``FIELD=VALUE`` assignments applied together; dots reach into nested ones.

    Raises:
        ConfigError: a field is unknown, its value does not parse, or the settings contradict each other.
    """
    changes: dict[str, Any] = {}
    for text in assignments:
        path, _, value = text.partition("=")
        *groups, name = path.split(".")
        config, into = base, changes
        for group in groups:
            config = _field_of(config, group, path)
            into = into.setdefault(group, {})
        old = _field_of(config, name, path)
        if is_dataclass(old):
            raise ConfigError(f"{path!r} is a group; set one of its fields, {path}.FIELD=VALUE")
        into[name] = _parsed(value, old, path)
    return _replaced(base, changes)


def set_paths(assignments: Sequence[str]) -> list[str]:
    """What ``FIELD=VALUE`` assignments set, such as "training.steps"."""
    return [text.partition("=")[0] for text in assignments]


def _field_of(config: Any, name: str, path: str) -> Any:
    known = {f.name for f in fields(config)} if is_dataclass(config) else set()
    if name not in known:
        raise ConfigError(f"unknown setting {path!r}; known here: {', '.join(sorted(known))}")
    return getattr(config, name)


def _parsed(text: str, old: Any, path: str) -> Any:
    """The value in a text, of the old one's type; a tuple's items stand between commas."""
    kind = type(old)
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise ConfigError(f"{path} must be true or false, got {text!r}")
        return _SWITCH[text.lower()]
    if kind is tuple:
        return tuple(_parsed(item, old[0], path) for item in text.split(",") if item)
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"{path} must be of type {kind.__name__}, got {text!r}") from error


def _replaced(config: Any, changes: dict[str, Any]) -> Any:
    return replace(
        config,
        **{
            name: _replaced(getattr(config, name), value) if isinstance(value, dict) else value
            for name, value in changes.items()
        },
    )


def listed(config: Any) -> str:
    """A config, a field a line, nested ones with dots: what ``--set`` takes."""

    def lines(part: Any, prefix: str) -> Iterator[str]:
        for item in fields(part):
            value = getattr(part, item.name)
            if is_dataclass(value):
                yield from lines(value, f"{prefix}{item.name}.")
            else:
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                yield f"{prefix}{item.name}={shown}"

    return "\n".join(lines(config, ""))
