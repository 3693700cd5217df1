"""Skin tone of an aligned face, and how far a style moves it.

Convention: faces are FFHQ-aligned squares; colours are CIELAB under D65 from 8-bit sRGB.

A tone is that of the picture, light and exposure included: groups sort photos, not people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from facestyle.errors import ImageError

__all__ = [
    "GROUPS",
    "REGIONS",
    "THREE_GROUPS",
    "SkinDrift",
    "SkinTone",
    "drift_by_group",
    "refuse_unaligned",
    "skin_drift",
    "skin_tone",
    "srgb_to_lab",
]

Array = npt.NDArray[Any]

REGIONS: dict[str, tuple[float, float, float, float]] = {
    "left cheek": (0.315, 0.555, 0.405, 0.655),
    "right cheek": (0.595, 0.555, 0.685, 0.655),
    "nose bridge": (0.475, 0.475, 0.530, 0.580),
}
"""(left, top, right, bottom) as shares of the aligned square; left is the picture's left."""

GROUPS: dict[str, float] = {
    "light": 41.0,
    "intermediate": 28.0,
    "tan": 10.0,
    "brown": -30.0,
    "dark": -90.0,
}
"""Lower bound of each group's ITA in degrees (Del Bino 2013; its "very light", > 55, is in light)."""

THREE_GROUPS: dict[str, tuple[str, ...]] = {
    "light": ("light",),
    "medium": ("intermediate", "tan"),
    "dark": ("brown", "dark"),
}
"""The same groups, gathered so that each has people enough in a hundred."""

# sRGB (IEC 61966-2-1) to XYZ with white at 1; columns then sum to D65.
_RGB_TO_XYZ = np.array(
    [
        [0.4123908, 0.3575843, 0.1804808],
        [0.2126390, 0.7151687, 0.0721923],
        [0.0193308, 0.1191948, 0.9505322],
    ]
)
_WHITE = _RGB_TO_XYZ.sum(axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkinTone:
    """Colour of a face's skin.

    Attributes:
        lab: median (L*, a*, b*) of the cheeks and the bridge of the nose.
        ita_deg: individual typology angle in degrees, about 60 (very light) to -60 (dark).
        group: the key of :data:`GROUPS` it falls into.
    """

    lab: tuple[float, float, float]
    ita_deg: float
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SkinDrift:
    """How skin changed from one picture to another.

    Attributes:
        before: tone of the first picture.
        after: tone of the second.
        delta_l: L* after minus before; positive is lighter.
        delta_e: CIE76 distance, always >= 0; about 2.3 is just noticeable.
        delta_ita_deg: ITA after minus before; positive is lighter.
    """

    before: SkinTone
    after: SkinTone
    delta_l: float
    delta_e: float
    delta_ita_deg: float


def srgb_to_lab(rgb: Array) -> npt.NDArray[np.float64]:
    """CIELAB of sRGB values.

    Source: IEC 61966-2-1 and CIE 15:2004, white point D65.

    Args:
        rgb: [..., 3], uint8 in 0..255 or floats in 0..1.

    Returns:
        [..., 3] float64: L* in 0..100, a* and b*.
    """
    x = rgb / 255.0 if rgb.dtype == np.uint8 else np.asarray(rgb, np.float64)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    t = linear @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return np.stack(lab, axis=-1)


def skin_tone(image: Image.Image) -> SkinTone:
    """Skin tone of an FFHQ-aligned face.

    Medians, per channel, over three fixed regions, so that glasses' rims, highlights, moles and
    strands of hair, which cover less than half of them, do not count.

    Raises:
        ImageError: the picture is no square, or under 64 px.
    """
    refuse_unaligned(image)
    side = image.width
    pixels = np.asarray(image.convert("RGB"))
    parts = []
    for left, top, right, bottom in REGIONS.values():
        rows = slice(round(top * side), round(bottom * side))
        columns = slice(round(left * side), round(right * side))
        parts.append(pixels[rows, columns].reshape(-1, 3))
    lab = np.median(srgb_to_lab(np.concatenate(parts)), axis=0)
    # Blue light or paint can give b* <= 0, where the angle is not defined: hold it at +-90 degrees.
    ita_deg = float(np.degrees(np.arctan2(lab[0] - 50.0, max(lab[2], 1e-6))))
    group = next(name for name, bound in GROUPS.items() if ita_deg > bound or name == "dark")
    return SkinTone(lab=(float(lab[0]), float(lab[1]), float(lab[2])), ita_deg=ita_deg, group=group)


def refuse_unaligned(image: Image.Image) -> None:
    """Refuse what cannot be an FFHQ-aligned face.

    Raises:
        ImageError: the picture is no square, or under 64 px.
    """
    if image.width != image.height or image.width < 64:
        raise ImageError(
            f"expected an FFHQ-aligned square of 64 px or more, got {image.width}x{image.height}"
        )


def skin_drift(before: Image.Image, after: Image.Image) -> SkinDrift:
    """Change of skin tone from one aligned face to another; the sizes may differ.

    Raises:
        ImageError: one of them is no aligned face.
    """
    a, b = skin_tone(before), skin_tone(after)
    return SkinDrift(
        before=a,
        after=b,
        delta_l=b.lab[0] - a.lab[0],
        delta_e=float(np.linalg.norm(np.subtract(b.lab, a.lab))),
        delta_ita_deg=b.ita_deg - a.ita_deg,
    )


def drift_by_group(
    drifts: Sequence[SkinDrift], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, dict[str, float]]:
    """Mean drift of each skin group (of the photo before), for cards and reports.

    Args:
        drifts: one per person.
        groups: name to keys of :data:`GROUPS`, such as :data:`THREE_GROUPS`; None: each key by itself.

    Returns:
        Group -> ``n``, ``delta_l``, ``delta_e``, ``delta_ita_deg``; groups nobody is in are left
        out, ``all`` comes last. Empty for no drifts.
    """
    table = {}
    for name, keys in {**(groups or {key: (key,) for key in GROUPS}), "all": tuple(GROUPS)}.items():
        if members := [d for d in drifts if d.before.group in keys]:
            table[name] = {
                "n": len(members),
                "delta_l": fmean(d.delta_l for d in members),
                "delta_e": fmean(d.delta_e for d in members),
                "delta_ita_deg": fmean(d.delta_ita_deg for d in members),
            }
    return table
