"""The endpoints through gradio_client, and the calls that the page shows, run as they stand."""

import io
import json
import shlex
import shutil
import subprocess
import urllib.request

import pytest
from gradio_client import Client, handle_file
from PIL import Image
from same_pixels import same_pixels

from facestyle import FaceStylizer
from facestyle.cli import main
from space.snippets import Call


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


@pytest.fixture
def here(astronaut, tmp_path, monkeypatch):
    """A folder with the visitor's photo, which holds the same face twice."""
    photo = Image.new("RGB", (1000, 520), "white")
    photo.paste(astronaut, (0, 0))
    photo.paste(astronaut.resize((400, 400)), (560, 0))
    photo.save(tmp_path / "my photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path) -> bytes:
    return Image.open(path).convert("RGB").tobytes()


def test_faces_are_told_largest_first(client, here):
    facts = client.predict(handle_file("my photo.png"), api_name="/faces")
    assert facts["size"] == [1000, 520]
    first, second = (face["box"] for face in facts["faces"])
    assert first[2] - first[0] > second[2] - second[0]


def test_stylize_gives_the_librarys_pixels_and_metadata(client, here, stylizers):
    path, facts = client.predict(
        handle_file("my photo.png"),
        "cartoon",
        0.8,
        0.5,
        0.4,
        0,
        "all",
        False,
        api_name="/stylize",
    )
    direct = stylizers["cartoon"]("my photo.png", strength=0.8, keep_color=0.5, psi=0.4)
    assert Image.open(path).format == "PNG"
    assert same_pixels(pixels(path), direct.image.tobytes())
    assert Image.open(path).text == direct.metadata()
    assert len(facts["faces"]) == 2


def test_variations_count_their_seeds(client, here, stylizers):
    pictures, _ = client.predict(
        handle_file("my photo.png"),
        "illustration",
        3,
        11,
        2,
        1.0,
        0.0,
        "largest",
        1,
        api_name="/variations",
    )
    direct = stylizers["illustration"].variations(
        "my photo.png", 2, mixing_level=3, seed=11, refine=1
    )
    for one, two in zip(pictures, direct, strict=True):
        assert same_pixels(pixels(one["image"]), two.faces[0].portrait.tobytes())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("no picture"), "expected a JPEG"),
        (lambda path: Image.new("RGB", (300, 300), "grey").save(path), "no face found"),
        (lambda path: Image.new("RGB", (20, 20)).save(path), "at least 32 x 32 pixels"),
    ],
)
def test_what_cannot_be_used_is_refused_with_advice(client, tmp_path, make, message):
    path = tmp_path / "wrong.png"
    make(path)
    with pytest.raises(Exception, match=f"(?i){message}"):
        client.predict(handle_file(str(path)), "illustration", api_name="/stylize")


CALLS = [
    Call(
        style="illustration", photo="my photo.png", options={"strength": 0.8, "psi": 0.4}, full=True
    ),
    Call(
        style="cartoon", photo="my photo.png", options={"keep_color": 0.3, "refine": 1}, faces=[1]
    ),
    Call(
        style="illustration",
        photo="my photo.png",
        way="variations",
        options={"mixing_level": 3, "seed": 5, "refine": 1},
    ),
]


@pytest.mark.parametrize("call", CALLS, ids=["full", "portrait", "variation"])
def test_the_shown_calls_give_one_picture(call, here, address, stylizers, monkeypatch):
    monkeypatch.setattr(
        FaceStylizer, "from_pretrained", staticmethod(lambda name, **_: stylizers[name])
    )
    exec(call.python(), {})
    wanted = pixels("result.png")
    (here / "result.png").unlink()

    assert main(shlex.split(call.shell())[1:]) == 0
    written = [
        path for path in here.rglob("*.png") if path.name not in ("my photo.png", "grid.png")
    ]
    assert wanted in [pixels(path) for path in written]

    if not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("no bash and curl here for the call over HTTP")
    answer = subprocess.run(
        ["bash", "-c", call.http(address)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    lines = [line for line in answer.splitlines() if line.startswith("data: [")]
    (first, *_) = json.loads(lines[-1].removeprefix("data: "))
    url = first[0]["image"]["url"] if isinstance(first, list) else first["url"]
    with urllib.request.urlopen(url) as response:
        assert same_pixels(pixels(io.BytesIO(response.read())), wanted)


def test_endpoints_are_documented(client):
    described = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert described.keys() == {"/faces", "/stylize", "/variations", "/reference"}
    for facts in described.values():
        assert facts["description"]
        assert all(": " in parameter["label"] for parameter in facts["parameters"])
