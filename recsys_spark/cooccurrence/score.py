"""Scores of counted pairs, what is cut away, and the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.config.signals import Measure
from recsys_spark.cooccurrence.blocks import whole_baskets
from recsys_spark.cooccurrence.grouping import Baskets, Floats, Items
from recsys_spark.cooccurrence.kernels import best
from recsys_spark.cooccurrence.measures import MEASURES, SIMILARITIES, decayed_cosine, llr, shrunk
from recsys_spark.cooccurrence.occurrences import PairCounts
from recsys_spark.cooccurrence.plan import Hashes, ItemTotals, Plan, item_hashes
from recsys_spark.cooccurrence.swing import Swing, SwingRule
from recsys_spark.cooccurrence.weighting import WEIGHTINGS, Corpus, Dots


class WholeBaskets:
    """Measures that look at more of the baskets of a block than which pairs they hold, made when first asked for."""

    def __init__(
        self, plan: Plan, totals: ItemTotals, hashes: Hashes | None, corpus: Corpus, parts: Sequence[Baskets], block: int
    ) -> None:
        self.plan, self.totals, self.hashes, self.corpus, self.parts, self.block = plan, totals, hashes, corpus, parts, block
        self.dots: dict[str, Dots] = {}

    def score(self, name: Measure, pairs: PairCounts) -> Floats:
        """The measure of each pair [P]."""
        if name == "swing":
            return self._swing.of(pairs)
        if name not in self.dots:
            self.dots[name] = Dots(self._whole, self.corpus, name, self.block, self.plan.num_blocks)
        lengths = self.totals.squares[name]
        return WEIGHTINGS[name][1](self.dots[name].of(pairs), lengths[pairs.item_a], lengths[pairs.item_b])

    @cached_property
    def _whole(self) -> Baskets:
        return whole_baskets(self.parts, self.block, self.plan.num_blocks, self.plan.min_entries)

    @cached_property
    def _swing(self) -> Swing:
        settings = self.plan.settings
        rule = SwingRule(settings.swing_alpha, settings.swing_power, settings.swing_max_baskets)
        return Swing(self._whole, len(self.totals.baskets), rule, partial(item_hashes, seed=self.plan.seed, hashes=self.hashes))


class Scorer:
    """Pairs in, rows out: significance cut, ranking, the best N of each anchor, all measures of what is left."""

    def __init__(self, plan: Plan, totals: ItemTotals, hashes: Hashes | None) -> None:
        self.plan, self.totals, self.hashes = plan, totals, hashes

    def rows(self, pairs: PairCounts, whole: WholeBaskets | None) -> pa.RecordBatch:
        """Rows of the table for the best pairs of each item a; measures not asked for are null. ``whole`` is needed by
        measures of whole baskets alone."""
        settings = self.plan.settings
        pairs = pairs.take(self._significant(pairs))
        ranking = self._score(settings.rank_by, pairs, whole)
        kept, ranks = best(pairs.item_a, ranking, lambda rows: self._hashes(pairs.item_b[rows]), settings.top_n)
        pairs = pairs.take(kept)
        held_a, held_b = self._held(pairs)
        scores = {name: self._score(name, pairs, whole) for name in self.plan.measures if name != settings.rank_by}
        scores[settings.rank_by] = ranking[kept]
        empty = pa.nulls(len(kept), pa.float64())
        columns = {
            "item_a": pa.array(pairs.item_a),
            "item_b": pa.array(pairs.item_b),
            "num_baskets": pa.array(pairs.both),
            "num_baskets_a": pa.array(held_a),
            "num_baskets_b": pa.array(held_b),
            "num_baskets_total": pa.array(np.full(len(kept), self.totals.total, dtype=np.int64)),
            "decayed_count": empty if pairs.decayed is None else pa.array(pairs.decayed),
            **{name: pa.array(scores[name]) if name in scores else empty for name in (*MEASURES, *WEIGHTINGS, "swing")},
            "rank_a": pa.array(ranks.astype(np.int32)),
        }
        return pa.RecordBatch.from_pydict(columns)

    def _hashes(self, items: Items) -> Hashes:
        return item_hashes(items, self.plan.seed, self.hashes)

    def _held(self, pairs: PairCounts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.totals.baskets[pairs.item_a], self.totals.as_target[pairs.item_b]

    def _score(self, name: Measure, pairs: PairCounts, whole: WholeBaskets | None) -> Floats:
        if name == "decayed_cosine":
            if pairs.decayed is None and len(pairs.both):
                raise ValueError("nothing decays")
            return decayed_cosine(np.zeros(0) if pairs.decayed is None else pairs.decayed, *self._held(pairs))
        if name in MEASURES:
            scores = MEASURES[name](pairs.both, *self._held(pairs), self.totals.total)
        elif whole is not None:
            scores = whole.score(name, pairs)
        else:
            raise ValueError(f"{name} needs whole baskets")
        shrinkage = self.plan.settings.shrinkage
        return shrunk(scores, pairs.both, shrinkage) if shrinkage and name in SIMILARITIES else scores

    def _significant(self, pairs: PairCounts) -> NDArray[np.bool_]:
        """Pairs met more often than by chance, by at least the log-likelihood ratio asked for."""
        least = self.plan.settings.min_llr
        if not least:
            return np.ones(len(pairs.item_a), dtype=bool)
        held_a, held_b = self._held(pairs)
        more = pairs.both.astype(np.float64) * self.totals.total > held_a.astype(np.float64) * held_b
        return more & (llr(pairs.both, held_a, held_b, self.totals.total) >= least)
