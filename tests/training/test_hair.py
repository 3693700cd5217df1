"""A style's hair is learned: around faces portraits get nearer to their people, all else of the style stays."""

import copy
import dataclasses
import json
import os
import shutil
import signal

import pytest
import torch

from facestyle.cli import main
from facestyle.errors import CheckpointError, ConfigError, OutputError
from facestyle.evaluation.hair import hair_drift
from facestyle.evaluation.people import SAMPLE_PSI, draw, pil_pictures, sample_w
from facestyle.hub.package import write_style
from facestyle.latents import broadcast
from facestyle.models import zoo
from facestyle.models.checkpoints import read_tensors
from facestyle.models.kernel_change import KernelChange
from facestyle.models.latent_map import LatentMap
from facestyle.models.stylegan2_generator import StyleGAN2Generator
from facestyle.styles import HAIR_FILE, LIKENESS_FILE, StyleConfig, bundled_style
from facestyle.training import hair
from facestyle.training.brush import brushed
from facestyle.training.hair import HairConfig, face_window, give_hair, learn_hair

CONFIG = HairConfig(steps=3, batch=2, full_steps=2, full_batch=2, preview_every=2)
KERNELS = "conv1.weight", "conv2.weight"


@pytest.fixture(scope="module")
def tiny(tiny):
    """The same G, its noise turned down and its heads up: random networks draw grey and noise."""
    net = copy.deepcopy(tiny)
    for name, buffer in net.named_buffers():
        if name.endswith("noise"):
            buffer.mul_(0.05)
    w = broadcast(net.mapping(torch.randn(16, 8)), net.num_ws)
    with torch.no_grad():
        for head, side in ((net.synthesis.to_image, 64), (net.synthesis.to_preview, 32)):
            head.weight.mul_(0.4 / net.synthesis(w, resolution=side).std())
    return net


@pytest.fixture(scope="module")
def styled(tiny):
    """A G' that draws everything too hard: its kernels are four times G's."""
    net = copy.deepcopy(tiny)
    with torch.no_grad():
        for name, p in net.synthesis.named_parameters():
            if name.endswith(KERNELS):
                p.mul_(4)
    return net


@pytest.fixture
def style(tiny, styled, tmp_path, monkeypatch):
    """Folder of the same as a style, with a share of 1.25 and a map of codes; its base is the tiny one."""
    monkeypatch.setattr(zoo, "base_sha256", lambda: "0" * 64)
    monkeypatch.setattr(zoo, "load_base_generator", lambda path=None: tiny)
    folder = tmp_path / "helmet"
    card = StyleConfig(
        name="helmet", title="Helmet", description="", generator=tiny.config(), base_sha256="0" * 64,
        share=1.25, likeness=0.5,
    )  # fmt: skip
    write_style(styled, card, folder, tiny)
    LatentMap(tiny.w_avg, 0.1 * torch.eye(8), torch.eye(8)).save(folder / LIKENESS_FILE)
    training = {"data": {"count": 3}, "scores": {"kid_x1000": 1.0}}
    (folder / "training.json").write_text(json.dumps(training))
    return folder


def pictures(net, w):
    with torch.no_grad():
        return net.synthesis(broadcast(w, net.num_ws))


def around(a, b):
    """Mean difference of pictures around faces, and within: no loss of the training."""
    window = face_window(a.shape[-1])
    away = (a - b).abs().mean((0, 1))
    return [(away * part).sum().item() / part.sum().item() for part in (1 - window, window)]


