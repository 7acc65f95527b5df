"""The tiled exact search against a plain stable argsort, however the items are split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.errors import InputError
from recsys_spark.search.exact import nearest
from recsys_spark.search.lists import Lists, recall


def drawn(seed: int, rows: int, dim: int, coarse: bool) -> np.ndarray:
    """Random vectors; ``coarse`` ones are small integers, so that many scores are equal."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, (rows, dim)) if coarse else rng.normal(size=(rows, dim))
    return values.astype(np.float32)


def plain(queries: np.ndarray, items: np.ndarray, k: int) -> Lists:
    """Slow twin: all scores in float64, one stable sort."""
    scores = np.round((queries[:, None, :].astype(float) * items[None, :, :]).sum(axis=2), 9)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Lists(order, np.take_along_axis(scores, order, axis=1))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_items=st.sampled_from([1, 2, 9, 300, 1_500]),
    num_queries=st.sampled_from([1, 3, 20]),
    dim=st.sampled_from([1, 3, 16]),
    k=st.sampled_from([1, 5, 40, 2_000]),
    tile=st.sampled_from([1, 7, 128, 4_096]),
    block=st.sampled_from([1, 8, 512]),
    pieces=st.sampled_from([1, 3]),
    coarse=st.booleans(),
)
def test_equals_the_plain_sort(
    seed: int, num_items: int, num_queries: int, dim: int, k: int, tile: int, block: int, pieces: int, coarse: bool
) -> None:
    items, queries = drawn(seed, num_items, dim, coarse), drawn(seed + 1, num_queries, dim, coarse)
    tile = max(tile, 64 if num_items > 100 else 1)
    found = nearest(queries, np.array_split(items, pieces), k, block, tile)
    wanted = plain(queries, items, k)
    assert found.positions.tolist() == wanted.positions.tolist()
    assert found.positions.shape == (num_queries, min(k, num_items))
    np.testing.assert_array_equal(found.scores, wanted.scores)


def test_equal_items_come_in_the_order_of_their_positions() -> None:
    items = np.repeat(drawn(3, 40, 8, False), 200, axis=0)  # each vector 200 times: far more ties than a list is long
    queries = np.concatenate([drawn(4, 3, 8, False), np.zeros((1, 8), np.float32)])
    found = nearest(queries, items, 30, tile=256)
    assert found.positions.tolist() == plain(queries, items, 30).positions.tolist()
    assert found.positions[3].tolist() == list(range(30))  # nothing tells the items apart


def test_scores_that_differ_in_the_eighth_digit_are_told_apart() -> None:
    """Closer than float32 products can tell: only the exact scores order them."""
    base = np.ones((600, 64), np.float32)
    base[:, 0] += np.random.default_rng(1).permutation(600).astype(np.float32) * np.float32(2.0**-23)
    found = nearest(np.ones((1, 64), np.float32), base, 10, tile=128)
    assert found.positions[0].tolist() == np.argsort(-base[:, 0], kind="stable")[:10].tolist()


def test_one_query_with_very_many_equal_items_among_others() -> None:
    """Its items outnumber the cells that are laid out in rows at once."""
    items = np.concatenate([drawn(5, 3_000, 2, False) * np.float32(0.1), np.tile(np.float32([1, 0]), (20_000, 1))])
    queries = np.concatenate([np.float32([[1, 0]]), np.tile(np.float32([0, 1]), (511, 1))])
    found = nearest(queries, items, 20, tile=4_096)
    wanted = plain(queries[:2], items, 20)
    assert found.positions[0].tolist() == wanted.positions[0].tolist() == list(range(3_000, 3_020))
    assert found.positions[1:].tolist() == [wanted.positions[1].tolist()] * 511


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    good, items = drawn(1, 4, 3, False), drawn(2, 9, 3, False)
    items[7, 1] = bad
    with pytest.raises(InputError, match="item vectors: a value that is not finite in row 7"):
        nearest(good, items, 2)
    with pytest.raises(InputError, match="query vectors"):
        nearest(items, good, 2)


def test_other_types_and_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="4 dimensions; expected 3"):
        nearest(drawn(1, 2, 4, False), drawn(1, 5, 3, False), 2)
    with pytest.raises(InputError, match="float64 of shape"):
        nearest(np.zeros((2, 3)), drawn(1, 5, 3, False), 2)


def test_recall_counts_ties_with_the_last_item_as_found() -> None:
    exact = Lists(np.array([[0, 1], [4, 5]]), np.array([[0.9, 0.5], [0.8, 0.7]]))
    found = Lists(np.array([[0, 7], [4, 6]]), np.array([[0.9, 0.5], [0.8, 0.6]]))  # 7 ties with 1; 6 is below 5
    assert recall(found, exact) == 0.75
