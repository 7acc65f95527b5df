"""Python workers of a local session are forked from a daemon that has loaded their libraries."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from recsys_spark.worker_daemon import NEEDED, load

SCHEMA = "id long, parent long, frozen long, missing string"


def _look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    missing = [name for name in NEEDED if name not in sys.modules]
    for batch in batches:
        same = [[value] * batch.num_rows for value in (os.getppid(), gc.get_freeze_count(), " ".join(missing))]
        yield pa.RecordBatch.from_arrays([batch.column("id"), *map(pa.array, same)], names=["id", "parent", "frozen", "missing"])


def test_each_worker_finds_the_libraries_in_the_memory_of_the_daemon(spark: SparkSession) -> None:
    rows: list[Any] = spark.range(0, 8, 1, 2).mapInArrow(_look, SCHEMA).collect()
    assert {row["missing"] for row in rows} == {""}
    assert len({row["parent"] for row in rows}) == 1  # one daemon for all
    assert min(row["frozen"] for row in rows) > 10_000  # what torch alone makes is more


def test_a_library_that_is_not_there_is_passed_over() -> None:
    try:
        assert load(("json", "no_such_library.at_all", "numpy")) == ["json", "numpy"]
    finally:
        gc.unfreeze()


def test_frames_are_kept_without_copying_the_session(spark: SparkSession) -> None:
    assert spark.conf.get("spark.sql.sources.bucketing.autoBucketedScan.enabled") == "false"


def test_names_of_the_jvm_that_are_remembered_are_the_ones_it_gives(spark: SparkSession) -> None:
    jvm: Any = spark._jvm
    held = dict(vars(jvm))
    functions = held["org.apache.spark.sql.functions"]
    assert held["functions"]._fqn == functions._fqn == "org.apache.spark.sql.functions"
    assert functions.col("a").toString() == "a"
    assert vars(functions)["lit"](3).toString() == "3"
    assert held["PythonUtils"]._fqn == "org.apache.spark.api.python.PythonUtils"
