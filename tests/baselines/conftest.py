"""A tiny generator, a tiny style set, G* of both, and a tiny Stable Diffusion."""

import shutil
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.baselines.star import train_star_in
from facestyle.models.mobile import MobileGenerator
from facestyle.training.finetune_config import FinetuneConfig

STAR = FinetuneConfig(
    coarse_steps=2, coarse_batch=2, coarse_lr=0.3, full_steps=1, full_batch=2, full_lr=0.3,
    sem_weight=0, pair_weight=0, late_blocks=1, preview_every=2,
)  # fmt: skip


def make_generator(seed):
    torch.manual_seed(seed)
    net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    with torch.no_grad():
        net.w_avg.normal_()
        for name, buffer in net.named_buffers():
            if name.endswith("noise"):
                buffer.normal_()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny():
    return make_generator(0)


@pytest.fixture(scope="session")
def other():
    """Another generator of the same architecture: every tensor differs."""
    return make_generator(1)


@pytest.fixture(scope="session")
def style_folder(tmp_path_factory):
    """Eight red squares of random shade on a plain light ground."""
    path = tmp_path_factory.mktemp("style")
    rng = np.random.default_rng(0)
    for i in range(8):
        picture = np.full((48, 48, 3), 235, np.uint8)
        picture[12:36, 12:36] = [200 + rng.integers(50), rng.integers(60), rng.integers(60)]
        Image.fromarray(picture).save(path / f"{i:02d}.png")
    return path


@pytest.fixture(scope="session")
def star_run(tiny, style_folder, tmp_path_factory):
    """Folder of a trained G*."""
    path = tmp_path_factory.mktemp("run")
    train_star_in(path, tiny, style_folder, STAR, progress=False)
    return path


@pytest.fixture(scope="session")
def star_config():
    return STAR


@pytest.fixture(scope="session")
def crops():
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1


class Exploit:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (exec, (f"import pathlib; pathlib.Path({self.path!r}).write_text('owned')",))


@pytest.fixture
def exploit(tmp_path):
    """An object that writes ``.path`` when a plain unpickler reads it."""
    return Exploit(tmp_path / "owned.txt")


@pytest.fixture(scope="session")
def tiny_pipe():
    """A diffusers pipeline of random networks."""
    pytest.importorskip("diffusers", reason="needs the extra diffusion")
    from facestyle.baselines.random_diffusion import random_pipeline

    return random_pipeline("tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_pipe):
    """The same, as the diffusion baselines take it."""
    from facestyle.baselines.diffusion import LatentDiffusion

    return LatentDiffusion(tiny_pipe, name="tiny", device=torch.device("cpu"))


class Calls(list):
    """(latents, time, text states) of every call of the UNet."""

    @property
    def times(self):
        """Time and batch of every call."""
        return [(time, len(latents)) for latents, time, _ in self]


@pytest.fixture
def seen(tiny_model, monkeypatch):
    """What the UNet of the tiny model is called with."""
    calls = Calls()
    predict = tiny_model.predict_noise

    def spy(latents, time, states):
        calls.append((latents.clone(), time, states))
        return predict(latents, time, states)

    monkeypatch.setattr(tiny_model, "predict_noise", spy)
    return calls


@pytest.fixture
def loads(monkeypatch):
    """Weak references to the diffusion models that were loaded from a folder or repository."""
    from facestyle.baselines.diffusion import LatentDiffusion

    made = []
    load = LatentDiffusion.from_pretrained

    def spy(*args, **options):
        model = load(*args, **options)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(LatentDiffusion, "from_pretrained", spy)
    return made


@pytest.fixture(scope="session")
def tiny_diffusion_folder(tiny_pipe, tmp_path_factory):
    """The same, saved by diffusers."""
    path = tmp_path_factory.mktemp("tiny_diffusion")
    tiny_pipe.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def diffusion_config(tiny_diffusion_folder, tiny_clip_folder):
    """Settings of a comparison on the tiny model."""
    from facestyle.baselines.inst import InstConfig
    from facestyle.baselines.inst_training import InstTraining
    from facestyle.baselines.ntc import NtcConfig
    from facestyle.baselines.registry import DiffusionModel
    from facestyle.baselines.styleid import StyleIdConfig
    from facestyle.baselines.toonify import ToonifyConfig
    from facestyle.evaluation.comparison_methods import ComparisonConfig

    training = InstTraining(steps=2, save_every=2, clip=str(tiny_clip_folder))
    return ComparisonConfig(
        photos=2, side_px=64, sheet_faces=1, toonify=ToonifyConfig(switch_px=16, steps=2),
        ntc=NtcConfig(steps=4), inst=InstConfig(steps=3, training=training),
        styleid=StyleIdConfig(steps=3), diffusion=DiffusionModel(model=str(tiny_diffusion_folder)),
    )  # fmt: skip


@pytest.fixture(scope="session")
def diffusion_runs(diffusion_config, star_run, style_picture, tmp_path_factory):
    """Folder with toonify, inst and styleid trained on the style "red"."""
    from facestyle.baselines.registry import make_baseline
    from facestyle.evaluation.comparison_methods import settings_of

    path = tmp_path_factory.mktemp("diffusion_runs")
    shutil.copytree(star_run, path / "toonify" / "red")
    for name in ("inst", "styleid"):
        settings = settings_of(name, diffusion_config)
        method = make_baseline(
            name, stylize=settings, model=diffusion_config.diffusion, device="cpu"
        )
        method.prepare(style_picture, path / name / "red", progress=False)
    return path


@pytest.fixture(scope="session")
def tiny_clip_folder(tiny_pipe, tmp_path_factory):
    """CLIP's picture half of random weights, saved by transformers."""
    from facestyle.baselines.random_diffusion import random_clip

    path = tmp_path_factory.mktemp("tiny_clip")
    random_clip("tiny").save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def style_picture(tmp_path_factory):
    """A file of 80 x 64 px with a red square on blue."""
    pixels = np.full((64, 80, 3), (30, 60, 200), np.uint8)
    pixels[16:48, 24:56] = (220, 40, 30)
    path = tmp_path_factory.mktemp("style_picture") / "style.png"
    Image.fromarray(pixels).save(path)
    return path
