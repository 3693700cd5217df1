"""KID and FID agree with closed forms and with slow, literal versions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from facestyle.errors import ConfigError
from facestyle.evaluation.kid import fid, frechet_distance, kid

Features = npt.NDArray[np.float64]


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> Features:
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


def literal_mmd2(a: Features, b: Features) -> float:
    """Equation 4 of arXiv:1801.01401, term by term."""

    def k(x: Features, y: Features) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    xx = [k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    yy = [k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    xy = [k(x, y) for x in a for y in b]
    return float(np.mean(xx) + np.mean(yy) - 2 * np.mean(xy))


def test_kid_is_the_literal_formula() -> None:
    a, b = normal(7, 5, 0), normal(9, 5, 1, shift=0.4)
    assert kid(a, b).mean == pytest.approx(literal_mmd2(a, b), rel=1e-12)


def test_kid_of_one_distribution_is_about_zero_and_unbiased() -> None:
    values = [
        kid(normal(60, 16, 2 * i), normal(60, 16, 2 * i + 1), blocks=1).mean for i in range(60)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)  # a biased estimate would never be negative
    far = kid(normal(60, 16, 0), normal(60, 16, 1, shift=1.0))
    assert far.mean > 10 * max(np.abs(values))


def test_kid_of_point_masses_has_a_closed_form() -> None:
    # all of a is u, all of b is v: k(u,u) + k(v,v) - 2 k(u,v)
    u, v = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    result = kid(np.tile(u, (5, 1)), np.tile(v, (8, 1)))
    assert result.mean == pytest.approx(1.5**3 + 3.0**3 - 2 * 1.0)
    assert result.std == pytest.approx(0.0, abs=1e-12)


def test_kid_ignores_the_order_of_arguments_and_pictures() -> None:
    a, b = normal(40, 12, 0), normal(30, 12, 1, shift=0.3)
    one = kid(a, b, block_size=10)
    swapped = kid(b, a, block_size=10)
    shuffled = kid(a[::-1], np.random.default_rng(5).permutation(b), block_size=10)
    for other in (swapped, shuffled):
        assert other.mean == pytest.approx(one.mean, rel=1e-9)
        assert other.std == pytest.approx(one.std, rel=1e-9)
    assert (one.n_a, one.n_b, swapped.n_a, swapped.n_b) == (40, 30, 30, 40)


def test_kid_mean_ignores_block_size_and_seed_while_std_shrinks_with_blocks() -> None:
    a, b = normal(200, 12, 0), normal(200, 12, 1, shift=0.3)
    small, large = kid(a, b, block_size=10), kid(a, b, block_size=80, seed=3)
    assert small.mean == large.mean
    assert small.std > 2 * large.std > 0
    assert kid(a, b, block_size=10).std == small.std
    assert kid(a, b, block_size=10, seed=1).std != small.std


def test_small_sets_get_smaller_blocks_not_a_std_of_zero() -> None:
    a, b = normal(48, 12, 0), normal(20, 12, 1, shift=0.3)
    result = kid(a, b)
    assert result.block_size == 10 and result.std > 0.01


def test_kid_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(50, 6, 0), normal(33, 6, 1)
    whole = kid(a, b).mean
    monkeypatch.setattr("facestyle.evaluation.kid.CHUNK", 7)
    assert kid(a, b).mean == pytest.approx(whole, rel=1e-9)


def test_frechet_distance_of_shifted_unit_gaussians_is_the_squared_shift() -> None:
    mu = np.arange(6.0)
    value = frechet_distance(np.zeros(6), np.eye(6), mu, np.eye(6))
    assert value == pytest.approx((mu**2).sum())


def test_frechet_distance_of_scaled_gaussians_has_a_closed_form() -> None:
    # diagonal covariances commute: sum of (s1 - s2)^2 over standard deviations
    s1, s2 = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    value = frechet_distance(np.zeros(3), np.diag(s1**2), np.zeros(3), np.diag(s2**2))
    assert value == pytest.approx(((s1 - s2) ** 2).sum())


def test_fid_of_shifted_copies_is_the_squared_shift() -> None:
    shift = np.linspace(-1, 1, 20)
    for n in (10, 200):  # fewer pictures than dimensions, and more
        a = normal(n, 20, 0)
        assert fid(a, a + shift).value == pytest.approx((shift**2).sum(), abs=1e-6)
        assert fid(a, a[::-1]).value == pytest.approx(0.0, abs=1e-6)


def test_fid_is_one_value_by_singular_values_and_by_covariances() -> None:
    a, b = normal(15, 20, 0), normal(12, 20, 1, shift=0.5) * 1.3
    by_covariance = frechet_distance(
        a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
    )
    result = fid(a, b)
    assert result.value == pytest.approx(by_covariance, rel=1e-6)
    assert fid(b, a).value == pytest.approx(result.value, rel=1e-9)
    assert (result.n_a, result.n_b) == (15, 12)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4))),
        (np.zeros((5, 4)), np.zeros((5, 3))),
        (np.zeros(5), np.zeros(5)),
        (np.full((5, 4), np.nan), np.zeros((5, 4))),
    ],
)
def test_unusable_features_are_an_error(a: Features, b: Features) -> None:
    with pytest.raises(ConfigError, match="features"):
        kid(a, b)
    with pytest.raises(ConfigError, match="features"):
        fid(a, b)


def test_unusable_settings_are_an_error() -> None:
    with pytest.raises(ConfigError, match="block_size"):
        kid(normal(5, 3, 0), normal(5, 3, 1), block_size=1)
