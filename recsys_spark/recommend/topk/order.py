"""Items in one order for all users of a block: the first that each may get, and how many stand before a given one.

Legend: B users, N items, A allowed items in order (``order``), W of them looked at, S segments with rules.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.scores import Ints


class Order:
    """What each user may get of ``items [N]`` (positions, the first first): what the rules leave, less the user's own
    ``barred`` cells (CSR ``[B, N]``)."""

    def __init__(self, items: Ints, allowed: Filter, barred: Any) -> None:
        self._allowed, self._cells, self._num_users = allowed, barred, barred.shape[0]
        self._order: Ints = items[allowed.allowed[items]]
        self._place = np.full(len(items), -1)  # of each item in the order; -1: not in it
        self._place[self._order] = np.arange(len(self._order))

    @cached_property
    def _segment(self) -> Ints:
        """Each user's row of ``_permitted`` ``[B]``: the first, if no rules of a segment hold for them."""
        of = self._allowed.segment_of
        return np.zeros(self._num_users, np.int64) if of is None else of.astype(np.int64) + 1

    @cached_property
    def _permitted(self) -> npt.NDArray[np.bool_]:
        """Which items of the order rules permit ``[S + 1, A]``; the first row: no rules."""
        everything = np.ones((1, len(self._order)), np.bool_)
        segments = self._allowed.segments
        return everything if segments is None else np.vstack([everything, segments[:, self._order]])

    @cached_property
    def _barred(self) -> tuple[Ints, Ints]:
        """Rows, and places in the order, of what users may not get; by row, then place."""
        rows, items = self._cells.nonzero()
        places = self._place[items]
        rows, places = rows[places >= 0].astype(np.int64), places[places >= 0]
        by_row = np.lexsort((places, rows))
        return rows[by_row], places[by_row]

    def first(self, k: int) -> tuple[Ints, Ints]:
        """Rows and positions of the first ``k`` that each user may get, or of all where there are fewer."""
        rows, places = self._barred
        wide = min(len(self._order), k + int(np.bincount(rows, minlength=1).max(initial=0)))
        while True:
            open_BW = self._permitted[self._segment, :wide]
            near = places < wide
            open_BW[rows[near], places[near]] = False
            number_BW = np.cumsum(open_BW, axis=1)
            if wide == len(self._order) or number_BW[:, -1].min(initial=k) >= k:
                break
            wide = min(len(self._order), 2 * wide)
        found, place = np.nonzero(open_BW & (number_BW <= k))
        return found, self._order[place]

    def before(self, rows: Ints, cols: Ints) -> Ints:
        """How many a user may get before each of these cells ``[C]``, of items that the order has."""
        before: Ints = np.cumsum(self._permitted, axis=1) - self._permitted
        barred_rows, barred_places = self._barred
        kept = self._permitted[self._segment[barred_rows], barred_places]
        width = len(self._order) + 1
        keys = barred_rows[kept] * width + barred_places[kept]
        places, own = self._place[cols], rows * width
        met = np.searchsorted(keys, own + places) - np.searchsorted(keys, own)
        found: Ints = before[self._segment[rows], places] - met
        return found
