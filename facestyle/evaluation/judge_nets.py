"""The judges' networks, ported to torch modules: raw pixels in, descriptor (or age and gender) out.

Their layers' names follow the packages they come from, so that a conversion is a renaming; what a
package keeps apart (batch-norm scales, biases) is folded into one convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.evaluation.weights import parse_json, read_tfjs_weights

__all__ = [
    "DlibResNet29", "FaceResAppearance", "FaceResMobileNet", "convert_dlib_resnet29", "convert_faceres",
    "convert_faceres_appearance",
]  # fmt: skip

Array = npt.NDArray[Any]


class DlibBlock(nn.Module):
    """Two 3x3 convolutions with a skip; with ``down`` the grid is halved.

    The skip is then a 2x2 mean, and whichever branch is smaller, in channels or in pixels, is padded with
    zeros behind (dlib's ``add_prev``).
    """

    def __init__(self, channels_in: int, channels: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        stride, padding = (2, 0) if down else (1, 1)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] to [B, C, H, W], or about half of H and W."""
        out = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            rows, columns = x.shape[2] - out.shape[2], x.shape[3] - out.shape[3]
            out = F.pad(out, (0, columns, 0, rows))
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return F.relu(out + x)


class DlibResNet29(nn.Module):
    """dlib's face recognition ResNet-29 (dlib_face_recognition_resnet_model_v1).

    Source: dlib ``dnn_face_recognition_ex.cpp``; the tensors' names are those of face-api.
    """

    BLOCKS = (
        *((f"conv32_{i}", 32, 32) for i in (1, 2, 3)),
        ("conv64_down", 32, 64),
        *((f"conv64_{i}", 64, 64) for i in (1, 2, 3)),
        ("conv128_down", 64, 128),
        *((f"conv128_{i}", 128, 128) for i in (1, 2)),
        ("conv256_down", 128, 256),
        *((f"conv256_{i}", 256, 256) for i in (1, 2)),
        ("conv256_down_out", 256, 256),
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = nn.Conv2d(3, 32, 7, 2)
        for name, channels_in, channels in self.BLOCKS:
            self.add_module(name, DlibBlock(channels_in, channels, down="down" in name))
        self.fc = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 150, 150] RGB, ``(value - mean) / 256``, to [B, 128] descriptors."""
        x = F.max_pool2d(F.relu(self.conv32_down(x)), 3, 2)
        for name, _, _ in self.BLOCKS:
            x = self.get_submodule(name)(x)
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out


def convert_dlib_resnet29(contents: Sequence[bytes]) -> dict[str, Tensor]:
    """Weights of :class:`DlibResNet29` from face-api's manifest and binary file.

    face-api computes ``scale * (conv(x) + bias) + shift``, folded here.
    """
    manifest, data = contents
    arrays = read_tfjs_weights(parse_json(manifest), data)
    state = {"fc.weight": _tensor(arrays.pop("fc").T)}
    layers = sorted({name.rsplit("/", 2)[0] for name in arrays})
    for layer in layers:
        scale = arrays[f"{layer}/scale/weights"]
        name = layer.replace("/", ".")
        state[f"{name}.weight"] = _oihw(arrays[f"{layer}/conv/filters"] * scale)
        bias = arrays[f"{layer}/conv/bias"] * scale + arrays[f"{layer}/scale/biases"]
        state[f"{name}.bias"] = _tensor(bias)
    return state


class SameConv2d(nn.Conv2d):
    """3x3 or 1x1 convolution with TensorFlow's SAME padding: at stride 2 the odd pixel goes behind.

    Only for even sizes at stride 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] to [B, C, H / stride, W / stride]."""
        if self.kernel_size[0] == 3:
            x = F.pad(x, (0, 1, 0, 1) if self.stride[0] == 2 else (1, 1, 1, 1))
        return super().forward(x)


class FaceResMobileNet(nn.Module):
    """MobileNet v1 trained on VGGFace2 (A. Savchenko's HSE_FaceRec), up to its pooled features."""

    # channels and stride of each depthwise-separable block
    BLOCKS = (
        *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
        *(((512, 1),) * 5),
        *((1024, 2), (1024, 1)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = SameConv2d(3, 32, 3, 2)
        channels_in = 32
        for i, (channels, stride) in enumerate(self.BLOCKS, start=1):
            depthwise = SameConv2d(channels_in, channels_in, 3, stride, groups=channels_in)
            self.add_module(f"conv_dw_{i}", depthwise)
            self.add_module(f"conv_pw_{i}", SameConv2d(channels_in, channels, 1))
            channels_in = channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 224, 224] BGR minus the mean, to [B, 1024] features."""
        x = F.relu6(self.conv1(x))
        for i in range(1, len(self.BLOCKS) + 1):
            x = F.relu6(self.get_submodule(f"conv_dw_{i}")(x))
            x = F.relu6(self.get_submodule(f"conv_pw_{i}")(x))
        return x.mean(dim=(2, 3))


class FaceResAppearance(FaceResMobileNet):
    """The same with the heads that were trained on it: does a face look like a man's, and how old is it?"""

    YEARS = 100

    def __init__(self) -> None:
        super().__init__()
        self.feats = nn.Linear(1024, 256)
        self.gender_pred = nn.Linear(256, 1)
        self.age_pred = nn.Linear(256, self.YEARS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 224, 224] BGR minus the mean, to [B, 2]: probability of "male" in [0, 1], years in [0, 99].

        Years are the mean of the head's distribution over 0 to 99 (DEX, Rothe et al., 2015).
        """
        features = F.relu(self.feats(super().forward(x)))
        male = torch.sigmoid(self.gender_pred(features))
        years = torch.softmax(self.age_pred(features), 1) @ torch.arange(self.YEARS).to(features)
        return torch.cat([male, years[:, None]], 1)


def convert_faceres(contents: Sequence[bytes]) -> dict[str, Tensor]:
    """Weights of :class:`FaceResMobileNet` from the graph's json and binary file; its heads are left out.

    Pointwise kernels have their batch norm merged in already, depthwise ones get it here.
    """
    graph, data = contents
    arrays = read_tfjs_weights(parse_json(graph)["weightsManifest"], data)
    state = {}
    for name, array in arrays.items():
        layer = name.split("/")[0]
        if name.endswith("/convolution/merged_input"):
            state[f"{layer}.weight"] = _oihw(array)
        elif name.endswith("/depthwise_kernel"):  # [3, 3, C, 1]
            scaled = array[..., 0] * arrays[f"{layer}_bn/batchnorm_1/mul"]
            state[f"{layer}.weight"] = _oihw(scaled[:, :, None, :])
        elif name.endswith("_bn/batchnorm_1/sub"):
            state[f"{layer.removesuffix('_bn')}.bias"] = _tensor(array)
    return state


def convert_faceres_appearance(contents: Sequence[bytes]) -> dict[str, Tensor]:
    """Weights of :class:`FaceResAppearance` from the same files."""
    graph, data = contents
    arrays = read_tfjs_weights(parse_json(graph)["weightsManifest"], data)
    state = convert_faceres(contents)
    for head in ("feats", "gender_pred", "age_pred"):
        state[f"{head}.weight"] = _tensor(arrays[f"{head}/kernel"].T)
        state[f"{head}.bias"] = _tensor(arrays[f"{head}/bias"])
    return state


def _oihw(kernel: Array) -> Tensor:
    return _tensor(kernel.transpose(3, 2, 0, 1))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
