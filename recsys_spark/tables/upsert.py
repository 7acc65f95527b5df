"""Rows put into a Delta table, or taken out of it, by key: the only way a table changes row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from threading import Lock

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.tables.contracts import Contract

_METADATA_CONF = "spark.databricks.delta.commitInfo.userMetadata"
_MAX_PRUNED_DATES = 1_000
_upserting = Lock()  # a merge takes its metadata from the session's settings, which other threads' merges must not see


def upsert(spark: SparkSession, path: str, spec: Contract, rows: DataFrame, metadata: str) -> None:
    """Update rows whose key is in the table, insert the others; one commit with this user metadata."""
    condition = " AND ".join(f"t.{c} = s.{c}" for c in spec.key)
    dates = _partition_condition(spec, rows, "t.")
    condition = f"{condition} AND {dates}" if dates else condition
    with _told(spark, metadata):
        target = DeltaTable.forPath(spark, path).alias("t")
        target.merge(rows.alias("s"), condition).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()


def delete(spark: SparkSession, path: str, keys: DataFrame, metadata: str) -> None:
    """Delete the rows that agree with one of ``keys`` (distinct) in all of its columns; one commit with this user metadata.

    By a merge: the commit of a plain delete would hold the values, which are ids of those who want to be forgotten.
    """
    condition = " AND ".join(f"t.{c} = s.{c}" for c in keys.columns)
    with _told(spark, metadata):
        DeltaTable.forPath(spark, path).alias("t").merge(keys.alias("s"), condition).whenMatchedDelete().execute()


@contextmanager
def _told(spark: SparkSession, metadata: str) -> Iterator[None]:
    with _upserting:
        spark.conf.set(_METADATA_CONF, metadata)
        try:
            yield
        finally:
            spark.conf.unset(_METADATA_CONF)


def pruned(present: DataFrame, spec: Contract, rows: DataFrame) -> DataFrame:
    """The part of a table that may hold keys of ``rows``."""
    condition = _partition_condition(spec, rows)
    return present.where(condition) if condition else present


def _partition_condition(spec: Contract, rows: DataFrame, prefix: str = "") -> str:
    """SQL that limits a date-partitioned table to the dates in ``rows``; empty when there is nothing to prune by."""
    if spec.partition != ("event_date",):
        return ""
    dates = [r[0] for r in rows.select("event_date").distinct().limit(_MAX_PRUNED_DATES + 1).collect()]
    if not dates or len(dates) > _MAX_PRUNED_DATES or not all(isinstance(d, date) for d in dates):
        return ""
    listed = ", ".join(f"DATE'{d.isoformat()}'" for d in sorted(dates))
    return f"{prefix}event_date IN ({listed})"
