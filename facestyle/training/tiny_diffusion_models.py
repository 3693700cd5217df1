"""``facestyle-tiny-diffusion``: its sizes, its networks, its words, and its folder with a card.

The folder has the layout of a Stable Diffusion 1.x, so that what is made for one loads it. It is none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError

from facestyle.baselines.random_diffusion import build_pipeline, character_tokenizer, random_clip
from facestyle.errors import ConfigError, OutputError
from facestyle.seeds import TRAINING_SEEDS, check_seed
from facestyle.training.state import write_json

__all__ = [
    "CLIP_FOLDER",
    "NAME",
    "PHOTO",
    "TinyDiffusionConfig",
    "build_tiny_diffusion",
    "captions_of",
    "save_tiny_diffusion",
    "training_command",
]

NAME = "facestyle-tiny-diffusion"

CLIP_FOLDER = "inst_clip"
"""Within the model's folder: a picture network for InST's training, of random weights."""

PHOTO = "photo"
"""Name of the source whose pictures are no style's."""

_PHOTO_CAPTIONS = ("a photo of a face", "a portrait photo of a face", "a photo")
_STYLE_CAPTIONS = (
    "{article} {style} portrait of a face", "a portrait of a face in {style} style", "{style} style", "{style}",
)  # fmt: skip
_LATENT_PX = 8
"""Pixels of a picture that a latent's side stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyDiffusionConfig:
    """Everything that decides what the model becomes. Steps are optimiser steps.

    The defaults give a UNet of 70 M parameters, an autoencoder of 9 M, a text encoder of 3 M, and are meant for 15
    minutes on one H200: an estimate from their multiply-adds, which nobody has measured yet.

    Attributes:
        image_px: side of the pictures; a latent's is an eighth.
        pictures: drawn by the generators, kept on disk (3 GB) and in memory.
        photo_share: of the pictures are people, the others in styles.
        psi_min, psi_max: truncation, as a share of the source's own, is drawn from this range.
        vae_widths: channels of the autoencoder's four levels.
        unet_widths: channels of the UNet's four levels.
        norm_groups: of every group normalisation; divides all widths.
        heads: of every attention; divides the UNet's widths and the text's.
        text_width: of the text encoder.
        text_layers: likewise.
        vae_steps, vae_batch, vae_lr: of the autoencoder's training; the rate is AdamW's.
        perceptual_weight: of the perceptual distance, beside the mean absolute difference.
        kl_weight: of the latents' Kullback-Leibler divergence from N(0, 1), a mean over all numbers.
        unet_steps, unet_batch, unet_lr: of the training of UNet and text encoder.
        caption_dropout: share of the captions that is left empty, for classifier-free guidance (arXiv:2207.12598).
        snr_gamma: steps with a signal-to-noise ratio above it count less (min-SNR weighting, arXiv:2303.09556).
        ema_half_life_nimg: half-life, in pictures, of the averaged weights, which are what is kept.
        vae_share: of the time, where training goes by time, for the autoencoder.
        preview_steps: of DDIM, in previews.
        preview_guidance: weight of the caption in previews.
        preview_every: steps between previews and checkpoints.
        seed: of every random number.
    """

    image_px: int = 256
    pictures: int = 16_000
    photo_share: float = 0.4
    psi_min: float = 0.6
    psi_max: float = 1.0
    vae_widths: tuple[int, ...] = (48, 96, 192, 192)
    unet_widths: tuple[int, ...] = (128, 192, 320, 384)
    norm_groups: int = 16
    heads: int = 4
    text_width: int = 256
    text_layers: int = 4
    vae_steps: int = 3000
    vae_batch: int = 32
    vae_lr: float = 3e-4
    perceptual_weight: float = 0.2
    kl_weight: float = 1e-4
    unet_steps: int = 6000
    unet_batch: int = 128
    unet_lr: float = 3e-4
    caption_dropout: float = 0.1
    snr_gamma: float = 5.0
    ema_half_life_nimg: int = 50_000
    vae_share: float = 0.35
    preview_steps: int = 20
    preview_guidance: float = 3.0
    preview_every: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        for name in (
            "pictures", "norm_groups", "heads", "text_width", "text_layers", "vae_steps", "vae_batch", "unet_steps",
            "unet_batch", "ema_half_life_nimg", "preview_steps", "preview_every",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("vae_lr", "unet_lr", "snr_gamma"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("photo_share", "caption_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.vae_share < 1:
            raise ConfigError(f"vae_share must be between 0 and 1, got {self.vae_share}")
        if not 0 <= self.psi_min <= self.psi_max:
            raise ConfigError(
                f"expected 0 <= psi_min <= psi_max, got {self.psi_min}, {self.psi_max}"
            )
        if self.image_px < 64 or self.image_px % 64:
            raise ConfigError(
                f"image_px must be a multiple of 64, which the UNet's levels halve, got {self.image_px}"
            )
        self._check_widths()

    def _check_widths(self) -> None:
        for name in ("vae_widths", "unet_widths"):
            widths = getattr(self, name)
            if len(widths) != 4 or any(width < 1 or width % self.norm_groups for width in widths):
                raise ConfigError(
                    f"{name} must be 4 multiples of norm_groups, {self.norm_groups}, got {list(widths)}"
                )
        if any(width % self.heads for width in (*self.unet_widths, self.text_width)):
            raise ConfigError(
                f"unet_widths and text_width must be multiples of heads, {self.heads}, got "
                f"{list(self.unet_widths)} and {self.text_width}"
            )


def captions_of(name: str) -> tuple[str, ...]:
    """What is said of a source's pictures.

    Example:
        >>> captions_of("anime")[0]
        'an anime portrait of a face'
    """
    if name == PHOTO:
        return _PHOTO_CAPTIONS
    article = "an" if name[0] in "aeiou" else "a"
    return tuple(text.format(article=article, style=name) for text in _STYLE_CAPTIONS)


def training_command(
    config: TinyDiffusionConfig, folder: Path, styles: Sequence[str], minutes: float | None
) -> str:
    """What a shell runs to train the same model again, if the styles come with facestyle.

    Example:
        >>> training_command(TinyDiffusionConfig(seed=1), Path("runs/tiny"), ["anime"], 15)
        'facestyle train-diffusion -o tiny --styles anime --minutes 15 --set seed=1'
    """
    words = ["facestyle", "train-diffusion", "-o", folder.name, "--styles", *styles]
    if minutes is not None:
        words += ["--minutes", f"{minutes:g}"]
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value != item.default:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            words += ["--set", f"{item.name}={shown}"]
    return shlex.join(words)


def build_tiny_diffusion(config: TinyDiffusionConfig, captions: Sequence[str]) -> Any:
    """The untrained model, a diffusers ``StableDiffusionPipeline`` on the CPU.

    Every word of ``captions`` is a token; other words fall to pieces, bytes at the last.

    Raises:
        MissingDependencyError: diffusers or transformers is not installed.
    """
    tokenizer = character_tokenizer(_joined(captions))
    width = config.text_width
    return build_pipeline(
        tokenizer,
        unet={
            "sample_size": config.image_px // _LATENT_PX, "block_out_channels": config.unet_widths,
            "cross_attention_dim": width, "attention_head_dim": config.heads,
            "norm_num_groups": config.norm_groups,
        },
        vae={
            "sample_size": config.image_px, "block_out_channels": config.vae_widths,
            "layers_per_block": 1, "norm_num_groups": config.norm_groups,
        },
        text={
            "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 4 * width,
            "num_hidden_layers": config.text_layers, "num_attention_heads": config.heads, "projection_dim": width,
        },
        seed=config.seed,
    )  # fmt: skip


def _joined(captions: Sequence[str]) -> list[tuple[str, str]]:
    """The merges of byte pairs that make one token of each word."""
    trained = character_tokenizer().train_new_from_iterator(
        [list(captions)], vocab_size=65_536, min_frequency=1, show_progress=False
    )
    merges = json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]
    return [(first, second) for first, second in merges]


def save_tiny_diffusion(pipe: Any, folder: str | Path, origin: dict[str, Any]) -> Path:
    """The folder, once it holds the model, its card, and ``training.json``; whole or not at all.

    Weights are float16.

    Args:
        pipe: the trained model; its networks are converted in place.
        folder: called `NAME`, so that reports say what it is; replaced when it is there.
        origin: how the model came to be; needs "command" and "sources", each with a name and a license.

    Raises:
        OutputError: it cannot be written; what was there before stays.
    """
    from transformers import logging as transformers_logging

    target = Path(folder)
    width = pipe.text_encoder.config.hidden_size
    for net in (pipe.unet, pipe.vae, pipe.text_encoder):
        for p in net.parameters():
            p.data = p.data.to(torch.float16).contiguous()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with _replaced_folder(target) as partial:
            pipe.save_pretrained(partial)
            random_clip("tiny", projection_dim=width).save_pretrained(partial / CLIP_FOLDER)
            write_json(partial / "training.json", origin)
            (partial / "README.md").write_text(_card(origin), encoding="utf-8")
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    return target


@contextlib.contextmanager
def _replaced_folder(target: Path) -> Iterator[Path]:
    """A context with a new folder, which takes the target's place when all went well."""
    partial, before = (target.with_name(f"{target.name}.{end}") for end in ("part", "before"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            shutil.rmtree(before, ignore_errors=True)
            target.rename(before)
        partial.rename(target)
        shutil.rmtree(before, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        if before.exists() and not target.exists():
            before.rename(target)
        raise OutputError(
            f"the model cannot be written ({error}); free some space and run the same command again",
            path=target,
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _card(origin: dict[str, Any]) -> str:
    """Text of README.md."""
    sources = origin["sources"]
    licenses = {source["license"] for source in sources}
    front = {
        "library_name": "diffusers",
        "license": licenses.pop() if len(licenses) == 1 else "other",
        "pipeline_tag": "text-to-image",
        "tags": ["facestyle", "faces"],
    }
    rows = "\n".join(
        f"| {s['name']} | {captions_of(s['name'])[0]} | {s['license']} |" for s in sources
    )
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False).strip(), name=NAME, clip=CLIP_FOLDER, rows=rows,
        command=origin["command"],
    )  # fmt: skip


_CARD = """---
{front}
---

# {name}

**This is not Stable Diffusion**, and no part of one is in it. It is a small latent diffusion model of aligned faces,
trained from nothing by facestyle. Only its folder is laid out like a Stable Diffusion 1.x of diffusers, so that the
methods NTC, InST and StyleID, which are made for one, run on a machine without any download. Pictures made with it
show that these methods work, and say nothing about how well they do on Stable Diffusion.

## What it knows

Pictures drawn by facestyle's own generators, of people who do not exist; no photo was shown to it. Each caption names
the generator:

| pictures | caption, for example | licence of the generator |
|---|---|---|
{rows}

Other words mean nothing to it. The base generator behind all of them was trained on FFHQ, whose photos are under CC
BY-NC-SA 4.0; use the model only as all licences above allow.

## How to use it

```sh
facestyle baseline stylize ntc me.jpg -o out/ --model {name}
facestyle baseline train styleid style.png -o runs/styleid --model {name}
facestyle baseline train inst style.png -o runs/inst --model {name} --set training.clip={name}/{clip}
```

`{clip}` is a picture network of random weights. InST takes from it one vector for its one style picture, which any
network gives; a real CLIP does not fit the width of this model's texts.

## How it was trained

```sh
{command}
```

`training.json` has every setting, the seed, the steps, the losses, the machine and the date.
"""
