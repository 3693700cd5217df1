"""Xet storage in a folder: files go there in chunks and come back whole."""

import hashlib
import random

import pytest

from facestyle.testing.hub_xet import XetStore

hf_xet = pytest.importorskip("hf_xet", reason="the package hf_xet is not installed")

DATA = random.Random(3).randbytes(300_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that holds DATA, and a file of one byte beside it in the same upload."""
    store = XetStore(tmp_path_factory.mktemp("store"))
    token, expires = store.token()
    session = hf_xet.XetSession()
    try:
        with session.new_upload_commit(
            endpoint=store.address, token=token, token_expiry_unix_secs=expires
        ) as commit:
            for content in (DATA, b"1"):
                commit.start_upload_bytes(content, sha256=hf_xet.COMPUTE_SHA256)
    except Exception as error:
        pytest.skip(f"this hf_xet does not store into {store.address}: {error}")
    return store


def test_what_is_stored_is_found_by_its_sha256(store):
    for content in (DATA, b"1"):
        sha256 = hashlib.sha256(content).hexdigest()
        assert store.hash_of(sha256)
        assert store.read(sha256, len(content)) == content
    missing = hashlib.sha256(b"2").hexdigest()
    assert store.hash_of(missing) is None
    with pytest.raises(KeyError):
        store.read(missing, 1)


PUSH = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("ada/mine")
api.upload_file(path_or_fileobj="big.bin", path_in_repo="big.bin", repo_id="ada/mine")
api.upload_file(path_or_fileobj=b"small", path_in_repo="small.txt", repo_id="ada/mine")
"""

LOAD = """
import hashlib, pathlib
from huggingface_hub import hf_hub_download
path = pathlib.Path(hf_hub_download("ada/mine", "big.bin"))
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_round_trip_over_xet(hub, run_python, tmp_path):
    (tmp_path / "big.bin").write_bytes(DATA)
    pushed = run_python(PUSH, HF_HUB_DISABLE_XET=None)
    assert pushed.returncode == 0, pushed.stderr
    assert not [path for method, path in hub.requests if method == "PUT"]  # nothing went as LFS
    assert any("/xet-write-token/" in path for _, path in hub.requests)
    assert hub.files("ada/mine")["big.bin"] == DATA
    hub.requests.clear()
    loaded = run_python(LOAD, HF_HUB_DISABLE_XET=None)
    assert loaded.stdout.split() == [hashlib.sha256(DATA).hexdigest()], loaded.stderr
    assert any("/xet-read-token/" in path for _, path in hub.requests)
    assert not [
        path for method, path in hub.requests if method == "GET" and path.endswith("/big.bin")
    ]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_a_style_goes_over_xet_and_back(hub, facestyle, style, tmp_path):
    codes, told = facestyle(
        ["push", style, "ada/mine"],
        ["pull", "ada/mine", "-o", "back"],
        HF_HUB_DISABLE_XET=None,
    )
    assert codes == [0, 0], told
    assert any("/xet-write-token/" in path for _, path in hub.requests)
    for name in ("generator.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (style / name).read_bytes()
