"""The best K where every partner is sparse: a user's items are those with a stored cell, and all others score the same.

Legend: B users, N items, M stored cells that may be recommended, T targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from recsys_spark.ranges import changes
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.fuse import Fused, total_of
from recsys_spark.recommend.scoring.scores import Float64, Ints, SparseScores
from recsys_spark.recommend.topk.cells import best_first, have_keys, score_keys
from recsys_spark.recommend.topk.order import Order
from recsys_spark.recommend.topk.targets import Targets
from recsys_spark.search.rows import place_in_row


def sparse_cells(fused: Fused, allowed: Filter, k: int, targets: Targets | None) -> tuple[Ints, Ints] | None:
    """Rows and positions of cells that have the best K of every user among them; None where some partner is not sparse.

    Time goes with the cells, not with the catalogue: items without one are counted, not scored.

    Args:
        targets: get their ranks.
    """
    scores = {part.name: part.scores for part in fused.parts if isinstance(part.scores, SparseScores) and part.factor is None}
    if not fused.parts or len(scores) < len(fused.parts):
        return None
    cells = reduce(lambda left, right: left + right, [_ones(part.rows) for part in scores.values()])
    stored = _Stored.of(fused, allowed, cells)
    if not have_keys(stored.rows, stored.scores) or (targets is not None and not have_keys(targets.rows, targets.scores)):
        return None
    elsewhere = total_of({part.name: part.weight * scores[part.name].elsewhere for part in fused.parts}, fused.num_users)
    rest = Order(np.arange(fused.num_items), allowed, cells + allowed.seen)
    if targets is not None:
        _count(targets, stored, elsewhere, rest, allowed.num_candidates())
    return _first(stored, elsewhere, rest, k)


def _ones(rows: Any) -> Any:
    """1 in every stored cell, whatever it says."""
    return type(rows)((np.ones_like(rows.data), rows.indices, rows.indptr), rows.shape)


@dataclass(frozen=True)
class _Stored:
    """``rows, cols, scores [M]``, by user, score from the top and position."""

    rows: Ints
    cols: Ints
    scores: Float64
    num_users: int

    @classmethod
    def of(cls, fused: Fused, allowed: Filter, cells: Any) -> _Stored:
        cells.sort_indices()
        rows, cols = (place.astype(np.int64) for place in cells.nonzero())
        kept = allowed.allows(rows, cols)
        rows, cols = rows[kept], cols[kept]
        return cls(*best_first(rows, cols, fused.at(rows, cols)), fused.num_users)

    def before(self, rows: Ints, cols: Ints, scores: Float64) -> Ints:
        """How many come before each of these cells ``[T]``."""
        keys, wanted = score_keys(self.rows, self.scores), score_keys(rows, scores)
        higher = np.searchsorted(keys, wanted)
        found: Ints = higher - np.searchsorted(self.rows, rows)
        if not len(self.rows):
            return found
        group, width = np.cumsum(changes(keys)), int(self.cols.max()) + 2
        nearest = np.minimum(higher, len(keys) - 1)
        equal = keys[nearest] == wanted
        first = np.searchsorted(group * width + self.cols, group[nearest] * width + np.minimum(cols, width - 1))
        return np.where(equal, found + first - higher, found)


def _count(targets: Targets, stored: _Stored, elsewhere: Float64, rest: Order, num_candidates: Ints) -> None:
    """Tell the targets how many items come before each: of those with a cell, and of all others, which score ``elsewhere``."""
    ranked = np.flatnonzero(targets.valid)
    rows, cols, scores = targets.rows[ranked], targets.cols[ranked], targets.scores[ranked]
    others = num_candidates - np.bincount(stored.rows, minlength=stored.num_users)
    ahead = np.where(elsewhere[rows] > scores, others[rows], rest.before(rows, cols))
    targets.above[ranked] = stored.before(rows, cols, scores) + np.where(elsewhere[rows] >= scores, ahead, 0)


def _first(stored: _Stored, elsewhere: Float64, rest: Order, k: int) -> tuple[Ints, Ints]:
    """The best K with a cell, and where these are too few, or score no more than the others, the first K of the others."""
    kept = place_in_row(stored.rows, stored.num_users) < k
    rows, cols = stored.rows[kept], stored.cols[kept]
    higher = np.bincount(stored.rows[stored.scores > elsewhere[stored.rows]], minlength=stored.num_users)
    if higher.min(initial=k) >= k:
        return rows, cols
    more_rows, more_cols = rest.first(k)
    wanted = higher[more_rows] < k
    return np.concatenate([rows, more_rows[wanted]]), np.concatenate([cols, more_cols[wanted]])
