"""The endpoints through gradio_client, and the calls that the page shows, run as they stand."""

import io
import json
import shlex
import shutil
import subprocess
import urllib.request

import gradio as gr
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
    photo.save(tmp_path / "a;b, c [1].png")
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "grey.png")
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


def test_a_call_by_position_that_knows_fewer_arguments_stays_what_it_is(address, here, stylizers):
    """As curl makes it: Gradio's own clients fill defaults in, this one does not."""
    if not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("no bash and curl here for the call over HTTP")
    call = Call(style="cartoon", photo="my photo.png", options={"strength": 0.8}, full=True)
    wanted = stylizers["cartoon"]("my photo.png", strength=0.8).image.tobytes()
    for count in (8, 3):
        with pytest.MonkeyPatch.context() as patch:
            data = call._data()[:count]
            patch.setattr(Call, "_data", lambda self, data=data: data)
            answer = over_http(call, address)
        with urllib.request.urlopen(answer[0]["url"]) as response:
            assert same_pixels(pixels(io.BytesIO(response.read())), wanted)


def test_calls_over_http_leave_no_session_and_a_page_keeps_its_own(served_demo, address, here):
    if not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("no bash and curl here for the call over HTTP")
    holder = served_demo.state_holder
    style = next(one for one in served_demo.blocks.values() if isinstance(one, gr.State))
    holder["a-page"][style._id] = "illustration"
    before = set(holder.session_data)
    for photo in ("my photo.png", "grey.png"):  # the second ends in an error
        call = Call(style="cartoon", photo=photo)
        subprocess.run(
            ["bash", "-c", call.http(address)], capture_output=True, timeout=60, check=True
        )
    page = Client(address, verbose=False)
    page.session_hash = "a-page"
    page.predict(handle_file("my photo.png"), "cartoon", api_name="/stylize")
    assert set(holder.session_data) == before
    assert holder["a-page"][style._id] == "illustration"


def test_a_photo_without_a_face_is_taken_otherwise_where_asked(client, tmp_path, stylizers):
    grey = tmp_path / "grey.png"
    Image.new("RGB", (300, 200), "grey").save(grey)
    style = stylizers["cartoon"]
    cut = {"on_no_face": "center"}
    path, facts = client.predict(
        handle_file(grey), "cartoon", portrait=True, seed=5, **cut, api_name="/stylize"
    )
    assert facts["seed"] == 5
    wanted = style(grey, seed=5, **cut).faces[0].portrait
    assert same_pixels(pixels(path), wanted.tobytes())
    pictures, _ = client.predict(
        handle_file(grey), "cartoon", count=1, aligned=True, api_name="/variations"
    )
    wanted = style.variations(grey, 1, aligned=True)[0].faces[0].portrait
    assert same_pixels(pixels(pictures[0]["image"]), wanted.tobytes())
    path, facts = client.predict(
        handle_file(grey), "cartoon", portrait=True, on_no_face="skip", api_name="/stylize"
    )
    assert facts["faces"] == [] and pixels(path) == pixels(grey)


def test_an_error_tells_no_path_of_the_server(client, tmp_path):
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "grey.png")
    with pytest.raises(Exception, match="No face found") as error:
        client.predict(handle_file(tmp_path / "grey.png"), "cartoon", api_name="/stylize")
    assert "grey.png" not in str(error.value)


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


@pytest.mark.parametrize(
    ("endpoint", "given", "missing"),
    [
        ("stylize", ("cartoon", 1.0, 0.0, None), "psi"),
        ("variations", ("cartoon", 6, 0, None), "count"),
        ("reference", (None, "cartoon"), "reference"),
    ],
)
def test_an_argument_without_a_value_is_named(client, here, endpoint, given, missing):
    with pytest.raises(Exception, match=f"{missing} must be given"):
        client.predict(handle_file("my photo.png"), *given, api_name=f"/{endpoint}")


CALLS = [
    Call(
        style="illustration", photo="my photo.png", options={"strength": 0.8, "psi": 0.4}, full=True
    ),
    Call(
        style="cartoon", photo="my photo.png", options={"keep_texture": 0.6, "refine": 1}, faces=[1]
    ),
    Call(
        style="illustration",
        photo="my photo.png",
        way="variations",
        options={"mixing_level": 3, "seed": 5, "refine": 1, "keep_texture": 1.0, "keep_shape": 0.5},
    ),
    Call(style="illustration", photo="my photo.png", options={"seed": 7, "aligned": True}),
    Call(style="cartoon", photo="a;b, c [1].png", full=True),
    Call(
        style="cartoon",
        photo="grey.png",
        way="variations",
        options={"mixing_level": 6, "seed": 5, "on_no_face": "center"},
    ),
]


@pytest.mark.parametrize(
    "call", CALLS, ids=["full", "portrait", "variation", "square", "name", "center"]
)
def test_the_shown_calls_give_one_picture(call, here, address, stylizers, monkeypatch):
    monkeypatch.setattr(
        FaceStylizer, "from_pretrained", staticmethod(lambda name, **_: stylizers[name])
    )
    exec(call.python(), {})
    wanted = pixels("result.png")
    (here / "result.png").unlink()

    assert main(shlex.split(call.shell())[1:]) == 0
    known = ("my photo.png", "a;b, c [1].png", "grey.png", "grid.png")
    written = [path for path in here.rglob("*.png") if path.name not in known]
    assert wanted in [pixels(path) for path in written]

    if not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("no bash and curl here for the call over HTTP")
    (first, *_) = over_http(call, address)
    url = first[0]["image"]["url"] if isinstance(first, list) else first["url"]
    with urllib.request.urlopen(url) as response:
        assert same_pixels(pixels(io.BytesIO(response.read())), wanted)


def over_http(call, address):
    """What the shown call over HTTP gives."""
    answer = subprocess.run(
        ["bash", "-c", call.http(address)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    lines = [line for line in answer.splitlines() if line.startswith("data: [")]
    assert lines, answer
    return json.loads(lines[-1].removeprefix("data: "))


@pytest.mark.parametrize("way", ["stylize", "variations", "reference"])
def test_the_call_over_http_gives_every_argument_in_its_place(client, way):
    call = Call(
        style="cartoon", photo="me.png", reference="like.png", way=way, faces=[1],
        options={
            "strength": 0.8, "keep_color": 0.3, "keep_texture": 0.6, "keep_shape": 0.5, "psi": 0.4, "refine": 2,
            "seed": 5, "alpha": 0.7, "mixing_level": 9, "on_no_face": "center",
        },
    )  # fmt: skip
    described = client.view_api(return_format="dict", print_info=False)["named_endpoints"][
        f"/{way}"
    ]
    names = [parameter["parameter_name"] for parameter in described["parameters"]]
    given = dict(zip(names, call._data(), strict=True))
    wanted = {**call.options, "level": 9, "style": "cartoon", "faces": "1", "portrait": True}
    for name in set(wanted) & set(names):
        assert given[name] == wanted[name], name
    assert {"on_no_face", "refine", "strength", "keep_color"} <= set(names)
    assert names[-2:] == ["keep_texture", "keep_shape"]
    assert all(given[name] is False for name in names if name.endswith("aligned"))


def test_endpoints_are_documented(client):
    described = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert described.keys() == {"/faces", "/stylize", "/variations", "/reference"}
    for facts in described.values():
        assert facts["description"]
        assert all(": " in parameter["label"] for parameter in facts["parameters"])