def test_a_brush_flattens_and_keeps_borders():
    rng = torch.Generator().manual_seed(0)
    plain = torch.full((1, 3, 32, 32), 0.3)
    assert torch.allclose(brushed(plain, 3), plain, atol=1e-6)
    halves = plain.clone()
    halves[..., 16:] = -0.8
    assert torch.allclose(brushed(halves, 3), halves, atol=0.02)
    noisy = halves + 0.1 * torch.randn(halves.shape, generator=rng)
    calm = brushed(noisy, 3)
    inside = calm[..., :12] - 0.3
    assert inside.std() < 0.06
    assert (calm[..., 15].mean() - calm[..., 16].mean()) > 0.8  # a blur would leave a ramp
    assert brushed(noisy, 0) is noisy
    assert brushed(torch.rand(2, 3, 20, 14), 2).shape == (2, 3, 20, 14)


def test_the_window_is_on_the_face():
    window = face_window(256)
    assert window.shape == (256, 256) and torch.allclose(window, window.flip(1))
    for x, y in ((0.385, 0.475), (0.615, 0.475), (0.5, 0.735)):  # eyes and mouth of aligned faces
        assert window[round(256 * y), round(256 * x)] > 0.9
    for x, y in ((0.5, 0.2), (0.1, 0.5), (0.9, 0.5), (0.5, 0.99)):  # hair, ground, collar
        assert window[round(256 * y), round(256 * x)] < 0.1


def changed(net, change):
    """A copy of a generator with what was learned."""
    net = copy.deepcopy(net)
    change.work_into(net.synthesis)
    return net


def test_around_faces_portraits_get_nearer_to_their_people(tiny, styled, tmp_path):
    before = {name: p.clone() for name, p in styled.state_dict().items()}
    config = dataclasses.replace(CONFIG, steps=4, full_steps=32, lr=1e-2, full_lr=3e-2)
    change = learn_hair(tiny, styled, tmp_path, config, progress=False)
    for name, tensor in styled.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    parts = {name.rpartition(".")[2] for name, part in change.parts.items() if part.any()}
    assert parts == {"weight", "depthwise", "bias"}
    assert all(".conv" in name and "affine" not in name for name in change.parts)
    w = tiny.mapping(torch.randn(16, 8, generator=torch.Generator().manual_seed(99)))
    nets = (tiny, styled, changed(styled, change))
    people, was, now = (pictures(one, w) for one in nets)
    assert around(now, people)[0] < 0.9 * around(was, people)[0]
    assert (tmp_path / "previews" / "coarse_00004.png").is_file()
    assert (tmp_path / "previews" / "full_00032.png").is_file()


def test_the_face_is_held(tiny, styled, tmp_path):
    free, held = (
        changed(styled, learn_hair(
            tiny, styled, tmp_path / f"{weight}",
            dataclasses.replace(
                CONFIG, steps=0, full_steps=10, full_lr=2e-2, face_weight=weight, face_pixel_weight=weight,
                identity_weight=0,
            ),
            progress=False,
        ))
        for weight in (0, 100)
    )  # fmt: skip
    w = tiny.mapping(torch.randn(16, 8, generator=torch.Generator().manual_seed(99)))
    was = pictures(styled, w)
    assert around(pictures(held, w), was)[1] < 0.5 * around(pictures(free, w), was)[1]


