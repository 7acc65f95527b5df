"""The quick pass of the top-K: floors guessed from the items read so far, and proof afterwards that nothing was missed."""

from __future__ import annotations

import math

import numpy as np

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.fuse import Fused
from recsys_spark.recommend.scoring.matmul import LOWEST_BITS, bits_not_above, float_of_bits
from recsys_spark.recommend.scoring.scores import FloatArray, Ints
from recsys_spark.recommend.topk.cells import FIRST_TILE, best_first, reaching, tiles
from recsys_spark.recommend.topk.targets import RoughCount, Targets
from recsys_spark.search.rows import place_in_row

_LEAST_ITEMS = 4 * FIRST_TILE  # below, a sample is nearly the whole
_STEP = 4  # floors are raised whenever this many times as many items have been read
_DEVIATIONS, _MORE = 4.5, 5  # guessed too high for about one user in a million
_TOO_MANY = 8  # times K cells gathered per user between two raises: equal scores without end


def guessed_cells(
    fused: Fused, allowed: Filter, k: int, item_tile: int, targets: Targets | None = None
) -> tuple[Ints, Ints] | None:
    """Rows and positions of all cells that may be among the best K; None where the guess does not prove right.

    Items come in the order of a hash, so those read so far are a sample of all: of N items the best K have about
    ``m = K x read / N`` among them, and hardly ever more than ``m + 4.5 sqrt(m) + 5``. The score at that rank, less what
    rounding may do, is the floor that further cells must reach. A guess is right if in the end the K-th best, less the
    same, is above every floor that was used: then nothing below a floor can be among the best K.

    Args:
        targets: get their ranks, where the guess proves right and float32 tells their scores from others'.
    """
    if fused.num_items < max(_LEAST_ITEMS, 2 * k):
        return None
    count = None if targets is None else RoughCount(targets, fused)
    gathered = _Guessed(fused if count else fused.roughly(), allowed, _TOO_MANY * (k + FIRST_TILE // 4), count)
    raised = 0
    for start, stop in tiles(fused.num_items, min(FIRST_TILE, item_tile), item_tile):
        gathered.add(start, stop)
        if gathered.gave_up or gathered.too_many():
            return None
        if stop >= _STEP * raised and stop < fused.num_items:
            gathered.raise_floors(_sample_rank(k, stop / fused.num_items))
            raised = stop
    cells = gathered.proven(k)
    if cells is not None and count is not None:
        count.finish()
    return cells


def _sample_rank(k: int, share: float) -> int:
    """The rank in a sample, of this share of all items, that is almost surely below the K-th best of all."""
    expected = k * share
    return min(k, math.ceil(expected + _DEVIATIONS * math.sqrt(expected) + _MORE))


class _Guessed:
    """Cells that reach the floors; ``num_users x most`` of them between two raises are too many. ``gave_up``: targets are
    not to be counted this way."""

    def __init__(self, fused: Fused, allowed: Filter, most: int, count: RoughCount | None) -> None:
        self._fused, self._allowed, self._count, self.gave_up = fused, allowed, count, False
        self._num_users, self._most = fused.num_users, fused.num_users * most
        self._slack, self._coarseness = 1.01 * fused.slack(np.float32), 2.02 * fused.coarseness
        self._lowest = np.finfo(np.float32).min
        self._floor: FloatArray = np.full(self._num_users, self._lowest, np.float32)
        nothing = np.empty(0, np.int64)
        self._pieces: list[tuple[Ints, Ints, FloatArray]] = [(nothing, nothing, np.empty(0, np.float32))]

    def add(self, start: int, stop: int) -> None:
        """Gather the allowed cells of items ``start..stop`` that reach the floor, or differ from it by less than rounding."""
        bits = self._fused.tile_bits(start, stop) if (self._floor > 0).all() else None
        if bits is None:
            scores = self._fused.tile(start, stop, np.float32)
            self._allowed.apply(scores, start, stop)
            self._pieces.append(reaching(scores, self._floor, start))
            self.gave_up = self._count is not None and not self._count.add(scores, start)
            return
        self._allowed.apply(bits, start, stop, LOWEST_BITS)  # bits compare as the scores do: every floor is above 0
        rows, cols, found = reaching(bits, bits_not_above(self._floor), start)
        self._pieces.append((rows, cols, float_of_bits(found)))

    def too_many(self) -> bool:
        return sum(len(rows) for rows, _, _ in self._pieces[1:]) > self._most

    def raise_floors(self, rank: int) -> None:
        """To what may be the score at this rank of what each user has, where there are so many; drop what lies below."""
        rows, cols, scores = self._sorted()
        self._floor = np.maximum(self._floor, self._level(rank, rows, scores))
        keep = scores >= self._floor[rows]
        self._pieces = [(rows[keep], cols[keep], scores[keep])]

    def proven(self, k: int) -> tuple[Ints, Ints] | None:
        """Rows and positions of the cells that may be among the best K; None if one below a floor may be so too."""
        rows, cols, scores = self._sorted()
        level = self._level(k, rows, scores)
        if (level < self._floor).any():
            return None
        keep = scores >= level[rows]
        return rows[keep], cols[keep]

    def _level(self, rank: int, rows: Ints, scores: FloatArray) -> FloatArray:
        """``[B]``: no cell below it scores exactly what that at ``rank`` does, or more; the lowest where there is none."""
        last = place_in_row(rows, self._num_users) == rank - 1
        full, found = rows[last], scores[last].astype(np.float64)
        level = np.full(self._num_users, self._lowest, np.float32)
        level[full] = found - self._slack[full] - self._coarseness * np.abs(found)
        return level

    def _sorted(self) -> tuple[Ints, Ints, FloatArray]:
        rows, cols, scores = (np.concatenate([piece[i] for piece in self._pieces]) for i in range(3))
        return best_first(rows, cols, scores)
