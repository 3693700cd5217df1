"""InST's textual inversion with attention: one style picture to one token's embedding (arXiv:2211.13203)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from facestyle.baselines.diffusion import LatentDiffusion, whole
from facestyle.errors import CheckpointError, ConfigError, DownloadError
from facestyle.evaluation.cmmd import clip_input
from facestyle.seeds import TRAINING_SEEDS, check_seed, numbered_seed
from facestyle.training.state import TrainingState, check_finite

__all__ = [
    "InstInverter",
    "InstTraining",
    "StyleViews",
    "check_trainable",
    "clip_levels",
    "style_token",
    "train_embedding",
    "training_loss",
    "view_style",
]

_STAGE = "training"
_HOW = ("checkpointing", "save_every")
"""Settings that do not change what is learned."""
_PLACEHOLDER = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstTraining:
    """How a style's embedding is trained; the defaults are those of the authors' configuration.

    Attributes:
        steps: of one noised picture each; 6100 passes forward and back through the UNet. 500 to 1000 are a quick look,
            and no fair account of the method.
        lr: of AdamW.
        flip_share: of the steps on the mirrored picture.
        seed: of every random number.
        clip: CLIP model whose view of the picture is learned from: a folder or Hub repository.
        checkpointing: compute the UNet's features again on the way back: less memory, a third more time.
        save_every: steps between checkpoints.
    """

    steps: int = 6100
    lr: float = 1e-4
    flip_share: float = 0.5
    seed: int = 23
    clip: str = "openai/clip-vit-large-patch14"
    checkpointing: bool = False
    save_every: int = 500

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        for name in ("steps", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.lr <= 0:
            raise ConfigError(f"lr must be above 0, got {self.lr}")
        if not 0 <= self.flip_share <= 1:
            raise ConfigError(f"flip_share must be from 0 to 1, got {self.flip_share}")

    def origin(self) -> dict[str, Any]:
        """The settings that what is learned depends on."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _HOW}


@dataclass(frozen=True, eq=False)
class StyleViews:
    """What training sees of a style picture, as it is and mirrored, computed once.

    Attributes:
        clip: two unit-length CLIP embeddings, each [1, width].
        latents: two (mean, deviation) of the autoencoder's latents, each [1, C, H, W].
    """

    clip: tuple[Tensor, Tensor]
    latents: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


class _Attention(nn.Module):
    """Multi-head attention with the latent diffusion code's layer shapes."""

    def __init__(self, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(dropout))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out(mixed)
        return out


class InstInverter(nn.Module):
    """A picture's CLIP embedding to the embedding of a token.

    The sequence is one token long, so that softmax is 1 whatever queries and keys are: the module is an affine map of
    its input, and of its 3,737,856 parameters 1.38 M take part. It is built whole to be the authors'.

    Args:
        width: of both embeddings.
        heads: of its two attentions.
        head_width: of each.
        dropout: in training.
    """

    def __init__(
        self, width: int = 768, *, heads: int = 8, head_width: int = 64, dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.attn1 = _Attention(width, heads, head_width, dropout)
        self.attn2 = _Attention(width, heads, head_width, dropout)
        self.net = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, embedding: Tensor) -> Tensor:
        """[B, width] of embeddings [B, width]."""
        x = embedding[:, None]
        x = self.attn2(self.attn1(x, x), x)
        out: Tensor = self.net(x)[:, 0]
        return out


def style_token(model: LatentDiffusion) -> int:
    """Number of the token that stands for the style, ``*``.

    Raises:
        CheckpointError: the model's tokenizer has no such token.
    """
    token = int(model.token_ids([_PLACEHOLDER])[0, 1])
    if token == model.tokenizer.unk_token_id:
        raise CheckpointError(
            f"the tokenizer of {model.name} has no token {_PLACEHOLDER!r}, which the style is learned as; name a model "
            "with Stable Diffusion 1.x's tokenizer"
        )
    return token


