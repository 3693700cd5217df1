"""EfficientNet-Lite0 (ImageNet) as a set of feature taps: encoder trunk, perceptual loss, projected discriminator.

The network is EfficientNet-Lite0 of TensorFlow's TPU models, with the names that timm gives its tensors; importing timm
would take seconds. The weights come with facestyle (fp16).

Pictures are scaled by ImageNet's mean and spread, as most networks of timm want them. TensorFlow trained this one on
``(x - 127) / 128``, so that it sees 2.2 times the contrast here; the encoders, the styles and every weight of a loss
were trained and chosen so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


# Of each stage: blocks, kernel, stride of its first block, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
_TAPPED_STAGES = (0, 1, 2, 4, 6)
_STEM_CHANNELS = 32


class _SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: with stride 2 the odd pixel goes to the right and the bottom."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, ceil(H / stride), ceil(W / stride)]."""
        if self.stride[0] > 1:
            size, step = self.kernel_size[0], self.stride[0]
            high, wide = (max((math.ceil(n / step) - 1) * step + size - n, 0) for n in x.shape[-2:])
            x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return super().forward(x)


class _Norm(nn.BatchNorm2d):
    """Batch normalisation, then ``act``."""

    def __init__(self, channels: int, *, is_linear: bool = False) -> None:
        super().__init__(channels, eps=1e-3)
        self.act: nn.Module = nn.Identity() if is_linear else nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], the same shape."""
        out = self.act(super().forward(x))
        assert isinstance(out, Tensor)
        return out


class _Separable(nn.Module):
    """First stage: depthwise, then a linear pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _SameConv(inputs, inputs, kernel, stride, groups=inputs)
        self.bn1 = _Norm(inputs)
        self.conv_pw = _SameConv(inputs, outputs)
        self.bn2 = _Norm(outputs, is_linear=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        assert isinstance(out, Tensor)
        return out


class _Inverted(nn.Module):
    """Inverted residual: expand, depthwise, project; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.conv_pw = _SameConv(inputs, middle)
        self.bn1 = _Norm(middle)
        self.conv_dw = _SameConv(middle, middle, kernel, stride, groups=middle)
        self.bn2 = _Norm(middle)
        self.conv_pwl = _SameConv(middle, outputs)
        self.bn3 = _Norm(outputs, is_linear=True)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv_pw(x))
        out = self.bn2(self.conv_dw(out))
        out = self.bn3(self.conv_pwl(out))
        assert isinstance(out, Tensor)
        return x + out if self.is_residual else out


class _Lite0(nn.Module):
    """EfficientNet-Lite0 without its classifier: normalised pictures to five maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _SameConv(3, _STEM_CHANNELS, 3, 2)
        self.bn1 = _Norm(_STEM_CHANNELS)
        self.blocks = nn.ModuleList()
        inputs = _STEM_CHANNELS
        for count, kernel, stride, expansion, outputs in _STAGES:
            stage = nn.Sequential()
            for i in range(count):
                step = stride if i == 0 else 1
                if expansion == 1:
                    stage.append(_Separable(inputs, outputs, kernel, step))
                else:
                    stage.append(_Inverted(inputs, outputs, kernel, step, expansion))
                inputs = outputs
            self.blocks.append(stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.bn1(self.conv_stem(x))
        taps = []
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in _TAPPED_STAGES:
                taps.append(x)
        return taps


class LiteFeatures(nn.Module):
    """Five feature maps, strides 2 to 32, of pictures [B, 3, H, W] in [-1, 1].

    Args:
        pretrained: load the bundled ImageNet weights; otherwise the weights are random.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.net: nn.Module = _Lite0()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        if pretrained:
            path = bundled("lite0_features.safetensors")
            counters = {k: v for k, v in self.net.state_dict().items() if k.endswith(_COUNTER)}
            stored = {k: v for k, v in read_tensors(path).items() if not k.endswith(_COUNTER)}
            load_strict(self.net, {**stored, **counters}, path=path)

    def forward(self, img: Tensor) -> list[Tensor]:
        """Maps [B, 16, H/2, W/2], [B, 24, H/4, W/4], [B, 40, ...], [B, 112, ...], [B, 320, H/32, W/32]."""
        taps = self.net(((img + 1) / 2 - self.mean) / self.std)
        return list(taps)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold every batch normalisation that follows a convolution into it, in place; eval mode only.

    Such pairs are named ``conv_stem``/``bn1``, ``conv_dw``/``bn1``, ``conv_pw``/``bn2`` and so on: a normalisation
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
