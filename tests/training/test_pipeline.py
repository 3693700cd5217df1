"""The whole training of a style on a tiny generator: stages, kill -9, several processes, the choice of a snapshot."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file

from facestyle.errors import CheckpointError, ConfigError, DatasetError
from facestyle.models.checkpoints import read_tensors
from facestyle.processes import Processes
from facestyle.training.data import PictureSet
from facestyle.training.finetune import FinetuneConfig, finetune
from facestyle.training.pairs import PairsConfig, given_pairs
from facestyle.training.pipeline import PRESETS, TrainConfig, train_style
from facestyle.training.state import TrainingState

CONFIG = TrainConfig(
    star=FinetuneConfig(
        coarse_steps=3, coarse_batch=2, full_steps=0, sem_weight=0, pair_weight=0, preview_every=1
    ),
    pairs=PairsConfig(count=4, steps=2, batch=2),
    style=FinetuneConfig(
        coarse_steps=3, coarse_batch=2, full_steps=2, full_batch=2, preview_every=1, held_out=4
    ),
)


@pytest.fixture(scope="module")
def files(tiny, encoder_files):
    """The tiny networks as files, for another process."""
    save_file(dict(tiny.state_dict()), encoder_files / "g.safetensors")
    return encoder_files


def train(tiny, folder, files, out, config=CONFIG, **more):
    return train_style(
        tiny, folder, out, config, name="red", data_license="ours",
        encoder_z=files / "z_plus.safetensors", aligned="yes", progress=False, **more,
    )  # fmt: skip


SCRIPT = """
    import os, signal, sys
    import torch
    torch.set_num_threads(1)
    from pathlib import Path
    from facestyle.models.mobile import MobileGenerator
    from facestyle.models.checkpoints import load_strict, read_tensors
    from facestyle.training import pairs, pipeline, state
    from tests.training.test_pipeline import CONFIG, train
    files, folder, out, stage = map(Path, sys.argv[1:5])
    net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    load_strict(net, read_tensors(files / "g.safetensors"))
    real_log, real_save = state.TrainingState.log, pairs.save_tensors
    def log(self, row):
        real_log(self, row)
        if self.folder.name == stage.name and row["step"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    def save(tensors, path, **more):
        real_save(tensors, path, **more)
        if stage.name == "pairs":
            os.kill(os.getpid(), signal.SIGKILL)
    state.TrainingState.log, pairs.save_tensors = log, save
    train(net.eval().requires_grad_(False), folder, files, out)
"""


def run_script(text, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.getcwd()} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_killed_in_every_stage_it_ends_in_the_same_style(tiny, large_folder, files, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, here and there
    try:
        whole = train(tiny, large_folder, files, tmp_path / "whole")
        for stage in ("star", "pairs", "run"):
            ended = run_script(SCRIPT, files, large_folder, tmp_path / "cut", stage)
            assert ended.returncode == -signal.SIGKILL, ended.stderr
        resumed = train(tiny, large_folder, files, tmp_path / "cut")
    finally:
        torch.set_num_threads(threads)
    after, expected = (read_tensors(p / "generator.safetensors") for p in (resumed, whole))
    assert after.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(after[name], tensor, rtol=2e-3, atol=1e-5, msg=name)
    log = [json.loads(line) for line in (tmp_path / "cut/run/log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in log] == [
        ("coarse", 1), ("coarse", 2), ("coarse", 3), ("full", 1), ("full", 2),
    ]  # fmt: skip


def test_the_best_scored_snapshot_is_packaged_with_its_origin(tiny, large_folder, files, tmp_path):
    style = train(tiny, large_folder, files, tmp_path)
    origin = json.loads((style / "training.json").read_text())
    choice = json.loads((tmp_path / "run" / "choice.json").read_text())
    assert origin["chosen"] == choice["chosen"]
    assert len(choice["scored"]) == 5
    assert choice["chosen"]["score"] == min(row["score"] for row in choice["scored"])
    name = f"{choice['chosen']['stage']}_{choice['chosen']['step']:05d}.safetensors"
    chosen = read_tensors(tmp_path / "run" / "snapshots" / name)
    for key, tensor in read_tensors(style / "generator.safetensors").items():
        assert torch.equal(tensor, chosen[key]), key
    assert origin["settings"]["pairs"]["steps"] == 2
    assert origin["data"]["count"] == 12 and origin["data"]["license"] == "ours"
    assert set(origin["seconds"]) == {"star", "pairs", "style"}
    assert (tmp_path / "pairs" / "sheet.png").is_file()
    assert (tmp_path / "pictures.png").is_file()
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_the_paired_loss_teaches_what_the_pairs_show(tiny, tmp_path):
    """Pairs whose picture is the negative of the face: supervision alone must turn the generator."""
    from PIL import Image

    from facestyle.image import to_pil
    from facestyle.latents import broadcast
    from facestyle.models.generator import sample_z

    w = tiny.mapping(sample_z(6, 0, 8))
    faces = tiny.synthesis(broadcast(w, tiny.num_ws), resolution=32)
    (tmp_path / "set").mkdir()
    for i, face in enumerate(faces):
        negative = to_pil(-face.clamp(-1, 1)).resize((32, 32), Image.Resampling.BOX)
        negative.save(tmp_path / "set" / f"{i}.png")
    pictures = PictureSet(tmp_path / "set", 32)
    pairs = given_pairs(pictures, w, tiny.num_ws)
    config = FinetuneConfig(
        coarse_steps=30, full_steps=0, adversarial_weight=0, sem_weight=0, pair_level=0,
        pair_batch=6, pair_pixel_weight=10.0, coarse_lr=0.02, preview_every=30,
        replace_background="no", ema_half_life_nimg=1,
    )  # fmt: skip
    net = finetune(tiny, tmp_path / "set", tmp_path / "run", config, pairs=pairs, progress=False)
    wanted = pictures.batch(range(6))
    drawn = net.synthesis(broadcast(w, tiny.num_ws), resolution=32)
    before, after = ((img - wanted).abs().mean().item() for img in (faces, drawn))
    assert after < 0.8 * before


def test_pairs_of_other_pictures_are_refused(tiny, folder, tmp_path):
    pairs = given_pairs(PictureSet(folder, 32), torch.zeros(12, 8), tiny.num_ws)
    renamed = dataclasses.replace(pairs, names=tuple(f"x{name}" for name in pairs.names))
    config = FinetuneConfig(coarse_steps=1, full_steps=0, pair_level=0)
    with pytest.raises(DatasetError, match="other pictures"):
        finetune(tiny, folder, tmp_path, config, pairs=renamed, progress=False)


def test_an_encoder_of_another_space_is_refused(tiny, large_folder, files, tmp_path):
    config = dataclasses.replace(
        CONFIG,
        pairs=dataclasses.replace(CONFIG.pairs, level=1),
        style=dataclasses.replace(CONFIG.style, pair_level=1),
    )
    with pytest.raises(CheckpointError, match="into w_plus, and one into z_plus"):
        train_style(
            tiny, large_folder, tmp_path, config, name="red", data_license="ours",
            encoder_z=files / "w_plus.safetensors", aligned="yes", progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("star", {"sem_weight": 1.0}),
        ("star", {"pair_weight": 1.0}),
        ("style", {"pair_level": 3}),
        ("style", {"discriminator": "none"}),
        ("style", {"adversarial_ramp": 2.0}),
        ("style", {"held_out": 1}),
    ],
)
def test_settings_that_contradict_each_other_are_refused(group, change):
    with pytest.raises(ConfigError):
        TrainConfig(**{group: dataclasses.replace(getattr(TrainConfig(), group), **change)})


def test_presets_grow():
    fast, default, quality = (PRESETS[name] for name in ("fast", "default", "quality"))
    for smaller, larger in ((fast, default), (default, quality)):
        assert smaller.style.coarse_steps < larger.style.coarse_steps
        assert smaller.pairs.steps * smaller.pairs.count < larger.pairs.steps * larger.pairs.count


WORKERS = """
    import dataclasses
    import sys
    import torch
    from pathlib import Path
    from facestyle.training import finetune
    from facestyle.models.mobile import MobileGenerator
    from facestyle.models.checkpoints import load_strict, read_tensors, save_tensors
    from facestyle.processes import Processes
    from tests.training.test_pipeline import CONFIG, train
    files, folder, out = map(Path, sys.argv[1:4])
    net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    load_strict(net, read_tensors(files / "g.safetensors"))
    processes = Processes()
    assert processes.count == 2
    gradient = torch.nn.Parameter(torch.zeros(3))
    gradient.grad = torch.full((3,), float(processes.rank))
    processes.average_gradients([gradient])
    assert gradient.grad.tolist() == [0.5] * 3
    runs = []
    begin = finetune._Finetuning.__init__
    def kept(self, *args):
        begin(self, *args)
        runs.append(self)
    finetune._Finetuning.__init__ = kept
    config = dataclasses.replace(CONFIG, style=dataclasses.replace(CONFIG.style, noise_share=0.3))
    train(net.eval().requires_grad_(False), folder, files, out, config=config, processes=processes)
    mine = torch.cat([t.flatten() for t in runs[-1].target.synthesis.state_dict().values()])
    both = [torch.empty_like(mine) for _ in range(2)]
    torch.distributed.all_gather(both, mine)
    assert torch.equal(*both)  # weights and noise planes
"""


def test_two_processes_train_one_style(tiny, large_folder, files, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKERS))
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
         "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0",
         str(script), str(files), str(large_folder), str(tmp_path / "out")],
        env=os.environ
        | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    made = read_tensors(tmp_path / "out" / "style" / "generator.safetensors")
    alone = train(tiny, large_folder, files, tmp_path / "alone")
    other = read_tensors(alone / "generator.safetensors")
    # Twice the pictures in every step: another result, and both went somewhere.
    assert not torch.equal(made["const"], other["const"])
    assert not torch.equal(made["const"], tiny.synthesis.const.half())
    origin = json.loads((tmp_path / "out" / "style" / "training.json").read_text())
    assert origin["processes"] == 2
    lines = (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 5  # one process writes


def test_one_process_needs_no_accelerate(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    alone = Processes("cpu")
    assert alone.is_main and alone.count == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError, match=r"facestyle\[train\]"):
        Processes()


def test_the_log_forgets_steps_that_are_run_again(tmp_path):
    state = TrainingState(tmp_path, {})
    for stage, step in (("a", 1), ("a", 2), ("b", 1), ("a", 3)):
        state.log({"stage": stage, "step": step, "loss": 1.0})
    state.forget_after("a", 1)
    assert [(row["stage"], row["step"]) for row in state.rows()] == [("a", 1), ("b", 1)]
