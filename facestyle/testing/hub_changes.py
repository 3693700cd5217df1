"""Requests that change the local Hub: repositories, uploads, commits, tags, branches, pull requests."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from facestyle.testing.hub_api import Answer, Hub, Refused, Request, Route, as_json
from facestyle.testing.hub_repos import MAIN, Commit, Repo, StoredFile

__all__ = ["ROUTES"]


def _create_repo(hub: Hub, request: Request) -> Answer:
    """Address of the new repository; 409 with the address of the one that exists."""
    kind, id = _named(hub, request)
    if existing := hub.repos.get((kind, id)):
        error = f"You already created this {kind} repo"
        return as_json({"error": error, "url": hub.page(existing)}, 409)
    wanted = request.json()
    repo = Repo(kind, id, is_private=wanted.get("visibility") == "private")
    repo.sdk = wanted.get("sdk")
    hub.repos[kind, id] = repo
    return as_json({"url": hub.page(repo), "name": id})


def _delete_repo(hub: Hub, request: Request) -> Answer:
    if hub.repos.pop(_named(hub, request), None) is None:
        raise Refused(404, "Repository not found", code="RepoNotFound")
    return Answer(b"OK")


def _named(hub: Hub, request: Request) -> tuple[str, str]:
    """Kind and owner/name of the repository that the body names, in the user's own namespace."""
    wanted = request.json()
    namespace = wanted.get("organization") or hub.writer(request).name
    hub.check_namespace(request, namespace)
    return wanted.get("type") or "model", f"{namespace}/{wanted['name']}"


def _change_settings(hub: Hub, request: Request) -> Answer:
    """Who may see the repository and its files from now on."""
    repo, wanted = hub.changed_repo(request), request.json()
    if "visibility" in wanted:
        repo.is_private = wanted["visibility"] == "private"
    if "gated" in wanted:
        repo.is_gated = bool(wanted["gated"])
    return as_json({"private": repo.is_private, "gated": repo.is_gated})


def _preupload(hub: Hub, request: Request) -> Answer:
    """How each file is to be sent, and what the repository now has in its place."""
    repo = hub.changed_repo(request)
    present = hub.commit(repo, request.parts["revision"]).files
    files = []
    for file in request.json()["files"]:
        mode = "lfs" if file["size"] > hub.lfs_threshold else "regular"
        described = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        if file["path"] in present:
            described["oid"] = present[file["path"]].content_id
        files.append(described)
    return as_json({"files": files})


