"""A style's networks in other runtimes."""

import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle import FaceStylizer, export, export_bench
from facestyle.cli import main
from facestyle.errors import ConfigError, FacestyleError, MissingDependencyError, OutputError
from facestyle.export import TOLERANCE, _check_onnx, _described, export_style
from facestyle.export_bench import time_backends
from facestyle.faces.align import align
from facestyle.image import load_image, to_tensor
from facestyle.latents import truncate
from facestyle.models.encode import encode
from facestyle.models.portable import portable
from facestyle.models.stylegan2_generator import StyleGAN2Generator

PSI = 0.6


@pytest.fixture(scope="module")
def exported(tiny_stylizer, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="no ONNX here: pip install 'facestyle[export]'")
    folder = tmp_path_factory.mktemp("onnx")
    return folder, export_style(tiny_stylizer, folder, progress=False)


@pytest.fixture(scope="module")
def face(tiny_stylizer, astronaut):
    """An aligned face at the encoder's side."""
    side = tiny_stylizer.encoder.input_px
    return astronaut.resize((side, side))


def direct(stylizer, face) -> dict[str, torch.Tensor]:
    """What PyTorch makes of a face."""
    with torch.inference_mode():
        w = encode(stylizer.encoder, to_tensor(face), stylizer.base)
        code = truncate(w, stylizer.base.w_avg, PSI)[:, None].repeat(1, stylizer.base.num_ws, 1)
        draw = stylizer.generator.synthesis
        return {
            "encoder": code,
            "generator": draw(code),
            "preview": draw(code, resolution=stylizer.generator.preview_resolution),
        }


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_files_give_pytorchs_results_for_any_batch(exported, tiny_stylizer, face, batch):
    import onnxruntime

    folder, report = exported
    wanted = direct(tiny_stylizer, face)
    code = wanted["encoder"].numpy().repeat(batch, axis=0)
    pixels = to_tensor(face).numpy().repeat(batch, axis=0)
    given = {
        "encoder": {"face": pixels, "psi": np.array(PSI, np.float32)},
        "generator": {"w_plus": code},
        "preview": {"w_plus": code},
    }
    for name, inputs in given.items():
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        (found,) = session.run(None, inputs)
        assert len(found) == batch
        error = np.abs(found - wanted[name].numpy()).mean() / wanted[name].std().item()
        assert error < TOLERANCE["float32"]
    assert report["portrait_px"] == tiny_stylizer.generator.resolution
    assert json.loads((folder / "export.json").read_text()) == report
    assert all(facts["mean_error"] < TOLERANCE["float32"] for facts in report["files"].values())


def test_half_the_bytes_in_float16_of_a_trained_generator(tmp_path, monkeypatch):
    parts = export._parts

    def preview_alone(one):  # of one face: float16 is slow on processors
        module, (rows,) = parts(one)["preview"]
        return {"preview": (module, (rows[:1],))}

    monkeypatch.setattr(export, "_parts", preview_alone)
    stylizer = FaceStylizer.from_pretrained("cartoon", device="cpu", dtype="float32")
    whole, half = (
        export_style(stylizer, tmp_path, "torchscript", dtype=dtype, progress=False)["files"]
        for dtype in ("float32", "float16")
    )
    assert half["preview.pt"]["bytes"] < 0.6 * whole["preview.pt"]["bytes"]
    assert 0 < half["preview.pt"]["mean_error"] < TOLERANCE["float16"]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_files_give_pytorchs_results(tiny_stylizer, face, tmp_path):
    report = export_style(tiny_stylizer, tmp_path, "torchscript", progress=False)
    wanted = direct(tiny_stylizer, face)
    given = {
        "encoder": (to_tensor(face), torch.tensor(PSI)),
        "generator": (wanted["encoder"],),
        "preview": (wanted["encoder"],),
    }
    for name, inputs in given.items():
        found = torch.jit.load(tmp_path / f"{name}.pt")(*inputs)
        torch.testing.assert_close(found, wanted[name], atol=2e-3, rtol=0)
    assert set(report["files"]) == {"encoder.pt", "generator.pt", "preview.pt"}
    assert not (tmp_path / "stylize.py").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_export_takes_the_place_of_one_in_the_other_format(
    exported, tiny_stylizer, tmp_path, monkeypatch
):
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "own.onnx").write_bytes(b"of somebody else")
    before = {path.name for path in tmp_path.iterdir()}
    assert {"encoder.onnx", "stylize.py"} < before
    with monkeypatch.context() as patch, pytest.raises(FacestyleError):
        patch.setitem(TOLERANCE, "float32", -1.0)
        export_style(tiny_stylizer, tmp_path, "torchscript", progress=False)
    assert {path.name for path in tmp_path.iterdir()} == before
    export_style(tiny_stylizer, tmp_path, "torchscript", progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "encoder.pt", "export.json", "generator.pt", "own.onnx", "preview.pt"
    }  # fmt: skip


