"""StyleGAN2 as it is drawn on a CPU, against the plain arithmetic and against the network it was made of."""

import copy
import gc
import weakref

import pytest
import torch

from facestyle.drawing import synthesis_at
from facestyle.errors import ConfigError, LatentShapeError
from facestyle.models import settled_stylegan2
from facestyle.models.mobile import MobileGenerator, MobileSynthesis
from facestyle.models.settled import SettledSynthesis
from facestyle.models.settled_stylegan2 import SettledStyleGAN2
from facestyle.models.stylegan2_generator import StyleGAN2Generator, StyleGAN2Synthesis
from facestyle.testing.plain_stylegan2 import plain_synthesis


@pytest.fixture(scope="module")
def generator():
    """Wide where it is small and narrow where it is large, so that every layer's sizes differ."""
    torch.manual_seed(0)
    net = StyleGAN2Generator(128, w_dim=8, channel_base=1024, channel_max=24, mapping_depth=1)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                p.normal_()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def w_plus(generator):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, generator.num_ws, 8, generator=rng)


@pytest.fixture(scope="module")
def plain(generator, w_plus):
    return plain_synthesis(generator.synthesis.state_dict(), w_plus)


def test_the_network_draws_what_the_plain_arithmetic_does(generator, w_plus, plain):
    torch.testing.assert_close(generator.synthesis(w_plus), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("paired", [0, 16, 64])  # in no layer, in some, in all
@pytest.mark.parametrize("floats", [1, 20_000, 60_000, 1 << 22])
def test_strips_of_any_height_give_the_same_picture(
    generator, w_plus, plain, floats, paired, monkeypatch
):
    monkeypatch.setattr(settled_stylegan2, "_STRIP_FLOATS", floats)
    monkeypatch.setattr(settled_stylegan2, "_PAIRED", paired)
    drawn = SettledStyleGAN2(generator.synthesis)(w_plus)
    torch.testing.assert_close(drawn, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("resolution", [4, 8, 64, None])
def test_noise_and_earlier_blocks(generator, w_plus, noise, resolution):
    settled = SettledStyleGAN2(generator.synthesis)
    asked = {"noise": noise, "resolution": resolution}
    wanted = generator.synthesis(w_plus, **asked)
    torch.testing.assert_close(settled(w_plus, **asked), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "made",
    [
        lambda: SettledStyleGAN2(copy.deepcopy(StyleGAN2Generator(8, w_dim=8).synthesis)),
        lambda: SettledSynthesis(
            MobileGenerator((8, 8, 8), w_dim=8, preview_resolution=16).synthesis
        ),
    ],
)
def test_the_network_that_it_was_made_of_is_let_go(made, monkeypatch):
    plain = []
    for kind in (StyleGAN2Synthesis, MobileSynthesis):
        begin = kind.__init__
        monkeypatch.setattr(
            kind, "__init__",
            lambda own, *given, begin=begin, **more: plain.append(weakref.ref(own)) or begin(own, *given, **more),
        )  # fmt: skip
    settled = made()
    gc.collect()
    assert plain and all(ref() is None for ref in plain)
    with pytest.raises(LatentShapeError):
        settled(torch.zeros(1, 1, 8))


def test_weights_are_copied_and_stay_as_they_are(generator, w_plus):
    settled = SettledStyleGAN2(generator.synthesis)
    state = {name: tensor.clone() for name, tensor in settled.state_dict().items()}
    first = settled(w_plus)
    assert torch.equal(settled(w_plus), first)
    assert all(torch.equal(state[name], t) for name, t in settled.state_dict().items())
    assert not any(p.requires_grad for p in settled.parameters())
    changed = StyleGAN2Generator(**generator.config())
    other = SettledStyleGAN2(changed.synthesis)
    changed.synthesis.const.data.zero_()
    assert other.const.any()


def test_bfloat16_is_the_same_picture_more_coarsely(generator, w_plus):
    """The colours are float32 all the same; features have 8 bits."""
    wanted = generator.synthesis(w_plus)
    drawn = SettledStyleGAN2(generator.synthesis).to(torch.bfloat16)(w_plus.bfloat16())
    assert drawn.dtype == torch.float32
    assert (drawn - wanted).square().mean().sqrt() < 0.02 * wanted.std()


def test_requests_it_cannot_draw(generator, w_plus):
    settled = SettledStyleGAN2(generator.synthesis)
    with pytest.raises(LatentShapeError, match="expected w_plus"):
        settled(w_plus[:, 1:])
    with pytest.raises(ConfigError, match="not 100"):
        settled(w_plus, resolution=100)


def test_portraits_are_drawn_by_it_at_any_strength(generator, w_plus):
    torch.manual_seed(5)
    style = StyleGAN2Generator(**generator.config()).eval().requires_grad_(False)
    network = synthesis_at(0.5, style, generator, torch.float32)
    assert isinstance(network, SettledStyleGAN2)
    between = StyleGAN2Generator(**generator.config()).requires_grad_(False)
    between.load_state_dict(
        {
            name: torch.lerp(tensor, style.state_dict()[name], 0.5)
            for name, tensor in generator.state_dict().items()
        }
    )
    torch.testing.assert_close(network(w_plus), between.synthesis(w_plus), rtol=1e-4, atol=1e-4)


def test_networks_made_in_inference_mode_are_ordinary_ones(generator):
    with torch.inference_mode():
        network = synthesis_at(0.5, generator, generator, torch.float32, seed=1)
    tensors = [*network.parameters(), *network.buffers()]
    assert tensors and not any(t.is_inference() or t.requires_grad for t in tensors)
