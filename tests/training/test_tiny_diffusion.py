"""facestyle-tiny-diffusion at a size that trains in seconds: it learns, resumes, and runs the diffusion baselines."""

import dataclasses
import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("diffusers", reason="needs the extra diffusion")

from facestyle.baselines.inst import Inst, InstConfig
from facestyle.baselines.inst_training import InstTraining
from facestyle.baselines.ntc import Ntc, NtcConfig
from facestyle.baselines.styleid import StyleId, StyleIdConfig
from facestyle.cli import main
from facestyle.errors import (
    CheckpointError,
    ConfigError,
    DeviceMemoryError,
    MissingDependencyError,
    OutputError,
)
from facestyle.models.checkpoints import read_tensors
from facestyle.models.mobile import MobileGenerator
from facestyle.models.zoo import load_base_generator
from facestyle.training import tiny_diffusion, tiny_diffusion_models
from facestyle.training.state import TrainingState
from facestyle.training.tiny_diffusion import train_tiny_diffusion
from facestyle.training.tiny_diffusion_models import (
    CLIP_FOLDER,
    NAME,
    TinyDiffusionConfig,
    build_tiny_diffusion,
    captions_of,
    save_tiny_diffusion,
)
from facestyle.training.tiny_diffusion_pictures import FaceSource, bundled_sources, draw_pool

TINY = TinyDiffusionConfig(
    image_px=64, pictures=12, vae_widths=(8, 8, 16, 16), unet_widths=(16, 32, 32, 32), norm_groups=4,
    text_width=32, text_layers=1, vae_steps=3, vae_batch=2, vae_lr=2e-3, unet_steps=3, unet_batch=4,
    unet_lr=2e-3, ema_half_life_nimg=8, preview_steps=1, preview_every=2,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sources(tiny):
    """People, and a style of the same size in other colours."""
    torch.manual_seed(1)
    other = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    other = other.eval().requires_grad_(False)
    return [FaceSource("photo", tiny), FaceSource("cartoon", other, psi=0.8, license="mit")]


def train(folder, sources, config=TINY, **options):
    return train_tiny_diffusion(
        folder, config, sources=sources, device="cpu", progress=False, **options
    )


@pytest.fixture(scope="module")
def run(sources, tmp_path_factory):
    """Folder of a run of 12 and 15 steps."""
    folder = tmp_path_factory.mktemp("run")
    config = dataclasses.replace(TINY, vae_steps=12, unet_steps=15, preview_every=20)
    train(folder, sources, config)
    return folder


@pytest.fixture(scope="module")
def model(run):
    return run / NAME


@pytest.fixture(scope="module")
def crop():
    return torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.fixture(scope="module")
def style_picture(tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("picture") / "style.png"
    Image.new("RGB", (64, 64), (220, 40, 30)).save(path)
    return path


def rows_of(folder, stage):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == stage]


def weights_of(folder):
    files = sorted((folder / NAME).rglob("*.safetensors"))
    return {f"{path.parent.name}.{k}": v for path in files for k, v in read_tensors(path).items()}


def test_both_losses_fall(run):
    for stage, name, steps, share in (("vae", "pixel", 12, 0.8), ("unet", "noise", 15, 0.9)):
        rows = rows_of(run, stage)
        assert [row["step"] for row in rows] == list(range(1, steps + 1))
        losses = [row[name] for row in rows]
        assert np.mean(losses[-5:]) < share * np.mean(losses[:5])


def test_previews_show_every_source(run):
    from PIL import Image

    names = sorted(path.name for path in (run / "previews").iterdir())
    assert names == ["unet_000015.jpg", "vae_000012.jpg"]
    with Image.open(run / "previews" / "unet_000015.jpg") as sheet:
        assert sheet.height > 2 * 128


def test_the_methods_load_it_and_stylize(model, crop, style_picture, tmp_path):
    ntc = Ntc.from_pretrained(model, config=NtcConfig(steps=4), device="cpu")
    styleid = StyleId.from_pretrained(model, config=StyleIdConfig(steps=2), device="cpu")
    learning = InstTraining(steps=2, clip=str(model / CLIP_FOLDER))
    inst = Inst.from_pretrained(model, config=InstConfig(steps=4, training=learning), device="cpu")
    styleid.prepare(style_picture, tmp_path / "styleid", progress=False)
    inst.prepare(style_picture, tmp_path / "inst", progress=False)
    plain = ntc.model.decode(ntc.model.encode(torch.nn.functional.interpolate(crop, 64)))
    for method in (ntc, inst, styleid):
        img = method.stylize(crop)
        assert img.shape == (1, 3, 64, 64) and img.isfinite().all()
        assert img.abs().max() <= 1
        assert (img - plain).abs().mean() > 1e-3
        assert NAME in method.model.name


def test_latents_have_deviation_one(model, run):
    ntc = Ntc.from_pretrained(model, device="cpu")
    pictures = read_tensors(run / "pool" / "00000.safetensors")["pictures"]
    mean, std = ntc.model.posterior(pictures.float() / 127.5 - 1)
    assert (mean.var() + std.square().mean()).sqrt().item() == pytest.approx(1, abs=0.02)


def test_the_card_says_what_it_is(model):
    text = (model / "README.md").read_text()
    assert text.count("---\n") == 2
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "other" and front["library_name"] == "diffusers"
    assert f"# {NAME}\n" in text
    assert "**This is not Stable Diffusion**" in text
    assert "a cartoon portrait of a face | mit" in text
    assert "facestyle train-diffusion" in text and "--styles cartoon" in text


def test_the_origin_is_kept(model):
    origin = json.loads((model / "training.json").read_text())
    assert origin["name"] == NAME and origin["is_stable_diffusion"] is False
    assert origin["settings"]["image_px"] == 64 and origin["seed"] == 0
    assert {stage: facts["steps"] for stage, facts in origin["stages"].items()} == {
        "vae": 12, "unet": 15,
    }  # fmt: skip
    assert origin["stages"]["unet"]["last_losses"]["noise"] > 0
    assert "--set unet_widths=16,32,32,32" in origin["command"]
    assert origin["parameters"]["unet"] > 100_000


class Killed(Exception):
    pass


def test_a_run_killed_in_each_stage_goes_on_to_the_same_weights(sources, tmp_path, monkeypatch):
    train(tmp_path / "whole", sources)
    cut, log, killed = tmp_path / "cut", TrainingState.log, []

    def kill_at_three(self, row):
        log(self, row)
        if row["step"] == 3 and row["stage"] not in killed:
            killed.append(row["stage"])
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "log", kill_at_three)
        for _ in range(2):
            with pytest.raises(Killed):
                train(cut, sources)
        assert not (cut / NAME).exists()
        train(cut, sources)
    assert killed == ["vae", "unet"]
    for stage in killed:
        assert [row["step"] for row in rows_of(cut, stage)] == [1, 2, 3]
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(cut)
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_model_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    pipe = build_tiny_diffusion(TINY, captions_of("photo"))
    sources = [{"name": "photo", "psi": 1.0, "license": "mit"}]

    def save(command):
        return save_tiny_diffusion(pipe, tmp_path / NAME, {"sources": sources, "command": command})

    def full_disk(*_):
        raise OSError("no space left on device")

    for before in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(tiny_diffusion_models, "write_json", full_disk)
            with pytest.raises(OutputError, match="no space left"):
                save("broken")
        assert [path.name for path in tmp_path.iterdir()] == [NAME] * before
        assert "command 1" in (save("command 1") / "README.md").read_text()
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert "license: mit" in (save("command 2") / "README.md").read_text()
    assert Ntc.from_pretrained(tmp_path / NAME, device="cpu").resolution == 64


