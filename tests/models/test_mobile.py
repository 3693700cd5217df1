"""The mobile generator: shapes, row order, determinism, and golden values of the bundled weights."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from facestyle.errors import ConfigError, LatentShapeError
from facestyle.latents import broadcast, truncate
from facestyle.models import settled as settled_module
from facestyle.models.generator import sample_z
from facestyle.models.mobile import MobileGenerator, MobileSynthesis, _haar_kernel
from facestyle.models.settled import SettledSynthesis
from facestyle.models.zoo import load_base_generator

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "mobile.json").read_text())


@pytest.fixture(scope="module")
def tiny() -> MobileGenerator:
    torch.manual_seed(0)
    net = MobileGenerator((16, 16, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=16)
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith("noise"):
                buffer.normal_()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def base():
    return load_base_generator()


def reference_synthesis(net: MobileGenerator, w_plus: torch.Tensor) -> torch.Tensor:
    """The same arithmetic, one sample and one channel-last-free plain operation at a time."""

    def act(x, layer):
        return F.leaky_relu(x + layer.noise + layer.bias.view(1, -1, 1, 1), 0.2)

    def unhaar(x):
        batch, channels, height, width = x.shape
        ll, lh, hl, hh = x.view(batch, channels // 4, 4, height, width).unbind(2)
        out = x.new_zeros(batch, channels // 4, 2 * height, 2 * width)
        out[..., 0::2, 0::2] = (ll + lh + hl + hh) / 2
        out[..., 0::2, 1::2] = (ll + lh - hl - hh) / 2
        out[..., 1::2, 0::2] = (ll - lh + hl - hh) / 2
        out[..., 1::2, 1::2] = (ll - lh - hl + hh) / 2
        return out

    pictures = []
    syn = net.synthesis
    for rows in w_plus:

        def style(layer, row):
            return layer.affine(rows[row]).view(1, -1, 1, 1)  # noqa: B023

        x = syn.const * style(syn.stem, 0) / (syn.const.shape[1] * 9) ** 0.5
        x = act(F.conv2d(x, syn.stem.weight, padding=1), syn.stem)
        for i, block in enumerate(syn.blocks):
            x = unhaar(
                x * F.linear(rows[2 * i + 1], block.up.weight, block.up.bias).view(1, -1, 1, 1)
            )
            for layer, row in ((block.conv1, 2 * i + 1), (block.conv2, 2 * i + 2)):
                channels = x.shape[1]
                x = x * style(layer, row) / (channels * 9) ** 0.5
                x = F.conv2d(x, layer.depthwise, padding=1, groups=channels)
                x = act(F.conv2d(x, layer.weight), layer)
        head = syn.to_image
        x = x * style(head, net.num_ws - 1) / x.shape[1] ** 0.5
        pictures.append(unhaar(F.conv2d(x, head.weight, head.bias)))
    return torch.cat(pictures)


@pytest.mark.parametrize("batch", [1, 3])
def test_synthesis_equals_the_plain_reference(tiny, batch):
    w_plus = torch.randn(batch, tiny.num_ws, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        tiny.synthesis(w_plus), reference_synthesis(tiny, w_plus), rtol=1e-4, atol=1e-4
    )


def test_gradients_do_not_depend_on_the_batch(tiny):
    w_plus = torch.randn(2, tiny.num_ws, 8, generator=torch.Generator().manual_seed(2))
    together = w_plus.clone().requires_grad_(True)
    tiny.synthesis(together).square().sum().backward()
    for i in range(2):
        alone = w_plus[i : i + 1].clone().requires_grad_(True)
        tiny.synthesis(alone).square().sum().backward()
        torch.testing.assert_close(together.grad[i : i + 1], alone.grad, rtol=1e-3, atol=1e-3)


def test_shapes_and_row_count_follow_the_resolution(tiny, base):
    assert (tiny.resolution, tiny.num_ws, tiny.preview_resolution) == (64, 8, 16)
    assert (base.resolution, base.num_ws, base.preview_resolution) == (1024, 16, 256)
    w_plus = torch.zeros(2, tiny.num_ws, 8)
    assert tiny.synthesis(w_plus).shape == (2, 3, 64, 64)
    assert tiny.synthesis(w_plus, resolution=16).shape == (2, 3, 16, 16)


def test_rows_reach_only_their_resolution(tiny):
    """A preview at 16 px reads rows up to its own head's; later rows do not matter to it, earlier ones do."""
    w_plus = torch.randn(1, tiny.num_ws, 8, generator=torch.Generator().manual_seed(3))
    plain = tiny.synthesis(w_plus, resolution=16)
    last = 2 * tiny.synthesis.preview_blocks + 1
    for row in range(tiny.num_ws):
        changed = w_plus.clone()
        changed[:, row] += 1
        is_same = torch.equal(tiny.synthesis(changed, resolution=16), plain)
        assert is_same == (row > last), row


def test_every_row_matters_to_the_full_picture(tiny):
    w_plus = torch.randn(1, tiny.num_ws, 8, generator=torch.Generator().manual_seed(3))
    plain = tiny.synthesis(w_plus)
    for row in range(tiny.num_ws):
        changed = w_plus.clone()
        changed[:, row] += 1
        assert not torch.equal(tiny.synthesis(changed), plain), row


