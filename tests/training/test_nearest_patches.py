"""The nearest-patch loss finds what is there, near its place, and no further."""

import json
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from facestyle.latents import broadcast
from facestyle.models.features import LiteFeatures, fold_batch_norm
from facestyle.training.data import PictureSet
from facestyle.training.finetune import finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.nearest_patches import NearestPatches, darker, nearest_in_window


@pytest.fixture(scope="module")
def features() -> LiteFeatures:
    return fold_batch_norm(LiteFeatures().eval()).requires_grad_(False)


@pytest.fixture(scope="module")
def scenes() -> torch.Tensor:
    """Four pictures of coloured blocks [4, 3, 128, 128]."""
    rng = torch.Generator().manual_seed(0)
    blocks = torch.rand(4, 3, 8, 8, generator=rng) * 2 - 1
    return F.interpolate(blocks, size=128, mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize(("reach", "step"), [(0, 1), (2, 1), (4, 2)])
def test_the_nearest_in_the_window_is_what_a_search_finds(reach, step):
    rng = torch.Generator().manual_seed(1)
    wanted = torch.randn(2, 3, 5, 6, generator=rng)
    bank = torch.randn(4, 3, 5, 6, generator=rng)
    found = nearest_in_window(wanted, bank, reach, step)
    for b in range(2):
        for y in range(5):
            for x in range(6):
                places = [
                    bank[k, :, min(max(y + i, 0), 4), min(max(x + j, 0), 5)]
                    for k in range(4)
                    for i in range(-reach, reach + 1, step)
                    for j in range(-reach, reach + 1, step)
                ]
                best = max(places, key=lambda place: float(place @ wanted[b, :, y, x]))
                assert torch.equal(found[b, :, y, x], best)


def test_the_loss_is_nothing_for_the_set_itself_and_grows_with_the_distance(features, scenes):
    patches = NearestPatches(features, [scenes[:2], scenes[2:]])
    with torch.no_grad():
        same = patches(scenes, range(4))
        other = patches(scenes[:1], [1, 2, 3])
        near = patches(scenes[:1].roll(8, -1), [0])
        far = patches(scenes[:1].roll(64, -1), [0])
        mirrored = patches(scenes[:1].flip(-1), [0], mirrored=True)
        turned = patches(scenes[:1].flip(-1), [0])
    assert same.shape == (4,) and same.abs().max() < 1e-3  # the set is kept in half precision
    assert other > 0.1
    assert 0 < near < far / 2
    assert mirrored < turned / 2


def test_its_slope_leads_a_picture_towards_the_set(features, scenes):
    patches = NearestPatches(features, [scenes[1:]])
    img = scenes[:1].clone().requires_grad_(True)
    optimizer = torch.optim.Adam([img], lr=0.02)
    losses = []
    for _ in range(15):
        loss = patches(img, range(3)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    assert all(b < a for a, b in pairwise(losses[1:]))  # Adam's first step may be too wide


def test_places_that_the_set_does_not_show_do_not_count(features, scenes):
    coverage = torch.zeros(1, 128, 128)
    coverage[:, :, :64] = 1
    patches = NearestPatches(features, [scenes[:1]], coverage)
    everywhere = NearestPatches(features, [scenes[:1]])
    img = scenes[:1].clone().requires_grad_(True)
    right = scenes[:1].clone()
    right[..., 112:] *= -1  # maps see further than their cells
    left = scenes[:1].flip(-1)
    left[..., 64:] = scenes[:1, :, :, 64:]
    assert patches(right, [0]).item() < 0.1 * everywhere(right, [0]).item()
    assert patches(left, [0]).item() > everywhere(left, [0]).item()
    patches(img + 0.1 * torch.randn(img.shape), [0]).sum().backward()
    assert img.grad[..., :64].abs().mean() > 3 * img.grad[..., 64:].abs().mean()


def test_darker_pictures_keep_their_shape_and_range():
    img = torch.rand(200, 3, 2, 2) * 2 - 1
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(darker(img, 0.0, rng), img)
    dark = darker(img, 1.0, rng)
    assert dark.shape == img.shape and dark.min() >= -1
    light, left = (img + 1).mean((2, 3)), (dark + 1).mean((2, 3))
    assert (left < light).all()
    gains = left / light
    assert (gains[:, 0] > gains[:, 1]).all() and (gains[:, 1] > gains[:, 2]).all()
    assert gains[:, 1].min() > 0.28 and gains[:, 1].max() < 0.92
    some = (darker(img, 0.5, rng) != img).flatten(1).any(1).float().mean()
    assert 0.35 < some < 0.65


def rows_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def soften(img):
    """As training does: the preview's finest scale is left out."""
    return F.interpolate(F.avg_pool2d(img, 2), scale_factor=2, mode="bilinear")


def test_finetuning_by_nearest_patches_alone_comes_nearer_to_the_set(tiny, folder, tmp_path):
    config = FinetuneConfig(
        coarse_steps=60, coarse_batch=4, coarse_lr=2e-2, full_steps=0, adversarial_weight=0,
        sem_weight=0, pair_weight=0, patch_weight=1, patch_pictures=6, patch_tones=0.25,
        ema_half_life_nimg=20, replace_background="no", preview_every=20,
    )  # fmt: skip
    whole = finetune(tiny, folder, tmp_path / "whole", config, progress=False)
    rows = rows_of(tmp_path / "whole")
    assert "patch" in rows[0] and not {"adv", "sem"} & rows[0].keys()
    again = finetune(tiny, folder, tmp_path / "again", config, progress=False)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name

    pictures = PictureSet(folder, side_px=32)
    bank = pictures.batch(range(len(pictures)))
    patches = NearestPatches(fold_batch_norm(LiteFeatures().eval()), [bank])
    z = torch.randn(16, tiny.w_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        w = broadcast(tiny.mapping(z), tiny.num_ws)
        before, after = (
            patches(soften(net.synthesis(w, resolution=32)), range(len(bank))).mean()
            for net in (tiny, whole)
        )
    assert after < 0.95 * before


def test_the_adversary_may_rest_at_full_resolution(tiny, folder, tmp_path):
    config = FinetuneConfig(
        coarse_steps=1, coarse_batch=2, full_steps=1, full_batch=1, full_adversarial=0,
        pair_weight=0, patch_weight=1, patch_pictures=2, preview_every=8,
    )  # fmt: skip
    finetune(tiny, folder, tmp_path, config, progress=False)
    coarse, full = rows_of(tmp_path)
    assert coarse.keys() - full.keys() == {"adv", "d"}
    assert {"patch", "sem"} < full.keys()


def test_fine_strokes_are_compared_at_a_larger_side(tiny, folder, tmp_path, monkeypatch):
    sides, compare = [], NearestPatches.forward

    def noted(self, img, indices, **how):
        sides.append((img.shape[-1], self.bank[0].shape[-1]))
        return compare(self, img, indices, **how)

    monkeypatch.setattr(NearestPatches, "forward", noted)
    config = FinetuneConfig(
        coarse_steps=1, coarse_batch=2, full_steps=1, full_batch=1, full_px=48, pair_weight=0,
        patch_weight=1, patch_pictures=2, preview_every=8,
    )  # fmt: skip
    finetune(tiny, folder, tmp_path, config, progress=False)
    assert sides == [(32, 8), (48, 12)]
