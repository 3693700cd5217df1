"""Perceptual distances measure pictures as they should, and only LPIPS is called LPIPS."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from facestyle.errors import CheckpointError, ConfigError, DownloadError, ImageError
from facestyle.evaluation import perceptual
from facestyle.evaluation.perceptual import (
    HedVgg16,
    PerceptualDistance,
    import_hed,
    load_perceptual,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("FACESTYLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def distance() -> PerceptualDistance:
    """A tiny random network behind the real code."""
    torch.manual_seed(0)
    net = HedVgg16(widths=(4, 4, 8, 8, 8)).eval()
    return PerceptualDistance("tiny", net.distance)


def pictures(count: int, side: int = 64) -> Tensor:
    small = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return F.interpolate(small, side, mode="bicubic").clamp(-1, 1)


def pixel_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean((1, 2, 3)).view(-1, 1, 1, 1)  # shaped like LPIPS's


def test_equal_pictures_are_at_zero_and_noise_grows_it(distance: PerceptualDistance) -> None:
    x = pictures(3)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    weak, strong = distance(x, x + 0.05 * noise), distance(x, x + 0.4 * noise)
    assert distance(x, x).abs().max() == 0
    assert weak.shape == (3,) and bool((weak > 0).all()) and bool((weak < strong).all())


def test_it_is_symmetric_and_ignores_the_batch(
    distance: PerceptualDistance, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = pictures(5), pictures(5).flip(0)
    whole = distance(x, y)
    torch.testing.assert_close(distance(y, x), whole)
    monkeypatch.setattr(perceptual, "BATCH", 2)
    torch.testing.assert_close(distance(x, y), whole)


def test_it_is_the_literal_formula() -> None:
    torch.manual_seed(0)
    net = HedVgg16(widths=(2, 3, 4, 4, 4)).eval().requires_grad_(False)
    x, y = pictures(1, 32), pictures(2, 32)[1:]
    total = 0.0
    for a, b in zip(net(x), net(y), strict=True):
        assert a.shape[2] == b.shape[2]
        for row in range(a.shape[2]):
            for column in range(a.shape[3]):
                u, v = a[0, :, row, column], b[0, :, row, column]
                u, v = u / u.norm().clamp_min(1e-10), v / v.norm().clamp_min(1e-10)
                total += float((u - v).square().sum()) / (a.shape[2] * a.shape[3])
    assert float(net.distance(x, y)) == pytest.approx(total, rel=1e-4)


def test_the_network_sees_blue_first_around_zero() -> None:
    net = HedVgg16(widths=(3, 3, 3, 3, 3))
    with torch.no_grad():
        net.conv1_1.weight.zero_()  # type: ignore[union-attr, operator]
        net.conv1_1.bias.zero_()  # type: ignore[union-attr, operator]
        for i in range(3):
            net.conv1_1.weight[i, i, 1, 1] = 1.0  # type: ignore[union-attr, index]
    seen: list[Tensor] = []
    net.conv1_1.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))  # type: ignore[union-attr]
    net(torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    expected = [0 - 104.00699, 127.5 - 116.66877, 255 - 122.67892]
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-4)


def test_taps_halve_from_block_to_block() -> None:
    shapes = [tuple(t.shape) for t in HedVgg16(widths=(2, 3, 4, 5, 6))(torch.zeros(1, 3, 64, 48))]
    assert shapes == [(1, 2, 64, 48), (1, 3, 32, 24), (1, 4, 16, 12), (1, 5, 8, 6), (1, 6, 4, 3)]


def test_pictures_are_averaged_down_to_256() -> None:
    seen = []

    def spy(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a.shape[2:])
        return pixel_distance(a, b)

    measure = PerceptualDistance("pixels", spy)
    checker = (torch.arange(512)[:, None] + torch.arange(512)).fmod(2) * 2.0 - 1
    img = checker.expand(1, 3, 512, 512)
    assert float(measure(img, torch.zeros(1, 3, 256, 256))) == 0.0  # each 2x2 averages to grey
    measure(torch.zeros(1, 3, 100, 120), torch.zeros(1, 3, 100, 120))
    measure(torch.zeros(1, 3, 512, 768), torch.zeros(1, 3, 512, 768))
    assert seen == [(256, 256), (100, 120), (256, 384)]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3, 64, 64), (1, 3, 64, 64)),
        ((1, 3, 64, 64), (1, 3, 96, 96)),
        ((3, 64, 64), (3, 64, 64)),
        ((1, 3, 8, 8), (1, 3, 8, 8)),
    ],
)
def test_unpaired_pictures_are_an_error(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        PerceptualDistance("pixels", pixel_distance)(torch.zeros(a), torch.zeros(b))


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match="auto, lpips-alex, hed-vgg16"):
        load_perceptual("ssim")


def fake_lpips(monkeypatch: pytest.MonkeyPatch, *, offline: bool) -> None:
    class LPIPS(torch.nn.Module):
        def __init__(self, *, net: str, version: str, verbose: bool) -> None:
            super().__init__()
            assert (net, version, verbose) == ("alex", "0.1", False)
            if offline:
                raise OSError("name or service not known")

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return pixel_distance(a, b)

    module = ModuleType("lpips")
    module.LPIPS = LPIPS  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)


def cache_tiny_hed(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    class Tiny(HedVgg16):
        def __init__(self) -> None:
            super().__init__(widths=(2, 2, 2, 2, 2))

    monkeypatch.setattr(perceptual, "HedVgg16", Tiny)
    (cache / "perceptual").mkdir(parents=True)
    save_file(Tiny().state_dict(), cache / "perceptual" / "hed_vgg16.safetensors")


def test_auto_is_lpips_where_it_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_lpips(monkeypatch, offline=False)
    measure = load_perceptual()
    assert measure.name == "LPIPS v0.1 (AlexNet)"
    assert measure(torch.zeros(2, 3, 64, 64), torch.ones(2, 3, 64, 64)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("installed", [True, False])
def test_the_stand_in_is_never_called_lpips(
    installed: bool, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    fake_lpips(monkeypatch, offline=True)
    if not installed:
        monkeypatch.setitem(sys.modules, "lpips", None)
    cache_tiny_hed(monkeypatch, cache)
    measure = load_perceptual()
    assert measure.name == "hed-vgg16 (uncalibrated)"
    assert measure(pictures(2), pictures(2)).tolist() == [0.0, 0.0]
    with pytest.raises(DownloadError if installed else ConfigError):
        load_perceptual("lpips-alex")


def test_import_turns_kernels_the_right_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    cache_tiny_hed(monkeypatch, cache)
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / perceptual.HED_MEMBER
    path.parent.mkdir(parents=True)
    channels = 3
    kernels = {}
    with h5py.File(path, "w") as file:
        for block, depth in enumerate(HedVgg16.DEPTHS, start=1):
            for layer in range(depth):
                group = f"block{block}/layers/conv2d{f'_{layer}' if layer else ''}/vars"
                kernel = torch.rand(3, 3, channels, 2, generator=generator)
                file[f"{group}/0"], file[f"{group}/1"] = kernel.numpy(), torch.zeros(2).numpy()
                kernels[f"conv{block}_{layer + 1}"] = kernel
                channels = 2
    import_hed(package=tmp_path)
    found = perceptual.read_tensors(cache / "perceptual" / "hed_vgg16.safetensors")
    assert len(found) == 26
    for name, kernel in kernels.items():
        assert found[f"{name}.weight"][1, 0, 2, 0] == kernel[2, 0, 0, 1]
    path.write_bytes(b"no hdf5")
    with pytest.raises(CheckpointError, match="no HED weights"):
        import_hed(package=tmp_path)


@pytest.mark.network
def test_the_real_stand_in_ranks_distortions() -> None:
    measure = load_perceptual("hed-vgg16")
    x = pictures(4, 256)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    brighter, noisy = measure(x, x * 0.95), measure(x, x + 0.1 * noise)
    assert bool((brighter < noisy).all()) and bool((noisy < measure(x, x.flip(0))).all())
