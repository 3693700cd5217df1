"""UI2I-style: coarse features of the photo's code in G, finer layers of G* with a code of the style.

Source: "Unsupervised Image-to-Image Translation via Pre-trained StyleGAN2 Network" (arXiv:2010.05713). It is what
the method means to do, not what its public code does: there the last code of an optimisation is not the one kept, and
references go through the mapping network twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from PIL import ImageOps
from torch import Tensor
from tqdm import tqdm
from typing_extensions import Self

from facestyle.baselines.base import (
    PictureSources,
    ProjectingBaseline,
    prepared,
)
from facestyle.baselines.layer_blend import blend_layers, switch_position
from facestyle.baselines.star import DEFAULT_STAR, load_star, train_star_in
from facestyle.baselines.toonify import own_parameters
from facestyle.errors import ConfigError
from facestyle.image import load_image, to_tensor
from facestyle.inversion import Inverter, ReconstructionLoss
from facestyle.latents import broadcast, style_mix, truncate
from facestyle.models.generator import Generator
from facestyle.models.stylegan2_generator import StyleGAN2Synthesis
from facestyle.reference import v_basis
from facestyle.seeds import TRAINING_SEEDS, check_seed, numbered_seed
from facestyle.training.finetune_config import FinetuneConfig

__all__ = ["Ui2i", "Ui2iConfig"]


_LOOK_EVERY = 8
"""Steps between looks at the full picture of G*, whose preview has drifted from it in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ui2iConfig:
    """How a photo becomes a picture.

    Attributes:
        swap_layer: 1, 3, 5, ... for the end of the 8, 16, 32, ... px block: up to there G draws the content, above it
            G* draws the style. The last swap, at the picture's own side, leaves nothing of the mobile generator to G*:
            the result is the content's picture. Of a StyleGAN2 it leaves the heads.
        steps: of the search for the content's code in V of G, and of a reference's in V of G*.
        lr: its rate, in W's own units.
        psi: truncation of random style codes.
        reference: an aligned style picture whose code every result gets; empty draws a code for each crop.
        seed: of random style codes.
    """

    swap_layer: int = 3
    steps: int = 1000
    lr: float = 0.1
    psi: float = 0.5
    reference: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, TRAINING_SEEDS)
        if self.swap_layer < 1 or self.swap_layer % 2 == 0:
            raise ConfigError(f"swap_layer must be 1, 3, 5, ..., got {self.swap_layer}")
        if self.steps < 0:
            raise ConfigError(f"steps must be 0 or more, got {self.steps}")


