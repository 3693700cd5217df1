"""What a Space needs, and the texts, without a server."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import gradio as gr
import yaml
from gradio.route_utils import delete_files_created_by_app

from facestyle import list_styles
from space import compare_tab, examples
from space.assemble import main
from space.outputs import delete_later
from space.texts import LANGUAGES

ROOT = Path(__file__).resolve().parents[2]


def test_the_front_matter_names_what_is_there():
    _, front, _ = (ROOT / "space/README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["sdk"] == "gradio"
    assert (ROOT / facts["app_file"]).is_file()
    assert facts["sdk_version"] == gr.__version__
    assert len(facts["short_description"]) <= 60


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


def test_files_that_nobody_looked_at_are_deleted_on_the_schedule_too(tmp_path):
    for name in ("photo.png", "ntc.png"):
        (tmp_path / name).write_bytes(b"a picture")
    with gr.Blocks() as demo:
        slider = gr.ImageSlider()
    delete_files_created_by_app(demo, 0)
    assert len(list(tmp_path.iterdir())) == 2
    delete_later(tmp_path, slider)
    delete_files_created_by_app(demo, 3600)
    assert len(list(tmp_path.iterdir())) == 2
    delete_files_created_by_app(demo, 0)
    assert list(tmp_path.iterdir()) == []
    del demo, slider
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
    _, _, files, _, first, table = compare_tab._values(None, report, tmp_path, is_live=False)
    assert first == files["ours"] == (str(tmp_path / "photo.jpg"), str(tmp_path / "ours.jpg"))
    assert "Measured beforehand, on A processor, 2 cores, 2026-01-02" in table
    assert "takes a Stable Diffusion model and a GPU.</summary>it needs &lt;a model&gt;<" in table
    assert table.index("NTC") > table.index("2.5")  # what ran comes first
    assert all(f">{value}<" in table for value in ("0.25", "–", "2.5", "1024", "0.50", "0.500"))
    assert "Measured live" in compare_tab._values(None, report, tmp_path)[-1]
    newer = {"machine": {"processor": "another", "cores": 3}, "date": "2026-11-24"}
    next(row for row in report["methods"] if "picture" in row).update(newer)
    table = compare_tab._values(None, report, tmp_path, is_live=False)[-1]
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
