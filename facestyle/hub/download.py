"""Fetch styles from the Hugging Face Hub: config, safetensors and texts, nothing that can be executed."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from facestyle.errors import StyleNotFoundError
from facestyle.hub.client import downloading
from facestyle.styles import HAIR_FILE, LIKENESS_FILE, OWN_BASE, OWN_ENCODER, StyleConfig

__all__ = ["FILES", "TAG", "belongs", "download_style", "hub_styles", "pull_style"]

TAG = "facestyle"
"""Tag, and library name, of styles on the Hub."""

FILES = (
    "config.json", "generator.safetensors", LIKENESS_FILE, HAIR_FILE, OWN_BASE, OWN_ENCODER, "training.json",
    "LICENSE*", "NOTICE*", "README.md", "samples/*.jpeg", "samples/*.jpg", "samples/*.png", "samples/*.webp",
)  # fmt: skip
"""What of a style's folder or repository is ever uploaded or fetched."""


def belongs(path: Path) -> bool:
    """Whether a file of the folder is one of `FILES`; a pattern's star does not reach into subfolders."""
    return any(
        len(path.parts) == pattern.count("/") + 1 and fnmatch(path.as_posix(), pattern)
        for pattern in FILES
    )


def download_style(
    repo: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Folder in the Hub cache that holds the style.

    Raises:
        StyleNotFoundError: no such repository or revision, or it is no facestyle style.
        CheckpointError: its weights are there as a pickle alone, or not at all.
        DownloadError: the network, the token or the disk failed.
    """
    from huggingface_hub import snapshot_download

    from facestyle.models.zoo import refuse_pickles

    with downloading(repo, revision):
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=list(FILES),
            )
        )
    if not (folder / "config.json").is_file():
        from facestyle.styles import bundled_styles

        raise StyleNotFoundError(
            f"the Hub repository {repo!r} holds no facestyle style (no config.json)",
            name=repo,
            available=bundled_styles(),
        )
    if not (folder / "generator.safetensors").is_file():
        refuse_pickles(repo, _listed(repo, revision, token, local_files_only))
    return folder


def pull_style(
    repo: str,
    out: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
) -> Path:
    """A style's files from the Hub in a folder of their own, read once to see that they are whole; the folder.

    Raises:
        StyleNotFoundError, CheckpointError, DownloadError: see :func:`download_style`.
        OutputError: the folder is not empty, or cannot be written.
    """
    from facestyle.hub.package import copy_style
    from facestyle.models.zoo import load_encoder, load_style_base, load_style_generator

    folder = download_style(repo, revision=revision, token=token, force_download=force_download)
    load_style_generator(folder, load_style_base(folder))
    config = StyleConfig.from_file(folder / "config.json")
    if config.encoder != "base":
        load_encoder(folder / config.encoder)
    # The Hub's cache has more where all of the repository was fetched before.
    inside = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    copy_style(folder, Path(out), [path.as_posix() for path in inside if belongs(path)])
    return Path(out)


def hub_styles(*, token: str | bool | None = None) -> list[str]:
    """Names of the Hub's repositories that are tagged as facestyle styles, sorted.

    Raises:
        DownloadError: the Hub cannot be asked.
    """
    from huggingface_hub import HfApi

    with downloading("the list of styles"):
        return sorted(model.id for model in HfApi(token=token).list_models(filter=TAG))


def _listed(
    repo: str, revision: str | None, token: str | bool | None, is_offline: bool
) -> list[str]:
    """Names of the repository's files, as far as they can be had."""
    from huggingface_hub import HfApi

    if is_offline:
        return []
    with downloading(repo, revision):
        return HfApi(token=token).list_repo_files(repo, revision=revision)
