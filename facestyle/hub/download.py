"""Fetch a style from the Hugging Face Hub: its config and safetensors files, nothing that can be executed."""

from __future__ import annotations

from pathlib import Path

from facestyle.errors import DownloadError, StyleNotFoundError

__all__ = ["download_style"]

_FILES = ["config.json", "*.safetensors", "training.json", "LICENSE*", "README.md"]


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
        DownloadError: the network, the token or the disk failed.
    """
    from huggingface_hub import errors, snapshot_download

    from facestyle.styles import bundled_styles

    try:
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=_FILES,
            )
        )
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    ) as error:
        raise StyleNotFoundError(
            f"the Hub has no repository {repo!r} at revision {revision or 'main'!r} that you may read; "
            f"check the name, or log in for a private one; bundled styles: {', '.join(bundled_styles())}",
            name=repo,
            available=bundled_styles(),
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise DownloadError(
            f"{repo} could not be fetched from the Hub ({error}); check the network, or use a bundled style: "
            f"{', '.join(bundled_styles())}"
        ) from error
    if not (folder / "config.json").is_file():
        raise StyleNotFoundError(
            f"the Hub repository {repo!r} holds no facestyle style (no config.json)",
            name=repo,
            available=bundled_styles(),
        )
    return folder
