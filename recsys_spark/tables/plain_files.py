"""Which Parquet files hold a table's rows, for tasks that read them without the JVM, where nothing else has to be looked at."""

from __future__ import annotations

from pathlib import Path

from recsys_spark.tables.delta_log import metadata, reader_features, transaction
from recsys_spark.tables.places import local_path
from recsys_spark.tables.store import Store

_COLUMN_MAPPING = "delta.columnMapping.mode"  # by which columns of files have other names


def plain_files(store: Store, table: str, namespace: str) -> list[Path] | None:
    """The files of the newest version of a table that exists, which hold its rows and no others; None where only Delta's own
    reader finds the rows: on storage that only Hadoop reaches, in partitions, under other names or with rows marked as gone."""
    if store.task_folder(table, namespace) is None:
        return None
    begun = transaction(store.spark, store.path(table, namespace))
    found = metadata(begun)
    mapped = found["configuration"].get(_COLUMN_MAPPING, "none") != "none"
    if mapped or found["partitionColumns"] or "deletionVectors" in reader_features(begun):
        return None
    files = [local_path(store.spark, url) for url in store.files(table, namespace)]
    here = [file for file in files if file is not None]
    return here if len(here) == len(files) else None  # a shallow clone has files elsewhere
