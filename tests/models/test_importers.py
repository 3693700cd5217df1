"""Importing weights: names, channel order, damaged packages, and (network) the real packages."""

import hashlib
import io
import json
import runpy
import shutil
import stat
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import timm
import torch

from facestyle.errors import CheckpointError, DownloadError
from facestyle.models.checkpoints import (
    bundled,
    load_strict,
    read_metadata,
    read_tensors,
    save_tensors,
)
from facestyle.models.importers import (
    IMPORTERS,
    import_lite0,
    import_mobilefacenet,
    import_random_face,
    random_face,
)
from facestyle.models.importers.__main__ import main
from facestyle.models.importers.compare import differences
from facestyle.models.importers.lite0 import LITE0, MEMBER, STAGE_DEPTHS
from facestyle.models.importers.openvino_ir import read_ir
from facestyle.models.importers.packages import Package, fetch_package, read_members
from facestyle.models.importers.random_face import (
    RANDOM_FACE,
    haar_interleave,
    mapping_tensors,
    mean_w,
    synthesis_tensors,
)
from facestyle.models.mobile import MobileMapping, MobileSynthesis

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "importers.json").read_text())
CHANNELS, W_DIM = (16, 8, 8), 4  # a 32 px MobileStyleGAN

# ---------------------------------------------------------------- a small network in OpenVINO's IR


class IR:
    """Writes a graph as OpenVINO does; nodes come out in reverse order, so that order is no crutch."""

    def __init__(self):
        self.nodes, self.edges, self.weights = [], [], b""

    def node(self, type_, name, *inputs):
        self.nodes.append((str(len(self.nodes)), type_, name, None))
        self.edges += [(i, self.nodes[-1][0], port) for port, i in enumerate(inputs)]
        return self.nodes[-1][0]

    def const(self, name, array):
        array = np.ascontiguousarray(array, np.float32)
        shape = ", ".join(map(str, array.shape))
        data = {"element_type": "f32", "shape": shape, "offset": str(len(self.weights))}
        self.weights += array.tobytes()
        self.nodes.append(
            (str(len(self.nodes)), "Const", name, {**data, "size": str(array.nbytes)})
        )
        return self.nodes[-1][0]

    def xml(self):
        net = ElementTree.Element("net", name="Tiny", version="10")
        layers, edges = ElementTree.SubElement(net, "layers"), ElementTree.SubElement(net, "edges")
        for id_, type_, name, data in reversed(self.nodes):
            layer = ElementTree.SubElement(layers, "layer", id=id_, type=type_, name=name)
            if data:
                ElementTree.SubElement(layer, "data", data)
        for source, target, port in self.edges:
            ElementTree.SubElement(
                edges, "edge", {"from-layer": source, "to-layer": target, "to-port": str(port)}
            )
        return ElementTree.tostring(net)


def planar(array):
    """Interleaved (ll, lh, hl, hh) rows as the IR has them: all ll, then triples."""
    coefficients = array.reshape(-1, 4, *array.shape[1:])
    details = coefficients[:, 1:].reshape(-1, *array.shape[1:])
    return np.concatenate([coefficients[:, 0], details])


def synthesis_ir(tensors, *, forget_noise_of=None):
    """The IR of a MobileSynthesis state dict."""
    t = {name: value.numpy() for name, value in tensors.items()}
    ir = IR()
    w = ir.node("Parameter", "style")

    def style(exported, ours):
        weight = ir.const(f"m.{exported}.weight", t[f"{ours}.weight"])
        bias = ir.const(f"m.{exported}.bias", t[f"{ours}.bias"][None])
        return ir.node("Add", "Gemm", ir.node("MatMul", "Gemm/WithoutBiases", w, weight), bias)

    def styled(x, exported, ours, reorder):
        x = ir.node("Multiply", "Mul", style(f"{exported}.conv.modulation", f"{ours}.affine"), x)
        if f"{ours}.depthwise" in t:
            kernel = ir.const(f"m.{exported}.conv.weight_dw", t[f"{ours}.depthwise"][:, None])
            x = ir.node("GroupConvolution", "Conv", x, kernel)
        x = ir.node("Convolution", "Conv", x, ir.const("Mul_copy", reorder(t[f"{ours}.weight"])))
        if ours != forget_noise_of:
            x = ir.node("Add", "Add", x, ir.const("1531", t[f"{ours}.noise"]))
        bias = ir.const(f"m.{exported}.bias", reorder(t[f"{ours}.bias"])[None, :, None, None])
        return ir.node("PReLU", "LeakyRelu", ir.node("Add", "Add", x, bias))

    x = styled(ir.const("m.input.input", t["const"]), "conv1", "stem", planar)
    last = len(CHANNELS) - 2
    for i in range(last + 1):
        t |= {f"blocks.{i}.up.{n}": planar(t[f"blocks.{i}.up.{n}"]) for n in ("weight", "bias")}
        x = ir.node("Multiply", "Mul", style(f"layers.{i}.up.modulation", f"blocks.{i}.up"), x)
        taps = ir.const("1539", np.ones((2, 1, 1, 2, 1)))
        x = ir.node("GroupConvolutionBackpropData", "ConvTranspose", x, taps)
        x = styled(x, f"layers.{i}.conv1", f"blocks.{i}.conv1", np.asarray)
        feeds_haar = i < last
        x = styled(
            x, f"layers.{i}.conv2", f"blocks.{i}.conv2", planar if feeds_haar else np.asarray
        )
    head = f"layers.{last}.to_img"
    x = ir.node("Multiply", "Mul", style(f"{head}.conv.modulation", "to_image.affine"), x)
    weight = ir.const(f"m.{head}.conv.weight", planar(t["to_image.weight"]))
    bias = ir.const(f"m.{head}.bias", planar(t["to_image.bias"])[None, :, None, None])
    ir.node("Result", "img", ir.node("Add", "Add", ir.node("Convolution", "Conv", x, weight), bias))
    return ir


