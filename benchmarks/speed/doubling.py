"""Co-occurrence from 1M to 32M events in doublings, items and users growing in proportion: time must grow in proportion."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from benchmarks.compare import same_rows
from benchmarks.machine import peak_memory
from benchmarks.row import Figures, Scale
from benchmarks.spark import bench_session, read_delta
from benchmarks.speed.baskets import FULL, Shape, write_baskets
from benchmarks.speed.cooccurrence import COLUMNS, SUPPORT, TOP_N, ours
from benchmarks.speed.rivals.scipy_program import scipy_program
from benchmarks.timing import log, scratch, seconds_of

_EVENTS_PER_BASKET = 9.56  # of FULL, so that FULL is one point on the line
_RUNS = 3  # of each size: the first one after rows were made is slower, whatever the size


@dataclass(frozen=True)
class Point:
    """One size: median seconds of its runs and the first one's, and the largest Python worker in MiB, with pages of files that it
    shares with others and without them."""

    events: int
    seconds: float
    first_s: float
    worker_peak_mib: int
    worker_own_mib: int


def shape_of(num_events: int) -> Shape:
    """As many baskets and items per event as FULL has."""
    num_baskets = max(2, round(num_events / _EVENTS_PER_BASKET))
    return Shape(num_baskets, max(20, round(num_baskets * FULL.num_items / FULL.num_baskets)))


def doubling(scale: Scale) -> Figures:
    """Row ``cooccurrence-doubling``: the ratio is the largest factor of time per doubling."""
    spark = bench_session()
    sizes = [1_000_000 * 2**n for n in range(6)] if not scale.small else [2_000, 4_000, 8_000]
    with scratch() as folder:
        equal = _warm_up_and_check(spark, sizes[0], folder)
        points = [_measure(spark, size, folder / f"size-{size}") for size in sizes]
    factors = [_factor(a, b) for a, b in pairwise(points)]
    more = {
        "events": [p.events for p in points],
        "seconds": [round(p.seconds, 2) for p in points],
        "first_s": [round(p.first_s, 2) for p in points],
        "factors": [round(f, 3) for f in factors],
        "worker_peak_mib": [p.worker_peak_mib for p in points],
        "worker_own_mib": [p.worker_own_mib for p in points],
    }
    return Figures(max(factors), {"smallest_s": points[0].seconds, "largest_s": points[-1].seconds}, _RUNS, equal, more)


def _factor(small: Point, large: Point) -> float:
    """Of time for twice the events; sizes that are not exactly double are put right in proportion."""
    return large.seconds / small.seconds * 2 * small.events / large.events


def _warm_up_and_check(spark: SparkSession, num_events: int, folder: Path) -> bool:
    shape, source = shape_of(num_events), folder / "warm-rows"
    write_baskets(source, shape)
    ours(spark.read.parquet(str(source)), shape.num_items, folder / "warm-ours")
    scipy_program(source, SUPPORT, TOP_N, folder / "warm-scipy")
    one, other = read_delta(spark, folder / "warm-ours"), spark.read.parquet(str(folder / "warm-scipy"))
    return same_rows(one.select(*COLUMNS), other.select(*COLUMNS), ("cosine",))


def _measure(spark: SparkSession, num_events: int, folder: Path) -> Point:
    shape = shape_of(num_events)
    found = write_baskets(folder / "rows", shape)
    rows: DataFrame = spark.read.parquet(str(folder / "rows"))
    side = partial(ours, rows, shape.num_items)
    with peak_memory() as peaks:
        seconds = [seconds_of(side, folder / f"run-{run}") for run in range(_RUNS)]
    shutil.rmtree(folder)
    largest, own = (kinds.get("python worker", 0) for kinds in (peaks.by_kind(), peaks.own_by_kind()))
    point = Point(found, statistics.median(seconds), seconds[0], largest, own)
    log.info("size", events=found, seconds=round(point.seconds, 2), rate=f"{found / point.seconds:,.0f} events/s")
    return point
