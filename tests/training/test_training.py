"""Training on tiny networks: it runs, learns, resumes to the same weights, and names what is wrong."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.errors import CheckpointError, ConfigError, DatasetError, OutputError
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.models.encode import encode
from facestyle.models.features import LiteFeatures
from facestyle.models.zoo import load_base_generator, load_encoder
from facestyle.processes import Processes
from facestyle.styles import bundled_style
from facestyle.training import encoder as encoder_module
from facestyle.training import state as state_module
from facestyle.training.blend import blend_files
from facestyle.training.blend import main as blend_main
from facestyle.training.data import PictureSet, jitter, shuffled_batches
from facestyle.training.encoder import EncoderConfig, train_encoder
from facestyle.training.finetune import _Finetuning, _preview, finetune, per_tensor_groups
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.losses import SemanticLoss, texture_distance
from facestyle.training.pairs import PairsConfig
from facestyle.training.preview import fit_preview, preview_error
from facestyle.training.state import TrainingState
from facestyle.training.stroke_noise import fill_planes, strokes
from facestyle.training.style_pictures import StylePictures, augment, plain_ground_matte

TINY_FINETUNE = FinetuneConfig(
    coarse_steps=4, coarse_batch=2, full_steps=2, full_batch=2, preview_every=2, noise_scale=0.5
)


def test_pictures_come_in_name_order_and_size(folder):
    pictures = PictureSet(folder, 32)
    assert len(pictures) == 12
    assert pictures.names == sorted(pictures.names)
    assert pictures[0].shape == (3, 32, 32)
    batch = pictures.batch([0, 3])
    assert batch.shape == (2, 3, 32, 32)
    assert batch.min() >= -1 and batch.max() <= 1
    assert batch[0, 0, 16, 16] > 0.5 > batch[0, 1, 16, 16]


def test_broken_pictures_are_left_out_and_empty_folders_named(folder, tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="no pictures"):
        PictureSet(tmp_path, 32)
    assert "a.png" in caplog.text
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    assert PictureSet(tmp_path, 32).names == ["b.png"]
    with pytest.raises(DatasetError, match="absent"):
        PictureSet(tmp_path / "absent", 32)


def test_batches_visit_everything_once_before_anything_twice():
    order = shuffled_batches(5, 2, torch.Generator().manual_seed(0))
    seen = [index for _ in range(5) for index in next(order)]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]


def test_jitter_and_augment_keep_shape_and_repeat_with_the_seed():
    img = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for change in (jitter, augment):
        first = change(img, torch.Generator().manual_seed(1))
        assert first.shape == img.shape
        assert torch.equal(first, change(img, torch.Generator().manual_seed(1)))
        assert not torch.equal(first, change(img, torch.Generator().manual_seed(2)))
    assert torch.equal(jitter(img, torch.Generator(), strength=0), img)


def test_matte_follows_the_outline_and_keeps_ground_coloured_insides():
    img = torch.full((3, 64, 64), 0.84)
    img[:, 16:48, 16:48] = -0.5
    img[:, 28:36, 28:36] = 0.84  # white hair inside the outline
    matte = plain_ground_matte(img)
    assert matte is not None
    assert matte[0, 4, 4] == 0
    assert matte[0, 22, 22] == 1
    assert matte[0, 32, 32] == 1
    busy = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert plain_ground_matte(busy) is None


def test_plain_grounds_are_replaced_unless_forbidden(folder):
    pictures = PictureSet(folder, 32)
    scenes = torch.zeros(2, 3, 32, 32)
    scenes[:, 2] = -1
    for mode, expected in (("auto", 0.0), ("no", 235 / 127.5 - 1)):
        made = StylePictures(pictures, replace_background=mode, flip=True)
        batch = made.batch([0, 1], scenes, torch.Generator().manual_seed(0))
        assert batch[0, 0, 1, 1].item() == pytest.approx(expected, abs=0.02)
        assert batch[0, 0, 16, 16] > 0.5
        coverage = made.coverage
        if mode == "no":
            assert coverage is None
        else:
            assert coverage.shape == (1, 32, 32)
            assert coverage[0, 0, 0] == 0 and coverage[0, 16, 16] == 1
            assert torch.equal(coverage, coverage.flip(-1))


def test_steps_are_shares_of_each_tensor():
    large, small = torch.nn.Parameter(torch.full((4,), 10.0)), torch.nn.Parameter(torch.ones(4))
    groups = per_tensor_groups([("a", large), ("b", small)], 0.01)
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.01])


def test_semantic_loss_is_zero_for_the_same_picture_and_feels_colour(tiny):
    from facestyle.models.features import LiteFeatures

    features = LiteFeatures().eval()
    img = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shifted = img + 0.2
    plain = SemanticLoss(features, 0.1, 0.0)
    assert plain(img, img).abs().max() < 1e-5
    colored = SemanticLoss(features, 0.1, 5.0)
    torch.testing.assert_close(
        colored(shifted, img) - plain(shifted, img), torch.full((2,), 1.0), rtol=0, atol=1e-3
    )


def test_the_mouth_counts_where_mouths_are():
    rng = torch.Generator().manual_seed(0)
    source = torch.rand(1, 3, 256, 256, generator=rng) * 2 - 1
    spot = torch.rand(1, 3, 32, 48, generator=rng) * 2 - 1

    def added(top: int) -> float:
        img = source.clone()
        img[:, :, top : top + 32, 104:152] = spot
        plain = SemanticLoss(features, 0.1, 0.0, finest=3)(img, source)
        return float(
            SemanticLoss(features, 0.1, 0.0, finest=3, mouth_weight=1.0)(img, source) - plain
        )

    features = LiteFeatures()
    mouth, forehead = added(172), added(30)
    assert mouth > 20 * abs(forehead) and mouth > 0.01
    coarse = SemanticLoss(features, 0.0, 0.0, finest=4)
    fine = SemanticLoss(features, 0.0, 0.0, finest=2)
    assert coarse(-source, source) < fine(-source, source)


def test_texture_is_what_is_there_and_not_where():
    noise = torch.Generator().manual_seed(0)
    maps = torch.nn.functional.normalize(torch.randn(2, 6, 8, 8, generator=noise), dim=1)
    assert texture_distance([maps], [maps.roll(3, 3).flip(2)]).abs().max() < 1e-6
    one, other = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    one[:, 0], other[:, 1] = 1.0, 1.0
    assert texture_distance([one, one], [other, other]).item() == pytest.approx(4.0)


def test_finetuning_changes_what_it_should_and_resumes_to_the_same_weights(tiny, folder, tmp_path):
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    whole = finetune(tiny, folder, tmp_path / "whole", TINY_FINETUNE, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())
    after = whole.state_dict()
    for name, tensor in after.items():
        if name.startswith("mapping."):
            assert torch.equal(tensor, before[name])
        elif name.endswith(".noise"):
            torch.testing.assert_close(tensor, 0.5 * before[name])
        elif name.startswith(("synthesis.blocks.2", "synthesis.to_image")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(after["synthesis.const"], before["synthesis.const"])
    assert (tmp_path / "whole" / "previews" / "full_00002.png").is_file()
    snapshot = read_tensors(tmp_path / "whole" / "snapshots" / "full_00002.safetensors")
    torch.testing.assert_close(snapshot["const"], after["synthesis.const"].half())

    class Killed(Exception):
        pass

    def kill_at_three(self, row):
        if row["stage"] == "coarse" and row["step"] == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "log", kill_at_three)
        with pytest.raises(Killed):
            finetune(tiny, folder, tmp_path / "cut", TINY_FINETUNE, progress=False)
    resumed = finetune(tiny, folder, tmp_path / "cut", TINY_FINETUNE, progress=False)
    for name, tensor in resumed.state_dict().items():
        torch.testing.assert_close(tensor, after[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("every", [1, 2])
def test_diverged_finetuning_ends_before_anything_of_it_is_kept(tiny, folder, tmp_path, every):
    config = dataclasses.replace(TINY_FINETUNE, preview_every=every, coarse_lr=float("inf"))
    with pytest.raises(
        ConfigError, match=f"diverged in stage coarse, step {every}: .*learning rate"
    ):
        finetune(tiny, folder, tmp_path, config, progress=False)
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not {name for name in kept if name.endswith((".pt", ".png", ".safetensors"))}


def test_what_diverged_goes_on_from_the_last_checkpoint(tiny, folder, tmp_path, monkeypatch):
    step = _Finetuning._step

    def broken(self, indices, batch, resolution, soften, number, *rest):
        row = step(self, indices, batch, resolution, soften, number, *rest)
        return row | ({"adv": float("nan")} if number == 3 else {})

    config = dataclasses.replace(TINY_FINETUNE, preview_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(_Finetuning, "_step", broken)
        with pytest.raises(ConfigError, match="step 4: no finite number any more in adv"):
            finetune(tiny, folder, tmp_path, config, progress=False)
    assert torch.load(tmp_path / "coarse.pt", weights_only=True)["step"] == 2
    finetune(tiny, folder, tmp_path, config, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 1, 2]


def test_a_short_stage_counts_in_what_is_returned(tiny, folder, tmp_path):
    """The average forgets what was before it, and the rate rises within it."""
    config = dataclasses.replace(TINY_FINETUNE, coarse_steps=0, full_steps=8, noise_scale=1.0)
    made = finetune(tiny, folder, tmp_path, config, progress=False).synthesis.state_dict()
    kept = torch.load(tmp_path / "full.pt", weights_only=True)["parts"]
    last = {k.removeprefix("synthesis."): v for k, v in kept["target"].items()}
    name = "blocks.0.conv1.weight"
    before = tiny.synthesis.state_dict()[name]
    moved, averaged = (last[name] - before).norm(), (made[name] - before).norm()
    assert averaged > moved / 2
    assert moved > 0.4 * config.full_lr * before.norm(), "the rate rises within the stage"


def test_what_has_no_loss_is_refused(tiny, folder, tmp_path):
    config = dataclasses.replace(TINY_FINETUNE, adversarial_weight=0.0, sem_weight=0.0)
    with pytest.raises(ConfigError, match="no loss has a weight"):
        finetune(tiny, folder, tmp_path, config, progress=False)


def test_strokes_begin_as_those_of_the_style_it_starts_from(tiny, folder, tmp_path):
    config = dataclasses.replace(
        TINY_FINETUNE, coarse_steps=0, full_steps=0, noise_scale=1.0, noise_share=0.3
    )

    def planes(**noise):
        start = copy.deepcopy(tiny.synthesis)
        for name, buffer in start.named_buffers():
            if name.endswith(".noise"):
                buffer.copy_(torch.full_like(buffer, noise.get(name.split(".")[1], 0.5)))
        save_tensors(start.state_dict(), tmp_path / "init.safetensors", metadata={})
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        made = finetune(
            tiny, folder, out, config, init=tmp_path / "init.safetensors", progress=False
        )
        return [made.synthesis.blocks[i].conv1.noise for i in (0, 1)]

    first, second = planes()
    assert (first == 0.5).all() and (second == 0.5).all()
    first, second = planes(**{"1": 0.0})
    assert (first == 0.5).all() and second.std() > 0, "where there were none"


def test_a_painted_style_keeps_the_first_blocks_and_trains_strokes(tiny, folder, tmp_path):
    before = {k: v.clone() for k, v in tiny.synthesis.state_dict().items()}
    config = dataclasses.replace(TINY_FINETUNE, noise_scale=1.0, early_blocks=1, noise_share=0.3)
    filled = copy.deepcopy(tiny)
    fill_planes(filled, 0.3, range(1, filled.synthesis.preview_blocks), config.seed)
    strokes_at_first = filled.synthesis.state_dict()
    trained = finetune(tiny, folder, tmp_path / "whole", config, progress=False)
    after = trained.synthesis.state_dict()
    planes = [name for name in after if name.startswith("blocks.1.") and name.endswith(".noise")]
    assert len(planes) == 2
    for name, tensor in after.items():
        if name in planes:
            change = (tensor - strokes_at_first[name]).abs().max()
            assert 0 < change < 0.1 * strokes_at_first[name].std()
        elif name.startswith(("const", "stem.", "blocks.0.", "blocks.2.")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(after["blocks.1.conv1.weight"], before["blocks.1.conv1.weight"])
    snapshot = read_tensors(tmp_path / "whole" / "snapshots" / "full_00002.safetensors")
    torch.testing.assert_close(snapshot[planes[0]], after[planes[0]].half())

    class Killed(Exception):
        pass

    def kill_at_three(self, row):
        if row["step"] == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "log", kill_at_three)
        with pytest.raises(Killed):
            finetune(tiny, folder, tmp_path / "cut", config, progress=False)
    resumed = finetune(
        tiny, folder, tmp_path / "cut", config, progress=False
    ).synthesis.state_dict()
    for name in planes:
        torch.testing.assert_close(resumed[name], after[name], rtol=1e-4, atol=1e-5, msg=name)


def test_strokes_follow_one_field_of_directions():
    def directions(side):
        plane = strokes(side, 0, torch.Generator().manual_seed(side))
        assert plane.std().item() == pytest.approx(1)
        x = (plane[:, 2:] - plane[:, :-2])[1:-1]
        y = (plane[2:] - plane[:-2])[:, 1:-1]
        double = torch.stack([x * x - y * y, 2 * x * y])  # the direction's angle, twice
        double = torch.nn.functional.adaptive_avg_pool2d(double, 8)
        return torch.nn.functional.normalize(double, dim=0)

    assert (directions(128) * directions(256)).sum(0).mean() > 0.7
    other = strokes(128, 1, torch.Generator().manual_seed(128))
    assert not torch.allclose(other, strokes(128, 0, torch.Generator().manual_seed(128)))


def test_finetuning_goes_on_from_a_style(tiny, folder, tmp_path):
    first = finetune(tiny, folder, tmp_path / "a", TINY_FINETUNE, progress=False)
    save_tensors(first.synthesis.state_dict(), tmp_path / "style.safetensors", metadata={})
    none = dataclasses.replace(TINY_FINETUNE, coarse_steps=0, full_steps=0)
    file = tmp_path / "style.safetensors"
    again = finetune(tiny, folder, tmp_path / "b", none, init=file, progress=False)
    for name, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with pytest.raises(ConfigError, match="other settings"):
        finetune(tiny, folder, tmp_path / "b", none, progress=False)
    save_tensors({"x": torch.ones(1)}, file, metadata={})
    with pytest.raises(CheckpointError, match="style"):
        finetune(tiny, folder, tmp_path / "c", none, init=file, progress=False)


def test_a_run_does_not_go_on_with_other_pictures(tiny, folder, tmp_path):
    """Else the old style would come back under the new pictures' name."""
    mine = shutil.copytree(folder, tmp_path / "mine")
    finetune(tiny, mine, tmp_path / "run", TINY_FINETUNE, progress=False)
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    changed = sorted(mine.iterdir())[0]
    Image.new("RGB", (40, 40), "red").save(changed)
    with pytest.raises(ConfigError, match=r"other settings \(pictures\)"):
        finetune(tiny, mine, tmp_path / "run", TINY_FINETUNE, progress=False)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def test_each_discriminator_has_its_own_rate(tiny, folder, tmp_path):
    """StyleGAN2's weights are near 1, and its penalty comes every 16th step, for which Adam is corrected."""
    for kind, rate, memory in (
        ("projected", 2e-4, 0.99),
        ("stylegan2", 2e-3 * 16 / 17, 0.99 ** (16 / 17)),
    ):
        config = dataclasses.replace(TINY_FINETUNE, discriminator=kind, discriminator_width=0.05)
        run = _Finetuning(
            tiny, folder, tmp_path / kind, config, None, None, Processes("cpu"), False
        )
        (group,) = run.d_optimizer.param_groups
        assert group["lr"] == pytest.approx(rate) and group["betas"] == pytest.approx((0, memory))
    config = dataclasses.replace(TINY_FINETUNE, discriminator_lr=1e-3)
    run = _Finetuning(tiny, folder, tmp_path / "own", config, None, None, Processes("cpu"), False)
    assert run.d_optimizer.param_groups[0]["lr"] == 1e-3


