"""Toonify: the photo's code, found in G by optimisation, drawn by layers of G and of a finetuned G*.

Source: "Resolution Dependent GAN Interpolation for Controllable Image Synthesis Between Domains" (arXiv:2010.05334).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from tqdm import tqdm
from typing_extensions import Self

from facestyle.baselines.base import (
    PictureSources,
    ProjectingBaseline,
    count_parameters,
    prepared,
)
from facestyle.baselines.layer_blend import blend_layers, switch_position
from facestyle.baselines.star import DEFAULT_STAR, load_star, train_star_in
from facestyle.errors import ConfigError
from facestyle.inversion import Inverter
from facestyle.models.bases import encoder_for
from facestyle.models.encode import encode
from facestyle.models.generator import Generator
from facestyle.models.psp_encoder import AnyEncoder
from facestyle.training.finetune_config import FinetuneConfig

__all__ = ["Toonify", "ToonifyConfig", "own_parameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToonifyConfig:
    """How a photo becomes a picture.

    Attributes:
        coarse: who gives the coarse layers. "style": G* shapes the face and G gives the texture, as in the public
            models; "base": the reverse, as the paper (section 2.1) describes the method.
        switch_px: resolution from which the other generator gives the layers.
        switch_level: 0 for the first half of that resolution's layers, 1 for the second.
        width: 0 switches hard, else positions the passage takes.
        steps: of the projection into W+.
        lr: its rate, in standard deviations of W, 0.42 in FFHQ's: 0.1 is 0.042 in W's own units.
        offset_weight: what holds W+ to W in the projection; 0, as in the original, does not.
        start: where the projection starts, "mean" (of W) or "encoder" (E_w of the photo).
    """

    coarse: str = "style"
    switch_px: int = 128
    switch_level: int = 0
    width: float = 0.0
    steps: int = 500
    lr: float = 0.1
    offset_weight: float = 0.0
    start: str = "mean"

    def __post_init__(self) -> None:
        if self.coarse not in ("style", "base"):
            raise ConfigError(f'coarse must be "style" or "base", got {self.coarse!r}')
        if self.start not in ("mean", "encoder"):
            raise ConfigError(f'start must be "mean" or "encoder", got {self.start!r}')
        for name in ("width", "steps", "offset_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        switch_position(self.switch_px, self.switch_level)


class Toonify(ProjectingBaseline):
    """Layer-blended generators behind a projection into W+.

    The noise planes stay as they are; the original optimises them too, and then draws with others.

    Args:
        base: G.
        config: how a photo becomes a picture.
        star: how G* is finetuned.
        encoder: E_w, for ``start="encoder"``; the one that goes with G when None.
    """

    name: ClassVar[str] = "toonify"

    def __init__(
        self,
        base: Generator,
        config: ToonifyConfig | None = None,
        *,
        star: FinetuneConfig = DEFAULT_STAR,
        encoder: AnyEncoder | None = None,
    ) -> None:
        self.base = base
        self.encoder = encoder
        self.config = config or ToonifyConfig()
        self.star_config = star
        self.blended: Generator | None = None
        self._inverter: Inverter | None = None

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures: G's."""
        return self.base.resolution

    @property
    def parameters(self) -> int:
        """G's synthesis network, which projects, what the blend has beyond it, and E_w if projection starts there."""
        drawing = own_parameters(self.base, prepared(self.blended, self))
        if self.config.start != "encoder":
            return drawing
        return drawing + count_parameters(self._ready_encoder())

    def prepare(self, pictures: PictureSources, out: str | Path, *, progress: bool = True) -> Self:
        """Train or resume G* in ``out``, then blend it with G; see :meth:`Baseline.prepare`."""
        train_star_in(out, self.base, pictures, self.star_config, progress=progress)
        return self.load(out)

    def load(self, out: str | Path) -> Self:
        """Blend the G* that ``out`` holds with G."""
        star, config = load_star(out, self.base), self.config
        coarse, fine = (star, self.base) if config.coarse == "style" else (self.base, star)
        switch = switch_position(config.switch_px, config.switch_level)
        self.blended = blend_layers(coarse, fine, switch, width=config.width)
        return self

    def check_ready(self) -> None:
        """Refuse to begin without a style; see :meth:`ProjectingBaseline.check_ready`."""
        prepared(self.blended, self)

    def draw(self, codes: Tensor, *, first: int = 0) -> Tensor:
        """Pictures [B, 3, R, R] of codes w_plus by the blend; nothing is drawn at random."""
        with torch.inference_mode():
            img: Tensor = prepared(self.blended, self).synthesis(codes.to(self.base.w_avg.device))
        return img.float().clamp(-1, 1)

    def project(self, crops: Tensor, *, progress: bool = False) -> Tensor:
        """w_plus [B, num_ws, w_dim] whose pictures in G look like the crops [B, 3, S, S]."""
        config = self.config
        crops = crops.to(self.base.w_avg.device)
        if self._inverter is None:
            self._inverter = Inverter(self.base, lr=config.lr, offset_weight=config.offset_weight)
        if config.start == "encoder":
            with torch.no_grad():
                start = encode(self._ready_encoder(), crops, self.base)
        else:
            start = self.base.w_avg.expand(len(crops), -1)
        with tqdm(total=config.steps, desc="projection", disable=not progress) as bar:
            return self._inverter(crops, start, config.steps, on_step=lambda _: bar.update())

    def _ready_encoder(self) -> AnyEncoder:
        if self.encoder is None:
            self.encoder = encoder_for(self.base, "w")
        self.encoder = self.encoder.to(self.base.w_avg.device)
        return self.encoder


def own_parameters(base: Generator, blended: Generator) -> int:
    """Parameters of two generators' synthesis networks together; equal tensors count once."""
    total = sum(p.numel() for p in base.synthesis.parameters())
    pairs = zip(base.synthesis.parameters(), blended.synthesis.parameters(), strict=True)
    return total + sum(b.numel() for a, b in pairs if not torch.equal(a, b))