def mapping_ir(tensors):
    """The IR of a MobileMapping state dict: biases go through a Reshape, as in the export."""
    ir = IR()
    x = ir.node("Parameter", "var")
    for n in range(len(tensors) // 2):
        x = ir.node("MatMul", "MatMul", x, ir.const("173", tensors[f"layers.{n}.weight"].numpy()))
        bias = ir.const("174", tensors[f"layers.{n}.bias"].numpy())
        x = ir.node(
            "Add", "Add", x, ir.node("Reshape", "Reshape", bias, ir.node("Concat", "Shape"))
        )
        x = ir.node("PReLU", "LeakyRelu", x)
    ir.node("Result", "style", x)
    return ir


@pytest.fixture(scope="module")
def synthesis_state():
    """Random tensors of a tiny synthesis network, without the preview head, which no package has."""
    generator = torch.Generator().manual_seed(0)
    state = MobileSynthesis(CHANNELS, W_DIM, 16).state_dict()
    names = [name for name in state if not name.startswith("to_preview.")]
    return {name: torch.randn(state[name].shape, generator=generator) for name in names}


@pytest.fixture(scope="module")
def mapping_state():
    generator = torch.Generator().manual_seed(1)
    state = MobileMapping(W_DIM, 3).state_dict()
    return {n: torch.randn(t.shape, generator=generator) for n, t in state.items() if n != "w_avg"}


@pytest.fixture
def package_folder(tmp_path, mapping_state, synthesis_state):
    """An unpacked random-face with the tiny networks."""
    folder = tmp_path / "package" / "random_face" / "data"
    folder.mkdir(parents=True)
    for name, ir in (
        ("Mapping", mapping_ir(mapping_state)),
        ("Synthesis", synthesis_ir(synthesis_state)),
    ):
        (folder / f"{name}Network.xml").write_bytes(ir.xml())
        (folder / f"{name}Network.bin").write_bytes(ir.weights)
    return tmp_path / "package"


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(tensors[name], value), name


# ---------------------------------------------------------------- random-face


def test_haar_interleave_puts_the_four_coefficients_of_a_channel_together():
    # IR order of 3 output channels: ll0 ll1 ll2, then (lh hl hh) of 0, of 1, of 2
    ir = ["ll0", "ll1", "ll2", *(f"{band}{c}" for c in range(3) for band in ("lh", "hl", "hh"))]
    ours = [f"{band}{c}" for c in range(3) for band in ("ll", "lh", "hl", "hh")]
    assert [ir[i] for i in haar_interleave(12)] == ours


def test_haar_interleave_needs_fours():
    with pytest.raises(CheckpointError, match="multiple of 4 channels before a Haar step, got 6"):
        haar_interleave(6)


def test_synthesis_tensors_get_our_names_and_channel_order(synthesis_state):
    ir = synthesis_ir(synthesis_state)
    tensors = synthesis_tensors(read_ir(ir.xml(), ir.weights))
    assert_same(tensors, {f"synthesis.{name}": t.numpy() for name, t in synthesis_state.items()})


def test_mapping_layers_are_numbered_by_the_graph_not_by_the_file(mapping_state):
    ir = mapping_ir(mapping_state)
    tensors = mapping_tensors(read_ir(ir.xml(), ir.weights))
    assert_same(tensors, {f"mapping.{name}": t.numpy() for name, t in mapping_state.items()})


def test_imported_generator_loads_and_its_mean_w_is_the_mean_of_its_mapping(
    package_folder, mapping_state, synthesis_state
):
    tensors, metadata = import_random_face(package_folder)
    assert metadata["license"] == "Apache-2.0"
    assert metadata["source"] == "pypi:random-face==2021.7.21.1"
    mapping = MobileMapping(W_DIM, 3)
    load_strict(mapping, {n: tensors[f"mapping.{n}"] for n in mapping.state_dict()})
    z = torch.randn(50_000, W_DIM, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(mapping.w_avg, mapping(z).mean(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(
        tensors["synthesis.blocks.1.conv2.weight"], synthesis_state["blocks.1.conv2.weight"]
    )


def test_a_convolution_without_noise_is_another_network(synthesis_state):
    ir = synthesis_ir(synthesis_state, forget_noise_of="blocks.0.conv1")
    with pytest.raises(CheckpointError) as caught:
        synthesis_tensors(read_ir(ir.xml(), ir.weights))
    assert caught.value.missing == ("blocks.0.conv1.noise", "blocks.0.conv1.weight")


def test_an_unknown_constant_is_another_network(synthesis_state):
    ir = synthesis_ir(synthesis_state)
    ir.const("m.layers.0.conv3.bias", np.zeros(4))
    with pytest.raises(CheckpointError, match=r"unexpected \['blocks\.0\.conv3\.bias'\]"):
        synthesis_tensors(read_ir(ir.xml(), ir.weights))


@pytest.mark.parametrize("which", [mapping_tensors, synthesis_tensors])
def test_an_unrelated_graph_is_refused(which):
    ir = IR()
    ir.node("Result", "out", ir.node("Parameter", "in"))
    with pytest.raises(CheckpointError):
        which(read_ir(ir.xml(), ir.weights))


def test_constants_cut_short_are_named(package_folder):
    path = package_folder / "random_face/data/SynthesisNetwork.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short") as caught:
        import_random_face(package_folder)
    assert caught.value.path == package_folder


def test_a_graph_cut_short_is_refused(package_folder):
    path = package_folder / "random_face/data/MappingNetwork.xml"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="graph is damaged"):
        import_random_face(package_folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'element_type="f32"', b'element_type="f33"'),
        (b'size="16"', b'size="20"'),
        (b'from-layer="0"', b'from-layer="999"'),
        (b'to-port="0"', b'to-port="x"'),
        (b"</layers>", b'</layers><edges><edge from-layer="2" to-layer="0" to-port="0"/></edges>'),
        (b"<layers>", b"<layer>"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(mapping_state, old, new):
    ir = mapping_ir(mapping_state)
    xml = ir.xml()
    assert old in xml
    with pytest.raises(CheckpointError):
        read_ir(xml.replace(old, new), ir.weights)


def test_a_graph_without_layers_is_refused():
    with pytest.raises(CheckpointError, match="<html> without layers"):
        read_ir(b"<html></html>", b"")


# ---------------------------------------------------------------- packages


def wheel(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def package_for(path, registry="pypi"):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(registry=registry, name="toy", version="1.0", license="MIT", sha256=digest)


def test_members_are_read_from_a_wheel_in_the_order_asked(tmp_path):
    path = wheel(tmp_path / "toy.whl", {"a": b"1", "b": b"2"})
    assert read_members(package_for(path), ["b", "a"], path) == [b"2", b"1"]


def test_members_are_read_from_an_npm_archive(tmp_path):
    path = tmp_path / "toy.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("package/model/net.bin")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    assert read_members(package_for(path, "npm"), ["model/net.bin"], path) == [b"abc"]
    with pytest.raises(CheckpointError, match=r"expected toy@1\.0"):
        read_members(package_for(path, "npm"), ["model/other.bin"], path)


def test_another_release_is_refused(tmp_path):
    path = wheel(tmp_path / "random_face.whl", {"random_face/data/MappingNetwork.xml": b"<net/>"})
    with pytest.raises(
        CheckpointError, match=r"expected random-face==2021\.7\.21\.1 \(sha256 e5d10e"
    ):
        import_random_face(path)


def test_a_truncated_archive_is_refused_even_under_the_right_digest(tmp_path):
    path = wheel(tmp_path / "toy.whl", {"a": b"1" * 1000})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="fetch it again"):
        read_members(package_for(path), ["a"], path)


def test_a_missing_member_and_a_missing_file_are_named(tmp_path):
    path = wheel(tmp_path / "toy.whl", {"a": b"1"})
    with pytest.raises(CheckpointError, match="'b'"):
        read_members(package_for(path), ["b"], path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_members(RANDOM_FACE, ["a"], tmp_path / "absent.whl")
    with pytest.raises(CheckpointError, match="no such file"):
        read_members(RANDOM_FACE, ["absent"], tmp_path)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_missing_pip_is_a_download_error_with_advice(tmp_path, monkeypatch):
    python = script(tmp_path / "python", 'echo "python: No module named pip" >&2; exit 1')
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(DownloadError) as caught:
        import_random_face()
    assert "No module named pip" in str(caught.value)
    assert "pip download --no-deps random-face==2021.7.21.1" in str(caught.value)
    assert "--package FILE" in str(caught.value)


def test_a_missing_interpreter_is_a_download_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(DownloadError, match="could not be started"):
        fetch_package(LITE0, tmp_path)


def test_a_fetch_that_leaves_nothing_is_a_download_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "exit 0"))
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(DownloadError, match="no archive arrived"):
        fetch_package(LITE0, folder)


def test_a_fetch_that_hangs_is_a_download_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "exec sleep 60"))
    monkeypatch.setattr("facestyle.models.importers.packages.FETCH_TIMEOUT_S", 0.2)
    with pytest.raises(DownloadError, match="did not arrive within"):
        fetch_package(LITE0, tmp_path)


