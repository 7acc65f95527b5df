"""What Delta itself knows of a table: SQL tells it too, by a job of a third of a second."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import SparkSession


def transaction(spark: SparkSession, path: str) -> Any:
    """Delta's own transaction upon the newest version of the table, begun; Delta has no public way (decision 018)."""
    jvm: Any = spark._jvm
    none = jvm.scala.Option.empty()
    return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path).startTransaction(none, none)


def metadata(begun: Any) -> dict[str, Any]:
    """Of the table: ``id``, ``schemaString``, ``partitionColumns``, ``configuration``, as Delta's protocol names them."""
    found: dict[str, Any] = json.loads(begun.metadata().json())["metaData"]
    return found


def num_bytes(begun: Any) -> int:
    """What the table's files take."""
    return int(begun.snapshot().sizeInBytes())


def reader_features(begun: Any) -> set[str]:
    """What a reader has to understand to read the table, by the names of Delta's protocol."""
    return set(json.loads(begun.protocol().json())["protocol"].get("readerFeatures", ()))
