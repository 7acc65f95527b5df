"""Pair counts of one block of items, in plain NumPy and SciPy, and the cut to the best N of each item.

Items are dealt to blocks by ``item_idx % num_blocks``. A block receives every basket that holds one of its items, so
its counts are complete: scores and cuts need no other block. Legend: P pairs, E entries, B baskets, N items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_spark.cooccurrence.grouping import Baskets, Ints, Items, position_in_group

Floats = NDArray[np.float64]

STEP = 2_000_000  # multiply-adds (or pairs) worked on at once: small enough to stay near the cache


@dataclass(frozen=True)
class PairCounts:
    """Ordered pairs (a, b), a != b, ascending by a; all pairs of an item a lie in one such object."""

    item_a: Items  # [P]
    item_b: Items  # [P]
    both: Ints  # [P], baskets that hold both
    decayed: Floats | None = None  # [P], sum over those baskets of 2^((t_pair - reference) / half_life)

    def take(self, kept: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> PairCounts:
        decayed = None if self.decayed is None else self.decayed[kept]
        return PairCounts(self.item_a[kept], self.item_b[kept], self.both[kept], decayed)


@dataclass(frozen=True)
class Timing:
    """Rules that need times, in microseconds; None switches a rule off.

    ``window``: a pair counts only where an occurrence of a and one of b lie at most this far apart. ``half_life`` and
    ``reference``: a basket adds 2^((t_pair - reference) / half_life), t_pair being the later of the two times, the
    latest such where several occurrences qualify.
    """

    window: int | None = None
    half_life: float | None = None
    reference: int = 0

    @property
    def needed(self) -> bool:
        return self.window is not None or self.half_life is not None


def pair_counts(
    baskets: Baskets, num_items: int, block: int, num_blocks: int, min_support: int = 1, timing: Timing | None = None
) -> Iterator[PairCounts]:
    """Counts of all pairs whose a lies in ``block`` and that at least ``min_support`` baskets hold, in slices of a.

    Args:
        baskets: every basket with two or more items that holds an item of the block (others do no harm).
        num_items: N, above every item of the baskets.
        block, num_blocks: which items are meant: item % num_blocks == block.
        min_support: pairs in fewer baskets are dropped.
        timing: rules that need ``baskets.times``.
    """
    if not len(baskets.items):
        return
    if timing is not None and timing.needed:
        yield from _timed_counts(baskets, block, num_blocks, min_support, timing)
    else:
        yield from _product_counts(baskets, num_items, block, num_blocks, min_support)


def _product_counts(baskets: Baskets, num_items: int, block: int, num_blocks: int, min_support: int) -> Iterator[PairCounts]:
    """Rows of X^T X for the items of the block, X being baskets x items in 0 and 1."""
    inside = baskets.items % num_blocks == block
    shape = (-(-num_items // num_blocks), len(baskets.starts) - 1)
    rows, columns = baskets.items[inside] // num_blocks, baskets.basket_of[inside]
    own = csr_matrix((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=shape)
    ones = np.ones(len(baskets.items), dtype=np.int32)
    every = csr_matrix((ones, baskets.items, baskets.starts), shape=(shape[1], num_items))
    for first, last in slices(own @ baskets.sizes, STEP):
        found = own[first:last] @ every
        item_a = (np.repeat(np.arange(first, last), np.diff(found.indptr)) * num_blocks + block).astype(np.int32)
        kept = (found.data >= min_support) & (found.indices != item_a)
        yield PairCounts(item_a[kept], found.indices[kept].astype(np.int32), found.data[kept].astype(np.int64))


def _timed_counts(baskets: Baskets, block: int, num_blocks: int, min_support: int, timing: Timing) -> Iterator[PairCounts]:
    """The same counts by writing out every pair of entries, which alone sees their times."""
    times = np.asarray(baskets.times)
    lows, highs = _within(baskets, times, timing.window)
    own = np.flatnonzero(baskets.items % num_blocks == block)
    own = own[np.argsort(baskets.items[own], kind="stable")]
    rows = baskets.items[own] // num_blocks
    work = np.bincount(rows, weights=(highs - lows)[own]).astype(np.int64)
    basket_of = baskets.basket_of
    for first, last in slices(work, STEP):
        left = own[np.searchsorted(rows, first) : np.searchsorted(rows, last)]
        lengths = (highs - lows)[left]
        right = np.repeat(lows[left], lengths) + np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        left = np.repeat(left, lengths)
        differ = baskets.items[left] != baskets.items[right]
        left, right = left[differ], right[differ]
        moments = np.maximum(times[left], times[right])
        pairs = _sum_pairs(baskets.items[left], baskets.items[right], basket_of[left], moments, timing)
        yield pairs.take(pairs.both >= min_support)


def _within(baskets: Baskets, times: Ints, window: int | None) -> tuple[Ints, Ints]:
    """First and one past the last entry of the same basket at most ``window`` away from each entry [E]."""
    basket_of = baskets.basket_of
    if window is None:
        return baskets.starts[basket_of], baskets.starts[basket_of + 1]
    moments = np.unique(times)
    width = len(moments) + 1
    keys = basket_of * width + np.searchsorted(moments, times)  # ascending, as entries are sorted by (basket, time)
    lows = basket_of * width + np.searchsorted(moments, times - window, side="left")
    highs = basket_of * width + np.searchsorted(moments, times + window, side="right")
    return np.searchsorted(keys, lows), np.searchsorted(keys, highs)


def _sum_pairs(item_a: Items, item_b: Items, basket: Ints, moments: Ints, timing: Timing) -> PairCounts:
    """One row per (a, b): baskets counted once each, at their latest moment; sums run in order of time, so that their
    last bits do not depend on the order in which baskets arrived."""
    order = np.lexsort((moments, basket, item_b, item_a))
    item_a, item_b, basket, moments = item_a[order], item_b[order], basket[order], moments[order]
    latest = _last_of_runs(item_a, item_b, basket)
    item_a, item_b, moments = item_a[latest], item_b[latest], moments[latest]
    ends = np.flatnonzero(_last_of_runs(item_a, item_b))
    both = np.diff(ends, prepend=-1)
    decayed = None
    if timing.half_life is not None:
        order = np.lexsort((moments, item_b, item_a))
        weights = np.exp2((moments[order] - timing.reference) / timing.half_life)
        decayed = np.add.reduceat(weights, ends - both + 1) if len(ends) else np.zeros(0)
    return PairCounts(item_a[ends], item_b[ends], both.astype(np.int64), decayed)


def _last_of_runs(*columns: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    last = np.ones(len(columns[0]), dtype=bool)
    if len(last):
        last[:-1] = np.logical_or.reduce([c[1:] != c[:-1] for c in columns])
    return last


def slices(work: Ints, step: int) -> Iterator[tuple[int, int]]:
    """Consecutive row ranges [first, last) of about ``step`` work each that cover all rows; none where there is no work."""
    if not len(work) or not work.any():
        return
    part = np.maximum(np.cumsum(work) - 1, 0) // step
    bounds = [0, *(int(row) + 1 for row in np.flatnonzero(np.diff(part))), len(work)]
    yield from pairwise(bounds)


def best(groups: Items, scores: Floats, hashes: NDArray[np.uint64], top_n: int) -> tuple[Ints, Ints]:
    """Rows of the ``top_n`` best scores of each group and their ranks from 1, in order of (group, rank).

    Equal scores are ordered by ``hashes`` (then by row). ``groups`` is ascending; all arrays are [P].
    """
    kept = np.flatnonzero(_not_beaten(groups, scores, top_n))
    order = np.lexsort((hashes[kept], -scores[kept], groups[kept]))
    kept = kept[order]
    ranks = position_in_group(groups[kept]) + 1
    inside = ranks <= top_n
    return kept[inside], ranks[inside]


def _not_beaten(groups: Items, scores: Floats, top_n: int) -> NDArray[np.bool_]:
    """False only where ``top_n`` rows of the same group score higher: a cheap first cut of the long groups."""
    kept = np.ones(len(groups), dtype=bool)
    bounds = np.append(np.flatnonzero(position_in_group(groups) == 0), len(groups))
    for which in np.flatnonzero(np.diff(bounds) > top_n):
        first, last = bounds[which], bounds[which + 1]
        part = scores[first:last]
        place = len(part) - top_n
        kept[first:last] = part >= np.partition(part, place)[place]
    return kept
