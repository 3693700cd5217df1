"""StyleID: the photo's structure with one picture's style, injected into self-attention (arXiv:2312.09008).

Both pictures are inverted to noise without text. From the photo's noise, with the style's statistics, a new picture is
denoised, whose self-attention asks with the photo's queries and is answered by the style's keys and values. Nothing is
trained, and nothing is random but what ``official_quirks`` draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from facestyle.baselines.ddim import Ddim, adain, channel_statistics
from facestyle.baselines.diffusion import guarded
from facestyle.baselines.diffusion_method import (
    STYLE_NUMBER,
    OnStep,
    Picture,
    StyledDiffusionBaseline,
    picture_digest,
    style_origin,
)
from facestyle.baselines.style_injection import Features, StyleInjection, layer_names
from facestyle.errors import CheckpointError, ConfigError
from facestyle.models.checkpoints import read_tensors, save_tensors
from facestyle.runtime import dtype_name

__all__ = ["StyleId", "StyleIdConfig", "Trajectory", "invert"]

_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleIdConfig:
    """How a photo becomes a picture; the defaults are those of the authors' first code, on Stable Diffusion 1.4.

    Attributes:
        gamma: share of the photo's queries; less is more style.
        tau: what the attention's logits are multiplied with.
        layers: self-attentions that are changed, by decoder block from 0 to 11, of which the first three have none.
        steps: of DDIM, up and down.
        latent_adain: begin from the photo's noise with the style's mean and deviation.
        inversion: "original" looks at the noise of a latent at its own time, and steps up; "diffusers", as the authors'
            second code, looks at it at the time it goes to.
        features: "replay" keeps latents, and passes photo, style and result through the UNet together; "store" keeps
            the attentions' features, 0.6 GB a photo and 1.2 GB a style in float16 on Stable Diffusion at 512 px: faster
            where one style meets many photos. The results are the same.
        seed: of the samples that ``official_quirks`` draw; nothing else is random.
        official_quirks: as the authors' first code does; see :class:`StyleId`.
    """

    gamma: float = 0.75
    tau: float = 1.5
    layers: tuple[int, ...] = (6, 7, 8, 9, 10, 11)
    steps: int = 50
    latent_adain: bool = True
    inversion: str = "original"
    features: str = "replay"
    seed: int = 22
    official_quirks: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must be from 0 to 1, got {self.gamma}")
        if self.inversion not in ("original", "diffusers"):
            raise ConfigError(
                f'inversion must be "original" or "diffusers", got {self.inversion!r}'
            )
        layer_names(self.layers)
        if self.features not in ("replay", "store"):
            raise ConfigError(f'features must be "replay" or "store", got {self.features!r}')
        if self.skips_first and self.steps < 2:
            raise ConfigError("official_quirks leave out the first step, so 2 or more are needed")

    @property
    def skips_first(self) -> bool:
        """Whether denoising leaves its first step out."""
        return self.official_quirks and self.inversion == "original"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A picture's way up to noise.

    Attributes:
        latents: [N, C, H, W] float32, what the UNet sees at each of the ascending times.
        end: [1, C, H, W], where the way ends.
    """

    latents: Tensor
    end: Tensor


def invert(
    predict: Callable[[Tensor, int], Tensor],
    ddim: Ddim,
    clean: Tensor,
    config: StyleIdConfig,
    *,
    progress: bool = False,
) -> Trajectory:
    """The way of a clean latent [1, C, H, W] up to noise by DDIM (arXiv:2010.02502).

    Args:
        predict: gives the noise in a latent at a time.
        ddim: the noise levels.
        clean: the latent; "original" inversion takes it for that of the first time, as the authors do.
        config: the settings.
        progress: show a bar.
    """
    times = ddim.times(config.steps)
    is_original = config.inversion == "original"
    targets = [*times[1:], ddim.last if config.skips_first else times[-1]] if is_original else times
    sources = times if is_original else [0, *times[:-1]]
    x, latents = clean, []
    moves = list(zip(times, sources, targets, strict=True))
    for time, source, target in tqdm(moves, desc="inversion", disable=not progress):
        latents.append(x)
        noise = predict(x, time)
        if source != target:
            x = ddim.move(x, noise, source, target)
    return Trajectory(torch.cat(latents), x)


