"""CMMD: how far two sets of pictures are apart in CLIP's features.

Source: Jayasumana et al. 2024 (arXiv:2401.09603). It needs some hundred pictures where FID needs
thousands. CLIP's weights are 1.7 GB and come in no package, so they are fetched only when that is allowed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from facestyle.errors import ConfigError, DownloadError
from facestyle.evaluation.features import in_batches
from facestyle.evaluation.weights import network_timeout
from facestyle.image import load_image

__all__ = ["ClipFeatures", "CmmdResult", "clip_input", "cmmd", "load_clip"]

Array = npt.NDArray[Any]

REPOSITORY = "openai/clip-vit-large-patch14-336"
REVISION = "ce19dc912ca5cd21c8a653c79e251e808ccabcd1"

SIGMA = 10.0
SCALE = 1000.0
SIDE_PX = 336
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
BATCH = 8
CHUNK = 2048  # rows of a kernel matrix held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class CmmdResult:
    """CLIP maximum mean discrepancy.

    Attributes:
        value: 1000 times the biased MMD^2; 0 for equal sets, and above 0 for two sets of one distribution.
        n_a: pictures in the first set.
        n_b: pictures in the second.
    """

    value: float
    n_a: int
    n_b: int


def cmmd(a: Array, b: Array) -> CmmdResult:
    """CMMD of two sets of CLIP's unit-length features [N, D] and [M, D].

    Source: arXiv:2401.09603, section 4: the biased estimate of MMD^2 with the kernel
    ``exp(-|x - y|^2 / (2 * 10^2))``, times 1000.

    Raises:
        ConfigError: not two sets of features of one size, or not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 1:
        raise ConfigError(f"expected features [N, D] and [M, D], got {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ConfigError("features hold NaN or infinity; the pictures or the network are broken")
    value = _mean_kernel(a, a) + _mean_kernel(b, b) - 2 * _mean_kernel(a, b)
    return CmmdResult(value=max(SCALE * value, 0.0), n_a=len(a), n_b=len(b))


def _mean_kernel(x: Array, y: Array) -> float:
    """Mean of the kernel less 1: the ones cancel in MMD^2, and what is left keeps its digits."""
    total = 0.0
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        squares = (part**2).sum(1)[:, None] + (y**2).sum(1) - 2 * part @ y.T
        total += float(np.expm1(-squares.clip(0) / (2 * SIGMA**2)).sum())
    return total / (len(x) * len(y))


class ClipFeatures:
    """CLIP's image embeddings for CMMD.

    Args:
        net: called with ``pixel_values`` [B, 3, side_px, side_px], answers with ``image_embeds`` [B, D]; in eval mode.
        device: where it runs.
        side_px: of the square it sees.

    Attributes:
        name: the network, for reports.
    """

    name = "CLIP ViT-L/14@336 (openai)"

    def __init__(
        self,
        net: Callable[..., Any],
        device: str | torch.device = "cpu",
        *,
        side_px: int = SIDE_PX,
    ) -> None:
        self.net = net
        self.device = torch.device(device)
        self.side_px = side_px

    @torch.no_grad()
    def __call__(self, images: Iterable[Image.Image]) -> npt.NDArray[np.float32]:
        """[N, D] unit-length features of N pictures of any size and mode; few are held in memory at a time.

        Raises:
            ConfigError: there are no pictures.
        """

        def describe(batch: list[Image.Image]) -> npt.NDArray[np.float32]:
            x = torch.stack([clip_input(image, self.side_px) for image in batch])
            found = self.net(pixel_values=x.to(self.device)).image_embeds.float()
            return F.normalize(found, dim=1).cpu().numpy()

        return in_batches(images, describe, BATCH)


def clip_input(image: Image.Image, side_px: int = SIDE_PX) -> Tensor:
    """[3, side_px, side_px]: the middle square, resized with Pillow's bicubic, less CLIP's mean, over its deviation.

    What is transparent becomes white first.
    """
    rgb = load_image(image)
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    square = square.resize((side_px, side_px), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square, np.float32) / 255).permute(2, 0, 1)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def load_clip(device: str | torch.device = "cpu", *, allow_download: bool = False) -> ClipFeatures:
    """CLIP ViT-L/14@336, from the Hugging Face cache, or fetched into it.

    Args:
        device: where it runs.
        allow_download: fetch the 1.7 GB if they are not there; otherwise the network is not touched.

    Raises:
        ConfigError: the package ``transformers`` is not installed.
        DownloadError: the weights are not in the cache, and were not allowed to be fetched or could not be.
    """
    from huggingface_hub import errors, hf_hub_download

    if importlib.util.find_spec("transformers") is None:
        raise ConfigError('CLIP needs the package transformers: "pip install transformers"')
    try:  # one small file first: this says at once, without transformers, whether there is any hope
        hf_hub_download(
            REPOSITORY,
            "config.json",
            revision=REVISION,
            local_files_only=not allow_download,
            etag_timeout=10,
        )
        from transformers import CLIPVisionModelWithProjection

        with network_timeout():
            net: Any = CLIPVisionModelWithProjection.from_pretrained(
                REPOSITORY, revision=REVISION, local_files_only=not allow_download
            )
    except (OSError, errors.HfHubHTTPError) as error:
        why = "could not be fetched" if allow_download else "is not in the Hugging Face cache"
        advice = "go online once" if allow_download else "allow its download of 1.7 GB once"
        raise DownloadError(f"{REPOSITORY} {why}; {advice}") from error
    return ClipFeatures(net.eval().requires_grad_(False).to(device), device)
