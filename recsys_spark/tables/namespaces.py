"""Namespaces as folders: which there are, and how one goes with all its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from delta.tables import DeltaTable

from recsys_spark.tables.contracts import TABLES
from recsys_spark.tables.store import Store

_LISTINGS_PER_CORE = 4  # a vacuum makes as many tasks as the setting says, 10,000 unless told otherwise, for any table

_SPAN_CHECKED = "spark.databricks.delta.retentionDurationCheck.enabled"


def below(store: Store, parent: str) -> list[str]:
    """Names of the folders in ``root/parent``, sorted: of ``eval``, its run ids. None where there is no such folder."""
    files, path = _folder(store, parent)
    if not files.exists(path):
        return []
    return sorted(str(status.getPath().getName()) for status in files.listStatus(path) if status.isDirectory())


def remove(store: Store, namespace: str, but: Sequence[str] = ()) -> None:
    """Delete a namespace, those inside it too; its own tables ``but`` stay. Works on any Hadoop file system."""
    for name in below(store, namespace):
        if name not in but:
            files, path = _folder(store, f"{namespace}/{name}")
            files.delete(path, True)
    files, path = _folder(store, namespace)
    if not but and files.exists(path):
        files.delete(path, True)


def vacuum(store: Store, namespace: str, at_once: bool = False) -> list[str]:
    """Free the files that a namespace's tables (and the shared ones) have not used for as long as Delta keeps them (a week
    unless a table says otherwise), or that they do not use now (``at_once``: who still reads an older version loses it); returns
    the tables."""
    present = [name for name in TABLES if store.exists(name, namespace)]
    settings, spread = store.spark.conf, "spark.sql.sources.parallelPartitionDiscovery.parallelism"
    before, checked = str(settings.get(spread)), str(settings.get(_SPAN_CHECKED, "true"))
    settings.set(spread, str(_LISTINGS_PER_CORE * store.spark.sparkContext.defaultParallelism))
    settings.set(_SPAN_CHECKED, str(not at_once).lower())
    try:
        for name in present:
            table = DeltaTable.forPath(store.spark, store.path(name, namespace))
            table.vacuum(0) if at_once else table.vacuum()
    finally:
        settings.set(spread, before)
        settings.set(_SPAN_CHECKED, checked)
    return present


def _folder(store: Store, namespace: str) -> tuple[Any, Any]:
    """The file system and path of a namespace, whose parts are checked by ``Store.path``."""
    own = store.path("runs", namespace).rsplit("/", 1)[0]
    jvm: Any = store.spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(own)
    return path.getFileSystem(store.spark._jsc.hadoopConfiguration()), path