@pytest.mark.parametrize(
    "report",
    [
        "no JSON", "[]", "{}", '{"format": "onnx"}', '{"format": ["onnx"], "files": {}}',
        '{"format": "tflite", "files": {"kept.onnx": {}}}', '{"format": "onnx", "files": [3, "kept.onnx"]}',
        '{"format": "onnx", "files": {"../kept.onnx": {}, "kept.txt": {}}}',
    ],
)  # fmt: skip
def test_a_report_of_no_export_names_no_file_to_remove(report, tmp_path):
    (tmp_path / "export.json").write_text(report)
    others = {"../kept.onnx", "kept.onnx", "kept.txt"}
    assert not export._files_of(tmp_path / "export.json") & others
    assert not export._files_of(tmp_path / "absent.json")


def test_runtimes_are_timed_in_turn(exported, tiny_stylizer, tmp_path):
    report = time_backends(tiny_stylizer, exported[0], runs=1)
    installed = {name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)}
    assert report["seconds"].keys() == {"pytorch"} | installed
    assert report["mean_error"].keys() == installed
    for errors in report["mean_error"].values():
        assert max(errors["encoder"], errors["generator"]) < TOLERANCE["float32"]
    for seconds in report["seconds"].values():
        assert seconds.keys() == {"encoder", "generator"}
        assert all(value > 0 for value in seconds.values())
    with pytest.raises(ConfigError, match="export the style as onnx first"):
        time_backends(tiny_stylizer, tmp_path)


def test_runtimes_are_timed_on_the_cpu_only(tmp_path, capsys):
    stylizer = SimpleNamespace(device=torch.device("cuda", 0))
    with pytest.raises(ConfigError, match=r'is on cuda:0; load it with device="cpu"'):
        time_backends(stylizer, tmp_path)
    assert main(["export", "-o", str(tmp_path / "out"), "--time", "--device", "cuda"]) == 2
    assert "compares runtimes on the CPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["encoder", "generator"])
def test_what_is_timed_is_the_same_work(exported, tiny_stylizer, runtime, name):
    """PyTorch's code is corrected and truncated as the file's is."""
    pytest.importorskip(runtime)
    given = export_bench._given(tiny_stylizer)[name]
    found = getattr(export_bench, f"_in_{runtime}")(exported[0] / f"{name}.onnx")(given)
    wanted = export_bench._in_pytorch(tiny_stylizer, name)(given)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < TOLERANCE["float32"] * wanted.std()


_WITHOUT_TORCH = """
import runpy, sys
class Refusing:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "facestyle"):
            raise ImportError(name)
sys.meta_path.insert(0, Refusing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def python_without_torch(tmp_path_factory):
    """Python of an environment of its own, with the packages that the script names, linked, and no others."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    for name in ("numpy", "pillow", "onnxruntime", "flatbuffers", "packaging", "protobuf"):
        package = metadata.distribution(name)
        tops = {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}
        for top in tops:
            (site / top).symlink_to(package.locate_file(top))
    python = folder / "bin" / "python"
    for absent in ("torch", "facestyle"):
        found = subprocess.run(
            [python, "-c", f"import {absent}"], capture_output=True, check=False, cwd=folder
        )
        assert b"No module named" in found.stderr
    return python


def draw_with(python, exported, face, folder, *options):
    """Pixels of the portrait that the exported script draws."""
    face.save(folder / "face.png")
    command = [
        python, *options, exported[0] / "stylize.py", folder / "face.png", folder / "portrait.png",
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, timeout=600)
    return np.asarray(Image.open(folder / "portrait.png"), dtype=int)


def test_the_script_beside_the_files_needs_no_torch(exported, tiny_stylizer, face, tmp_path):
    found = draw_with(sys.executable, exported, face, tmp_path, "-c", _WITHOUT_TORCH)
    result = tiny_stylizer(face, aligned=True, psi=exported[1]["psi"])
    wanted = np.asarray(result.faces[0].portrait, dtype=int)
    assert np.abs(found - wanted).max() <= 1


def test_an_exported_style_draws_the_astronaut_without_torch(
    python_without_torch, astronaut, tmp_path
):
    """The bundled cartoon at 1024 px: as from PyTorch, but for rounding to whole levels."""
    pytest.importorskip("onnxscript", reason="no ONNX here: pip install 'facestyle[export]'")
    stylizer = FaceStylizer.from_pretrained("cartoon", device="cpu", dtype="float32")
    exported = tmp_path, export_style(stylizer, tmp_path, progress=False)
    result = stylizer(astronaut).faces[0]
    wanted = np.asarray(result.portrait, dtype=int)
    face = align(astronaut, result.quad, stylizer.encoder.input_px)
    found = draw_with(python_without_torch, exported, face, tmp_path)
    assert found.shape == wanted.shape == (1024, 1024, 3)
    difference = np.abs(found - wanted)
    assert difference.mean() < 0.01 and difference.max() <= 2  # levels of 255
    mean_face = np.asarray(stylizer(astronaut, psi=0).faces[0].portrait, dtype=int)
    assert np.abs(found - mean_face).mean() > 5  # it is her portrait, not anybody's


