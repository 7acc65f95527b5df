"""Hand-worked values of every metric, perfect rankings, and agreement with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from recsys_spark.errors import InputError
from recsys_spark.evaluate import metrics

HITS = np.array([[True, False, True, False], [False, False, False, True], [False, False, False, False]])
RELEVANT = np.array([2, 1, 3])
LOG3, LOG4, LOG5 = np.log2(3), 2.0, np.log2(5)


@pytest.mark.parametrize(
    ("name", "k", "expected"),
    [
        ("recall", 3, [1.0, 0.0, 0.0]),
        ("recall", 1, [0.5, 0.0, 0.0]),
        ("precision", 4, [0.5, 0.25, 0.0]),
        ("precision", 3, [2 / 3, 0.0, 0.0]),
        ("f1", 4, [2 * 0.5 / 1.5, 2 * 0.25 / 1.25, 0.0]),
        ("hit_rate", 3, [1.0, 0.0, 0.0]),
        ("ndcg", 4, [(1 + 1 / LOG4) / (1 + 1 / LOG3), 1 / LOG5, 0.0]),
        ("ndcg", 1, [1.0, 0.0, 0.0]),
        ("map", 4, [(1 + 2 / 3) / 2, 1 / 4, 0.0]),
        ("map", 1, [0.5, 0.0, 0.0]),
        ("mrr", 4, [1.0, 0.25, 0.0]),
        ("mrr", 3, [1.0, 0.0, 0.0]),
    ],
)
def test_hand_worked(name: str, k: int, expected: list[float]) -> None:
    np.testing.assert_allclose(metrics.RANKING[name](HITS, RELEVANT, k), expected, atol=1e-15)


def test_precision_of_a_list_shorter_than_k_is_not_excused() -> None:
    np.testing.assert_allclose(metrics.precision(np.array([[True, True]]), np.array([2]), 10), [0.2])


def test_average_precision_truncated_divides_by_k() -> None:
    hits, relevant = np.ones((1, 2), dtype=bool), np.array([5])
    assert metrics.average_precision(hits, relevant, 2)[0] == pytest.approx(2 / 5)
    assert metrics.average_precision(hits, relevant, 2, truncate=True)[0] == 1.0


@pytest.mark.parametrize("name", ["recall", "f1", "hit_rate", "ndcg", "map", "mrr", "precision"])
def test_perfect_ranking_is_one(name: str) -> None:
    assert metrics.RANKING[name](np.ones((3, 5), dtype=bool), np.array([5, 5, 5]), 5).tolist() == [1, 1, 1]


def test_ndcg_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        hits = rng.random((1, 12)) < 0.4
        if not hits.any():
            continue
        relevant = np.array([hits.sum()])
        expected = ndcg_score(hits.astype(float), np.arange(12, 0, -1)[None, :], k=5)
        assert metrics.ndcg(hits, relevant, 5)[0] == pytest.approx(expected, abs=1e-12)


def test_auc_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    users, ranks, sizes, expected = [], [], [], []
    for user in range(15):
        size = int(rng.integers(5, 40))
        target_ranks = rng.choice(np.arange(1, size + 1), size=int(rng.integers(1, 5)), replace=False)
        users += [user] * len(target_ranks)
        ranks += target_ranks.tolist()
        sizes.append(size)
        labels = np.isin(np.arange(1, size + 1), target_ranks)
        expected.append(roc_auc_score(labels, -np.arange(size)))
    found = metrics.auc(np.array(users), np.array(ranks), np.array(sizes))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_auc_counts_a_target_that_is_no_candidate_as_below_all() -> None:
    found = metrics.auc(np.array([0, 0, 1]), np.array([1, 0, 0]), np.array([11, 0, 5]))
    assert found[0] == pytest.approx(0.5)  # 10 of 20 (target, irrelevant) pairs
    assert found[1] == 0.0
    assert np.isnan(found[2])  # no target


def test_gini_coverage_novelty() -> None:
    assert metrics.gini(np.array([5, 5, 5, 5])) == pytest.approx(0)
    assert metrics.gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert metrics.gini(np.array([1, 3])) == pytest.approx(0.25)
    assert np.isnan(metrics.gini(np.zeros(3, dtype=int)))
    assert metrics.coverage(np.array([0, 2, 0, 1])) == 0.5
    assert metrics.novelty(np.array([3, 1, 0]), np.array([0.5, 0.25, 0.25])) == pytest.approx((3 * 1 + 1 * 2) / 4)
    np.testing.assert_allclose(metrics.smoothed_shares(np.array([3, 0])), [4 / 5, 1 / 5])


def test_intra_list_diversity_by_vectors_and_category_sets() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    lists = np.array([[0, 1, -1], [0, 0, -1], [0, -1, -1], [0, 1, 2]])
    found = metrics.intra_list_diversity(lists, vectors, block=2)
    assert found[0] == pytest.approx(1.0)
    assert found[1] == pytest.approx(0.0)
    assert np.isnan(found[2])
    assert found[3] == pytest.approx(1 - (0 + 2 / np.sqrt(2)) / 3)
    sets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert metrics.intra_list_diversity(np.array([[0, 1]]), sets)[0] == pytest.approx(1 - 1 / np.sqrt(2))
    assert metrics.intra_list_diversity(np.array([[0, 2]]), sets)[0] == 1.0  # an item without a category is like nothing


@pytest.mark.parametrize(
    ("hits", "relevant", "k", "found"),
    [
        (HITS, np.array([2, 1]), 3, "hits"),
        (HITS, RELEVANT, 0, "k = 0"),
        (HITS, np.array([2, 1, 0]), 3, "without a relevant item"),
        (HITS, np.array([1, 1, 1]), 3, "more hits than relevant"),
    ],
)
def test_impossible_input_is_named(hits: np.ndarray, relevant: np.ndarray, k: int, found: str) -> None:
    with pytest.raises(InputError, match=found):
        metrics.recall(hits, relevant, k)
