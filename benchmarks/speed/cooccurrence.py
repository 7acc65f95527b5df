"""Co-occurrence top-100 of 402,727 baskets (3.85M events) over 60,000 items, minimum support 2, Parquet to Delta.

Our side is ``cooccurrence.count.cooccurrences``, whose tasks write the files of the table. ``checked`` is our side through the
store, as in a night: it also proves the table's contract and its key, which no rival does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from benchmarks.compare import same_rows
from benchmarks.row import Figures, Scale
from benchmarks.spark import bench_session, read_delta, write_made
from benchmarks.speed.baskets import FULL, Shape, write_baskets
from benchmarks.speed.rivals.scipy_program import scipy_program
from benchmarks.speed.rivals.self_join import write_self_join
from benchmarks.timing import alternate, scratch, warm_up
from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.count import cooccurrences
from recsys_spark.tables.store import Commit, Store

TOP_N, SUPPORT, ROWS = 100, 2, "rows"
SMALL = Shape(600, 80)
COLUMNS = ("item_a", "item_b", "num_baskets", "num_baskets_a", "num_baskets_b", "cosine", "rank_a")
_SETTINGS = CooccurrenceSettings(measures=["cosine"], rank_by="cosine", min_support=SUPPORT, top_n=TOP_N)
_REFERENCE = datetime(2000, 1, 1, tzinfo=UTC)  # of a decay that is not asked for


@dataclass(frozen=True)
class _Data:
    """What both rows of the suite count: ``rows`` of Parquet files in ``folder / ROWS``."""

    spark: SparkSession
    folder: Path
    shape: Shape
    num_events: int

    @property
    def rows(self) -> DataFrame:
        return self.spark.read.parquet(str(self.folder / ROWS))

    def sizes(self) -> dict[str, object]:
        found = {"events": self.num_events, "baskets": self.shape.num_baskets, "items": self.shape.num_items}
        return {**found, "top_n": TOP_N, "min_support": SUPPORT, "master": str(self.spark.sparkContext.master)}


@contextmanager
def _baskets(scale: Scale) -> Iterator[_Data]:
    """The baskets of a scale as files, gone afterwards."""
    spark, shape = bench_session(), scale.pick(FULL, SMALL)
    with scratch() as folder:
        yield _Data(spark, folder, shape, write_baskets(folder / ROWS, shape))


def ours(rows: DataFrame, num_items: int, target: Path) -> None:
    """The project's job into a new Delta table; ties by number, as the rivals break them."""
    with cooccurrences(rows, _SETTINGS, _REFERENCE, hashes=np.arange(num_items, dtype=np.uint64)) as counted:
        write_made(rows.sparkSession, counted.rows, "cooccurrence", target)


def ours_checked(rows: DataFrame, num_items: int, target: Path) -> None:
    """The same through the store."""
    store, commit = Store(rows.sparkSession, str(target)), Commit("benchmark", "cooccurrence", "none")
    with cooccurrences(rows, _SETTINGS, _REFERENCE, hashes=np.arange(num_items, dtype=np.uint64)) as counted:
        store.replace("cooccurrence", "live", counted.rows, commit)


def against_self_join(scale: Scale) -> Figures:
    """Row ``cooccurrence-self-join``."""
    with _baskets(scale) as data:
        sides = {
            "ours": partial(ours, data.rows, data.shape.num_items),
            "checked": partial(ours_checked, data.rows, data.shape.num_items),
            "rival": partial(write_self_join, data.rows, SUPPORT, TOP_N),
        }
        warm = warm_up(sides, data.folder)
        equal = _equal(read_delta(data.spark, warm["ours"]), read_delta(data.spark, warm["rival"]))
        timed = alternate(sides, scale.rounds, data.folder, data.num_events, "events")
    more = data.sizes() | {"ratio_checked": round(timed.ratio("rival", "checked"), 3)}
    return Figures(timed.ratio("rival", "ours"), timed.medians(), timed.rounds, equal, more)


def against_scipy(scale: Scale) -> Figures:
    """Row ``cooccurrence-scipy``."""
    with _baskets(scale) as data:
        sides = {
            "ours": partial(ours, data.rows, data.shape.num_items),
            "rival": partial(scipy_program, data.folder / ROWS, SUPPORT, TOP_N),
        }
        warm = warm_up(sides, data.folder)
        equal = _equal(read_delta(data.spark, warm["ours"]), data.spark.read.parquet(str(warm["rival"])))
        timed = alternate(sides, scale.rounds, data.folder, data.num_events, "events")
    return Figures(timed.ratio("ours", "rival"), timed.medians(), timed.rounds, equal, data.sizes())


def _equal(one: DataFrame, other: DataFrame) -> bool:
    """Something was counted, and the same by both."""
    return not one.isEmpty() and same_rows(one.select(*COLUMNS), other.select(*COLUMNS), ("cosine",))
