"""Faces for ``facestyle-tiny-diffusion``, drawn by generators, each with what is known of it: its style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from facestyle.baselines.base import resize
from facestyle.errors import CheckpointError
from facestyle.latents import broadcast
from facestyle.models.checkpoints import read_tensors, save_tensors
from facestyle.models.generator import Generator
from facestyle.seeds import numbered_seed
from facestyle.training.tiny_diffusion_models import PHOTO, TinyDiffusionConfig

__all__ = ["FacePool", "FaceSource", "bundled_sources", "draw_pool"]

_CHUNK = 64
"""Pictures in a file of the pool."""
_BATCH = 8
"""Pictures drawn at a time: a full one of 1024 px takes a few hundred MB on the way."""

STYLE_PSI = 0.8
"""Of random codes in a style; beyond it some are caricatures of nobody."""


@dataclass(frozen=True, eq=False)
class FaceSource:
    """A generator, and what its pictures are.

    Attributes:
        name: "photo" for faces as a camera sees them, else the style's name, which goes into the captions.
        generator: that draws them.
        psi: how far its codes may go from their mean.
        license: of its pictures.
    """

    name: str
    generator: Generator
    psi: float = 1.0
    license: str = "apache-2.0"


@dataclass(frozen=True, eq=False)
class FacePool:
    """Pictures in memory.

    Attributes:
        pictures: [N, 3, S, S] uint8.
        kinds: [N], the number of the source that drew each.
    """

    pictures: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """[B, 3, S, S] float32 in [-1, 1]."""
        return self.pictures[list(indices)].to(device).float() / 127.5 - 1


def bundled_sources(styles: Sequence[str] | None = None) -> list[FaceSource]:
    """The base generator and styles; the bundled ones when None.

    Raises:
        StyleNotFoundError: there is no such style.
        CheckpointError: a style's folder is damaged.
    """
    from facestyle.models.zoo import load_base_generator, load_style_generator
    from facestyle.styles import StyleConfig, bundled_styles, find_style

    base = load_base_generator()
    sources = [FaceSource(PHOTO, base)]
    for style in bundled_styles() if styles is None else styles:
        folder = find_style(style)
        config = StyleConfig.from_file(folder / "config.json")
        generator = load_style_generator(folder, base)
        sources.append(FaceSource(config.name, generator, STYLE_PSI, config.license))
    return sources


def draw_pool(
    folder: Path,
    sources: Sequence[FaceSource],
    config: TinyDiffusionConfig,
    device: torch.device,
    *,
    progress: bool = True,
) -> FacePool:
    """The run's pictures; those drawn are kept in ``folder``, and not drawn again.

    Args:
        folder: of the pictures.
        sources: whose generators are on ``device``; the first draws ``photo_share`` of the pictures, the others the
            rest in equal parts.
        config: what to do.
        device: where to draw.
        progress: show a bar.

    Raises:
        OutputError: the folder cannot be written.
        CheckpointError: a file in it is damaged.
    """
    count, side = config.pictures, config.image_px
    pool = FacePool(
        torch.empty(count, 3, side, side, dtype=torch.uint8), torch.empty(count, dtype=torch.long)
    )
    bar = tqdm(total=count, desc="pictures", disable=not progress)
    for start in range(0, count, _CHUNK):
        numbers = range(start, min(start + _CHUNK, count))
        path = folder / f"{start // _CHUNK:05d}.safetensors"
        if not path.is_file():
            drawn = _draw(sources, numbers, config, device)
            save_tensors(drawn, path, metadata={"format": "facestyle-face-pool"})
        _read_into(pool, numbers, path)
        bar.update(len(numbers))
    bar.close()
    return pool


def _read_into(pool: FacePool, numbers: range, path: Path) -> None:
    part = slice(numbers.start, numbers.stop)
    tensors = read_tensors(path)
    for name, whole in (("pictures", pool.pictures[part]), ("kinds", pool.kinds[part])):
        if name not in tensors or tensors[name].shape != whole.shape:
            raise CheckpointError(
                f"holds no {name} of this run; delete it, to draw them anew", path=path
            )
        whole.copy_(tensors[name])


def _draw(
    sources: Sequence[FaceSource], numbers: range, config: TinyDiffusionConfig, device: torch.device
) -> dict[str, Tensor]:
    """Pictures of these numbers, each of which decides source, code and truncation by itself."""
    side = config.image_px
    pictures = torch.empty(len(numbers), 3, side, side, dtype=torch.uint8)
    plans = [_plan(sources, number, config) for number in numbers]
    kinds = torch.tensor([kind for kind, _, _ in plans])
    for kind, source in enumerate(sources):
        for rows in (kinds == kind).nonzero()[:, 0].split(_BATCH):
            if len(rows) == 0:
                continue
            z = torch.stack([plans[row][1] for row in rows]).to(device)
            psi = torch.tensor([[plans[row][2]] for row in rows], device=device)
            pictures[rows] = _pictures(source, z, psi, side).cpu()
    return {"pictures": pictures, "kinds": kinds}


def _plan(
    sources: Sequence[FaceSource], number: int, config: TinyDiffusionConfig
) -> tuple[int, Tensor, float]:
    """Source, z [w_dim] and psi of a picture."""
    rng = torch.Generator().manual_seed(numbered_seed(config.seed, number))
    chance, place, share = torch.rand(3, generator=rng).tolist()
    is_first = chance < config.photo_share or len(sources) == 1
    kind = 0 if is_first else 1 + int(place * (len(sources) - 1))
    z = torch.randn(sources[kind].generator.w_dim, generator=rng)
    psi = config.psi_min + (config.psi_max - config.psi_min) * share
    return kind, z, sources[kind].psi * psi


@torch.inference_mode()
def _pictures(source: FaceSource, z: Tensor, psi: Tensor, side_px: int) -> Tensor:
    """[B, 3, S, S] uint8: full pictures made small, since a style's previews differ from them."""
    net = source.generator
    w = net.w_avg + psi * (net.mapping(z) - net.w_avg)
    img = resize(net.synthesis(broadcast(w, net.num_ws)).float(), side_px)
    return ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