def test_time_that_is_up_ends_training(sources, tmp_path, monkeypatch):
    def one_a_look(self):
        self.before += 1
        return self.before

    monkeypatch.setattr(tiny_diffusion.TrainingClock, "seconds", one_a_look)
    config = dataclasses.replace(TINY, vae_steps=1000, unet_steps=1000, vae_share=0.5)
    folder = train(tmp_path, sources, config, minutes=0.1)
    stages = json.loads((folder / "training.json").read_text())["stages"]
    assert {stage: facts["steps"] for stage, facts in stages.items()} == {"vae": 1, "unet": 1}


def test_bfloat16_trains_float32_weights(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_diffusion, "_precision", lambda device: torch.bfloat16)
    config = dataclasses.replace(TINY, vae_steps=1, unet_steps=1)
    folder = train(tmp_path, sources, config)
    assert json.loads((folder / "training.json").read_text())["precision"] == "bfloat16"
    parts = torch.load(tmp_path / "unet.pt", weights_only=True)["parts"]
    assert {tensor.dtype for tensor in parts["net"].values()} == {torch.float32}


def test_the_pool_depends_on_the_seed_alone(sources, tmp_path):
    first = draw_pool(tmp_path / "a", sources, TINY, CPU, progress=False)
    again = draw_pool(tmp_path / "b", sources, TINY, CPU, progress=False)
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.kinds, again.kinds)
    assert set(first.kinds.tolist()) == {0, 1}
    seeded = dataclasses.replace(TINY, seed=1)
    other = draw_pool(tmp_path / "c", sources, seeded, CPU, progress=False)
    assert not torch.equal(first.pictures, other.pictures)
    batch = first.batch([0, 5], CPU)
    assert batch.shape == (2, 3, 64, 64) and batch.min() >= -1 and batch.max() <= 1


def test_shares_of_people(sources, tmp_path):
    for share in (0, 1):
        config = dataclasses.replace(TINY, photo_share=share)
        pool = draw_pool(tmp_path / str(share), sources, config, CPU, progress=False)
        assert set(pool.kinds.tolist()) == {1 - share}


def test_a_damaged_pool_is_named(sources, tmp_path):
    draw_pool(tmp_path, sources, TINY, CPU, progress=False)
    path = tmp_path / "00000.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="00000"):
        draw_pool(tmp_path, sources, TINY, CPU, progress=False)


