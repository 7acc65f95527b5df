"""Pairs of a block counted by sorting them: for catalogues whose sums in SciPy's product leave the quickest caches.

SciPy adds each multiplication to one of N numbers that lie anywhere: 9 ns with 30,000 items, 13 with 125,000, some 30 with
500,000. Writing out the pairs of some anchors as 32-bit keys and sorting these takes 8 to 11 ns whatever N is, where the
processor sorts in vector registers, and pairs that occur once, two of three, are never written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import _sparsetools  # the pinned version's kernels

from recsys_spark.cooccurrence.grouping import Floats, Ints, Items
from recsys_spark.cooccurrence.occurrences import slices

LEAST_ITEMS = 1 << 15  # from about so many on it is faster
_MOST_ITEMS = 1 << 23  # beyond, a key of 32 bits leaves room for too few anchors
_KEY_BITS = 32
_STEP = 1 << 22  # pairs at a time: more are sorted slower, fewer fetch from baskets that lie further apart


def is_faster(num_items: int, most_entries: int, min_support: int) -> bool:
    """Whether ``repeated`` finds all that is asked for, sooner than a product of matrices, where a part has so many entries."""
    enough = LEAST_ITEMS <= num_items <= _MOST_ITEMS
    return enough and min_support >= 2 and most_entries <= np.iinfo(np.int32).max and _sorts_in_registers()


@cache
def _sorts_in_registers() -> bool:
    """Whether NumPy has a vectorised sort of 32-bit integers for this processor."""
    try:
        from numpy.core import _multiarray_umath as core  # no public way to ask for it
    except ImportError:
        return False
    return bool(getattr(core, "__cpu_features__", {}).get("AVX512_SKX"))


@dataclass(frozen=True)
class Visits:
    """Of some baskets, what of each is to be met: an anchor's entry visits the basket that holds it.

    ``rows``, ``holders``: of each visit [V] the anchor's row and its basket, ascending by basket. ``starts``, ``targets``:
    basket i has the targets ``targets[starts[i]:starts[i + 1]]``.
    """

    rows: NDArray[np.integer[Any]]
    holders: Items
    starts: Items
    targets: Items

    @cached_property
    def sizes(self) -> Items:
        """Targets of each basket."""
        return np.diff(self.starts)


def repeated(parts: list[Visits], num_columns: int, num_rows: int) -> Iterator[tuple[Items, Items, Ints]]:
    """How often anchors and targets meet, where twice or more, in slices of anchors: row, column and number of each,
    ascending by row and column.

    A slice goes through its baskets in their order, whichever anchor asks for them: memory is read forwards once, not once for
    each anchor.

    Args:
        parts: the visits of all baskets, targets below ``num_columns``, rows below ``num_rows``; each is taken out once it
            has been put in order, so that it need not be held twice.
    """
    bits = max(1, int(num_columns - 1).bit_length())
    work = sum((_work(part, num_rows) for part in parts), np.zeros(num_rows)).astype(np.int64)
    if not work.any():
        return
    bounds = _bounds(work, 1 << (_KEY_BITS - bits))
    sliced = []
    while parts:
        sliced.append(_by_slice(parts.pop(), bounds, bits))
    for number, first in enumerate(bounds[:-1].tolist()):
        pairs = _pairs(sliced, number)
        pairs.sort()
        for half in _halves(pairs, bits):
            begins, both = _runs(half)
            found = half[begins]
            columns = (found & np.uint32((1 << bits) - 1)).astype(np.int32)
            yield (found >> np.uint32(bits)).astype(np.int32) + np.int32(first), columns, both


def _work(part: Visits, num_rows: int) -> Floats:
    """Pairs of each anchor [num_rows]; so many visits at a time, since 64 bits are made of what is summed."""
    work = np.zeros(num_rows)
    for first in range(0, len(part.rows), _STEP):
        some = slice(first, first + _STEP)
        work += np.bincount(part.rows[some], part.sizes[part.holders[some]], num_rows)
    return work


def _bounds(work: Ints, most_rows: int) -> Ints:
    """Where slices of about ``_STEP`` work and at most ``most_rows`` rows begin, and the last ends."""
    begins = [begin for first, last in slices(work, _STEP) for begin in range(first, last, most_rows)]
    return np.array([*begins, len(work)])


@dataclass(frozen=True)
class _Sliced:
    """Visits in order of slices: slice n has those in ``ends[n]:ends[n + 1]``, each with its anchor's part of a key; the rest as
    in ``Visits``."""

    ends: Items
    holders: Items
    keys: Items
    starts: Items
    sizes: Items
    targets: Items


def _by_slice(part: Visits, bounds: Ints, bits: int) -> _Sliced:
    """The visits in order of slices, within each as they were. Making a compressed matrix of (slice, basket) cells is this
    counting sort."""
    num_anchors = np.diff(bounds)
    anchor_keys = ((np.arange(bounds[-1]) - np.repeat(bounds[:-1], num_anchors)) << bits).astype(np.uint32).view(np.int32)
    slice_of = np.repeat(np.arange(len(num_anchors), dtype=np.int32), num_anchors)
    ends, holders, keys = (np.empty(size, np.int32) for size in (len(bounds), len(part.rows), len(part.rows)))
    given = (slice_of[part.rows], part.holders, anchor_keys[part.rows])
    _sparsetools.coo_tocsr(len(num_anchors), 1, len(part.rows), *given, ends, holders, keys)
    return _Sliced(ends, holders, keys, part.starts, part.sizes, part.targets)


def _pairs(parts: Sequence[_Sliced], number: int) -> NDArray[np.uint32]:
    """The keys of all pairs of a slice, anchor above target, in any order."""
    visits = [slice(part.ends[number], part.ends[number + 1]) for part in parts]
    holders = [part.holders[some] for part, some in zip(parts, visits, strict=True)]
    sizes = [part.sizes[held] for part, held in zip(parts, holders, strict=True)]
    ends = np.cumsum([int(some.sum()) for some in sizes])
    pairs = np.empty(ends[-1], np.uint32)
    for part, some, held, lengths, last in zip(parts, visits, holders, sizes, ends.tolist(), strict=True):
        mine = pairs[last - int(lengths.sum()) : last]
        _copy_targets(part, held, mine.view(np.int32))
        mine |= np.repeat(part.keys[some].view(np.uint32), lengths)
    return pairs


def _copy_targets(part: _Sliced, holders: Items, found: Items) -> None:
    """The targets of these baskets, one after another: two passes less than gathering each. SciPy copies a value of each as well;
    with the targets for values too, and to the same place, it touches no memory for that."""
    _sparsetools.csr_row_index(len(holders), holders, part.starts, part.targets, part.targets, found, found)


def _halves(pairs: NDArray[np.uint32], bits: int) -> list[NDArray[np.uint32]]:
    """Sorted pairs in two, between anchors: what is done with those found wants to stay in the cache."""
    if not len(pairs):
        return []
    middle = pairs[len(pairs) // 2] >> np.uint32(bits) << np.uint32(bits)
    cut = int(np.searchsorted(pairs, middle))
    return [half for half in (pairs[:cut], pairs[cut:]) if len(half)]


def _runs(keys: Any) -> tuple[Ints, Ints]:
    """Where keys begin that occur at least twice among the sorted ones, and how often each does."""
    same = np.zeros(len(keys) + 1, np.bool_)
    same[1:-1] = keys[1:] == keys[:-1]
    edges = np.flatnonzero(same[1:] != same[:-1])  # by turns where such a run begins and where it ends
    return edges[0::2], edges[1::2] - edges[0::2] + 1