class Ui2i(ProjectingBaseline):
    """Features swapped between G and G*, behind a projection into V of G.

    Args:
        base: G.
        config: how a photo becomes a picture.
        star: how G* is finetuned.

    Raises:
        ConfigError: the generator has no such layer to swap.
    """

    name: ClassVar[str] = "ui2i"

    def __init__(
        self,
        base: Generator,
        config: Ui2iConfig | None = None,
        *,
        star: FinetuneConfig = DEFAULT_STAR,
    ) -> None:
        self.base = base
        self.config = config or Ui2iConfig()
        self.star_config = star
        self.swapped: Generator | None = None
        self.reference: Tensor | None = None
        self._loss: ReconstructionLoss | None = None
        last = 2 * round(math.log2(base.resolution)) - 5
        if self.config.swap_layer > last:
            raise ConfigError(
                f"swap_layer must be at most {last} for {base.resolution} px, got {self.config.swap_layer}"
            )

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures: G's."""
        return self.base.resolution

    @property
    def parameters(self) -> int:
        """G's synthesis network, what is used of G* and differs, and for random codes the mapping network."""
        total = own_parameters(self.base, prepared(self.swapped, self))
        if self.config.reference:
            return total
        return total + sum(p.numel() for p in self.base.mapping.parameters())

    def prepare(self, pictures: PictureSources, out: str | Path, *, progress: bool = True) -> Self:
        """Train or resume G* in ``out``, then load it; see :meth:`Baseline.prepare`."""
        train_star_in(out, self.base, pictures, self.star_config, progress=progress)
        return self.load(out, progress=progress)

    def load(self, out: str | Path, *, progress: bool = False) -> Self:
        """Take the G* that ``out`` holds, and find the reference's code in it where there is a reference.

        Features of G entering G* at a block are the same thing as one generator with G's layers below and G*'s above,
        where the picture is drawn from the last features alone. The heads of a StyleGAN2 draw from all: there G* stays
        whole, and gets G's features when it draws.
        """
        star = load_star(out, self.base)
        if isinstance(star.synthesis, StyleGAN2Synthesis):
            self.swapped = star
        else:
            first_of_star = switch_position(16 << self.config.swap_layer // 2, 0)
            self.swapped = blend_layers(self.base, star, first_of_star)
        if self.config.reference:
            picture = _read_square(self.config.reference)
            self.reference = self._code_in(star, picture, progress, look_every=_LOOK_EVERY)
        return self

    def check_ready(self) -> None:
        """Refuse to begin without a style; see :meth:`ProjectingBaseline.check_ready`."""
        prepared(self.swapped, self)

    def project(self, crops: Tensor, *, progress: bool = False) -> Tensor:
        """Codes w [B, w_dim] of the content, searched in V of G."""
        return self._code_in(self.base, crops, progress)

    def draw(self, codes: Tensor, *, first: int = 0) -> Tensor:
        """Pictures [B, 3, R, R] of the content's codes w, with the styles of crops numbered from ``first``."""
        return self.mix(codes.to(self.base.w_avg.device), self.style_codes(len(codes), first))

    def style_codes(self, count: int, first: int = 0) -> Tensor:
        """Codes w [count, w_dim]: the reference's, or random ones of the crops numbered from ``first``."""
        w_avg = self.base.w_avg
        if self.reference is not None:
            return self.reference.expand(count, -1)
        rows = []
        for number in range(first, first + count):
            rng = torch.Generator().manual_seed(numbered_seed(self.config.seed, number))
            rows.append(torch.randn(self.base.w_dim, generator=rng))
        with torch.no_grad():
            w = self.base.mapping(torch.stack(rows).to(w_avg.device))
        return truncate(w, w_avg, self.config.psi)

    def mix(self, content: Tensor, style: Tensor) -> Tensor:
        """Pictures [B, 3, R, R] from codes w [B, w_dim] of content and style."""
        rows = self.base.num_ws
        w_plus = style_mix(
            broadcast(content, rows), broadcast(style, rows), self.config.swap_layer + 2
        )
        with torch.inference_mode():
            img = self._synthesis(w_plus)
        return img.float().clamp(-1, 1)

    def _synthesis(self, w_plus: Tensor) -> Tensor:
        """The picture of rows of the content up to the swap and of the style above it.

        In a StyleGAN2 the features behind the swap's block are G's and all else is G*'s: the heads below draw what G*
        makes of the content's rows.
        """
        synthesis, last = prepared(self.swapped, self).synthesis, self.config.swap_layer + 1
        img: Tensor
        if not isinstance(synthesis, StyleGAN2Synthesis):
            img = synthesis(w_plus)
            return img
        side = 8 << self.config.swap_layer // 2
        kept: dict[int, Tensor] = {}
        self.base.synthesis(w_plus, resolution=side, after_conv=kept.setdefault)
        img = synthesis(w_plus, after_conv=lambda row, x: kept[row] if row == last else x)
        return img

    def _code_in(
        self, generator: Generator, photos: Tensor, progress: bool, look_every: int = 0
    ) -> Tensor:
        """The w [B, w_dim] with which a generator draws the photos best, searched in V space from the mean of W."""
        config, device = self.config, self.base.w_avg.device
        self._loss = self._loss or ReconstructionLoss(device=device)
        basis = v_basis(generator)
        inverter = Inverter(
            generator, self._loss, lr=config.lr, std=1.0, offset_weight=None,
            look_every=look_every, to_rows=lambda v: v @ basis,
        )  # fmt: skip
        start = (generator.w_avg @ basis.T).expand(len(photos), -1)
        with tqdm(total=config.steps, desc="projection", disable=not progress) as bar:
            on_step = lambda _: bar.update()  # noqa: E731
            return inverter(photos.to(device), start, config.steps, on_step=on_step)[:, 0]


def _read_square(path: str | Path) -> Tensor:
    """[1, 3, S, S] in [-1, 1], the middle of a picture."""
    image = load_image(path)
    side = min(image.size)
    return to_tensor(ImageOps.fit(image, (side, side)))
