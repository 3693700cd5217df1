"""What holds for every test: no network, and the same hypothesis examples on every run."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before any test is

import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("facestyle", derandomize=True, deadline=None)
settings.load_profile("facestyle")


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """A 512 px photo with one face (Eileen Collins, NASA, public domain)."""
    from skimage.data import astronaut

    return Image.fromarray(astronaut())


@pytest.fixture(scope="session")
def tiny_stylizer():
    """A stylizer of random 64 px generators: the whole path in milliseconds, without meaning in its pictures."""
    import torch

    from facestyle.models.encoder import Encoder
    from facestyle.models.mobile import MobileGenerator
    from facestyle.styles import StyleConfig
    from facestyle.stylizer import FaceStylizer

    torch.manual_seed(0)
    made = [
        MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
        for _ in range(2)
    ]
    base, generator = (net.eval().requires_grad_(False) for net in made)
    base.w_avg.copy_(base.mapping(torch.randn(256, 8)).mean(0))
    generator.mapping = base.mapping
    encoder = Encoder(w_dim=8, input_px=32, hidden=16).eval().requires_grad_(False)
    config = StyleConfig(
        name="tiny", title="", description="", generator=base.config(), base_sha256="0" * 64
    )
    return FaceStylizer(generator, base, encoder, config, device="cpu", dtype="float32")
