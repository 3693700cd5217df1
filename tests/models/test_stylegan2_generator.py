"""StyleGAN2's generator: published sizes, each form of its arithmetic against another, and rosinality's names."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from facestyle.errors import CheckpointError, ConfigError, LatentShapeError
from facestyle.latents import broadcast
from facestyle.models import stylegan2_generator
from facestyle.models.checkpoints import load_strict, unfilled
from facestyle.models.generator import sample_z
from facestyle.models.settled_stylegan2 import SettledStyleGAN2
from facestyle.models.stylegan2_generator import (
    CUT,
    EqualLinear,
    StyleGAN2Generator,
    estimate_w_avg,
    from_rosinality,
)

SIZES = {  # side: (all, synthesis) at channel_base 32768, then at 16384
    64: ((27_032_600, 24_931_352), (23_819_544, 21_718_296)),
    128: ((29_328_669, 27_227_421), (24_525_213, 22_423_965)),
    256: ((30_034_338, 27_933_090), (24_767_458, 22_666_210)),
    512: ((30_276_583, 28_175_335), (24_860_935, 22_759_687)),
    1024: ((30_370_060, 28_268_812), (24_900_764, 22_799_516)),
}
BLOCKS = {
    4: 2_894_852, 8: 5_509_125, 16: 5_509_125, 32: 5_509_125, 64: 5_509_125, 128: 2_296_069,
    256: 705_669, 512: 242_245, 1024: 93_477,
}  # fmt: skip


def count(net):
    return sum(p.numel() for p in net.parameters())


def make(resolution=32, seed=0, **more):
    torch.manual_seed(seed)
    sizes = {"w_dim": 8, "channel_base": 128, "channel_max": 8, "mapping_depth": 2} | more
    net = StyleGAN2Generator(resolution, **sizes)
    with torch.no_grad():
        net.w_avg.normal_()
        for name, p in net.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                p.normal_()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def net():
    return make()


@pytest.fixture(scope="module")
def w_plus(net):
    return torch.randn(2, net.num_ws, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("side", SIZES)
def test_sizes_are_the_published_ones(side):
    with unfilled():
        for base, sizes in zip((32_768, 16_384), SIZES[side], strict=True):
            made = StyleGAN2Generator(side, channel_base=base)
            assert (count(made), count(made.synthesis)) == sizes
            assert made.num_ws == {64: 10, 128: 12, 256: 14, 512: 16, 1024: 18}[side]


def test_every_block_and_the_noise_of_config_f():
    with unfilled():
        made = StyleGAN2Generator()
    for side, wanted in BLOCKS.items():
        own = count(made.synthesis.get_submodule(f"b{side}"))
        assert own + (512 * 16 if side == 4 else 0) == wanted
    assert count(made.mapping) == 2_101_248
    planes = [b.numel() for n, b in made.named_buffers() if n.endswith("noise_const")]
    assert sum(planes) == 2_796_176


def filtered(x):
    """Each map by [1, 3, 3, 1] in both directions, of sum 4, within a border of one zero."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    fir = torch.outer(taps, taps) / 64 * 4
    return F.conv2d(x, fir.repeat(x.shape[1], 1, 1, 1), padding=1, groups=x.shape[1])


def by_zeros(x, weight):
    """Twice the side: zeros between the pixels, the convolution, the filter."""
    b, c, h, w = x.shape
    spread = torch.zeros(b, c, 2 * h + 3, 2 * w + 3)
    spread[:, :, 2 : 2 * h + 2 : 2, 2 : 2 * w + 2 : 2] = x
    return filtered(F.conv2d(spread, weight.flip(2, 3)))


def by_transposed(x, weight):
    """Twice the side: a transposed convolution of stride 2, which makes side 2 h + 1, and the filter."""
    return filtered(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))


