"""What the routes of the local Hub share: requests and answers, users and their rights, all repositories."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from facestyle.testing.hub_repos import Commit, Repo, StoredFile
from facestyle.testing.hub_xet import XetFile, XetStore

__all__ = ["Account", "Answer", "Hub", "Refused", "Request", "Route", "as_json", "as_time"]


@dataclass(frozen=True)
class Account:
    """Whom a token stands for.

    Attributes:
        name: the namespace of this user's repositories.
        can_write: whether the token may change anything.
    """

    name: str
    can_write: bool = True


@dataclass
class Request:
    """One request, and what the route found in its path.

    Attributes:
        path: still percent-encoded, so that a slash within a part can be told from one between parts.
        query: each parameter with all its values.
        headers: names in lower case.
        account: who asks; None without a token.
        parts: the decoded parts of the path.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    account: Account | None = None
    parts: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The body.

        Raises:
            Refused: it is no JSON object.
        """
        try:
            data = json.loads(self.body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Refused(400, "expected a JSON object")
        return data

    def has_flag(self, name: str) -> bool:
        """Whether a query parameter is 1 or true."""
        return self.query.get(name, [""])[-1].lower() in {"1", "true"}


@dataclass
class Answer:
    """Status, headers and body of a response."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The request is answered with an error, in the form the real Hub gives it."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, commit: Commit | None = None
    ) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message}
        if code:
            headers["X-Error-Code"] = code
        if commit:
            headers["X-Repo-Commit"] = commit.sha
        self.answer = as_json({"error": message}, status, headers)


class Hub:
    """Everything the local Hub knows, and who may see or change it.

    Attributes:
        endpoint: where clients reach it; part of the addresses it hands out.
        lfs_threshold: files of more bytes than this are asked for as LFS files.
        accounts: by token.
        repos: by kind and owner/name.
        objects: content of LFS uploads by sha256.
        xet: where Xet uploads go; None on a Hub that does not speak it.
    """

    def __init__(self, *, lfs_threshold: int, xet: XetStore | None = None) -> None:
        self.endpoint = ""
        self.lfs_threshold = lfs_threshold
        self.accounts: dict[str, Account] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.xet = xet

    def account(self, authorization: str | None) -> Account | None:
        """Who sends this header; None for nobody.

        Raises:
            Refused: 401, no such token.
        """
        if authorization is None:
            return None
        account = self.accounts.get(authorization.removeprefix("Bearer "))
        if account is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return account

    def writer(self, request: Request) -> Account:
        """Who asks.

        Raises:
            Refused: 401 without a token, 403 for one that may only read.
        """
        if request.account is None:
            raise Refused(401, "Invalid username or password.")
        if not request.account.can_write:
            raise Refused(403, "This token may only read")
        return request.account

    def check_namespace(self, request: Request, namespace: str) -> None:
        """Nothing.

        Raises:
            Refused: 401 or 403, the asking user may not write there.
        """
        if self.writer(request).name != namespace:
            raise Refused(
                403, f"You don't have the rights to write under the namespace {namespace}"
            )

    def is_owner(self, request: Request, repo: Repo) -> bool:
        """Whether the asking user owns the repository."""
        return request.account is not None and request.account.name == repo.owner

    def seen_repo(self, request: Request) -> Repo:
        """The repository that the path names.

        Raises:
            Refused: 404 RepoNotFound, there is none that the asking user may see.
        """
        kind = request.parts.get("kind", "models").removesuffix("s")
        repo = self.repos.get((kind, request.parts["id"]))
        if repo is None or (repo.is_private and not self.is_owner(request, repo)):
            raise Refused(404, "Repository not found", code="RepoNotFound")
        return repo

    def changed_repo(self, request: Request) -> Repo:
        """The repository that the path names, for a change: one's own, or for a pull request any that one may see.

        Raises:
            Refused: 404, 401 or 403.
        """
        repo = self.seen_repo(request)
        writer = self.writer(request)
        self.check_namespace(request, writer.name if request.has_flag("create_pr") else repo.owner)
        return repo

    def commit(self, repo: Repo, revision: str) -> Commit:
        """The commit that a branch, tag, ref or commit name stands for.

        Raises:
            Refused: 404 RevisionNotFound.
        """
        commit = repo.find(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        return commit

    def page(self, repo: Repo) -> str:
        """Address of a repository's page."""
        prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
        return f"{self.endpoint}/{prefix}{repo.id}"

    def uploaded(self, path: str, oid: str, size: int) -> StoredFile:
        """The file of this sha256, which came as an LFS object or over Xet.

        Raises:
            Refused: 400, it has not come.
        """
        if oid in self.objects:
            return StoredFile(self.objects[oid], is_lfs=True)
        if self.xet and self.xet.hash_of(oid):
            return XetFile(self.xet, oid, size)
        raise Refused(400, f"the LFS object of {path} has not been uploaded")

    def stored(self, content: bytes) -> StoredFile:
        """A file of this content, LFS or not by its size."""
        return StoredFile(content, is_lfs=len(content) > self.lfs_threshold)


Route = tuple[str, str, Callable[[Hub, Request], Answer]]
"""Method, regular expression of the whole path, and what answers; HEAD is answered as GET."""


def as_json(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with this content; dates of a card's YAML become texts."""
    body = json.dumps(data, default=str).encode()
    return Answer(body, status, {"Content-Type": "application/json", **(headers or {})})


def as_time(moment: datetime) -> str:
    """A moment as the Hub writes it, such as 2026-01-31T12:00:00.000Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
