"""U-GAT-IT: its size, its norms, its training, and files of the public code."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.baselines import ugatit_training
from facestyle.baselines.ugatit import Ugatit, import_ugatit
from facestyle.baselines.ugatit_networks import (
    UgatitDiscriminator,
    UgatitGenerator,
    _AdaptiveResidual,
    _Mix,
    from_public,
)
from facestyle.baselines.ugatit_training import UgatitConfig, train_ugatit
from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import read_tensors, unfilled
from facestyle.models.importers.checkpoints.stored import StoredTensor
from facestyle.training import state

TINY = UgatitConfig(
    side_px=32, width=4, blocks=1, discriminator_width=4, global_layers=4, local_layers=3,
    steps=6, lr=2e-3, face_samples=6, preview_every=2,
)  # fmt: skip


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Eight blue discs on a dark ground."""
    path = tmp_path_factory.mktemp("faces")
    y, x = np.mgrid[:48, :48] - 24
    for i in range(8):
        picture = np.full((48, 48, 3), 40, np.uint8)
        picture[x**2 + y**2 < (10 + i) ** 2] = [30, 40, 200]
        Image.fromarray(picture).save(path / f"{i}.png")
    return path


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_sizes_are_the_published_ones():
    with unfilled():
        assert count(UgatitGenerator()) == 10_589_888
        assert count(UgatitGenerator(is_light=False)) == 278_959_808
    assert count(UgatitDiscriminator(5)) == 3_290_560
    for layers, side in ((7, 6), (5, 30)):
        logits, attention = UgatitDiscriminator(layers, width=2)(torch.zeros(1, 3, 256, 256))
        assert logits.shape == (1, 1, side, side) and attention.shape == (1, 2)


@pytest.mark.parametrize("is_light", [True, False])
def test_pictures_keep_their_shape_and_range(is_light):
    torch.manual_seed(0)
    net = UgatitGenerator(32, width=4, blocks=1, is_light=is_light)
    img, logits = net(torch.rand(2, 3, 32, 32) * 2 - 1)
    assert img.shape == (2, 3, 32, 32) and logits.shape == (2, 2)
    assert img.abs().max() <= 1
    alone, _ = net(torch.zeros(1, 3, 32, 32))
    both, _ = net(torch.zeros(2, 3, 32, 32))
    torch.testing.assert_close(both[:1], alone)  # nothing crosses from one picture to another


