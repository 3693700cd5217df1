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