def _lfs_batch(hub: Hub, request: Request) -> Answer:
    """Where to send each object that is not here yet."""
    hub.seen_repo(request)
    hub.writer(request)
    objects = []
    for wanted in request.json()["objects"]:
        described = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.objects:
            href = f"{hub.endpoint}/lfs/{wanted['oid']}"
            described["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        objects.append(described)
    return as_json({"transfer": "basic", "objects": objects})


def _lfs_put(hub: Hub, request: Request) -> Answer:
    """Nothing; the object is stored if it is what its name says."""
    oid = request.parts["oid"]
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refused(400, "the content's sha256 is another one")
    hub.objects[oid] = request.body
    return Answer(headers={"ETag": f'"{oid}"'})


def _lfs_verify(hub: Hub, request: Request) -> Answer:
    hub.writer(request)
    stored = hub.objects.get(request.parts["oid"])
    if stored is None or len(stored) != request.json()["size"]:
        raise Refused(404, "the object has not been uploaded")
    return Answer()


def _commit(hub: Hub, request: Request) -> Answer:
    """Name and address of the new commit, and of its pull request if one was asked for."""
    repo = hub.changed_repo(request)
    head = hub.commit(repo, request.parts["revision"])
    ref = repo.ref_name(request.parts["revision"])
    if ref is None or ref.startswith("refs/tags/"):
        raise Refused(400, "a commit goes on top of a branch or a pull request")
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit", head.sha) != head.sha:
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines:
        _apply(hub, files, line["key"], line["value"], head)
    title, author = header["summary"], hub.writer(request).name
    page, pull_page = hub.page(repo), {}
    if request.has_flag("create_pr"):
        pull = repo.open_pull_request(ref, title=title, author=author)
        ref, pull_page = pull.ref, {"pullRequestUrl": f"{page}/discussions/{pull.num}"}
    message = header.get("description", "")
    made = repo.commit(ref, files, title=title, message=message, author=author)
    done = {"success": True, "commitOid": made.sha, "commitUrl": f"{page}/commit/{made.sha}"}
    return as_json(done | pull_page)


def _apply(
    hub: Hub, files: dict[str, StoredFile], key: str, value: dict[str, Any], head: Commit
) -> None:
    """One line of a commit's body, done to a list of files."""
    path: str = value.get("path", "")
    if key == "file":
        files[path] = StoredFile(base64.b64decode(value["content"]), is_lfs=False)
    elif key == "lfsFile":
        files[path] = hub.uploaded(path, value["oid"], value.get("size", 0))
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise _no_file(path, head)
    elif key == "deletedFolder":
        inside = [name for name in files if name.startswith(f"{path.rstrip('/')}/")]
        if not inside:
            raise _no_file(path, head)
        for name in inside:
            del files[name]
    elif key != "header":
        raise Refused(400, f"unknown operation {key}")


def _no_file(path: str, head: Commit) -> Refused:
    message = f"A file with this name doesn't exist: {path}"
    return Refused(404, message, code="EntryNotFound", commit=head)


def _create_tag(hub: Hub, request: Request) -> Answer:
    repo = hub.changed_repo(request)
    commit = hub.commit(repo, request.parts["revision"])
    return _new_ref(repo, f"refs/tags/{request.json()['tag']}", commit)


def _create_branch(hub: Hub, request: Request) -> Answer:
    repo = hub.changed_repo(request)
    commit = hub.commit(repo, request.json().get("startingPoint", "main"))
    return _new_ref(repo, f"refs/heads/{request.parts['name']}", commit)


def _new_ref(repo: Repo, ref: str, commit: Commit) -> Answer:
    if ref in repo.refs:
        raise Refused(409, f"{ref} exists")
    repo.refs[ref] = commit
    return Answer(b"OK")


def _delete_tag(hub: Hub, request: Request) -> Answer:
    return _drop_ref(hub, request, f"refs/tags/{request.parts['name']}")


def _delete_branch(hub: Hub, request: Request) -> Answer:
    return _drop_ref(hub, request, f"refs/heads/{request.parts['name']}")


def _drop_ref(hub: Hub, request: Request, ref: str) -> Answer:
    """Nothing; the name is gone, its commits stay."""
    repo = hub.changed_repo(request)
    if ref == MAIN:
        raise Refused(400, "the branch main stays")
    if repo.refs.pop(ref, None) is None:
        raise Refused(404, f"no such ref: {ref}", code="RevisionNotFound")
    return Answer(b"OK")


def _open_pull_request(hub: Hub, request: Request) -> Answer:
    """Number of a new pull request without commits of its own."""
    repo, wanted = hub.seen_repo(request), request.json()
    if not wanted.get("pullRequest"):
        raise Refused(400, "only pull requests are kept here")
    pull = repo.open_pull_request(MAIN, title=wanted["title"], author=hub.writer(request).name)
    return as_json({"num": pull.num, "pullRequest": True, "title": pull.title})


_REPO = r"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_LFS_OBJECT = r"/lfs/(?P<oid>[0-9a-f]{64})"

ROUTES: list[Route] = [
    ("POST", r"/api/repos/create", _create_repo),
    ("DELETE", r"/api/repos/delete", _delete_repo),
    ("PUT", _REPO + r"/settings", _change_settings),
    ("POST", _REPO + r"/preupload/(?P<revision>[^/]+)", _preupload),
    (
        "POST",
        r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
        _lfs_batch,
    ),
    ("PUT", _LFS_OBJECT, _lfs_put),
    ("POST", _LFS_OBJECT + r"/verify", _lfs_verify),
    ("POST", _REPO + r"/commit/(?P<revision>[^/]+)", _commit),
    ("POST", _REPO + r"/tag/(?P<revision>[^/]+)", _create_tag),
    ("DELETE", _REPO + r"/tag/(?P<name>[^/]+)", _delete_tag),
    ("POST", _REPO + r"/branch/(?P<name>[^/]+)", _create_branch),
    ("DELETE", _REPO + r"/branch/(?P<name>[^/]+)", _delete_branch),
    ("POST", _REPO + r"/discussions", _open_pull_request),
]
"""In the order in which they are tried."""
