"""Grouping, cutting, slicing and ranking, each on cases small enough to see through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_spark.cooccurrence import sorted_products
from recsys_spark.cooccurrence.blocks import touching
from recsys_spark.cooccurrence.grouping import Baskets, Items, cut_baskets, cut_occurrences, from_sizes, group_rows, mix
from recsys_spark.cooccurrence.kernels import best, pair_counts
from recsys_spark.cooccurrence.occurrences import Timing, slices
from recsys_spark.cooccurrence.rows import Rows
from recsys_spark.ranges import position_in_group


def hash_of(items: Items) -> NDArray[np.uint64]:
    return mix(items.astype(np.uint64))


def baskets_of(*contents: list[int]) -> Baskets:
    return from_sizes([len(c) for c in contents], np.array([i for c in contents for i in c], dtype=np.int32))


def lists(baskets: Baskets) -> list[list[int]]:
    return [baskets.items[s:e].tolist() for s, e in zip(baskets.starts[:-1], baskets.starts[1:], strict=True)]


def test_group_merges_repeats_and_keeps_keys() -> None:
    keys = np.array([9, -4, 9, 9, -4], dtype=np.int64)
    items = np.array([3, 1, 2, 3, 1], dtype=np.int32)
    grouped = group_rows(Rows(keys, items), occurrences=False)
    assert np.asarray(grouped.keys).tolist() == [-4, 9]
    assert lists(grouped) == [[1], [2, 3]]


def test_group_with_times_keeps_the_latest_time_of_an_item() -> None:
    keys = np.zeros(4, dtype=np.int64)
    grouped = group_rows(Rows(keys, np.array([5, 6, 5, 5], np.int32), np.array([10, 20, 30, 5])), occurrences=False)
    assert grouped.items.tolist() == [6, 5]
    assert grouped.times is not None
    assert grouped.times.tolist() == [20, 30]


def test_group_keeps_occurrences_when_asked() -> None:
    keys = np.zeros(5, dtype=np.int64)
    items, times = np.array([5, 6, 5, 5, 5], np.int32), np.array([10, 20, 30, 5, 10])
    grouped = group_rows(Rows(keys, items, times), occurrences=True)
    assert grouped.times is not None
    assert list(zip(grouped.items.tolist(), grouped.times.tolist(), strict=True)) == [(5, 5), (5, 10), (6, 20), (5, 30)]


def test_group_of_nothing() -> None:
    grouped = group_rows(Rows(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64)), occurrences=True)
    assert len(np.asarray(grouped.keys)) == 0
    assert lists(grouped) == []


def test_cut_keeps_the_smallest_hashes_and_counts_what_went() -> None:
    baskets = baskets_of(list(range(10)), [1, 2, 3], list(range(20, 26)))
    keys = np.array([11, 12, 13], dtype=np.int64)
    kept, was_cut, gone = cut_baskets(replace(baskets, keys=keys), 4, hash_of)
    assert was_cut.tolist() == [True, False, True]
    assert gone == 6 + 2
    assert [len(c) for c in lists(kept)] == [4, 3, 4]
    draws = {i: int(mix(np.uint64([11]) ^ mix(mix(np.uint64([i]))))[0]) for i in range(10)}
    assert set(lists(kept)[0]) == set(sorted(draws, key=draws.__getitem__)[:4])


def test_cut_counts_items_not_occurrences() -> None:
    baskets = from_sizes([6], np.array([1, 2, 1, 2, 1, 2], np.int32), np.arange(6), keys=np.array([1]))
    kept, was_cut, gone = cut_baskets(baskets, 2, hash_of)
    assert (was_cut.tolist(), gone) == ([False], 0)
    assert len(kept.items) == 6
    kept, was_cut, gone = cut_baskets(baskets, 1, hash_of)
    assert (was_cut.tolist(), gone, len(set(kept.items.tolist())), len(kept.items)) == ([True], 1, 1, 3)


def test_cut_keeps_the_latest_occurrences_of_each_item() -> None:
    baskets = from_sizes(
        [5, 2], np.array([1, 2, 1, 1, 2, 1, 1], np.int32), np.array([0, 1, 2, 3, 4, 0, 9]), keys=np.array([1, 2])
    )
    kept, gone = cut_occurrences(baskets, 2)
    assert gone == 1
    assert lists(kept) == [[2, 1, 1, 2], [1, 1]]
    assert np.asarray(kept.times).tolist() == [1, 2, 3, 4, 0, 9]
    assert cut_occurrences(baskets, 3)[1] == 0


def test_touching_sends_whole_baskets_of_two_or_more() -> None:
    baskets = baskets_of([0, 1], [2], [1, 3], [0, 2, 4])
    assert lists(touching(baskets, 0, 2)) == [[0, 1], [0, 2, 4]]
    assert lists(touching(baskets, 1, 2)) == [[0, 1], [1, 3]]


def test_join_of_nothing_counts_nothing() -> None:
    assert list(pair_counts([], 5, 0, 2)) == []


def test_slices_cover_all_rows_once() -> None:
    work = np.array([0, 5, 0, 100, 1, 1, 0, 30, 30, 0])
    found = list(slices(work, 10))
    assert [row for first, last in found for row in range(first, last)] == list(range(10))
    assert all(work[first:last].sum() <= 10 or (work[first:last] > 10).any() for first, last in found)
    assert list(slices(np.zeros(4, np.int64), 10)) == []


def test_window_counts_a_pair_once_at_its_latest_moment() -> None:
    # item 0 at 0 and 100, item 1 at 3 and 104: within 5 of each other twice, one basket, latest moment 104
    baskets = from_sizes([4], np.array([0, 1, 0, 1], np.int32), np.array([0, 3, 100, 104]))
    timing = Timing(window=5, half_life=10.0, reference=114)
    (pairs,) = pair_counts([baskets], 2, 0, 1, 1, timing)
    assert pairs.item_a.tolist() == [0, 1]
    assert pairs.item_b.tolist() == [1, 0]
    assert pairs.both.tolist() == [1, 1]
    assert pairs.decayed is not None
    assert pairs.decayed.tolist() == [0.5, 0.5]


def test_window_ends_are_inside() -> None:
    baskets = from_sizes([2, 2], np.array([0, 1, 0, 1], np.int32), np.array([0, 5, 0, 6]))
    (pairs,) = pair_counts([baskets], 2, 0, 1, 1, Timing(window=5))
    assert pairs.both.tolist() == [1, 1]
    assert pairs.decayed is None


def test_best_breaks_ties_by_hash_and_ranks_from_one() -> None:
    groups = np.array([1, 1, 1, 1, 2, 2], dtype=np.int32)
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.1, 0.2])
    hashes = np.array([30, 1, 10, 20, 5, 6], dtype=np.uint64)
    kept, ranks = best(groups, scores, hashes.take, 3)
    assert kept.tolist() == [1, 2, 3, 5, 4]
    assert ranks.tolist() == [1, 2, 3, 1, 2]


def test_position_in_group() -> None:
    assert position_in_group(np.array([4, 4, 7, 7, 7, 1])).tolist() == [0, 1, 0, 1, 2, 0]
    assert position_in_group(np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("num_items", [1 << 18, (1 << 18) + 1, 1_000_000])
def test_sorted_pairs_of_anchors_far_apart(num_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of 32 bits holds a target of a large catalogue and few anchors: more of them are in another slice."""
    monkeypatch.setattr(sorted_products, "_sorts_in_registers", lambda: True)
    rng = np.random.default_rng(0)
    items = np.unique(np.concatenate([rng.integers(0, num_items, 300), [0, num_items - 1]])).astype(np.int32)
    keys = np.repeat(np.arange(400), 12)
    baskets = group_rows(Rows(keys, rng.choice(items, len(keys))), False)
    found = list(pair_counts([baskets], num_items, 0, 1, 2))
    assert len(found) > 10
    monkeypatch.setattr(sorted_products, "LEAST_ITEMS", num_items + 1)
    usual = list(pair_counts([baskets], num_items, 0, 1, 2))
    pairs = [{(a, b): n for p in way for a, b, n in zip(p.item_a, p.item_b, p.both, strict=True)} for way in (found, usual)]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) > 1_000