def test_a_folder_of_another_run_is_not_touched(tmp_path):
    TrainingState(tmp_path, {"seed": 0})
    TrainingState(tmp_path, {"seed": 0})
    with pytest.raises(ConfigError, match="other settings"):
        TrainingState(tmp_path, {"seed": 1})
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 0}


def test_a_run_keeps_other_processes_out_until_it_ends_or_is_killed(tmp_path):
    code = f"""
import sys
from facestyle.training.state import TrainingState
state = TrainingState({str(tmp_path)!r}, {{"seed": 0}})
print("there", flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "there\n"
        with pytest.raises(
            OutputError, match=f"^{tmp_path}: another process is at work there; wait"
        ):
            TrainingState(tmp_path, {"seed": 0})
        TrainingState(tmp_path, {"seed": 0}, is_main=False)  # another of the same run
    finally:
        other.kill()
        other.communicate()
    state = TrainingState(tmp_path, {"seed": 0})
    TrainingState(tmp_path, {"seed": 0})  # a stage within this process
    del state


def test_a_run_that_is_over_leaves_no_thread_behind(tmp_path):
    """TensorBoard's writer has one, which would fail when the folder is gone."""
    before = threading.active_count()
    state = TrainingState(tmp_path / "run", {"steps": 3})
    state.log({"stage": "coarse", "step": 1, "loss": 0.5})
    assert threading.active_count() == before + 1
    del state
    assert threading.active_count() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_ends_a_run_with_advice(tmp_path):
    """Python's error names no file, which the command line takes for standard output's."""
    state = TrainingState(tmp_path, {})
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        OutputError, match=r"log\.jsonl: .*No space left.*run the same command again"
    ):
        state.log({"stage": "a", "step": 1, "loss": 0.5})


