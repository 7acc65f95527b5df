"""The newest commit of a Delta table, read from its log files: a Spark job for one small JSON line would cost seconds a night."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import SparkSession

from recsys_spark.tables.places import local_path

_COMMIT_FILE = re.compile(r"\d{20}\.json")


@dataclass(frozen=True)
class LastCommit:
    """Version of the newest commit and the metadata that we (not somebody else's OPTIMIZE) put into it."""

    version: int
    metadata: dict[str, Any] = field(default_factory=dict)


def last_commit(spark: SparkSession, table_path: str) -> LastCommit | None:
    """The newest commit, or None where there is no Delta table; never looks at data files."""
    log = f"{table_path}/_delta_log"
    folder = local_path(spark, log)
    if folder is None:
        return _remote(spark, log)
    names = [p.name for p in folder.glob("*.json") if _COMMIT_FILE.fullmatch(p.name)]
    if not names:
        return None
    with (folder / max(names)).open(encoding="utf-8") as lines:
        return LastCommit(int(max(names)[:20]), _user_metadata(next((line for line in lines if '"commitInfo"' in line), "{}")))


def _remote(spark: SparkSession, log: str) -> LastCommit | None:
    """The same through Hadoop's file systems (HDFS, object stores)."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(log)
    files = path.getFileSystem(spark._jsc.hadoopConfiguration())
    if not files.exists(path):
        return None
    names = [status.getPath().getName() for status in files.listStatus(path)]
    names = [name for name in names if _COMMIT_FILE.fullmatch(name)]
    if not names:
        return None
    stream = files.open(jvm.org.apache.hadoop.fs.Path(path, max(names)))
    reader = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(stream, "UTF-8"))
    try:
        line = reader.readLine()
        while line is not None and '"commitInfo"' not in line:
            line = reader.readLine()
    finally:
        reader.close()
    return LastCommit(int(max(names)[:20]), _user_metadata(line or "{}"))


def _user_metadata(line: str) -> dict[str, Any]:
    try:
        found = json.loads(json.loads(line).get("commitInfo", {}).get("userMetadata") or "{}")
    except ValueError:  # somebody else's commit
        return {}
    return found if isinstance(found, dict) else {}
