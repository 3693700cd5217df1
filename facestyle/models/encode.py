"""From aligned faces to codes by looking twice: encode, draw the code, and correct it by what the picture lacks.

One look leaves a code too near the mean face. What the encoder sees in the picture of its own code, beside what it sees
in the photo, says in which direction to go on. The idea of feedback is ReStyle's (arXiv:2104.02699); there a second
network sees both pictures at once, here one encoder sees each by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from facestyle.models.encoder import Encoder, to_w_plus
from facestyle.models.generator import Generator
from facestyle.models.psp_encoder import AnyEncoder

__all__ = ["Draw", "corrected", "corrects_by", "encode", "preview_of"]

Draw = Callable[[Tensor], Tensor]
"""From codes to pictures [B, 3, S, S] in about [-1, 1]."""


def corrected(encoder: Encoder, img: Tensor, draw: Draw, corrections: int) -> Tensor:
    """Codes of aligned faces [B, 3, S, S] after so many corrections; gradients are those of the last one alone."""
    photo = encoder.look(img)
    codes = encoder.decode(photo)
    for _ in range(corrections):
        with torch.no_grad():
            codes = codes.detach()
            picture = draw(codes).clamp(-1, 1)
        codes = encoder.correct(codes, photo, encoder.look(picture))
    return codes


def encode(
    encoder: AnyEncoder, img: Tensor, generator: Generator, draw: Draw | None = None
) -> Tensor:
    """Codes of aligned faces [B, 3, S, S] in [-1, 1] in the encoder's space, corrected as often as it has learned.

    Args:
        encoder: into any space.
        img: the faces, on the encoder's device.
        generator: G, in whose spaces the codes lie.
        draw: from w_plus of G to small pictures, in place of the preview path of `corrects_by`; it must draw what that
            draws.
    """
    if not isinstance(encoder, Encoder) or not encoder.corrections:
        codes: Tensor = encoder(img)
        return codes
    space = encoder.space
    if draw is None:
        generator = corrects_by(encoder, generator)
        draw = preview_of(generator)
    return corrected(
        encoder,
        img,
        lambda codes: draw(to_w_plus(codes, space, generator)),
        encoder.corrections,
    )


def corrects_by(encoder: AnyEncoder, generator: Generator) -> Generator:
    """The generator whose pictures an encoder corrects its codes by.

    That is G, except that the bundled encoder, where its codes are for an imported generator of the same W, sees them
    drawn by the bundled one, as it has learned it: what a stylized generator changes is no error of the code.

    Args:
        encoder: into any space.
        generator: G, in whose spaces the codes lie.
    """
    is_other = generator.source is not None
    if not (isinstance(encoder, Encoder) and encoder.is_bundled and is_other):
        return generator
    return _bundled_base(generator.w_avg.device)


@functools.lru_cache(maxsize=1)
@torch.inference_mode(False)  # others may draw with it later
def _bundled_base(device: torch.device) -> Generator:
    from facestyle.models.zoo import load_base_generator

    return load_base_generator().to(device)


def preview_of(generator: Generator) -> Draw:
    """G's preview path: from w_plus to pictures [B, 3, S, S]."""

    def draw(w_plus: Tensor) -> Tensor:
        img: Tensor = generator.synthesis(w_plus, resolution=generator.preview_resolution)
        return img

    return draw