def test_noise_is_constant_and_can_be_left_out(tiny):
    w_plus = torch.zeros(1, tiny.num_ws, 8)
    assert torch.equal(tiny.synthesis(w_plus), tiny.synthesis(w_plus))
    assert not torch.equal(tiny.synthesis(w_plus), tiny.synthesis(w_plus, noise="none"))


def test_haar_step_is_orthogonal():
    kernel = _haar_kernel(2)
    x = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    up = F.conv_transpose2d(x, kernel, stride=2, groups=2)
    torch.testing.assert_close(up.square().sum(), x.square().sum())
    torch.testing.assert_close(F.conv2d(up, kernel, stride=2, groups=2), x)


@pytest.mark.parametrize(
    ("shape", "options", "error"),
    [
        ((1, 7, 8), {}, LatentShapeError),
        ((1, 8), {}, LatentShapeError),
        ((1, 8, 8), {"resolution": 32}, ConfigError),
        ((1, 8, 8), {"noise": "random"}, ConfigError),
    ],
)
def test_wrong_requests_are_named(tiny, shape, options, error):
    with pytest.raises(error):
        tiny.synthesis(torch.zeros(shape), **options)


@pytest.mark.parametrize(
    "arguments",
    [{"channels": (16, 16)}, {"channels": (16, 10, 8)}, {"preview_resolution": 100}],
)
def test_unbuildable_plans_are_refused(arguments):
    with pytest.raises(ConfigError):
        MobileGenerator(**arguments)


def test_bundled_generator_has_the_published_size(base):
    assert sum(p.numel() for p in base.mapping.parameters()) == 2_101_248
    preview = sum(p.numel() for p in base.synthesis.to_preview.parameters())
    assert sum(p.numel() for p in base.synthesis.parameters()) - preview == 7_306_380


def test_bundled_generator_draws_the_golden_picture(base):
    with torch.inference_mode():
        w = base.mapping(sample_z(1, GOLDEN["seed"]))
        w_plus = broadcast(truncate(w, base.w_avg, GOLDEN["psi"]), base.num_ws)
        img = base.synthesis(w_plus)
        preview = base.synthesis(w_plus, resolution=256)
    assert base.w_avg.norm().item() == pytest.approx(GOLDEN["w_avg_norm"], abs=1e-2)
    for (y, x), wanted in zip(GOLDEN["pixels_at"], GOLDEN["pixels"], strict=True):
        torch.testing.assert_close(
            img[0, :, y, x], torch.tensor(wanted), rtol=0, atol=GOLDEN["tolerance"]
        )
    error = (F.avg_pool2d(img, 4) - preview).square().mean().sqrt().item()
    assert error < GOLDEN["preview_rmse_max"]


@pytest.fixture(scope="module")
def settled_pair(tiny) -> tuple[MobileSynthesis, SettledSynthesis]:
    """A network in float64, with and without noise in its layers, and its settled form."""
    net = copy.deepcopy(tiny.synthesis).double()
    net.blocks[0].conv1.noise.zero_()
    net.blocks[2].conv2.noise.zero_()
    return net, SettledSynthesis(net)


@pytest.mark.parametrize("options", [{}, {"noise": "none"}, {"resolution": 16}])
@pytest.mark.parametrize(
    ("batch", "strip_numbers"), [(1, 2 << 20), (3, 2 << 20), (1, 1), (1, 1500)]
)
def test_settling_changes_no_picture(settled_pair, options, batch, strip_numbers, monkeypatch):
    monkeypatch.setattr(settled_module, "_STRIP_NUMBERS", strip_numbers)
    net, settled = settled_pair
    rng = torch.Generator().manual_seed(9)
    w_plus = torch.randn(batch, net.num_ws, 8, generator=rng, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(
            settled(w_plus, **options), net(w_plus, **options), rtol=0, atol=1e-10
        )


def test_settling_copies_the_weights_and_leaves_out_zero_noise(settled_pair):
    net, settled = settled_pair
    assert [block.conv1.noise is None for block in settled.blocks] == [True, False, False]
    assert [block.conv2.noise is None for block in settled.blocks] == [False, False, True]
    w_plus = torch.ones(1, net.num_ws, 8, dtype=torch.float64)
    before = settled(w_plus).clone()
    changed = copy.deepcopy(net)
    again = SettledSynthesis(changed)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.zero_()
    assert torch.equal(again(w_plus), before)
    assert not any(parameter.requires_grad for parameter in settled.parameters())


def test_settled_networks_refuse_what_the_others_refuse(settled_pair):
    _, settled = settled_pair
    with pytest.raises(LatentShapeError):
        settled(torch.zeros(1, 7, 8, dtype=torch.float64))
    with pytest.raises(ConfigError):
        settled(torch.zeros(1, 8, 8, dtype=torch.float64), resolution=32)


@pytest.mark.parametrize("is_fused", [True, False])
def test_the_bundled_generator_settles(base, is_fused, monkeypatch):
    if not is_fused:
        monkeypatch.setattr(settled_module, "_has_fused_pointwise", lambda dtype: False)
    with torch.inference_mode():
        w = base.mapping(sample_z(1, GOLDEN["seed"]))
        w_plus = broadcast(truncate(w, base.w_avg, GOLDEN["psi"]), base.num_ws)
        drawn = SettledSynthesis(base.synthesis)(w_plus)
        # Rounding alone moves pixels of either form by up to 1e-4, which is a hundredth of a level.
        torch.testing.assert_close(drawn, base.synthesis(w_plus), rtol=0, atol=5e-4)