def test_missing_npm_is_a_download_error_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"`npm pack faceplugin-face-recognition-js@0\.0\.1`"):
        import_mobilefacenet()


def test_a_fetched_archive_is_checked_and_read(tmp_path, monkeypatch):
    path = wheel(tmp_path / "toy.whl", {"a": b"1"})
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", f"cp {path} ."))
    package = package_for(path)
    assert read_members(package, ["a"]) == [b"1"]
    with pytest.raises(CheckpointError, match="another release"):
        read_members(replace(package, sha256="0" * 64), ["a"])


# ---------------------------------------------------------------- lite0 and mobilefacenet


@pytest.fixture
def lite0_folder(tmp_path):
    """An unpacked lite0 package with random weights, and the timm state it stands for."""
    net = timm.create_model("tf_efficientnet_lite0", features_only=True, pretrained=False)
    expected = net.state_dict()
    block = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
    theirs = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0"}
    names |= dict(
        zip(
            [f"blocks.0.0.{n}" for n in ("conv_dw", "bn1", "conv_pw", "bn2")],
            [f"_blocks.0.{n}" for n in theirs[2:]],
            strict=True,
        )
    )
    index = 1
    for stage in range(1, 7):
        for i in range(STAGE_DEPTHS[stage]):
            ours = [f"blocks.{stage}.{i}.{n}" for n in block]
            names |= dict(zip(ours, [f"_blocks.{index}.{n}" for n in theirs], strict=True))
            index += 1
    state = {}
    for name, tensor in expected.items():
        layer, leaf = name.rsplit(".", 1)
        state[f"{names[layer]}.{leaf}"] = tensor
    state |= {
        "_conv_head.weight": torch.zeros(1),
        "_bn1.bias": torch.zeros(1),
        "_fc.bias": torch.zeros(1),
    }
    path = tmp_path / "lite0" / MEMBER
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return tmp_path / "lite0", expected


