"""A tiny generator, a tiny style set, G* of both, and a tiny Stable Diffusion."""

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.baselines.star import train_star_in
from facestyle.models.mobile import MobileGenerator
from facestyle.training.finetune import FinetuneConfig

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


@pytest.fixture(scope="session")
def tiny_diffusion_folder(tiny_pipe, tmp_path_factory):
    """The same, saved by diffusers."""
    path = tmp_path_factory.mktemp("tiny_diffusion")
    tiny_pipe.save_pretrained(path)
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
