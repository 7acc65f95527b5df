"""The session of a row: the project's own, as a user gets it."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.serving import SparkSettings
from recsys_spark.session import build_session
from recsys_spark.tables.add_files import add_files
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.task_files import Made, Staged, stage


def bench_session() -> SparkSession:
    """The running session, else a local one with the project's defaults."""
    return SparkSession.getActiveSession() or build_session(SparkSettings(), "benchmarks")


def write_delta(frame: DataFrame, target: Path) -> None:
    """One new Delta table by Spark's own writer."""
    frame.write.format("delta").mode("overwrite").save(str(target))


def commit_files(spark: SparkSession, staged: Staged, table: str, target: Path) -> None:
    """One new Delta table of files that tasks have written: as the store does, but for its checks, which no rival makes."""
    add_files(spark, staged, str(target), contract(table), "", replace_all=True)


def write_made(spark: SparkSession, made: Made, table: str, target: Path) -> None:
    """The rows of a table into files by the tasks that make them, and one commit."""
    commit_files(spark, stage(made, contract(table), str(target)), table, target)


def read_delta(spark: SparkSession, target: Path) -> DataFrame:
    return spark.read.format("delta").load(str(target))
