"""The exact best K of every user over all items, tile by tile, and the exact rank of given targets in the same pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.fuse import DECIMALS, Fused, total_of
from recsys_spark.recommend.scores import Float64, FloatArray, Ints, Precision
from recsys_spark.search.rows import place_in_row as place_in_row

_FIRST_TILE = 256  # small, so that a threshold stands before the wide tiles are read
_PAIRS_AT_ONCE = 512
_MANY_TIES = 32  # this many cells of one float32 value are one score, not many that rounding made equal
_TIE = 10.0**-DECIMALS
_ROW_BITS, _COL_BITS = 10, 22  # of a cell's sort key, beside 32 for its score


@dataclass(frozen=True)
class Best:
    """The chosen cells, by user and rank: ``rows``, ``cols``, ``ranks`` (1 = best), ``scores``, and each partner's share."""

    rows: Ints
    cols: Ints
    ranks: Ints
    scores: Float64
    shares: dict[str, Float64]

    def take(self, cells: Ints) -> Best:
        """These cells, in this order."""
        shares = {name: share[cells] for name, share in self.shares.items()}
        return Best(self.rows[cells], self.cols[cells], self.ranks[cells], self.scores[cells], shares)


def best(fused: Fused, allowed: Filter, k: int, item_tile: int, targets: Targets | None = None) -> Best:
    """The ``k`` best allowed items of each user, or all where there are fewer.

    Items stand in tie order: of two equal scores (to 9 decimals) the item with the smaller position wins. A pass over
    tiles in float32 (float64 when targets are ranked) gathers every cell that rounding does not rule out; those few are
    scored again in float64, which decides. Memory: one tile ``[B, item_tile]`` and about 2 x k gathered cells per user,
    beside what the partners hold.

    Args:
        targets: cells whose ranks are counted on the way (see ``Targets``).
    """
    dtype = np.float32 if targets is None else np.float64
    gathered = _Gathered(fused.num_users, k, fused.slack(dtype), dtype)
    compacted = 0
    for start, stop in _tiles(fused.num_items, k, item_tile):
        scores = fused.tile(start, stop, dtype)
        allowed.apply(scores, start, stop)
        if targets is not None:
            targets.count(scores, start)
        gathered.add(scores, start)
        if stop >= 2 * compacted:  # at doubling intervals: thresholds rise fast at first, then hardly
            gathered.compact()
            compacted = stop
    gathered.compact()
    shares = fused.shares(gathered.rows, gathered.cols)
    exact = total_of(shares, len(gathered.rows))
    order = np.lexsort((gathered.cols, -exact, gathered.rows))
    ranks = place_in_row(gathered.rows[order], fused.num_users) + 1
    order, ranks = order[ranks <= k], ranks[ranks <= k]
    chosen = {name: share[order] for name, share in shares.items()}
    return Best(gathered.rows[order], gathered.cols[order], ranks, exact[order], chosen)


@dataclass
class Targets:
    """Cells ``(rows, cols)`` whose rank among the allowed items is counted; ``ranks`` is 0 where one is not allowed."""

    rows: Ints
    cols: Ints
    scores: Float64
    valid: npt.NDArray[np.bool_]
    above: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.above = np.zeros(len(self.rows), np.int64)

    @classmethod
    def of(cls, fused: Fused, allowed: Filter, rows: Ints, cols: Ints) -> Targets:
        """Targets of a block; a position of -1 is an item outside the catalogue."""
        known = cols >= 0
        inside = np.where(known, cols, 0) if fused.num_items else cols
        valid = known.copy()
        valid[known] = allowed.allows(rows[known], cols[known])
        scores = np.zeros(len(rows))
        scores[known] = fused.at(rows[known], cols[known])
        return cls(rows, inside, scores, valid)

    def count(self, scores: FloatArray, start: int) -> None:
        """Add the items of one filtered tile that come before each target."""
        positions = np.arange(start, start + scores.shape[1])
        for begin in range(0, len(self.rows), _PAIRS_AT_ONCE):
            part = slice(begin, begin + _PAIRS_AT_ONCE)
            distance = scores[self.rows[part]] - self.scores[part, None]
            first = positions[None, :] < self.cols[part, None]
            self.above[part] += ((distance > _TIE) | ((distance >= -_TIE) & first)).sum(axis=1)

    @property
    def ranks(self) -> Ints:
        return np.where(self.valid, self.above + 1, 0)


class _Gathered:
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
        flat = np.flatnonzero(scores >= self._floor[:, None])
        rows, cols = np.divmod(flat, scores.shape[1])
        self._new.append((rows, cols + start, scores.ravel()[flat]))

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
        self._floor[full] = np.where(ties > _MANY_TIES, above, kth - self._slack[full])


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


def _tiles(num_items: int, k: int, item_tile: int) -> Iterator[tuple[int, int]]:
    """As wide as all before them, so that about K cells a user are gathered from each, up to ``item_tile``."""
    start, size = 0, max(k, min(item_tile, _FIRST_TILE))
    while start < num_items:
        yield start, min(start + size, num_items)
        start, size = start + size, min(start + size, item_tile)
