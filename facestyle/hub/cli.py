"""``facestyle push``, ``pull`` and ``styles``: styles on the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Add the commands to a command line's subparsers."""
    push = commands.add_parser("push", help="upload a style to the Hugging Face Hub")
    push.add_argument("folder", metavar="FOLDER", help="of the style, or of its training run")
    push.add_argument("repo", metavar="USER/NAME", help="repository; made if it is not there")
    push.add_argument("--private", action="store_true", help="make the repository private")
    push.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    push.add_argument("--revision", help="branch that is written to; default: main")
    push.add_argument("--message", help="title of the commit")
    push.add_argument(
        "--data-license", help="of the training pictures, where the style does not say it"
    )
    push.add_argument(
        "--license", help="of the weights, where the style does not say it; else the card says so"
    )
    push.add_argument(
        "--include-pictures", action="store_true",
        help="also upload pictures that lie in the folder; only with the right to do so",
    )  # fmt: skip
    push.add_argument(
        "--dry-run", action="store_true", help="list files, sizes and the card, and stop"
    )
    push.set_defaults(run=_push)

    pull = commands.add_parser("pull", help="fetch a style from the Hub into a folder")
    pull.add_argument("repo", metavar="USER/NAME")
    pull.add_argument("-o", "--output", help="new folder; default: NAME")
    pull.add_argument("--revision", help="branch, tag or commit")
    pull.add_argument("--force-download", action="store_true", help="fetch again what is cached")
    pull.set_defaults(run=_pull)

    styles = commands.add_parser("styles", help="names of styles")
    styles.add_argument("--hub", action="store_true", help="also those on the Hub")
    styles.add_argument("--json", action="store_true")
    styles.set_defaults(run=_styles)


def _push(args: argparse.Namespace) -> int:
    from facestyle.errors import ConfigError

    try:
        print(_planned_or_pushed(args, args.data_license))
    except ConfigError as error:
        if args.data_license or "--data-license" not in str(error) or not sys.stdin.isatty():
            raise
        try:
            data_license = input("Licence of the training pictures (such as CC0-1.0): ").strip()
        except EOFError:  # Ctrl-D is no answer
            raise error from None
        print(_planned_or_pushed(args, data_license))
    return 0


def _planned_or_pushed(args: argparse.Namespace, data_license: str | None) -> str:
    """The plan of a dry run as text, or the address of what was pushed."""
    from facestyle.hub.push import plan_push, push_style

    if args.dry_run:
        return plan_push(
            args.folder, args.repo, license=args.license, data_license=data_license,
            include_pictures=args.include_pictures,
        ).format()  # fmt: skip
    return push_style(
        args.folder, args.repo, private=args.private or None, create_pr=args.create_pr,
        revision=args.revision, commit_message=args.message, license=args.license,
        data_license=data_license, include_pictures=args.include_pictures,
    )  # fmt: skip


def _pull(args: argparse.Namespace) -> int:
    from facestyle.hub.download import pull_style

    out = args.output or args.repo.rpartition("/")[2]
    print(pull_style(args.repo, out, revision=args.revision, force_download=args.force_download))
    return 0


def _styles(args: argparse.Namespace) -> int:
    from facestyle import list_styles

    names = list_styles(hub=args.hub)
    print(json.dumps(names, indent=2) if args.json else "\n".join(names))
    return 0
