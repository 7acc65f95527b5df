"""Rows put into a Delta table by key: the only way a table changes row by row."""

from __future__ import annotations

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
    with _upserting:
        spark.conf.set(_METADATA_CONF, metadata)
        try:
            target = DeltaTable.forPath(spark, path).alias("t")
            target.merge(rows.alias("s"), condition).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
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