def test_a_tensorboard_log_that_cannot_be_written_is_warned_of_once(tmp_path, monkeypatch, caplog):
    class Full:
        def add_scalar(self, *_):
            raise OSError(28, "No space left on device")

        close = add_scalar

    monkeypatch.setattr(state_module, "_open_board", lambda *_: Full())
    state = TrainingState(tmp_path, {})
    for step in (1, 2):
        state.log({"stage": "a", "step": step, "loss": 0.5})
    assert [row["step"] for row in state.rows()] == [1, 2]
    assert len(caplog.messages) == 1 and "No space left" in caplog.messages[0]
    del state  # closes it, which fails likewise


def test_tensorboard_shows_a_stage_also_when_the_next_one_is_resumed(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_multiplexer")
    for stage, steps in (("coarse", (1, 2, 3)), ("full", (1,)), ("full", (2,))):
        state = TrainingState(tmp_path, {})
        for step in steps:
            state.log({"stage": stage, "step": step, "loss": 0.5})
        del state
    shown = events.EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "tensorboard"))
    shown.Reload()
    for stage, steps in (("coarse", [1, 2, 3]), ("full", [1, 2])):
        assert [event.step for event in shown.Tensors(stage, f"{stage}/loss")] == steps


def test_previews_that_cannot_be_written_are_named(tiny, tmp_path):
    (tmp_path / "previews").write_text("")
    w = tiny.w_avg[None].repeat(2, 1)
    with pytest.raises(OutputError, match=r"a\.png"):
        _preview(tiny, tiny, w, tmp_path / "previews" / "a.png")
    _preview(tiny, tiny, w, tmp_path / "others" / "a.png")
    with Image.open(tmp_path / "others" / "a.png") as sheet:
        assert sheet.width > 2 * 256 and sheet.height > 2 * 256


