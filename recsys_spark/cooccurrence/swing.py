"""Swing: two items are alike if baskets that share them share little else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from recsys_spark.cooccurrence.grouping import Baskets, Floats, Ints, mix
from recsys_spark.cooccurrence.occurrences import PairCounts


@dataclass(frozen=True)
class SwingRule:
    """``alpha`` smooths; a basket u weighs |I_u|^-power; of each anchor's baskets at most ``max_baskets`` are looked at."""

    alpha: float
    power: float
    max_baskets: int


class Swing:
    """Scores of item pairs from all baskets that touch a block, with one entry per item, in order of keys.

    s(a, j) = sum over pairs u < v of baskets that hold both of w_u w_v / (alpha + |I_u and I_v|), with w_u = |I_u|^-power
    (Yang et al., "Large Scale Product Graph Construction for Recommendation in E-commerce", 2020, eq. 2, where power is
    1/2; each pair of baskets counts once here). Where more than ``max_baskets`` hold the anchor, those with the smallest
    seeded hash of basket and anchor stand for all.
    """

    def __init__(
        self, whole: Baskets, num_items: int, rule: SwingRule, hash_of: Callable[[NDArray[np.int32]], NDArray[np.uint64]]
    ) -> None:
        whole = whole.keep(np.repeat(whole.sizes > 1, whole.sizes))
        self.rule, self.hash_of, self.keys = rule, hash_of, np.asarray(whole.keys)
        shape = (len(whole.starts) - 1, num_items)
        self.rows: Any = csr_matrix((np.ones(len(whole.items)), whole.items, whole.starts), shape=shape)
        self.columns: Any = csc_matrix(self.rows)
        self.weights = np.maximum(whole.sizes, 1).astype(np.float64) ** -rule.power

    def of(self, pairs: PairCounts) -> Floats:
        """The score of each pair [P]; ``pairs`` ascend by anchor."""
        scores = np.zeros(len(pairs.item_a))
        anchors, starts = np.unique(pairs.item_a, return_index=True)
        bounds = np.append(starts, len(scores))
        for anchor, first, last in zip(anchors, bounds[:-1], bounds[1:], strict=True):
            items, values = self._of_anchor(int(anchor))
            wanted = pairs.item_b[first:last]
            at = np.minimum(np.searchsorted(items, wanted), max(len(items) - 1, 0))
            if len(items):
                scores[first:last] = np.where(items[at] == wanted, values[at], 0.0)
        return scores

    def _of_anchor(self, anchor: int) -> tuple[Ints, Floats]:
        """Items that share two or more baskets with the anchor, ascending, and their scores."""
        held = self._baskets_of(anchor)
        part = self.rows[held]
        overlap = (part @ part.T).toarray()
        weights = self.weights[held]
        swings = np.outer(weights, weights) / (self.rule.alpha + overlap)
        np.fill_diagonal(swings, 0.0)
        items, local = np.unique(part.indices, return_inverse=True)
        owner = np.repeat(np.arange(len(held)), np.diff(part.indptr))
        by_item = csr_matrix((np.ones(len(local)), (local, owner)), shape=(len(items), len(held)))
        meeting = by_item @ swings  # [items, baskets]: what each basket of the item meets among the others
        return items, np.bincount(local, weights=meeting[local, owner], minlength=len(items)) / 2.0

    def _baskets_of(self, anchor: int) -> Ints:
        held = self.columns.indices[self.columns.indptr[anchor] : self.columns.indptr[anchor + 1]]
        if len(held) <= self.rule.max_baskets:
            return np.asarray(held)
        draw = mix(self.keys[held].astype(np.uint64) ^ mix(self.hash_of(np.array([anchor], dtype=np.int32))))
        return np.sort(held[np.lexsort((self.keys[held], draw))[: self.rule.max_baskets]])
