"""A local Hub, and clients of it in processes of their own: huggingface_hub reads its settings when imported."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from facestyle.styles import bundled_style
from facestyle.testing.hub_server import HubServer

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


@pytest.fixture
def hub(request, tmp_path):
    """A running, empty Hub with one user (``hub.user``, ``hub.token``); its own errors fail the test.

    With the parameter "xet" it has Xet storage.
    """
    is_xet = getattr(request, "param", None) == "xet"
    with HubServer(xet_folder=tmp_path / "xet" if is_xet else None) as server:
        yield server
    assert server.failures == []


@pytest.fixture
def hub_env(hub, tmp_path):
    """``hub_env(**changes)`` is the environment of a client of the Hub.

    By default it has the user's token and a new HF_HOME. A change to None removes a variable: ``HF_TOKEN=None`` is an
    anonymous client, ``HF_HOME=folder`` one that shares its cache.
    """

    def make(**changes):
        kept = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
        env = kept | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": tempfile.mkdtemp(prefix="hf_home_", dir=tmp_path),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",  # seconds; a busy machine is no broken network
            "HF_HUB_ETAG_TIMEOUT": "60",
            "NO_PROXY": "*",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]),
        }
        env |= {name: str(text) for name, text in changes.items()}
        return {name: text for name, text in env.items() if changes.get(name, text) is not None}

    return make


@pytest.fixture
def run_python(hub_env, tmp_path):
    """``run_python(code, **changes)`` runs a snippet in tmp_path; stdout, stderr and returncode of the process."""

    def run(code, **changes):
        command = [sys.executable, "-c", textwrap.dedent(code)]
        return _run(command, hub_env(**changes), tmp_path)

    return run


@pytest.fixture
def run_hf(hub_env, tmp_path):
    """``run_hf(*args, **changes)`` runs the command ``hf`` in tmp_path; stdout, stderr and returncode."""
    hf = Path(sys.executable).with_name("hf")
    if not hf.exists():
        pytest.skip(f"no command hf beside {sys.executable}")

    def run(*args, **changes):
        return _run([str(hf), *map(str, args)], hub_env(**changes), tmp_path)

    return run


COMMANDS = """
import json, sys
from facestyle.cli import main
for line in sys.argv[1:]:
    print("exit", main(json.loads(line)))
"""


@pytest.fixture
def style(tmp_path):
    """A style with a small sample sheet, so that none is drawn."""
    folder = tmp_path / "style"
    shutil.copytree(bundled_style("illustration"), folder)
    (folder / "samples").mkdir()
    (folder / "samples" / "before_after.jpg").write_bytes(b"a picture")
    return folder


@pytest.fixture
def facestyle(hub_env, tmp_path):
    """``facestyle([...], [...], **env)`` runs commands in one process; its output, and the exit codes."""

    def run(*commands, **changes):
        lines = [json.dumps([str(word) for word in command]) for command in commands]
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, *lines],
            env=hub_env(**changes), cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        codes = [int(row[5:]) for row in done.stdout.splitlines() if row.startswith("exit ")]
        return codes, done.stdout + done.stderr

    return run


def _run(command, env, folder):
    return subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S
    )
