"""EfficientNet-Lite0 (ImageNet) as a set of feature taps: encoder trunk, perceptual loss, projected discriminator.

The network itself is timm's ``tf_efficientnet_lite0``; the weights come with facestyle (fp16).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.models.checkpoints import bundled, load_strict, read_tensors

__all__ = ["TAP_CHANNELS", "TAP_STRIDES", "LiteFeatures", "PerceptualLoss", "fold_batch_norm"]

TAP_CHANNELS = (16, 24, 40, 112, 320)
TAP_STRIDES = (2, 4, 8, 16, 32)

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_COUNTER = "num_batches_tracked"
"""Batches a normalisation layer has seen: bookkeeping of its training, of no use here."""


class LiteFeatures(nn.Module):
    """Five feature maps, strides 2 to 32, of pictures [B, 3, H, W] in [-1, 1].

    Args:
        pretrained: load the bundled ImageNet weights; otherwise the weights are random.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        import timm

        net: Any = timm.create_model("tf_efficientnet_lite0", features_only=True, pretrained=False)
        self.net: nn.Module = net
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        if pretrained:
            path = bundled("lite0_features.safetensors")
            counters = {k: v for k, v in net.state_dict().items() if k.endswith(_COUNTER)}
            stored = {k: v for k, v in read_tensors(path).items() if not k.endswith(_COUNTER)}
            load_strict(net, {**stored, **counters}, path=path)

    def forward(self, img: Tensor) -> list[Tensor]:
        """Maps [B, 16, H/2, W/2], [B, 24, H/4, W/4], [B, 40, ...], [B, 112, ...], [B, 320, H/32, W/32]."""
        taps = self.net(((img + 1) / 2 - self.mean) / self.std)
        return list(taps)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold every batch normalisation that follows a convolution into it, in place; eval mode only.

    timm names such pairs ``conv_stem``/``bn1``, ``conv_dw``/``bn1``, ``conv_pw``/``bn2`` and so on: a normalisation
    always follows the convolution registered just before it.
    """
    for parent in module.modules():
        previous: nn.Conv2d | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and previous is not None:
                assert child.running_var is not None and child.running_mean is not None
                scale = child.weight * torch.rsqrt(child.running_var + child.eps)
                shift = child.bias - child.running_mean * scale
                with torch.no_grad():
                    previous.weight.mul_(scale.view(-1, 1, 1, 1))
                    previous.bias = nn.Parameter(
                        shift if previous.bias is None else previous.bias * scale + shift
                    )
                activation = getattr(child, "act", nn.Identity())
                setattr(parent, name, activation)
                previous = None
            elif isinstance(child, nn.Conv2d):
                previous = child
    return module


class PerceptualLoss(nn.Module):
    """Distance between pictures in the features of EfficientNet-Lite0, trained on ImageNet.

    Sum over taps of the squared distance of channel-normalised features, averaged over positions: LPIPS's form
    (arXiv:1801.03924) without its learned weights. It is a training loss, not LPIPS, and its scale is its own.

    Args:
        features: the network; loaded from the bundled weights when None.
        taps: which of the five maps count.
    """

    def __init__(
        self, features: LiteFeatures | None = None, taps: Sequence[int] = (0, 1, 2, 3)
    ) -> None:
        super().__init__()
        self.features = (features or LiteFeatures()).eval().requires_grad_(False)
        self.taps = tuple(taps)

    def describe(self, img: Tensor) -> list[Tensor]:
        """Channel-normalised maps, to be kept when one side of the comparison stays the same."""
        maps = self.features(img)
        return [F.normalize(maps[i], dim=1, eps=1e-5) for i in self.taps]

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """[B], from two results of ``describe``."""
        parts = [(x - y).square().sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(parts).sum(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[B], 0 for equal pictures; ``a`` and ``b`` are [B, 3, H, W] in [-1, 1]."""
        return self.between(self.describe(a), self.describe(b))
