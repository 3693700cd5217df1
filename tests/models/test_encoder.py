"""Encoders into W, W+ and Z+: shapes, where they start, and the way to w_plus."""

import pytest
import torch

from facestyle.errors import ConfigError, LatentShapeError
from facestyle.latents import broadcast
from facestyle.models.encode import corrected, encode, preview_of
from facestyle.models.encoder import Encoder, to_w_plus
from facestyle.models.mobile import MobileGenerator

SMALL = {"w_dim": 16, "input_px": 64, "hidden": 32, "row_channels": 8}


@pytest.fixture(scope="module")
def generator() -> MobileGenerator:
    torch.manual_seed(0)
    return MobileGenerator((8, 8, 8), w_dim=16, mapping_depth=2, preview_resolution=16).eval()


def test_a_w_plus_encoder_starts_as_one_code_for_all_rows():
    torch.manual_seed(0)
    net = Encoder(space="w_plus", rows=6, **SMALL).eval()
    codes = net(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert codes.shape == (2, 6, 16)
    assert torch.equal(codes, codes[:, :1].expand(-1, 6, -1))
    torch.nn.init.normal_(net.by_row[-1].weight)
    codes = net(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert codes.std(1).min() > 0


def test_rows_of_z_plus_lie_on_the_sphere_of_normal_z():
    torch.manual_seed(0)
    net = Encoder(space="z_plus", rows=6, **SMALL).eval()
    codes = net(torch.rand(2, 3, 64, 64) * 2 - 1)
    torch.testing.assert_close(codes.norm(dim=2), torch.full((2, 6), 4.0))


def test_every_space_leads_to_w_plus(generator):
    w = torch.randn(2, 16)
    assert torch.equal(to_w_plus(w, "w", generator), broadcast(w, 6))
    rows = torch.randn(2, 6, 16)
    assert torch.equal(to_w_plus(rows, "w_plus", generator), rows)
    mapped = to_w_plus(rows, "z_plus", generator)
    for row in range(6):  # each row through the mapping network by itself
        torch.testing.assert_close(mapped[:, row], generator.mapping(rows[:, row]))


def test_codes_that_do_not_fit_are_refused(generator):
    with pytest.raises(LatentShapeError):
        to_w_plus(torch.randn(2, 5, 16), "w_plus", generator)
    with pytest.raises(LatentShapeError, match="z_plus"):
        to_w_plus(torch.randn(2, 16), "z_plus", generator)


@pytest.mark.parametrize(
    "arguments", [{"space": "w", "rows": 6}, {"space": "z"}, {"space": "w_plus", "rows": 0}]
)
def test_rows_must_go_with_the_space(arguments):
    with pytest.raises(ConfigError):
        Encoder(**SMALL, **arguments)


@pytest.mark.parametrize(("space", "rows"), [("w", 1), ("w_plus", 6), ("z_plus", 6)])
def test_a_correction_starts_as_a_step_along_the_difference_of_codes(generator, space, rows):
    torch.manual_seed(0)
    net = Encoder(space=space, rows=rows, corrections=2, **SMALL).eval().requires_grad_(False)
    torch.nn.init.normal_(net.out.weight)
    img = torch.rand(2, 3, 64, 64) * 2 - 1
    pictures = []

    def draw(w_plus):
        pictures.append(generator.synthesis(w_plus, resolution=16).clamp(-1, 1))
        return pictures[-1]

    found = encode(net, img, generator, draw)
    assert len(pictures) == 2
    first, codes = net(img), net(img)
    gain = net.corrector.gain
    for picture in pictures:
        wanted, seen = net._raw(net.look(img)), net._raw(net.look(picture))
        codes = codes + gain * (wanted - seen)
        if space == "z_plus":
            codes = torch.nn.functional.normalize(codes, dim=2) * 4
    torch.testing.assert_close(found, codes)
    assert (found - first).abs().max() > 1e-3
    assert torch.equal(encode(net, img, generator), found)  # G's preview path by itself


def test_a_learned_correction_counts(generator):
    torch.manual_seed(0)
    net = Encoder(corrections=1, **SMALL).eval().requires_grad_(False)
    img = torch.rand(2, 3, 64, 64) * 2 - 1
    before = encode(net, img, generator)
    torch.nn.init.normal_(net.corrector.out.weight)
    assert (encode(net, img, generator) - before).abs().max() > 1e-2


def test_gradients_are_those_of_the_last_correction(generator):
    torch.manual_seed(0)
    net = Encoder(corrections=1, **SMALL)
    img = torch.rand(2, 3, 64, 64) * 2 - 1
    corrected(net, img, lambda w: preview_of(generator)(broadcast(w, 6)), 1).sum().backward()
    assert net.corrector.out.weight.grad.abs().sum() > 0
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.trunk.parameters())
    net.zero_grad(set_to_none=True)
    corrected(net, img, lambda w: preview_of(generator)(broadcast(w, 6)), 0).sum().backward()
    assert net.corrector.out.weight.grad is None and net.out.weight.grad.abs().sum() > 0


def test_an_encoder_without_corrections_makes_none():
    net = Encoder(**SMALL).eval()
    seen = net.look(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="corrections"):
        net.correct(torch.zeros(1, 16), seen, seen)
    with pytest.raises(ConfigError, match="corrections"):
        Encoder(corrections=-1, **SMALL)
