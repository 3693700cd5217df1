"""Identity network, feature taps, perceptual loss, encoder, discriminator: contracts and behaviour."""

import pytest
import torch

from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import load_strict, unfilled
from facestyle.models.discriminator import (
    ProjectedDiscriminator,
    discriminator_loss,
    generator_loss,
)
from facestyle.models.encoder import Encoder
from facestyle.models.features import (
    TAP_CHANNELS,
    TAP_STRIDES,
    LiteFeatures,
    PerceptualLoss,
    fold_batch_norm,
)
from facestyle.models.identity import face_chip, load_identity
from facestyle.models.zoo import load_base_generator


@pytest.fixture(scope="module")
def features() -> LiteFeatures:
    return LiteFeatures().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def people() -> torch.Tensor:
    """Two people who do not exist, 256 px, the second at half brightness too."""
    base = load_base_generator()
    with torch.inference_mode():
        z = torch.randn(2, 512, generator=torch.Generator().manual_seed(5))
        return base(z, resolution=256).clamp(-1, 1).clone()


def test_identity_knows_the_same_person_in_other_light(people):
    net = load_identity()
    darker = (people + 1) * 0.7 - 1
    a, b = net(people), net(darker)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(2))
    same, other = (a * b).sum(1), (a * b.flip(0)).sum(1)
    assert same.min() > 0.8
    assert other.max() < 0.4


def test_face_chip_looks_at_the_face():
    img = torch.zeros(1, 3, 256, 256)
    img[:, :, 35:223, 32:220] = 1
    assert face_chip(img).min() > 0.99
    assert face_chip(img).shape == (1, 3, 112, 112)


def test_taps_have_the_stated_shapes(features):
    maps = features(torch.zeros(2, 3, 64, 64))
    wanted = [(2, c, 64 // s, 64 // s) for c, s in zip(TAP_CHANNELS, TAP_STRIDES, strict=True)]
    assert [tuple(m.shape) for m in maps] == wanted


@pytest.mark.parametrize("side", [64, 97])
def test_lite0_is_timms(side):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, pretrained=False).eval()
    ours = LiteFeatures().eval()
    assert list(ours.net.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.net.state_dict())
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for a, b in zip(ours.net(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
        ours.train(), theirs.train()
        for a, b in zip(ours.net(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_unfilled_modules_draw_no_numbers_and_load_all_the_same():
    torch.manual_seed(0)
    wanted = Encoder(rows=1, w_dim=16, input_px=64, hidden=32)
    state = torch.get_rng_state()
    with unfilled():
        net = Encoder(rows=1, w_dim=16, input_px=64, hidden=32)
    assert torch.equal(torch.get_rng_state(), state)
    load_strict(net, wanted.state_dict())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, wanted.state_dict()[name]), name
    torch.nn.Linear(4, 4)  # outside the context numbers are drawn again
    assert not torch.equal(torch.get_rng_state(), state)


def test_infinities_are_found_and_large_numbers_are_not_taken_for_them():
    net = torch.nn.Linear(2, 2)
    load_strict(net, {"weight": torch.full((2, 2), 3e38), "bias": torch.zeros(2)})
    for bad in (float("inf"), float("-inf"), float("nan")):
        weight = torch.zeros(2, 2, dtype=torch.float16)
        weight[1, 0] = bad
        with pytest.raises(CheckpointError, match="NaN"):
            load_strict(net, {"weight": weight, "bias": torch.zeros(2)})


def test_folding_keeps_the_function():
    plain, folded = LiteFeatures().eval(), LiteFeatures().eval()
    fold_batch_norm(folded)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        for a, b in zip(plain(x), folded(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_perceptual_loss_orders_changes(features, people):
    loss = PerceptualLoss(features)
    shifted = (people + 0.02).clamp(-1, 1)
    assert loss(people, people).abs().max() < 1e-6
    slight, total = loss(people, shifted), loss(people, people.flip(0))
    assert (slight < 0.3 * total).all()
    torch.testing.assert_close(loss(people, shifted), loss(shifted, people))


def test_encoder_gives_w_or_rows_and_resizes():
    torch.manual_seed(0)
    net = Encoder(rows=1, w_dim=16, input_px=64, hidden=32).eval()
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 16)
    assert net(torch.zeros(1, 3, 200, 200)).shape == (1, 16)
    rows = Encoder(space="w_plus", rows=6, w_dim=16, input_px=64, hidden=32).eval()
    assert rows(torch.zeros(2, 3, 64, 64)).shape == (2, 6, 16)
    clone = Encoder(**rows.config())
    clone.load_state_dict(rows.state_dict())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(clone.eval()(x), rows(x))


def test_encoder_starts_at_its_start():
    net = Encoder(rows=1, w_dim=16, input_px=64, hidden=32).eval()
    torch.nn.init.zeros_(net.out.weight)
    torch.nn.init.zeros_(net.out.bias)
    net.start.copy_(torch.arange(16.0))
    torch.testing.assert_close(net(torch.zeros(1, 3, 64, 64))[0], torch.arange(16.0))


@pytest.mark.parametrize("arguments", [{"input_px": 100}, {"rows": 0}])
def test_encoder_refuses_what_cannot_be(arguments):
    with pytest.raises(ConfigError):
        Encoder(**arguments)


def test_hinge_losses_in_closed_form():
    sure = [torch.full((1, 1, 2, 2), 2.0)], [torch.full((1, 1, 2, 2), -2.0)]
    unsure = [torch.zeros(1, 1, 2, 2)], [torch.zeros(1, 1, 2, 2)]
    assert discriminator_loss(*sure) == 0
    assert discriminator_loss(*unsure) == 2
    assert discriminator_loss(sure[1], sure[0]) == 6  # real and fake swapped: worse
    assert generator_loss([torch.full((1, 1, 2, 2), 3.0), torch.ones(1, 1, 1, 1)]) == -4


def test_discriminator_learns_to_tell_two_sets_apart(features):
    torch.manual_seed(0)
    net = ProjectedDiscriminator(features)
    real = torch.rand(4, 3, 64, 64) * 2 - 1
    fake = real.mean((2, 3), keepdim=True).expand_as(real)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.0, 0.99))
    first = discriminator_loss(net(real), net(fake)).item()
    for _ in range(15):
        loss = discriminator_loss(net(real), net(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first
    assert len(net(real)) == 4
    assert not any(name.startswith("_features") for name in net.state_dict())
