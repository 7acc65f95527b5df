"""Pair counts by writing out every pair of entries, which alone sees their times, their order and their users.

Legend: P pairs, E entries, B baskets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.cooccurrence.grouping import ANCHOR, TARGET, Baskets, Bools, Floats, Ints, Items
from recsys_spark.ranges import ranges, sums_of_runs

STEP = 2_000_000  # multiply-adds (or pairs) worked on at once: small enough to stay near the cache


@dataclass(frozen=True)
class PairCounts:
    """Ordered pairs (a, b), a != b, ascending by a; all pairs of an item a lie in one such object."""

    item_a: Items  # [P]
    item_b: Items  # [P]
    both: Ints  # [P], baskets that hold both; net of those taken back, where baskets carry signs
    decayed: Floats | None = None  # [P], sum over those baskets of 2^((t_pair - reference) / half_life)

    def take(self, kept: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> PairCounts:
        decayed = None if self.decayed is None else self.decayed[kept]
        return PairCounts(self.item_a[kept], self.item_b[kept], self.both[kept], decayed)


@dataclass(frozen=True)
class Timing:
    """Rules that need times (microseconds) or the order that they give; None switches a rule off.

    ``window``: a pair counts only where an occurrence of a and one of b lie at most this far apart. ``steps``: the same
    in places of the basket's order (1: neighbours). ``directed``: only where that of a is earlier; equal times are no
    order. A basket adds to the decayed count 2^((t_pair - reference) / half_life) x step_decay^(places apart - 1), t_pair
    being the later of the two times, for the pair of occurrences that makes this largest.
    """

    window: int | None = None
    half_life: float | None = None
    reference: int = 0
    steps: int | None = None
    step_decay: float = 1.0
    directed: bool = False

    @property
    def needed(self) -> bool:
        return self.occurrences or self.half_life is not None

    @property
    def occurrences(self) -> bool:
        """Whether every occurrence of an item matters, not just its latest."""
        return self.window is not None or self.steps is not None or self.directed or self.step_decay < 1.0

    @property
    def decays(self) -> bool:
        return self.half_life is not None or self.step_decay < 1.0


def written_out(
    baskets: Baskets, block: int, num_blocks: int, min_support: int, timing: Timing, min_users: int
) -> Iterator[PairCounts]:
    """As ``kernels.pair_counts``."""
    lows, highs = _within(baskets, timing)
    own = baskets.items % num_blocks == block
    if baskets.sides is not None:
        own &= (baskets.sides & ANCHOR) > 0
    left_of_all = np.flatnonzero(own)
    left_of_all = left_of_all[np.argsort(baskets.items[left_of_all], kind="stable")]
    rows = baskets.items[left_of_all] // num_blocks
    work = np.bincount(rows, weights=(highs - lows)[left_of_all]).astype(np.int64)
    basket_of = baskets.basket_of
    for first, last in slices(work):
        left = left_of_all[np.searchsorted(rows, first) : np.searchsorted(rows, last)]
        left, right = _pairs_of_entries(left, lows, highs)
        allowed = _allowed(baskets, left, right, timing)
        left, right = left[allowed], right[allowed]
        pairs, users = _sum_pairs(baskets, basket_of[left], left, right, timing, min_users > 1)
        yield pairs.take(worth_keeping(pairs, baskets, min_support) & (users >= min_users))


def worth_keeping(pairs: PairCounts, baskets: Baskets, min_support: int) -> Bools:
    """Pairs with enough baskets; of baskets with signs, every pair about which they change anything."""
    if baskets.signs is None:
        return pairs.both >= min_support
    changed = pairs.both != 0
    if pairs.decayed is not None:
        changed |= pairs.decayed != 0
    return np.asarray(changed)


def _pairs_of_entries(left: Ints, lows: Ints, highs: Ints) -> tuple[Ints, Ints]:
    """Every (entry, entry in its reach), including itself."""
    lengths = (highs - lows)[left]
    return np.repeat(left, lengths), ranges(lows[left], lengths)


def _allowed(baskets: Baskets, left: Ints, right: Ints, timing: Timing) -> Bools:
    allowed: Bools = baskets.items[left] != baskets.items[right]
    if baskets.sides is not None:
        allowed &= (baskets.sides[right] & TARGET) > 0
    if timing.directed:
        times = np.asarray(baskets.times)
        allowed &= times[left] < times[right]
    return allowed


def _within(baskets: Baskets, timing: Timing) -> tuple[Ints, Ints]:
    """First and one past the last entry of the same basket in reach of each entry [E]."""
    basket_of = baskets.basket_of
    lows, highs = baskets.starts[basket_of], baskets.starts[basket_of + 1]
    if timing.window is not None:
        times = np.asarray(baskets.times)
        moments = np.unique(times)
        width = len(moments) + 1
        keys = basket_of * width + np.searchsorted(moments, times)  # ascending, as entries are sorted by (basket, time)
        first = basket_of * width + np.searchsorted(moments, times - timing.window, side="left")
        last = basket_of * width + np.searchsorted(moments, times + timing.window, side="right")
        lows, highs = np.searchsorted(keys, first), np.searchsorted(keys, last)
    if timing.steps is not None:  # entries of a basket stand in its order
        places = np.arange(len(basket_of))
        lows, highs = np.maximum(lows, places - timing.steps), np.minimum(highs, places + timing.steps + 1)
    return lows, highs


def _sum_pairs(
    baskets: Baskets, basket: Ints, left: Ints, right: Ints, timing: Timing, users: bool
) -> tuple[PairCounts, Ints | float]:
    """One row per (a, b): baskets counted once each, at their largest share, and distinct users (else infinity); sums run in
    order of size, so that their last bits do not depend on the order in which baskets arrived."""
    item_a, item_b = baskets.items[left], baskets.items[right]
    shares = _shares(baskets, left, right, timing)
    order = np.lexsort((shares, basket, item_b, item_a))
    item_a, item_b, basket, shares = item_a[order], item_b[order], basket[order], shares[order]
    largest = _last_of_runs(item_a, item_b, basket)
    item_a, item_b, basket, shares = item_a[largest], item_b[largest], basket[largest], shares[largest]
    ends = np.flatnonzero(_last_of_runs(item_a, item_b))
    starts = np.append(-1, ends)[:-1] + 1
    both = np.diff(ends, prepend=-1)
    if baskets.signs is not None:
        signs = baskets.signs[basket].astype(np.int64)
        both, shares = sums_of_runs(signs, starts), shares * signs
    decayed = None
    if timing.decays:
        decayed = sums_of_runs(shares[np.lexsort((shares, item_b, item_a))], starts)
    found = PairCounts(item_a[ends], item_b[ends], both.astype(np.int64), decayed)
    return found, _distinct_owners(np.asarray(baskets.owners)[basket], item_a, item_b, ends) if users else np.inf


def _shares(baskets: Baskets, left: Ints, right: Ints, timing: Timing) -> Floats:
    """What each pair of entries would add to the decayed count."""
    shares = np.ones(len(left))
    if timing.half_life is not None:
        times = np.asarray(baskets.times)
        shares = np.exp2((np.maximum(times[left], times[right]) - timing.reference) / timing.half_life)
    if timing.step_decay < 1.0:
        shares = shares * timing.step_decay ** (np.abs(left - right) - 1)
    return shares


def _distinct_owners(owners: Ints, item_a: Items, item_b: Items, ends: Ints) -> Ints:
    """Different owners among the baskets of each pair (runs that end at ``ends``)."""
    order = np.lexsort((owners, item_b, item_a))
    new = _last_of_runs(item_a[order], item_b[order], owners[order])
    return np.diff(np.cumsum(new)[ends], prepend=0)


def _last_of_runs(*columns: NDArray[np.integer[Any]]) -> Bools:
    last = np.ones(len(columns[0]), dtype=bool)
    if len(last):
        last[:-1] = np.logical_or.reduce([c[1:] != c[:-1] for c in columns])
    return last


def slices(work: Ints, step: int | None = None) -> Iterator[tuple[int, int]]:
    """Consecutive row ranges [first, last) of about ``step`` (default ``STEP``) work each that cover all rows; none where
    there is no work."""
    if not len(work) or not work.any():
        return
    part = np.maximum(np.cumsum(work) - 1, 0) // (step or STEP)
    bounds = [0, *(int(row) + 1 for row in np.flatnonzero(np.diff(part))), len(work)]
    yield from pairwise(bounds)
