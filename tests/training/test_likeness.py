"""Maps of codes are learned: portraits get nearer to their people, a killed run goes on, a style keeps what it had."""

import copy
import dataclasses
import json
import os
import signal

import pytest
import torch

from facestyle import FaceStylizer
from facestyle.cli import main
from facestyle.errors import CheckpointError, ConfigError, OutputError
from facestyle.evaluation import sweep
from facestyle.evaluation.people import draw
from facestyle.hub.download import FILES
from facestyle.hub.package import write_style
from facestyle.models import zoo
from facestyle.models.appearance_probe import load_probe
from facestyle.models.checkpoints import read_tensors
from facestyle.models.latent_map import LatentMap
from facestyle.styles import LIKENESS_FILE, VERSION, StyleConfig
from facestyle.training import likeness
from facestyle.training.fit_probe import fit_probe, wanted_looks
from facestyle.training.likeness import LikenessConfig, learn_likeness, liken_style

CONFIG = LikenessConfig(steps=4, batch=2, rank=2, preview_every=2)


@pytest.fixture(scope="module")
def styled(tiny):
    """A G' that draws everybody alike: codes are read at a tenth."""
    net = copy.deepcopy(tiny)
    w = tiny.w_avg
    blunt = LatentMap(w, -0.9 * torch.eye(len(w)), torch.eye(len(w)))
    blunt.work_into(net.synthesis)
    return net


@pytest.fixture
def style(tiny, styled, tmp_path, monkeypatch):
    """Folder of the same as a style, whose base generator is the tiny one."""
    monkeypatch.setattr(zoo, "base_sha256", lambda: "0" * 64)
    monkeypatch.setattr(zoo, "load_base_generator", lambda path=None: tiny)
    folder = tmp_path / "blunt"
    card = StyleConfig(
        name="blunt", title="Blunt", description="", generator=tiny.config(), base_sha256="0" * 64,
    )  # fmt: skip
    write_style(styled, card, folder, tiny)
    training = {"data": {"count": 3}, "scores": {"kid_x1000": 1.0}}
    (folder / "training.json").write_text(json.dumps(training))
    return folder


def apart(base, net, w, mapped=None):
    """How far portraits are from their people, by pixels: no loss of the training."""
    people, portraits = (
        draw(base, w, side_px=64),
        draw(net, w if mapped is None else mapped, side_px=64),
    )
    return (people.float() - portraits.float()).abs().mean().item()


def test_portraits_get_nearer_to_their_people(tiny, styled, tmp_path):
    config = LikenessConfig(
        steps=60, batch=4, rank=8, lr=0.02, appearance_weight=0, keep_weight=0, offset_weight=0,
        preview_every=60,
    )  # fmt: skip
    before = {name: p.clone() for name, p in styled.state_dict().items()}
    found = learn_likeness(tiny, styled, tmp_path, config, progress=False)
    for name, tensor in styled.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    rng = torch.Generator().manual_seed(99)
    w = tiny.mapping(torch.randn(16, 8, generator=rng))
    assert apart(tiny, styled, w, found(w)) < 0.8 * apart(tiny, styled, w)
    assert (tmp_path / "previews" / "likeness_00060.png").is_file()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    last = rows[-10:]
    assert sum(row["identity"] for row in last) < 0.8 * sum(row["before"] for row in last)


def test_what_holds_it_back_does(tiny, styled, tmp_path):
    free, held = (
        learn_likeness(
            tiny, styled, tmp_path / f"{weight:g}",
            LikenessConfig(steps=12, batch=2, rank=4, lr=0.02, keep_weight=0, offset_weight=weight),
            progress=False,
        )
        for weight in (0.0, 100.0)
    )  # fmt: skip
    w = tiny.mapping(torch.randn(16, 8))
    assert (held(w) - w).square().mean() < 0.2 * (free(w) - w).square().mean()


