"""The identity judges see the right pixels, load strictly, and agree with the networks they port."""

from __future__ import annotations

import json
import math
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facestyle.errors import CheckpointError, ConfigError, DownloadError, ImageError, OutputError
from facestyle.evaluation import judge_specs, judges
from facestyle.evaluation.appearance import load_appearance
from facestyle.evaluation.judge_nets import (
    DlibBlock,
    DlibResNet29,
    FaceResAppearance,
    FaceResMobileNet,
    SameConv2d,
    convert_dlib_resnet29,
    convert_faceres,
    convert_faceres_appearance,
)
from facestyle.evaluation.judge_specs import JUDGES, Preprocess
from facestyle.evaluation.judges import IdentityJudge, import_judge, load_judge, main
from facestyle.evaluation.weights import cache_dir, read_tfjs_weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "judges.json").read_text())
PACKAGED = ["dlib_resnet29", "faceres"]
RED = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1)  # 255, 0, 127.5


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no npm to fill it with."""
    monkeypatch.setenv("FACESTYLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "cache"


class Pixels(nn.Module):
    """Stands for a network: average-pools its input to 4x4, which keeps colour and place."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * F.adaptive_avg_pool2d(x, 4).flatten(1)


def pixel_judge() -> IdentityJudge:
    return IdentityJudge("pixels", Pixels(), JUDGES["dlib_resnet29"].preprocess)


def faces(count: int, side: int = 160) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def pattern(side: int) -> Tensor:
    """[1, 3, side, side] in 0..255, the same in the reference's JavaScript."""
    i = np.arange(side * side * 3)
    c, x, y = i % 3, i // 3 % side, i // 3 // side
    values = np.floor(127.5 + 90 * np.sin(x / (7 + c)) + 30 * np.cos(y / (5 + 2 * c)))
    return torch.from_numpy(values.reshape(side, side, 3).astype(np.float32)).permute(2, 0, 1)[None]


