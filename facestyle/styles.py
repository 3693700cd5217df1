"""What a style is on disk: a folder with ``config.json`` and ``generator.safetensors``; and the bundled ones.

The generator file holds what training changed in the synthesis network; the rest, the mapping network and w_avg are
the base generator's, whose sha256 the file's header names. An encoder, or the base generator, lies beside it only when
the style needs its own.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from facestyle.errors import CheckpointError, ConfigError, StyleNotFoundError
from facestyle.files import write_whole

__all__ = [
    "HAIR_FILE",
    "LIKENESS_FILE",
    "OWN_BASE",
    "OWN_ENCODER",
    "VERSION",
    "StyleConfig",
    "bundled_style",
    "bundled_styles",
    "check_style_name",
    "find_style",
    "style_folder",
]

_BUNDLED = Path(__file__).resolve().parent / "weights" / "styles"

VERSION = 4
"""Of the format. Since 2 a generator file may leave out what is the base generator's, see `zoo.read_style_tensors`;
since 3 a map of the codes may lie beside it, see ``likeness``, since 4 a change of kernels, see ``hair``."""

OWN_BASE = "base.safetensors"
"""A style's base generator, where that is not the bundled one."""

OWN_ENCODER = "encoder.safetensors"
"""A style's encoder, where it has its own."""

HAIR_FILE = "hair.safetensors"
"""A style's change of kernels, see ``StyleConfig.hair``."""

LIKENESS_FILE = "likeness.safetensors"
"""A style's map of codes, see ``StyleConfig.likeness``."""

ADJUSTMENTS: dict[str, float] = {"share": 1.0, "likeness": 0.0, "hair": 0.0, "keep_shape": 0.0}
"""Numbers of a `StyleConfig` by which weights change when they are loaded, as they are where nothing changes."""

HUB_ALIASES: dict[str, tuple[str, str]] = {}
"""Short name to (Hub repository, revision) of styles that are not bundled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleConfig:
    """A style's ``config.json``.

    Attributes:
        name: short name, lower case.
        title: for people.
        description: one sentence.
        architecture: of the generator: "mobile" or "stylegan2".
        generator: arguments that build it.
        base_sha256: of the base generator it was finetuned from: the bundled one, or `OWN_BASE` in the style's folder.
        psi: default truncation of content codes.
        share: with which what training changed in the base generator's weights is taken when the style is loaded; above
            1 a style is bolder than it was trained, below it is milder.
        likeness: share of the map of codes in `LIKENESS_FILE` (`models.latent_map`) that is worked into the weights
            when the style is loaded; 0 where there is none.
        hair: share of the change of kernels in `HAIR_FILE` (`models.kernel_change`), likewise.
        keep_shape: how far the weights that draw shapes, all that was learned in them, go back to the base generator's
            when the style is loaded, as ``FaceStylizer``'s option of that name, which goes on from there.
        license: of the weights, an SPDX id or words; "unknown" where nobody stated it.
        data: what it was trained on: source, count, licence.
        encoder: "base" for the bundled E_w, or `OWN_ENCODER`, a file in the style's folder.
        alignment: how faces are cut out; "ffhq" is all there is.
        format: always "facestyle-style".
        version: of the format; a file of an older one is read as one of today's.
    """

    name: str
    title: str
    description: str
    generator: dict[str, Any]
    base_sha256: str
    architecture: str = "mobile"
    psi: float = 0.7
    share: float = 1.0
    likeness: float = 0.0
    hair: float = 0.0
    keep_shape: float = 0.0
    license: str = "unknown"
    data: dict[str, Any] = field(default_factory=dict)
    encoder: str = "base"
    alignment: str = "ffhq"
    format: str = "facestyle-style"
    version: int = VERSION

    def __post_init__(self) -> None:
        check_style_name(self.name)
        texts = dict.fromkeys(
            ("title", "description", "base_sha256", "architecture", "license"), str
        )
        for name, kind in (texts | {"generator": dict, "data": dict}).items():
            if not isinstance(getattr(self, name), kind):
                what = "text" if kind is str else "an object"
                raise ConfigError(f"{name} must be {what}, got {getattr(self, name)!r:.80}")
        if not 0 <= self.psi <= 1.5:
            raise ConfigError(f"psi must be in [0, 1.5], got {self.psi}")
        if not 0 < self.share <= 2:
            raise ConfigError(f"share must be above 0 and at most 2, got {self.share}")
        for name, most in (("likeness", 2), ("hair", 2), ("keep_shape", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be in [0, {most}], got {getattr(self, name)}")
        if self.encoder not in ("base", OWN_ENCODER):
            raise ConfigError(f'encoder must be "base" or "{OWN_ENCODER}", got {self.encoder!r}')
        if self.alignment != "ffhq":
            raise ConfigError(f'alignment must be "ffhq", got {self.alignment!r}')

    @property
    def adjusts(self) -> bool:
        """Whether a style's weights are used otherwise than its ``generator.safetensors`` holds them."""
        return self.adjustments != ADJUSTMENTS

    @property
    def adjustments(self) -> dict[str, float]:
        """This style's `ADJUSTMENTS`."""
        return {name: getattr(self, name) for name in ADJUSTMENTS}

    @property
    def beside(self) -> dict[str, float]:
        """Files that may lie beside `generator.safetensors`, and the shares with which they are worked into it."""
        return {LIKENESS_FILE: self.likeness, HAIR_FILE: self.hair}

    def to_json(self) -> str:
        """Text of ``config.json``."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_file(cls, path: str | Path) -> StyleConfig:
        """Read ``config.json``, strictly.

        Raises:
            CheckpointError: absent, no JSON, an unknown or missing key, or a newer format.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"cannot be read as JSON ({error})", path=path) from error
        if not isinstance(raw, dict) or raw.get("format") != "facestyle-style":
            raise CheckpointError("is not the config of a facestyle style", path=path)
        version = raw.get("version", 0)
        if not isinstance(version, int | float):
            raise CheckpointError(f"has the version {version!r:.80}, which is no number", path=path)
        if version > VERSION:
            raise CheckpointError(
                f"has format version {version}, this facestyle reads up to {VERSION}; update facestyle",
                path=path,
            )
        known = {item.name for item in fields(cls)}
        if unknown := sorted(raw.keys() - known):
            raise CheckpointError(f"has unknown keys {unknown}", path=path, unexpected=unknown)
        try:
            return cls(**raw | {"version": VERSION})
        except (TypeError, ConfigError) as error:
            raise CheckpointError(f"is not a valid style config ({error})", path=path) from error

    def save(self, path: str | Path) -> None:
        """Write ``config.json``.

        Raises:
            OutputError: it cannot be written.
        """
        write_whole(self.to_json().encode(), Path(path))


