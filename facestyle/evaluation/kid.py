"""KID and FID: how far two sets of pictures are apart in Inception's features.

Both say more about a set's size the smaller it is: FID is biased upwards below some thousand
pictures, KID is not. Report KID first, and always the numbers of pictures.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facestyle.errors import ConfigError

__all__ = ["FidResult", "KidResult", "fid", "frechet_distance", "kid"]

Array = npt.NDArray[Any]
CHUNK = 2048  # rows of the Gram matrix held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class KidResult:
    """Kernel Inception Distance.

    Attributes:
        mean: unbiased MMD^2 over all pictures; about 0, also below, for sets of one distribution.
            Usually shown times 1000.
        std: standard deviation of the same over random blocks: how sure ``mean`` would be for
            sets of ``block_size``; None where a set has fewer than four pictures to choose blocks from.
        n_a: pictures in the first set.
        n_b: pictures in the second.
        block_size: pictures of each set in a block.
    """

    mean: float
    std: float | None
    n_a: int
    n_b: int
    block_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FidResult:
    """Frechet Inception Distance; only comparable at the same ``n_a`` and ``n_b``.

    Attributes:
        value: the distance.
        n_a: pictures in the first set.
        n_b: pictures in the second.
    """

    value: float
    n_a: int
    n_b: int


def kid(a: Array, b: Array, *, block_size: int = 100, blocks: int = 50, seed: int = 0) -> KidResult:
    """KID of two sets of features: MMD^2 with the kernel ``(x.y / D + 1)^3``.

    Source: Binkowski et al. 2018 (arXiv:1801.01401), equation 4. The mean is the U-statistic over
    the whole sets: what the usual mean over random blocks approaches, without its noise. It depends
    on neither the pictures' order, nor the arguments' order, nor the block size.

    Args:
        a: [N, D] features of one set.
        b: [M, D] features of the other.
        block_size: pictures in a block, for ``std``; at most half of the smaller set.
        blocks: number of blocks.
        seed: of the blocks' choice.

    Raises:
        ConfigError: not two sets of at least two features of one size, or an unusable setting.
    """
    a, b = _checked(a, b)
    if block_size < 2 or blocks < 1:
        raise ConfigError(f"expected block_size >= 2, blocks >= 1, got {block_size}, {blocks}")
    # Blocks of nearly the whole set would all be alike and make any result look certain.
    block_size = min(block_size, max(2, min(len(a), len(b)) // 2))
    std = None
    if min(len(a), len(b)) >= 2 * block_size:
        # Sorted rows and a seed from the content make the blocks independent of either order.
        draws_a, draws_b = (_draws(x, block_size, blocks, seed) for x in (a, b))
        std = float(np.std([_mmd2(x, y) for x, y in zip(draws_a, draws_b, strict=True)]))
    return KidResult(
        mean=_mmd2(a, b),
        std=std,
        n_a=len(a),
        n_b=len(b),
        block_size=block_size,
    )


def fid(a: Array, b: Array) -> FidResult:
    """FID of two sets of features [N, D] and [M, D].

    Source: Heusel et al. 2017 (arXiv:1706.08500), equation 6. The trace of the root of the product of
    the covariances is the sum of the singular values of the product of the centred features, which
    is exact for fewer pictures than dimensions, where a matrix square root is not.

    Raises:
        ConfigError: not two sets of at least two features of one size.
    """
    a, b = _checked(a, b)
    if min(len(a), len(b)) > a.shape[1]:
        value = frechet_distance(
            a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
        )
    else:
        x, y = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (a, b))
        root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
        traces = (x**2).sum() + (y**2).sum()
        value = float(((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * root)
    return FidResult(value=max(value, 0.0), n_a=len(a), n_b=len(b))


def frechet_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """Squared Frechet distance of two Gaussians: ``|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))``.

    Args:
        mean_a: [D].
        cov_a: [D, D], symmetric, no negative eigenvalues.
        mean_b: [D].
        cov_b: [D, D], likewise.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)
    return float(
        ((mean_a - mean_b) ** 2).sum()
        + np.trace(cov_a)
        + np.trace(cov_b)
        - 2 * np.sqrt(inner).sum()
    )


def _checked(a: Array, b: Array) -> tuple[Array, Array]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ConfigError(
            f"expected features [N, D] and [M, D] of 2 pictures or more, got {a.shape}, {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ConfigError("features hold NaN or infinity; the pictures or the network are broken")
    return a, b


def _kernel_sum(x: Array, y: Array) -> float:
    parts = (x[i : i + CHUNK] @ y.T / x.shape[1] + 1.0 for i in range(0, len(x), CHUNK))
    return float(sum((part**3).sum() for part in parts))


def _mmd2(a: Array, b: Array) -> float:
    def within(x: Array) -> float:
        diagonal = (((x**2).sum(1) / x.shape[1] + 1.0) ** 3).sum()
        return float((_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def _draws(x: Array, size: int, count: int, seed: int) -> list[Array]:
    x = x[np.lexsort(x[:, :8].T)]
    generator = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(x[:, :8]).tobytes())])
    return [x[generator.choice(len(x), size, replace=False)] for _ in range(count)]
