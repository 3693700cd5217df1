"""How a run chooses among its snapshots and averages of them."""

import json

import pytest
import torch

from facestyle.models.checkpoints import read_tensors
from facestyle.models.features import LiteFeatures
from facestyle.training import finetune as finetune_module
from facestyle.training.data import PictureSet
from facestyle.training.finetune import SHARES, finetune
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.pipeline import PRESETS
from facestyle.training.selection import HeldOut
from facestyle.training.style_pictures import StylePictures

CONFIG = FinetuneConfig(
    coarse_steps=2, coarse_batch=2, full_steps=1, full_batch=2, preview_every=1, held_out=4,
    sem_weight=0, pair_weight=0,
)  # fmt: skip


@pytest.fixture
def held_out(tiny, folder):
    pictures = StylePictures(PictureSet(folder, 32), replace_background="no", flip=False)
    return HeldOut(tiny, pictures, LiteFeatures().eval(), count=4, content=2.0)


def test_g_is_recognised_and_has_the_whole_gap(tiny, held_out):
    scores = held_out(tiny)
    assert scores["style_gap"] == pytest.approx(1)
    assert scores["likeness"] == pytest.approx(1, abs=1e-5)
    assert scores["score"] == pytest.approx(1 + 2 * 4 * (1 - scores["recognition"]))


def test_recognition_is_how_many_others_are_less_alike(tiny, held_out):
    """Four people at right angles; three portraits have all turned by 60 degrees, the fourth shows the first person."""
    axes = torch.eye(5)
    held_out.who = axes[:4]
    turned = 0.5 * axes[:3] + 0.75**0.5 * axes[4]
    held_out.identity = lambda img: torch.cat([turned, axes[:1]])[: len(img)]
    scores = held_out(tiny)
    assert scores["likeness"] == pytest.approx(3 * 0.5 / 4)
    missed = (0 + 0.5 + 0.5) / 3  # the first person is nearer, the other two as near
    assert scores["recognition"] == pytest.approx((3 * 1 + missed) / 4)


def test_one_portrait_for_all_is_chance(tiny, held_out):
    axes = torch.eye(5)
    held_out.who = axes[:4]
    held_out.identity = lambda img: axes[4:].expand(len(img), 5)
    assert held_out(tiny)["recognition"] == 0.5


def _best_is(place, calls):
    """A score that is best for the call of that number; ``calls`` grows by one each time."""

    def score(self, generator):
        calls.append(generator)
        return {"recognition": 1.0, "score": float(len(calls) != place)}

    return score


def test_an_average_of_the_first_and_last_may_be_the_best(tiny, folder, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        finetune_module.HeldOut, "__call__", _best_is(4 + SHARES.index(0.65), calls)
    )
    net = finetune(tiny, folder, tmp_path, CONFIG, progress=False)
    assert len(calls) == 3 + len(SHARES)  # steps 1 and 2, the full one, and the shares
    choice = json.loads((tmp_path / "choice.json").read_text())
    assert choice["chosen"] == {
        "stage": "full", "step": 1, "share": 0.65, "recognition": 1.0, "score": 0.0,
    }  # fmt: skip
    first, last = (
        read_tensors(tmp_path / "snapshots" / f"{name}.safetensors")
        for name in ("coarse_00001", "full_00001")
    )
    for name, tensor in net.synthesis.state_dict().items():
        wanted = first[name].float().lerp(last[name].float(), 0.65)
        torch.testing.assert_close(tensor, wanted, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(first["const"], last["const"])

    again = finetune(tiny, folder, tmp_path, CONFIG, progress=False)
    assert len(calls) == 3 + len(SHARES)  # nothing is scored twice
    for name, tensor in again.synthesis.state_dict().items():
        assert torch.equal(tensor, net.synthesis.state_dict()[name]), name

    log = tmp_path / "log.jsonl"  # of an earlier version, which scored otherwise
    log.write_text(log.read_text().replace("recognition", "likeness"))
    choice["scored"] = choice["scored"][:3]
    (tmp_path / "choice.json").write_text(json.dumps(choice))
    calls.clear()
    old = finetune(tiny, folder, tmp_path, CONFIG, progress=False)
    assert len(calls) == 3 + len(SHARES)  # every one is scored anew
    assert torch.equal(old.synthesis.const, net.synthesis.const)


@pytest.mark.parametrize("preset", ["default", "faithful", "quality"])
def test_presets_that_score_keep_a_snapshot_that_still_has_everybody(preset):
    style = PRESETS[preset].style
    assert style.held_out >= 32 and style.preview_every <= 40


def test_choosing_goes_on_where_it_was_killed(tiny, folder, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        finetune_module.HeldOut, "__call__", _best_is(4 + SHARES.index(0.65), calls)
    )
    net = finetune(tiny, folder, tmp_path, CONFIG, progress=False)
    (tmp_path / "choice.json").unlink()
    del calls[3:]
    resumed = finetune(tiny, folder, tmp_path, CONFIG, progress=False)
    assert len(calls) == 3 + len(SHARES)
    assert torch.equal(resumed.synthesis.const, net.synthesis.const)


def test_a_snapshot_may_be_the_best(tiny, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_module.HeldOut, "__call__", _best_is(2, []))
    net = finetune(tiny, folder, tmp_path, CONFIG, progress=False)
    second = read_tensors(tmp_path / "snapshots" / "coarse_00002.safetensors")
    for name, tensor in net.synthesis.state_dict().items():
        assert torch.equal(tensor, second[name].float()), name