def test_rho_chooses_between_the_two_norms():
    x = 3 + 2 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, 1] *= 5
    instance = _Mix(4, rho=1.0)(x)
    torch.testing.assert_close(instance.mean((2, 3)), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(instance.var((2, 3)), torch.ones(2, 4), atol=1e-4, rtol=0)
    layer = _Mix(4, rho=0.0)(x)
    torch.testing.assert_close(layer.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.var((1, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)
    assert layer[:, 1].var() > 1.5
    half = _Mix(4, rho=0.25)(x)
    torch.testing.assert_close(half, 0.25 * instance + 0.75 * layer)


def test_an_adaptive_block_without_scale_adds_only_the_shift():
    block = _AdaptiveResidual(4)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    zero, shift = torch.zeros(1, 4, 1, 1), torch.arange(4.0).view(1, 4, 1, 1)
    torch.testing.assert_close(block(x, zero, shift), x + shift)


def test_rho_is_clipped():
    net = UgatitGenerator(16, width=4, blocks=1)
    with torch.no_grad():
        net.decode[0].norm1.rho.fill_(1.7)
        net.up_norm[0].rho.fill_(-0.2)
    net.clip_rho()
    assert net.decode[0].norm1.rho.max() == 1 and net.up_norm[0].rho.min() == 0
    assert net.decode[0].norm2.rho.max().item() == pytest.approx(0.9)


def test_training_lowers_its_loss_and_leaves_a_generator(faces, style_folder, tmp_path):
    config = dataclasses.replace(TINY, steps=30, preview_every=30)
    method = Ugatit(config, faces=faces, device="cpu")
    method.prepare(style_folder, tmp_path, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 31))
    for name in ("cycle", "same"):
        first = np.mean([row[name] for row in rows[:5]])
        last = np.mean([row[name] for row in rows[-5:]])
        assert last < 0.6 * first
    assert (tmp_path / "previews" / "0000030.png").is_file()
    crops = torch.rand(2, 3, 64, 64) * 2 - 1
    img = method.stylize(crops)
    assert img.shape == (2, 3, 32, 32) and method.resolution == 32
    again = Ugatit(device="cpu").load(tmp_path)
    assert torch.equal(again.stylize(crops), img)
    assert again.parameters == count(UgatitGenerator(32, width=4, blocks=1))


KILLED = """
    import os, signal, sys
    import torch
    torch.set_num_threads(1)
    from facestyle.baselines import ugatit_training
    from facestyle.baselines.ugatit_training import UgatitConfig, train_ugatit
    real = ugatit_training._Training._step
    calls = []
    def step(self, *batch):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *batch)
    ugatit_training._Training._step = step
    config = UgatitConfig(**eval(sys.argv[4]))
    train_ugatit(sys.argv[1], sys.argv[3], config, faces=sys.argv[2], device="cpu", progress=False)
"""


def test_a_killed_run_ends_in_the_same_weights(faces, style_folder, tmp_path, one_thread):
    def train(out):
        return train_ugatit(style_folder, out, TINY, faces=faces, device="cpu", progress=False)

    whole = train(tmp_path / "whole").state_dict()
    arguments = [style_folder, faces, tmp_path / "killed", dataclasses.asdict(TINY)]
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), *map(str, arguments)],
        cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL
    rows = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    assert len(rows) == 3 and (tmp_path / "killed" / "generator.safetensors").is_file()
    resumed = train(tmp_path / "killed").state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    rows = [json.loads(r) for r in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_a_run_of_other_pictures_is_not_gone_on_with(faces, style_folder, tmp_path):
    config = dataclasses.replace(TINY, steps=1)

    def train(pictures, photos):
        train_ugatit(pictures, tmp_path, config, faces=photos, device="cpu", progress=False)

    train(style_folder, faces)
    for pictures, photos, what in (
        (faces, faces, "pictures"),
        (style_folder, style_folder, "faces"),
    ):
        with pytest.raises(ConfigError, match=f"other settings .{what}"):
            train(pictures, photos)
    known = json.loads((tmp_path / "config.json").read_text())
    del known["pictures"], known["faces"]
    (tmp_path / "config.json").write_text(json.dumps(known))
    train(style_folder, faces)  # a run of before they were written down


def test_diverged_training_is_named_and_leaves_no_generator(faces, style_folder, tmp_path):
    config = dataclasses.replace(TINY, lr=float("inf"), steps=1)
    with pytest.raises(ConfigError, match="diverged in stage training, step 1"):
        train_ugatit(style_folder, tmp_path, config, faces=faces, device="cpu", progress=False)
    assert not (tmp_path / "generator.safetensors").exists()


def test_a_budget_of_time_ends_training_and_is_not_granted_twice(
    faces, style_folder, tmp_path, monkeypatch
):
    config = dataclasses.replace(TINY, steps=100_000, preview_every=100_000)
    ticks, rates = itertools.count(), []
    clock = types.SimpleNamespace(monotonic=lambda: float(next(ticks)))  # a second each time asked
    monkeypatch.setattr(state, "time", clock)
    step = ugatit_training._Training._step

    def watched(self, *batch):
        rates.append(self.g_optimizer.param_groups[0]["lr"])
        return step(self, *batch)

    monkeypatch.setattr(ugatit_training._Training, "_step", watched)

    def train(minutes):
        train_ugatit(
            style_folder, tmp_path, config, faces=faces, minutes=minutes, device="cpu",
            progress=False,
        )  # fmt: skip
        rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        return rows[-1]

    last = train(0.2)
    assert 10 <= last["seconds"] <= 12 and 4 <= last["step"] <= 6
    assert rates[0] == config.lr  # constant in the first half of the time, then falling
    assert rates[-1] < 0.5 * config.lr and rates == sorted(rates, reverse=True)
    weights = read_tensors(tmp_path / "generator.safetensors")
    assert train(0.2)["step"] == last["step"]
    again = read_tensors(tmp_path / "generator.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    assert train(0.4)["step"] > last["step"]
    with pytest.raises(ConfigError, match="minutes"):
        train(0)


def test_without_photos_the_base_generators_people_stand_in(tiny, style_folder, tmp_path):
    config = dataclasses.replace(TINY, steps=1)
    for out in ("one", "two"):
        train_ugatit(style_folder, tmp_path / out, config, base=tiny, device="cpu", progress=False)
    one, two = (
        read_tensors(tmp_path / out / "faces.safetensors")["faces"] for out in ("one", "two")
    )
    assert one.shape == (6, 3, 35, 35) and one.dtype == torch.uint8
    assert torch.equal(one, two)
    assert (one[0].float() - one[1].float()).abs().mean() > 1
    with pytest.raises(ConfigError, match="other settings"):
        train_ugatit(style_folder, tmp_path / "one", config, faces=style_folder, device="cpu")


PUBLIC = {
    "stem.weight": "DownBlock.1.weight", "down.0.weight": "DownBlock.5.weight",
    "down.1.weight": "DownBlock.9.weight", "encode.0.conv1.weight": "DownBlock.12.conv_block.1.weight",
    "encode.0.conv2.weight": "DownBlock.12.conv_block.5.weight",
    "encode.1.conv1.weight": "DownBlock.13.conv_block.1.weight",
    "encode.1.conv2.weight": "DownBlock.13.conv_block.5.weight",
    "attention.mean.weight": "gap_fc.weight", "attention.largest.weight": "gmp_fc.weight",
    "attention.merge.weight": "conv1x1.weight", "attention.merge.bias": "conv1x1.bias",
    "read.0.weight": "FC.0.weight", "read.2.weight": "FC.2.weight",
    "gamma.weight": "gamma.weight", "beta.weight": "beta.weight",
    "decode.0.conv1.weight": "UpBlock1_1.conv1.weight", "decode.0.norm1.rho": "UpBlock1_1.norm1.rho",
    "decode.0.conv2.weight": "UpBlock1_1.conv2.weight", "decode.0.norm2.rho": "UpBlock1_1.norm2.rho",
    "decode.1.conv1.weight": "UpBlock1_2.conv1.weight", "decode.1.norm1.rho": "UpBlock1_2.norm1.rho",
    "decode.1.conv2.weight": "UpBlock1_2.conv2.weight", "decode.1.norm2.rho": "UpBlock1_2.norm2.rho",
    "up.0.weight": "UpBlock2.2.weight", "up_norm.0.rho": "UpBlock2.3.rho",
    "up_norm.0.gamma": "UpBlock2.3.gamma", "up_norm.0.beta": "UpBlock2.3.beta",
    "up.1.weight": "UpBlock2.7.weight", "up_norm.1.rho": "UpBlock2.8.rho",
    "up_norm.1.gamma": "UpBlock2.8.gamma", "up_norm.1.beta": "UpBlock2.8.beta",
    "head.weight": "UpBlock2.11.weight",
}  # fmt: skip
"""Names in a generator of two blocks."""


@pytest.mark.parametrize("is_light", [True, False])
def test_a_public_checkpoint_is_imported(tmp_path, is_light):
    torch.manual_seed(2)
    net = UgatitGenerator(32, width=4, blocks=2, is_light=is_light).eval()
    state = net.state_dict()
    assert state.keys() == PUBLIC.keys()
    public = {PUBLIC[name]: tensor for name, tensor in state.items()}
    nothing = {"x": torch.zeros(1)}
    torch.save({"genA2B": public, "genB2A": nothing, "disGA": nothing}, tmp_path / "params.pt")
    import_ugatit(tmp_path / "params.pt", tmp_path / "out")
    method = Ugatit(device="cpu").load(tmp_path / "out")
    assert method.net.config()["is_light"] is is_light and method.net.config()["blocks"] == 2
    assert method.resolution == (256 if is_light else 32)
    assert all(torch.equal(method.net.state_dict()[name], t) for name, t in state.items())


def test_imports_are_strict_both_ways(tmp_path, exploit):
    torch.manual_seed(2)
    net = UgatitGenerator(32, width=4, blocks=2)
    public = {PUBLIC[name]: tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(CheckpointError, match="no place") as caught:
        from_public({**public, "UpBlock3.weight": torch.zeros(1)})
    assert caught.value.unexpected == ("UpBlock3.weight",)
    with pytest.raises(CheckpointError, match="no U-GAT-IT generator"):
        from_public({"a": torch.zeros(1)})
    file = tmp_path / "params.pt"
    del public["UpBlock2.11.weight"]
    torch.save({"genA2B": public}, file)
    with pytest.raises(CheckpointError) as caught:
        import_ugatit(file, tmp_path / "out")
    assert caught.value.missing == ("head.weight",)
    for content in ({"genB2A": public}, {"genA2B": public, "optimizer": {}}, [1]):
        torch.save(content, file)
        with pytest.raises(CheckpointError, match="no U-GAT-IT checkpoint"):
            import_ugatit(file, tmp_path / "out")
    torch.save({"genA2B": exploit}, file)
    with pytest.raises(CheckpointError, match="could run code"):
        import_ugatit(file, tmp_path / "out")
    assert not Path(exploit.path).exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        5,
        [torch.zeros(1)],
        {5: torch.zeros(1)},
        {"FC.0.weight": 3},
        {"FC.0.weight": torch.zeros(3)},
        {"FC.0.weight": torch.zeros(16, 48)},
        {"DownBlock.1.weight": torch.zeros([])},
        {"DownBlock.1.weight": torch.zeros(0, 3, 7, 7)},
        {"DownBlock.1.weight": torch.zeros(9, 3, 7, 7)},
        {"UpBlock1_1.norm1.rho": None},
        dict.fromkeys((f"x{i}" for i in range(100)), torch.zeros(1 << 18)),
    ],
    ids=range(11),
)
def test_malformed_files_are_named(tmp_path, change):
    net = UgatitGenerator(32, width=4, blocks=2)
    public = {PUBLIC[name]: tensor for name, tensor in net.state_dict().items()}
    file = tmp_path / "params.pt"
    torch.save({"genA2B": public | change if isinstance(change, dict) else change}, file)
    with pytest.raises(CheckpointError) as caught:
        import_ugatit(file, tmp_path / "out")
    assert caught.value.path == file and not (tmp_path / "out").exists()


def test_only_the_network_that_is_taken_is_read(tmp_path, monkeypatch):
    net = UgatitGenerator(32, width=4, blocks=2)
    public = {PUBLIC[name]: tensor for name, tensor in net.state_dict().items()}
    others = ("genB2A", "disGA", "disGB", "disLA", "disLB")
    content = {name: {"x": torch.zeros(100_000)} for name in others}
    torch.save({"genA2B": public, **content}, tmp_path / "params.pt")
    read, real = [], StoredTensor.load
    monkeypatch.setattr(StoredTensor, "load", lambda self: read.append(self.shape) or real(self))
    import_ugatit(tmp_path / "params.pt", tmp_path / "out")
    assert len(read) == len(public) and (100_000,) not in read


def test_mistakes_are_named(tmp_path, star_run):
    with pytest.raises(ConfigError, match="no style yet"):
        Ugatit(device="cpu").stylize(torch.zeros(1, 3, 32, 32))
    with pytest.raises(CheckpointError):
        Ugatit(device="cpu").load(tmp_path)
    (tmp_path / "generator.safetensors").write_bytes((star_run / "star.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="no U-GAT-IT generator"):
        Ugatit(device="cpu").load(tmp_path)
    for wrong in ({"steps": 0}, {"global_layers": 2}, {"side_px": 32}):
        with pytest.raises(ConfigError):
            UgatitConfig(**wrong)
    with pytest.raises(ConfigError, match="multiple of 4"):
        UgatitGenerator(30)