def folded(weight):
    """[after, before, 6, 6]: the 3x3 weight with the filter worked into it."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    fir = torch.outer(taps, taps) / 64 * 4  # the same in both directions
    kernels = F.conv2d(weight.reshape(-1, 1, 3, 3), fir[None, None], padding=3)
    return kernels.reshape(*weight.shape[:2], 6, 6)


def by_six(x, weight):
    """Twice the side: one transposed convolution of 6x6 and stride 2."""
    return F.conv_transpose2d(x, folded(weight).transpose(0, 1), stride=2, padding=2)


def by_shuffling(x, weight):
    """Twice the side: one 3x3 convolution to four times the channels, which are the places in 2x2 pixels."""
    kernel = folded(weight).flip(2, 3)
    places = [kernel[:, :, 1 - i :: 2, 1 - j :: 2] for i in (0, 1) for j in (0, 1)]
    return F.pixel_shuffle(F.conv2d(x, torch.stack(places, dim=1).flatten(0, 1), padding=1), 2)


def conv_per_sample(conv, x, w, noise="const", up=by_zeros):
    """A modulated convolution with weights of its own for every sample."""
    style = conv.affine(w)
    rows = []
    for one, s in zip(x, style, strict=True):
        weight = conv.weight * s[None, :, None, None]
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        rows.append(up(one[None], weight) if conv.up else F.conv2d(one[None], weight, padding=1))
    out = torch.cat(rows)
    if noise == "const":
        out = out + conv.noise_strength * conv.noise_const
    return F.leaky_relu(out + conv.bias[None, :, None, None], 0.2) * 2**0.5


@pytest.mark.parametrize("name", ["b4.conv1", "b8.conv0", "b32.conv0", "b32.conv1"])
def test_scaling_inputs_and_outputs_is_a_convolution_a_sample(net, name):
    conv = net.synthesis.get_submodule(name)
    side = int(name[1:].split(".")[0]) // (2 if conv.up else 1)
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(3, conv.weight.shape[1], side, side, generator=rng)
    w = torch.randn(3, 8, generator=rng)
    torch.testing.assert_close(
        conv(x, w, "const"), conv_per_sample(conv, x, w), rtol=1e-4, atol=1e-5
    )


@pytest.fixture(scope="module")
def wide():
    """128 px, wide where it is small and narrow where it is large."""
    return make(128, channel_base=1024, channel_max=24)


@pytest.mark.parametrize("form", [by_zeros, by_transposed, by_six, by_shuffling])
@pytest.mark.parametrize(
    ("name", "height", "width"),
    [("b8.conv0", 4, 4), ("b16.conv0", 1, 1), ("b64.conv0", 32, 32), ("b128.conv0", 13, 40)],
)
def test_every_form_of_the_convolution_to_twice_the_side_is_the_same(
    wide, form, name, height, width
):
    """The border too: each pixel, within 1e-4 of the largest number."""
    conv = wide.synthesis.get_submodule(name)
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(2, conv.weight.shape[1], height, width, generator=rng)
    w = torch.randn(2, 8, generator=rng)
    found = conv(x, w, "none")
    wanted = conv_per_sample(conv, x, w, "none", form)
    assert found.shape == wanted.shape == (2, conv.weight.shape[0], 2 * height, 2 * width)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


HALVES = {torch.float16: 0.005, torch.bfloat16: 0.03}
"""Mean error of a picture that they are allowed, in standard deviations of float32's."""


@pytest.fixture(scope="module")
def loud():
    """256 px; codes for it whose styles are in the hundreds, each sample's and channel's another size."""
    net = make(256, channel_base=1024, channel_max=16)
    w_plus = 100 * torch.randn(2, net.num_ws, 8, generator=torch.Generator().manual_seed(4))
    return net.synthesis, w_plus


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("form", [lambda network: network, SettledStyleGAN2])
def test_large_styles_are_drawn_in_half_precision(loud, dtype, form):
    network, w_plus = loud
    style = network.b128.conv1.affine(w_plus[:, 10])
    power = network.b128.conv1.weight.square().sum((2, 3))
    assert (style.square() @ power.T).max() > 65504  # of float16
    drawn = form(copy.deepcopy(network).to(dtype))(w_plus.to(dtype))
    wanted = network(w_plus)
    assert drawn.dtype == torch.float32 and drawn.isfinite().all()
    assert (drawn - wanted).abs().mean() < HALVES[dtype] * wanted.std()


