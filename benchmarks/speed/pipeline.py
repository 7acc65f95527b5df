"""A whole night on data of your own: ``BENCH_DATA=FOLDER make bench ROW=whole-pipeline``, FOLDER holding a config.toml.

Nothing is compared. The line says how long each step took, how much memory the largest process of each kind needed, and
what Spark spilled. The warehouse is the config's: an empty one gives a first night, a filled one what a later one costs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from benchmarks.machine import PeakMemory, peak_memory
from benchmarks.row import Figures, Scale
from benchmarks.timing import log
from recsys_spark.config import load_config
from recsys_spark.order import run_night
from recsys_spark.session import build_session
from recsys_spark.tables.store import Store


class Spill:
    """Bytes spilled by all stages so far, by Spark's own count; read after each step, before old stages are forgotten."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._by_stage: dict[tuple[int, int], tuple[int, int]] = {}

    def look(self) -> None:
        """Read the figures of the stages that Spark remembers."""
        context: Any = self._spark.sparkContext
        stages = context._jsc.sc().statusStore().stageList(None, False, False, _doubles(context), None)
        for place in range(stages.size()):
            stage = stages.apply(place)
            self._by_stage[stage.stageId(), stage.attemptId()] = (stage.memoryBytesSpilled(), stage.diskBytesSpilled())

    def totals(self) -> dict[str, int]:
        """In memory before, and on disk after, serialisation."""
        memory, disk = (sum(found[i] for found in self._by_stage.values()) for i in range(2))
        return {"stages": len(self._by_stage), "spilled_memory_bytes": memory, "spilled_disk_bytes": disk}


def _doubles(context: Any) -> Any:
    """An empty array of the JVM: no quantiles are asked for."""
    return context._gateway.new_array(context._jvm.double, 0)


class Steps:
    """Told each step of a night when it is done."""

    def __init__(self, spill: Spill, peaks: PeakMemory) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_mib: dict[str, dict[str, int]] = {}
        self._spill, self._peaks, self._last = spill, peaks, time.perf_counter()

    def done(self, stage: str, namespace: str) -> None:
        """Note how long the step took and what the peaks are by now."""
        name, now = f"{stage} {namespace}", time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now
        self._spill.look()
        self.peak_mib[name] = self._peaks.by_kind()
        log.info("step", step=name, seconds=self.seconds[name], peak_mib=self.peak_mib[name])


def whole_pipeline(_scale: Scale) -> Figures:
    """Row ``whole-pipeline``; once, as a night is long."""
    config = load_config(Path(os.environ["BENCH_DATA"]) / "config.toml")
    spark = SparkSession.getActiveSession() or build_session(config.spark, "benchmark-night")
    spill = Spill(spark)
    with peak_memory() as peaks:
        steps, start = Steps(spill, peaks), time.perf_counter()
        run_night(config, spark, steps.done)
        seconds = time.perf_counter() - start
    store = Store(spark, config.warehouse)
    more = {
        **{table: store.rows(table, "live") for table in ("events", "users", "items")},
        "steps_s": steps.seconds,
        "peak_mib": peaks.by_kind(),
        "peak_mib_by_then": steps.peak_mib,
        **spill.totals(),
        "master": str(spark.sparkContext.master),
    }
    return Figures(None, {"night_s": seconds}, 1, None, more)
