"""The exact rank of given targets among all allowed items, counted in the pass over tiles that finds the best K."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.fuse import DECIMALS, Fused
from recsys_spark.recommend.scoring.scores import Float64, FloatArray, Ints
from recsys_spark.recommend.topk.cells import cells_where

_PAIRS_AT_ONCE = 128
_TIE = 10.0**-DECIMALS
_IN_DOUBT = 64  # cells per target that rounding may leave in doubt


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
        """Add the items of one filtered tile in float64 that come before each target."""
        positions = np.arange(start, start + scores.shape[1])
        for begin in range(0, len(self.rows), _PAIRS_AT_ONCE):
            part = slice(begin, begin + _PAIRS_AT_ONCE)
            distance = scores[self.rows[part]] - self.scores[part, None]
            first = positions[None, :] < self.cols[part, None]
            self.above[part] += ((distance > _TIE) | ((distance >= -_TIE) & first)).sum(axis=1)

    @property
    def ranks(self) -> Ints:
        return np.where(self.valid, self.above + 1, 0)


class RoughCount:
    """The same count by tiles in float32. Cells that rounding leaves in doubt, hardly any but where scores are equal, are set
    aside and compared exactly in the end, to ``DECIMALS`` as lists are."""

    def __init__(self, targets: Targets, fused: Fused) -> None:
        self._targets, self._fused = targets, fused
        self._ranked = np.flatnonzero(targets.valid)
        self._rows = targets.rows[self._ranked]
        reach = 0.51 * fused.slack(np.float32)[self._rows]
        scores, far = targets.scores[self._ranked], np.float32(np.inf)
        self._low = np.nextafter((scores - reach).astype(np.float32), -far)
        self._high = np.nextafter((scores + reach).astype(np.float32), far)
        self._above = np.zeros(len(self._ranked), np.int64)
        nothing = np.empty(0, np.int64)
        self._doubts: list[tuple[Ints, Ints]] = [(nothing, nothing)]
        self._left = _IN_DOUBT * len(self._ranked)

    def add(self, scores: npt.NDArray[np.float32], start: int) -> bool:
        """Count one filtered tile; False if so many cells are in doubt that float64 would have been cheaper."""
        for begin in range(0, len(self._rows), _PAIRS_AT_ONCE):
            part = slice(begin, begin + _PAIRS_AT_ONCE)
            tile = scores[self._rows[part]]
            surely, maybe = (_counts(tile > bound[part, None]) for bound in (self._high, self._low))
            self._above[part] += surely
            unsure = np.flatnonzero(surely != maybe)
            self._left -= int((maybe - surely).sum())
            if self._left < 0:
                return False
            near = tile[unsure]
            of, cols, _ = cells_where((near > self._low[part][unsure, None]) & (near <= self._high[part][unsure, None]))
            self._doubts.append((unsure[of] + begin, cols + start))
        return True

    def finish(self) -> None:
        """Decide what was in doubt and tell the targets."""
        of, cols = (np.concatenate([doubts[i] for doubts in self._doubts]) for i in range(2))
        exact, own = self._fused.at(self._rows[of], cols), self._targets.scores[self._ranked[of]]
        first = cols < self._targets.cols[self._ranked[of]]
        before = (exact > own) | ((exact == own) & first)
        self._targets.above[self._ranked] = self._above + np.bincount(of[before], minlength=len(self._ranked))


def _counts(cells: npt.NDArray[np.bool_]) -> Ints:
    """How many of each row are true. One by one: NumPy counts a single row in vector registers, and along an axis it does not."""
    return np.array([np.count_nonzero(row) for row in cells], np.int64)