@pytest.mark.parametrize("form", [lambda network: network, SettledStyleGAN2])
def test_float16_draws_styles_that_it_cannot_hold(loud, form):
    network, w_plus = loud
    drawn = form(copy.deepcopy(network).half())(1000 * w_plus)
    wanted = network(1000 * w_plus)
    assert wanted.abs().max() > 65504
    assert (drawn - wanted).abs().mean() < HALVES[torch.float16] * wanted.std()


@pytest.mark.parametrize("form", [lambda network: network, SettledStyleGAN2])
def test_float16_features_are_cut_before_they_overflow(loud, form):
    network, w_plus = copy.deepcopy(loud[0]), loud[1]
    network.b128.conv1.bias.fill_(6e4)  # times sqrt 2 more than float16 holds
    seen = []
    network(w_plus, after_conv=lambda row, x: (seen.append(x.max()), x)[1])
    assert max(seen) > 65504  # float32 cuts nothing
    drawn = form(network.half())(w_plus.half())
    assert drawn.isfinite().all()
    del seen[:]
    network(w_plus.half(), after_conv=lambda row, x: (seen.append(x.max()), x)[1])
    assert max(seen) == CUT


@pytest.mark.parametrize("dtype", HALVES)
def test_small_sides_and_the_picture_are_float32_in_half_precision(loud, dtype):
    network, w_plus = copy.deepcopy(loud[0]).to(dtype), loud[1].to(dtype)
    seen = {}
    for name, layer in network.named_modules():
        if name.endswith(("conv0", "conv1", "torgb")):
            layer.register_forward_hook(lambda _, given, out, name=name: seen.update({name: out}))
    assert network(w_plus).dtype == torch.float32
    for name, out in seen.items():
        side = int(name[1:].split(".")[0])
        if name.endswith("torgb") and dtype == torch.float16:
            assert out.dtype == torch.float32
        else:
            assert out.dtype == (torch.float32 if side <= 64 else dtype)
    given = set()
    network(w_plus, after_conv=lambda row, x: (given.add(x.dtype), x)[1])
    assert given == {dtype}


@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_of_codes_are_those_of_float32_in_half_precision(loud, dtype):
    found = []
    for kind in (torch.float32, dtype):
        network, w_plus = copy.deepcopy(loud[0]).to(kind), loud[1].clone().requires_grad_()
        img = network(w_plus)
        (grad,) = torch.autograd.grad((img / img.detach().std()).square().mean(), w_plus)
        found.append(grad)
    assert (found[1] - found[0]).abs().mean() < 0.1 * found[0].abs().mean()


def test_a_network_laid_out_channels_last_stays_so(wide):
    w_plus = torch.randn(2, wide.num_ws, 8, generator=torch.Generator().manual_seed(5))
    last = copy.deepcopy(wide.synthesis).to(memory_format=torch.channels_last)

    def check(row, x):
        assert x.is_contiguous(memory_format=torch.channels_last)
        return x

    torch.testing.assert_close(
        last(w_plus, after_conv=check), wide.synthesis(w_plus), rtol=1e-4, atol=1e-4
    )


@pytest.fixture
def made_kernels(monkeypatch):
    """Grows with every kernel that is worked out."""
    made = []
    kernel_of = stylegan2_generator._kernel_of
    monkeypatch.setattr(
        stylegan2_generator, "_kernel_of", lambda *given: (made.append(1), kernel_of(*given))[1]
    )
    return made


