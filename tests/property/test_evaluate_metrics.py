"""The vectorised metrics equal their plain twins, written as the textbooks say them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.evaluate import metrics


def plain(name: str, hits: list[bool], relevant: int, k: int) -> float:
    top = hits[:k]
    found = sum(top)
    if name == "recall":
        return found / relevant
    if name == "precision":
        return found / k
    if name == "f1":
        p, r = found / k, found / relevant
        return 2 * p * r / (p + r) if p + r else 0.0
    if name == "hit_rate":
        return float(found > 0)
    if name == "ndcg":
        gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(top, 1) if hit)
        return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, relevant) + 1))
    if name == "map":
        return sum(sum(top[:rank]) / rank for rank, hit in enumerate(top, 1) if hit) / relevant
    return next((1 / rank for rank, hit in enumerate(top, 1) if hit), 0.0)


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[list[bool]], list[int], int]:
    length = draw(st.integers(1, 12))
    hits = draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=6))
    extra = draw(st.lists(st.integers(0, 5), min_size=len(hits), max_size=len(hits)))
    return hits, [max(1, sum(row) + more) for row, more in zip(hits, extra, strict=True)], draw(st.integers(1, 15))


@settings(max_examples=150, deadline=None)
@given(lists())
def test_ranking_metrics_equal_plain_twins(case: tuple[list[list[bool]], list[int], int]) -> None:
    hits, relevant, k = case
    for name, metric in metrics.RANKING.items():
        expected = [plain(name, row, count, k) for row, count in zip(hits, relevant, strict=True)]
        found = metric(np.array(hits), np.array(relevant), k)
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=name)
        assert ((found >= 0) & (found <= 1 + 1e-12)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.sets(st.integers(1, 12), min_size=1, max_size=6)), min_size=1, max_size=5))
def test_auc_counts_pairs(cases: list[tuple[int, set[int]]]) -> None:
    user, rank, sizes, expected = [], [], [], []
    for row, (extra, targets) in enumerate(cases):
        size = max(targets) + extra
        others = [r for r in range(1, size + 1) if r not in targets]
        wins = sum(t < o for t in targets for o in others)
        expected.append(wins / (len(targets) * len(others)))
        user += [row] * len(targets)
        rank += sorted(targets)
        sizes.append(size)
    np.testing.assert_allclose(metrics.auc(np.array(user), np.array(rank), np.array(sizes)), expected, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_gini_is_the_mean_difference(counts: list[int]) -> None:
    if sum(counts) == 0:
        return
    expected = sum(abs(a - b) for a in counts for b in counts) / (2 * len(counts) * sum(counts))
    assert math.isclose(metrics.gini(np.array(counts)), expected, abs_tol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6))
def test_diversity_equals_all_pairs(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(10, 3))
    items = np.stack([rng.choice(10, size=length, replace=False) for _ in range(4)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [(a, b) for a in range(length) for b in range(a + 1, length)]
    expected = [1 - np.mean([unit[row[a]] @ unit[row[b]] for a, b in pairs]) for row in items]
    np.testing.assert_allclose(metrics.intra_list_diversity(items, vectors, block=3), expected, atol=1e-9)