# --- what the networks see -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("facenet_vggface2", [127.5 / 128, -127.5 / 128, 0.0]),
        ("dlib_resnet29", [132.218 / 256, -117.001 / 256, 23.202 / 256]),
        ("faceres", [127.5 - 103.939, 0 - 116.779, 255 - 123.68]),  # blue first
    ],
)
def test_colours_arrive_in_the_networks_order_and_range(name: str, seen: list[float]) -> None:
    x = JUDGES[name].preprocess(RED.expand(1, 3, 200, 200))
    side = JUDGES[name].preprocess.size_px
    assert x.shape == (1, 3, side, side)
    torch.testing.assert_close(x[0, :, 50, 60], torch.tensor(seen), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", JUDGES)
def test_the_crop_is_the_same_part_of_the_face_at_every_size(name: str) -> None:
    # Red rises to the right, green downwards: a pixel's colour tells where it came from.
    spec = JUDGES[name].preprocess
    plain = Preprocess(
        frame_px=spec.frame_px,
        top=spec.top,
        left=spec.left,
        size_px=spec.size_px,
        mean=(127.5, 127.5, 127.5),
        scale=127.5,
    )
    for side in (256, 512, 1024):
        ramp = (torch.arange(side) + 0.5) / side * 2 - 1
        img = torch.stack(
            [ramp.expand(side, side), ramp[:, None].expand(side, side), 0 * ramp.expand(side, side)]
        )
        x = (plain(img[None])[0] + 1) / 2
        height, width = spec.frame_px
        left, right = (spec.left + 0.5) / width, (spec.left + spec.size_px - 0.5) / width
        top, bottom = (spec.top + 0.5) / height, (spec.top + spec.size_px - 0.5) / height
        corners = [x[0, 0, 0], x[0, 0, -1], x[1, 0, 0], x[1, -1, 0]]
        assert [float(c) for c in corners] == pytest.approx([left, right, top, bottom], abs=5e-4)


def test_dlibs_chip_has_the_eyes_where_dlib_puts_them() -> None:
    # dlib's mean five-point shape, padded by 0.25: eyes' centres at these shares of the chip.
    spec = JUDGES["dlib_resnet29"].preprocess
    for ffhq_x, chip_x in ((0.377, 0.318), (0.628, 0.669)):
        assert (ffhq_x * spec.frame_px[1] - spec.left) / 150 == pytest.approx(chip_x, abs=0.01)
    assert (0.4695 * spec.frame_px[0] - spec.top) / 150 == pytest.approx(0.314, abs=0.01)


# --- the networks --------------------------------------------------------------------------------


def test_a_dlib_block_pads_what_its_convolutions_lose() -> None:
    block = DlibBlock(2, 4, down=True)
    x = torch.rand(1, 2, 8, 8)
    out = block(x)
    assert out.shape == (1, 4, 4, 4)
    inner = block.conv2(F.relu(block.conv1(x)))
    assert inner.shape == (1, 4, 3, 3)
    mean = x.view(1, 2, 4, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(
        out[:, :2, 3], mean[:, :, 3]
    )  # below the convolutions: only the skip
    assert out[:, 2:, 3].abs().max() == 0  # nor channels the skip lacks
    torch.testing.assert_close(out[:, :2, :3, :3], F.relu(inner[:, :2] + mean[:, :, :3, :3]))
    torch.testing.assert_close(out[:, 2:, :3, :3], F.relu(inner[:, 2:]))


def test_same_padding_at_stride_two_starts_at_the_first_pixel() -> None:
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    with torch.no_grad():
        conv.weight.zero_()[0, 0, 1, 1] = 1.0
    x = torch.arange(64.0).view(1, 1, 8, 8)
    torch.testing.assert_close(conv(x), x[:, :, 1::2, 1::2])  # TensorFlow: centre of 0, 1, 2


@pytest.mark.parametrize(
    ("build", "side", "width", "count"),
    [(DlibResNet29, 150, 128, 5_606_816), (FaceResMobileNet, 224, 1024, 3_195_136)],
)
def test_networks_have_their_published_shape(
    build: Callable[[], nn.Module], side: int, width: int, count: int
) -> None:
    net = build().eval()
    with torch.no_grad():
        assert net(torch.rand(2, 3, side, side)).shape == (2, width)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(count, rel=0.01)


# --- TensorFlow.js packages ----------------------------------------------------------------------


def entry(name: str, array: np.ndarray[Any, Any], **quantization: Any) -> dict[str, Any]:
    found = {"name": name, "shape": list(array.shape), "dtype": "float32"}
    return {**found, "quantization": quantization} if quantization else found


def test_tfjs_quantisation_is_undone() -> None:
    q = np.array([[0, 128, 255]], np.uint8)
    half, full = np.array([1.5], np.float16), np.array([2.25, -3.0], np.float32)
    index = {"name": "i", "shape": [], "dtype": "int32"}
    groups = [
        {"weights": [entry("q", q, dtype="uint8", scale=0.5, min=-10.0)]},
        {"weights": [entry("h", half, dtype="float16"), entry("f", full), index]},
    ]
    data = q.tobytes() + half.tobytes() + full.tobytes() + np.int32(7).tobytes()
    found = read_tfjs_weights(groups, data)
    assert found["q"].tolist() == [[-10.0, 54.0, 117.5]] and found["q"].dtype == np.float32
    assert (found["h"].tolist(), found["f"].tolist(), int(found["i"])) == ([1.5], [2.25, -3.0], 7)
    with pytest.raises(CheckpointError, match="end inside i"):
        read_tfjs_weights(groups, data[:-1])
    with pytest.raises(CheckpointError, match="bytes of weights"):
        read_tfjs_weights(groups, data + b"\0")


def package_of(name: str, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """A package folder with random weights in the package's own layout; returns them."""
    rng = np.random.default_rng(0)
    arrays = {}
    for key, tensor in JUDGES[name].build().state_dict().items():
        layer, kind = key.rsplit(".", 1)
        path = layer.replace(".", "/")
        hwio = tensor.permute(2, 3, 1, 0).shape if tensor.ndim == 4 else ()
        if name == "dlib_resnet29" and layer == "fc":
            arrays["fc"] = rng.normal(0, 0.1, tensor.shape[::-1])
        elif name == "dlib_resnet29" and kind == "weight":
            arrays[f"{path}/conv/filters"] = rng.normal(0, 0.1, hwio)
        elif name == "dlib_resnet29":
            for part in ("conv/bias", "scale/weights", "scale/biases"):
                arrays[f"{path}/{part}"] = rng.normal(0, 0.1, tensor.shape)
        elif kind == "bias":
            arrays[f"{path}_bn/batchnorm_1/sub"] = rng.normal(0, 0.1, tensor.shape)
        elif "_dw_" in layer:
            arrays[f"{path}/depthwise_kernel"] = rng.normal(0, 0.1, (3, 3, tensor.shape[0], 1))
            arrays[f"{path}_bn/batchnorm_1/mul"] = rng.normal(0, 1, tensor.shape[0])
        else:
            arrays[f"{path}/convolution/merged_input"] = rng.normal(0, 0.1, hwio)
    if name == "faceres":
        for head, shape in (
            ("feats", (1024, 256)),
            ("gender_pred", (256, 1)),
            ("age_pred", (256, 100)),
        ):
            arrays[f"{head}/kernel"] = rng.normal(0, 0.1, shape)
            arrays[f"{head}/bias"] = rng.normal(0, 0.1, shape[1])
    arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
    groups = [{"weights": [entry(key, array) for key, array in arrays.items()]}]
    manifest, binary = JUDGES[name].members
    for member in (manifest, binary):
        (folder / member).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(groups if name == "dlib_resnet29" else {"weightsManifest": groups})
    (folder / manifest).write_text(text)
    (folder / binary).write_bytes(b"".join(array.tobytes() for array in arrays.values()))
    return arrays


def contents(name: str, folder: Path) -> list[bytes]:
    return [(folder / member).read_bytes() for member in JUDGES[name].members]


def test_dlib_conversion_folds_scales(tmp_path: Path) -> None:
    arrays = package_of("dlib_resnet29", tmp_path)
    state = convert_dlib_resnet29(contents("dlib_resnet29", tmp_path))
    x = torch.rand(1, 32, 6, 6)
    layer = "conv32_2/conv1"
    # face-api: scale * (conv(x) + bias) + shift, channels last
    filters = torch.from_numpy(arrays[f"{layer}/conv/filters"]).permute(3, 2, 0, 1)
    plain = F.conv2d(x, filters, torch.from_numpy(arrays[f"{layer}/conv/bias"]), padding=1)
    scale, shift = (torch.from_numpy(arrays[f"{layer}/scale/{p}"]) for p in ("weights", "biases"))
    expected = plain * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    ours = F.conv2d(x, state["conv32_2.conv1.weight"], state["conv32_2.conv1.bias"], padding=1)
    torch.testing.assert_close(ours, expected)


def test_faceres_conversion_folds_scales_and_drops_the_heads(tmp_path: Path) -> None:
    arrays = package_of("faceres", tmp_path)
    state = convert_faceres(contents("faceres", tmp_path))
    kernel = arrays["conv_dw_2/depthwise_kernel"][:, :, 5, 0]
    scale = arrays["conv_dw_2_bn/batchnorm_1/mul"][5]
    np.testing.assert_allclose(state["conv_dw_2.weight"][5, 0].numpy(), kernel * scale, rtol=1e-6)
    assert state.keys() == FaceResMobileNet().state_dict().keys()


def test_the_heads_of_faceres_are_dense_layers_on_its_features(tmp_path: Path) -> None:
    arrays = package_of("faceres", tmp_path)
    state = convert_faceres_appearance(contents("faceres", tmp_path))
    net = FaceResAppearance().eval()
    net.load_state_dict(state)
    plain = FaceResMobileNet().eval()
    plain.load_state_dict(convert_faceres(contents("faceres", tmp_path)))
    x = torch.rand(2, 3, 224, 224) * 255 - 110
    with torch.no_grad():
        features, found = plain(x).double().numpy(), net(x)
    hidden = np.maximum(features @ arrays["feats/kernel"] + arrays["feats/bias"], 0)
    logit = (hidden @ arrays["gender_pred/kernel"] + arrays["gender_pred/bias"])[:, 0]
    ages = np.exp(hidden @ arrays["age_pred/kernel"] + arrays["age_pred/bias"])
    years = (ages / ages.sum(1, keepdims=True) * np.arange(100)).sum(1)
    assert found[:, 0].tolist() == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)
    assert found[:, 1].tolist() == pytest.approx(years, rel=1e-4)


def test_the_appearance_judge_is_imported_and_kept_by_its_own_name(
    tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(DownloadError, match="npm"):
        load_appearance()
    package_of("faceres", tmp_path)
    assert main(["import", "faceres_appearance", "--package", str(tmp_path)]) == 0
    assert (cache / "judges" / "faceres_appearance.safetensors").is_file()
    judge = load_appearance()
    found = judge.look(faces(2))
    assert judge.name == "faceres_appearance" and found.shape == (2, 2)
    assert (found[:, 0] > 0).all() and (found[:, 0] < 1).all() and (found[:, 1] < 99).all()
    with pytest.raises(ImageError, match="128"):
        judge.look(faces(1, 100))
    with pytest.raises(ConfigError, match="unknown judge"):
        load_judge("faceres_appearance")  # tells nobody apart


@pytest.mark.parametrize("name", PACKAGED)
def test_import_writes_what_load_reads(
    name: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package_of(name, tmp_path)
    assert main(["import", name, "--package", str(tmp_path)]) == 0
    path = cache / "judges" / f"{name}.safetensors"
    assert capsys.readouterr().out.strip() == str(path)
    judge = load_judge(name)
    assert judge.different < judge.same < 1.0
    stored = load_file(path)
    for key, tensor in judge.net.state_dict().items():
        assert torch.equal(tensor, stored[key])
    found = judge.embed(faces(2))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert judge.name == name and not judge.net.training
    assert not any(p.requires_grad for p in judge.net.parameters())


def test_import_goes_where_it_is_told(tmp_path: Path) -> None:
    package_of("faceres", tmp_path)
    out = tmp_path / "deep" / "x.safetensors"
    assert import_judge("faceres", package=tmp_path, output=out) == out and out.is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        import_judge("faceres", package=tmp_path, output=tmp_path / "file" / "x.safetensors")


def test_a_damaged_package_is_named_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package_of("dlib_resnet29", tmp_path)
    manifest, binary = (tmp_path / member for member in JUDGES["dlib_resnet29"].members)
    binary.write_bytes(binary.read_bytes()[:-4])
    assert main(["import", "dlib_resnet29", "--package", str(tmp_path)]) == 1
    assert "weights end inside" in capsys.readouterr().err
    manifest.write_text("{")
    with pytest.raises(CheckpointError, match="JSON is damaged"):
        import_judge("dlib_resnet29", package=tmp_path)


# --- loading -------------------------------------------------------------------------------------


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"auto, facenet_vggface2, dlib_resnet29, faceres"):
        load_judge("arcface")
    with pytest.raises(ConfigError, match="own library"):
        import_judge("facenet_vggface2")


def test_without_npm_the_advice_is_to_pass_the_package() -> None:
    with pytest.raises(DownloadError, match=r"npm.*--package FILE"):
        load_judge("dlib_resnet29")


@pytest.mark.parametrize("damage", ["truncated", "foreign", "shape"])
def test_damaged_cached_weights_are_an_error(damage: str, cache: Path) -> None:
    path = cache / "judges" / "faceres.safetensors"
    path.parent.mkdir(parents=True)
    state = FaceResMobileNet().state_dict()
    if damage == "foreign":
        state["extra"] = torch.zeros(1)
        del state["conv1.bias"]
    if damage == "shape":
        state["conv1.bias"] = torch.zeros(31)
    save_file(state, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError) as caught:
        load_judge("faceres")
    assert caught.value.path == path
    if damage == "foreign":
        assert caught.value.missing == ("conv1.bias",) and caught.value.unexpected == ("extra",)


def test_auto_takes_the_first_that_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline() -> nn.Module:
        raise DownloadError("no network")

    monkeypatch.setitem(judge_specs.JUDGES, "facenet_vggface2", replace_build(offline))
    with pytest.raises(DownloadError, match=r"facenet_vggface2: no network.*dlib.*faceres"):
        load_judge()
    package_of("faceres", tmp_path)
    import_judge("faceres", package=tmp_path)
    assert load_judge().name == "faceres"
    monkeypatch.setitem(judge_specs.JUDGES, "facenet_vggface2", replace_build(Pixels))
    assert load_judge("auto").name == "facenet_vggface2"


def replace_build(build: Callable[[], nn.Module]) -> judge_specs.JudgeSpec:
    return judge_specs.JudgeSpec(build=build, preprocess=JUDGES["facenet_vggface2"].preprocess)


def test_facenet_offline_is_a_download_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*, pretrained: str) -> nn.Module:
        assert pretrained == "vggface2"
        assert 0 < (socket.getdefaulttimeout() or 0) <= 60  # a dead network must not hang
        raise OSError("name or service not known")

    module = ModuleType("facenet_pytorch")
    module.InceptionResnetV1 = offline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "facenet_pytorch", module)
    with pytest.raises(DownloadError, match="vggface2"):
        load_judge("facenet_vggface2")
    assert socket.getdefaulttimeout() is None
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(DownloadError, match="cannot be imported"):
        load_judge("facenet_vggface2")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FACESTYLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "facestyle"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "facestyle"


# --- judging -------------------------------------------------------------------------------------


def test_similarity_is_the_cosine_pair_by_pair() -> None:
    judge, x = pixel_judge(), faces(5)
    torch.testing.assert_close(judge.similarity(x, x), torch.ones(5))
    y = x.flip(0)
    expected = F.cosine_similarity(judge.net(judge.preprocess(x)), judge.net(judge.preprocess(y)))
    torch.testing.assert_close(judge.similarity(x, y), expected)
    assert judge.similarity(x, y)[0] < 0.999 < judge.similarity(x, y)[2]  # the middle meets itself


def test_embedding_ignores_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, x = pixel_judge(), faces(5)
    whole = judge.embed(x)
    monkeypatch.setattr(judges, "BATCH", 2)
    torch.testing.assert_close(judge.embed(x), whole)
    assert whole.shape == (5, 48) and not whole.requires_grad


@pytest.mark.parametrize(
    "shape", [(3, 160, 160), (1, 1, 160, 160), (1, 3, 160, 128), (1, 3, 64, 64)]
)
def test_other_shapes_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        pixel_judge().embed(torch.zeros(shape))


def test_batches_of_different_length_are_an_error() -> None:
    with pytest.raises(ImageError, match="1 and 2"):
        pixel_judge().similarity(faces(1), faces(2))


# --- the real weights ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, IdentityJudge]:
    """Both packaged judges with the weights of their packages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACESTYLE_CACHE", str(tmp_path_factory.mktemp("judges")))
        return {name: load_judge(name) for name in PACKAGED}


@pytest.mark.network
def test_dlib_agrees_with_tensorflow_js(real_judges: dict[str, IdentityJudge]) -> None:
    golden = GOLDEN["dlib_resnet29_head"]
    mean = torch.tensor(JUDGES["dlib_resnet29"].preprocess.mean).view(1, 3, 1, 1)
    found = real_judges["dlib_resnet29"].net((pattern(150) - mean) / 255)[0, :8].tolist()
    assert found == pytest.approx(golden["value"], abs=golden["tolerance"])


@pytest.mark.network
def test_faceres_agrees_with_tensorflow_js(real_judges: dict[str, IdentityJudge]) -> None:
    golden = GOLDEN["faceres_peaks"]
    found = real_judges["faceres"].net(pattern(224) - 110)[0]
    for index, value in golden["value"].items():
        assert math.isclose(float(found[int(index)]), value, abs_tol=golden["tolerance"])


@pytest.mark.network
def test_the_heads_agree_with_tensorflow_js(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # npm is to be had
    monkeypatch.setenv("FACESTYLE_CACHE", str(tmp_path))
    golden = GOLDEN["faceres_heads"]
    male, years = load_appearance().net(pattern(224) - 110)[0].tolist()
    assert male == pytest.approx(golden["value"]["male"], abs=golden["tolerance"])
    assert years == pytest.approx(golden["value"]["years"], abs=100 * golden["tolerance"])