def test_damaged_checkpoints_are_named(tmp_path):
    state = TrainingState(tmp_path, {})
    layer = torch.nn.Linear(2, 2)
    assert state.resume("a", {"layer": layer}) == 0
    state.save("a", 7, {"layer": layer})
    assert state.steps_done("a") == 7
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        state.resume("a", {"layer": layer})


def test_a_checkpoint_of_a_gpu_is_gone_on_with_without_one(tmp_path, monkeypatch):
    state, layer = TrainingState(tmp_path, {}), torch.nn.Linear(2, 2)
    with monkeypatch.context() as patch:  # as CUDA's tensors are marked
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        state.save("a", 7, {"layer": layer})
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "a.pt", weights_only=True)
    other = torch.nn.Linear(2, 2)
    assert state.resume("a", {"layer": other}) == 7
    assert torch.equal(other.weight, layer.weight)


def test_a_diverged_encoder_is_named(tiny, folder, tmp_path):
    config = EncoderConfig(
        pool_size=8, code_steps=2, code_batch=2, photo_steps=0, checkpoint_every=1,
        code_lr=float("inf"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"diverged in stage codes, step 1: .*encoder"):
        train_encoder(tiny, tmp_path / "run", [folder], folder, config, progress=False)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_encoder_learns_the_tiny_generator(tiny, folder, tmp_path, dtype):
    config = EncoderConfig(
        pool_size=64, code_steps=16, code_batch=16, photo_steps=2, photo_batch=2, pool_batch=2,
        checkpoint_every=4, code_lr=3e-3, dtype=dtype,
    )  # fmt: skip
    encoder = train_encoder(tiny, tmp_path / "run", [folder], folder, config, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    codes = [row["code"] for row in rows if row["stage"] == "codes"]
    assert np.mean(codes[-4:]) < 0.8 * np.mean(codes[:2])
    assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, 8)
    assert (tmp_path / "run" / "encoder.safetensors").is_file()
    again = train_encoder(tiny, tmp_path / "run", [folder], folder, config, progress=False)
    for a, b in zip(again.parameters(), encoder.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("cls", "change"),
    [
        (EncoderConfig, {"pool_size": 0}),
        (EncoderConfig, {"psi_min": 2.0}),
        (EncoderConfig, {"code_steps": -1}),
        (EncoderConfig, {"dtype": "int8"}),
        (FinetuneConfig, {"coarse_batch": 0}),
        (FinetuneConfig, {"psi_min": 0.9, "psi_max": 0.5}),
        (FinetuneConfig, {"replace_background": "maybe"}),
        (FinetuneConfig, {"sem_weight": -1.0}),
        (FinetuneConfig, {"sem_finest": 5}),
        (FinetuneConfig, {"patch_tones": 1.5}),
        (FinetuneConfig, {"coarse_lr": 0.0}),
        (FinetuneConfig, {"full_lr": -1e-3}),
        (FinetuneConfig, {"psi_max": 1.6}),
        (FinetuneConfig, {"coarse_lr": float("nan")}),
        (FinetuneConfig, {"sem_weight": float("nan")}),
        (FinetuneConfig, {"discriminator_width": -1.0}),
        (EncoderConfig, {"code_lr": -1.0}),
        (EncoderConfig, {"prior_weight": -1.0}),
        (PairsConfig, {"lr": 0.0}),
        (PairsConfig, {"psi": 9.0}),
    ],
)
def test_impossible_settings_are_refused(cls, change):
    with pytest.raises(ConfigError):
        dataclasses.replace(cls(), **change)


def test_a_fitted_preview_head_is_closer_than_a_random_one(tiny):
    fitted = fit_preview(tiny, samples=12, pixels=128, steps=40, progress=False)
    before, after = preview_error(tiny, 4), preview_error(fitted, 4)
    assert after["rmse"] < 0.5 * before["rmse"]
    assert after["psnr_db"] > before["psnr_db"]
    head = "synthesis.to_preview."
    for name, tensor in fitted.state_dict().items():
        assert torch.equal(tensor, tiny.state_dict()[name]) != name.startswith(head), name


@pytest.mark.parametrize("stage", ["codes", "photos"])
def test_a_killed_encoder_run_goes_on_to_the_same_weights(tiny, folder, tmp_path, stage):
    config = EncoderConfig(
        space="z_plus", pool_size=16, code_steps=4, code_batch=4, photo_steps=4, photo_batch=2,
        pool_batch=2, checkpoint_every=2,
    )  # fmt: skip
    whole = train_encoder(tiny, tmp_path / "whole", [folder], folder, config, progress=False)

    class Killed(Exception):
        pass

    def kill_at_three(self, row):
        if row["stage"] == stage and row["step"] == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "log", kill_at_three)
        with pytest.raises(Killed):
            train_encoder(tiny, tmp_path / "cut", [folder], folder, config, progress=False)
    resumed = train_encoder(tiny, tmp_path / "cut", [folder], folder, config, progress=False)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(
            resumed.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name
        )
    assert resumed(torch.zeros(1, 3, 32, 32)).shape == (1, tiny.num_ws, 8)


