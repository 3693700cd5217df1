"""Five landmarks -> FFHQ quad -> aligned face, and the exact maps between the two pictures.

The quad of FFHQ is always a square, so the map between photo and aligned face is a similarity and its
inverse is exact: `to_photo` and `to_crop` undo each other, and `facestyle.faces.paste` warps back with the
same numbers.

Convention:
    Points are (x, y), x to the right, y down, float64. Landmarks, quads and points use pixel centres: the
    centre of the first pixel is (0, 0), the outer edges of a W x H picture lie at -0.5 and W - 0.5, H - 0.5.
    A quad is [4, 2] in the order top left, bottom left, bottom right, top right, and names the *outer
    corners* of the aligned face. Half a pixel is added only where Pillow is called, which counts from edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter

from facestyle.errors import ConfigError

__all__ = ["align", "ffhq_quad", "full_image_quad", "quad_side_px", "to_crop", "to_photo"]

Array = NDArray[np.float64]

# Outside the photo the mirrored picture blurs, then fades to the median; distances as shares of the quad's side.
_BLUR_SIGMA = 0.02
_BLUR_REACH = 0.10
_FADE_REACH = 0.50


def ffhq_quad(landmarks: ArrayLike) -> Array:
    """The square that FFHQ would cut out around a face.

    Source: FFHQ (arXiv:1812.04948), its alignment script, with the eye centres and the mouth corners
    that the script averages from 68 points taken directly. With e the mean of the eyes, a the vector between
    them and b from e to the mouth: the half side runs along (a_x + b_y, a_y - b_x), is
    ``max(2.0 |a|, 1.8 |b|)`` long, and the centre is ``e + 0.1 b``.

    Args:
        landmarks: [5, 2] left eye, right eye, nose, left and right mouth corner, left as seen in the picture.

    Returns:
        [4, 2] float64 quad: top left, bottom left, bottom right, top right.

    Raises:
        ConfigError: the shape is wrong, a number is not finite, or the points coincide.

    Example:
        >>> ffhq_quad([[40, 50], [60, 50], [50, 60], [42, 70], [58, 70]]).tolist()
        [[10.0, 12.0], [10.0, 92.0], [90.0, 92.0], [90.0, 12.0]]
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ConfigError(
            "expected landmarks [5, 2] of finite numbers (left eye, right eye, nose, mouth left, mouth "
            f"right), got shape {list(points.shape)}"
        )
    eyes = (points[0] + points[1]) / 2
    across = points[1] - points[0]
    down = (points[3] + points[4]) / 2 - eyes
    x = np.array([across[0] + down[1], across[1] - down[0]])
    length = float(np.hypot(*x))
    if length < 1e-6:
        raise ConfigError(f"these landmarks span no face: {points.round(2).tolist()}")
    x *= max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down))) / length
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def full_image_quad(size: tuple[int, int]) -> Array:
    """The quad of a picture that is aligned already: all of it, or its central square.

    Args:
        size: (width, height) in pixels.

    Example:
        >>> full_image_quad((4, 4))[0].tolist()
        [-0.5, -0.5]
    """
    width, height = size
    side = min(width, height)
    left, top = (width - side) / 2 - 0.5, (height - side) / 2 - 0.5
    right, bottom = left + side, top + side
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top]])


def quad_side_px(quad: ArrayLike) -> float:
    """Length in photo pixels of the quad's top edge."""
    corners = np.asarray(quad, dtype=np.float64)
    return float(np.hypot(*(corners[3] - corners[0])))


def to_photo(points: ArrayLike, quad: ArrayLike, size_px: int) -> Array:
    """Where points of the aligned face lie in the photo.

    Args:
        points: [..., 2] in pixels of a ``size_px`` aligned face.
        quad: [4, 2] in photo pixels.
        size_px: side of the aligned face.

    Returns:
        [..., 2] float64 in photo pixels; `to_crop` is its exact inverse.
    """
    origin, x, y = _axes(quad)
    uv = (np.asarray(points, dtype=np.float64) + 0.5) / size_px
    return origin + uv[..., :1] * x + uv[..., 1:] * y


def to_crop(points: ArrayLike, quad: ArrayLike, size_px: int) -> Array:
    """Where points of the photo lie in the aligned face: the inverse of `to_photo`, same arguments."""
    origin, x, y = _axes(quad)
    offset = np.asarray(points, dtype=np.float64) - origin
    uv = np.stack([offset @ x / (x @ x), offset @ y / (y @ y)], axis=-1)
    return uv * size_px - 0.5


def align(image: Image.Image, quad: ArrayLike, size_px: int = 1024) -> Image.Image:
    """The face inside a quad, upright, as a square picture.

    Large faces are first averaged down to the output's scale, so nothing aliases; the last step is bicubic.
    What the photo does not hold is its mirror image, which blurs and then fades to the median colour with the
    distance from the photo. FFHQ also blurs a margin *inside* the photo; here pixels of the photo stay sharp.

    Args:
        image: RGB photo of any size.
        quad: [4, 2] in photo pixels; may leave the photo.
        size_px: side of the output in pixels.

    Returns:
        RGB, size_px x size_px.

    Raises:
        ConfigError: the quad is no square, or the side is not positive.
    """
    corners = np.asarray(quad, dtype=np.float64)
    if size_px < 1:
        raise ConfigError(f"size_px must be at least 1, got {size_px}")
    origin, x, y = _axes(corners)
    side = quad_side_px(corners)
    patch = _cut(image, corners, target_scale=size_px / side)
    if patch.is_padded:
        patch = _fill_outside(image, patch, corners)
    # Pillow's affine map takes output pixels, counted from edges, to input pixels, counted from edges.
    scale = np.array(patch.scale)
    start = (origin + 0.5 - np.array(patch.corner)) * scale
    x, y = x * scale / size_px, y * scale / size_px
    matrix = (x[0], y[0], start[0], x[1], y[1], start[1])
    return patch.image.transform(
        (size_px, size_px), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC
    )


