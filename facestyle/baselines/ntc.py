"""NTC: null-text guidance on a disturbed latent makes a photo a cartoon of Stable Diffusion's own (arXiv:2305.06710).

Classifier-free guidance, ``e_null + w * (e_text - e_null)``, with e_null evaluated on another latent: that of an
earlier, noisier step, or the photo's own clean latent. No style picture and no training take part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from facestyle.baselines.base import PictureSources
from facestyle.baselines.ddim import Ddim
from facestyle.baselines.diffusion import guarded
from facestyle.baselines.diffusion_method import DiffusionBaseline, OnStep, Picture, crop_noise
from facestyle.errors import ConfigError
from facestyle.image import IMAGE_SUFFIXES

__all__ = ["Ntc", "NtcConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NtcConfig:
    """How a photo becomes a picture.

    The authors sweep both times and write a prompt for every picture; ``disturbance_time``, ``rollback_time`` and
    ``prompt`` are our choice among their values, the rest is theirs.

    Attributes:
        disturbance: "rollback" evaluates the null text on the latent of an earlier step (Back-D), "image" on the
            photo's clean latent (Image-D).
        disturbance_time: up to here a photo is noised, and from here down the disturbance acts; of 1000.
        rollback_time: how much noisier the earlier step is; of 1000. 0 is plain classifier-free guidance.
        prompt: what the photo shows.
        guidance: weight w of the text.
        steps: of DDIM over all 1000 times; a photo takes those up to ``disturbance_time``.
        seed: of the noise.
        official_quirks: as the authors' code does; see :class:`Ntc`.
    """

    disturbance: str = "rollback"
    disturbance_time: int = 300
    rollback_time: int = 200
    prompt: str = "a photo of a face"
    guidance: float = 10.0
    steps: int = 100
    seed: int = 796
    official_quirks: bool = False

    def __post_init__(self) -> None:
        if self.disturbance not in ("rollback", "image"):
            raise ConfigError(
                f'disturbance must be "rollback" or "image", got {self.disturbance!r}'
            )
        for name in ("disturbance_time", "rollback_time"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ConfigError(f"{name} must be from 0 to 1000, got {getattr(self, name)}")
        if self.disturbance == "rollback" and self.official_quirks and self.rollback_steps < 0:
            raise ConfigError(
                f"rollback_time {self.rollback_time} is no whole step of {self.steps}; the authors' code then takes "
                "the noisiest latent instead: raise rollback_time, or set official_quirks to False"
            )

    @property
    def rollback_steps(self) -> int:
        """Steps between the two latents."""
        if self.official_quirks:
            return int(self.rollback_time * self.steps / 1000) - 1
        return round(self.rollback_time * self.steps / 1000)


class Ntc(DiffusionBaseline[NtcConfig]):
    """Null-text guidance with a disturbance; it has one style, so that there is nothing to prepare or to cache.

    ``official_quirks`` does as the authors' code does:

    - the rollback is one step shorter than ``rollback_time``;
    - noise is added as if the clean latent were already at time 1;
    - the photo's latent is a sample of the autoencoder's distribution, in place of its mean;
    - a photo that is no square is squeezed into one by bicubic, in place of its middle square;
    - the picture's levels are cut off to whole ones, in place of rounded: half a level of 255 darker.

    Left out: their noise file, eight draws of plain Gaussian noise, which a seed replaces; that their program ignores
    its ``--seed``; that pictures are saved as JPEG, which is up to the caller; that their checkpoint's weights are
    those before averaging, which is up to ``model_id``. A rollback of less than a step, for which their code takes the
    noisiest latent, is refused.
    """

    name: ClassVar[str] = "ntc"
    settings = NtcConfig
    squash = Image.Resampling.BICUBIC

    def prepare(self, pictures: PictureSources, out: str | Path, *, progress: bool = True) -> Self:
        """This object: the method takes nothing from style pictures."""
        return self

    def load(self, out: str | Path) -> Self:
        """This object: the method keeps nothing."""
        return self

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
    ) -> Tensor:
        """Cartoons; see :meth:`DiffusionBaseline.stylize`.

        ``style`` is a text, what the photo shows: the settings' ``prompt`` when None. The cartoon is the method's own
        whatever it says.

        Raises:
            ConfigError: ``style`` is a picture.
        """
        config = self._changed(seed=seed, steps=steps, prompt=_prompt(style))
        with guarded(self.name), torch.no_grad():
            states = self.model.text(["", config.prompt])
        ddim = self.model.ddim

        def draw(clean: Tensor, number: int) -> Tensor:
            noise = crop_noise(clean, config.seed, number)
            noised = noised_latents(ddim, config, clean, noise)
            times = [t for t in ddim.times(config.steps) if t <= config.disturbance_time]
            if not times:
                return noised[-1]
            disturbed = clean if config.disturbance == "image" else None
            return self._denoise(noised, times, states, config, disturbed, progress, on_step)

        return self._each(content, first, config, draw)

    def generate(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        progress: bool = False,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """A cartoon [1, 3, R, R] from text alone: plain guidance down to ``disturbance_time``, then the rollback.

        Args:
            prompt: what it shows.
            seed: of the noise; the settings' when None.
            progress: show a bar.
            on_step: called after each step.

        Raises:
            ConfigError: the settings ask for the photo's latent, and there is none.
        """
        config = self._changed(seed=seed, prompt=prompt)
        if config.disturbance == "image":
            raise ConfigError('disturbance="image" needs a photo; use stylize, or "rollback"')
        model = self.model
        side = model.unet.config.sample_size
        like = torch.empty(1, model.unet.config.in_channels, side, side, device=model.device)
        with guarded(self.name), torch.no_grad():
            states = model.text(["", config.prompt])
            start = [crop_noise(like, config.seed, 0)]
            times = model.ddim.times(config.steps)
            latents = self._denoise(start, times, states, config, None, progress, on_step)
            return self._picture(latents, config)

    def _denoise(
        self,
        noised: Sequence[Tensor],
        times: list[int],
        states: Tensor,
        config: NtcConfig,
        disturbed: Tensor | None,
        progress: bool,
        on_step: OnStep | None,
    ) -> Tensor:
        """Clean latents.

        Args:
            noised: latents, the noisiest first, of which the last is at the last of ``times``.
            times: ascending.
            states: of the null text and the prompt.
            config: the settings.
            disturbed: what the null text is evaluated on; the latent ``rollback_steps`` before when None, or the
                noisiest there is.
            progress: show a bar.
            on_step: called after each step.
        """
        history = deque(noised, maxlen=config.rollback_steps + 1)
        pairs = self.model.ddim.down(times)
        for done, (time, target) in enumerate(self._steps(pairs, progress), start=1):
            x = history[-1]
            null = x
            if time <= config.disturbance_time:
                null = history[0] if disturbed is None else disturbed
            e_null, e_text = self.model.predict_noise(torch.cat([null, x]), time, states).chunk(2)
            e = e_null + config.guidance * (e_text - e_null)
            history.append(self.model.ddim.move(x, e, time, target))
            if on_step is not None:
                on_step(done, len(pairs), history[-1])
        return history[-1]


def _prompt(style: Picture | None) -> str | None:
    """``style``, unless it is a picture or the name of one's file."""
    is_text = isinstance(style, str) and not style.lower().endswith(IMAGE_SUFFIXES)
    if style is not None and not is_text:
        raise ConfigError(
            f"NTC takes nothing from style pictures, got {style!r}; its style is a text, what the photo shows, such as "
            f"{NtcConfig().prompt!r}"
        )
    return style if isinstance(style, str) else None


def noised_latents(ddim: Ddim, config: NtcConfig, clean: Tensor, noise: Tensor) -> list[Tensor]:
    """The photo's latents from the noisiest step to the first that is disturbed.

    All hold the same noise: ``x_t = sqrt(a_t) * x_0 + sqrt(1 - a_t) * noise``. The authors' code moves up from the
    clean latent as if it were at time 1, with this noise in the network's place, which is the same line through
    ``x_0 = (clean - sqrt(1 - a_1) * noise) / sqrt(a_1)``.
    """
    times = ddim.times(config.steps)
    if config.official_quirks:
        a = ddim.alphas[times[0]]
        clean = (clean - (1 - a).sqrt() * noise) / a.sqrt()
    disturbed = [t for t in times if t <= config.disturbance_time][-1:]
    before = [t for t in reversed(times) if t > config.disturbance_time]
    if not disturbed:
        return [clean]
    return [ddim.add_noise(clean, noise, t) for t in [*before, *disturbed]]
