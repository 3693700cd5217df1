"""pSp's encoder: published sizes, taps and pyramid."""

import pytest
import torch
import torch.nn.functional as F

from facestyle.errors import ConfigError
from facestyle.models.checkpoints import unfilled
from facestyle.models.psp_encoder import CodeHead, IrSe50, PspEncoder


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    net = PspEncoder(9, code_dim=8, input_px=32, widths=(2, 3, 4, 8), units=(1, 1, 2, 1))
    return net.eval().requires_grad_(False)


def test_sizes_are_the_published_ones():
    with unfilled():
        assert count(IrSe50()) == 30_950_080
        heads = [count(CodeHead(512, 512, side)) for side in (16, 32, 64)]
        assert heads == [9_701_888, 12_061_696, 14_421_504]
        assert count(IrSe50()) + heads[0] == 40_651_968
        assert count(PspEncoder()) == 267_136_704
        assert count(PspEncoder(1, space="w")) == 40_651_968


def test_names_are_those_of_the_public_checkpoints():
    with unfilled():
        names = PspEncoder().state_dict().keys()
    for name in (
        "input_layer.0.weight", "input_layer.1.running_var", "input_layer.2.weight",
        "body.0.res_layer.0.weight", "body.3.shortcut_layer.0.weight",
        "body.3.shortcut_layer.1.bias", "body.23.res_layer.5.fc2.weight",
        "styles.0.convs.6.weight", "styles.3.convs.8.bias", "styles.17.convs.10.weight",
        "styles.17.linear.bias", "latlayer1.bias", "latlayer2.weight",
    ):  # fmt: skip
        assert name in names
    assert "body.0.shortcut_layer.0.weight" not in names  # 64 to 64 channels: a strided view
    assert not any(name.startswith(("body.24", "styles.18", "styles.0.convs.8")) for name in names)


def test_maps_have_the_pyramids_strides():
    torch.manual_seed(0)
    trunk = IrSe50((2, 3, 4, 8)).eval()
    assert trunk.taps == [6, 20, 23]
    shapes = [tuple(x.shape) for x in trunk.maps(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(1, 3, 16, 16), (1, 4, 8, 8), (1, 8, 4, 4)]


def test_rows_are_read_from_their_maps(tiny):
    img = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = tiny(img)
    assert codes.shape == (2, 9, 8)
    c1, c2, c3 = tiny.maps(img)
    p2 = F.interpolate(c3, size=4, mode="bilinear", align_corners=True) + tiny.latlayer1(c2)
    p1 = F.interpolate(p2, size=8, mode="bilinear", align_corners=True) + tiny.latlayer2(c1)
    for row, x in ((0, c3), (2, c3), (3, p2), (6, p2), (7, p1), (8, p1)):
        torch.testing.assert_close(codes[:, row], tiny.styles[row](x))


def test_codes_start_where_they_are_told(tiny):
    img = torch.zeros(1, 3, 32, 32)
    before = tiny(img)
    tiny.start.fill_(2.0)
    torch.testing.assert_close(tiny(img), before + 2)
    tiny.start.zero_()


def test_configs_build_the_same_network_again(tiny):
    again = PspEncoder(**tiny.config()).eval()
    again.load_state_dict(tiny.state_dict())
    img = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(img), tiny(img))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 7},
        {"code_dim": 256},
        {"input_px": 48},
        {"input_px": 16},
        {"rows": 1},
        {"space": "w"},
        {"space": "v"},
    ],
)
def test_sizes_are_checked(wrong):
    with pytest.raises(ConfigError):
        PspEncoder(**wrong)
