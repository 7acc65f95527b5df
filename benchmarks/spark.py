"""The session of a row: the project's own, as a user gets it."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.serving import SparkSettings
from recsys_spark.session import build_session


def bench_session() -> SparkSession:
    """The running session, else a local one with the project's defaults."""
    return SparkSession.getActiveSession() or build_session(SparkSettings(), "benchmarks")


def write_delta(frame: DataFrame, target: Path) -> None:
    """One new Delta table; the same writer for both sides."""
    frame.write.format("delta").mode("overwrite").save(str(target))


def read_delta(spark: SparkSession, target: Path) -> DataFrame:
    return spark.read.format("delta").load(str(target))
