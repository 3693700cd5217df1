"""InST: a photo in the style of one picture, which a learned token tells Stable Diffusion (arXiv:2211.13203).

The photo's latent is noised with the noise that the UNet itself sees in it, told the style ("stochastic inversion"),
and denoised towards the style from there.

The authors' code has oddities; :class:`Inst` lists them.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from facestyle.baselines.ddim import adain, channel_statistics
from facestyle.baselines.diffusion import LatentDiffusion, guarded
from facestyle.baselines.diffusion_method import (
    STYLE_NUMBER,
    OnStep,
    Picture,
    StyledDiffusionBaseline,
    crop_noise,
    latent_rng,
    picture_digest,
    style_origin,
)
from facestyle.baselines.inst_training import (
    InstTraining,
    check_trainable,
    style_token,
    train_embedding,
    view_style,
)
from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import read_metadata, read_tensors, save_tensors
from facestyle.runtime import dtype_name

__all__ = ["Inst", "InstConfig", "InstStyle"]

_log = logging.getLogger(__name__)

_FORMAT = "facestyle-inst"
_EPS = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class InstConfig:
    """How a photo becomes a picture; the defaults are those of the authors' notebook.

    Attributes:
        strength: share of the noise levels that the photo goes up; 0 leaves it as it is.
        steps: of DDIM over all levels; a photo takes ``strength`` of them.
        guidance: weight of the text in classifier-free guidance.
        prompt: ``*`` in it is the style; without it no style is transferred.
        latent_adain: give the photo's latent the style's mean and deviation first; the notebook does, the paper does
            not.
        seed: of the noise.
        training: how the style is learned.
        official_quirks: as the authors' code does; see :class:`Inst`.
    """

    strength: float = 0.7
    steps: int = 50
    guidance: float = 10.0
    prompt: str = "*"
    latent_adain: bool = True
    seed: int = 42
    training: InstTraining = field(default_factory=InstTraining)
    official_quirks: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength must be from 0 to 1, got {self.strength}")


@dataclass(frozen=True, eq=False)
class InstStyle:
    """A learned style.

    Attributes:
        vector: [1, width] float32, embedding of ``*``.
        mean: [1, C, 1, 1] of the picture's latent.
        std: likewise its deviation.
    """

    vector: Tensor
    mean: Tensor
    std: Tensor

    def save(self, path: str | Path, origin: dict[str, Any]) -> None:
        """Write 3 KiB of safetensors, which diffusers' ``load_textual_inversion`` reads too.

        Raises:
            OutputError: the file cannot be written.
        """
        statistics = {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        metadata = {"format": _FORMAT, "latent": statistics, "origin": origin}
        save_tensors({"style": self.vector}, path, metadata=metadata)

    @classmethod
    def read(cls, path: str | Path, device: torch.device) -> tuple[InstStyle, dict[str, Any]]:
        """The style in a file, and its origin.

        Raises:
            CheckpointError: the file is absent, damaged, or of another kind.
        """
        origin = style_origin(Path(path), _FORMAT)
        try:
            latent = json.loads(read_metadata(path)["latent"])
            mean, std = (
                torch.tensor(latent[k]).view(1, -1, 1, 1).to(device) for k in ("mean", "std")
            )
            return cls(read_tensors(path)["style"].to(device), mean, std), origin
        except KeyError as error:
            raise CheckpointError(f"lacks {error}; learn the style anew", path=path) from error


class Inst(StyledDiffusionBaseline[InstConfig, InstStyle]):
    """A learned style token behind a stochastic inversion of the photo.

    What is learned of a picture is one vector, by a long training: it is kept in a folder, that of ``prepare`` or one
    in ``cache``, where an interrupted training goes on.

    ``official_quirks`` does as the authors' code does:

    - CLIP sees an all but black picture: see `clip_levels`;
    - denoising begins below the level that was noised to: at time 681 from 700, by default;
    - dropout stays on when the vector is computed, for their module is saved while it trains;
    - the latents of photo and style picture are samples of the autoencoder's distribution, in place of its means;
    - pictures that are no squares are squeezed into one by Lanczos, in place of their middle squares;
    - the picture's levels are cut off to whole ones, in place of rounded: half a level of 255 darker.

    Left out: their notebook computes vector and latent of the style picture for every photo, so that each photo gets
    another dropout and another sample; here they are drawn once a style, by ``training.seed``, and kept. Their training
    squeezes the style picture by bicubic; one look by Lanczos serves both here. A strength of 1 asks for time 1000,
    where their code ends with an error; here 999 is taken.
    """

    name: ClassVar[str] = "inst"
    settings = InstConfig
    squash = Image.Resampling.LANCZOS
    file = "embedding.safetensors"
    format = _FORMAT

    def stylize(
        self,
        content: Tensor | Picture,
        style: Picture | None = None,
        *,
        seed: int | None = None,
        steps: int | None = None,
        first: int = 0,
        progress: bool = False,
        on_step: OnStep | None = None,
        strength: float | None = None,
    ) -> Tensor:
        """Portraits; see :meth:`DiffusionBaseline.stylize`.

        ``style`` is a picture, which is learned once if ``cache`` was given. ``seed`` is that of the photo's noise, not
        of training; ``strength`` is that of the settings when None.

        Raises:
            ConfigError: ``style`` was never learned, and there is no ``cache`` to keep it.
        """
        config = self._changed(seed=seed, steps=steps, strength=strength)
        known = self._style_of(style, config, progress)
        states = self._states(config.prompt, known)
        times, level = _levels(self.model, config)

        def draw(clean: Tensor, number: int) -> Tensor:
            if level is None and not config.official_quirks:
                return clean
            if config.latent_adain:
                clean = adain(clean, known.mean, known.std, eps=_EPS)
            if level is None:
                return clean
            noise = crop_noise(clean, config.seed, number)
            x = stochastic_inversion(self.model, clean, noise, level, states[1:])
            return self._denoise(x, times, states, config.guidance, progress, on_step)

        return self._each(content, first, config, draw)

    @torch.no_grad()
    def _states(self, prompt: str, style: InstStyle) -> Tensor:
        """[2, 77, width], of the null text and of the prompt with the style in it."""
        token = style_token(self.model)
        if not (self.model.token_ids([prompt]) == token).any():
            raise ConfigError(
                f"the prompt must hold the style as a word of its own, *; got {prompt!r}"
            )
        with self.model.embedding(token, style.vector):
            return self.model.text(["", prompt])

    def _denoise(
        self,
        x: Tensor,
        times: list[int],
        states: Tensor,
        guidance: float,
        progress: bool,
        on_step: OnStep | None,
    ) -> Tensor:
        pairs = self.model.ddim.down(times)
        for done, (time, target) in enumerate(self._steps(pairs, progress), start=1):
            e_null, e_style = self.model.predict_noise(torch.cat([x, x]), time, states).chunk(2)
            e = e_null + guidance * (e_style - e_null)
            x = self.model.ddim.move(x, e, time, target)
            if on_step is not None:
                on_step(done, len(pairs), x)
        return x

    def _key(self, img: Tensor, config: InstConfig) -> dict[str, Any]:
        key = {
            "model": self.model.fingerprint,
            "dtype": dtype_name(self.model.dtype),
            "picture": picture_digest(img),
            "training": config.training.origin(),
            "official_quirks": config.official_quirks,
        }
        return key | {"dropout": True, "sampled": True} if config.official_quirks else key

    def _learn_anew(
        self,
        img: Tensor,
        path: Path | None,
        origin: dict[str, Any],
        config: InstConfig,
        progress: bool,
    ) -> InstStyle:
        if path is None:
            raise ConfigError(
                "InST trains for every style picture, and a folder must keep what it learned: give cache= where the "
                "method is made, or prepare() the picture"
            )
        training, quirks = config.training, config.official_quirks
        check_trainable(self.model)
        with torch.inference_mode(False), torch.enable_grad(), guarded("InST's training"):
            views = view_style(img, self.model, training.clip, quirks=quirks)
            vector = train_embedding(
                self.model, views, path.parent, training, origin, dropout=quirks, progress=progress
            )
        latent, std = views.latents[0]
        if quirks:
            rng = latent_rng(training.seed, STYLE_NUMBER)
            latent = latent + std * torch.randn(std.shape, generator=rng).to(std.device)
        style = InstStyle(vector, *channel_statistics(latent, eps=_EPS))
        style.save(path, origin)
        return style

    def _read(self, path: Path, config: InstConfig) -> InstStyle:
        style, origin = InstStyle.read(path, self.model.device)
        width = self.model.unet.config.cross_attention_dim
        if style.vector.shape != (1, width):
            raise CheckpointError(
                f"was learned on another kind of model, and does not fit {self.model.name}; learn the style anew with "
                "it",
                path=path,
            )
        if origin.get("official_quirks") != config.official_quirks:
            raise CheckpointError(
                f"was learned with official_quirks {origin.get('official_quirks')}, and {config.official_quirks} is "
                "asked for; set it alike, or learn the style anew in another folder",
                path=path,
            )
        own = self._key(torch.zeros(1), config)
        if origin.get("dtype") == own["dtype"] and origin.get("model") != own["model"]:
            _log.warning("%s was learned on another model than %s", path, self.model.name)
        return style


def stochastic_inversion(
    model: LatentDiffusion, clean: Tensor, noise: Tensor, level: int, states: Tensor
) -> Tensor:
    """The latent at time ``level`` whose noise is what the UNet sees in the randomly noised one.

    One that finds the true noise leaves it as it was.
    """
    x = model.ddim.add_noise(clean, noise, level)
    return model.ddim.add_noise(clean, model.predict_noise(x, level, states), level)


def _levels(model: LatentDiffusion, config: InstConfig) -> tuple[list[int], int | None]:
    """The times to denoise from, ascending, and the one to noise to; None for a photo that stays as it is."""
    quirks = config.official_quirks
    count = int(config.strength * config.steps + (0 if quirks else 1e-9))  # 0.58 of 50 are 29
    times = model.ddim.times(config.steps)[:count]
    if quirks:
        return times, min(int(config.strength * (model.ddim.last + 1)), model.ddim.last)
    return times, times[-1] if times else None