@dataclass(frozen=True, slots=True)
class _Patch:
    """A piece of the photo at a reduced scale: pixel edge p of the photo is at (p - corner) * scale."""

    image: Image.Image
    corner: tuple[float, float]
    scale: tuple[float, float]
    is_padded: bool


def _axes(quad: ArrayLike) -> tuple[Array, Array, Array]:
    """Top left corner, the top edge and the left edge of a quad, which must be a square.

    Raises:
        ConfigError: the quad is no square.
    """
    corners = np.asarray(quad, dtype=np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise ConfigError(
            f"expected a quad [4, 2] of finite numbers, got shape {list(corners.shape)}"
        )
    x, y = corners[3] - corners[0], corners[1] - corners[0]
    length = float(np.hypot(*x))
    turned = np.array([-x[1], x[0]])
    if length < 1e-9 or max(
        abs(turned - y).max(), abs(corners[0] + x + y - corners[2]).max()
    ) > 1e-6 * (length + abs(corners).max()):
        raise ConfigError(
            "expected a quad that is a square (top left, bottom left, bottom right, top right), got "
            f"{corners.round(2).tolist()}"
        )
    return corners[0], x, y


def _cut(image: Image.Image, corners: Array, target_scale: float) -> _Patch:
    """The quad's bounding box with a margin, clipped to the photo and reduced towards ``target_scale``.

    Whole factors are averaged (`Image.reduce`), the rest is a bicubic resize with support; less than a
    fifth is left to the warp, whose kernel bears it.
    """
    factor = max(int(1 / target_scale + 1e-6), 1)
    margin = 4 * factor  # the bicubic kernel reaches 2 reduced pixels
    low = np.floor(corners.min(axis=0) + 0.5).astype(int) - margin
    high = np.ceil(corners.max(axis=0) + 0.5).astype(int) + margin
    left, top = (int(np.clip(v, 0, n - 1)) for v, n in zip(low, image.size, strict=True))
    right, bottom = (int(np.clip(v, 1, n)) for v, n in zip(high, image.size, strict=True))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    outer = corners + 0.5
    leaves = bool(
        (outer.min(axis=0) < -1e-6).any() or (outer.max(axis=0) > np.array(image.size) + 1e-6).any()
    )

    box = (left, top, right, bottom)
    piece = image.reduce(factor, box=box) if factor > 1 else image.crop(box)
    scale = (1 / factor, 1 / factor)
    rest = target_scale * factor
    if rest < 1 / 1.2:
        width, height = (max(round(n * rest), 1) for n in piece.size)
        scale = (scale[0] * width / piece.width, scale[1] * height / piece.height)
        piece = piece.resize((width, height), Image.Resampling.BICUBIC)
    return _Patch(piece, (left, top), scale, is_padded=leaves)


def _fill_outside(image: Image.Image, patch: _Patch, corners: Array) -> _Patch:
    """The patch grown to hold the whole quad: mirrored, then blurred, then the median colour."""
    scale, corner = np.array(patch.scale), np.array(patch.corner)
    size = np.array(patch.image.size)
    outer = (corners + 0.5 - corner) * scale
    before = np.maximum(np.ceil(-outer.min(axis=0)).astype(int) + 3, 0)
    after = np.maximum(np.ceil(outer.max(axis=0) - size).astype(int) + 3, 0)
    # Never mirror a side that the photo still continues past: the cut has its margin there.
    before *= corner == 0
    after *= corner + size / scale >= np.array(image.size) - 1e-6
    pads = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    mirrored = Image.fromarray(np.pad(np.asarray(patch.image), pads, mode="symmetric"))

    side = quad_side_px(corners)
    distance = [
        np.maximum(np.maximum(low - at, at - (low + n)), 0.0) / (side * s)
        for at, low, n, s in (
            (np.arange(mirrored.size[i], dtype=np.float32) + 0.5, before[i], size[i], scale[i])
            for i in range(2)
        )
    ]
    outside = np.hypot(distance[0][None, :], distance[1][:, None])
    small = mirrored.reduce(4) if min(mirrored.size) >= 64 else mirrored
    sigma = float(_BLUR_SIGMA * side * scale[0] * small.width / mirrored.width)
    blurred = small.filter(ImageFilter.GaussianBlur(sigma)).resize(
        mirrored.size, Image.Resampling.BILINEAR
    )
    middle = np.median(np.asarray(patch.image.resize((32, 32), Image.Resampling.BOX)), axis=(0, 1))
    median = Image.new("RGB", mirrored.size, tuple(int(v) for v in middle.round()))
    filled = Image.composite(blurred, mirrored, _mask(outside / _BLUR_REACH))
    filled = Image.composite(median, filled, _mask(outside / _FADE_REACH))
    return _Patch(filled, tuple(corner - before / scale), patch.scale, is_padded=False)


def _mask(weight: NDArray[np.float32]) -> Image.Image:
    """Weights as an L picture, 0 to 255; below 0 and above 1 are clipped."""
    return Image.fromarray((weight.clip(0, 1) * 255).round().astype(np.uint8))
