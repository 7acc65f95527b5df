"""Committing files that tasks have written: Delta's own transaction, told of the files instead of writing them itself."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from pyspark.sql import SparkSession

from recsys_spark.tables.contracts import Contract
from recsys_spark.tables.delta_log import metadata, transaction
from recsys_spark.tables.task_files import Staged

_NOT_PLAIN = ("delta.columnMapping", "delta.constraints", "delta.enableChangeDataFeed")  # what only Delta's own writer heeds


def add_files(spark: SparkSession, staged: Staged, path: str, spec: Contract, user_metadata: str, replace_all: bool) -> bool:
    """Add the files to the table in one commit, in place of all that it holds where ``replace_all``.

    Returns False, and commits nothing, where the table is not a plain one with the columns of the contract.

    Raises:
        Py4JJavaError: another writer was faster (Delta's own errors).
    """
    jvm: Any = spark._jvm
    delta, none = jvm.org.apache.spark.sql.delta, jvm.scala.Option.empty()
    txn = transaction(spark, path)
    from_json = delta.actions.Action.fromJson
    actions: list[Any] = []
    if txn.readVersion() < 0:
        txn.updateMetadata(from_json(json.dumps({"metaData": _metadata(spec)})), False)
    elif not _is_plain(metadata(txn), spec):
        return False
    if replace_all:
        held = txn.filterFiles().iterator()
        while held.hasNext():
            actions.append(held.next().removeWithTimestamp(_now_ms(), True))
    actions += [from_json(json.dumps({"add": added})) for added in _added(staged)]
    mode = jvm.org.apache.spark.sql.SaveMode.Overwrite if replace_all else jvm.org.apache.spark.sql.SaveMode.Append
    partitions = jvm.scala.Option.apply(_seq(jvm, spec.partition))
    operation = getattr(delta, "DeltaOperations$Write")(mode, partitions, none, jvm.scala.Option.apply(user_metadata))
    staged.handed_over = True  # before: a commit that reports an error may have happened all the same
    txn.commit(_seq(jvm, actions), operation)
    return True


def _metadata(spec: Contract) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps(_columns(spec)),
        "partitionColumns": list(spec.partition),
        "configuration": {},
        "createdTime": _now_ms(),
    }


def _is_plain(found: dict[str, Any], spec: Contract) -> bool:
    if any(name.startswith(_NOT_PLAIN) for name in found["configuration"]):
        return False
    columns = _nullable(json.loads(found["schemaString"]))
    return bool(columns == _columns(spec) and found["partitionColumns"] == list(spec.partition))


def _columns(spec: Contract) -> Any:
    """The schema's JSON as Delta keeps those of frames."""
    return _nullable(json.loads(spec.schema.json()))


def _nullable(schema: Any) -> Any:
    """A schema's JSON with every column nullable."""
    if isinstance(schema, dict):
        free = {"nullable": True, "containsNull": True, "valueContainsNull": True}
        return {name: free.get(name, _nullable(part)) for name, part in schema.items()}
    return [_nullable(part) for part in schema] if isinstance(schema, list) else schema


def _added(staged: Staged) -> Iterable[dict[str, Any]]:
    for file in staged.files:
        yield {
            "path": quote(file.name),
            "partitionValues": dict(staged.partition),
            "size": file.num_bytes,
            "modificationTime": _now_ms(),
            "dataChange": True,
            "stats": json.dumps({"numRecords": file.num_rows}),
        }


def _now_ms() -> int:
    return int(time.time() * 1_000)


def _seq(jvm: Any, items: Iterable[Any]) -> Any:
    found = jvm.java.util.ArrayList()
    for item in items:
        found.add(item)
    return jvm.scala.jdk.javaapi.CollectionConverters.asScala(found).toSeq()
