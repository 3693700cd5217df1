"""Photo -> faces, each with five landmarks, largest first.

The three networks are MTCNN's (arXiv:1604.02878), with the weights of facenet-pytorch's wheel. The cascade
that runs them is our own: large photos, faces cut by the photo's edge and steady landmarks need it. So are
the layers and the non-maximum suppression: importing facenet-pytorch or torchvision takes seconds.

1. P-Net scans a pyramid made from one reduced copy of the photo, down to boxes of 1/32 of its long side. A
   second scan goes on to 1/64 where others may have slipped through: the first found none, or some nearly as
   small as it can (a group photo), or the photo is so large that smaller ones can be drawn.
2. R-Net and O-Net read windows averaged to their input size, with grey beyond the photo's edge, so that a
   face cut by the edge keeps its proportions. Coarse levels of the scan are padded likewise: a face that
   fills the picture is found in the same pass.
3. O-Net reads the landmarks once more, from a copy that is sharp enough, in a few windows and their mirror
   images, and the mean counts. On FFHQ faces, whose true quad is the whole picture, this takes the scatter of
   the quad (1.48 times the median deviation) from 1.1 to 0.6 degrees and from 0.45 to 0.3 % of its side in
   place; its size scatters by 3 % and is 1 % too large, its place 0.4 % off.
4. A photo in which no face is found for sure is looked at lying on either side and upside down too: of 240
   turned photos the cascade misses 227 faces and reads 13 wrongly, at scores to 0.965; of 200 upright ones
   none is below 0.978 (FFHQ faces of 384 px, 2026-12-01, script not kept).

Convention:
    Boxes (left, top, right, bottom) and landmarks (x, y) of a `Face` are in pixels of the full photo, pixel
    centres, as in `facestyle.faces.align`. Inside the cascade they are counted from pixel edges, where halving
    a picture halves its coordinates. "Left" is the left of the picture.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facestyle.errors import CheckpointError, ConfigError, MissingDependencyError
from facestyle.faces.align import ffhq_quad, quad_side_px

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Face", "FaceDetector"]

_LOG = logging.getLogger(__name__)

_PNET_PX, _RNET_PX, _ONET_PX = 12, 24, 48
_PNET_SCORE, _RNET_SCORE, _ONET_SCORE = 0.6, 0.7, 0.7  # MTCNN's own
_LEVEL_FACTOR = 0.709  # sqrt(1/2): each level has half the pixels of the one before

_FIRST_WORK_PX, _FIRST_REACH = 1280, 32  # long side of the reduced copy; long side / smallest face
_SECOND_WORK_PX, _SECOND_REACH = 2560, 64
_COARSE_ENOUGH_PX = 60  # a scan down to such boxes may miss faces that look well when drawn
_PAD_SHARE = 0.35  # padding of the coarse levels, in short sides

# Windows of the last reading: (shift x, shift y, side), in box sides; each is read mirrored too.
_WINDOWS = ((0.05, 0.0, 0.92), (-0.05, 0.0, 0.92), (0.0, 0.05, 0.92), (0.0, -0.05, 0.92))
_MIRRORED = (1, 0, 2, 4, 3)  # order of the landmarks in a mirrored face
_SURE_SCORE = 0.99  # less may be a face that lies on its side
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
_SUPPRESS_AT_ONCE = 512  # candidates whose overlaps are worked out together


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One detected face.

    Attributes:
        box: left, top, right, bottom in pixels of the full photo; may leave it.
        score: 0 to 1, how sure the last network is.
        landmarks: [5, 2] float64 in pixels of the full photo: left eye, right eye, nose, left and right
            mouth corner, left as seen in the picture.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float64]

    @property
    def quad(self) -> NDArray[np.float64]:
        """[4, 2] square that `facestyle.faces.align.align` cuts out."""
        return ffhq_quad(self.landmarks)

    @property
    def side_px(self) -> float:
        """Side in photo pixels of the aligned square, about twice the box."""
        return quad_side_px(self.quad)


class FaceDetector:
    """Finds faces and their landmarks with MTCNN; the networks load on first use and are shared.

    Args:
        device: where the networks run; the CPU in place of MPS, which lacks some of their operations.
        threshold: least mean score over the last windows, 0 to 1.
        min_face_px: boxes smaller than this, in pixels of the full photo, are not looked for.

    Raises:
        ConfigError: the threshold lies outside 0 to 1, or ``min_face_px`` below 12.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        *,
        threshold: float = 0.9,
        min_face_px: float = 20.0,
    ) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"threshold must be from 0 to 1, got {threshold}")
        if min_face_px < _PNET_PX:
            raise ConfigError(f"min_face_px must be at least {_PNET_PX}, got {min_face_px}")
        self.device = "cpu" if str(device).startswith("mps") else str(device)
        self.threshold = threshold
        self.min_face_px = min_face_px

    def detect(self, image: Image.Image) -> list[Face]:
        """The faces in a photo, the largest first; an empty list where there are none.

        Where none is upright, those of a photo that lies on its side or upside down; their quads lie likewise.

        Args:
            image: photo of any size and mode (see `facestyle.image.load_image` for files).
        """
        photo = image if image.mode == "RGB" else image.convert("RGB")
        faces = self._upright(photo)
        best = max((face.score for face in faces), default=0.0)
        if best >= _SURE_SCORE:
            return faces
        for turns, turn in enumerate(_TURNS, 1):
            turned = self._upright(photo.transpose(turn))
            score = max((face.score for face in turned), default=0.0)
            if score >= max(best, _SURE_SCORE):
                best, faces = score, [_turned_back(face, turns, photo.size) for face in turned]
        return faces

    def _upright(self, photo: Image.Image) -> list[Face]:
        """The upright faces of an RGB photo, the largest first."""
        import torch

        long_px = max(photo.size)
        coarse_px = max(self.min_face_px, long_px / _FIRST_REACH)
        fine_px = max(self.min_face_px, long_px / _SECOND_REACH)
        with torch.inference_mode():
            cascades = [_Cascade(photo, _FIRST_WORK_PX, self.device)]
            found = cascades[0].run(coarse_px, math.inf)
            smallest_px = min((face.size_px for face in found), default=0.0)
            may_be_more = smallest_px < 2 * coarse_px or coarse_px > _COARSE_ENOUGH_PX
            if fine_px < coarse_px and may_be_more:
                cascades.append(_Cascade(photo, _SECOND_WORK_PX, self.device))
                found = _without_duplicates(found + cascades[1].run(fine_px, coarse_px))
            faces = [face for one in found if (face := self._read(photo, cascades, one))]
        return sorted(faces, key=lambda face: face.side_px, reverse=True)

    def _read(self, photo: Image.Image, cascades: Sequence[_Cascade], found: _Found) -> Face | None:
        """The face with its landmarks read from the first copy sharp enough, or None if it is none after all."""
        offset = np.zeros(2)
        least_px = 1.25 * _ONET_PX
        sharp = (c for c in cascades if c.factor == 1 or found.size_px / c.factor >= least_px)
        cascade = next(sharp, None)
        if cascade is None:  # the copies are too coarse for O-Net: read from a piece of the photo
            grown = found.box + found.size_px * np.array([-0.5, -0.5, 0.5, 0.5])
            low = np.clip(np.floor(grown[:2]), 0, np.array(photo.size) - 1).astype(int)
            high = np.clip(np.ceil(grown[2:]), low + 1, photo.size).astype(int)
            piece = photo.crop((*low.tolist(), *high.tolist()))
            cascade, offset = _Cascade(piece, max(piece.size), self.device), low.astype(np.float64)
        score, landmarks = cascade.read_landmarks(found.box - np.tile(offset, 2))
        landmarks = landmarks + offset - 0.5
        eyes_px = float(np.hypot(*(landmarks[1] - landmarks[0])))
        mouth_px = float(np.hypot(*(landmarks[3:].mean(axis=0) - landmarks[:2].mean(axis=0))))
        if score < self.threshold or max(eyes_px, mouth_px) < 0.2 * found.size_px:
            _LOG.debug("dropped a candidate at %s with score %.3f", found.box.round(1), score)
            return None
        left, top, right, bottom = (float(v) for v in found.box - 0.5)
        return Face((left, top, right, bottom), score, landmarks)


