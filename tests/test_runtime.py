"""Device, number type, allocator; styles on the Hub; inversion on the real generator."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from facestyle import drawing, runtime
from facestyle.errors import ConfigError, DownloadError, StyleNotFoundError
from facestyle.inversion import Inverter, refiner
from facestyle.latents import broadcast
from facestyle.models.zoo import load_base_generator
from facestyle.runtime import choose_device, choose_dtype, parse_dtype
from facestyle.styles import StyleConfig, bundled_styles, find_style


@pytest.fixture(scope="module")
def base():
    return load_base_generator()


def test_devices_are_checked():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="unknown device"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="CUDA"):
            choose_device("cuda")


@pytest.mark.parametrize("device", ["xpu", "meta", "cpu:1", torch.device("meta")])
def test_devices_nothing_is_drawn_on_are_refused(device):
    with pytest.raises(ConfigError, match="device"):
        choose_device(device)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cuda") == torch.device("cuda")
    for absent in ("cuda:7", "cuda:200"):
        with pytest.raises(ConfigError, match=r"no device cuda:.*: this torch sees 2"):
            choose_device(absent)


@pytest.mark.parametrize("has_it", [True, False])
def test_mps_is_chosen_only_where_it_shrinks_pictures(monkeypatch, caplog, has_it):
    def lacking(*_, **__):
        raise NotImplementedError("aten::_upsample_bilinear2d_aa is not implemented for MPS")

    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *a, device, **options: ones(*a, **options))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    runtime._shrinks_pictures.cache_clear()
    if not has_it:
        monkeypatch.setattr(runtime.F, "interpolate", lacking)
    assert choose_device().type == ("mps" if has_it else "cpu")
    assert choose_device("mps").type == "mps"
    assert ("upsample_bilinear2d_aa" in caplog.text) is not has_it
    runtime._shrinks_pictures.cache_clear()


def test_colours_are_pooled_where_sides_need_not_divide(monkeypatch):
    pooled_on = []
    interpolate = drawing.F.interpolate

    def noted(img, **options):
        if options["mode"] == "area":
            pooled_on.append(img.device.type)
        return interpolate(img, **options)

    monkeypatch.setattr(drawing.F, "interpolate", noted)
    with FakeTensorMode():
        for place in ("mps", "cpu"):
            img = torch.zeros(1, 3, 64, 64, device=place)
            photo = torch.zeros(1, 3, 100, 100, device=place)
            result = drawing._with_color_of(img, photo, 0.5)
            assert result.device.type == place and result.shape == img.shape
    assert pooled_on == ["cpu"] * 4


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("fpu avx512f amx_bf16 amx_tile", torch.bfloat16),
        ("fpu avx512f avx512_bf16", torch.float32),
        ("", torch.float32),
    ],
)
def test_a_cpu_draws_in_bfloat16_where_it_multiplies_tiles_of_it(flags, wanted, monkeypatch):
    monkeypatch.setattr(runtime, "_cpu_flags", lambda: frozenset(flags.split()))
    assert choose_dtype(torch.device("cpu")) is wanted
    assert choose_dtype(torch.device("mps")) is torch.float32
    assert runtime.cpu_has_bfloat16() == ("bf16" in flags)


def test_dtypes_are_checked():
    assert parse_dtype("auto") is None
    assert parse_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(ConfigError, match="int7"):
        parse_dtype("int7")


def test_bfloat16_draws_nearly_the_same(base):
    import copy

    w_plus = broadcast(base.w_avg[None], base.num_ws)
    half = copy.deepcopy(base.synthesis).to(torch.bfloat16)
    with torch.inference_mode():
        plain = base.synthesis(w_plus, resolution=256)
        rough = half(w_plus.to(torch.bfloat16), resolution=256).float()
    assert (plain - rough).square().mean().sqrt() < 0.05


def test_inversion_recovers_a_face_the_generator_drew(base):
    rng = torch.Generator().manual_seed(4)
    w = base.w_avg + 0.6 * (base.mapping(torch.randn(1, 512, generator=rng)) - base.w_avg)
    with torch.inference_mode():
        photo = base.synthesis(broadcast(w, base.num_ws), resolution=256).clamp(-1, 1)
    inverter = Inverter(base)
    target = inverter.loss.target(photo.clone())
    steps: list[int] = []
    found = inverter(photo.clone(), base.w_avg[None], 12, on_step=steps.append)
    assert found.shape == (1, 16, 512)
    assert steps == list(range(1, 13))

    def score(w_plus):
        img = base.synthesis(w_plus, resolution=256)
        return inverter.loss.total(inverter.loss.parts(img, target)).item()

    start = score(broadcast(base.w_avg[None], base.num_ws))
    assert score(found) < 0.75 * start
    assert score(broadcast(w, base.num_ws)) < 0.1 * start
    same = inverter(photo.clone(), w, 0)
    torch.testing.assert_close(same, broadcast(w, base.num_ws))
    with pytest.raises(ConfigError):
        inverter(photo, w, -1)


def test_refining_minds_the_mouth(base):
    seeds = (5, 7)
    z = [torch.randn(1, 512, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    w = base.mapping(torch.cat(z))
    with torch.inference_mode():
        photos = base.synthesis(broadcast(w, base.num_ws), resolution=256).clamp(-1, 1)
    minding, plain = refiner(base), Inverter(base)
    target = minding.loss.target(photos.clone())

    def away(search):
        found = search(photos.clone(), base.w_avg.expand(2, -1), 8)
        with torch.inference_mode():
            parts = minding.loss.parts(base.synthesis(found, resolution=256), target)
        return {name: part.mean() for name, part in parts.items()}

    mine, others = away(minding), away(plain)
    assert mine["mouth"] < 0.9 * others["mouth"]
    assert mine["perceptual"] < 1.05 * others["perceptual"]


def test_a_search_ends_after_steps_that_are_not_whole(base):
    photo = torch.zeros(1, 3, 256, 256)

    def stop_late(step):
        assert step <= 2

    assert Inverter(base).search(photo, base.w_avg[None], 1.5, on_step=stop_late).steps == 2


def test_offline_hub_names_end_in_advice(tmp_path):
    with pytest.raises((DownloadError, StyleNotFoundError), match="cartoon"):
        find_style("somebody/some-style", cache_dir=tmp_path, local_files_only=True)


def test_style_names_are_checked():
    assert "cartoon" in bundled_styles()
    for name in ("", "Cartoon", "a/b", "../x"):
        with pytest.raises(ConfigError):
            StyleConfig(name=name, title="", description="", generator={}, base_sha256="")


def test_a_revision_is_of_a_style_of_the_hub(tmp_path):
    for style in ("cartoon", tmp_path):
        with pytest.raises(ConfigError, match="leave it out"):
            find_style(style, revision="v1")
