"""Requests that change nothing on the local Hub: users, lists, repositories, files."""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Any
from urllib.parse import parse_qs

from facestyle.testing.hub_api import Answer, Hub, Refused, Request, Route, as_json, as_time
from facestyle.testing.hub_repos import Commit, Repo, StoredFile, card_tags, front_matter

__all__ = ["ROUTES"]


def _whoami(hub: Hub, request: Request) -> Answer:
    if request.account is None:
        raise Refused(401, "Invalid username or password.")
    name, role = request.account.name, "write" if request.account.can_write else "read"
    token = {"displayName": "local", "role": role}
    return as_json(
        {
            "type": "user",
            "id": _object_id(name),
            "name": name,
            "fullname": name,
            "isPro": False,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def _validate_yaml(hub: Hub, request: Request) -> Answer:
    try:
        card = front_matter(str(request.json().get("content", "")))
    except ValueError as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return as_json({"errors": [], "warnings": warnings})


def _list_repos(hub: Hub, request: Request) -> Answer:
    """Repositories that the user may see and that all filters fit, newest first."""
    kind = request.parts["kind"].removesuffix("s")
    wanted = {key: values[-1] for key, values in request.query.items()}
    found = []
    for repo in reversed(hub.repos.values()):
        described = _described(repo, repo.head, is_full=request.has_flag("full"))
        if (
            repo.kind == kind
            and (hub.is_owner(request, repo) or not repo.is_private)
            and set(request.query.get("filter", [])) <= set(described["tags"])
            and wanted.get("search", "").lower() in repo.id.lower()
            and wanted.get("author", repo.owner) == repo.owner
            and wanted.get("pipeline_tag", described["pipeline_tag"]) == described["pipeline_tag"]
        ):
            found.append(_expanded(described, repo, request))
    return as_json(found[: int(wanted.get("limit", len(found)))])


def _repo_info(hub: Hub, request: Request) -> Answer:
    repo, commit = _asked(hub, request)
    described = _described(repo, commit, is_full=True, has_blobs=request.has_flag("blobs"))
    return as_json(_expanded(described, repo, request))


def _tree(hub: Hub, request: Request) -> Answer:
    """Files and folders below a folder, those of its folders too if recursive."""
    _, commit = _asked(hub, request)
    folder = request.parts.get("path", "")
    inside = f"{folder}/" if folder else ""
    paths = [path for path in _all_paths(commit) if path.startswith(inside)]
    if folder and not paths:
        raise Refused(404, f"{folder} does not exist", code="EntryNotFound", commit=commit)
    if not request.has_flag("recursive"):
        paths = [path for path in paths if "/" not in path.removeprefix(inside)]
    return as_json([_entry(commit, path) for path in paths])


def _paths_info(hub: Hub, request: Request) -> Answer:
    """The named files and folders; those that are not there are left out."""
    _, commit = _asked(hub, request)
    wanted = parse_qs(request.body.decode()).get("paths", [])
    existing = set(_all_paths(commit))
    return as_json([_entry(commit, path) for path in wanted if path in existing])


def _refs(hub: Hub, request: Request) -> Answer:
    repo = hub.seen_repo(request)
    folders = {"branches": "refs/heads/", "tags": "refs/tags/", "converts": "refs/convert/"}
    if request.has_flag("include_prs"):
        folders["pullRequests"] = "refs/pr/"
    return as_json(
        {
            group: [
                {"name": ref.removeprefix(folder), "ref": ref, "targetCommit": commit.sha}
                for ref, commit in repo.refs.items()
                if ref.startswith(folder)
            ]
            for group, folder in folders.items()
        }
    )


def _commits(hub: Hub, request: Request) -> Answer:
    _, commit = _asked(hub, request)
    return as_json(
        [
            {
                "id": past.sha,
                "title": past.title,
                "message": past.message,
                "authors": [{"user": past.author}],
                "date": as_time(past.date),
            }
            for past in commit.history()
        ]
    )


def _discussion(hub: Hub, request: Request) -> Answer:
    """A pull request and its commits."""
    repo, num = hub.seen_repo(request), int(request.parts["num"])
    if not 1 <= num <= len(repo.pulls):
        raise Refused(404, f"no discussion {num}")
    pull = repo.pulls[num - 1]
    own = list(itertools.takewhile(lambda c: c is not pull.start, repo.refs[pull.ref].history()))
    return as_json(
        {
            "num": num,
            "title": pull.title,
            "author": {"name": pull.author},
            "createdAt": as_time(pull.date),
            "status": "open",
            "isPullRequest": True,
            "repo": {"name": repo.id, "type": repo.kind},
            "changes": {"base": pull.base},
            "filesWithConflicts": [],
            "events": [
                {
                    "id": commit.sha,
                    "type": "commit",
                    "createdAt": as_time(commit.date),
                    "author": {"name": commit.author},
                    "data": {"subject": commit.title, "oid": commit.sha},
                }
                for commit in reversed(own)
            ],
        }
    )


def _resolve(hub: Hub, request: Request) -> Answer:
    """A file, or the part of it that the header Range asks for."""
    repo, commit = _asked(hub, request)
    path = request.parts["path"]
    if repo.is_gated and not hub.is_owner(request, repo):
        raise Refused(403, f"Access to {repo.id} is restricted", code="GatedRepo", commit=commit)
    file = commit.files.get(path)
    if file is None:
        raise Refused(404, f"{path} does not exist", code="EntryNotFound", commit=commit)
    headers = {
        "X-Repo-Commit": commit.sha,
        "ETag": f'"{file.content_id}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if file.is_lfs:
        headers["X-Linked-Etag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(file.size)
        if hub.xet and (hash_ := hub.xet.hash_of(file.sha256)):
            headers["X-Xet-Hash"] = hash_
            kind = f"{repo.kind}s"
            headers["X-Xet-Refresh-Route"] = (
                f"{hub.endpoint}/api/{kind}/{repo.id}/xet-read-token/{commit.sha}"
            )
    return _part(file.content, headers, request.headers.get("range", ""))


def _xet_token(hub: Hub, request: Request) -> Answer:
    """Where and with which token chunks are stored and read."""
    repo = hub.seen_repo(request)
    if hub.xet is None:
        raise Refused(404, "this Hub has no Xet storage")
    if request.parts["right"] == "write":
        hub.changed_repo(request)
    hub.commit(repo, request.parts["revision"])
    token, expires = hub.xet.token()
    headers = {
        "X-Xet-Cas-Url": hub.xet.address,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires),
    }
    return as_json({"accessToken": token, "exp": expires, "casUrl": hub.xet.address}, 200, headers)


def _part(content: bytes, headers: dict[str, str], wanted: str) -> Answer:
    """The bytes that a Range header asks for; all of them if it asks for none, or for several parts."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if not found or found[0] == "bytes=-":
        return Answer(content, 200, headers)
    size = len(content)
    start = int(found[1]) if found[1] else max(0, size - int(found[2]))
    stop = min(size, int(found[2]) + 1) if found[1] and found[2] else size
    if start >= stop:
        return Answer(b"", 416, {**headers, "Content-Range": f"bytes */{size}"})
    span = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Answer(content[start:stop], 206, {**headers, **span})


def _asked(hub: Hub, request: Request) -> tuple[Repo, Commit]:
    """The repository and the commit that the path names."""
    repo = hub.seen_repo(request)
    return repo, hub.commit(repo, request.parts.get("revision", "main"))


def _described(
    repo: Repo, commit: Commit, *, is_full: bool, has_blobs: bool = False
) -> dict[str, Any]:
    """What the Hub tells of a repository; its files and card only if full."""
    card = repo.card()
    described = {
        "_id": _object_id(f"{repo.kind}/{repo.id}"),
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.owner,
        "sha": commit.sha,
        "private": repo.is_private,
        "gated": "auto" if repo.is_gated else False,
        "disabled": False,
        "lastModified": as_time(commit.date),
        "createdAt": as_time(repo.created),
        "downloads": 0,
        "likes": 0,
        "tags": card_tags(card),
        "pipeline_tag": card.get("pipeline_tag"),
        "library_name": card.get("library_name"),
    }
    if repo.kind == "space":
        described["sdk"] = card.get("sdk", repo.sdk)
    if is_full:
        described["cardData"] = card
        described["siblings"] = [
            {"rfilename": path, **(_blob(file) if has_blobs else {})}
            for path, file in commit.files.items()
        ]
    return described


def _expanded(described: dict[str, Any], repo: Repo, request: Request) -> dict[str, Any]:
    """Only the properties that the query's ``expand`` names, if it names any."""
    names = request.query.get("expand")
    if not names:
        return described
    whole = _described(repo, repo.head, is_full=True) | described
    return {name: whole[name] for name in ("_id", "id", *names) if name in whole}


def _blob(file: StoredFile) -> dict[str, Any]:
    described: dict[str, Any] = {"blobId": file.blob_id, "size": file.size}
    if file.is_lfs:
        described["lfs"] = {
            "sha256": file.sha256,
            "size": file.size,
            "pointerSize": len(file.pointer),
        }
    return described


def _all_paths(commit: Commit) -> list[str]:
    """Paths of all files and of the folders they lie in, sorted."""
    paths = set(commit.files)
    for path in commit.files:
        while path := path.rpartition("/")[0]:
            paths.add(path)
    return sorted(paths)


def _entry(commit: Commit, path: str) -> dict[str, Any]:
    """A file or folder as the tree lists it."""
    file = commit.files.get(path)
    if file is None:
        names = [f"{p} {f.blob_id}" for p, f in commit.files.items() if p.startswith(f"{path}/")]
        oid = hashlib.sha1("\n".join(names).encode()).hexdigest()
        return {"type": "directory", "oid": oid, "size": 0, "path": path}
    size = file.size
    entry: dict[str, Any] = {"type": "file", "oid": file.blob_id, "size": size, "path": path}
    if file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": size, "pointerSize": len(file.pointer)}
    return entry


def _object_id(name: str) -> str:
    """24 hexadecimal digits, as the Hub's database names things."""
    return hashlib.sha1(name.encode()).hexdigest()[:24]


_KIND = r"/api/(?P<kind>models|datasets|spaces)"
_REPO = _KIND + r"/(?P<id>[^/]+(?:/[^/]+)?)"
_REVISION = r"/(?P<revision>[^/]+)"

ROUTES: list[Route] = [
    ("GET", r"/api/whoami-v2", _whoami),
    ("POST", r"/api/validate-yaml", _validate_yaml),
    ("GET", _KIND, _list_repos),
    ("GET", _REPO + r"/refs", _refs),
    ("GET", _REPO + r"/discussions/(?P<num>\d+)", _discussion),
    ("GET", _REPO + r"/commits" + _REVISION, _commits),
    ("GET", _REPO + r"/tree" + _REVISION + r"(?:/(?P<path>.+))?", _tree),
    ("POST", _REPO + r"/paths-info" + _REVISION, _paths_info),
    ("GET", _REPO + r"/revision" + _REVISION, _repo_info),
    ("GET", _REPO + r"/xet-(?P<right>read|write)-token" + _REVISION, _xet_token),
    ("GET", _REPO, _repo_info),
    (
        "GET",
        r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+(?:/[^/]+)?)/resolve" + _REVISION + r"/(?P<path>.+)",
        _resolve,
    ),
]  # fmt: skip
"""In the order in which they are tried."""