def test_a_diverged_map_is_named(tiny, styled, tmp_path):
    config = dataclasses.replace(CONFIG, lr=float("inf"), preview_every=1)
    with pytest.raises(ConfigError, match="diverged in stage likeness, step 1"):
        learn_likeness(tiny, styled, tmp_path, config, progress=False)
    assert not list(tmp_path.rglob("*.p[nt]*"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_it_goes_on_to_the_same_map(tiny, styled, tmp_path):
    config = dataclasses.replace(CONFIG, steps=6)
    whole = learn_likeness(tiny, styled, tmp_path / "whole", config, progress=False)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        real = likeness.TrainingState.log

        def log(self, row):
            real(self, row)
            if row["step"] == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        likeness.TrainingState.log = log
        learn_likeness(tiny, styled, tmp_path / "killed", config, progress=False)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    again = learn_likeness(tiny, styled, tmp_path / "killed", config, progress=False)
    for one, other in zip(
        (whole.centre, whole.down, whole.up), (again.centre, again.down, again.up), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6)
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_of_another_style_is_refused(tiny, styled, tmp_path):
    learn_likeness(tiny, styled, tmp_path, CONFIG, progress=False)
    with pytest.raises(ConfigError, match="style_sha256"):
        learn_likeness(tiny, tiny, tmp_path, CONFIG, progress=False)
    with pytest.raises(ConfigError, match="rank"):
        other = dataclasses.replace(CONFIG, rank=3)
        learn_likeness(tiny, styled, tmp_path, other, progress=False)


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"lr": -1}, {"psi_min": 0.9, "psi_max": 0.5}, {"rank": 0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LikenessConfig(**wrong)


def test_a_style_gets_its_map_and_keeps_the_rest(style, tiny, tmp_path):
    kept = {path.name: path.read_bytes() for path in style.iterdir()}
    target = liken_style(style, tmp_path / "run", CONFIG, progress=False)
    assert target == tmp_path / "run" / "style"
    assert {path.name: path.read_bytes() for path in style.iterdir()} == kept
    assert (target / "generator.safetensors").read_bytes() == kept["generator.safetensors"]
    card = StyleConfig.from_file(target / "config.json")
    assert (card.likeness, card.version, card.name) == (1.0, VERSION, "blunt")
    training = json.loads((target / "training.json").read_text())
    assert "scores" not in training and training["data"] == {"count": 3}
    assert training["likeness"]["settings"]["steps"] == 4 and training["likeness"]["seconds"] > 0

    plain = zoo.load_style_generator(style, tiny)
    likened = zoo.load_style_generator(target, tiny)
    unlike = zoo.load_style_generator(target, tiny, dataclasses.replace(card, likeness=0.0))
    learned = LatentMap.from_file(target / LIKENESS_FILE)
    w = tiny.mapping(torch.randn(4, 8))
    assert torch.equal(draw(unlike, w, side_px=64), draw(plain, w, side_px=64))
    drawn, wanted = draw(likened, w, side_px=64), draw(plain, learned(w), side_px=64)
    assert (drawn.int() - wanted.int()).abs().max() <= 1  # weights are rounded to float16
    assert not torch.equal(drawn, draw(plain, w, side_px=64))


def test_a_map_is_replaced_by_a_new_one_of_the_style_without(style, tmp_path):
    first = liken_style(style, tmp_path / "first", CONFIG, progress=False)
    second = liken_style(first, tmp_path / "second", CONFIG, progress=False)
    one, two = (read_tensors(folder / LIKENESS_FILE) for folder in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_map_is_learned_before_shapes_go_back(style, tmp_path):
    plain = liken_style(style, tmp_path / "plain", CONFIG, progress=False)
    card = StyleConfig.from_file(style / "config.json")
    dataclasses.replace(card, keep_shape=0.5).save(style / "config.json")
    keeps = liken_style(style, tmp_path / "keeps", CONFIG, progress=False)
    one, two = (read_tensors(folder / LIKENESS_FILE) for folder in (plain, keeps))
    torch.testing.assert_close(two, one, atol=0, rtol=0)
    assert StyleConfig.from_file(keeps / "config.json").keep_shape == 0.5


def test_what_cannot_be_done_is_said(style, tmp_path):
    with pytest.raises(ConfigError, match="nothing is learned"):
        liken_style(style, tmp_path / "run", LikenessConfig(steps=0))
    inside = style.rename(style.with_name("style"))
    with pytest.raises(OutputError, match="own folder"):
        liken_style(inside, tmp_path, CONFIG)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError):
        liken_style(inside, tmp_path / "taken", CONFIG, progress=False)
    with pytest.raises(CheckpointError):
        liken_style(tmp_path, tmp_path / "run", CONFIG)


def test_a_style_whose_map_is_gone_says_so(style, tiny, tmp_path):
    target = liken_style(style, tmp_path / "run", CONFIG, progress=False)
    (target / LIKENESS_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"likeness\.safetensors"):
        zoo.load_style_generator(target, tiny)


def test_saved_again_the_map_is_worked_in(style, tiny, tiny_stylizer, tmp_path):
    target = liken_style(style, tmp_path / "run", CONFIG, progress=False)
    card = StyleConfig.from_file(target / "config.json")
    likened = zoo.load_style_generator(target, tiny)
    write_style(likened, dataclasses.replace(card, likeness=0.0), target, tiny)
    assert not (target / LIKENESS_FILE).exists()
    again = zoo.load_style_generator(target, tiny)
    for name, tensor in likened.synthesis.state_dict().items():
        assert torch.equal(tensor, again.synthesis.state_dict()[name]), name


def test_the_hub_takes_it_along():
    assert LIKENESS_FILE in FILES


def test_the_command_learns_one(style, tmp_path, capsys, monkeypatch):
    settings = [part for one in ("steps=2", "batch=2", "rank=2") for part in ("--set", one)]
    out = tmp_path / "run"
    assert main(["likeness", str(style), "-o", str(out), *settings, "--dry-run"]) == 0
    assert "rank" in capsys.readouterr().out and not out.exists()
    assert main(["likeness", str(style), "-o", str(out), *settings, "--device", "cpu"]) == 0
    assert str(out / "style") in capsys.readouterr().out
    assert StyleConfig.from_file(out / "style" / "config.json").likeness == 1


def test_the_bundled_probe_reads_embeddings():
    probe = load_probe()
    assert probe.weight.shape == (2, 512) and not probe.weight.requires_grad
    assert probe.weight.abs().max() > 0.1


def test_a_probe_learns_what_the_judge_says(tiny):
    class Judge:
        """Finds the bright male and the red old."""

        def look(self, img):
            bright = img.mean((1, 2, 3))
            return torch.stack(
                [torch.sigmoid(9 * bright), 40 + 300 * (img[:, 0].mean((1, 2)) - bright)], 1
            )

    tensors, agreement = fit_probe(tiny, Judge(), count=240, held_out=80)
    assert tensors["weight"].shape == (2, 512) and tensors["bias"].shape == (2,)
    assert min(agreement.values()) > 0.3
    with pytest.raises(ConfigError):
        fit_probe(tiny, Judge(), count=3, held_out=2)
    looks = wanted_looks(torch.tensor([[0.5, 30.0], [1.0, 42.0]]))
    assert looks[0].tolist() == [0, 0] and looks[1, 1] == 1 and looks[1, 0] < 2


@pytest.mark.parametrize(
    ("setting", "lacks"), [("likeness", "no map of codes"), ("hair", "no change of kernels")]
)
def test_it_is_swept_only_where_it_was_learned(tiny_stylizer, tmp_path, setting, lacks):
    with pytest.raises(ConfigError, match=lacks):
        sweep.sweep_report(tiny_stylizer, setting, [], [], tmp_path)


def test_bundled_anime_has_a_map_that_changes_its_portraits():
    from facestyle.styles import bundled_style

    folder = bundled_style("anime")
    card = StyleConfig.from_file(folder / "config.json")
    assert card.likeness == 1
    learned = LatentMap.from_file(folder / LIKENESS_FILE)
    base = zoo.load_base_generator()
    assert torch.allclose(learned.centre, base.w_avg, atol=1e-3)
    stylizer = FaceStylizer.from_pretrained("anime", device="cpu", dtype="float32")
    assert stylizer.config.likeness == 0  # worked in
    name = "blocks.0.conv1.affine.weight"
    plain = zoo.load_style_generator(folder, base, dataclasses.replace(card, likeness=0.0))
    one, other = (net.synthesis.state_dict()[name] for net in (plain, stylizer.generator))
    wanted = one.double() @ (
        torch.eye(512).double() + (learned.down.double() @ learned.up.double()).T
    )
    assert torch.allclose(other.double(), wanted, atol=2e-3) and not torch.allclose(
        one, other, atol=2e-3
    )
