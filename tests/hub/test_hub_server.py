"""The local Hub, driven by the real client through a socket, in processes of their own."""

import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

CARD = b"---\nlibrary_name: facestyle\npipeline_tag: image-to-image\nlicense: mit\ntags: [portrait]\n---\n# A style\n"
WEIGHTS = random.Random(0).randbytes(300_000)
FILES = {
    "README.md": CARD,
    "config.json": b'{"a": 1}',
    "samples/one.txt": b"one",
    "weights.bin": WEIGHTS,
}

NO_WAIT = "import time; time.sleep = lambda seconds: None\n"
"""The client waits seconds between its attempts; tests do not."""


def fill(folder: Path, files=FILES):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def said(result):
    """What a snippet printed as JSON, last."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def without_gitattributes(files):
    return {name: content for name, content in files.items() if name != ".gitattributes"}


def test_a_folder_goes_up_and_only_changes_make_commits(hub, run_python, tmp_path):
    fill(tmp_path / "style")
    told = said(
        run_python("""
            import json
            from huggingface_hub import HfApi
            api = HfApi()
            told = {"name": api.whoami()["name"]}
            for _ in range(2):
                told["url"] = str(api.create_repo("ada/style", exist_ok=True))
            def push(**options):
                return api.upload_folder(repo_id="ada/style", folder_path="style", **options).oid
            told["first"] = push()
            told["unchanged"] = push()
            open("style/config.json", "w").write("{}")
            told["pull"] = api.upload_folder(
                repo_id="ada/style", folder_path="style", create_pr=True, commit_message="empty").pr_revision
            api.upload_file(repo_id="ada/style", path_in_repo="notes/a.txt", path_or_fileobj=b"a")
            told["deleted"] = push(delete_patterns=["notes/*", "samples/*"], allow_patterns="config.json")
            api.create_tag("ada/style", tag="v1", revision=told["first"])
            api.create_branch("ada/style", branch="wip")
            refs = api.list_repo_refs("ada/style", include_pull_requests=True)
            told["refs"] = {r.ref: r.target_commit for r in refs.branches + refs.tags + refs.pull_requests}
            told["titles"] = [c.title for c in api.list_repo_commits("ada/style")]
            infos = api.get_paths_info("ada/style", ["samples", "weights.bin", "absent"], revision="v1")
            told["paths"] = {i.path: i.lfs.sha256 if getattr(i, "lfs", None) else None for i in infos}
            told["top"] = sorted(i.path for i in api.list_repo_tree("ada/style", revision="v1"))
            info = api.model_info("ada/style", files_metadata=True, revision="v1")
            told["sizes"] = {s.rfilename: s.size for s in info.siblings}
            details = api.get_discussion_details("ada/style", 1)
            told["details"] = [details.title, details.git_reference, [e.summary for e in details.events]]
            print(json.dumps(told))
        """)
    )
    assert told["name"] == "ada" and told["url"] == f"{hub.endpoint}/ada/style"
    assert told["unchanged"] == told["first"]
    assert without_gitattributes(hub.files("ada/style", revision=told["first"])) == FILES
    assert hub.files("ada/style", revision="refs/pr/1")["config.json"] == b"{}"
    assert told["pull"] == "refs/pr/1"
    remaining = {"README.md", "config.json", "weights.bin", ".gitattributes"}
    assert hub.files("ada/style").keys() == remaining
    assert told["refs"]["refs/heads/main"] == told["refs"]["refs/heads/wip"] == told["deleted"]
    assert told["refs"]["refs/tags/v1"] == told["first"]
    assert len(told["titles"]) == 4 and told["titles"][-1] == "initial commit"
    assert told["paths"] == {"samples": None, "weights.bin": hashlib.sha256(WEIGHTS).hexdigest()}
    assert told["top"] == [".gitattributes", "README.md", "config.json", "samples", "weights.bin"]
    assert told["sizes"]["weights.bin"] == len(WEIGHTS)
    assert told["details"] == ["empty", "refs/pr/1", ["empty"]]
    assert sum(method == "PUT" for method, _ in hub.requests) == 1, "one LFS file, sent once"


def test_what_came_down_is_cached_and_served_offline(hub, run_python, tmp_path):
    old = hub.publish("ada/style", FILES | {"config.json": b"old"}, tag="v1")
    new = hub.publish("ada/style", FILES)
    home = tmp_path / "home"
    code = """
        import json
        from huggingface_hub import hf_hub_download, snapshot_download
        get = lambda **options: snapshot_download("ada/style", **options)
        print(json.dumps({"main": get(), "file": hf_hub_download("ada/style", "config.json")}))
    """
    fresh = said(run_python(code, HF_HOME=home))
    assert contents(fresh["main"]) == FILES
    downloads = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert len(downloads) == len(FILES)
    hub.requests.clear()
    assert said(run_python(code, HF_HOME=home)) == fresh
    assert hub.requests and not [p for m, p in hub.requests if m == "GET" and "/resolve/" in p]

    told = said(
        run_python(
            f"""
            import json
            from huggingface_hub import snapshot_download
            get = lambda **options: snapshot_download("ada/style", **options)
            print(json.dumps({{
                "tag": get(revision="v1", allow_patterns=["*.json"]),
                "commit": get(revision="{old}", local_dir="copy"),
                "main": get(revision="{new}"),
            }}))
            """,
            HF_HOME=home,
        )
    )
    assert contents(told["tag"]) == {"config.json": b"old"}
    assert contents(told["commit"]) == FILES | {"config.json": b"old"}
    assert told["main"] == fresh["main"]

    hub.stop()
    hub.requests.clear()
    assert said(run_python(code, HF_HOME=home)) == fresh, "the client falls back on its cache"
    assert said(run_python(code, HF_HOME=home, HF_HUB_OFFLINE=1)) == fresh
    missing = run_python(code, HF_HUB_OFFLINE=1)
    assert "LocalEntryNotFoundError" in missing.stderr
    assert hub.requests == []


ERRORS = """
    import functools, json
    from huggingface_hub import HfApi
    def errors(token):
        api, names = HfApi(token=token), {}
        def attempt(what, function, *args, **options):
            try:
                function(*args, **options)
                names[what] = None
            except Exception as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                names[what] = [type(error).__name__, status]
        def push(repo, content=b"a", **options):
            api.upload_file(repo_id=repo, path_in_repo="a.txt", path_or_fileobj=content, **options)
        get = functools.partial(api.hf_hub_download, cache_dir=f"cache_{token}")
        attempt("private", get, "ada/private", "config.json")
        attempt("gated", get, "ada/gated", "config.json")
        attempt("public", get, "ada/public", "config.json")
        attempt("repo", get, "ada/absent", "config.json")
        attempt("short", get, "absent", "config.json")
        attempt("file", get, "ada/public", "absent.json")
        attempt("revision", get, "ada/public", "config.json", revision="absent")
        attempt("create", api.create_repo, "ada/new")
        attempt("push", push, "ada/public")
        attempt("pull", push, "ada/public", create_pr=True)
        attempt("whoami", api.whoami)
        attempt("delete_file", api.delete_file, "absent.txt", "ada/public")
        attempt("card", api.upload_file, repo_id="ada/public", path_in_repo="README.md",
                path_or_fileobj=b"---\\n- no mapping\\n---\\n")
        attempt("conflict", push, "ada/public", b"b", parent_commit="0" * 40)
        return names
    tokens = {"owner": "hf_local", "nobody": None, "other": "hf_bob", "reader": "hf_read", "wrong": "hf_wrong"}
    print(json.dumps({who: errors(token) for who, token in tokens.items()}))
