"""Training on a GPU: every stage comes to its end, goes on from its checkpoints, and leaves a style that draws."""

import copy
import dataclasses
import json

import pytest
import torch

from facestyle.models.checkpoints import read_tensors
from facestyle.processes import Processes
from facestyle.styles import StyleConfig, style_folder
from facestyle.training.encoder import EncoderConfig, train_encoder
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.hair import HairConfig
from facestyle.training.likeness import LikenessConfig
from facestyle.training.pairs import PairsConfig
from facestyle.training.pipeline import TrainConfig, train_style

pytestmark = pytest.mark.gpu

_SHORT = {"coarse_steps": 2, "coarse_batch": 2, "full_batch": 2, "preview_every": 1}
CONFIG = TrainConfig(
    star=FinetuneConfig(full_steps=0, sem_weight=0, pair_weight=0, **_SHORT),
    pairs=PairsConfig(count=4, steps=2, batch=2),
    style=FinetuneConfig(full_steps=2, held_out=4, **_SHORT),
    hair=HairConfig(steps=2, batch=2, full_steps=2, full_batch=2, preview_every=1),
    likeness=LikenessConfig(steps=2, batch=2, rank=2, preview_every=1),
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch_weight": 1.0, "eye_scale": 2.0, "color_weight": 1.0},
        {"discriminator": "stylegan2", "pair_texture_weight": 1.0},
    ],
)
def test_a_style_is_trained(tiny, large_folder, encoder_files, tmp_path, gpu, changes):
    config = dataclasses.replace(CONFIG, style=dataclasses.replace(CONFIG.style, **changes))
    for _ in range(2):  # the second time everything is there
        train_style(
            copy.deepcopy(tiny), large_folder, tmp_path / "out", config, name="red", data_license="ours",
            encoder_z=encoder_files / "z_plus.safetensors", aligned="yes", progress=False,
            processes=Processes(gpu),
        )  # fmt: skip
    style = style_folder(tmp_path / "out")
    assert StyleConfig.from_file(style / "config.json").name == "red"
    tensors = read_tensors(style / "generator.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    known = json.loads((style / "training.json").read_text())
    assert known["device"] != "cpu" or gpu == "cpu"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_encoder_is_trained(tiny, folder, tmp_path, gpu, dtype):
    config = EncoderConfig(
        space="z_plus", pool_size=16, code_steps=2, code_batch=4, photo_steps=2, photo_batch=2,
        pool_batch=2, checkpoint_every=1, dtype=dtype,
    )  # fmt: skip
    encoder = train_encoder(
        copy.deepcopy(tiny), tmp_path / "run", [folder], folder, config, device=gpu, progress=False
    )
    assert all(parameter.isfinite().all() for parameter in encoder.parameters())
    codes = encoder(torch.zeros(1, 3, 32, 32, device=next(encoder.parameters()).device))
    assert codes.shape == (1, tiny.num_ws, 8)
