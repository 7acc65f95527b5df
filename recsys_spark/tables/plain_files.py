"""Which Parquet files hold a table's rows, for tasks that read them without the JVM, where nothing else has to be looked at."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

from recsys_spark.tables.store import Store

_MORE_THAN_FILES = {"columnMapping", "deletionVectors"}  # features by which files hold other names, or rows that are gone


def plain_files(store: Store, table: str, namespace: str) -> list[Path] | None:
    """The files of the newest version of a table that exists, which hold its rows and no others; None where only Delta's own
    reader finds the rows: on storage that only Hadoop reaches, in partitions, under other names or with rows marked as gone."""
    path = store.path(table, namespace)
    if store.task_folder(table, namespace) is None:
        return None
    detail = store.spark.sql(f"DESCRIBE DETAIL delta.`{path.replace('`', '``')}`").collect()[0]
    if detail["partitionColumns"] or _MORE_THAN_FILES & set(detail["tableFeatures"] or ()):
        return None
    found = store.read(table, namespace).inputFiles()
    return sorted(Path(unquote(urlparse(file).path)) for file in found)
