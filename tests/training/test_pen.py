"""What a pen and flat colours leave: locks along strands, few tones, dark lines; grain goes, borders stay."""

import pytest
import torch

from facestyle.training.pen import flowing, in_tones, outlined, smoothed


def stripes(angle, side=96, noise=0.0):
    """[1, 3, side, side], soft stripes in a direction, with grain."""
    at = torch.arange(side) / side
    turn = torch.tensor(angle)
    wave = torch.sin(60 * (at[None] * turn.sin() - at[:, None] * turn.cos()))
    grain = noise * torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    return (0.5 * wave + grain).expand(1, 3, -1, -1).contiguous()


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5708, 2.5])
def test_strands_are_smoothed_along_and_sharp_across(angle):
    clean, noisy = stripes(angle), stripes(angle, noise=0.25)
    inner = (..., slice(12, -12), slice(12, -12))
    kept, drawn = clean[inner], flowing(noisy, 0.05)[inner]
    assert torch.corrcoef(torch.stack([drawn.flatten(), kept.flatten()]))[0, 1] > 0.9
    # Steps along the stripes have gone, and stripes have sharp borders: little of them is between light and dark.
    if angle == 0:
        assert drawn.diff(dim=-1).std() < 0.2 * noisy[inner].diff(dim=-1).std()
    steep = flowing(clean, 0.05)[inner]
    assert (steep.abs() < 0.2).float().mean() < 0.5 * (kept.abs() < 0.2).float().mean()


def test_plain_grounds_and_straight_borders_stay():
    halves = torch.full((2, 3, 64, 48), 0.4)
    halves[..., 24:] = -0.6
    assert torch.allclose(flowing(halves, 0.03), halves, atol=0.03)
    assert flowing(halves, 0) is halves


def test_light_falls_into_tones_and_hue_stays():
    ramp = torch.linspace(-1, 1, 4001).view(1, 1, 1, -1) * torch.ones(1, 3, 1, 1)
    drawn = in_tones(ramp, 4)
    light = (drawn[0, 0, 0] + 1) / 2
    away = (light[:, None] - torch.linspace(0, 1, 5)).abs().amin(1)
    assert away.mean() < 0.045  # 0.0625 of the ramp itself
    assert (drawn - ramp).abs().max() < 0.25 and (light.diff() > 0).all()
    brown = torch.tensor([0.3, -0.2, -0.6]).view(1, 3, 1, 1).expand(-1, -1, 4, 4)
    parts = (in_tones(brown, 4)[0, :, 0, 0] + 1) / (brown[0, :, 0, 0] + 1)
    assert parts.std() < 1e-5 and (parts[0] - 1).abs() > 0.01
    assert in_tones(brown, 0) is brown


def test_a_pen_draws_along_borders():
    halves = torch.full((1, 3, 256, 256), 0.5)
    halves[..., 128:] = -0.2
    drawn = outlined(halves, 1)
    assert torch.equal(outlined(halves, 0), halves)
    assert drawn[..., 128].max() < -0.4  # the dark side of the border
    for place in (slice(0, 127), slice(136, 256)):
        assert torch.allclose(drawn[..., place], halves[..., place], atol=0.02)
    assert torch.allclose(outlined(halves, 0.5), (halves + drawn) / 2, atol=1e-6)


def test_grain_goes_and_features_stay():
    face = torch.full((1, 3, 128, 128), 0.4)
    face[..., 40:80, 40:80] = -0.8
    grain = 0.03 * torch.randn(face.shape, generator=torch.Generator().manual_seed(0))
    calm = smoothed(face + grain, 0.06)
    plain = (..., slice(90, None), slice(90, None))
    assert calm[plain].std() < 0.4 * (face + grain)[plain].std()
    assert (calm[..., 60, 38] - calm[..., 60, 42]).mean() > 1.1  # of 1.2
    assert smoothed(face, 0) is face