def test_lite0_gets_timms_names_and_leaves_the_head_out(lite0_folder):
    folder, expected = lite0_folder
    tensors, _ = import_lite0(folder)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_lite0_incomplete_or_damaged_is_refused(lite0_folder):
    folder, _ = lite0_folder
    path = folder / MEMBER
    state = torch.load(path, weights_only=True)
    torch.save({n: t for n, t in state.items() if n != "_bn0.bias"}, path)
    with pytest.raises(CheckpointError) as caught:
        import_lite0(folder)
    assert caught.value.missing == ("bn1.bias",)
    torch.save({**state, "_blocks.16._bn0.bias": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not EfficientNet-Lite0"):
        import_lite0(folder)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="is damaged"):
        import_lite0(folder)


def test_a_damaged_mobilefacenet_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "fr_feature.onnx"
    for content in (b"", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            import_mobilefacenet(tmp_path)


# ---------------------------------------------------------------- comparing and the command


def test_differences_is_empty_for_equal_and_for_rounded_sets():
    ours = {"a": torch.randn(5, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(3)}
    assert differences(ours, ours) == []
    assert differences(ours, {"a": ours["a"].half(), "n": ours["n"]}) == []


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        ({}, "a: missing in the file"),
        ({"a": torch.zeros(2), "b": torch.zeros(1)}, "b: only in the file"),
        ({"a": torch.zeros(3)}, "a: expected shape [2], found [3]"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, "a: expected torch.float32, found torch.int64"),
        ({"a": torch.tensor([0.0, 0.5])}, "a: values differ, by up to 0.5"),
        ({"a": torch.tensor([0.0, -0.0])}, "a: values differ, by up to 0"),
    ],
)
def test_differences_tells_what_differs(stored, line):
    assert differences({"a": torch.zeros(2)}, stored) == [line]


def test_differences_passes_over_the_preview_head_that_no_package_has():
    ours = {"a": torch.zeros(2)}
    assert differences(ours, {**ours, "synthesis.to_preview.bias": torch.zeros(12)}) == []


def test_differences_rounds_where_the_file_is_fp16_and_nowhere_else():
    w = torch.full((4,), 0.1)
    assert differences({"w": w}, {"w": w.half()}) == []
    assert differences({"w": w}, {"w": torch.nextafter(w, w + 1)}) != []


def test_the_kept_mean_of_w_is_taken_only_where_it_is_the_networks_mean(tmp_path, monkeypatch):
    mapping = MobileMapping(W_DIM, 3)
    tensors = {f"mapping.{n}": t for n, t in mapping.state_dict().items() if n != "w_avg"}
    computed = mean_w(tensors)  # the package's mean is of another shape
    for change, is_kept in ((3e-7, True), (1e-4, False)):
        kept = computed + change
        save_tensors({"w_avg": kept}, tmp_path / "kept.safetensors", metadata={})
        monkeypatch.setattr(random_face, "KEPT_W_AVG", tmp_path / "kept.safetensors")
        assert torch.equal(mean_w(tensors), kept if is_kept else computed)


def test_command_writes_checks_and_finds_a_changed_tensor(package_folder, tmp_path, capsys):
    out = tmp_path / "base.safetensors"
    source = ["random-face", "--package", str(package_folder)]
    assert main([*source, "--fp16", "-o", str(out)]) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() in capsys.readouterr().out
    tensors = read_tensors(out)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert read_metadata(out)["layout"] == "haar-interleaved"
    assert main([*source, "--check", str(out)]) == 0
    tensors["synthesis.stem.bias"][0] += 1
    save_tensors(tensors, out, metadata={})
    assert main([*source, "--check", str(out)]) == 1
    assert "synthesis.stem.bias: values differ" in capsys.readouterr().out


def test_command_reports_errors_in_one_line(tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert main(["lite0", "--package", str(tmp_path / "absent.whl"), "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert not out.exists()


def test_command_refuses_fp16_for_values_beyond_its_range(
    mapping_state, synthesis_state, package_folder, tmp_path, capsys
):
    state = {**synthesis_state, "stem.bias": synthesis_state["stem.bias"] * 1e6}
    ir = synthesis_ir(state)
    (package_folder / "random_face/data/SynthesisNetwork.bin").write_bytes(ir.weights)
    out = tmp_path / "base.safetensors"
    assert main(["random-face", "--fp16", "--package", str(package_folder), "-o", str(out)]) == 1
    assert "synthesis.stem.bias holds values beyond 65504" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "argv", [[], ["lite0"], ["lite0", "-o", "a", "--check", "b"], ["nothing", "-o", "a"]]
)
def test_command_wants_a_name_and_one_action(argv):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


def test_the_module_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["importers", "--help"])
    monkeypatch.delitem(sys.modules, "facestyle.models.importers.__main__")
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("facestyle.models.importers", run_name="__main__")
    shown = capsys.readouterr().out
    assert all(name in shown for name in IMPORTERS)


# ---------------------------------------------------------------- the real packages


@pytest.mark.network
def test_random_face_is_rebuilt_bit_for_bit():
    tensors, _ = import_random_face()
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    assert digest.hexdigest() == GOLDEN["random_face_tensors_sha256"]["value"]
    head = GOLDEN["random_face_w_avg_head"]
    assert tensors["mapping.w_avg"][:4].tolist() == pytest.approx(
        head["value"], abs=head["tolerance"]
    )


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lite0", "lite0_features.safetensors"),
        ("mobilefacenet", "mobilefacenet.safetensors"),
        ("random-face", "generator_ffhq_1024.safetensors"),
    ],
)
def test_bundled_weights_are_the_packages(name, file):
    if name == "mobilefacenet" and shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    assert main([name, "--check", str(bundled(file))]) == 0
