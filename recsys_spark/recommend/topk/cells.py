"""Cells (user, item, score) that may be among the best K of their user: sorting them, and gathering them by a sure floor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.scoring.fuse import DECIMALS
from recsys_spark.recommend.scoring.scores import Float64, FloatArray, Ints, Precision
from recsys_spark.search.rows import place_in_row

FIRST_TILE = 256  # small, so that a threshold stands before the wide tiles are read
_MANY_TIES = 32  # this many cells of one float32 value are one score, not many that rounding made equal
_ROW_BITS, _COL_BITS = 10, 22  # of a cell's sort key, beside 32 for its score
_UNIT_BITS = 53  # of one with an exact score, in units of its last decimal


class Gathered:
    """Cells that may still be among the best K of their user; after ``compact`` sorted by user, score, position.

    ``floor`` is what a cell must reach: the K-th best so far less the slack of rounding. Where very many cells equal the
    K-th best (a sparse partner's zeros), it is just above it instead: K of them with smaller positions are held already.
    """

    def __init__(self, num_users: int, k: int, slack: Float64, dtype: Precision) -> None:
        self._k, self._slack, self._num_users = k, slack.astype(dtype), num_users
        self._floor: FloatArray = np.full(num_users, np.finfo(dtype).min, dtype)
        self.rows: Ints = np.empty(0, np.int64)
        self.cols: Ints = np.empty(0, np.int64)
        self._scores: FloatArray = np.empty(0, dtype)
        self._new: list[tuple[Ints, Ints, FloatArray]] = []

    def add(self, scores: FloatArray, start: int) -> None:
        """Gather the cells of a tile that reach the floor."""
        self._new.append(reaching(scores, self._floor, start))

    def compact(self) -> None:
        """Raise each user's floor to the K-th best so far and drop what lies below it."""
        pieces = [(self.rows, self.cols, self._scores), *self._new]
        rows, cols, scores = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
        rows, cols, scores = best_first(rows, cols, scores)
        place = place_in_row(rows, self._num_users)
        self._raise_floor(rows, scores, place)
        keep = (place < self._k) | (scores >= self._floor[rows])
        self.rows, self.cols, self._scores, self._new = rows[keep], cols[keep], scores[keep], []

    def _raise_floor(self, rows: Ints, scores: FloatArray, place: Ints) -> None:
        last = place == self._k - 1
        full, kth = rows[last], scores[last]
        level = np.full(self._num_users, np.nan, scores.dtype)
        level[full] = kth
        ties = np.bincount(rows[scores == level[rows]], minlength=self._num_users)[full]
        above = np.nextafter(kth, np.inf, dtype=kth.dtype)
        one_score = (ties > _MANY_TIES) & ~self._nearly_equal(rows, scores, level)[full]
        self._floor[full] = np.where(one_score, above, kth - self._slack[full])

    def _nearly_equal(self, rows: Ints, scores: FloatArray, level: FloatArray) -> npt.NDArray[np.bool_]:
        """``[B]``: whether cells differ from the level by no more than rounding: they may be ties of it, in another order. Asked
        in float64 only: in float32 so much is rounding that others lie there by chance."""
        if scores.dtype != np.float64:
            return np.zeros(self._num_users, np.bool_)
        apart = np.abs(scores - level[rows])
        return np.bincount(rows[(apart > 0) & (apart <= self._slack[rows])], minlength=self._num_users) > 0


def reaching(scores: FloatArray, floor: FloatArray, start: int) -> tuple[Ints, Ints, FloatArray]:
    """Rows, positions and scores of the cells of a tile ``[B, T]`` that are not below their user's ``floor [B]``.

    ``start`` is the position of the tile's first item.
    """
    rows, cols, flat = cells_where(scores >= floor[:, None])
    return rows, cols + start, scores.ravel()[flat]


def cells_where(mask: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Rows and columns of the cells of a mask ``[B, T]`` that are set, and their places in it laid flat: ``nonzero`` of two
    dimensions takes many times as long."""
    flat = np.flatnonzero(mask)
    rows = flat // mask.shape[1]
    return rows, flat - rows * mask.shape[1], flat


def best_first(rows: Ints, cols: Ints, scores: FloatArray) -> tuple[Ints, Ints, FloatArray]:
    """Cells by user, then score from the top, then position. Cells of one user and score must come in order of position.

    Where all three fit into 64 bits (float32 scores, up to 1,024 users and 4M items), one sort of integers does it.
    """
    if scores.dtype != np.float32 or not len(rows) or rows.max() >> _ROW_BITS or cols.max() >> _COL_BITS:
        order = np.lexsort((-scores, rows))
        return rows[order], cols[order], scores[order]
    bits = (scores + np.float32(0.0)).view(np.uint32)  # -0.0 is 0.0
    descending = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF)).astype(np.uint64)
    keys = rows.astype(np.uint64) << np.uint64(32 + _COL_BITS) | descending << np.uint64(_COL_BITS) | cols.astype(np.uint64)
    keys.sort()
    descending = (keys >> np.uint64(_COL_BITS)).astype(np.uint32)
    bits = np.where(descending >> 31, descending, descending ^ np.uint32(0x7FFFFFFF))
    found_rows, found_cols = keys >> np.uint64(32 + _COL_BITS), keys & np.uint64((1 << _COL_BITS) - 1)
    return found_rows.astype(np.int64), found_cols.astype(np.int64), bits.view(np.float32)


def have_keys(rows: Ints, scores: Float64) -> bool:
    """Whether ``score_keys`` of these fit into 64 bits."""
    return bool(rows.max(initial=0) < 1 << _ROW_BITS and np.abs(scores).max(initial=0) * 10.0**DECIMALS < 2.0 ** (_UNIT_BITS - 2))


def score_keys(rows: Ints, scores: Float64) -> Ints:
    """Integers in the order of user, then score (of ``DECIMALS`` decimals) from the top."""
    keys: Ints = (rows.astype(np.int64) << _UNIT_BITS) - np.rint(scores * 10.0**DECIMALS).astype(np.int64)
    return keys


def tiles(num_items: int, first: int, item_tile: int) -> Iterator[tuple[int, int]]:
    """The first of ``first`` items, each next one as wide as all before it, up to ``item_tile``."""
    start, size = 0, first
    while start < num_items:
        yield start, min(start + size, num_items)
        start, size = start + size, min(start + size, item_tile)
