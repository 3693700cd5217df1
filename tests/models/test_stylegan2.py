"""StyleGAN2's discriminator: config f's size, its spread over a group, and R1."""

import pytest
import torch
import torch.nn.functional as F

from facestyle.errors import ConfigError
from facestyle.models.discriminator import (
    ProjectedDiscriminator,
    StyleGAN2Discriminator,
    make_adversary,
)
from facestyle.models.features import LiteFeatures
from facestyle.models.stylegan2 import StyleGAN2Critic


@pytest.mark.parametrize(
    ("resolution", "base", "expected"),
    [
        (1024, 32_768, 29_012_513), (256, 32_768, 28_864_129), (64, 32_768, 26_488_833),
        (1024, 16_384, 24_038_161), (256, 16_384, 24_001_089), (64, 16_384, 23_407_361),
    ],
)  # fmt: skip
def test_discriminators_have_their_published_sizes(resolution, base, expected):
    with torch.device("meta"):
        net = StyleGAN2Critic(resolution, channel_base=base)
        again = StyleGAN2Critic(**net.config())
    for made in (net, again):
        assert sum(p.numel() for p in made.parameters()) == expected


def test_pictures_in_logits_out_for_any_batch():
    net = StyleGAN2Critic(16, width=1 / 16)
    for batch in (1, 3, 4, 6):
        assert net(torch.zeros(batch, 3, 16, 16)).shape == (batch, 1)
    with pytest.raises(ConfigError):
        StyleGAN2Critic(48)


def test_the_spread_is_the_standard_deviation_over_the_group():
    net = StyleGAN2Critic(8, width=1 / 64)
    x = torch.zeros(4, 8, 4, 4)
    x[:2] = 3.0
    maps = net._with_spread(x)
    assert maps.shape == (4, 9, 4, 4)
    torch.testing.assert_close(maps[:, 8], torch.full((4, 4, 4), 1.5))
    assert net._with_spread(x[:1])[:, 8].abs().max() < 1e-3  # a single picture has no spread


def test_r1_is_the_squared_slope_times_its_weight():
    class Linear(torch.nn.Module):
        def forward(self, img):
            return 2.0 * img.sum((1, 2, 3)).unsqueeze(1)

    judge = StyleGAN2Discriminator(8, width=1 / 64, r1_every=16)
    judge.net = Linear()
    real, fake = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    plain = judge.discriminator_loss(real, fake, 1)
    torch.testing.assert_close(plain, 2 * F.softplus(torch.zeros(())))
    slope = 4.0 * 3 * 64  # squared norm of the slope: every value counts 2
    gamma = 0.0002 * 64 / 2
    lazy = judge.discriminator_loss(real, fake, 16)
    torch.testing.assert_close(lazy - plain, torch.tensor(gamma / 2 * 16 * slope))


@pytest.mark.parametrize("kind", ["projected", "stylegan2"])
def test_either_learns_to_tell_two_sets_apart(kind):
    torch.manual_seed(0)
    features = LiteFeatures().eval().requires_grad_(False)
    judge = make_adversary(kind, features, 32, 1 / 16)
    optimizer = torch.optim.Adam(judge.parameters(), lr=2e-3, betas=(0.0, 0.99))
    real, fake = torch.rand(4, 3, 32, 32), -torch.rand(4, 3, 32, 32)
    losses = []
    for step in range(1, 13):
        loss = judge.discriminator_loss(real, fake, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert judge.generator_loss(fake) > judge.generator_loss(real)


def test_an_unknown_kind_is_named():
    features = LiteFeatures(pretrained=False)
    assert isinstance(make_adversary("projected", features, 64), ProjectedDiscriminator)
    with pytest.raises(ConfigError, match="vgg"):
        make_adversary("vgg", features, 64)
