"""Codes: broadcast, truncation, mixing; closed forms."""

import pytest
import torch

from facestyle.errors import ConfigError, LatentShapeError
from facestyle.latents import broadcast, style_mix, truncate

W = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
V = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))


def test_broadcast_repeats_w_and_passes_w_plus():
    rows = broadcast(W[:, 0], 6)
    assert rows.shape == (2, 6, 8)
    assert torch.equal(rows, W[:, :1].expand(-1, 6, -1))
    assert torch.equal(broadcast(W, 6), W)


@pytest.mark.parametrize("shape", [(8,), (2, 5, 8), (1, 2, 6, 8)])
def test_broadcast_names_other_shapes(shape):
    with pytest.raises(LatentShapeError, match="6"):
        broadcast(torch.zeros(shape), 6)


def test_truncation_ends():
    mean = V[0, 0]
    assert torch.equal(truncate(W, mean, 1), W)
    torch.testing.assert_close(truncate(W, mean, 0), mean.expand_as(W))
    torch.testing.assert_close(truncate(W, mean, 0.25) - mean, 0.25 * (W - mean))
    with pytest.raises(LatentShapeError):
        truncate(W, torch.zeros(9), 0.5)


def test_mixing_takes_coarse_rows_from_the_content():
    assert torch.equal(style_mix(W, V, 0), V)
    assert torch.equal(style_mix(W, V, 6), W)
    assert torch.equal(style_mix(W, V, 99), W)
    mixed = style_mix(W, V, 2)
    assert torch.equal(mixed[:, :2], W[:, :2])
    assert torch.equal(mixed[:, 2:], V[:, 2:])
    with pytest.raises(ConfigError):
        style_mix(W, V, -1)
    with pytest.raises(LatentShapeError):
        style_mix(W, V[:1], 2)
