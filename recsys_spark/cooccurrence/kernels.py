"""Pair counts of one block of items, in plain NumPy and SciPy, and the cut to the best N of each item.

Items are dealt to blocks by ``item_idx % num_blocks``. A block receives every basket that holds one of its items, so
its counts are complete: scores and cuts need no other block. Legend: P pairs, E entries, B baskets, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import _sparsetools, csr_matrix  # the pinned version's kernels, see ``products``

from recsys_spark.cooccurrence.blocks import touching
from recsys_spark.cooccurrence.grouping import ANCHOR, TARGET, Baskets, Bools, Floats, Ints, Items, join_baskets
from recsys_spark.cooccurrence.occurrences import PairCounts, Timing, slices, written_out
from recsys_spark.cooccurrence.sorted_products import Visits, is_faster, repeated
from recsys_spark.ranges import changes, position_in_group


def pair_counts(
    parts: Sequence[Baskets],
    num_items: int,
    block: int,
    num_blocks: int,
    min_support: int = 1,
    timing: Timing | None = None,
    min_users: int = 1,
) -> Iterator[PairCounts]:
    """Counts of all pairs whose a lies in ``block`` and that at least ``min_support`` baskets hold, in slices of a.

    Args:
        parts: every basket with two or more items that holds an item of the block (others do no harm), in as many parts as
            there are. With ``sides``, a is taken from entries that may be anchors, b from those that may be targets. With
            ``signs``, counts are net, and every pair that changes is given, whatever its support.
        num_items: N, above every item of the baskets.
        block, num_blocks: which items are meant: item % num_blocks == block.
        min_support: pairs in fewer baskets are dropped.
        timing: rules that need ``baskets.times``.
        min_users: pairs of fewer distinct ``baskets.owners`` are dropped.
    """
    parts = [part for part in parts if len(part.items)]
    written = (timing is not None and timing.needed) or min_users > 1
    entries = max((len(part.items) for part in parts), default=0)
    if not written and all(part.signs is None for part in parts) and is_faster(num_items, entries, min_support):
        yield from _sorted_counts(parts, num_items, block, num_blocks, min_support)
        return
    baskets = join_baskets([touching(part, block, num_blocks) for part in parts])
    if not len(baskets.items):
        return
    if written:
        yield from written_out(baskets, block, num_blocks, min_support, timing or Timing(), min_users)
    else:
        yield from _product_counts(baskets, num_items, block, num_blocks, min_support)


def _sorted_counts(
    parts: Sequence[Baskets], num_items: int, block: int, num_blocks: int, min_support: int
) -> Iterator[PairCounts]:
    found = repeated([_visits(part, block, num_blocks) for part in parts], num_items, -(-num_items // num_blocks))
    for row, item_b, both in found:
        item_a = row * np.int32(num_blocks) + np.int32(block)
        kept = (both >= min_support) & (item_a != item_b)
        yield PairCounts(item_a[kept], item_b[kept], both[kept])


def _visits(baskets: Baskets, block: int, num_blocks: int) -> Visits:
    ends, items, _ = _targets(baskets, baskets.items)
    starts = ends.astype(np.int32, copy=False)
    if baskets.dealt is not None:
        return Visits(*baskets.dealt.of_block(block), starts, items)
    anchors = _anchors(baskets, block, num_blocks)
    return Visits(baskets.items[anchors] // np.int32(num_blocks), baskets.baskets_of(anchors), starts, items)


def _product_counts(baskets: Baskets, num_items: int, block: int, num_blocks: int, min_support: int) -> Iterator[PairCounts]:
    """Rows of X^T X for the items of the block, X being baskets x items in 0 and 1."""
    own, every = incidence(baskets, num_items, block, num_blocks)
    work = own @ np.diff(every.indptr)
    if baskets.signs is not None:
        own.data *= baskets.signs[own.indices]
    for first, starts, item_b, both in products(own, every, work):
        enough = np.flatnonzero(both >= min_support) if baskets.signs is None else np.arange(len(both))
        rows = np.repeat(np.arange(first, first + len(starts) - 1, dtype=np.int32), np.diff(starts))[enough]
        item_a, item_b = rows * np.int32(num_blocks) + np.int32(block), item_b[enough]
        kept = item_a != item_b
        yield PairCounts(item_a[kept], item_b[kept], both[enough][kept].astype(np.int64))


def products(own: Any, every: Any, work: Ints) -> Iterator[tuple[int, NDArray[Any], Items, NDArray[Any]]]:
    """``own @ every`` (CSR, integers) in slices of rows: first row, and of the slice its starts, columns and values, which
    are views of buffers that the next slice overwrites; values of 0 are left out.

    SciPy's ``@`` goes through all multiplications twice, to learn the size of the result first; here the number of
    multiplications, ``work`` of each row, bounds it.
    """
    if not _in_int32(own, every):
        for first, last in slices(work):
            found = own[first:last] @ every
            found.eliminate_zeros()
            yield first, found.indptr, found.indices, found.data
        return
    parts = list(slices(work))
    size = max((int(work[first:last].sum()) for first, last in parts), default=0)
    columns, values = np.empty(size, dtype=np.int32), np.empty(size, dtype=own.data.dtype)
    for first, last in parts:
        starts = np.empty(last - first + 1, dtype=np.int32)
        inputs = (own.indptr[first : last + 1], own.indices, own.data, every.indptr, every.indices, every.data)
        _sparsetools.csr_matmat(last - first, every.shape[1], *inputs, starts, columns, values)
        yield first, starts, columns[: starts[-1]], values[: starts[-1]]


def _in_int32(*matrices: Any) -> bool:
    """Whether all indices of these CSR matrices are int32, as SciPy has them below 2^31 entries."""
    return all(matrix.indptr.dtype == matrix.indices.dtype == np.int32 for matrix in matrices)


def incidence(
    baskets: Baskets, num_items: int, block: int, num_blocks: int, values: NDArray[Any] | None = None
) -> tuple[Any, Any]:
    """Anchors of the block x baskets, and baskets x targets, as CSR; ``values``: of each entry [E], else ones in int32.

    Row r of the first is item ``r * num_blocks + block``.
    """
    values = np.ones(len(baskets.items), np.int32) if values is None else values
    anchors = _anchors(baskets, block, num_blocks)
    places = (baskets.items[anchors] // num_blocks, baskets.baskets_of(anchors))
    own = csr_matrix((values[anchors], places), shape=(-(-num_items // num_blocks), len(baskets.starts) - 1))
    starts, items, values = _targets(baskets, values)
    return own, csr_matrix((values, items, starts), shape=(len(starts) - 1, num_items))


def _anchors(baskets: Baskets, block: int, num_blocks: int) -> Bools:
    """Which entries [E] are anchors of the block."""
    inside: Bools = baskets.items % num_blocks == block
    return inside if baskets.sides is None else inside & ((baskets.sides & ANCHOR) > 0)


def _targets(baskets: Baskets, values: NDArray[Any]) -> tuple[Ints, Items, NDArray[Any]]:
    """Of entries that may be targets: where each basket begins (and the last ends), items and values (of each entry [E])."""
    if baskets.sides is None:
        return baskets.starts, baskets.items, values
    target = (baskets.sides & TARGET) > 0
    return np.append(0, np.cumsum(target))[baskets.starts], baskets.items[target], values[target]


def best(groups: Items, scores: Floats, hash_of: Callable[[Ints], NDArray[np.uint64]], top_n: int) -> tuple[Ints, Ints]:
    """Rows of the ``top_n`` best scores of each group and their ranks from 1, in order of (group, rank).

    Equal scores are ordered by ``hash_of`` their rows (then by row). ``groups`` is ascending; arrays are [P].
    """
    kept = np.flatnonzero(_not_beaten(groups, scores, top_n))
    kept = kept[_in_order(groups[kept], scores[kept], lambda rows: hash_of(kept[rows]))]
    ranks = position_in_group(groups[kept]) + 1
    inside = ranks <= top_n
    return kept[inside], ranks[inside]


def _in_order(groups: Items, scores: Floats, hash_of: Callable[[Ints], NDArray[np.uint64]]) -> Ints:
    """What ``np.lexsort((hashes, -scores, groups))`` gives, for ascending groups: few scores of a group are equal, so hashes are
    looked at only there, and numbers of groups are small enough for a radix sort."""
    number = np.cumsum(changes(groups))
    order = np.argsort(-scores)  # not stable, but in vector registers where the processor has them
    order = order[np.argsort(number.astype(np.min_scalar_type(len(groups)))[order], kind="stable")]
    same = np.zeros(len(order) + 1, dtype=bool)  # whether the one at a place is as the one before
    same[1:-1] = ~changes(number[order], scores[order])[1:]
    tied = np.flatnonzero(same[1:] | same[:-1])
    rows, runs = order[tied], np.cumsum(~same[:-1])[tied]
    order[tied] = rows[np.lexsort((rows, hash_of(rows), runs))]
    return order


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
