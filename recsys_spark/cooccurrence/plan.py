"""What the tasks of a count need to know, and the totals that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.config.signals import WHOLE_BASKET_MEASURES, CooccurrenceSettings, Measure
from recsys_spark.cooccurrence.grouping import Floats, Ints, mix
from recsys_spark.cooccurrence.occurrences import Timing
from recsys_spark.cooccurrence.way import Way
from recsys_spark.cooccurrence.weighting import WEIGHTINGS
from recsys_spark.tables.instants import MICROS_PER_DAY, unix_micros

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Plan:
    """Settings in the units of the kernels."""

    settings: CooccurrenceSettings
    timing: Timing
    seed: int
    slots: tuple[int, ...]  # slots[block]: a key that Spark's hash partitioner sends to a partition of its own
    way: Way = "blocked"

    @property
    def num_blocks(self) -> int:
        return len(self.slots)

    @property
    def shared(self) -> bool:
        """Whether baskets are sent as they are, for the tasks of all blocks to share."""
        return self.way != "blocked"

    @property
    def deals_anchors(self) -> bool:
        """Whether tasks that make baskets deal their anchors to blocks: in files, for counts that need no more of them."""
        return self.way == "files" and not (self.timing.needed or self.counts_users)

    @property
    def measures(self) -> frozenset[Measure]:
        """Those asked for, and the one ranked by."""
        return frozenset([*self.settings.measures, self.settings.rank_by])

    @property
    def weightings(self) -> tuple[str, ...]:
        """Measures of weighted vectors among them."""
        return tuple(name for name in WEIGHTINGS if name in self.measures)

    @property
    def whole_baskets(self) -> bool:
        """Whether a measure looks at more of a basket than which pairs are in it."""
        return bool(self.measures & WHOLE_BASKET_MEASURES)

    @property
    def min_entries(self) -> int:
        """Of a basket that is counted; one of a single item counts in the length of a vector."""
        return 1 if self.weightings else 2

    @property
    def min_support(self) -> int:
        """A whole history is one user, so users are baskets there."""
        users = self.settings.min_users if self.settings.basket == "history" else 1
        return max(self.settings.min_support, users)

    @property
    def counts_users(self) -> bool:
        """Whether users have to be told apart within the baskets of a pair."""
        return self.settings.min_users > 1 and self.settings.basket != "history"


def plan_of(settings: CooccurrenceSettings, reference: datetime, seed: int, slots: Sequence[int], way: Way = "blocked") -> Plan:
    """The plan of the tasks; days become microseconds."""
    timing = Timing(
        None if settings.window_days is None else round(settings.window_days * MICROS_PER_DAY),
        None if settings.half_life_days is None else settings.half_life_days * MICROS_PER_DAY,
        unix_micros(reference),
        settings.window_items,
        settings.distance_decay,
        settings.directed,
    )
    return Plan(settings, timing, seed, tuple(slots), way)


@dataclass(frozen=True)
class ItemTotals:
    """Over all baskets; arrays are by item_idx [N].

    ``baskets``: that hold the item as an anchor; ``as_target``: as a target (the same without sides); ``total``: all
    baskets; ``weights``: summed event weights of the item (zeros where no measure needs them); ``squares``: measure ->
    squared length of the item's weighted vector.
    """

    baskets: Ints
    as_target: Ints
    total: int
    weights: Floats
    squares: dict[str, Floats]

    @property
    def num_items(self) -> int:
        """Items in any basket."""
        return int(np.count_nonzero((self.baskets > 0) | (self.as_target > 0)))


def item_hashes(items: NDArray[np.integer[Any]], seed: int, hashes: Hashes | None) -> Hashes:
    """Hash of each item: looked up, or made of its number where none are given."""
    if hashes is not None:
        found: Hashes = hashes[items]
        return found
    start = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    return mix(items.astype(np.uint64) ^ start)
