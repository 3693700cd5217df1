"""Whom a style is measured on: codes, and G's pictures of them, drawn once for every generator that is to be compared.

Convention: pictures are uint8 [N, 3, S, S] RGB, as they would be saved; a person of another code is another row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from facestyle.errors import ConfigError, ImageError
from facestyle.evaluation.features import Pictures, iter_pictures
from facestyle.image import to_tensor
from facestyle.latents import broadcast, truncate
from facestyle.models.encode import encode
from facestyle.models.generator import Generator, sample_z
from facestyle.models.psp_encoder import AnyEncoder

__all__ = [
    "SAMPLE_PSI",
    "SAMPLE_SEED",
    "People",
    "check_aligned",
    "draw",
    "encode_people",
    "pil_pictures",
    "sample_people",
    "sample_w",
    "spread",
    "to_levels",
]

SAMPLE_SEED = 200
"""First seed of the sample people in sheets and reports; no training draws them one by one."""

SAMPLE_PSI = 0.8
"""Their truncation: beyond it some are nobody's faces."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class People:
    """Faces that every generator of a comparison draws.

    Attributes:
        w: [N, 512] or [N, num_ws, 512], truncated.
        sources: G's pictures of ``w``, uint8 [N, 3, S, S].
        photos: the photos that were encoded, likewise; None for samples of G.
        who: count, origin and psi in words, for reports.
        is_preview: drawn by the generators' cheap heads, not in full.
    """

    w: Tensor
    sources: Tensor
    photos: Tensor | None = None
    who: str
    is_preview: bool = False

    def drawn_by(self, generator: Generator) -> Tensor:
        """The same people, drawn the same way by another generator: uint8 [N, 3, S, S]."""
        return draw(generator, self.w, side_px=self.sources.shape[-1], is_preview=self.is_preview)


def sample_w(generator: Generator, count: int, psi: float, first_seed: int = SAMPLE_SEED) -> Tensor:
    """Codes [count, 512] of people who do not exist, one seed each, truncated."""
    seeds = range(first_seed, first_seed + count)
    z = torch.cat([sample_z(1, seed, generator.w_dim) for seed in seeds])
    with torch.no_grad():
        return truncate(generator.mapping(z.to(generator.w_avg.device)), generator.w_avg, psi)


def sample_people(
    generator: Generator,
    count: int,
    *,
    psi: float,
    first_seed: int = SAMPLE_SEED,
    side_px: int = 512,
    is_preview: bool = False,
) -> People:
    """People who do not exist: G's samples, one seed each.

    Args:
        generator: G.
        count: of people; at 512 px a thousand take 0.8 GB, at 256 px 0.2 GB.
        psi: truncation.
        first_seed: of the first; the others follow.
        side_px: side the pictures are measured at; G's own or less.
        is_preview: draw with the cheap head, whose pictures are the preview's side or less.

    Raises:
        ConfigError: no people, or a side the generator cannot draw.
    """
    if count < 1:
        raise ConfigError(f"expected 1 person or more to measure, got {count}")
    w = sample_w(generator, count, psi, first_seed)
    seeds = f"seeds {first_seed} to {first_seed + count - 1}" if count > 1 else f"seed {first_seed}"
    return People(
        w=w,
        sources=draw(generator, w, side_px=side_px, is_preview=is_preview),
        who=f"{count} samples of G, {seeds}, psi {psi:g}",
        is_preview=is_preview,
    )


def encode_people(
    generator: Generator,
    encoder: AnyEncoder,
    photos: Pictures,
    *,
    psi: float,
    side_px: int = 512,
    limit: int | None = None,
) -> People:
    """People on FFHQ-aligned photos, by their codes E_w(photo).

    Args:
        generator: G.
        encoder: E_w.
        photos: squares of 128 px or more, each resized to ``side_px`` for measuring.
        psi: truncation of the codes.
        side_px: side the pictures are measured at.
        limit: at most so many photos, the first ones.

    Raises:
        ImageError: a photo is no square of 128 px or more.
        ConfigError: no photos, or a side the generator cannot draw.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be 1 or more, got {limit}")
    codes: list[Tensor] = []
    kept: list[Tensor] = []
    device = generator.w_avg.device
    for image in iter_pictures(photos):
        if len(codes) == limit:
            break
        check_aligned(image)
        photo = to_tensor(image, device=device)
        with torch.no_grad():
            codes.append(encode(encoder, photo, generator).clone())
        size = (side_px, side_px)
        kept.append(to_levels(F.interpolate(photo, size, mode="bilinear", antialias=True)))
    if not codes:
        raise ConfigError("expected 1 photo or more to measure, got none")
    w = truncate(torch.cat(codes), generator.w_avg, psi)
    return People(
        w=w,
        sources=draw(generator, w, side_px=side_px),
        photos=torch.cat(kept),
        who=f"{len(w)} encoded photos, psi {psi:g}",
    )


def spread(count: int, wanted: int) -> list[int]:
    """Numbers of at most ``wanted`` of so many pictures, spread evenly over them."""
    chosen = min(count, wanted)
    return [i * count // chosen for i in range(chosen)]


def check_aligned(image: Image.Image) -> None:
    """Refuse what cannot be an FFHQ-aligned photo.

    Raises:
        ImageError: it is no square of 128 px or more.
    """
    if image.width != image.height or image.width < 128:
        raise ImageError(
            "expected FFHQ-aligned photos, squares of 128 px or more, got "
            f"{image.width}x{image.height}"
        )


def draw(
    generator: Generator, w: Tensor, *, side_px: int = 512, is_preview: bool = False
) -> Tensor:
    """Pictures uint8 [N, 3, side_px, side_px] of codes, made small by area; one at a time in full.

    Raises:
        ConfigError: ``side_px`` is more than the generator draws.
        ImageError: a picture holds NaN or infinity.
    """
    full = generator.preview_resolution if is_preview else generator.resolution
    if not 1 <= side_px <= full:
        kind = "previews" if is_preview else "pictures"
        raise ConfigError(f"side_px must be 1 to {full}, the side of its {kind}, got {side_px}")
    drawn = []
    with torch.no_grad():
        for part in w.to(generator.w_avg.device).split(1):
            img = generator.synthesis(broadcast(part, generator.num_ws), resolution=full)
            drawn.append(to_levels(F.interpolate(img, size=side_px, mode="area")))
    return torch.cat(drawn)


def to_levels(img: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [-1, 1] as uint8 on the CPU, rounded as a file would be.

    Raises:
        ImageError: NaN or infinity among them.
    """
    if not bool(torch.isfinite(img).all()):
        raise ImageError(
            "a picture holds NaN or infinity; the generator's weights are broken or its training diverged"
        )
    levels = img.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return levels.to("cpu", torch.uint8)


def pil_pictures(levels: Tensor) -> Iterator[Image.Image]:
    """Each picture of uint8 [N, 3, H, W], as PIL's."""
    for picture in levels.cpu():
        yield Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
