"""EASE in closed form: the conditions of the minimum, the formula written plainly, pruning, precision and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from recsys_spark.collaborative.ease import agreement, ease_weights, largest, max_items
from recsys_spark.collaborative.stage import why_not
from recsys_spark.config.signals import EaseSettings
from recsys_spark.errors import MachineError


def _gram(num_users: int = 300, num_items: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    met = (rng.random((num_users, num_items)) < rng.uniform(0.02, 0.3, num_items)).astype(float)
    met[:, 1] = np.maximum(met[:, 0], met[:, 1])  # who meets item 0 meets item 1
    return met.T @ met


@pytest.mark.parametrize("num_items", [1, 2, 40, 1_100])  # the last one has more rows than a block
def test_weights_are_those_of_the_formula(num_items: int) -> None:
    gram = _gram(num_items=max(num_items, 2))[:num_items, :num_items]
    inverse = np.linalg.inv(gram + 5.0 * np.eye(num_items))
    plain = np.where(np.eye(num_items) > 0, 0.0, -inverse / np.diag(inverse)[None, :])
    np.testing.assert_allclose(ease_weights(sparse.csr_matrix(gram), 5.0), plain, atol=1e-10)


def test_weights_minimise_the_squared_error() -> None:
    """At the minimum under a diagonal of 0, the gradient ``(G + l2 I) B - G`` vanishes everywhere else."""
    gram, l2 = _gram(), 7.0
    weights = ease_weights(gram, l2)
    gradient = (gram + l2 * np.eye(len(gram))) @ weights - gram
    np.fill_diagonal(gradient, 0.0)
    assert np.abs(gradient).max() < 1e-9
    assert not np.diag(weights).any()
    assert weights[0, 1] > weights[1, 0] > 0  # item 0 tells of item 1 more than the other way round


def test_single_precision_agrees_and_wrong_weights_are_noticed() -> None:
    gram = sparse.csr_matrix(_gram(num_items=60))
    weights = ease_weights(gram, 5.0, np.float32)
    assert weights.dtype == np.float32
    sample = np.arange(0, 60, 7)
    np.testing.assert_allclose(weights, ease_weights(gram, 5.0), atol=1e-4)
    assert agreement(gram, 5.0, weights, sample) == 1.0
    assert agreement(gram, 5.0, -weights, sample) < 0.5


def test_one_matrix_is_held_while_it_is_inverted() -> None:
    rng, num_items = np.random.default_rng(3), 3_000
    events = sparse.random(2_000, num_items, 0.002, format="csr", random_state=rng)
    gram = sparse.csr_matrix(events.T @ events)
    tracemalloc.start()
    try:
        weights = ease_weights(gram, 10.0)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert weights.shape == (num_items, num_items)
    assert peak_bytes < 1.6 * weights.nbytes  # blocks of 1,024 rows are copied for a moment


def test_counts_that_cannot_be_inverted() -> None:
    with pytest.raises(MachineError, match="positive definite"):
        ease_weights(np.array([[1.0, 5.0], [5.0, 1.0]]), 0.1)


@pytest.mark.parametrize("top_n", [7, 30, 40])
def test_largest_by_magnitude(top_n: int) -> None:
    rng = np.random.default_rng(1)
    weights = np.round(rng.normal(size=(1_500, 30)), 1)  # many equal ones, some 0, two blocks of rows
    rows, cols, values = largest(weights, top_n)
    twin = [
        (i, j, weights[i, j])
        for i in range(len(weights))
        for j in sorted(range(30), key=lambda j: (-abs(weights[i, j]), j))[:top_n]
        if weights[i, j] != 0
    ]
    assert list(zip(rows, cols, values, strict=True)) == twin


def test_catalogues_that_are_too_large() -> None:
    free = 8 * 2**30
    most = max_items(free)
    assert 2 * 8 * most**2 <= free / 2 < 2 * 8 * (most + 1) ** 2
    assert why_not(EaseSettings(max_items=10**6), most, free) is None
    found, expected = why_not(EaseSettings(max_items=10**6), most + 1, free) or ("", "")
    assert found == f"{most + 1:,} items"
    assert f"at most {most:,}" in expected
    assert why_not(EaseSettings(max_items=10**6, float32=True), most + 1, free) is None
    assert "collaborative.ease.max_items" in (why_not(EaseSettings(max_items=100), 101, free) or ("", ""))[1]
    assert why_not(EaseSettings(max_items=100, enabled="on"), 101, free) is None  # asked for: memory alone decides
