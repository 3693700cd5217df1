"""Stable Diffusion 1.x built from its configuration with random weights: no download, and no meaning in its pictures.

At full size it takes the time and memory of the real one; "tiny" has the same layout, every layer name included, in 1 M
parameters, for tests and for machines without a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from facestyle.baselines.diffusion import LatentDiffusion, need_diffusers
from facestyle.errors import ConfigError

__all__ = [
    "SIZES",
    "build_pipeline",
    "character_tokenizer",
    "random_clip",
    "random_model",
    "random_pipeline",
]

SIZES = ("full", "tiny")

_UNET: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
_VAE: dict[str, Any] = {
    "latent_channels": 4, "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
_TEXT: dict[str, Any] = {"max_position_embeddings": 77, "hidden_act": "quick_gelu"}
_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False,
    "steps_offset": 1, "timestep_spacing": "leading", "prediction_type": "epsilon",
}  # fmt: skip

# attention_head_dim is the number of heads in this generation of configurations.
_PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {
        "unet": {
            "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768, "attention_head_dim": 8, "norm_num_groups": 32,
        },
        "vae": {
            "sample_size": 512, "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2, "norm_num_groups": 32,
        },
        "text": {
            "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072,
            "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768,
        },
        "clip": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "projection_dim": 768,
        },
    },
    "tiny": {
        "unet": {
            "sample_size": 8, "block_out_channels": (16, 32, 32, 32),
            "cross_attention_dim": 32, "attention_head_dim": 4, "norm_num_groups": 8,
        },
        "vae": {
            "sample_size": 64, "block_out_channels": (8, 8, 16, 16),
            "layers_per_block": 1, "norm_num_groups": 4,
        },
        "text": {
            "vocab_size": 514, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32,
        },
        "clip": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 4, "image_size": 28, "patch_size": 14, "projection_dim": 32,
        },
    },
}  # fmt: skip


def random_pipeline(
    size: str = "tiny",
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    unet: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> Any:
    """A diffusers ``StableDiffusionPipeline`` of random weights.

    Its tokenizer knows characters, no words.

    Args:
        size: "full" or "tiny".
        seed: of the weights.
        device: where it is built.
        dtype: of the networks.
        unet: changes of the UNet's configuration.
        scheduler: changes of the scheduler's.

    Raises:
        ConfigError: there is no such size.
        MissingDependencyError: diffusers or transformers is not installed.
    """
    parts = _parts(size)
    return build_pipeline(
        character_tokenizer(), seed=seed, device=device, dtype=dtype, scheduler=scheduler,
        unet={**parts["unet"], **(unet or {})}, vae=parts["vae"], text=parts["text"],
    )  # fmt: skip


def build_pipeline(
    tokenizer: Any,
    *,
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    text: Mapping[str, Any],
    scheduler: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A diffusers ``StableDiffusionPipeline`` of Stable Diffusion 1.x's layout, of given sizes and random weights.

    Args:
        tokenizer: its special tokens are the text encoder's.
        unet: the UNet's configuration, instead of the layout's where both have a key.
        vae: likewise the autoencoder's.
        text: likewise the text encoder's.
        scheduler: likewise the scheduler's.
        seed: of the weights.
        device: where it is built.
        dtype: of the networks.

    Raises:
        MissingDependencyError: diffusers or transformers is not installed.
    """
    need_diffusers()
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    text_config = CLIPTextConfig(**{
        **_TEXT, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, **text,
    })  # fmt: skip
    with _random(seed, device):
        networks = {
            "unet": UNet2DConditionModel(**{**_UNET, **unet}),
            "vae": AutoencoderKL(**{**_VAE, **vae}),
            "text_encoder": CLIPTextModel(text_config),
        }
    for net in networks.values():
        nn.Module.to(net, dtype)  # diffusers' own warns, whatever the network
    return StableDiffusionPipeline(
        **networks, tokenizer=tokenizer, scheduler=DDIMScheduler(**{**_SCHEDULER, **(scheduler or {})}),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def random_model(
    size: str = "tiny",
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> LatentDiffusion:
    """The same, as the baselines take it; its name says what it is."""
    place = torch.device(device)
    pipe = random_pipeline(size, seed=seed, device=place, dtype=dtype)
    return LatentDiffusion(
        pipe.to(place),
        name=f"{size} Stable Diffusion 1.x, random weights, seed {seed}",
        device=place,
    )


def random_clip(
    size: str = "tiny",
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    projection_dim: int | None = None,
) -> Any:
    """CLIP's picture half, as InST's training takes it, of random weights; errors as :func:`random_pipeline`.

    ``projection_dim`` is that of the size when None.
    """
    parts = _parts(size)
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = dict(parts["clip"])
    if projection_dim is not None:
        config["projection_dim"] = projection_dim
    with _random(seed, device):
        return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


def _parts(size: str) -> dict[str, dict[str, Any]]:
    if size not in SIZES:
        raise ConfigError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    need_diffusers()
    return _PARTS[size]


@contextlib.contextmanager
def _random(seed: int, device: str | torch.device) -> Iterator[None]:
    """A context that builds modules on a device, and leaves random numbers outside alone."""
    place = torch.device(device)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        with place:
            yield


def character_tokenizer(merges: Sequence[tuple[str, str]] = ()) -> Any:
    """A ``CLIPTokenizer``: every byte is a token, at a word's end another, and so is what ``merges`` join, in order."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{c}</w>" for c in letters), *(a + b for a, b in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=list(merges), model_max_length=77
    )
