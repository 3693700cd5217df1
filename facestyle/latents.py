"""Arithmetic on latent codes: broadcast W to W+, truncate, mix.

``z``, ``w`` are [B, 512]; ``w_plus`` is [B, num_ws, 512], rows in StyleGAN2's resolution order (row 0 at 4 px,
rows 1-2 at 8 px, ...), coarse first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facestyle.errors import ConfigError, LatentShapeError

__all__ = ["blend", "broadcast", "check_mixing", "style_mix", "truncate"]


def blend(codes: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """The weighted mean of codes of one shape; weights are scaled to a sum of 1, None weighs all alike.

    Raises:
        ConfigError: no codes, another number of weights, a negative one, or nothing but zeros.
        LatentShapeError: the codes differ in shape.

    Example:
        >>> blend([torch.zeros(2), torch.ones(2)], [3, 1]).tolist()
        [0.25, 0.25]
    """
    if not codes:
        raise ConfigError("there is no code to blend; give at least one")
    weights = [1.0] * len(codes) if weights is None else list(weights)
    if len(weights) != len(codes):
        raise ConfigError(f"expected a weight for each of {len(codes)} codes, got {len(weights)}")
    total = sum(weights)
    if min(weights) < 0 or not 0 < total < float("inf"):
        raise ConfigError(f"weights must be 0 or more and not all 0, got {weights}")
    if any(code.shape != codes[0].shape for code in codes):
        shapes = [list(code.shape) for code in codes]
        raise LatentShapeError(f"expected codes of one shape, got {shapes}")
    parts = [code * (weight / total) for code, weight in zip(codes, weights, strict=True)]
    return torch.stack(parts).sum(0)


def check_mixing(
    mixing_level: int,
    alpha: float = 1.0,
    references: int = 1,
    weights: Sequence[float] | None = None,
) -> None:
    """Refuse, before any work, what `style_mix` or `blend` of so many references would refuse.

    Raises:
        ConfigError: the level is negative, ``alpha`` outside [0, 1], or the weights do not fit.
    """
    style_mix(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), mixing_level, alpha)
    blend([torch.zeros(1)] * references, weights)


def broadcast(w: Tensor, num_ws: int) -> Tensor:
    """Give every layer its row: [B, 512] becomes [B, num_ws, 512]; a [B, num_ws, 512] code passes through.

    Raises:
        LatentShapeError: ``w`` is neither.

    Example:
        >>> broadcast(torch.zeros(2, 512), 16).shape
        torch.Size([2, 16, 512])
    """
    if w.ndim == 2:
        return w.unsqueeze(1).expand(-1, num_ws, -1)
    if w.ndim == 3 and w.shape[1] == num_ws:
        return w
    raise LatentShapeError(
        f"expected w [B, D] or w_plus [B, {num_ws}, D] for this generator, got {list(w.shape)}; "
        "a code with another number of rows comes from a generator of another resolution"
    )


def truncate(w: Tensor, w_avg: Tensor, psi: float) -> Tensor:
    """Pull latents towards the mean: ``w_avg + psi * (w - w_avg)``.

    Source: StyleGAN (arXiv:1812.04948), appendix B.

    Args:
        w: [B, 512] in W, or [B, num_ws, 512] in W+.
        w_avg: [512], the generator's mean of W.
        psi: 1 keeps ``w``, 0 returns the mean face.

    Returns:
        Same shape, dtype and device as ``w``.

    Raises:
        LatentShapeError: the last axes differ.

    Example:
        >>> w, w_avg = torch.ones(1, 18, 512), torch.zeros(512)
        >>> truncate(w, w_avg, psi=0.5).unique().item()
        0.5
    """
    if w.shape[-1:] != w_avg.shape[-1:]:
        raise LatentShapeError(
            f"expected codes of {w_avg.shape[-1]} numbers, got {list(w.shape)}; encoder and generator do not match"
        )
    if psi == 1:
        return w
    return w_avg + psi * (w - w_avg)


def style_mix(content: Tensor, style: Tensor, level: int, alpha: float = 1.0) -> Tensor:
    """Rows below ``level`` from ``content``, the others from ``style`` (paper section 3.3).

    Args:
        content: [B, num_ws, 512].
        style: [B, num_ws, 512].
        level: 0 returns ``style``, ``num_ws`` or more returns ``content``.
        alpha: share of ``style`` in the other rows; 0 returns ``content``.

    Raises:
        LatentShapeError: the two differ in shape.
        ConfigError: ``level`` is negative, or ``alpha`` is not in [0, 1].

    Example:
        >>> a, b = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
        >>> style_mix(a, b, 3)[0, :, 0].tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    if content.shape != style.shape or content.ndim != 3:
        raise LatentShapeError(
            f"expected two w_plus codes of one shape, got {list(content.shape)} and {list(style.shape)}"
        )
    if level < 0:
        raise ConfigError(f"the mixing level must be 0 or more, got {level}")
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha must be in [0, 1], got {alpha}; 1 is all of the reference")
    if alpha != 1:
        style = torch.lerp(content, style, alpha)
    return torch.cat([content[:, :level], style[:, level:]], dim=1)