def view_style(img: Tensor, model: LatentDiffusion, clip: str, *, quirks: bool) -> StyleViews:
    """Both views of a picture [1, 3, S, S] in [-1, 1]; CLIP is loaded for it, and dropped.

    Args:
        img: the picture.
        model: whose latents are wanted.
        clip: folder or Hub repository of CLIP.
        quirks: CLIP sees what the authors' code shows it: see :func:`clip_levels`.

    Raises:
        DownloadError: there is no such CLIP here, and it could not be fetched.
        CheckpointError: it does not fit the model.
    """
    net = _load_clip(clip, model)
    both = (img, img.flip(-1))
    with torch.no_grad():
        seen = [_clip_embedding(net, x, quirks).to(model.device) for x in both]
        latents = [model.posterior(x) for x in both]
    return StyleViews((seen[0], seen[1]), (latents[0], latents[1]))


def clip_levels(img: Tensor, *, quirks: bool) -> Tensor:
    """Levels uint8 of a picture in [-1, 1], for CLIP.

    The authors' code casts [-1, 1] to uint8 as it is: -1 becomes 255 by wrapping around, 1 stays 1, and all between
    becomes 0, so that CLIP sees an all but black picture, the same for every style.
    """
    if not quirks:
        return ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    levels = (img >= 1).to(torch.uint8)
    return torch.where(img <= -1, torch.full_like(levels, 255), levels)


def training_loss(
    model: LatentDiffusion, vector: Tensor, clean: Tensor, noise: Tensor, time: int
) -> Tensor:
    """Mean squared error of the noise that the UNet finds in a noised latent, told the caption ``*``.

    Args:
        model: the diffusion model.
        vector: [1, width], embedding of ``*``; gradients reach it.
        clean: latents [1, C, H, W].
        noise: that is added to them.
        time: how much of it.
    """
    with model.embedding(style_token(model), vector):
        states = model.text([_PLACEHOLDER])
    noised = model.ddim.add_noise(clean, noise, time)
    return F.mse_loss(model.predict_noise(noised, time, states), noise)


def train_embedding(
    model: LatentDiffusion,
    views: StyleViews,
    folder: Path,
    config: InstTraining,
    origin: dict[str, Any],
    *,
    dropout: bool = False,
    progress: bool = True,
) -> Tensor:
    """The style's embedding [1, width] float32; log and state stay in ``folder``, where an unfinished run goes on.

    Args:
        model: the diffusion model; only the inverter is trained.
        views: of the style picture.
        folder: of the run.
        config: how to train.
        origin: what else the run depends on, for its ``config.json``.
        dropout: leave it on when the embedding is computed in the end, drawn by the seed.
        progress: show a bar.

    Raises:
        ConfigError: the folder holds a run with other settings, the model keeps its networks off the device, or what
            is learned is no finite number any more.
        OutputError: the folder cannot be written.
    """
    check_trainable(model)
    state = TrainingState(folder, {"config": config.origin(), **origin})
    run = _Training(model, views, config)
    with _seeded(model.device), _checkpointed(model, config), _text_in_float32(model):
        run.train(state, progress)
        torch.manual_seed(config.seed)
        with torch.no_grad():
            vector: Tensor = run.inverter.train(dropout)(views.clip[0])
    _check_finite(vector, "the embedding")
    return vector


def check_trainable(model: LatentDiffusion) -> None:
    """Refuse a model whose networks are not on the device.

    Raises:
        ConfigError: it was loaded with ``memory="low"``.
    """
    if hasattr(model.unet, "_hf_hook"):
        raise ConfigError('training needs the model with memory="all"; set checkpointing to save')


def _check_finite(value: Tensor, what: str) -> None:
    if not value.isfinite().all():
        raise ConfigError(
            f"{what} is no finite number any more; the last checkpoint stays: use bfloat16 or float32 in place of "
            "float16, or a smaller lr, in another folder"
        )