def test_the_script_runs_in_an_environment_that_has_no_torch(
    exported, tiny_stylizer, face, python_without_torch, tmp_path
):
    found = draw_with(python_without_torch, exported, face, tmp_path)
    wanted = np.asarray(tiny_stylizer(face, aligned=True).faces[0].portrait, dtype=int)
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.network
def test_the_packages_that_the_readme_names_are_enough(exported, tiny_stylizer, face, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "numpy", "pillow", "onnxruntime"], check=True
    )
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    found = draw_with(python, exported, face, tmp_path)
    wanted = np.asarray(tiny_stylizer(face, aligned=True).faces[0].portrait, dtype=int)
    assert np.abs(found - wanted).max() <= 1


def test_the_script_reads_pictures_as_facestyle_does(tmp_path):
    load = runpy.run_path(str(export._EXAMPLE))["load"]
    rng = np.random.default_rng(0)
    levels = rng.integers(256, size=(48, 64, 4), dtype=np.uint8)
    levels[:16, :, 3] = 0
    rgba = Image.fromarray(levels)
    pictures = {
        "clear": rgba, "grey and clear": rgba.convert("LA"), "palette": rgba.convert("P"),
        "16 bits": Image.fromarray(rng.integers(1 << 16, size=(48, 64), dtype=np.uint16)),
        "plain": rgba.convert("RGB"),
    }  # fmt: skip
    for name, picture in pictures.items():
        more = {"transparency": 3} if name == "palette" else {}
        picture.save(tmp_path / "x.png", **more)
        found = np.asarray(load(str(tmp_path / "x.png")), dtype=int)
        wanted = np.asarray(load_image(tmp_path / "x.png"), dtype=int)
        assert np.abs(found - wanted).max() <= 0, name


def test_a_stylegan2_is_drawn_by_its_own_synthesis():
    generator = StyleGAN2Generator(resolution=64, channel_base=256, channel_max=16, w_dim=16).eval()
    w_plus = torch.randn(2, generator.num_ws, 16)
    with torch.inference_mode():
        wanted = generator.synthesis(w_plus, resolution=64)
        assert torch.equal(portable(generator.synthesis, 64)(w_plus), wanted)


def test_what_is_not_pytorchs_is_not_written(tiny_stylizer, tmp_path, monkeypatch):
    monkeypatch.setitem(TOLERANCE, "float32", -1.0)
    with pytest.raises(FacestyleError, match="other results than PyTorch"):
        export_style(tiny_stylizer, tmp_path / "out", "torchscript", progress=False)
    assert not (tmp_path / "out").exists()


def test_bad_requests_are_named(tiny_stylizer, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="onnx, torchscript"):
        export_style(tiny_stylizer, tmp_path, "tflite")
    with pytest.raises(ConfigError, match="float32, float16"):
        export_style(tiny_stylizer, tmp_path, dtype="int8")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        export_style(tiny_stylizer, tmp_path / "file", "torchscript", progress=False)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"facestyle\[export\]"):
        export_style(tiny_stylizer, tmp_path)


def test_onnxruntime_may_come_in_a_package_of_another_name(tiny_stylizer, monkeypatch):
    def version(name):
        if name == "onnxruntime":  # onnxruntime-gpu, -directml, -openvino
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("facestyle.export.metadata.version", version)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "onnxruntime", MagicMock(__version__="1.2.3"))
    _check_onnx()
    assert _described(tiny_stylizer, "onnx", "float32")["versions"]["onnxruntime"] == "1.2.3"


def test_the_command(tiny_stylizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "facestyle.stylizer.FaceStylizer.from_pretrained",
        staticmethod(lambda name, **options: tiny_stylizer),
    )
    out = tmp_path / "out"
    assert main(["export", "--format", "torchscript", "-o", str(out)]) == 0
    assert "generator.pt" in capsys.readouterr().out
    assert main(["export", "--format", "torchscript", "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"]["preview.pt"]["bytes"] > 0


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_onnx_file_of_a_stylegan2_takes_any_batch_and_holds_its_weights_once(tmp_path, dtype):
    pytest.importorskip("onnxscript", reason="no ONNX here: pip install 'facestyle[export]'")
    import onnx

    torch.manual_seed(0)
    sizes = {"channel_base": 2048, "channel_max": 32, "w_dim": 32, "mapping_depth": 1}
    generator = StyleGAN2Generator(128, **sizes).eval().requires_grad_(False)
    w_plus = 10 * torch.randn(2, generator.num_ws, 32)
    wanted = generator.synthesis(w_plus)
    kind = getattr(torch, dtype)
    module = export._Cast(portable(generator.synthesis, 128), kind).eval()
    module(w_plus)  # so that there is something kept that must not be written
    path = tmp_path / "generator.onnx"
    export._write_onnx(module, (w_plus,), path)
    found = export._run_onnx(path, (w_plus[:1].repeat(3, 1, 1),))
    assert found.isfinite().all()
    error = (found - wanted[:1]).abs().mean() / wanted.std()
    assert error < TOLERANCE[dtype]
    held = sum(tensor.numel() for tensor in generator.synthesis.state_dict().values())
    written = sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)
    assert held <= written / kind.itemsize < 1.05 * held
