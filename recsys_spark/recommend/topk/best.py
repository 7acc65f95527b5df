"""The exact best K of every user over all items, tile by tile, and the exact rank of given targets in the same pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.fuse import Fused, total_of
from recsys_spark.recommend.scoring.scores import Float64, Ints
from recsys_spark.recommend.topk.cells import FIRST_TILE, Gathered, have_keys, score_keys, tiles
from recsys_spark.recommend.topk.guess import guessed_cells
from recsys_spark.recommend.topk.shared import shared_cells
from recsys_spark.recommend.topk.sparse import sparse_cells
from recsys_spark.recommend.topk.targets import Targets
from recsys_spark.search.rows import place_in_row


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

    def joined(self, other: Best) -> Best:
        """The cells of both, one after the other; a partner that has no say in one of them adds 0 there."""
        nothing = np.zeros(len(self.rows)), np.zeros(len(other.rows))
        names = {**self.shares, **other.shares}
        shares = {n: np.concatenate([self.shares.get(n, nothing[0]), other.shares.get(n, nothing[1])]) for n in names}
        pairs = ((self.rows, other.rows), (self.cols, other.cols), (self.ranks, other.ranks), (self.scores, other.scores))
        rows, cols, ranks, scores = (np.concatenate(pair) for pair in pairs)
        return Best(rows, cols, ranks, scores, shares)


def best(fused: Fused, allowed: Filter, k: int, item_tile: int, targets: Targets | None = None) -> Best:
    """The ``k`` best allowed items of each user, or all where there are fewer.

    Items stand in tie order: of two equal scores (to 9 decimals) the item with the smaller position wins. A pass over
    tiles gathers every cell that rounding does not rule out; those few are scored again in float64, which decides. It is
    a quick pass with guessed floors, and a sure one where the guess was wrong. Where all users have the same scores, items are
    put in order once instead; where partners are sparse, only items of which they say something are scored. Memory: one tile
    ``[B, item_tile]`` and about 2 x k gathered cells per user, beside what the partners hold.

    Args:
        targets: cells whose ranks are counted on the way (see ``Targets``).
    """
    cells = shared_cells(fused, allowed, k, targets) or sparse_cells(fused, allowed, k, targets)
    cells = cells or guessed_cells(fused, allowed, k, item_tile, targets)
    return best_of_cells(fused, *(cells or _sure_cells(fused, allowed, k, item_tile, targets)), k)


def best_of_cells(fused: Fused, rows: Ints, cols: Ints, k: int) -> Best:
    """The ``k`` best of the given cells of each user, scored in float64; of equal scores the smaller position wins."""
    shares = fused.shares(rows, cols)
    exact = total_of(shares, len(rows))
    order = _in_order(rows, cols, exact)
    ranks = place_in_row(rows[order], fused.num_users) + 1
    order, ranks = order[ranks <= k], ranks[ranks <= k]
    chosen = {name: share[order] for name, share in shares.items()}
    return Best(rows[order], cols[order], ranks, exact[order], chosen)


def _in_order(rows: Ints, cols: Ints, scores: Float64) -> Ints:
    """Order of cells by user, then score (of ``DECIMALS`` decimals) from the top, then position.

    The cells come nearly so, by their rough scores: one stable sort of user and score in 64 bits then costs little.
    """
    if have_keys(rows, scores):
        keys = score_keys(rows, scores)
        order: Ints = np.argsort(keys, kind="stable")
        keys, places = keys[order], cols[order]
        if not ((keys[1:] == keys[:-1]) & (places[1:] < places[:-1])).any():
            return order
    found: Ints = np.lexsort((cols, -scores, rows))
    return found


def _sure_cells(fused: Fused, allowed: Filter, k: int, item_tile: int, targets: Targets | None) -> tuple[Ints, Ints]:
    """Rows and positions of all cells that may be among the best K: by float32, by float64 when targets are ranked."""
    dtype = np.float32 if targets is None else np.float64
    gathered = Gathered(fused.num_users, k, fused.slack(dtype), dtype)
    compacted = 0
    for start, stop in tiles(fused.num_items, max(k, min(item_tile, FIRST_TILE)), item_tile):
        scores = fused.tile(start, stop, dtype)
        allowed.apply(scores, start, stop)
        if targets is not None:
            targets.count(scores, start)
        gathered.add(scores, start)
        if stop >= 2 * compacted:  # at doubling intervals: thresholds rise fast at first, then hardly
            gathered.compact()
            compacted = stop
    gathered.compact()
    return gathered.rows, gathered.cols
