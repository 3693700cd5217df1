"""Stylized face + quad -> the full photo, with no seam and nothing else touched.

The face goes back through the exact inverse of the alignment. A rounded mask fades it out before the quad's
edge; outside the mask the photo is bit-identical. Near the seam, and only there, the broad colour difference
between photo and face is taken away, so that the eye finds no edge to follow.

Several faces are pasted one after the other, the smallest (farthest) first. A portrait brings the ground around the
head along, so where faces are close it ends halfway to the others' faces.

Convention:
    As in `facestyle.faces.align`: (x, y), pixel centres, quads [4, 2] from the top left corner downwards. The mask's
    radius counts from the face's centre, 1 at the quad's edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from facestyle.errors import ConfigError
from facestyle.faces.align import align, full_image_quad, quad_side_px, to_crop, to_photo

__all__ = ["paste", "paste_mask"]

_ROUNDNESS = 4.0  # |u|^4 + |v|^4 = 1: a square with well rounded corners
_OUTER = 0.97  # radius where the mask reaches 0; the rest of the quad is left alone
_MASK_CELLS = 192  # cells a coarse mask has along the quad's side
_MATCH_PX = 48  # side at which colours are compared
_MATCH_SIGMA = 0.06  # how near a ring pixel must be, in sides
_MATCH_LEVELS = 30.0  # and how alike in colour
_MATCH_DOUBT = 0.3  # weight of "no difference"
_MATCH_TRUST_LEVELS = 70.0  # larger differences are other things in the picture, not another light
_BORDER = 0.2  # radius over which a face gives way to another
_STRIP_PIXELS = 100_000  # smaller boxes are warped by one thread
_SHARP_PX = 512  # faces of this side and more are warped bilinearly
_MATCH_DEPTH = 0.4  # radius over which the correction dies away towards the face's middle

Float = NDArray[np.float32]


def paste(
    photo: Image.Image,
    portrait: Image.Image,
    quad: ArrayLike,
    *,
    feather: float = 0.1,
    match_color: bool = True,
    others: Sequence[ArrayLike] = (),
) -> Image.Image:
    """The photo with a portrait in place of the face inside a quad.

    Args:
        photo: RGB photo of any size.
        portrait: square RGB picture of what the quad should show.
        quad: [4, 2] in photo pixels, the one the face was aligned with; may leave the photo.
        feather: width of the mask's fade as a share of the quad's side, from 0.01 to 0.45.
        match_color: whether the portrait's colours bend towards the photo's near the seam.
        others: quads of faces that stay as they are: what is nearer to one of them than to this face, each measured in
            its own quad's sides, is left to it.

    Returns:
        A new RGB picture of the photo's size; pixels where `paste_mask` is 0 equal the photo's.

    Raises:
        ConfigError: the portrait or the quad is no square, or the feather is out of range.
    """
    if portrait.width != portrait.height:
        raise ConfigError(f"expected a square portrait, got {portrait.width} x {portrait.height}")
    photo = photo.convert("RGB") if photo.mode != "RGB" else photo
    portrait = portrait.convert("RGB") if portrait.mode != "RGB" else portrait
    corners = np.asarray(quad, dtype=np.float64)
    result = photo.copy()
    box = _box(photo.size, corners)
    mask = _mask(box, corners, feather, [np.asarray(o, dtype=np.float64) for o in others])
    if mask is None:
        return result

    side = quad_side_px(corners)
    face = portrait
    if side < portrait.width:
        target = max(round(side), 1)
        face = portrait.resize((target, target), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if match_color:
        face = _match_seam(face, photo, corners, feather)
    for top, strip in _warp_back(face, corners, box):
        rows = (0, top - box[1], mask.width, top - box[1] + strip.height)
        result.paste(strip, (box[0], top), mask.crop(rows))
    return result


def paste_mask(photo_size: tuple[int, int], quad: ArrayLike, feather: float = 0.1) -> Image.Image:
    """How much of the portrait `paste` shows: L picture of the photo's size, 0 outside the quad.

    Args:
        photo_size: (width, height) in pixels.
        quad: [4, 2] in photo pixels.
        feather: as in `paste`.

    Raises:
        ConfigError: the quad is no square, or the feather is out of range.
    """
    corners = np.asarray(quad, dtype=np.float64)
    whole = Image.new("L", photo_size, 0)
    box = _box(photo_size, corners)
    mask = _mask(box, corners, feather)
    if mask is not None:
        whole.paste(mask, box[:2])
    return whole


def _box(photo_size: tuple[int, int], corners: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """The mask's bounding box in whole pixels, clipped to the photo; empty where they do not meet.

    The farthest point of |u|^p + |v|^p = 1 in a direction is given by the dual norm, q = p / (p - 1).
    """
    to_crop(np.zeros(2), corners, 1)  # refuses what is no square
    dual = _ROUNDNESS / (_ROUNDNESS - 1)
    axes = np.abs(np.stack([corners[3] - corners[0], corners[1] - corners[0]]) / 2)
    reach = _OUTER * (axes**dual).sum(axis=0) ** (1 / dual)
    centre = corners.mean(axis=0)
    low = np.clip(np.floor(centre - reach + 0.5), 0, photo_size).astype(int)
    high = np.clip(np.ceil(centre + reach + 0.5), 0, photo_size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _fade(points: NDArray[np.float64], feather: float) -> tuple[Float, Float]:
    """Radius and mask value, 0 to 1, of points [..., 2] given in a crop of side 1 px (0 at its centre)."""
    u, v = np.abs(2 * points[..., 0]), np.abs(2 * points[..., 1])
    radius = (u**_ROUNDNESS + v**_ROUNDNESS) ** (1 / _ROUNDNESS)
    t = ((_OUTER - radius) / (2 * feather)).clip(0, 1)
    return radius.astype(np.float32), (t**3 * (t * (6 * t - 15) + 10)).astype(np.float32)


def _share(
    points: NDArray[np.float64], corners: NDArray[np.float64], others: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """How much of points [..., 2] in the photo is a face's and not one of the others', 0 to 1."""
    share = np.ones(points.shape[:-1])
    if not others:
        return share
    own = _distance(points, corners)
    for other in others:
        t = ((_distance(points, other) - own) / _BORDER + 0.5).clip(0, 1)
        share *= t * t * (3 - 2 * t)
    return share


def _distance(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the middle of a quad, in halves of its side."""
    distance: NDArray[np.float64] = 2 * np.hypot(*np.moveaxis(to_crop(points, corners, 1), -1, 0))
    return distance