def test_a_pen_draws_on_full_pictures_alone(tiny, styled, tmp_path, monkeypatch):
    drawn = []

    def flowing(pictures, reach):
        drawn.append((pictures.shape[-1], reach))
        return pictures

    monkeypatch.setattr(hair, "flowing", flowing)
    config = dataclasses.replace(
        CONFIG, strands=0.03, tones=6, lines=0.5, hair_pixel_weight=2, face_grain=0.05, preview_every=99
    )  # fmt: skip
    change = learn_hair(tiny, styled, tmp_path, config, progress=False)
    side = tiny.resolution
    # A batch a step of the full stage; and previews at the end of both.
    assert drawn == [(side, 0.03)] * (1 + config.full_steps + 1)
    assert any(part.any() for part in change.parts.values())
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(row["hair_pixel"] > 0 for row in rows)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("stage", "step"), [("coarse", 3), ("full", 1)])
def test_killed_it_goes_on_to_the_same_weights(tiny, styled, tmp_path, stage, step):
    config = dataclasses.replace(CONFIG, steps=3, full_steps=2)

    def learn(name):
        return learn_hair(tiny, styled, tmp_path / name, config, progress=False)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, here and there
    try:
        whole = learn("whole")
        child = os.fork()
        if child == 0:
            real = hair.TrainingState.log

            def log(self, row):
                real(self, row)
                if (row["stage"], row["step"]) == (stage, step):
                    os.kill(os.getpid(), signal.SIGKILL)

            hair.TrainingState.log = log
            learn("killed")
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        again = learn("killed")
    finally:
        torch.set_num_threads(threads)
    assert whole.parts.keys() == again.parts.keys()
    for name, part in whole.parts.items():
        assert torch.equal(part, again.parts[name]), name
    rows = [
        json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    ]
    done = [(row["stage"], row["step"]) for row in rows]
    assert done == [("coarse", i) for i in (1, 2, 3)] + [("full", i) for i in (1, 2)]


def test_a_style_gets_its_hair_and_keeps_the_rest(style, tiny, tmp_path):
    kept = {path.name: path.read_bytes() for path in style.iterdir()}
    config = dataclasses.replace(CONFIG, lr=0.05, full_lr=0.05)
    target = give_hair(style, tmp_path / "run", config, progress=False)
    assert target == tmp_path / "run" / "style"
    assert {path.name: path.read_bytes() for path in style.iterdir()} == kept
    card = StyleConfig.from_file(target / "config.json")
    assert (card.share, card.likeness, card.hair, card.name) == (1.25, 0.5, 1.0, "helmet")
    for name in (LIKENESS_FILE, "generator.safetensors"):
        assert (target / name).read_bytes() == kept[name]
    training = json.loads((target / "training.json").read_text())
    assert "scores" not in training and training["data"] == {"count": 3}
    assert training["hair"]["settings"]["full_steps"] == 2 and training["hair"]["seconds"] > 0

    # As it is used, with share, map and change, it draws what was learned.
    styled = zoo.load_style_generator(style, tiny)
    change = learn_hair(tiny, styled, tmp_path / "run" / "hair", config, progress=False)
    w = tiny.mapping(torch.randn(4, 8))
    nets = (zoo.load_style_generator(target, tiny), changed(styled, change), styled)
    drawn, wanted, was = (pictures(net, w) for net in nets)
    assert (drawn - wanted).abs().mean() < 0.1 * (drawn - was).abs().mean()
    # A share of none is the style before; without its file it is refused by name.
    plain = zoo.load_style_generator(target, tiny, dataclasses.replace(card, hair=0.0))
    assert torch.equal(pictures(plain, w), was)

    # Learned anew it starts from the style before, and the change before is gone.
    again = give_hair(target, tmp_path / "again", config, progress=False)
    parts, wanted = (KernelChange.from_file(one / HAIR_FILE).parts for one in (again, target))
    for name, part in parts.items():  # several threads sum in no order
        assert (part - wanted[name]).norm() <= 0.5 * wanted[name].norm(), name
    (target / HAIR_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"hair\.safetensors"):
        zoo.load_style_generator(target, tiny)


def test_hair_is_learned_before_shapes_go_back(style, tmp_path):
    plain = give_hair(style, tmp_path / "plain", CONFIG, progress=False)
    card = StyleConfig.from_file(style / "config.json")
    dataclasses.replace(card, keep_shape=0.5).save(style / "config.json")
    keeps = give_hair(style, tmp_path / "keeps", CONFIG, progress=False)
    one, two = (read_tensors(folder / HAIR_FILE) for folder in (plain, keeps))
    torch.testing.assert_close(two, one, atol=0, rtol=0)
    assert StyleConfig.from_file(keeps / "config.json").keep_shape == 0.5


