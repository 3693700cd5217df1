"""Repositories of the local Hub: commits that keep their file lists, branches, tags, pull requests; all in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

__all__ = ["MAIN", "Commit", "PullRequest", "Repo", "StoredFile", "card_tags", "front_matter"]

MAIN = "refs/heads/main"
"""Full name of the branch that every repository has."""

_FIRST_FILES = {
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
}
"""What a new repository holds, as on the real Hub."""


class StoredFile:
    """A file at a commit.

    Attributes:
        is_lfs: whether git would hold a pointer in its place.
    """

    def __init__(self, content: bytes, is_lfs: bool) -> None:
        self._content = content
        self.is_lfs = is_lfs

    @property
    def content(self) -> bytes:
        """All its bytes, of LFS files too."""
        return self._content

    @cached_property
    def sha256(self) -> str:
        """Digest of the content, the name of an LFS object."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Name of the git blob: of the pointer if the file is an LFS one."""
        blob = self.pointer if self.is_lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def content_id(self) -> str:
        """By what the client tells whether a file has changed; ETag of a download."""
        return self.sha256 if self.is_lfs else self.blob_id

    @property
    def pointer(self) -> bytes:
        """The text that git holds in place of an LFS file."""
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {self.size}\n"
        ).encode()

    @property
    def size(self) -> int:
        """Of the content, in bytes."""
        return len(self.content)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A state of all files, and where it came from."""

    parent: Commit | None
    title: str
    message: str
    author: str
    files: Mapping[str, StoredFile]
    date: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @cached_property
    def sha(self) -> str:
        """Name of the commit, 40 hexadecimal digits."""
        parts = [self.parent.sha if self.parent else "", self.title, self.message, self.author]
        parts += [self.date.isoformat(), *(f"{p} {f.blob_id}" for p, f in self.files.items())]
        return hashlib.sha1("\0".join(parts).encode()).hexdigest()

    def history(self) -> Iterable[Commit]:
        """This commit and its ancestors, newest first."""
        commit: Commit | None = self
        while commit:
            yield commit
            commit = commit.parent


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """Somebody's proposal.

    Attributes:
        base: full name of the branch it is for.
        start: that branch's newest commit when the proposal was made.
    """

    num: int
    title: str
    author: str
    base: str
    start: Commit
    date: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def ref(self) -> str:
        """Full name of the ref that holds its commits."""
        return f"refs/pr/{self.num}"


class Repo:
    """A model, dataset or Space with its whole history.

    Attributes:
        kind: model, dataset or space.
        id: owner/name.
        is_private: hidden from everybody but its owner.
        is_gated: files are for its owner only, the rest is public.
        sdk: what a Space runs on, as said when it was created.
        refs: full name of each branch, tag and pull request -> its newest commit.
        commits: by name, those of deleted branches too.
    """

    def __init__(self, kind: str, id: str, *, is_private: bool = False) -> None:
        self.kind = kind
        self.id = id
        self.is_private = is_private
        self.is_gated = False
        self.sdk: str | None = None
        self.refs: dict[str, Commit] = {}
        self.commits: dict[str, Commit] = {}
        self.pulls: list[PullRequest] = []
        first = {path: StoredFile(content, False) for path, content in _FIRST_FILES.items()}
        self.created = self._add(MAIN, None, first, "initial commit", "", self.owner).date

    @property
    def owner(self) -> str:
        """Name before the slash."""
        return self.id.partition("/")[0]

    @property
    def head(self) -> Commit:
        """Newest commit of the branch main."""
        return self.refs[MAIN]

    def ref_name(self, revision: str) -> str | None:
        """Full name of a branch, tag or pull request; None if there is none of this name."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in names if name in self.refs), None)

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, tag, pull request's ref or full commit name stands for."""
        name = self.ref_name(revision)
        return self.refs[name] if name else self.commits.get(revision)

    def commit(
        self,
        ref: str,
        files: Mapping[str, StoredFile],
        *,
        title: str,
        message: str = "",
        author: str | None = None,
    ) -> Commit:
        """A new newest commit of an existing ref, with these files and no others."""
        return self._add(ref, self.refs[ref], files, title, message, author or self.owner)

    def open_pull_request(self, base: str, *, title: str, author: str) -> PullRequest:
        """A pull request whose ref still equals the base, a full ref name."""
        num, start = len(self.pulls) + 1, self.refs[base]
        pull = PullRequest(num=num, title=title, author=author, base=base, start=start)
        self.pulls.append(pull)
        self.refs[pull.ref] = start
        return pull

    def card(self) -> dict[str, Any]:
        """Front matter of main's README.md; empty if it has none that can be read."""
        readme = self.head.files.get("README.md")
        try:
            return front_matter(readme.content.decode()) if readme else {}
        except ValueError:
            return {}

    def _add(
        self,
        ref: str,
        parent: Commit | None,
        files: Mapping[str, StoredFile],
        title: str,
        message: str,
        author: str,
    ) -> Commit:
        ordered = dict(sorted(files.items()))
        commit = Commit(parent=parent, title=title, message=message, author=author, files=ordered)
        self.refs[ref] = self.commits[commit.sha] = commit
        return commit


def front_matter(readme: str) -> dict[str, Any]:
    """The YAML mapping between the two ``---`` lines at the top of a card; empty if there are none.

    Raises:
        ValueError: it is not YAML, or no mapping.
    """
    found = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", readme, re.DOTALL | re.MULTILINE)
    if not found:
        return {}
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter is not YAML: {error}") from error
    if data is not None and not isinstance(data, dict):
        raise ValueError(f"the front matter must be a mapping, got a {type(data).__name__}")
    return data or {}


def card_tags(card: Mapping[str, Any]) -> list[str]:
    """Tags that the Hub derives from a card's front matter, without repetition."""
    tags = [*_listed(card, "tags"), *_listed(card, "library_name"), *_listed(card, "pipeline_tag")]
    tags += _listed(card, "language")
    tags += [f"license:{name}" for name in _listed(card, "license")]
    tags += [f"dataset:{name}" for name in _listed(card, "datasets")]
    for base in _listed(card, "base_model"):
        tags.append(f"base_model:{base}")
        tags += [f"base_model:{how}:{base}" for how in _listed(card, "base_model_relation")]
    return list(dict.fromkeys(tags))


def _listed(card: Mapping[str, Any], key: str) -> list[str]:
    """A card's value as a list, whether it is one, a single word, or absent."""
    value = card.get(key) or []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