class _Training:
    """The inverter, its optimizer, and what a step does with them."""

    def __init__(self, model: LatentDiffusion, views: StyleViews, config: InstTraining) -> None:
        self.model, self.views, self.config = model, views, config
        with _seeded(model.device):
            torch.manual_seed(config.seed)
            self.inverter = InstInverter(views.clip[0].shape[1]).to(model.device)
        self.optimizer = torch.optim.AdamW(self.inverter.parameters(), lr=config.lr)
        is_half = model.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=is_half)
        self.parts: dict[str, Any] = {
            "inverter": self.inverter, "optimizer": self.optimizer, "scaler": self.scaler,
        }  # fmt: skip

    def train(self, state: TrainingState, progress: bool) -> None:
        """What is left of the steps."""
        config = self.config
        first = state.resume(_STAGE, self.parts)
        state.forget_after(_STAGE, first)
        rows = state.rows()
        before = float(rows[-1]["seconds"]) if rows else 0.0
        began = time.monotonic()
        bar = tqdm(
            range(first, config.steps), initial=first, total=config.steps, desc="inst training",
            disable=not progress,
        )  # fmt: skip
        self.inverter.train()
        for step in bar:
            loss = self._step(step)
            seconds = before + time.monotonic() - began
            row = {"stage": _STAGE, "step": step + 1, "loss": loss, "seconds": seconds}
            state.log(row)
            bar.set_postfix(loss=f"{loss:.3f}")
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                check_finite(_STAGE, step + 1, {}, self.parts)
                state.save(_STAGE, step + 1, self.parts)

    def _step(self, step: int) -> float:
        """One step of random view, latent, noise and time; its loss."""
        config, model = self.config, self.model
        torch.manual_seed(numbered_seed(config.seed, step))
        view = int(torch.rand(()) < config.flip_share)
        mean, std = self.views.latents[view]
        clean = mean + std * torch.randn(mean.shape).to(mean.device)
        noise = torch.randn(mean.shape).to(mean.device)
        moment = int(torch.randint(model.ddim.last + 1, ()))
        loss = training_loss(model, self.inverter(self.views.clip[view]), clean, noise, moment)
        _check_finite(loss.detach(), f"the loss of step {step + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()


@contextlib.contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """A context whose random numbers leave those outside alone."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextlib.contextmanager
def _checkpointed(model: LatentDiffusion, config: InstTraining) -> Iterator[None]:
    if not config.checkpointing:
        yield
        return
    model.unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        model.unet.disable_gradient_checkpointing()


@contextlib.contextmanager
def _text_in_float32(model: LatentDiffusion) -> Iterator[None]:
    """A context in which the text encoder computes in float32, as a small step of the embedding is lost in less."""
    before = model.text_encoder.dtype
    model.text_encoder.to(torch.float32)
    try:
        yield
    finally:
        model.text_encoder.to(before)


def _load_clip(clip: str, model: LatentDiffusion) -> Any:
    from transformers import CLIPVisionModelWithProjection

    try:
        with whole(clip):
            net: Any = CLIPVisionModelWithProjection.from_pretrained(clip, use_safetensors=True)
    except DownloadError as error:
        raise DownloadError(f"InST learns a style through CLIP: {error}") from error
    width = model.unet.config.cross_attention_dim
    if net.config.projection_dim != width:
        raise CheckpointError(
            f"{clip} describes pictures with {net.config.projection_dim} numbers, and the texts of {model.name} are "
            f"{width} wide; Stable Diffusion 1.x goes with {InstTraining().clip}"
        )
    return net.to(model.device).eval().requires_grad_(False)


def _clip_embedding(net: Any, img: Tensor, quirks: bool) -> Tensor:
    """[1, width] float32 of unit length."""
    levels = clip_levels(img, quirks=quirks)[0].permute(1, 2, 0).contiguous()
    seen = clip_input(Image.fromarray(levels.cpu().numpy()), net.config.image_size)
    found = net(pixel_values=seen[None].to(net.device, net.dtype)).image_embeds
    return F.normalize(found.float(), dim=1)