def test_demodulation_of_a_frozen_weight_is_prepared_once(w_plus, made_kernels):
    network = make().synthesis
    with torch.inference_mode():
        first = network(w_plus)
    assert len(made_kernels) == 7
    assert torch.equal(network(w_plus), first)
    code = w_plus.clone().requires_grad_()
    network(code).sum().backward()  # what was kept serves gradients of codes
    assert code.grad.any() and len(made_kernels) == 7
    network.b8.conv0.weight.requires_grad_()
    network(w_plus)
    network(w_plus)
    assert len(made_kernels) == 9


def in_place(network):
    network.b8.conv0.weight[0].mul_(3)
    with torch.inference_mode():
        network.b32.conv1.weight[1].add_(1)


def by_loading(network):
    state = {name: t.flip(-1) for name, t in network.state_dict().items()}
    network.load_state_dict(state)


def to_half_and_back(network):
    network.half().float()


def to_double(network):
    network.double()


def by_other_memory(network):
    for p in network.parameters():
        p.data = p.data.flip(0).contiguous()
        p.data = p.data * 2  # may lie where the first lay


def by_other_parameters(network):
    network.b8.conv0.weight = torch.nn.Parameter(network.b8.conv0.weight * 2 + 1, False)


def by_training(network):
    network.requires_grad_()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)  # counts no versions
    network(torch.ones(1, network.num_ws, 8)).square().mean().backward()
    optimizer.step()
    network.requires_grad_(False)


@pytest.mark.parametrize(
    "change",
    [
        in_place, by_loading, to_half_and_back, to_double, by_other_memory, by_other_parameters, by_training,
    ],
)  # fmt: skip
def test_changed_weights_are_seen(w_plus, change):
    network = make().synthesis
    before = network(w_plus)
    change(network)
    dtype = network.const.dtype
    fresh = make().synthesis.to(dtype)
    fresh.load_state_dict(network.state_dict())
    found = network(w_plus.to(dtype))
    assert torch.equal(found, fresh(w_plus.to(dtype)))
    assert not torch.equal(found.float(), before)


def test_half_precision_sees_changed_weights_too(loud):
    network, w_plus = copy.deepcopy(loud[0]).half(), loud[1].half()
    before = network(w_plus)
    network.b256.conv1.weight[0].mul_(-2)
    fresh = copy.deepcopy(loud[0]).half()
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(network(w_plus), fresh(w_plus)) and not torch.equal(network(w_plus), before)


def test_weights_put_in_for_one_call_leave_nothing_behind(net, w_plus):
    """Several at a time too, which have no memory of their own while they are drawn by."""
    network, others = net.synthesis, [make(seed=seed).synthesis for seed in (1, 2)]
    before = network(w_plus)
    states = [other.state_dict() for other in others]
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    found = torch.vmap(lambda state: torch.func.functional_call(network, state, (w_plus,)))(stacked)
    for one, other in zip(found, others, strict=True):
        torch.testing.assert_close(one, other(w_plus), rtol=1e-4, atol=1e-4)
    assert torch.equal(network(w_plus), before)


def test_threads_draw_by_one_network(w_plus):
    wanted = []
    network = make().synthesis
    for i in range(3):
        network.b8.conv0.weight[i].mul_(-2)
        wanted.append(make().synthesis)
        wanted[i].load_state_dict(network.state_dict())
    network = make().synthesis
    with ThreadPoolExecutor(8) as pool:
        for i in range(3):
            network.b8.conv0.weight[i].mul_(-2)
            drawn = list(pool.map(lambda _: network(w_plus), range(24)))
            picture = wanted[i](w_plus)
            for one in drawn:
                torch.testing.assert_close(one, picture, rtol=1e-4, atol=1e-4)


