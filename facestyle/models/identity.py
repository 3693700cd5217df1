"""MobileFaceNet (arXiv:1804.07573), the network that says who somebody is in losses and in ``refine``.

1.2 M parameters, batch normalisation folded. It is used in training, so it never judges: the networks that measure
identity are in ``facestyle.evaluation.judges``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import CheckpointError
from facestyle.models.checkpoints import bundled, load_strict, read_tensors

__all__ = ["EMBEDDING", "MobileFaceNet", "face_chip", "load_identity"]

EMBEDDING = 512
"""Numbers of an embedding."""

_CROP = (32 / 256, 35 / 256, 220 / 256, 223 / 256)
"""Left, upper, right, lower share of an FFHQ-aligned face that puts eyes and mouth where recognisers expect them."""


def face_chip(img: Tensor, side_px: int = 112) -> Tensor:
    """The recogniser's view [B, 3, side, side] of FFHQ-aligned faces [B, 3, S, S], antialiased, same range."""
    side = int(img.shape[-1])
    left, upper, right, lower = (round(share * side) for share in _CROP)
    chip = img[:, :, upper:lower, left:right]
    return F.interpolate(chip, size=(side_px, side_px), mode="bilinear", antialias=True)


class _ConvPReLU(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.conv(x))
        assert isinstance(out, Tensor)
        return out


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = _ConvPReLU(inputs, middle)
        self.depthwise = _ConvPReLU(middle, middle, 3, stride, groups=middle)
        self.project = nn.Conv2d(middle, outputs, 1)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.depthwise(self.expand(x)))
        assert isinstance(out, Tensor)
        return x + out if self.is_residual else out


class MobileFaceNet(nn.Module):
    """Who a face belongs to: [B, 3, S, S] FFHQ-aligned pictures in [-1, 1] -> [B, 512] unit vectors.

    The picture is cropped and resized to 112 px inside; gradients flow through to the picture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _ConvPReLU(3, 64, 3, 2)
        self.stem_depthwise = _ConvPReLU(64, 64, 3, groups=64)
        plan = [
            (64, 128, 64, 2),
            *[(64, 128, 64, 1)] * 4,
            (64, 256, 128, 2),
            *[(128, 256, 128, 1)] * 6,
            (128, 512, 128, 2),
            *[(128, 256, 128, 1)] * 2,
        ]
        self.blocks = nn.Sequential(*(_Bottleneck(*row) for row in plan))
        self.widen = _ConvPReLU(128, 512)
        self.pool = nn.Conv2d(512, 512, 7, groups=512)
        self.embed = nn.Conv2d(512, EMBEDDING, 1)

    def forward(self, img: Tensor) -> Tensor:
        """[B, 512], length 1."""
        x = face_chip(img)
        x = self.blocks(self.stem_depthwise(self.stem(x)))
        x = self.embed(self.pool(self.widen(x)))
        return F.normalize(x.flatten(1), dim=1)

    def in_order(self) -> Iterator[nn.Conv2d | nn.PReLU]:
        """Convolutions and activations in the order they run, which is the order of an exported graph."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.PReLU):
                yield module

    @classmethod
    def tensors_from_onnx(cls, path: str | Path) -> dict[str, Tensor]:
        """State dict of this module from the exported graph ``fr_feature.onnx``; needs the package ``onnx``.

        Raises:
            CheckpointError: the graph is not this network.
        """
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(str(path)).graph
        stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        nodes = [node for node in graph.node if node.op_type in ("Conv", "PRelu")]
        net = cls()
        modules = list(net.in_order())
        kinds = ["Conv" if isinstance(m, nn.Conv2d) else "PRelu" for m in modules]
        if [node.op_type for node in nodes] != kinds:
            raise CheckpointError("the graph is not the expected MobileFaceNet", path=path)
        names = {module: name for name, module in net.named_modules()}
        tensors: dict[str, Tensor] = {}
        for node, module in zip(nodes, modules, strict=True):
            weight = torch.from_numpy(stored[node.input[1]].copy())
            prefix = names[module]
            if isinstance(module, nn.PReLU):
                tensors[f"{prefix}.weight"] = weight.flatten()
            else:
                tensors[f"{prefix}.weight"] = weight
                tensors[f"{prefix}.bias"] = torch.from_numpy(stored[node.input[2]].copy())
        load_strict(net, tensors, path=path)
        return tensors


def load_identity(device: str | torch.device = "cpu") -> MobileFaceNet:
    """The bundled network, frozen, in eval mode.

    Raises:
        CheckpointError: the bundled file is damaged.
    """
    path = bundled("mobilefacenet.safetensors")
    net = MobileFaceNet()
    load_strict(net, read_tensors(path), path=path)
    return net.eval().requires_grad_(False).to(device)
