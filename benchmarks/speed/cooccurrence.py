"""Co-occurrence top-100 of 402,727 baskets (3.85M events) over 60,000 items, minimum support 2, Parquet to Delta.

Our side is ``cooccurrence.count.cooccurrences`` and the Delta writer that the rival has too. ``checked`` is our side
through the store, as in a night: it also proves the table's contract and its key, which no rival does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from benchmarks.compare import same_rows
from benchmarks.row import Figures, Scale
from benchmarks.spark import bench_session, read_delta, write_delta
from benchmarks.speed.baskets import FULL, Shape, write_baskets
from benchmarks.speed.rivals.scipy_program import scipy_program
from benchmarks.speed.rivals.self_join import write_self_join
from benchmarks.timing import alternate, scratch, warm_up
from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.count import cooccurrences
from recsys_spark.tables.store import Commit, Store

TOP_N, SUPPORT = 100, 2
SMALL = Shape(600, 80)
COLUMNS = ("item_a", "item_b", "num_baskets", "num_baskets_a", "num_baskets_b", "cosine", "rank_a")
_SETTINGS = CooccurrenceSettings(measures=["cosine"], rank_by="cosine", min_support=SUPPORT, top_n=TOP_N)
_REFERENCE = datetime(2000, 1, 1, tzinfo=UTC)  # of a decay that is not asked for


def ours(rows: DataFrame, num_items: int, target: Path) -> None:
    """The project's job into a new Delta table; ties by number, as the rivals break them."""
    with cooccurrences(rows, _SETTINGS, _REFERENCE, hashes=np.arange(num_items, dtype=np.uint64)) as counted:
        write_delta(counted.frame.select(*COLUMNS), target)


def ours_checked(rows: DataFrame, num_items: int, target: Path) -> None:
    """The same through the store."""
    store, commit = Store(rows.sparkSession, str(target)), Commit("benchmark", "cooccurrence", "none")
    with cooccurrences(rows, _SETTINGS, _REFERENCE, hashes=np.arange(num_items, dtype=np.uint64)) as counted:
        store.replace("cooccurrence", "live", counted.frame, commit)


def against_self_join(scale: Scale) -> Figures:
    """Row ``cooccurrence-self-join``."""
    spark, shape = bench_session(), scale.pick(FULL, SMALL)
    with scratch() as folder:
        num_events = write_baskets(folder / "rows", shape)
        rows = spark.read.parquet(str(folder / "rows"))
        sides = {
            "ours": partial(ours, rows, shape.num_items),
            "checked": partial(ours_checked, rows, shape.num_items),
            "rival": partial(write_self_join, rows, SUPPORT, TOP_N),
        }
        warm = warm_up(sides, folder)
        equal = _equal(read_delta(spark, warm["ours"]), read_delta(spark, warm["rival"]))
        timed = alternate(sides, scale.rounds, folder, num_events, "events")
    more = _sizes(spark, shape, num_events) | {"ratio_checked": round(timed.ratio("rival", "checked"), 3)}
    return Figures(timed.ratio("rival", "ours"), timed.medians(), timed.rounds, equal, more)


def against_scipy(scale: Scale) -> Figures:
    """Row ``cooccurrence-scipy``."""
    spark, shape = bench_session(), scale.pick(FULL, SMALL)
    with scratch() as folder:
        num_events = write_baskets(folder / "rows", shape)
        rows = spark.read.parquet(str(folder / "rows"))
        sides = {
            "ours": partial(ours, rows, shape.num_items),
            "rival": partial(scipy_program, folder / "rows", SUPPORT, TOP_N),
        }
        warm = warm_up(sides, folder)
        equal = _equal(read_delta(spark, warm["ours"]), spark.read.parquet(str(warm["rival"])))
        timed = alternate(sides, scale.rounds, folder, num_events, "events")
    return Figures(timed.ratio("ours", "rival"), timed.medians(), timed.rounds, equal, _sizes(spark, shape, num_events))


def _equal(one: DataFrame, other: DataFrame) -> bool:
    """Something was counted, and the same by both."""
    return not one.isEmpty() and same_rows(one.select(*COLUMNS), other.select(*COLUMNS), ("cosine",))


def _sizes(spark: SparkSession, shape: Shape, num_events: int) -> dict[str, object]:
    found = {"events": num_events, "baskets": shape.num_baskets, "items": shape.num_items}
    return {**found, "top_n": TOP_N, "min_support": SUPPORT, "master": str(spark.sparkContext.master)}
