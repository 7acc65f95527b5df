"""Inverted files, the effort that a recall costs, and vectors on short codes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speed.approximate import clustered
from recsys_spark.config.base import validate
from recsys_spark.config.search import SearchSettings
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.search.approximate import Index, plan
from recsys_spark.search.exact import nearest
from recsys_spark.search.lists import Lists, recall
from recsys_spark.search.quantised import BinaryCodes, Int8Codes, report, search
from recsys_spark.search.tuning import efforts, tune
from recsys_spark.search.vectors import Pieces

ITEMS = clustered(6_000, 24, 40, 0.8, 5, 0)
QUERIES = clustered(200, 24, 40, 0.8, 5, 1)
K = 20


@pytest.fixture(scope="module")
def index() -> Index:
    return Index.of(ITEMS, seed=3)


@pytest.fixture(scope="module")
def exact() -> Lists:
    return nearest(QUERIES, ITEMS, K)


@pytest.mark.parametrize(
    ("num_items", "dim", "lists", "rows"),
    [(1_000_000, 64, 4_000, 256_000), (10_000, 64, 256, 10_000), (10, 64, 1, 10), (4_000_000, 2_048, 8_000, 131_072)],
)
def test_the_size_of_an_index_follows_from_the_catalogue(num_items: int, dim: int, lists: int, rows: int) -> None:
    found = plan(num_items, dim)
    assert (found.lists, found.training_rows) == (lists, rows)


def test_recall_of_clustered_vectors_reaches_the_target(index: Index, exact: Lists) -> None:
    tuned = tune(lambda some, effort: index.search(QUERIES[some], K, effort), exact, 0.98, index.max_effort)
    assert tuned.effort < index.max_effort / 2  # it reads far less than everything
    assert recall(index.search(QUERIES, K, tuned.effort), exact) > 0.97
    assert tuned.recall > 0.95
    assert recall(index.search(QUERIES, K, 1), exact) < tuned.recall  # effort matters


def test_at_full_effort_lists_are_the_exact_ones(index: Index, exact: Lists) -> None:
    found = index.search(QUERIES, K, index.max_effort, block=64)
    np.testing.assert_array_equal(found.positions, exact.positions)
    np.testing.assert_array_equal(found.scores, exact.scores)


def test_pieces_give_the_lists_of_the_whole() -> None:
    whole, parts = Index.of(ITEMS, seed=3), Index.of(Pieces.of(np.array_split(ITEMS, 3)), seed=3)
    np.testing.assert_array_equal(whole.centroids, parts.centroids)
    for effort in (1, 5):
        np.testing.assert_array_equal(whole.search(QUERIES, K, effort).positions, parts.search(QUERIES, K, effort).positions)


def test_lists_that_hold_too_few_items_are_completed_exactly(index: Index) -> None:
    found = index.search(QUERIES[:5], 4_000, effort=1)
    np.testing.assert_array_equal(found.positions, nearest(QUERIES[:5], ITEMS, 4_000).positions)
    assert index.search(QUERIES[:2], 9_999, effort=1).positions.shape == (2, 6_000)


def test_one_vector_is_an_index_too() -> None:
    found = Index.of(ITEMS[:1], seed=1).search(QUERIES[:3], 5, 1)
    assert found.positions.tolist() == [[0], [0], [0]]


def test_items_that_are_not_finite_are_refused() -> None:
    bad = ITEMS[:50].copy()
    bad[3, 3] = np.nan
    with pytest.raises(InputError, match="row 3"):
        Index.of(bad, seed=1)
    with pytest.raises(InputError, match="row 3"):
        Int8Codes.of(bad)


def test_efforts_rise_to_the_most() -> None:
    assert list(efforts(30)) == [4, 6, 8, 12, 16, 24, 30]
    assert list(efforts(2)) == [2]


def test_tuning_stops_at_the_first_effort_that_is_enough() -> None:
    """Effort e finds the first e of 16 items on even queries; on odd ones, which are only reported, half of that."""
    exact = Lists(np.tile(np.arange(16), (4, 1)), np.ones((4, 16)))

    def found(queries: np.ndarray, effort: int) -> Lists:
        hits = np.where(queries % 2 == 0, effort, effort // 2)
        return Lists(exact.positions[queries], (np.arange(16) < hits[:, None]).astype(float))

    tuned = tune(found, exact, target=0.7, most=16)
    assert (tuned.effort, tuned.recall) == (12, 6 / 16)
    assert tune(found, exact, target=1.0, most=5).effort == 5


def test_int8_lists_have_exact_scores_and_nearly_all_items(exact: Lists) -> None:
    codes = Int8Codes.of(ITEMS)
    assert np.abs(codes.codes * codes.scale - ITEMS).max() <= codes.scale.max() / 2 * 1.001
    found = search(codes, QUERIES, ITEMS, K, multiple=4, block=64)
    scores = (QUERIES[:, None, :].astype(float) * ITEMS[found.positions]).sum(axis=2)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-9)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert recall(found, exact) > 0.999
    assert report(codes, QUERIES, ITEMS, K, 4).bytes_per_vector == 24


def test_bits_save_more_and_cost_recall_that_a_longer_list_wins_back() -> None:
    codes = BinaryCodes.of(ITEMS)
    short, long = (report(codes, QUERIES, ITEMS, K, multiple) for multiple in (1, 20))
    assert (short.bytes_per_vector, short.bytes_exact, short.multiple) == (3, 96, 1)
    assert short.recall < long.recall - 0.1
    assert long.recall > 0.6
    everything = search(codes, QUERIES, ITEMS, K, multiple=300)
    np.testing.assert_array_equal(everything.positions, nearest(QUERIES, ITEMS, K).positions)


def test_bits_pad_dimensions_that_fill_no_byte() -> None:
    codes = BinaryCodes.of(np.array([[1, -1, 1], [0, 0, -2]], np.float32))
    assert codes.codes.tolist() == [[0b10100000], [0]]


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="recall_floor must be at most recall_target"):
        validate(SearchSettings, {"recall_target": 0.9, "recall_floor": 0.95}, "conf [search]")
    with pytest.raises(ConfigError, match="did you mean 'recall_floor'"):
        validate(SearchSettings, {"recal_floor": 0.9}, "conf [search]")
