"""Pairs of a block counted by sorting them: for catalogues whose sums in SciPy's product leave the quickest caches.

SciPy adds each multiplication to one of N numbers that lie anywhere: 9 ns with 30,000 items, 13 with 125,000, some 30 with
500,000. Writing out the pairs of some anchors as 32-bit keys and sorting these takes 8 to 11 ns whatever N is, where the
processor sorts in vector registers, and pairs that occur once, two of three, are never written down.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import _sparsetools  # the pinned version's kernels

from recsys_spark.cooccurrence.grouping import Ints, Items
from recsys_spark.cooccurrence.occurrences import slices

LEAST_ITEMS = 1 << 15  # from about so many on it is faster
_MOST_ITEMS = 1 << 23  # beyond, a key of 32 bits leaves room for too few anchors
_KEY_BITS = 32
_STEP = 1 << 20  # pairs at a time: their keys stay in a core's cache


def is_faster(num_items: int, num_entries: int, min_support: int) -> bool:
    """Whether ``repeated`` finds all that is asked for, sooner than a product of matrices of so many items and entries."""
    enough = LEAST_ITEMS <= num_items <= _MOST_ITEMS
    return enough and min_support >= 2 and num_entries <= np.iinfo(np.int32).max and _sorts_in_registers()


@functools.cache
def _sorts_in_registers() -> bool:
    """Whether NumPy has a vectorised sort of 32-bit integers for this processor."""
    try:
        from numpy.core import _multiarray_umath as core  # no public way to ask for it
    except ImportError:
        return False
    return bool(getattr(core, "__cpu_features__", {}).get("AVX512_SKX"))


def repeated(rows: Items, holders: Items, every: Any, num_rows: int) -> Iterator[tuple[Items, Items, Ints]]:
    """Cells of at least 2 in the product of anchors x baskets and ``every``, in slices of anchors: row, column and value of
    each, ascending by row and column.

    A slice goes through its baskets in their order, whichever anchor asks for them: memory is read forwards once, not once for
    each anchor.

    Args:
        rows, holders: of each anchor's entry [V] its row (below ``num_rows``) and the basket that holds it, ascending by basket.
        every: baskets x targets as CSR, each stored value taken for 1; indices are int32.
    """
    bits = max(1, int(every.shape[1] - 1).bit_length())
    sizes = np.diff(every.indptr)
    work = _work(rows, holders, sizes, num_rows)
    if not work.any():
        return
    bounds = _bounds(work, 1 << (_KEY_BITS - bits))
    num_anchors = np.diff(bounds)
    anchor_keys = ((np.arange(num_rows) - np.repeat(bounds[:-1], num_anchors)) << bits).astype(np.uint32)
    slice_of = np.repeat(np.arange(len(num_anchors), dtype=np.int32), num_anchors)
    slices_of, keys = slice_of[rows], anchor_keys[rows].view(np.int32)
    del rows  # with those below as many bytes as a block's baskets
    ends, holders, keys = _by_slice(slices_of, holders, keys, len(num_anchors))
    del slices_of
    for number, first in enumerate(bounds[:-1].tolist()):
        visits = slice(ends[number], ends[number + 1])
        lengths = sizes[holders[visits]]
        pairs = _entries(every, holders[visits], int(lengths.sum()))
        pairs |= np.repeat(keys[visits].view(np.uint32), lengths)
        pairs.sort()
        begins, both = _runs(pairs)
        found = pairs[begins]
        columns = (found & np.uint32((1 << bits) - 1)).astype(np.int32)
        yield (found >> np.uint32(bits)).astype(np.int32) + np.int32(first), columns, both


def _work(rows: Items, holders: Items, sizes: Items, num_rows: int) -> Ints:
    """Pairs of each anchor [num_rows]; so many visits at a time, since 64 bits are made of what is summed."""
    work = np.zeros(num_rows)
    for first in range(0, len(rows), _STEP):
        part = slice(first, first + _STEP)
        work += np.bincount(rows[part], sizes[holders[part]], num_rows)
    return work.astype(np.int64)


def _bounds(work: Ints, most_rows: int) -> Ints:
    """Where slices of about ``_STEP`` work and at most ``most_rows`` rows begin, and the last ends."""
    begins = [begin for first, last in slices(work, _STEP) for begin in range(first, last, most_rows)]
    return np.array([*begins, len(work)])


def _by_slice(slice_of: Items, holders: Items, keys: Items, num_slices: int) -> tuple[Items, Items, Items]:
    """Visits [V] in order of slices, within each as they were: where each slice begins (and the last ends), holders, keys.

    Making a compressed matrix of (slice, basket) cells is this counting sort.
    """
    ends, *columns = (np.empty(size, np.int32) for size in (num_slices + 1, len(keys), len(keys)))
    _sparsetools.coo_tocsr(num_slices, 1, len(keys), slice_of, holders, keys, ends, *columns)
    return ends, columns[0], columns[1]


def _entries(every: Any, holders: Items, size: int) -> Any:
    """The targets of these baskets (``size`` in all), one after another, as uint32: two passes less than gathering each."""
    found, values = np.empty(size, np.int32), np.empty(size, every.data.dtype)
    _sparsetools.csr_row_index(len(holders), holders, every.indptr, every.indices, every.data, found, values)
    return found.view(np.uint32)


def _runs(keys: Any) -> tuple[Ints, Ints]:
    """Where keys begin that occur at least twice among the sorted ones, and how often each does."""
    same = np.zeros(len(keys) + 1, np.bool_)
    same[1:-1] = keys[1:] == keys[:-1]
    edges = np.flatnonzero(same[1:] != same[:-1])  # by turns where such a run begins and where it ends
    return edges[0::2], edges[1::2] - edges[0::2] + 1
