"""Which seeds are taken, before anything is read or drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from facestyle.baselines.inst_training import InstTraining
from facestyle.baselines.ugatit_training import UgatitConfig
from facestyle.baselines.ui2i import Ui2iConfig
from facestyle.errors import ConfigError
from facestyle.seeds import TRAINING_SEEDS, check_seed, numbered_seed
from facestyle.training.encoder import EncoderConfig
from facestyle.training.finetune_config import FinetuneConfig
from facestyle.training.hair import HairConfig
from facestyle.training.likeness import LikenessConfig
from facestyle.training.tiny_diffusion_models import TinyDiffusionConfig

TRAININGS: list[Any] = [
    EncoderConfig, FinetuneConfig, HairConfig, LikenessConfig, TinyDiffusionConfig, UgatitConfig,
    InstTraining, Ui2iConfig,
]  # fmt: skip


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("seed", [-1, TRAINING_SEEDS])
def test_a_training_refuses_what_is_no_seed(training: Any, seed: int) -> None:
    with pytest.raises(ConfigError, match="from 0 to 2\\^32 - 1"):
        training(seed=seed)
    assert training(seed=TRAINING_SEEDS - 1).seed == TRAINING_SEEDS - 1


def test_torch_takes_the_largest_seed_of_a_training() -> None:
    """The largest number that one makes of its seed: of a step, in either stage, of the last of 64 processes."""
    most = (numbered_seed(TRAINING_SEEDS - 1, 10_000) * 2 + 1) * 1_009 + 63
    assert torch.Generator().manual_seed(most).initial_seed() == most


def test_a_numbered_seed_is_one() -> None:
    seeds = [numbered_seed(seed, number) for seed in (0, 1, 2**63 - 1) for number in range(50)]
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        check_seed(seed)


@pytest.mark.parametrize("seed", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_other_libraries_are_seeds(seed: Any) -> None:
    assert (check_seed(seed), type(check_seed(seed))) == (3, int)
    assert numbered_seed(seed, 2**62) == numbered_seed(3, 2**62)


@pytest.mark.parametrize("seed", [1.0, np.float32(1), True, np.True_, "1", None, np.array([1])])
def test_what_is_no_whole_number_is_no_seed(seed: Any) -> None:
    with pytest.raises(ConfigError, match="a seed is a whole number from 0 to 2\\^63 - 1"):
        check_seed(seed)