def _mask(
    box: tuple[int, int, int, int],
    corners: NDArray[np.float64],
    feather: float,
    others: Sequence[NDArray[np.float64]] = (),
) -> Image.Image | None:
    """The mask inside a box of the photo, or None where it is empty.

    It is smooth, so it is worked out on a coarse grid and stretched.
    """
    if not 0.01 <= feather <= 0.45:
        raise ConfigError(f"feather must be from 0.01 to 0.45 sides, got {feather}")
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width < 1 or height < 1:
        return None
    cell = max(quad_side_px(corners) / _MASK_CELLS, 1.0)
    columns, rows = max(round(width / cell), 1), max(round(height / cell), 1)
    xs = left + (np.arange(columns) + 0.5) * width / columns - 0.5
    ys = top + (np.arange(rows) + 0.5) * height / rows - 0.5
    points = np.stack(np.meshgrid(xs, ys), axis=-1)
    _, values = _fade(to_crop(points, corners, 1), feather)
    shown = values * _share(points, corners, others)
    coarse = Image.fromarray((shown * 255).round().astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BILINEAR)


def _warp_back(
    face: Image.Image, corners: NDArray[np.float64], box: tuple[int, int, int, int]
) -> list[tuple[int, Image.Image]]:
    """The square face as it lies in a box of the photo, in strips: (top in the photo, picture).

    Bicubic where the face was made small first; bilinear, three times as fast, where it is about the photo's size or
    enlarged, since the portrait then has no detail finer than the kernel. Large boxes are drawn by one thread a core.
    """
    import torch

    origin, x, y = corners[0], corners[3] - corners[0], corners[1] - corners[0]
    x, y = x * face.width / (x @ x), y * face.width / (y @ y)
    growth = quad_side_px(corners) / face.width
    enlarged = growth > 1.25 or (growth > 0.98 and face.width >= _SHARP_PX)
    left, top, right, bottom = box

    def strip(rows: tuple[int, int]) -> tuple[int, Image.Image]:
        start = np.array([left, rows[0]]) - (origin + 0.5)
        picture = face.transform(
            (right - left, rows[1] - rows[0]),
            Image.Transform.AFFINE,
            (x[0], x[1], start @ x, y[0], y[1], start @ y),
            resample=Image.Resampling.BILINEAR if enlarged else Image.Resampling.BICUBIC,
        )
        return rows[0], picture

    count = torch.get_num_threads() if (right - left) * (bottom - top) > _STRIP_PIXELS else 1
    edges = np.linspace(top, bottom, min(count, bottom - top) + 1).round().astype(int).tolist()
    if len(edges) == 2:
        return [strip((top, bottom))]
    with ThreadPoolExecutor(len(edges) - 1) as pool:
        return list(pool.map(strip, pairwise(edges)))


