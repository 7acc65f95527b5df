"""The blockwise nearest neighbours equal a plain loop, ties included, for dense and for sparse vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys_spark.pairs.positives.nearest import nearest_of_block

Pair = tuple[int, int, float]


def plain(vectors: np.ndarray, top_n: int, min_similarity: float) -> list[Pair]:
    """Slow twin: every pair, sorted in Python."""
    found = []
    for row in range(len(vectors)):
        scores = [
            (round(min(float(vectors[row] @ vectors[other]), 1.0), 6), other) for other in range(len(vectors)) if other != row
        ]
        kept = sorted((-score, other) for score, other in scores if score > 0 and score >= min_similarity)
        found += [(row, other, -score) for score, other in kept[:top_n]]
    return found


def blockwise(vectors: object, rows: int, block_rows: int, top_n: int, min_similarity: float) -> list[Pair]:
    found: list[Pair] = []
    for start in range(0, rows, block_rows):
        block = nearest_of_block(vectors, start, block_rows, top_n, min_similarity)
        found += list(zip(*[array.tolist() for array in block], strict=True))
    return found


AXES = [tuple(sign * float(axis == n) for n in range(4)) for axis in range(4) for sign in (1, -1)]
DIAGONALS = [(a, b, c, 0.5) for a in (0.5, -0.5) for b in (0.5, -0.5) for c in (0.5, -0.5)]
EXACT = [(0.0, 0.0, 0.0, 0.0), *AXES, *DIAGONALS]  # cosines are multiples of 1/4, free of rounding: ties are many


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(EXACT), min_size=2, max_size=25),
    st.integers(1, 12),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_equals_the_plain_loop(rows: list[tuple[float, ...]], block_rows: int, top_n: int, min_similarity: float) -> None:
    vectors = np.array(rows, dtype=np.float32)
    expected = plain(vectors, top_n, min_similarity)
    assert blockwise(vectors, len(rows), block_rows, top_n, min_similarity) == expected
    assert blockwise(sparse.csr_matrix(vectors), len(rows), block_rows, top_n, min_similarity) == expected


def test_equals_the_plain_loop_on_random_vectors() -> None:
    vectors = np.random.default_rng(3).normal(size=(90, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = plain(vectors, 5, 0.1)
    for form in (vectors, sparse.csr_matrix(vectors)):
        found = blockwise(form, 90, 32, 5, 0.1)
        assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
        assert [pair[2] for pair in found] == pytest.approx([pair[2] for pair in expected], abs=2e-6)


def test_many_items_of_many_tiles_with_many_equal_ones() -> None:
    rng = np.random.default_rng(5)
    kinds = rng.normal(size=(700, 6)).astype(np.float32)
    vectors = np.concatenate([kinds, np.zeros((40, 6), np.float32), rng.normal(size=(3_000, 6)).astype(np.float32)])
    vectors = vectors[rng.integers(0, len(vectors), 9_000)]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    start, block_rows, top_n = 4_500, 64, 7
    scores = np.minimum((vectors[start : start + block_rows].astype(np.float64) @ vectors.T.astype(np.float64)).round(6), 1.0)
    scores[np.arange(block_rows), start + np.arange(block_rows)] = -1
    expected = [
        (start + row, int(column), float(np.float32(scores[row, column])))
        for row in range(block_rows)
        for column in np.argsort(-scores[row], kind="stable")[:top_n]
        if scores[row, column] > 0
    ]
    found = nearest_of_block(vectors, start, block_rows, top_n, 0.0)
    assert list(zip(*[array.tolist() for array in found], strict=True)) == expected
    assert len(expected) < block_rows * top_n  # items of zeros were asked for too
