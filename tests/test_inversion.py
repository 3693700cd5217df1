"""The search for codes: what comes of pictures that cannot be compared. What it finds is tested with who searches."""

import pytest
import torch

from facestyle import inversion
from facestyle.errors import FacestyleError
from facestyle.inversion import Inverter, ReconstructionLoss


@pytest.fixture
def search(tiny_stylizer):
    """The codes found for two photos from the mean, one of which has been changed."""
    base = tiny_stylizer.base
    inverter = Inverter(base)
    photos = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def found(steps, *, photo=0.0, start=0.0):
        changed = photos.clone()
        changed[1] += photo
        starts = base.w_avg.repeat(2, 1)
        starts[1] += start
        return inverter.search(changed, starts, steps)

    return found


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(
    "wrong", [{"photo": float("nan")}, {"start": float("nan")}, {"start": float("inf")}]
)
def test_a_photo_that_cannot_be_compared_is_told_of(search, steps, wrong):
    with pytest.raises(FacestyleError, match=r"no code for 1 of 2 photos.*float32"):
        search(steps, **wrong)


def test_steps_that_lead_astray_leave_the_best_code_met(search, monkeypatch):
    def astray(variables, *_, **__):
        variables[0].fill_(torch.nan)

    wanted = search(0)
    monkeypatch.setattr(inversion, "adam", astray)
    assert torch.equal(search(2).w_plus, wanted.w_plus)


def test_the_mouth_counts_where_mouths_are():
    loss, plain = ReconstructionLoss(mouth_weight=0.7), ReconstructionLoss()
    rng = torch.Generator().manual_seed(0)
    photo = torch.rand(1, 3, 256, 256, generator=rng) * 2 - 1
    spot = torch.rand(1, 3, 32, 48, generator=rng) * 2 - 1
    target = loss.target(photo)

    def added(top: int) -> float:
        img = photo.clone()
        img[:, :, top : top + 32, 104:152] = spot
        parts = loss.parts(img, target)
        without = plain.total(plain.parts(img, target))
        torch.testing.assert_close(loss.total(parts), without + 0.7 * parts["mouth"])
        return parts["mouth"].item()

    mouth, forehead = added(172), added(30)
    assert mouth > 20 * forehead and mouth > 0.01
    assert "mouth" not in plain.parts(photo, target)


def test_steps_are_those_of_torchs_optimizer():
    start, rates = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), (0.1, 0.2, 0.05)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    stepper = inversion._Adam([ours], (0.5, 0.9))
    optimizer = torch.optim.Adam([theirs], betas=(0.5, 0.9))
    for rate in rates:
        stepper.step(ours.pow(4).sum(), rate)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        theirs.pow(4).sum().backward()
        optimizer.step()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)