class StyleId(StyledDiffusionBaseline[StyleIdConfig, Trajectory]):
    """Style injection; what is kept of a style is its way up to noise.

    ``official_quirks`` does as the authors' first code does:

    - "original" inversion goes on from the last time of the grid to 999;
    - with it, denoising leaves its first step out;
    - the latents of photo and style picture are samples of the autoencoder's distribution, in place of its means;
    - the statistics of noise are exchanged without the epsilon that keeps a flat channel from a division by 0;
    - the picture's levels are cut off to whole ones, in place of rounded: half a level of 255 darker.

    Left out: the samples come from one stream of numbers there, so that they depend on how many pictures there are and
    in which order; here on seed and number alone. Features are kept as a pickle there, of all queries, keys and values;
    here as a trajectory that gives the same. Pictures are cut to their middle squares by both.
    """

    name: ClassVar[str] = "styleid"
    settings = StyleIdConfig
    file = "trajectory.safetensors"
    format = "facestyle-styleid"
    _features: tuple[Trajectory, Features] | None = None

    @torch.no_grad()
    def follow(
        self, img: Tensor, config: StyleIdConfig | None = None, *, progress: bool = False
    ) -> Trajectory:
        """The way up to noise of a style picture [1, 3, R, R] in [-1, 1]; by the method's settings when None."""
        config = config or self.config
        with guarded(self.name):
            predict = self._predictor(StyleInjection(1.0, 1.0))
            clean = self._latents(img, config, STYLE_NUMBER)
            return invert(predict, self.model.ddim, clean, config, progress=progress)

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
        gamma: float | None = None,
        tau: float | None = None,
    ) -> Tensor:
        """Portraits; see :meth:`DiffusionBaseline.stylize`.

        ``style`` is a picture, which is inverted once for all photos in a row, and kept in ``cache``. ``seed`` changes
        nothing, for no random numbers are drawn, unless ``official_quirks`` sample the latents. ``gamma`` and ``tau``
        are those of the settings when None.

        Raises:
            ConfigError: the prepared style was inverted in another number of steps, or a setting is out of range.
        """
        config = self._changed(seed=seed, steps=steps, gamma=gamma, tau=tau)
        known = self._style_of(style, config, progress)
        if len(known.latents) != config.steps:
            raise ConfigError(
                f"the style was inverted in {len(known.latents)} steps, and {config.steps} are asked for; prepare it "
                "anew"
            )
        injection = StyleInjection(config.gamma, config.tau)
        with guarded(self.name), injection.installed(self.model.unet, config.layers):
            if config.features == "store":
                injection.style = self._style_features(injection, known, config)

            def draw(clean: Tensor, _: int) -> Tensor:
                return self._draw(clean, known, injection, config, progress, on_step)

            return self._each(content, first, config, draw)

    @torch.no_grad()
    def _style_features(
        self, injection: StyleInjection, style: Trajectory, config: StyleIdConfig
    ) -> Features:
        """Keys and values of a style, whose latents pass through the UNet once for all photos."""
        if self._features is not None and self._features[0] is style:
            return self._features[1]
        injection.mode = "style"
        predict = self._predictor(injection)
        times = self.model.ddim.times(config.steps)
        for time, latent in zip(times, style.latents.split(1), strict=True):
            predict(latent, time)
        self._features = style, injection.style
        return injection.style

    def _draw(
        self,
        clean: Tensor,
        style: Trajectory,
        injection: StyleInjection,
        config: StyleIdConfig,
        progress: bool,
        on_step: OnStep | None,
    ) -> Tensor:
        """Clean latents of the picture."""
        ddim, predict = self.model.ddim, self._predictor(injection)
        is_stored = config.features == "store"
        injection.mode = "queries" if is_stored else "off"
        photo = invert(predict, ddim, clean, config, progress=progress)
        injection.mode = "stored" if is_stored else "replay"
        x = photo.end
        if config.latent_adain:
            eps = 0.0 if config.official_quirks else _EPS
            x = adain(x, *channel_statistics(style.end, eps=eps), eps=eps)
        times = ddim.times(config.steps)
        place = {time: i for i, time in enumerate(times)}
        pairs = ddim.down(times)[config.skips_first :]
        for done, (time, target) in enumerate(self._steps(pairs, progress), start=1):
            i = place[time]
            seen = x
            if not is_stored:
                seen = torch.cat([photo.latents[i : i + 1], style.latents[i : i + 1], x])
            x = ddim.move(x, predict(seen, time)[-1:], time, target)
            if on_step is not None:
                on_step(done, len(pairs), x)
        return x

    def _predictor(self, injection: StyleInjection) -> Callable[[Tensor, int], Tensor]:
        """The noise in latents by the null text alone; tells the attentions the time."""
        null = self.model.text([""])

        def predict(x: Tensor, time: int) -> Tensor:
            injection.time = time
            return self.model.predict_noise(x, time, null.expand(len(x), -1, -1))

        return predict

    def _key(self, img: Tensor, config: StyleIdConfig) -> dict[str, Any]:
        key = {
            "model": self.model.fingerprint,
            "dtype": dtype_name(self.model.dtype),
            "picture": picture_digest(img),
            "steps": config.steps,
            "inversion": config.inversion,
            "official_quirks": config.official_quirks,
        }
        return key | {"seed": config.seed} if config.official_quirks else key

    def _learn_anew(
        self,
        img: Tensor,
        path: Path | None,
        origin: dict[str, Any],
        config: StyleIdConfig,
        progress: bool,
    ) -> Trajectory:
        way = self.follow(img, config, progress=progress)
        if path is not None:
            tensors = {"latents": way.latents, "end": way.end}
            save_tensors(tensors, path, metadata={"format": self.format, "origin": origin})
        return way

    def _read(self, path: Path, config: StyleIdConfig) -> Trajectory:
        origin = style_origin(path, self.format)
        own = self._key(torch.zeros(1), config) | {"picture": origin.get("picture")}
        if differ := sorted(k for k in {*origin, *own} if origin.get(k) != own.get(k)):
            told = "; ".join(f"{k}: {origin.get(k)} there, {own.get(k)} here" for k in differ)
            raise CheckpointError(
                f"was made by another model or other settings ({told}); set them alike, or prepare the style anew "
                "in another folder",
                path=path,
            )
        tensors = read_tensors(path)
        if tensors.keys() != {"latents", "end"}:
            raise CheckpointError(
                f"expected latents and end, got {', '.join(sorted(tensors)) or 'nothing'}; prepare the style anew",
                path=path,
            )
        latents, end = (tensors[name].to(self.model.device) for name in ("latents", "end"))
        return Trajectory(latents, end)