def _match_seam(
    face: Image.Image, photo: Image.Image, corners: NDArray[np.float64], feather: float
) -> Image.Image:
    """The face with the photo's broad colours where the mask fades, unchanged in its middle.

    The difference photo - face is read off the fading ring. Around the ring each pixel takes the mean difference of
    ring pixels that are near it *and* coloured like it (a joint bilateral filter), so that a wall's
    correction does not tint the hair in front of it. What resembles nothing on the ring is left alone, and so are
    differences too large for a colour cast: there the two pictures show different things.
    """
    n = _MATCH_PX
    seen = np.asarray(align(photo, corners, n), dtype=np.float32).reshape(-1, 3)
    shown = np.asarray(align(face, full_image_quad(face.size), n), dtype=np.float32).reshape(-1, 3)
    steps = np.arange(n, dtype=np.float64)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    radius, value = _fade((grid + 0.5) / n - 0.5, feather)
    where = to_photo(grid, corners, n)
    inside = ((where >= -0.5) & (where <= np.array(photo.size) - 0.5)).all(axis=-1)
    weight = 4 * value * (1 - value) * inside
    ring = weight > 0.02
    t = ((radius - (_OUTER - 2 * feather - _MATCH_DEPTH)) / _MATCH_DEPTH).clip(0, 1)
    falloff = t * t * (3 - 2 * t)
    touched = (falloff > 0) & (radius < 1.1)
    if not ring.any():
        return face

    place = (grid / (n * _MATCH_SIGMA)).astype(np.float32)
    features = np.concatenate([place, shown / _MATCH_LEVELS], axis=1)
    change = (seen - shown)[ring]
    trust = np.exp(-0.5 * (np.abs(change).max(1, keepdims=True) / _MATCH_TRUST_LEVELS) ** 2)
    field = np.zeros((n * n, 3), dtype=np.float32)
    near = _affine_mean(features[touched], features[ring], weight[ring], change * trust)
    field[touched] = near * falloff[touched, None]
    return _added(face, field.reshape(n, n, 3))


def _affine_mean(at: Float, points: Float, weights: Float, values: Float) -> Float:
    """[M, C] means of values [N, C], each weighted by its own weight and exp(-d^2 / 2), d the distance of features.

    One more value, zero with the weight `_MATCH_DOUBT`, counts everywhere. The exponents are one matrix product:
    -|a - b|^2 / 2 = a b - |a|^2 / 2 - |b|^2 / 2.
    """
    import torch

    a, b, w, v = (torch.from_numpy(item) for item in (at, points, weights, values))
    a = torch.cat([a, a.square().sum(1, keepdim=True) / -2, a.new_ones(len(a), 1)], dim=1)
    b = torch.cat([b, b.new_ones(len(b), 1), b.square().sum(1, keepdim=True) / -2], dim=1)
    affinity = (a @ b.T).clamp_(-60, 0).exp_()  # smaller weights are slow denormal numbers
    sums = affinity @ (torch.cat([v, v.new_ones(len(v), 1)], dim=1) * w[:, None])
    return np.asarray(sums[:, :-1] / (sums[:, -1:] + _MATCH_DOUBT))


def _added(face: Image.Image, field: Float) -> Image.Image:
    """The face plus a coarse [n, n, 3] field of signed levels, less than 60, stretched to its size.

    The field is stretched as bytes that count half levels from 128 on, which is many times as fast as in floats.
    """
    import torch
    import torch.nn.functional as F

    halves = torch.from_numpy((field * 2 + 128.5).astype(np.uint8))
    coarse = halves.permute(2, 0, 1)[None]
    stretched = F.interpolate(coarse, size=face.size[::-1], mode="bilinear", align_corners=False)
    levels = torch.from_numpy(np.array(face)).to(torch.int16).mul_(2).add_(1 - 128)
    levels.add_(stretched[0].permute(1, 2, 0))
    summed = levels.bitwise_right_shift_(1).clamp_(0, 255).to(torch.uint8)
    return Image.fromarray(summed.numpy())
