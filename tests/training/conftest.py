"""A tiny generator and a tiny style set, shared by the training tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facestyle.models.checkpoints import save_tensors
from facestyle.models.encoder import Encoder
from facestyle.models.mobile import MobileGenerator


@pytest.fixture(scope="session")
def tiny() -> MobileGenerator:
    torch.manual_seed(0)
    net = MobileGenerator((8, 8, 8, 8), w_dim=8, mapping_depth=2, preview_resolution=32)
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith("noise"):
                buffer.normal_()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Twelve red squares of random shade on a plain light ground."""
    path = tmp_path_factory.mktemp("style")
    rng = np.random.default_rng(0)
    for i in range(12):
        picture = np.full((48, 48, 3), 235, np.uint8)
        picture[12:36, 12:36] = [200 + rng.integers(50), rng.integers(60), rng.integers(60)]
        Image.fromarray(picture).save(path / f"{i:02d}.png")
    return path


@pytest.fixture(scope="session")
def large_folder(tmp_path_factory):
    """Twelve 200 px pictures, no two alike: large enough for the check of a style set."""
    path = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for i in range(12):
        picture = np.full((200, 200, 3), 235, np.uint8)
        top, left = 20 + 10 * (i % 4), 20 + 30 * (i // 4)
        picture[top : top + 100, left : left + 80] = rng.integers(255, size=3)
        Image.fromarray(picture).save(path / f"{i:02d}.png")
    return path


@pytest.fixture(scope="session")
def tiny_encoders(tiny) -> dict[str, Encoder]:
    """Untrained encoders into Z+ and W+ of the tiny generator."""
    made = {}
    for space in ("z_plus", "w_plus"):
        torch.manual_seed(1)
        net = Encoder(
            space=space, rows=tiny.num_ws, w_dim=8, input_px=32, hidden=16, row_channels=8
        )
        torch.nn.init.normal_(net.by_row[-1].weight)
        made[space] = net.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="session")
def encoder_files(tiny_encoders, tmp_path_factory) -> Path:
    """Folder of the same encoders as z_plus.safetensors and w_plus.safetensors."""
    folder = tmp_path_factory.mktemp("encoders")
    for space, net in tiny_encoders.items():
        save_tensors(
            net.state_dict(), folder / f"{space}.safetensors", metadata={"config": net.config()}
        )
    return folder
