"""Pairs of a block counted by sorting them: for catalogues so large that the sums of SciPy's product leave the caches.

SciPy adds each multiplication to one of N numbers that lie anywhere: 15 ns with 60,000 items, 33 with 500,000. Writing out the
pairs of some anchors as 32-bit keys and sorting these takes 17 to 19 ns whatever N is, where the processor sorts in vector
registers, and pairs that occur once, two of three, are never written down.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from recsys_spark.cooccurrence.grouping import Ints, Items
from recsys_spark.cooccurrence.occurrences import slices
from recsys_spark.ranges import ranges

LEAST_ITEMS = 1 << 17  # from so many on it is faster
_MOST_ITEMS = 1 << 23  # beyond, a key of 32 bits leaves room for too few anchors
_KEY_BITS = 32
_STEP = 1 << 19  # pairs at a time: their keys stay in a core's cache


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


def repeated(own: Any, every: Any, work: Ints) -> Iterator[tuple[Items, Items, Ints]]:
    """Cells of ``own @ every`` (CSR, each stored value taken for 1) of at least 2, in slices of rows: row, column and value
    of each, ascending by row and column.

    Args:
        own: anchors x baskets. every: baskets x targets; indices of both are int32.
        work: multiplications of each row of ``own``.
    """
    bits = max(1, int(every.shape[1] - 1).bit_length())
    targets, starts, sizes = every.indices.view(np.uint32), every.indptr, np.diff(every.indptr)
    for first, last in _slices(work, 1 << (_KEY_BITS - bits)):
        baskets = own.indices[own.indptr[first] : own.indptr[last]]
        length = sizes[baskets]
        keys = targets.take(
            ranges(starts[baskets], length, np.int32), mode="clip"
        )  # all are inside: without the check that "raise" makes
        rows = np.repeat(np.arange(last - first, dtype=np.uint32) << np.uint32(bits), np.diff(own.indptr[first : last + 1]))
        keys |= np.repeat(rows, length)
        keys.sort()
        begins, both = _runs(keys)
        found = keys[begins]
        columns = (found & np.uint32((1 << bits) - 1)).astype(np.int32)
        yield (found >> np.uint32(bits)).astype(np.int32) + np.int32(first), columns, both


def _slices(work: Ints, most_rows: int) -> Iterator[tuple[int, int]]:
    """Row ranges of about ``_STEP`` work and at most ``most_rows`` rows."""
    for first, last in slices(work, _STEP):
        for begin in range(first, last, most_rows):
            yield begin, min(last, begin + most_rows)


def _runs(keys: Any) -> tuple[Ints, Ints]:
    """Where keys begin that occur at least twice among the sorted ones, and how often each does."""
    same = np.zeros(len(keys) + 1, np.bool_)
    same[1:-1] = keys[1:] == keys[:-1]
    edges = np.flatnonzero(same[1:] != same[:-1])  # by turns where such a run begins and where it ends
    return edges[0::2], edges[1::2] - edges[0::2] + 1