def test_an_encoder_of_w_starts_one_of_w_plus_at_the_same_codes(tiny, folder, tmp_path):
    first = EncoderConfig(
        pool_size=8, code_steps=1, code_batch=4, photo_steps=0, checkpoint_every=1
    )
    one = train_encoder(tiny, tmp_path / "w", [folder], folder, first, progress=False)
    none = dataclasses.replace(first, space="w_plus", code_steps=0)
    file = tmp_path / "w" / "encoder.safetensors"
    rows = train_encoder(tiny, tmp_path / "p", [folder], folder, none, init=file, progress=False)
    img = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = one(img)[:, None].expand(-1, tiny.num_ws, -1)
    torch.testing.assert_close(rows(img), expected, rtol=0, atol=1e-2)  # through float16


def test_the_photos_teach_an_encoder_its_corrections(tiny, folder, tmp_path):
    config = EncoderConfig(
        pool_size=8, code_steps=1, code_batch=4, photo_steps=4, photo_batch=2, pool_batch=2,
        checkpoint_every=4, corrections=2,
    )  # fmt: skip
    encoder = train_encoder(tiny, tmp_path / "run", [folder], folder, config, progress=False)
    assert encoder.corrector.out.weight.abs().sum() > 0
    loaded = load_encoder(tmp_path / "run" / "encoder.safetensors")
    assert loaded.corrections == 2
    img = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        once, corrected = loaded(img), encode(loaded, img, tiny)
        torch.testing.assert_close(corrected, encode(encoder, img, tiny), rtol=0, atol=1e-2)
    assert not torch.equal(corrected, once)


