"""The best K where all users of a block have the same scores: items are put in order once, not once per user.

Legend: B users, N items, A allowed items in order (``order``), W of them looked at, S segments with rules.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.fuse import Fused
from recsys_spark.recommend.scoring.scores import Ints, SharedScores
from recsys_spark.recommend.topk.targets import Targets


def shared_cells(fused: Fused, allowed: Filter, k: int, targets: Targets | None) -> tuple[Ints, Ints] | None:
    """Rows and positions of the best K of every user; None where scores are not the same for all users.

    Args:
        targets: get their ranks.
    """
    if not fused.parts or not all(isinstance(part.scores, SharedScores) for part in fused.parts):
        return None
    order = _Order(fused, allowed)
    if targets is not None:
        order.count(targets)
    return order.first(k)


class _Order:
    def __init__(self, fused: Fused, allowed: Filter) -> None:
        items = np.arange(fused.num_items)
        by_score = np.argsort(-fused.at(np.zeros_like(items), items), kind="stable")
        self._allowed, self._num_users = allowed, fused.num_users
        self._order: Ints = by_score[allowed.allowed[by_score]]
        self._place = np.full(fused.num_items, -1)  # of each item in the order; -1: not in it
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
    def _seen(self) -> tuple[Ints, Ints]:
        """Rows, and places in the order, of the items that users have met; by row, then place."""
        rows, items = self._allowed.seen.nonzero()
        places = self._place[items]
        rows, places = rows[places >= 0].astype(np.int64), places[places >= 0]
        by_row = np.lexsort((places, rows))
        return rows[by_row], places[by_row]

    def first(self, k: int) -> tuple[Ints, Ints]:
        """The first ``k`` of the order that each user may get, or all where there are fewer."""
        rows, places = self._seen
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

    def count(self, targets: Targets) -> None:
        """Tell the targets how many items a user may get before each of them."""
        places, rows = self._place[targets.cols], targets.rows
        ranked = targets.valid & (places >= 0)
        before: Ints = np.cumsum(self._permitted, axis=1) - self._permitted
        seen_rows, seen_places = self._seen
        kept = self._permitted[self._segment[seen_rows], seen_places]
        width = len(self._order) + 1
        keys = seen_rows[kept] * width + seen_places[kept]
        own = rows[ranked] * width
        met = np.searchsorted(keys, own + places[ranked]) - np.searchsorted(keys, own)
        targets.above[ranked] = before[self._segment[rows[ranked]], places[ranked]] - met