def _turned_back(face: Face, turns: int, size: tuple[int, int]) -> Face:
    """A face of a copy turned counterclockwise by so many quarters, where it is in the photo of this size."""

    def back(points: NDArray[np.float64]) -> NDArray[np.float64]:
        (x, y), (last_x, last_y) = points.T, (size[0] - 1, size[1] - 1)
        places = ((last_x - y, x), (last_x - x, last_y - y), (y, last_y - x))
        return np.stack(places[turns - 1], axis=1)

    corners = back(np.reshape(face.box, (2, 2)))
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return Face((left, top, right, bottom), face.score, back(face.landmarks))


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A candidate: [4] box in photo pixels counted from edges, and O-Net's score."""

    box: NDArray[np.float64]
    score: float

    @property
    def size_px(self) -> float:
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class _Cascade:
    """MTCNN on one reduced copy of a picture. Boxes and scores stay on the CPU, the networks run on ``device``.

    Args:
        image: RGB picture.
        work_px: longest side the reduced copy may have.
        device: where the networks run.
    """

    def __init__(self, image: Image.Image, work_px: int, device: str) -> None:
        self.factor = math.ceil(max(image.size) / work_px)
        self._work = image.reduce(self.factor) if self.factor > 1 else image
        self._device = device
        self._pnet, self._rnet, self._onet = _networks(device)
        self._halved: dict[int, Tensor] = {}

    def run(self, min_px: float, max_px: float) -> list[_Found]:
        """Candidates of at least ``min_px`` and less than ``max_px`` (the scan's nominal sizes)."""
        import torch

        boxes = self._scan(min_px / self.factor, max_px / self.factor)
        if len(boxes) == 0:
            return []
        score, shift, _ = self._rnet(self._windows(boxes, _RNET_PX))
        boxes, shift, score = (t[score > _RNET_SCORE] for t in (boxes, shift, score))
        keep = _suppress(boxes, score, 0.7)
        boxes = _squared(_moved(boxes[keep], shift[keep]))
        if len(boxes) == 0:
            return []
        score, shift, _ = self._onet(self._windows(boxes, _ONET_PX))
        boxes = torch.cat([_moved(boxes, shift) * self.factor, score[:, None]], dim=1)
        rows = boxes[score > _ONET_SCORE].double().numpy()
        return _without_duplicates([_Found(row[:4], float(row[4])) for row in rows])

    def read_landmarks(self, box: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Mean score and mean [5, 2] landmarks over `_WINDOWS` around a box, in pixels from edges."""
        import torch

        square = _squared(torch.tensor(box / self.factor, dtype=torch.float32)[None])
        side = square[:, 2:] - square[:, :2]
        moves = torch.tensor(_WINDOWS)
        centre = (square[:, :2] + square[:, 2:]) / 2 + moves[:, :2] * side
        boxes = torch.cat(
            [centre - side * moves[:, 2:] / 2, centre + side * moves[:, 2:] / 2], dim=1
        )
        windows = self._windows(boxes, _ONET_PX)
        scores, _, points = self._onet(torch.cat([windows, windows.flip(3)]))
        points = torch.stack([points[:, :5], points[:, 5:]], dim=2).double()
        plain, mirrored = points.chunk(2)
        mirrored = mirrored[:, list(_MIRRORED)]
        mirrored[:, :, 0] = 1 - mirrored[:, :, 0]
        inside = (plain + mirrored) / 2
        corner, extent = (
            boxes[:, None, :2].double(),
            (boxes[:, 2:] - boxes[:, :2])[:, None].double(),
        )
        landmarks = (corner + inside * extent).mean(dim=0).numpy() * self.factor
        return float(scores.mean()), landmarks

    def _scan(self, min_px: float, max_px: float) -> Tensor:
        """P-Net over the pyramid: [N, 4] square boxes in pixels of the reduced copy."""
        import torch
        from torch.nn.functional import pad

        width, height = self._work.size
        short_px = min(width, height)
        found, level = [], self._work
        face_px = float(min_px)
        while face_px < max_px and face_px <= short_px * (1 + 2 * _PAD_SHARE):
            size = tuple(max(round(n * _PNET_PX / face_px), 1) for n in (width, height))
            level = level.resize((size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=2.0)
            margin = math.ceil(_PAD_SHARE * min(size)) if face_px > short_px / 4 else 0
            face_px /= _LEVEL_FACTOR
            if min(size) + 2 * margin < _PNET_PX:
                continue
            scores, shifts, _ = self._pnet(pad(_normalised(_to_levels(level)), (margin,) * 4))
            row, column = (scores >= _PNET_SCORE).nonzero(as_tuple=True)
            score, shift = scores[row, column], shifts[row, column]
            corner = torch.stack([column, row], dim=1) * 2.0 - margin  # P-Net's stride is 2
            boxes = torch.cat([corner, corner + _PNET_PX], dim=1)
            boxes = boxes * boxes.new_tensor([width / size[0], height / size[1]] * 2)
            keep = _suppress(boxes, score, 0.5)
            found.append(torch.cat([boxes[keep], score[keep, None], shift[keep]], dim=1))
        if not found:
            return torch.zeros(0, 4)
        rows = torch.cat(found)
        rows = rows[_suppress(rows[:, :4], rows[:, 4], 0.7)]
        return _squared(_moved(rows[:, :4], rows[:, 5:]))

    def _windows(self, boxes: Tensor, size_px: int) -> Tensor:
        """[N, 3, size_px, size_px] contents of square boxes, averaged; grey outside the picture.

        Each box is read from the halved copy in which it has one to two pixels per output pixel.
        """
        import torch

        ratio = (boxes[:, 2] - boxes[:, 0]) / size_px
        exponents = ratio.clamp(min=1).log2().floor().int()
        parts, order = [], []
        for exponent in exponents.unique().tolist():
            (chosen,) = (exponents == exponent).nonzero(as_tuple=True)
            regions = boxes[chosen] / 2**exponent
            parts.append(_read_boxes(self._halved_copy(exponent), regions, size_px))
            order.append(chosen)
        return torch.cat(parts)[torch.cat(order).argsort()].transpose(1, 2)

    def _halved_copy(self, exponent: int) -> Tensor:
        """[3, H, W] levels of the copy reduced by 2 ** exponent, each channel by itself."""
        if exponent not in self._halved:
            image = self._work.reduce(2**exponent) if exponent else self._work
            self._halved[exponent] = _to_levels(image)[0].contiguous()
        return self._halved[exponent]


class _Network:
    """One of MTCNN's networks: (scores, shifts, landmarks) of normalised windows; inference only.

    P-Net has no dense layers and gives a map: scores [H, W] and shifts [H, W, 4] of one picture. The others give
    scores [N], shifts [N, 4] and landmarks [N, 10] (empty for R-Net). Results are on the CPU.

    Widths are filled up with zeros to multiples of 16, which changes nothing and fits the processor's vectors.

    Args:
        tensors: facenet-pytorch's state dict.
        pools: kernel size of the pooling behind each convolution, 0 for none.
        device: where to run.
    """

    def __init__(self, tensors: dict[str, Tensor], pools: Sequence[int], device: str) -> None:
        import torch

        self._device, self._pools = device, pools
        self._convolutions = []
        inputs = 3
        for i in range(1, len(pools) + 1):
            weight, bias = tensors[f"conv{i}.weight"], tensors[f"conv{i}.bias"]
            slope = tensors[f"prelu{i}.weight"]
            width = -(-len(weight) // 16) * 16
            filled = weight.new_zeros(width, inputs, *weight.shape[2:])
            filled[: len(weight), : weight.shape[1]] = weight
            parts = (filled, *(_filled(t, width) for t in (bias, slope)))
            self._convolutions.append(tuple(_on(t, device) for t in parts))
            inputs = width
        last = len(pools) + 1
        self._dense = None
        if f"dense{last}.weight" in tensors:
            names = (f"dense{last}.weight", f"dense{last}.bias", f"prelu{last}.weight")
            self._dense = tuple(tensors[name].to(device) for name in names)
        kind = "conv" if self._dense is None else "dense"
        last += self._dense is not None
        heads = sorted({k.split(".")[0] for k in tensors if k.startswith(f"{kind}{last}_")})
        self._head_weight, self._head_bias = (
            torch.cat([tensors[f"{head}.{part}"].flatten(1) if part == "weight" else
                       tensors[f"{head}.{part}"] for head in heads]).to(device)
            for part in ("weight", "bias")
        )  # fmt: skip

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Results for [N, 3, H, W]."""
        import torch
        import torch.nn.functional as F

        x = x.to(self._device).contiguous(memory_format=torch.channels_last)
        for (weight, bias, slope), size in zip(self._convolutions, self._pools, strict=True):
            x = F.prelu(F.conv2d(x, weight, bias), slope)
            if size:
                x = _pooled(_pooled(x, size, 2), size, 3)
        if self._dense is None:
            x = x.permute(0, 2, 3, 1)[0]
        else:
            weight, bias, slope = self._dense
            x = x.permute(0, 3, 2, 1).flatten(1)
            x = F.prelu(F.linear(x, weight, bias), slope)
        x = F.linear(x, self._head_weight, self._head_bias).cpu()
        return (x[..., 1] - x[..., 0]).sigmoid(), x[..., 2:6], x[..., 6:]


def _filled(tensor: Tensor, width: int) -> Tensor:
    """A vector grown to ``width`` with zeros."""
    from torch.nn.functional import pad

    return pad(tensor, (0, width - len(tensor)))


def _on(tensor: Tensor, device: str) -> Tensor:
    import torch

    moved = tensor.to(device)
    return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved


def _pooled(x: Tensor, size: int, axis: int) -> Tensor:
    """Maximum pooling along one axis with stride 2; the last window may reach over the edge.

    Torch's own also works out where each maximum was, and takes several times as long.
    """
    import torch

    length = x.shape[axis]
    count = -(-(length - size) // 2) + 1
    strided = x[:, :, ::2] if axis == 2 else x[:, :, :, ::2]
    shifted = x[:, :, 1::2] if axis == 2 else x[:, :, :, 1::2]
    parts = [strided.narrow(axis, 0, count), shifted]
    if size == 3:
        parts.append(strided.narrow(axis, 1, strided.shape[axis] - 1))
    out = parts[0]
    for part in parts[1:]:
        shared = min(part.shape[axis], count)
        if shared == count:
            out = torch.maximum(out, part.narrow(axis, 0, count))
        else:
            out = out.clone() if out is parts[0] else out
            view = out.narrow(axis, 0, shared)
            torch.maximum(view, part, out=view)
    return out


@lru_cache(maxsize=4)
def _networks(device: str) -> tuple[_Network, _Network, _Network]:
    """P-Net, R-Net and O-Net on a device.

    Raises:
        CheckpointError: the weights in facenet-pytorch's wheel are absent or damaged.
        MissingDependencyError: facenet-pytorch is not installed.
    """
    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "the face detector's weights come with the package facenet-pytorch, which is not installed; "
            'run: pip install "facenet-pytorch>=2.5.3,<2.6"'
        )
    folder = Path(spec.origin).parent / "data"
    return (
        _Network(_weights(folder / "pnet.pt"), (2, 0, 0), device),
        _Network(_weights(folder / "rnet.pt"), (3, 3, 0), device),
        _Network(_weights(folder / "onet.pt"), (3, 3, 2, 0), device),
    )


def _weights(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise CheckpointError(
            f"the face detector's weights cannot be read ({type(error).__name__}); "
            "install facenet-pytorch again",
            path=path,
        ) from error
    return tensors


def _to_levels(image: Image.Image) -> Tensor:
    """[1, 3, H, W] uint8, channels last."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def _normalised(levels: Tensor) -> Tensor:
    """MTCNN's range: (level - 127.5) / 128. Grey, which padding uses, is 0."""
    return levels.float().sub_(127.5).mul_(1 / 128)


def _read_boxes(levels: Tensor, boxes: Tensor, size_px: int) -> Tensor:
    """[N, size_px, 3, size_px] contents of boxes, each pixel the mean of 2 x 2 bilinear samples, normalised.

    Sampling is separable, so it is two small matrix products on the pixels under each box.

    Args:
        levels: [3, H, W] uint8.
        boxes: [N, 4], counted from pixel edges, at most twice ``size_px`` long; what lies outside the picture
            is grey.
        size_px: side of the windows.
    """
    import torch
    from torch.nn.functional import pad

    taps = 2 * size_px + 2
    height, width = levels.shape[1:]
    short = (0, max(taps - width, 0), 0, max(taps - height, 0))
    levels = pad(levels, short) if any(short) else levels
    x, across = _weights_along(boxes[:, 0], boxes[:, 2], width, size_px, levels.shape[2])
    y, down = _weights_along(boxes[:, 1], boxes[:, 3], height, size_px, levels.shape[1])
    plane, row, _ = levels.stride()
    runs = levels.as_strided(
        (3, levels.shape[1], levels.shape[2] - taps + 1, taps), (plane, row, 1, 1)
    )
    rows = (y[:, None] + torch.arange(taps))[:, :, None]
    pixels = _normalised(runs[torch.arange(3), rows, x[:, None, None]])  # [N, taps, 3, taps]
    narrow = torch.bmm(pixels.flatten(1, 2), across.transpose(1, 2))
    windows = torch.bmm(down, narrow.view(len(boxes), taps, 3 * size_px))
    return windows.view(len(boxes), size_px, 3, size_px)


def _weights_along(
    low: Tensor, high: Tensor, length: int, size_px: int, stored: int
) -> tuple[Tensor, Tensor]:
    """Along one axis: first pixel [N] under each box, and weights [N, size_px, taps] of it and its successors.

    Args:
        low: [N] where the boxes begin, from pixel edges.
        high: [N] where they end.
        length: of the picture; samples more than a pixel outside count nothing, nearer ones take the edge.
        size_px: of the windows.
        stored: length of the picture with its padding.
    """
    import torch

    taps = 2 * size_px + 2
    steps = (torch.arange(2 * size_px) + 0.5) / (2 * size_px)
    at = low[:, None] + steps * (high - low)[:, None] - 0.5
    share = ((at >= -1) & (at <= length)) * 0.5
    at = at.clamp(0, length - 1)
    first = at[:, 0].floor().clamp(max=stored - taps)
    relative = at - first[:, None]
    nearness = 1 - (relative[:, :, None] - torch.arange(taps)).abs_()
    weights = nearness.clamp_(min=0).mul_(share[:, :, None])
    return first.long(), weights.view(len(low), size_px, 2, taps).sum(dim=2)


def _suppress(boxes: Tensor, scores: Tensor, limit: float) -> Tensor:
    """Indices by falling score, without boxes that overlap a better one by more than ``limit``.

    Args:
        boxes: [N, 4].
        scores: [N].
        limit: of intersection over union.
    """
    import torch

    left = scores.argsort(descending=True, stable=True)
    kept = []
    while len(left):
        best, left = left[:_SUPPRESS_AT_ONCE], left[_SUPPRESS_AT_ONCE:]
        clashes = (_shared(boxes[best], boxes[best]) > limit).numpy()
        is_gone = np.zeros(len(best), dtype=bool)
        survivors = []
        for i, row in enumerate(clashes):
            if not is_gone[i]:
                survivors.append(i)
                is_gone |= row
        kept.append(best[survivors])
        if len(left):
            left = left[~(_shared(boxes[kept[-1]], boxes[left]) > limit).any(dim=0)]
    return torch.cat(kept) if kept else scores.new_zeros(0, dtype=torch.long)


def _shared(first: Tensor, second: Tensor) -> Tensor:
    """[N, M] intersection over union of boxes [N, 4] and [M, 4]."""
    low = first[:, None, :2].maximum(second[:, :2])
    high = first[:, None, 2:].minimum(second[:, 2:])
    extent = (high - low).clamp_(min=0)
    common = extent[..., 0] * extent[..., 1]
    areas = [((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])) for b in (first, second)]
    return common / (areas[0][:, None] + areas[1] - common)


def _squared(boxes: Tensor) -> Tensor:
    """[N, 4] boxes grown to squares about their centres."""
    import torch

    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _moved(boxes: Tensor, shift: Tensor) -> Tensor:
    """[N, 4] boxes with each side moved by a share of the box's extent."""
    return boxes + shift * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _without_duplicates(found: list[_Found]) -> list[_Found]:
    """The candidates by falling score, without those that mostly share their area with a better one."""
    kept: list[_Found] = []
    for one in sorted(found, key=lambda candidate: candidate.score, reverse=True):
        if all(_overlap(one.box, other.box) <= 0.6 for other in kept):
            kept.append(one)
    return kept


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Shared area over the smaller box's area."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    areas = (float(np.prod(box[2:] - box[:2])) for box in (first, second))
    return float(np.prod((high - low).clip(min=0))) / max(min(areas), 1e-9)