def test_what_cannot_be_done_is_said(style, tiny, styled, tmp_path):
    with pytest.raises(ConfigError, match="nothing is learned"):
        give_hair(style, tmp_path / "run", HairConfig(steps=0, full_steps=0))
    inside = style.rename(style.with_name("style"))
    for part in ("run", "likeness"):  # of a training, of another part
        shutil.copytree(inside, tmp_path / part / "style")
        (tmp_path / part / part).mkdir()
        with pytest.raises(OutputError, match="another run made"):
            give_hair(inside, tmp_path / part, CONFIG, progress=False)
    with pytest.raises(OutputError, match="own folder"):
        give_hair(inside, tmp_path, CONFIG)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError):
        give_hair(inside, tmp_path / "taken", CONFIG, progress=False)
    with pytest.raises(CheckpointError):
        give_hair(tmp_path, tmp_path / "fresh", CONFIG)
    learn_hair(tiny, styled, tmp_path / "once", CONFIG, progress=False)
    with pytest.raises(ConfigError, match="style_sha256"):
        learn_hair(tiny, tiny, tmp_path / "once", CONFIG, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"lr": -1},
        {"psi_min": 0.9, "psi_max": 0.5},
        {"brush": 0.2},
        {"strands": 0.2},
        {"tones": -1},
        {"lines": 2},
        {"full_px": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HairConfig(**wrong)


def test_the_command_learns_it(style, tmp_path, capsys):
    wanted = ("steps=1", "full_steps=1", "batch=2")
    settings = [part for one in wanted for part in ("--set", one)]
    out = tmp_path / "run"
    assert main(["hair", str(style), "-o", str(out), *settings, "--dry-run"]) == 0
    assert "brush" in capsys.readouterr().out and not out.exists()
    assert main(["hair", str(style), "-o", str(out), *settings, "--device", "cpu"]) == 0
    assert str(out / "style") in capsys.readouterr().out
    assert StyleConfig.from_file(out / "style" / "config.json").share == 1.25


def test_a_stylegan2_gets_its_hair_too(tmp_path):
    torch.manual_seed(0)
    base = StyleGAN2Generator(
        resolution=32, w_dim=8, mapping_depth=2, channel_base=256, channel_max=8
    )
    styled = copy.deepcopy(base)
    with torch.no_grad():
        styled.synthesis.b32.conv1.bias.add_(0.1)
    change = learn_hair(base, styled, tmp_path, CONFIG, progress=False)
    assert "b32.conv1.weight" in change.parts
    assert all(".conv" in name and "affine" not in name for name in change.parts)


def test_the_bundled_anime_has_a_change_that_gives_people_their_hair():
    base, folder = zoo.load_base_generator(), bundled_style("anime")
    card = StyleConfig.from_file(folder / "config.json")
    w = sample_w(base, 4, SAMPLE_PSI)
    nets = [base] + [
        zoo.load_style_generator(folder, base, dataclasses.replace(card, hair=share))
        for share in (0.0, card.hair)
    ]
    people, *both = (draw(net, w, side_px=256, is_preview=True) for net in nets)
    was, now = (
        sum(drift.delta_e for drift in map(hair_drift, pil_pictures(people), pil_pictures(one)))
        for one in both
    )
    assert now < 0.9 * was


def test_the_bundled_cartoon_leaves_people_their_hair():
    base = zoo.load_base_generator()
    net = zoo.load_style_generator(bundled_style("cartoon"), base)
    w = sample_w(base, 4, SAMPLE_PSI)
    people, portraits = (draw(one, w, side_px=256, is_preview=True) for one in (base, net))
    drifts = map(hair_drift, pil_pictures(people), pil_pictures(portraits))
    assert sum(drift.delta_e for drift in drifts) / 4 < 6  # 8 and more before hair was learned
    hair, face = around(people.float(), portraits.float())
    assert face > 12 and face > 1.2 * hair  # levels of 255: a cartoon all the same
