"""What holds for every test: no network, and the same hypothesis examples on every run."""

import os
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before any test is
if workers := int(
    os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")
):  # cores are shared out likewise
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest
from hypothesis import settings
from PIL import Image

from facestyle.tuning import tune_threads

tune_threads()  # before torch is there
settings.register_profile("facestyle", derandomize=True, deadline=None)
settings.load_profile("facestyle")


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """A 512 px photo with one face (Eileen Collins, NASA, public domain)."""
    from skimage.data import astronaut

    return Image.fromarray(astronaut())


@pytest.fixture(scope="session")
def tiny_stylizer():
    """A stylizer of random 64 px networks: the whole path in milliseconds, without meaning in its pictures.

    Random networks of this kind draw grey whatever they are given. So the encoder's trunk is the trained one and last
    layers are turned up: each photo has a code of its own, and each code a picture.
    """
    import torch
    import torch.nn.functional as F

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
    encoder = (
        Encoder(w_dim=8, input_px=32, hidden=16, corrections=1, pretrained_trunk=True)
        .eval()
        .requires_grad_(False)
    )
    codes = base.mapping(torch.randn(64, 8))
    for net in (base, generator):
        for head, side in ((net.synthesis.to_image, 64), (net.synthesis.to_preview, 32)):
            drawn = net.synthesis(codes[:, None].expand(-1, net.num_ws, -1), resolution=side)
            head.weight.mul_(0.5 / drawn.std())
    photos = F.interpolate(torch.rand(64, 3, 4, 4) * 2 - 1, size=32, mode="bilinear")
    found = encoder(photos)
    encoder.out.weight.mul_(codes.std() / found.std(0).mean())
    encoder.start.add_(codes.mean(0) - encoder(photos).mean(0))
    config = StyleConfig(
        name="tiny", title="", description="", generator=base.config(), base_sha256="0" * 64
    )
    return FaceStylizer(generator, base, encoder, config, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def gpu() -> str:
    """The device of tests marked ``gpu``: CUDA, or what the variable FACESTYLE_TEST_GPU names."""
    from facestyle.errors import ConfigError
    from facestyle.runtime import choose_device

    name = os.environ.get("FACESTYLE_TEST_GPU", "cuda")
    try:
        return str(choose_device(name))
    except ConfigError as error:
        pytest.skip(f"no {name} here: {error}")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads for torch, as most machines have, where several processes of tests share them otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
