"""Styles over a real socket: pushed, loaded, pulled, refused, interrupted, and loaded by several at once."""

import json
import subprocess
import sys
from pathlib import Path

from facestyle.models.zoo import load_base_generator, load_style_generator
from facestyle.styles import bundled_style

FILES = {"config.json", "generator.safetensors", "training.json"}


def published(hub, name="ada/mine", **changes):
    folder = bundled_style("illustration")
    files = {file: (folder / file).read_bytes() for file in FILES} | changes
    return hub.publish(name, {k: v for k, v in files.items() if v is not None})


LOAD = """
import hashlib, sys
from facestyle import FaceStylizer, list_styles
from facestyle.bench import sample_photo
stylizer = FaceStylizer.from_pretrained({name!r}, device="cpu")
print(hashlib.sha256(stylizer(sample_photo()).image.tobytes()).hexdigest())
"""


FIND = """
from facestyle.styles import find_style
print(find_style("ada/mine"))
"""


def test_a_pushed_style_draws_the_same_fresh_cached_and_offline(hub, run_python, tmp_path):
    code = LOAD.format(name="illustration") + 'print(stylizer.push_to_hub("ada/mine"))\n'
    pushed = run_python(code)
    here, address = pushed.stdout.split()
    assert "/ada/mine/commit/" in address, pushed.stderr
    files = hub.files("ada/mine")
    assert {*FILES, "README.md", "LICENSE.md", "samples/before_after.jpg"} <= files.keys()
    assert files["samples/before_after.jpg"][:2] == b"\xff\xd8"
    home = tmp_path / "home"
    code = LOAD.format(name="ada/mine") + "print(list_styles(hub=True)[-1])"
    fresh = run_python(code, HF_HOME=home)
    assert fresh.stdout.split() == [here, "ada/mine"], fresh.stderr
    hub.requests.clear()
    cached = run_python(FIND, HF_HOME=home).stdout.split()
    assert not [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    folder = Path(cached[0])
    assert (folder / "generator.safetensors").read_bytes() == files["generator.safetensors"]
    hub.stop()
    assert run_python(FIND, HF_HOME=home, HF_HUB_OFFLINE=1).stdout.split() == cached
    nowhere = run_python(FIND, HF_HUB_OFFLINE=1)
    assert "DownloadError" in nowhere.stderr and "bundled style" in nowhere.stderr


def test_a_dry_run_sends_nothing_and_unchanged_files_make_no_commit(hub, facestyle, style):
    push = ["push", style, "ada/mine"]
    codes, told = facestyle([*push, "--dry-run"])
    assert codes == [0] and hub.requests == []
    assert "generator.safetensors" in told and "library_name: facestyle" in told
    (style / "pictures").mkdir()
    (style / "pictures" / "someone.png").write_bytes(b"private")
    codes, told = facestyle(
        push, push, [*push, "--create-pr"], [*push, "--include-pictures"], ["styles", "--hub"]
    )
    assert codes == [0, 0, 0, 0, 0]
    assert "\nada/mine\n" in told
    assert hub.files("ada/mine")["pictures/someone.png"] == b"private", "only when told"
    titles = [commit.title for commit in hub.repo("ada/mine").head.history()]
    assert titles.count("Style illustration") == 2


def test_a_licence_given_with_the_push_is_kept_and_shown(hub, run_python, style):
    config = json.loads((style / "config.json").read_text())
    (style / "config.json").write_text(json.dumps(config | {"license": "unknown"}))
    pushed = run_python(f"""
        from facestyle.hub.push import push_style
        print(push_style({str(style)!r}, "ada/mine", license="CC-BY-4.0"))
    """)
    assert "/ada/mine/commit/" in pushed.stdout, pushed.stderr
    files = hub.files("ada/mine")
    assert json.loads(files["config.json"])["license"] == "CC-BY-4.0"
    assert b"license: cc-by-4.0\n" in files["README.md"]
    assert b"in this folder: **CC-BY-4.0**" in files["LICENSE.md"]


def test_revisions_private_styles_and_wrong_tokens(hub, facestyle, style, tmp_path):
    codes, _ = facestyle(["push", style, "ada/mine", "--private"])
    assert codes == [0] and hub.repo("ada/mine").is_private
    first = hub.repo("ada/mine").find("main").sha
    config = json.loads((style / "config.json").read_text())
    (style / "config.json").write_text(json.dumps(config | {"title": "Second"}))
    codes, told = facestyle(
        ["push", style, "ada/mine"],
        ["pull", "ada/mine", "-o", "new"],
        ["pull", "ada/mine", "-o", "old", "--revision", first],
        ["pull", "ada/mine", "-o", "none", "--revision", "v9"],
        ["pull", "ada/mine", "-o", "old"],
    )
    assert codes == [0, 0, 0, 3, 4], "no such revision; a folder that is not empty"
    assert "has no branch, tag or commit 'v9'" in told
    titles = {
        n: json.loads((tmp_path / n / "config.json").read_text())["title"] for n in ("new", "old")
    }
    assert titles == {"new": "Second", "old": config["title"]}
    load_style_generator(tmp_path / "old", load_base_generator())
    codes, told = facestyle(["pull", "ada/mine", "-o", "x"], ["pull", "ada/nothing"], HF_TOKEN=None)
    assert codes == [3, 3] and "hf auth login" in told
    codes, told = facestyle(["push", style, "ada/mine", "--revision", "v2"])
    assert codes == [4] and "no branch of this name" in told and "hf repos branch create" in told
    codes, told = facestyle(["push", style, "ada/mine"], HF_TOKEN="hf_wrong")
    assert codes == [4] and "UploadError" in told and "hf auth login" in told
    codes, told = facestyle(["push", style, "ada/mine"], ["push", style, "no name"], HF_TOKEN=None)
    assert codes == [4, 2] and "USER/NAME" in told


def test_repositories_that_hold_no_whole_style_are_refused(hub, facestyle):
    published(hub, "ada/pickle", **{"generator.safetensors": None, "model.pkl": b"cos"})
    published(hub, "ada/half", **{"generator.safetensors": None})
    published(hub, "ada/other", **{"config.json": None})
    published(hub, "ada/short", **{"generator.safetensors": b"short"})
    names = ("ada/pickle", "ada/half", "ada/other", "ada/short")
    codes, told = facestyle(*(["pull", name, "-o", "out"] for name in names))
    assert codes == [3, 3, 3, 3]
    first, second, third, fourth = [row for row in told.splitlines() if "Error: " in row]
    assert "model.pkl, which may run anything" in first and "no whole style" in second
    assert "no facestyle style" in third and "safetensors" in fourth


def test_an_interrupted_upload_goes_on_with_the_same_command(hub, run_python, facestyle, style):
    hub.break_uploads(after_bytes=1_000_000, times=6)
    broken = run_python(f"""
        import time
        time.sleep = lambda seconds: None
        from facestyle.cli import main
        raise SystemExit(main(["push", {str(style)!r}, "ada/mine"]))
    """)
    assert broken.returncode == 4, broken.stderr
    assert f"facestyle push {style} ada/mine" in broken.stderr
    assert "generator.safetensors" not in hub.files("ada/mine")
    codes, _ = facestyle(["push", style, "ada/mine"])
    assert codes == [0]
    sent = hub.files("ada/mine")["generator.safetensors"]
    assert sent == (style / "generator.safetensors").read_bytes()


MANY = """
import sys
from concurrent.futures import ThreadPoolExecutor
from facestyle.hub.download import download_style
from facestyle.models.zoo import load_base_generator, load_style_generator
base = load_base_generator()
def load(_):
    return float(load_style_generator(download_style("ada/mine"), base).synthesis.const.sum())
with ThreadPoolExecutor(3) as pool:
    print(*set(pool.map(load, range(3))))
"""


def test_threads_and_processes_share_an_empty_cache(hub, hub_env, tmp_path):
    published(hub)
    env = hub_env(HF_HOME=tmp_path / "home")
    running = [
        subprocess.Popen([sys.executable, "-c", MANY], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = {process.communicate(timeout=200)[0].strip() for process in running}
    net = load_style_generator(bundled_style("illustration"), load_base_generator())
    assert found == {str(float(net.synthesis.const.sum()))}


def test_the_hf_command_takes_and_gives_a_style(hub, run_hf, style, tmp_path):
    assert run_hf("upload", "ada/mine", style).returncode == 0
    done = run_hf("download", "ada/mine", "--local-dir", tmp_path / "down")
    assert done.returncode == 0, done.stderr
    load_style_generator(tmp_path / "down", load_base_generator())
