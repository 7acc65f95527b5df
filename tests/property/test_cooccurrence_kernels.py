"""The kernels equal the slow twin on random logs, whatever the blocks, and whatever the order of rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.cooccurrence import occurrences as written
from recsys_spark.cooccurrence import rows as rows_module
from recsys_spark.cooccurrence import sorted_products
from recsys_spark.cooccurrence.blocks import deal_anchors, touching
from recsys_spark.cooccurrence.grouping import ANCHOR, Baskets, cut_baskets, group_rows, mix
from recsys_spark.cooccurrence.kernels import best, pair_counts
from recsys_spark.cooccurrence.messages import basket_messages, read_baskets
from recsys_spark.cooccurrence.occurrences import PairCounts, Timing
from recsys_spark.cooccurrence.rows import Rows
from tests.cooccurrence_twin import Row, twin_counts

HALF_LIFE, REFERENCE = 7.0, 50
row_lists = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 9), st.integers(0, 40)), max_size=60)


def group(rows: list[Row], timed: bool, occurrences: bool) -> Baskets:
    keys, items, times = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    return group_rows(Rows(keys, items.astype(np.int32), times if timed else None), occurrences)


def counted(rows: list[Row], num_blocks: int, support: int, timing: Timing | None) -> list[PairCounts]:
    baskets = group(rows, timing is not None and timing.needed, timing is not None and timing.occurrences)
    found = []
    for block in range(num_blocks):
        part = touching(baskets, block, num_blocks)
        found += list(pair_counts([part], 10, block, num_blocks, support, timing))
    return found


def flat(found: list[PairCounts]) -> dict[tuple[int, int], int]:
    entries = [((int(a), int(b)), int(n)) for p in found for a, b, n in zip(p.item_a, p.item_b, p.both, strict=True)]
    assert len(entries) == len(dict(entries)), "a pair was counted in two places"
    return dict(entries)


wide_keys = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))


@given(
    st.lists(st.tuples(wide_keys, st.integers(0, 9), st.integers(0, 40)), min_size=1, max_size=60),
    st.integers(1, 7),
    st.booleans(),
)
def test_rows_sorted_in_buckets_give_the_baskets_of_all_rows(rows: list[Row], bucket_rows: int, occurrences: bool) -> None:
    keys, items, times = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    columns = {"weights": times / 7, "sides": (times % 3 + 1).astype(np.int8), "owners": keys // 2}
    for more in ({}, {"owners": keys // 2}, {"times": times, **columns}):
        given_rows = Rows(keys, items.astype(np.int32), **more)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(rows_module, "BUCKET_ROWS", bucket_rows)
            found = group_rows(given_rows, occurrences)
        expected = group_rows(given_rows, occurrences)
        for name in ("starts", "items", "times", "weights", "sides", "keys", "owners"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


@given(st.lists(st.tuples(wide_keys, st.one_of(st.integers(0, 9), st.just(2**31 - 1))), max_size=60))
def test_one_sort_gives_the_baskets_of_keys_and_items(rows: list[tuple[int, int]]) -> None:
    """With owners, which it does not sort, keys and items take the other way."""
    keys, items = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(2))
    found = group_rows(Rows(keys, items.astype(np.int32)), False)
    expected = group_rows(Rows(keys, items.astype(np.int32), owners=keys), False)
    for name in ("starts", "items", "keys"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        if rows:
            assert getattr(found, name).dtype == getattr(expected, name).dtype


@given(row_lists, st.integers(1, 300), st.booleans())
def test_anchors_dealt_to_blocks_are_all_of_them(rows: list[Row], num_blocks: int, sided: bool) -> None:
    keys, items, times = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    baskets = group_rows(Rows(keys, items.astype(np.int32), sides=(times % 3 + 1).astype(np.int8) if sided else None), False)
    sent = list(basket_messages(0, 0, baskets, num_blocks))
    parts = [read_baskets(message, 0) for message in sent]
    assert len(parts) == (len(rows) > 0)
    for part in parts:
        assert part.dealt is not None
        for block in range(num_blocks):
            numbers, holders = part.dealt.of_block(block)
            anchors = (part.items % num_blocks == block) & (True if part.sides is None else (part.sides & ANCHOR) > 0)
            np.testing.assert_array_equal(numbers * num_blocks + block, part.items[anchors])
            np.testing.assert_array_equal(holders, part.baskets_of(anchors))


@given(row_lists, st.integers(1, 4), st.integers(1, 3))
def test_product_counts_equal_the_twin(rows: list[Row], num_blocks: int, support: int) -> None:
    expected, _, _ = twin_counts(rows)
    wanted = {pair: n for pair, (n, _) in expected.items() if n >= support}
    assert flat(counted(rows, num_blocks, support, None)) == wanted


@given(row_lists, st.integers(1, 4), st.integers(2, 3), st.integers(1, 30), st.sampled_from([5, 6, 32]), st.booleans())
def test_sorted_pairs_are_those_of_the_product(
    rows: list[Row], num_blocks: int, support: int, step: int, key_bits: int, sided: bool
) -> None:
    """Also where a slice has room for two anchors, or for less work than one has, and where entries take one side alone."""
    keys, items, times = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    baskets = group_rows(Rows(keys, items.astype(np.int32), sides=(times % 3 + 1).astype(np.int8) if sided else None), False)
    found = []
    for least in (1, 100):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sorted_products, "LEAST_ITEMS", least)
            patched.setattr(sorted_products, "_STEP", step)
            patched.setattr(sorted_products, "_KEY_BITS", key_bits)
            patched.setattr(sorted_products, "_sorts_in_registers", lambda: True)
            middle = (len(baskets.starts) - 1) // 2
            parts = [baskets.span(0, middle), baskets.span(middle, len(baskets.starts) - 1)]
            parts[1] = replace(parts[1], dealt=deal_anchors(parts[1], num_blocks))
            found.append([list(pair_counts(parts, 10, block, num_blocks, support)) for block in range(num_blocks)])
    sorted_ones, usual = ([pairs for block in blocks for pairs in block] for blocks in found)
    assert flat(sorted_ones) == flat(usual)
    for pairs in sorted_ones:
        assert (np.diff(pairs.item_a) >= 0).all()
        assert [column.dtype for column in (pairs.item_a, pairs.item_b, pairs.both)] == [np.int32, np.int32, np.int64]
    anchors = [set(pairs.item_a.tolist()) for pairs in sorted_ones]
    assert sum(map(len, anchors)) == len(set().union(*anchors)), "all pairs of an item lie in one slice"


@given(row_lists, st.integers(1, 3), st.one_of(st.none(), st.integers(0, 15)), st.booleans())
def test_timed_counts_equal_the_twin(rows: list[Row], num_blocks: int, window: int | None, decay: bool) -> None:
    timing = Timing(window, HALF_LIFE if decay or window is None else None, REFERENCE)
    expected, _, _ = twin_counts(rows, window, timing.half_life, REFERENCE)
    found = counted(rows, num_blocks, 1, timing)
    assert flat(found) == {pair: n for pair, (n, _) in expected.items()}
    if timing.half_life is not None:
        for part in found:
            assert part.decayed is not None
            for a, b, value in zip(part.item_a, part.item_b, part.decayed, strict=True):
                assert value == pytest.approx(expected[int(a), int(b)][1], rel=1e-12)


@given(row_lists, st.integers(1, 30))
def test_small_steps_change_nothing(rows: list[Row], step: int) -> None:
    whole = {w: flat(counted(rows, 2, 1, Timing(window=w))) for w in (None, 6)}
    usual, written.STEP = written.STEP, step
    try:
        assert {w: flat(counted(rows, 2, 1, Timing(window=w))) for w in (None, 6)} == whole
    finally:
        written.STEP = usual


@given(row_lists, st.integers(2, 5), st.booleans(), st.randoms())
def test_cut_does_not_depend_on_the_order_or_company_of_rows(
    rows: list[Row], cap: int, occurrences: bool, random: object
) -> None:
    def cut(some: list[Row]) -> dict[int, set[int]]:
        baskets = group(some, occurrences, occurrences)
        kept, _, _ = cut_baskets(baskets, cap, lambda items: mix(items.astype(np.uint64)))
        starts, keys = kept.starts.tolist(), np.asarray(kept.keys).tolist()
        return {k: set(kept.items[s:e].tolist()) for k, s, e in zip(keys, starts[:-1], starts[1:], strict=True)}

    whole = cut(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert cut(shuffled) == whole
    alone = {key: items for k in {r[0] for r in rows} for key, items in cut([r for r in rows if r[0] == k]).items()}
    assert alone == whole
    sizes = {k: len({r[1] for r in rows if r[0] == k}) for k in whole}
    assert all(len(items) == min(cap, sizes[k]) for k, items in whole.items())


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 5)), max_size=60), st.integers(1, 6))
def test_best_equals_a_plain_sort(entries: list[tuple[int, int, int]], top_n: int) -> None:
    entries = sorted(entries, key=lambda e: e[0])
    groups, scores, hashes = (np.array([e[i] for e in entries]) for i in range(3))
    kept, ranks = best(groups.astype(np.int32), scores.astype(float), hashes.astype(np.uint64).take, top_n)
    expected = []
    for g in sorted({e[0] for e in entries}):
        mine = sorted((i for i, e in enumerate(entries) if e[0] == g), key=lambda i: (-entries[i][1], entries[i][2], i))
        expected += [(i, rank) for rank, i in enumerate(mine[:top_n], 1)]
    assert list(zip(kept.tolist(), ranks.tolist(), strict=True)) == expected
