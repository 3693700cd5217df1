"""The Hub client's errors as ours, with advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from facestyle.errors import ConfigError, DownloadError, StyleNotFoundError, UploadError

__all__ = ["downloading", "uploading"]


@contextmanager
def downloading(what: str, revision: str | None = None) -> Iterator[None]:
    """Translate what goes wrong while ``what`` is fetched.

    Raises:
        StyleNotFoundError: no such repository or revision, or none that may be read.
        DownloadError: the network, the token or the disk failed.
    """
    from huggingface_hub import errors

    from facestyle.styles import bundled_styles

    names = ", ".join(bundled_styles())
    try:
        yield
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{what} is gated: accept its terms on its Hub page, then `hf auth login`, and try again"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StyleNotFoundError(
            f"the Hub repository {what!r} has no branch, tag or commit {revision or 'main'!r}; check its name",
            name=what,
            available=bundled_styles(),
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise StyleNotFoundError(
            f"the Hub has no repository {what!r} that you may read; check the name, or `hf auth login` for a private "
            f"one; bundled styles: {names}",
            name=what,
            available=bundled_styles(),
        ) from error
    except _failures() as error:
        raise DownloadError(
            f"{what} could not be fetched from the Hub ({error}); check the network and the token, or use a bundled "
            f"style: {names}"
        ) from error


@contextmanager
def uploading(repo: str, again: str) -> Iterator[None]:
    """Translate what goes wrong while a style is uploaded; ``again`` is the command that goes on.

    Raises:
        ConfigError: the repository's name is not allowed.
        UploadError: the token, the rights or the network failed.
    """
    from huggingface_hub import errors

    broken: tuple[type[Exception], ...] = (*_failures(), RuntimeError)
    try:
        yield
    except errors.HFValidationError as error:
        raise ConfigError(f"{repo!r} is no name of a Hub repository, USER/NAME: {error}") from error
    except errors.LocalTokenNotFoundError as error:
        raise UploadError(
            f"nobody is logged in, so {repo} cannot be written; run `hf auth login`, then: {again}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UploadError(
            f"{repo} has no branch of this name; make it with `hf repos branch create {repo} NAME`, or "
            f"leave the revision out, then: {again}"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise UploadError(
                f"the Hub refuses to write {repo} with this token ({status}); it needs the right to write there: "
                f"`hf auth login`, then: {again}"
            ) from error
        raise UploadError(f"the Hub did not take {repo} ({error}); try again: {again}") from error
    except broken as error:
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, broken):
            raise  # the client wraps what broke an upload into a RuntimeError
        raise UploadError(
            f"the upload of {repo} broke off ({error}); nothing is lost here, and the repository is as it was; go on "
            f"with: {again}"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    import httpx2
    from huggingface_hub import errors

    found: tuple[Any, ...] = (errors.HfHubHTTPError, httpx2.HTTPError, OSError)
    return found