def test_an_encoder_without_corrections_starts_one_with_them(tiny, folder, tmp_path):
    first = EncoderConfig(
        pool_size=8, code_steps=1, code_batch=4, photo_steps=0, checkpoint_every=1, corrections=0
    )
    one = train_encoder(tiny, tmp_path / "a", [folder], folder, first, progress=False)
    file = tmp_path / "a" / "encoder.safetensors"
    more = dataclasses.replace(first, code_steps=0, corrections=1)
    again = train_encoder(tiny, tmp_path / "b", [folder], folder, more, init=file, progress=False)
    img = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(again(img), one(img), rtol=0, atol=1e-2)  # through float16
    back = tmp_path / "b" / "encoder.safetensors"
    fewer = tmp_path / "fewer.safetensors"
    assert blend_main([str(back), "--shares", "1", "--corrections", "1", "-o", str(fewer)]) == 0
    assert load_encoder(fewer).corrections == 1
    with pytest.raises(ConfigError, match="0 corrections"):
        blend_main([str(file), "--shares", "1", "--corrections", "1", "-o", str(fewer)])
    none = dataclasses.replace(first, code_steps=0)
    train_encoder(tiny, tmp_path / "c", [folder], folder, none, init=back, progress=False)


def test_training_can_start_from_an_encoder(tiny, folder, tmp_path):
    first = EncoderConfig(
        pool_size=8, code_steps=1, code_batch=4, photo_steps=0, checkpoint_every=1, seed=3
    )
    train_encoder(tiny, tmp_path / "a", [folder], folder, first, progress=False)
    file = tmp_path / "a" / "encoder.safetensors"
    none = dataclasses.replace(first, code_steps=0)
    again = train_encoder(tiny, tmp_path / "b", [folder], folder, none, init=file, progress=False)
    for name, tensor in read_tensors(file).items():
        torch.testing.assert_close(again.state_dict()[name], tensor.float(), rtol=0, atol=0)