def test_captions_name_the_style_and_are_a_token_a_word():
    captions = [*captions_of("photo"), *captions_of("anime"), *captions_of("cartoon")]
    assert NtcConfig().prompt in captions and "an anime portrait of a face" in captions
    assert len(set(captions)) == len(captions)
    tokenizer = build_tiny_diffusion(TINY, captions).tokenizer
    for caption in captions:
        assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2
    for other in ("*", "zebra", "é"):
        assert tokenizer.unk_token_id not in tokenizer(other).input_ids[1:-1]


def test_bundled_sources_are_people_and_the_styles():
    people, style = bundled_sources(["cartoon"])
    assert (people.name, style.name) == ("photo", "cartoon")
    assert style.psi < people.psi == 1
    assert torch.equal(people.generator.w_avg, load_base_generator().w_avg)


def test_the_default_is_as_large_as_it_says():
    captions = [text for name in ("photo", "anime") for text in captions_of(name)]
    with pytest.MonkeyPatch.context() as patch:
        build = tiny_diffusion_models.build_pipeline
        patch.setattr(
            tiny_diffusion_models, "build_pipeline", lambda *a, **k: build(*a, **k, device="meta")
        )
        pipe = build_tiny_diffusion(TinyDiffusionConfig(), captions)
    sizes = {
        name: sum(p.numel() for p in getattr(pipe, name).parameters()) / 1e6
        for name in ("unet", "vae", "text_encoder")
    }
    assert sizes == pytest.approx({"unet": 69.7, "vae": 8.7, "text_encoder": 3.3}, abs=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_px": 100}, "multiple of 64"),
        ({"unet_widths": (16, 32, 32)}, "4 multiples"),
        ({"vae_widths": (9, 8, 16, 16)}, "vae_widths"),
        ({"heads": 5}, "multiples of heads"),
        ({"psi_min": 0.9, "psi_max": 0.5}, "psi_min <= psi_max"),
        ({"caption_dropout": 1.5}, "from 0 to 1"),
        ({"unet_steps": 0}, "unet_steps must be 1 or more"),
        ({"vae_lr": 0.0}, "vae_lr must be above 0"),
        ({"vae_share": 1.0}, "vae_share"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **change)


def test_other_settings_in_the_same_folder_are_refused(run, sources):
    with pytest.raises(ConfigError, match="other settings"):
        train(run, sources)


def test_two_sources_of_one_name_are_refused(sources, tmp_path):
    with pytest.raises(ConfigError, match="names of their own"):
        train(tmp_path, [sources[0], sources[0]])
    with pytest.raises(ConfigError, match="minutes"):
        train(tmp_path, sources, minutes=0)


@pytest.mark.parametrize(("every", "broken"), [(1, "step 1: .*vae;"), (2, "step 2: .*loss")])
def test_diverged_training_is_named(sources, tmp_path, every, broken):
    config = dataclasses.replace(TINY, vae_lr=float("inf"), preview_every=every)
    with pytest.raises(ConfigError, match=f"diverged in stage vae, {broken}"):
        train(tmp_path, sources, config)
    assert not list(tmp_path.rglob("vae.pt"))


def test_too_little_memory_says_what_takes_less(sources, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny_diffusion, "draw_pool", fail)
    with pytest.raises(DeviceMemoryError, match="lower vae_batch and unet_batch"):
        train(tmp_path, sources)


def test_without_diffusers_the_extra_is_named(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "diffusers" else find(name, *rest)
    )  # fmt: skip
    with pytest.raises(MissingDependencyError, match=r"install facestyle\[diffusion\]"):
        train_tiny_diffusion(tmp_path)
    assert main(["train-diffusion", "-o", str(tmp_path / "run")]) == 2
    assert "MissingDependencyError" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_shows_its_settings(capsys, tmp_path):
    out = tmp_path / "run"
    given = ["--steps", "7", "--set", "seed=3", "--set", "unet_widths=64,64,64,64"]
    assert main(["train-diffusion", "-o", str(out), "--dry-run", *given]) == 0
    shown = capsys.readouterr().out
    assert "unet_steps=7\n" in shown and "seed=3\n" in shown
    assert "unet_widths=64,64,64,64\n" in shown
    assert not out.exists()
    assert main(["train-diffusion", "-o", str(out), "--dry-run", "--set", "sied=3"]) == 2


def test_the_command_trains(sources, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "facestyle.training.tiny_diffusion_pictures.bundled_sources",
        lambda styles: [s for s in sources if s.name in ("photo", *styles)],
    )
    out = tmp_path / "run"
    config = dataclasses.replace(TINY, vae_steps=1, unet_steps=1)
    given = [
        f"--set={item.name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for item in dataclasses.fields(TINY)
        if (value := getattr(config, item.name)) != item.default
    ]
    assert main(["train-diffusion", "-o", str(out), "--styles", "--device", "cpu", *given]) == 0
    assert f"--model {out / NAME}" in capsys.readouterr().out
    origin = json.loads((out / NAME / "training.json").read_text())
    assert [source["name"] for source in origin["sources"]] == ["photo"]
    shutil.rmtree(out)