def test_what_is_kept_is_no_part_of_the_network(w_plus):
    network = make().synthesis
    keys = list(network.state_dict())
    size = len(pickle.dumps(network))
    network(w_plus)
    assert list(network.state_dict()) == keys
    assert len(pickle.dumps(network)) == size
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(w_plus), network(w_plus))
        other.b8.conv0.weight.mul_(torch.arange(8.0)[:, None, None])
        fresh = make().synthesis
        fresh.load_state_dict(other.state_dict())
        assert torch.equal(other(w_plus), fresh(w_plus))


@pytest.mark.parametrize("conv_clamp", [None, 0.5])
def test_recorded_networks_read_the_weights_themselves(w_plus, conv_clamp):
    network = make(conv_clamp=conv_clamp).synthesis
    network(w_plus)
    program = torch.export.export(network, (w_plus,))
    assert all(name.endswith("fir") for name in program.constants)
    assert program.state_dict.keys() == network.state_dict().keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its older tracer
        traced = torch.jit.trace(network, (w_plus,))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    recorded = [program.module(), traced, compiled]
    for one in recorded:
        assert torch.equal(one(w_plus), network(w_plus))
    network.b8.conv0.weight[0].mul_(-3)
    for one in recorded[1:]:  # a program has weights of its own
        assert torch.equal(one(w_plus), network(w_plus))


def test_demodulated_convolutions_ignore_the_weights_scale(net):
    conv = net.synthesis.b8.conv1
    x, w = torch.randn(1, 8, 8, 8), torch.randn(1, 8)
    before = conv(x, w, "none")
    saved = conv.weight.clone()
    conv.weight.mul_(3.0)
    torch.testing.assert_close(conv(x, w, "none"), before, rtol=1e-4, atol=1e-5)
    conv.weight.copy_(saved)