def test_an_encoder_run_does_not_go_on_with_other_photos_or_another_start(tiny, folder, tmp_path):
    config = EncoderConfig(
        pool_size=8, code_steps=1, code_batch=4, photo_steps=0, checkpoint_every=1
    )
    out = tmp_path / "run"
    train_encoder(tiny, out, [folder], folder, config, progress=False)
    assert (out / "previews" / "codes_00001.png").is_file()
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (40, 40), "red").save(other / "0.png")
    start = out / "encoder.safetensors"
    for faces, val_faces, init, named in (
        (other, folder, None, "faces"),
        (folder, other, None, "val_faces"),
        (folder, folder, start, "init"),
    ):
        with pytest.raises(ConfigError, match=rf"other settings \({named}\)"):
            train_encoder(tiny, out, [faces], val_faces, config, init=init, progress=False)
    with pytest.raises(CheckpointError, match="absent"):
        train_encoder(tiny, out, [folder], folder, config, init=tmp_path / "absent")
    begun = json.loads((out / "config.json").read_text())  # by a version that did not note them
    old = {name: begun[name] for name in begun if name not in ("faces", "val_faces", "init")}
    (out / "config.json").write_text(json.dumps(old))
    train_encoder(tiny, out, [folder], folder, config, init=start, progress=False)