def check_style_name(name: str) -> None:
    """Whether a style may be called so.

    Raises:
        ConfigError: it may not.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"a style's name is lower case letters, digits, '.', '_' and '-', got {name!r}"
        )


def bundled_styles() -> list[str]:
    """Names of the styles that come with the package, sorted."""
    return sorted(path.parent.name for path in _BUNDLED.glob("*/config.json"))


def bundled_style(name: str) -> Path:
    """Folder of a bundled style.

    Raises:
        StyleNotFoundError: there is none of that name.
    """
    if name not in bundled_styles():
        raise _not_found(name)
    return _BUNDLED / name


def _not_found(name: str) -> StyleNotFoundError:
    names = bundled_styles()
    hint = f'; for the folder here, write "./{name}"' if os.path.isdir(name) else ""
    return StyleNotFoundError(
        f"no style is called {name!r}; bundled: {', '.join(names)}; a folder is written ./folder, "
        f"a Hub repository user/name{hint}",
        name=name,
        available=names,
    )


def style_folder(folder: str | Path) -> Path:
    """The style's folder: the one named, or ``style`` in the folder of the training run that is named.

    What the style's files hold is not looked at here.

    Raises:
        CheckpointError: the run's training has not finished, or there is no style, or none that may be read.
    """
    folder = Path(folder)
    inner = folder / "style"
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        raise CheckpointError(
            "may not be read by this user; change the folder's permissions, or copy it", path=folder
        )
    is_run = _is_run(folder)
    if os.path.isfile(folder / "config.json") and not is_run:
        return folder
    if all(os.path.isfile(inner / name) for name in ("config.json", "generator.safetensors")):
        return inner
    if is_run:
        raise CheckpointError(
            "is a training run that has not finished, so it holds no style yet; run the same facestyle train command "
            "again: it goes on where it was",
            path=folder,
        )
    raise CheckpointError(
        "holds no style (config.json and generator.safetensors); train one, or save one with save_pretrained",
        path=folder,
    )


def _is_run(folder: Path) -> bool:
    """Whether the folder is one of ``facestyle train``: by its settings, or by the pictures cut out before them."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return os.path.isfile(folder / "pictures" / "manifest.json")
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and {"star", "pairs", "style"} <= settings.keys()


def find_style(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Folder of a style: bundled name first, then a folder, then a Hub repository, which is downloaded.

    The folder may be that of the style's training run, see :func:`style_folder`. A bare name is never looked up among
    the folders here, so a folder that happens to be called "cartoon" changes nothing.

    Raises:
        StyleNotFoundError: there is no such bundled style, folder or repository.
        ConfigError: a revision of a style that is not of the Hub.
        CheckpointError: the folder holds no style, or a training run that has not finished, or may not be read.
        DownloadError: the Hub cannot be reached.
    """
    text = str(name_or_path)
    is_bare = isinstance(name_or_path, str) and re.fullmatch(r"[\w.-]+", text) is not None
    if is_bare and text not in (".", ".."):
        if text in bundled_styles():
            _refuse_revision(revision, text)
            return bundled_style(text)
        if text not in HUB_ALIASES:
            raise _not_found(text)
        repo, pinned = HUB_ALIASES[text]
        revision = revision or pinned
    else:
        folder = Path(os.path.expanduser(text))
        if os.path.isdir(folder):
            _refuse_revision(revision, text)
            return style_folder(folder)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", text) or text.startswith(("./", "../")):
            raise StyleNotFoundError(
                f"there is no folder {text!r}; bundled styles: {', '.join(bundled_styles())}",
                name=text,
                available=bundled_styles(),
            )
        repo = text
    from facestyle.hub.download import download_style

    return download_style(
        repo,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )


def _refuse_revision(revision: str | None, style: str) -> None:
    if revision is not None:
        raise ConfigError(f"a revision is of styles of the Hub, and {style} is none; leave it out")