def test_pictures_are_doubled_bilinearly_but_for_the_border(net):
    img = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    doubled = net.synthesis._doubled(img)
    wanted = F.interpolate(img, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(doubled[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1])
    torch.testing.assert_close(doubled[..., 0, 1:-1], 0.75 * wanted[..., 0, 1:-1])


def test_the_picture_is_the_sum_over_resolutions(net, w_plus):
    small = net.synthesis(w_plus, resolution=16)
    assert small.shape == (2, 3, 16, 16)
    features = {}
    net.synthesis(w_plus, after_conv=lambda row, x: features.setdefault(row, x))
    color = net.synthesis.b32.torgb(features[6], w_plus[:, 7])
    torch.testing.assert_close(net.synthesis(w_plus), net.synthesis._doubled(small) + color)


def test_rows_reach_the_layers_of_their_resolution(net, w_plus):
    def features(code):
        kept = []
        net.synthesis(code, after_conv=lambda row, x: (kept.append((row, x)), x)[1])
        assert [row for row, _ in kept] == list(range(net.num_ws - 1))
        return [x for _, x in kept]

    before = features(w_plus)
    assert [x.shape[-1] for x in before] == [4, 8, 8, 16, 16, 32, 32]
    for row in range(net.num_ws):
        changed = w_plus.clone()
        changed[:, row] += 1
        for i, (a, b) in enumerate(zip(before, features(changed), strict=True)):
            assert torch.equal(a, b) == (i < row)
        assert not torch.equal(net.synthesis(w_plus), net.synthesis(changed))


def test_what_follows_a_convolution_can_be_changed(net, w_plus):
    plain = net.synthesis(w_plus)
    same = net.synthesis(w_plus, after_conv=lambda row, x: x)
    assert torch.equal(plain, same)
    cut = net.synthesis(w_plus, after_conv=lambda row, x: x * (row != 6))
    small = net.synthesis(w_plus, resolution=16)
    last = net.synthesis.b32.torgb.bias[:, None, None]
    torch.testing.assert_close(cut, net.synthesis._doubled(small) + last)


def test_noise_comes_from_its_planes_or_not_at_all(net, w_plus):
    without = make()
    for name, p in without.named_parameters():
        if name.endswith("noise_strength"):
            p.zero_()
    torch.testing.assert_close(
        net.synthesis(w_plus, noise="none"), without.synthesis(w_plus, noise="const")
    )
    assert not torch.equal(net.synthesis(w_plus), net.synthesis(w_plus, noise="none"))


def test_samples_of_a_batch_do_not_mix(net, w_plus):
    torch.testing.assert_close(
        net.synthesis(w_plus)[1:], net.synthesis(w_plus[1:]), rtol=1e-4, atol=1e-5
    )


def test_the_mapping_ignores_the_length_of_z(net):
    z = sample_z(3, 0, 8)
    torch.testing.assert_close(net.mapping(z), net.mapping(7 * z), rtol=1e-4, atol=1e-4)
    rows = net.mapping(z[None])
    torch.testing.assert_close(rows[0], net.mapping(z))


def test_a_rate_leaves_the_function_alone_and_slows_its_weights():
    torch.manual_seed(0)
    fast = EqualLinear(8, 4, bias=1.0)
    slow = EqualLinear(8, 4, bias=1.0, rate=0.01)
    with torch.no_grad():
        slow.weight.copy_(fast.weight * 100)
    x = torch.randn(2, 8)
    torch.testing.assert_close(fast(x), slow(x))
    fast(x).sum().backward()
    slow(x).sum().backward()
    torch.testing.assert_close(slow.weight.grad, fast.weight.grad * 0.01)


def test_configs_build_the_same_network_again(net):
    again = StyleGAN2Generator(**net.config())
    again.load_state_dict(net.state_dict())
    z = sample_z(1, 0, 8)
    assert torch.equal(again(z), net(z))
    assert net.preview_resolution == 32
    assert "conv_clamp" not in net.config()  # as files of before have it
    cut = make(conv_clamp=0.5)
    again = StyleGAN2Generator(**cut.config())
    again.load_state_dict(cut.state_dict())
    assert torch.equal(again(z), cut(z)) and not torch.equal(cut(z), net(z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", [lambda network: network, SettledStyleGAN2])
def test_features_and_colours_are_cut_where_the_generator_says_so(loud, dtype, form):
    plain, w_plus = loud
    made = make(256, channel_base=1024, channel_max=16, conv_clamp=2.0).synthesis
    made.load_state_dict(plain.state_dict())
    seen = []
    wanted = made(w_plus, after_conv=lambda row, x: (seen.append(x.abs().max().item()), x)[1])
    assert max(seen) == 2.0
    drawn = form(copy.deepcopy(made).to(dtype))(w_plus.to(dtype))
    assert (drawn - wanted).abs().mean() < (HALVES.get(dtype, 1e-4)) * wanted.std()
    colours = made(w_plus, resolution=4)
    assert colours.abs().max() == 2.0


def test_requests_are_checked(net, w_plus):
    with pytest.raises(LatentShapeError, match=r"\[B, 8, 8\]"):
        net.synthesis(w_plus[:, :4])
    with pytest.raises(ConfigError, match="draws at"):
        net.synthesis(w_plus, resolution=48)
    with pytest.raises(ConfigError, match="noise"):
        net.synthesis(w_plus, noise="random")
    wrongs = [{"resolution": 48}, {"resolution": 64, "channel_base": 32}, {"w_dim": 0}]
    for wrong in [*wrongs, {"conv_clamp": 0}, {"conv_clamp": float("inf")}]:
        with pytest.raises(ConfigError):
            StyleGAN2Generator(**wrong)


def rosinality_state(net):
    """The generator's tensors under rosinality's names, by a table of its own."""
    state, named = net.state_dict(), {}
    for k in range(net.mapping_depth):
        for part in ("weight", "bias"):
            named[f"style.{k + 1}.{part}"] = state[f"mapping.fc.{k}.{part}"]
    named["input.input"] = state["synthesis.const"][None]

    def conv(new, old):
        named[f"{new}.conv.weight"] = state[f"{old}.weight"][None]
        for part in ("weight", "bias"):
            named[f"{new}.conv.modulation.{part}"] = state[f"{old}.affine.{part}"]

    def styled(new, old, number):
        conv(new, old)
        named[f"{new}.activate.bias"] = state[f"{old}.bias"]
        named[f"{new}.noise.weight"] = state[f"{old}.noise_strength"][None]
        named[f"noises.noise_{number}"] = state[f"{old}.noise_const"][None, None]

    def rgb(new, old):
        conv(new, old)
        named[f"{new}.bias"] = state[f"{old}.bias"].reshape(1, 3, 1, 1)

    styled("conv1", "synthesis.b4.conv1", 0)
    rgb("to_rgb1", "synthesis.b4.torgb")
    for i, side in enumerate((8, 16, 32)):
        styled(f"convs.{2 * i}", f"synthesis.b{side}.conv0", 2 * i + 1)
        styled(f"convs.{2 * i + 1}", f"synthesis.b{side}.conv1", 2 * i + 2)
        rgb(f"to_rgbs.{i}", f"synthesis.b{side}.torgb")
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        named[f"convs.{2 * i}.conv.blur.kernel"] = taps.outer(taps) / 16
        named[f"to_rgbs.{i}.upsample.kernel"] = taps.outer(taps) / 16
    return named


def test_rosinalitys_files_become_the_same_generator(net, w_plus):
    config, tensors = from_rosinality(rosinality_state(net))
    again = StyleGAN2Generator(**config)
    load_strict(again, tensors | {"mapping.w_avg": net.w_avg})
    assert torch.equal(again.synthesis(w_plus), net.synthesis(w_plus))
    z = sample_z(2, 0, 8)
    assert torch.equal(again.mapping(z), net.mapping(z))


def test_old_files_without_noise_get_planes_of_their_own(net, w_plus):
    state = {k: v for k, v in rosinality_state(net).items() if not k.startswith("noises.")}
    config, tensors = from_rosinality(state)
    again = StyleGAN2Generator(**config)
    load_strict(again, tensors | {"mapping.w_avg": net.w_avg})
    assert torch.equal(again.synthesis(w_plus, noise="none"), net.synthesis(w_plus, noise="none"))
    assert 0.5 < again.synthesis.b32.conv1.noise_const.std() < 1.5
    _, once_more = from_rosinality(state)
    assert torch.equal(
        once_more["synthesis.b8.conv0.noise_const"], tensors["synthesis.b8.conv0.noise_const"]
    )


def test_foreign_and_incomplete_files_are_named(net):
    state = rosinality_state(net)
    with pytest.raises(CheckpointError, match="no place") as caught:
        from_rosinality({**state, "convs.0.conv.extra": torch.zeros(1)})
    assert caught.value.unexpected == ("convs.0.conv.extra",)
    with pytest.raises(CheckpointError, match="no StyleGAN2 generator"):
        from_rosinality({"style.1.weight": torch.zeros(8, 8)})
    del state["convs.3.activate.bias"]
    config, tensors = from_rosinality(state)
    with pytest.raises(CheckpointError) as caught:
        load_strict(StyleGAN2Generator(**config), tensors | {"mapping.w_avg": net.w_avg})
    assert caught.value.missing == ("synthesis.b16.conv1.bias",)


def test_the_mean_of_w_is_estimated():
    made = make(8, mapping_depth=1, w_dim=4)
    w_avg = estimate_w_avg(made, 20_000)
    other = estimate_w_avg(made, 20_000, seed=1)
    torch.testing.assert_close(w_avg, other, atol=0.05, rtol=0)
    assert torch.equal(w_avg, estimate_w_avg(made, 20_000))


def test_it_meets_the_contract(net):
    img = net(sample_z(2, 0, 8))
    assert img.shape == (2, 3, 32, 32) and img.isfinite().all()
    w = net.mapping(sample_z(2, 0, 8))
    assert torch.equal(img, net.synthesis(broadcast(w, net.num_ws)))