def test_a_pool_that_does_not_fit_on_the_disk_is_refused_before_it_is_mapped(
    tiny, folder, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(encoder_module.shutil, "disk_usage", lambda _: usage(1000))
    config = EncoderConfig(pool_size=8)
    with pytest.raises(OutputError, match=r"0\.00 GB are free; free some space"):
        train_encoder(tiny, tmp_path, [folder], folder, config, progress=False)
    assert not list((tmp_path / "pool").iterdir())


def test_blending_is_a_weighted_mean(tmp_path):
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, value in zip(files, (1.0, 2.0), strict=True):
        save_tensors({"x": torch.full((3,), value)}, path, metadata={"format": "f"})
    torch.testing.assert_close(blend_files(files, [0.25, 0.75])["x"], torch.full((3,), 1.75))
    with pytest.raises(ConfigError):
        blend_files(files, [0.5, 0.6])
    with pytest.raises(ConfigError):
        blend_files(files, [1.0])
    save_tensors({"y": torch.ones(3)}, files[1], metadata={})
    with pytest.raises(CheckpointError, match="other tensors"):
        blend_files(files, [0.5, 0.5])
    style = bundled_style("illustration") / "generator.safetensors"
    plain = load_base_generator().synthesis.state_dict()
    for name, tensor in blend_files(["base", style], [1.0, 0.0]).items():
        torch.testing.assert_close(tensor, plain[name])
    out = tmp_path / "out.safetensors"
    for words in ([str(style), "base"], ["base", str(style)]):
        mixed = tmp_path / f"{words[0][-4:]}.safetensors"
        assert blend_main([*words, "--shares", "0.5", "0.5", "-o", str(mixed)]) == 0
        assert read_metadata(mixed) == read_metadata(style)
    assert blend_main([str(files[0]), "--shares", "1", "-o", str(out)]) == 0
    assert read_tensors(out)["x"].dtype == torch.float16