"""
COMMON_ERRORS = {
    "public": None,
    "repo": ["RepositoryNotFoundError", 404],
    "short": ["RepositoryNotFoundError", 404],
    "file": ["RemoteEntryNotFoundError", 404],
    "revision": ["RevisionNotFoundError", 404],
    "card": ["ValueError", None],
}
REFUSED = {
    "owner": {
        "private": None,
        "gated": None,
        "create": None,
        "push": None,
        "pull": None,
        "whoami": None,
        "delete_file": ["RemoteEntryNotFoundError", 404],
        "conflict": ["HfHubHTTPError", 412],
    },
    "nobody": {
        "private": ["RepositoryNotFoundError", 404],
        "gated": ["GatedRepoError", 403],
        "create": ["HfHubHTTPError", 401],
        "push": ["HfHubHTTPError", 401],
        "pull": ["HfHubHTTPError", 401],
        "whoami": ["LocalTokenNotFoundError", None],
        "delete_file": ["HfHubHTTPError", 401],
        "conflict": ["HfHubHTTPError", 401],
    },
    "other": {
        "private": ["RepositoryNotFoundError", 404],
        "gated": ["GatedRepoError", 403],
        "create": ["HfHubHTTPError", 403],
        "push": ["HfHubHTTPError", 403],
        "pull": None,
        "whoami": None,
        "delete_file": ["HfHubHTTPError", 403],
        "conflict": ["HfHubHTTPError", 403],
    },
    "reader": {
        "private": None,
        "gated": None,
        "create": ["HfHubHTTPError", 403],
        "push": ["HfHubHTTPError", 403],
        "pull": ["HfHubHTTPError", 403],
        "whoami": None,
        "delete_file": ["HfHubHTTPError", 403],
        "conflict": ["HfHubHTTPError", 403],
    },
}


def test_errors_have_the_types_that_the_client_knows(hub, run_python):
    hub.add_user("bob", "hf_bob")
    hub.add_user("ada", "hf_read", can_write=False)
    hub.publish("ada/public", FILES)
    hub.publish("ada/private", FILES, is_private=True)
    hub.publish("ada/gated", FILES)
    hub.repo("ada/gated").is_gated = True
    told = said(run_python(ERRORS, HF_TOKEN=None))
    wrong = told.pop("wrong")
    assert told == {who: COMMON_ERRORS | errors for who, errors in REFUSED.items()}
    assert {tuple(error) for error in wrong.values()} == {("HfHubHTTPError", 401)}


def test_an_interrupted_upload_is_repeated_until_the_bytes_are_right(hub, run_python, tmp_path):
    """Six broken uploads are one push that fails; the next fails at the commit; the third has nothing left to send."""
    fill(tmp_path / "style")
    hub.publish("ada/style", {})
    hub.break_uploads(after_bytes=100_000, times=7)
    hub.drop_requests("POST", "/commit/")
    hub.fail_requests("POST", "/preupload/", status=503)
    told = said(
        run_python(
            NO_WAIT
            + textwrap.dedent("""
            import json
            from huggingface_hub import HfApi
            told = []
            for _ in range(3):
                try:
                    HfApi().upload_folder(repo_id="ada/style", folder_path="style")
                    told.append(None)
                except Exception as error:
                    told.append([type(error).__name__, type(error.__cause__).__name__])
            print(json.dumps(told))
            """)
        )
    )
    assert told[0][0] == "RuntimeError" and told[0][1] in {
        "WriteError",
        "ReadError",
        "RemoteProtocolError",
    }
    assert told[1][0] == "RemoteProtocolError" and told[2] is None
    assert without_gitattributes(hub.files("ada/style")) == FILES
    assert hub.repo("ada/style").head.files["weights.bin"].is_lfs
    assert sum(method == "PUT" for method, _ in hub.requests) == 8
    assert len(hub.repo("ada/style").commits) == 3, "the first, the published, the third push"


def test_an_interrupted_download_goes_on_where_it_broke(hub, run_python):
    hub.publish("ada/style", FILES)
    hub.break_downloads(after_bytes=100_000, times=2)
    code = NO_WAIT + textwrap.dedent("""
        import json
        from huggingface_hub import hf_hub_download
        print(json.dumps(hf_hub_download("ada/style", "weights.bin")))
    """)
    assert Path(said(run_python(code))).read_bytes() == WEIGHTS
    assert hub.requests.count(("GET", "/ada/style/resolve/main/weights.bin")) == 3


@pytest.mark.parametrize(
    "length",
    ["Content-Length: 500000\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 0\r\n"],
)
def test_a_client_that_leaves_is_no_error_and_one_that_stays_does_not_keep_the_hub_from_stopping(
    hub, length
):
    """The fixture looks at the errors; the second connection stays open past the Hub's end."""
    port = int(hub.endpoint.rpartition(":")[2])
    request = f"PUT /lfs/{'0' * 64} HTTP/1.1\r\nHost: here\r\n{length}\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as gone:
        gone.sendall(request)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as staying:
        staying.sendall(request)
        deadline = time.monotonic() + 30
        while len(hub.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        hub.stop()
        with suppress(ConnectionResetError):
            while staying.recv(1000):
                pass
    assert len(hub.requests) == 2


@pytest.mark.parametrize(
    ("wanted", "status", "span", "content"),
    [
        ("bytes=299990-", 206, "bytes 299990-299999/300000", WEIGHTS[299_990:]),
        ("bytes=5-7", 206, "bytes 5-7/300000", WEIGHTS[5:8]),
        ("bytes=-4", 206, "bytes 299996-299999/300000", WEIGHTS[-4:]),
        ("bytes=300000-", 416, "bytes */300000", b""),
        ("lines=1-2", 200, None, WEIGHTS),
    ],
)
def test_parts_of_a_file(hub, wanted, status, span, content):
    hub.publish("ada/style", FILES)
    address = f"{hub.endpoint}/ada/style/resolve/main/weights.bin"
    request = urllib.request.Request(address, headers={"Range": wanted})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert (answer.status, answer.headers["Content-Range"]) == (status, span)
        assert answer.read() == content


def test_spaces_lists_and_settings(hub, run_python, tmp_path):
    fill(tmp_path / "app", {"README.md": b"---\nsdk: gradio\n---\n", "app.py": b"print()"})
    other = CARD.replace(b"facestyle", b"other")
    hub.add_user("bob", "hf_bob")
    sha = hub.publish("ada/style-one", FILES)
    hub.publish("bob/style-two", FILES)
    hub.publish("ada/other", {"README.md": other})
    hub.publish("ada/hidden", FILES, is_private=True)
    hub.publish("bob/hidden", FILES, is_private=True)
    told = said(
        run_python("""
            import json
            from huggingface_hub import HfApi
            from huggingface_hub.errors import RepositoryNotFoundError
            api = HfApi()
            ids = lambda **options: [m.id for m in api.list_models(**options)]
            told = {
                "all": ids(), "facestyle": ids(filter="facestyle"), "anonymous": ids(filter="facestyle", token=False),
                "two": ids(filter=["facestyle", "license:mit"], search="STYLE-T"), "bob": ids(author="bob"),
                "task": ids(pipeline_tag="image-to-image", limit=2), "nothing": ids(pipeline_tag="other"),
            }
            info = api.model_info("ada/style-one")
            told["tags"], told["card"] = info.tags, info.card_data.to_dict()
            expanded = next(iter(api.list_models(author="ada", search="one", expand=["downloads", "tags", "sha"])))
            told["expanded"] = [expanded.downloads, expanded.tags, expanded.sha, expanded.created_at]
            told["full"] = [len(m.siblings) for m in api.list_models(search="one", full=True)]
            told["space"] = str(api.create_repo("demo", repo_type="space", space_sdk="gradio", private=True))
            api.upload_folder(repo_id="ada/demo", folder_path="app", repo_type="space")
            told["space_sdk"] = api.space_info("ada/demo").sdk
            told["spaces"] = [s.id for s in api.list_spaces(author="ada")]
            api.update_repo_settings("ada/demo", repo_type="space", private=False, gated="auto")
            api.delete_repo("ada/style-one")
            try:
                api.delete_repo("ada/style-one")
            except RepositoryNotFoundError:
                told["deleted"] = api.repo_exists("ada/style-one")
            print(json.dumps(told))
        """)
    )
    assert told["all"] == ["ada/hidden", "ada/other", "bob/style-two", "ada/style-one"], (
        "newest first"
    )
    assert told["facestyle"] == ["ada/hidden", "bob/style-two", "ada/style-one"]
    assert told["anonymous"] == ["bob/style-two", "ada/style-one"]
    assert told["two"] == told["bob"] == ["bob/style-two"]
    assert told["task"] == told["all"][:2] and told["nothing"] == []
    assert told["tags"] == ["portrait", "facestyle", "image-to-image", "license:mit"]
    assert told["card"]["license"] == "mit"
    assert told["expanded"] == [0, told["tags"], sha, None]
    assert told["full"] == [len(FILES)]
    assert told["space"] == f"{hub.endpoint}/spaces/ada/demo" and told["space_sdk"] == "gradio"
    assert told["spaces"] == ["ada/demo"] and told["deleted"] is False
    assert hub.files("ada/demo", kind="space")["app.py"] == b"print()"
    demo = hub.repo("ada/demo", kind="space")
    assert (demo.is_private, demo.is_gated, demo.sdk) == (False, True, "gradio")


def test_the_command_hf_uploads_and_downloads(hub, run_hf, tmp_path):
    fill(tmp_path / "style")
    uploaded = run_hf("upload", "ada/style", "style", "--private", "--commit-message", "by hf")
    assert uploaded.returncode == 0, uploaded.stderr
    assert hub.repo("ada/style").is_private and hub.repo("ada/style").head.title == "by hf"
    downloaded = run_hf("download", "ada/style", "--local-dir", "copy", "--include", "*.*")
    assert downloaded.returncode == 0, downloaded.stderr
    assert without_gitattributes(contents(tmp_path / "copy")) == FILES
    refused = run_hf("download", "ada/style", "--local-dir", "stolen", HF_TOKEN=None)
    assert refused.returncode != 0 and not contents(tmp_path / "stolen")


def test_the_module_runs_a_hub(hub_env):
    command = [
        sys.executable,
        "-m",
        "facestyle.testing.hub_server",
        "--user",
        "eve",
        "--token",
        "hf_eve",
    ]
    with subprocess.Popen(
        command, env=hub_env(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        # Started by a shell in the background, the tests, and what they start, would ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        try:
            endpoint = process.stdout.readline().strip()
            request = urllib.request.Request(
                f"{endpoint}/api/whoami-v2", headers={"Authorization": "Bearer hf_eve"}
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=30) as answer:
                assert json.load(answer)["name"] == "eve"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
