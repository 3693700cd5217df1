"""What a Space needs, and the texts, without a server."""

import base64
import gc
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import yaml
from gradio.data_classes import ImageData
from PIL import Image

from facestyle import cli, list_styles
from facestyle.errors import FaceTooSmallError, NoFaceError
from space import app, compare_tab, examples, outputs
from space.assemble import main
from space.engine import Engine
from space.kept import PICTURES_S, Kept, PictureGoneError
from space.photo_input import photo_input
from space.texts import LANGUAGES, explain, own_words, say

ROOT = Path(__file__).resolve().parents[2]


def test_the_front_matter_names_what_is_there():
    _, front, _ = (ROOT / "space/README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["sdk"] == "gradio"
    assert (ROOT / facts["app_file"]).is_file()
    assert facts["sdk_version"] == gr.__version__
    assert len(facts["short_description"]) <= 60
    assert facts["license"] == "other" and (ROOT / facts["license_link"]).is_file()


def test_a_space_has_all_that_it_asks_for_and_draws_from_its_own_files(tmp_path, capsys):
    folder = tmp_path / "a" / "space"
    assert main(["-o", str(folder)]) == 0
    assert f"hf upload USER/NAME {folder} ." in capsys.readouterr().out
    _, front, _ = (folder / "README.md").read_text().split("---\n", 2)
    assert (folder / yaml.safe_load(front)["app_file"]).is_file()
    assert not list(folder.rglob("__pycache__")) and not list(folder.parent.glob(".*"))
    code = (
        "import app, facestyle, space; from facestyle import FaceStylizer; from space.examples import people;"
        "FaceStylizer.from_pretrained('cartoon')(people()[0]).image.save('drawn.png');"
        "print(facestyle.__file__, space.__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(str(folder)) == 2 and (folder / "drawn.png").is_file()


def test_a_space_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["-o", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_app_py_builds_the_app_without_serving_it():
    namespace: dict = {}
    exec((ROOT / "app.py").read_text(), {"__name__": "app", **namespace}, namespace)
    demo = namespace["demo"]
    assert isinstance(demo, gr.Blocks)
    public = {f.api_name for f in demo.fns.values() if f.api_visibility == "public"}
    assert public == {"faces", "stylize", "variations", "reference"}
    namespace.clear()
    del demo
    gc.collect()  # Gradio closes no event loop of an app that is never served: it warns here, where that is ignored


def test_every_language_says_everything_with_the_same_places_to_fill():
    english = LANGUAGES["en"]
    for language, texts in LANGUAGES.items():
        assert english.keys() <= texts.keys(), language
        for key, said in english.items():
            assert set(re.findall(r"{[^}:]*", said)) == set(re.findall(r"{[^}:]*", texts[key])), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_training_command_shown_is_one_that_facestyle_takes(language, tmp_path, capsys):
    (command,) = re.findall(r"`(.+?)`", LANGUAGES[language]["own_off"])
    program, *arguments = shlex.split(command)
    arguments[1], arguments[arguments.index("-o") + 1] = str(tmp_path), str(tmp_path / "out")
    assert program == "facestyle"
    cli.main([*arguments, "--dry-run"])  # leaves Python where an argument lacks
    assert "style." in capsys.readouterr().out


@pytest.mark.parametrize("language", LANGUAGES)
def test_advice_names_what_the_page_has(language):
    visitor = SimpleNamespace(headers={"accept-language": language})
    texts = LANGUAGES[language]
    folder = Path("/tmp/gradio/0123")
    none = NoFaceError("set aligned=True", image_size=(9, 9), path=folder / "me.png")
    assert f"*{texts['cut']}*" in explain(visitor, none)
    assert explain(visitor, none, "reference") == texts["NoFaceError_reference"]
    small = FaceTooSmallError("too small; use a larger photo", face_px=9.0, path=folder / "me.png")
    for error in (none, small, PictureGoneError("it was deleted")):
        for of in ("", "reference"):
            said = explain(visitor, error, of)
            assert not re.search(r"aligned=|on_no_face|--|/tmp", said), said
    assert own_words(none) == "Set aligned=True"  # over HTTP these are what there is


def test_where_no_comparison_was_measured_the_one_shown_says_of_what_it_is(engine):
    demo = app.build_app(engine)
    show = next(f.fn for f in demo.fns.values() if f.name == "show_prepared")
    visitor = SimpleNamespace(headers={}, session_hash="ada")
    for style, is_other in (("illustration", False), ("no-such-style", True)):
        message, _, _, _, _, table, *_ = show(style, visitor)
        shown = "Cartoon" if is_other else "Illustration"
        assert f"beforehand in the style {shown}, on" in table
        assert message["visible"] is is_other
        if is_other:
            assert message["value"] == say(visitor, "not_prepared_but", style=shown)
    del demo, show
    gc.collect()  # as above


def test_a_change_of_photo_told_again_leaves_what_was_chosen_by_then(engine, tmp_path):
    demo = app.build_app(engine)
    begin = next(f.fn for f in demo.fns.values() if f.name == "begin_anew")
    visitor = SimpleNamespace(headers={}, session_hash="ada")
    photo = str(tmp_path / "grey.png")
    Image.new("RGB", (300, 300), "grey").save(photo)
    looks = ("cartoon", 1.0, 0.0, 0.0, 0.0, 0.7, 0, visitor)
    begun_of, cut, *others = begin(None, photo, *looks)
    assert (begun_of, cut) == (photo, "find")
    again = begin(photo, photo, *looks)
    assert again == [gr.skip()] * (2 + len(others))
    assert begin(photo, None, *looks)[:2] == [None, "find"]
    del demo, begin
    gc.collect()  # as above


def test_the_closer_picture_is_not_drawn_with_the_last_photos_choice_of_faces(engine):
    demo = app.build_app(engine)
    calls = {f.name: f.fn for f in demo.fns.values()}
    visitor = SimpleNamespace(headers={"origin": "http://here"}, session_hash="ada")
    photo, looks = str(examples.people()[0]), (1.0, 0.0, 0.0, 0.0, 0.7)
    _, _, owed, ticket, *_ = calls["begin_anew"](None, photo, "cartoon", *looks, 0, visitor)
    rest = (photo, "cartoon", [], "find", "portrait", *looks, 1, 0, visitor)
    told_late, told_in_time, told_again = (
        calls["draw_closer"](*given, *rest)
        for given in ((owed, None), (owed, ticket), (None, ticket))
    )
    assert told_late == told_again == [gr.skip()] * len(told_late)
    assert told_in_time[0] is None and gr.skip() not in told_in_time
    # nothing stays where a new photo cannot be drawn
    refused = calls["begin_anew"](None, photo, "cartoon", 9.0, *looks[1:], 0, visitor)
    assert refused[-7]["visible"] and refused[-6:-4] == [None, ""]
    del demo, calls
    gc.collect()  # as above


def test_sliders_and_seed_that_cannot_be_read_end_in_no_traceback(engine):
    demo = app.build_app(engine)
    calls = {f.name: f.fn for f in demo.fns.values()}
    visitor = SimpleNamespace(headers={}, session_hash="ada")
    reset = calls["as_at_first"]("my-style.0123")
    assert reset[:4] == (1.0, 0.0, 0.0, 0.0) and reset[4] == gr.skip()  # that style is gone
    photo = str(examples.people()[0])
    _, gallery, first, *_ = calls["draw_all"](photo, "cartoon", [], "find", 6, None, visitor)
    assert first == 0 and len(gallery["value"]) == 8
    gone, *_ = calls["draw_all"](photo, "my-style.0123", [], "find", 6, None, visitor)
    assert gone["value"] == say(visitor, "StyleNotFoundError")
    del demo, calls
    gc.collect()  # as above


@pytest.fixture
def demo(engine):
    built = app.build_app(engine)
    yield built
    del built
    gc.collect()  # as above


def test_where_shapes_stay_the_slider_says_so(demo, monkeypatch):
    calls = {f.name: f.fn for f in demo.fns.values()}
    visitor = SimpleNamespace(headers={"accept-language": "de"}, session_hash="ada")
    for moves in (True, False):
        monkeypatch.setattr(Engine, "moves_shapes", lambda own, style, moves=moves: moves)
        slider = calls["offered"]("impasto", visitor)
        assert slider["interactive"] is moves
        assert slider["info"] == say(visitor, "keep_shape_info" if moves else "keep_shape_none")
    assert calls["offered"]("my-style.0123", visitor)["interactive"] is False
    monkeypatch.undo()
    assert calls["offered"]("my-style.0123", visitor) == gr.skip(), "that style is gone"


def test_a_study_in_a_style_that_was_left_shows_nothing(demo, monkeypatch):
    calls = {f.name: f.fn for f in demo.fns.values()}
    draw = next(f.fn for f in demo.fns.values() if f.name == "draw" and len(f.inputs) == 13)
    visitor = SimpleNamespace(headers={}, session_hash="ada")
    photo, asked = str(examples.people()[0]), []

    def study(own, visitor_name, reference, style, *, aligned, on_step):
        calls["leave_style"]("anime", visitor)
        asked.append(on_step(1))
        return examples.example_code(examples.references("cartoon")[0])

    monkeypatch.setattr(Engine, "code", study)
    inputs = (photo, "cartoon", [], "find", photo, True, "portrait", 6, 1.0, 1.0, 0.0, 0.0, 0.0)
    calls["begin"](visitor)
    assert all(value == gr.skip() for value in draw(*inputs, visitor))
    assert asked == [False], "and it is stopped"
    calls["forget_study"](visitor)
    assert not all(value == gr.skip() for value in draw(*inputs, visitor))


def test_a_second_click_right_after_the_first_is_not_dropped(demo):
    modes = {"select": "multiple", "input": "always_last", "change": "always_last"}
    seen = [(event, f.trigger_mode) for f in demo.fns.values() for _, event in f.targets]
    assert {event for event, _ in seen} >= set(modes)
    for event, mode in seen:
        assert mode == modes.get(event, mode), event


def test_what_a_long_job_was_begun_with_is_compared_when_it_ends(demo):
    def after(name):
        """Functions that follow those of a name at once or later."""
        ids = {f._id for f in demo.fns.values() if f.name == name}
        names = set()
        while ids:
            then = [f for f in demo.fns.values() if f.trigger_after in ids]
            ids = {f._id for f in then}
            names |= {f.name for f in then}
        return names

    assert "start_anew" in after("draw_all")
    assert "hide_another" in after("compare")
    assert "redraw_if_changed" in after("begin")


def test_without_mcp_the_demo_says_so_before_it_serves_and_serves(monkeypatch, capsys):
    seen = {}

    class Demo:
        def launch(self, **settings):
            seen["mcp_server"] = settings.get("mcp_server")
            seen["printed"] = capsys.readouterr().out
            return None, "", ""

    find = importlib.util.find_spec
    monkeypatch.setenv("GRADIO_MCP_SERVER", "true")
    app.launch(Demo())
    assert seen == {"mcp_server": None, "printed": ""}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mcp" else find(name)
    )
    app.launch(Demo())
    assert seen["mcp_server"] is False
    assert "pip install '.[mcp]'" in seen["printed"]


def test_the_readme_names_every_variable_that_the_demo_reads():
    readme = (ROOT / "space/README.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "space").glob("*.py"))
    read = {*re.findall(r'"(FACESTYLE_\w+)"', code), "FACESTYLE_CACHE", "FACESTYLE_MALLOC"}
    assert len(read) == 5
    assert all(f"`{name}" in readme for name in read)


def test_every_bundled_style_has_a_thumbnail_and_examples_are_small():
    assert all(examples.style_thumbnail(style) for style in list_styles())
    assert all(path.is_file() for path in (*examples.people(), *examples.opening()))
    folder = ROOT / "space/examples"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4 * 2**20


def test_example_codes_fit_their_styles():
    for style in list_styles():
        for path in examples.references(style):
            code = examples.example_code(path)
            assert code.style == style
            assert code.w_plus.shape == (16, 512)


def test_facestyle_never_imports_gradio_or_the_space():
    for path in (ROOT / "facestyle").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) (gradio|space)\b", path.read_text(), re.M), path


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The folder that Gradio serves, and a clock of what lies there."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    now = [0.0]
    made = Kept(whole_s=PICTURES_S, let_go=outputs._delete, clock=lambda: now[0], look_s=0.02)
    monkeypatch.setattr(outputs, "_made", made)
    return tmp_path, now


def wait_until_empty(folder) -> None:
    for _ in range(500):
        if not list(folder.iterdir()):
            return
        time.sleep(0.02)
    raise AssertionError(f"still there: {list(folder.rglob('*'))}")


def test_pictures_are_deleted_in_time_though_nobody_calls(served):
    folder, now = served
    outputs.save(Image.new("RGB", (8, 8)), "portrait")
    shown = outputs.new_file("comparison")
    shown.mkdir()
    for name in ("photo.png", "ntc.png"):
        (shown / name).write_bytes(b"a picture")
    now[0] = PICTURES_S - 1.0
    time.sleep(0.1)
    assert len(list(folder.rglob("*.png"))) == 3
    now[0] = float(PICTURES_S)
    wait_until_empty(folder)


def test_a_photo_that_came_as_text_is_deleted_too(served):
    folder, now = served
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    data = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    with gr.Blocks() as demo:
        photo = photo_input()
    path = photo.preprocess(ImageData(path="photo.png", url=data))
    assert path == photo.preprocess(ImageData(path="photo.png", url=data))
    assert Path(path).is_file() and folder in Path(path).parents
    now[0] = float(PICTURES_S)
    for _ in range(500):
        if not Path(path).exists():
            break
        time.sleep(0.02)
    assert not Path(path).exists()
    del demo, photo
    gc.collect()  # as above


def test_a_comparison_measured_beforehand_says_so_and_shows_its_pictures(tmp_path):
    measured = {"value": 0.5, "by": "a judge"}
    ours = {
        "method": "ours", "picture": "ours.jpg", "seconds": 0.25, "peak_memory_mb": None,
        "parameters": 2_500_000, "resolution": 1024, "identity_similarity": measured,
        "perceptual": measured,
    }  # fmt: skip
    report = {
        "methods": [{"method": "ntc", "why": "it needs <a model>"}, ours],
        "memory_of": "whole process",
        "machine": {"processor": "A processor", "cores": 2},
        "date": "2026-01-02",
    }
    for name in ("photo.jpg", "ours.jpg"):
        (tmp_path / name).write_bytes(b"a picture")
    _, files, _, first, table = compare_tab._values(None, report, tmp_path, measured_in="Impasto")
    assert first == files["ours"] == (str(tmp_path / "photo.jpg"), str(tmp_path / "ours.jpg"))
    assert "Measured beforehand in the style Impasto, on A processor, 2 cores, 2026-01-02" in table
    assert "takes a Stable Diffusion model and a GPU.</summary>it needs &lt;a model&gt;<" in table
    assert table.index("NTC") > table.index("2.5")  # what ran comes first
    assert all(f">{value}<" in table for value in ("0.25", "–", "2.5", "1024", "0.50", "0.500"))
    assert "Measured live" in compare_tab._values(None, report, tmp_path)[-1]
    newer = {"machine": {"processor": "another", "cores": 3}, "date": "2026-11-24"}
    next(row for row in report["methods"] if "picture" in row).update(newer)
    table = compare_tab._values(None, report, tmp_path, measured_in="Impasto")[-1]
    assert "another, 3 cores, 2026-11-24" in table


def test_ours_anew_takes_its_place_among_the_others():
    rows = [
        {"method": "ours", "picture": "ours.jpg", "seconds": 1.0},
        {"method": "toonify", "picture": "toonify.jpg", "seconds": 5.0},
        {"method": "ours-ref", "why": "no pictures"},
    ]
    renewed = {
        "methods": [{"method": "ours", "picture": "ours.jpg", "seconds": 0.5}],
        "machine": {"cores": 2}, "date": "2026-11-24",
    }  # fmt: skip
    ours, *others = examples.with_renewed(rows, renewed)
    assert ours["seconds"] == 0.5
    assert (ours["machine"], ours["date"]) == ({"cores": 2}, "2026-11-24")
    assert others == rows[1:]


def test_a_gpu_is_borrowed_on_zero_gpu_and_nowhere_else(monkeypatch):
    from space import zero_gpu

    def add(a, b):
        return a + b

    assert not zero_gpu.ON_ZERO_GPU and zero_gpu.borrow_gpu(5)(add) is add
    asked = []

    class Spaces:
        @staticmethod
        def GPU(duration):
            asked.append(duration)
            return lambda function: lambda *args: function(*args) * 100

    monkeypatch.setitem(sys.modules, "spaces", Spaces)
    monkeypatch.setattr(zero_gpu, "ON_ZERO_GPU", True)
    assert zero_gpu.borrow_gpu(5)(add)(1, 2) == 300 and asked == [5]
    # The variable that such a Space sets is read when the app starts.
    code = "from space.zero_gpu import ON_ZERO_GPU; print(ON_ZERO_GPU)"
    for value, said in (("true", "True"), ("", "False")):
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "SPACES_ZERO_GPU": value},
        )  # fmt: skip
        assert run.stdout.strip() == said
