"""UI2I-style: content up to the swap, style above it."""

import pytest
import torch
from PIL import Image

from facestyle.baselines import ui2i
from facestyle.baselines.toonify import own_parameters
from facestyle.baselines.ui2i import Ui2i, Ui2iConfig
from facestyle.errors import ConfigError
from facestyle.latents import broadcast
from facestyle.models.generator import sample_z
from facestyle.models.stylegan2_generator import StyleGAN2Generator


def codes(tiny):
    w = tiny.mapping(sample_z(4, 7, 8))
    return w[:2], w[2:]


def test_a_swap_past_the_last_block_is_the_contents_picture(tiny, star_run):
    content, style = codes(tiny)
    method = Ui2i(tiny, Ui2iConfig(swap_layer=7)).load(star_run)
    img = method.mix(content, style)
    expected = tiny.synthesis(broadcast(content, tiny.num_ws)).clamp(-1, 1)
    assert torch.equal(img, expected)
    with pytest.raises(ConfigError, match="at most 7"):
        Ui2i(tiny, Ui2iConfig(swap_layer=9))


@pytest.mark.parametrize("layer", [1, 3, 5])
def test_features_up_to_the_swap_are_the_contents_and_no_further(tiny, star_run, layer):
    content, style = codes(tiny)
    method = Ui2i(tiny, Ui2iConfig(swap_layer=layer)).load(star_run)
    block = layer // 2
    features = {}

    def listen(net, key):
        return [
            module.register_forward_hook(
                lambda _m, _a, out, i=i: features.__setitem__((key, i), out.clone())
            )
            for i, module in enumerate(net.synthesis.blocks)
        ]

    hooks = listen(method.swapped, "swapped") + listen(tiny, "content")
    img = method.mix(content, style)
    own = tiny.synthesis(broadcast(content, tiny.num_ws)).clamp(-1, 1)
    for hook in hooks:
        hook.remove()
    for i in range(len(tiny.synthesis.blocks)):
        is_same = torch.equal(features["swapped", i], features["content", i])
        assert is_same == (i <= block)
    assert (img - own).abs().max() > 1e-3


def test_the_style_code_rules_above_the_swap_only(tiny, star_run):
    content, style = codes(tiny)
    method = Ui2i(tiny, Ui2iConfig(swap_layer=3)).load(star_run)
    img = method.mix(content, style)
    assert not torch.equal(img, method.mix(content, style.flip(0)))
    assert not torch.equal(img, method.mix(content.flip(0), style))


def stylegan2(seed):
    torch.manual_seed(seed)
    net = StyleGAN2Generator(32, w_dim=8, channel_base=256, channel_max=8, mapping_depth=2)
    with torch.no_grad():
        for name, parameter in net.synthesis.named_parameters():
            parameter.normal_(std=0.02 if name.endswith(("torgb.weight", "torgb.bias")) else 1)
    return net.eval().requires_grad_(False)


def drawn_layer_by_layer(base, star, content, style, swap_px):
    """A StyleGAN2's picture: G* draws, in whose block of ``swap_px`` the last features are those of G."""
    features = {net: net.synthesis.const.expand(len(content), -1, -1, -1) for net in (base, star)}
    img = None
    for side in (4, 8, 16, 32):
        for net in (base, star):
            block = net.synthesis.get_submodule(f"b{side}")
            for conv in [block.conv1] if side == 4 else [block.conv0, block.conv1]:
                code = content if side <= swap_px else style
                features[net] = conv(features[net], code, "const")
        if side == swap_px:
            features[star] = features[base]
        head = star.synthesis.get_submodule(f"b{side}").torgb
        color = head(features[star], content if side < swap_px else style)
        img = color if img is None else star.synthesis._doubled(img) + color
    return img.clamp(-1, 1)


@pytest.mark.parametrize(("layer", "swap_px"), [(1, 8), (3, 16), (5, 32)])
def test_a_stylegan2_of_the_style_gets_the_contents_features_and_keeps_its_heads(
    layer, swap_px, tmp_path, monkeypatch
):
    base, star = stylegan2(0), stylegan2(1)
    monkeypatch.setattr(ui2i, "load_star", lambda *_: star)
    content, style = codes(base)
    method = Ui2i(base, Ui2iConfig(swap_layer=layer)).load(tmp_path)
    img = method.mix(content, style)
    expected = drawn_layer_by_layer(base, star, content, style, swap_px)
    assert 0.01 < expected.std() < 0.5
    torch.testing.assert_close(img, expected)
    assert not torch.allclose(img, method.mix(content.flip(0), style))
    mapping = sum(p.numel() for p in base.mapping.parameters())
    assert method.parameters == own_parameters(base, star) + mapping


def test_random_codes_belong_to_a_crops_number_and_are_truncated(tiny):
    method = Ui2i(tiny, Ui2iConfig(seed=3))
    together = method.style_codes(4)
    torch.testing.assert_close(together[2:], method.style_codes(2, first=2))
    assert not torch.allclose(together[0], together[1])
    full = Ui2i(tiny, Ui2iConfig(seed=3, psi=1.0)).style_codes(4)
    torch.testing.assert_close(together, (full + tiny.w_avg) / 2)
    mean = Ui2i(tiny, Ui2iConfig(psi=0.0)).style_codes(1)
    torch.testing.assert_close(mean[0], tiny.w_avg)


def test_a_reference_is_found_in_the_styles_generator_and_serves_every_crop(
    tiny, star_run, crops, tmp_path
):
    with torch.no_grad():
        swapped_all = Ui2i(tiny, Ui2iConfig(swap_layer=1)).load(star_run).swapped
        w = tiny.w_avg + torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
        shown = swapped_all.synthesis(broadcast(w, tiny.num_ws))[0].clamp(-1, 1)
    levels = ((shown + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(tmp_path / "ref.png")
    config = Ui2iConfig(steps=4, reference=str(tmp_path / "ref.png"))
    method = Ui2i(tiny, config).load(star_run)
    assert not torch.allclose(method.reference[0], tiny.w_avg)
    style = method.style_codes(3)
    assert torch.equal(style[0], style[2]) and torch.equal(style[0], method.reference[0])
    img = method.stylize(crops)
    assert img.shape == (2, 3, 64, 64)
    assert img.abs().max() <= 1
    random = Ui2i(tiny, Ui2iConfig(steps=4)).load(star_run)
    assert random.parameters - method.parameters == sum(
        p.numel() for p in tiny.mapping.parameters()
    )


def test_the_contents_code_comes_closer_to_the_photo(tiny, star_run):
    torch.manual_seed(3)
    w = tiny.w_avg + torch.randn(1, 8)
    photo = tiny.synthesis(broadcast(w, tiny.num_ws), resolution=32).clamp(-1, 1)
    method = Ui2i(tiny, Ui2iConfig(steps=40, lr=0.4, swap_layer=7)).load(star_run)
    full = tiny.synthesis(broadcast(w, tiny.num_ws)).clamp(-1, 1)
    far = (tiny.synthesis(tiny.w_avg.expand(1, 8, -1)).clamp(-1, 1) - full).abs().mean()
    assert (method.stylize(photo) - full).abs().mean() < 0.7 * far


@pytest.mark.parametrize("wrong", [{"swap_layer": 2}, {"swap_layer": -1}, {"steps": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        Ui2iConfig(**wrong)
