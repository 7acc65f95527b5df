"""The result of a search: lists of equal length, ranked by exact score and then by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_spark.search.vectors import Float64, Ints, Pieces, Vectors

DECIMALS = 9  # scores closer than this are ties, as in the fused lists
_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Lists:
    """``positions`` and ``scores``, both ``[Q, L]``: the L items of each query, best first."""

    positions: Ints
    scores: Float64

    def put(self, queries: Ints, lists: Lists) -> None:
        """Replace the lists of these queries."""
        self.positions[queries], self.scores[queries] = lists.positions, lists.scores


def stacked(parts: list[Lists]) -> Lists:
    """The lists of successive blocks of queries as one."""
    return Lists(np.concatenate([p.positions for p in parts]), np.concatenate([p.scores for p in parts]))


def exact_scores(queries: Vectors, items: Pieces, rows: Ints, cols: Ints) -> Float64:
    """Inner products of single (query, item) cells in float64, rounded to ``DECIMALS``: ``[C]``.

    A cell has the same score whatever else is scored with it, and in whichever shard the item lies.
    """
    out = np.empty(len(rows))
    for begin in range(0, len(rows), _PAIRS_AT_ONCE):
        part = slice(begin, begin + _PAIRS_AT_ONCE)
        out[part] = (queries[rows[part]].astype(np.float64) * items.take(cols[part])).sum(axis=1)
    rounded: Float64 = np.round(out, DECIMALS) + 0.0  # -0.0 is 0.0
    return rounded


def ranked(queries: Vectors, items: Pieces, rows: Ints, cols: Ints, length: int) -> Lists:
    """The ``length`` best of the given distinct cells of each query; every query has at least that many."""
    scores = exact_scores(queries, items, rows, cols)
    order = np.lexsort((cols, -scores, rows))
    first = np.searchsorted(rows[order], np.arange(len(queries)))
    chosen = order[first[:, None] + np.arange(length)]
    return Lists(cols[chosen].astype(np.int64), scores[chosen])


def recall(found: Lists, exact: Lists) -> float:
    """Share of the exact lists that was found, in [0, 1]; an item that ties with the last exact one counts as found."""
    if not exact.scores.size:
        return 1.0
    return float((found.scores >= exact.scores[:, -1:]).mean())
