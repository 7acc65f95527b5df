"""The one reader and writer of Delta tables: checked replace, upsert and append, pinned versions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any
from urllib.parse import unquote

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.errors import ContractError, MissingTableError
from recsys_spark.log import get_logger
from recsys_spark.tables.content import Checked, check, content_hash, differing_rows, frames_equal, row_hash
from recsys_spark.tables.contracts import Contract, conform, contract

log = get_logger(__name__)
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]*")
_METADATA_CONF = "spark.databricks.delta.commitInfo.userMetadata"
_MAX_PRUNED_DATES = 1_000


@dataclass(frozen=True)
class Commit:
    """Who writes and why; goes into the Delta commit together with the data."""

    run_id: str
    stage: str
    fingerprint: str

    def metadata(self, **facts: Any) -> str:
        return json.dumps({**asdict(self), **facts}, sort_keys=True)


@dataclass(frozen=True)
class Written:
    """What a write did. ``changed`` is False when the table already held this content."""

    table: str
    version: int
    rows: int
    content: str
    changed: bool


class Store:
    """Delta tables under one root: ``root/shared/<table>`` and ``root/<namespace>/<table>``."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark, self.root = spark, root.rstrip("/")

    def path(self, table: str, namespace: str) -> str:
        """Folder of a table.

        Raises:
            ContractError: the table has no contract, or the namespace has a part that is no plain name.
        """
        spec = contract(table)
        parts = ["shared"] if spec.shared else namespace.split("/")
        for part in parts:
            if not _SEGMENT.fullmatch(part):
                raise ContractError("namespace", repr(namespace), "letters, digits, '_', '-', '.' between slashes")
        return "/".join([self.root, *parts, table])

    def exists(self, table: str, namespace: str) -> bool:
        return DeltaTable.isDeltaTable(self.spark, self.path(table, namespace))

    def read(self, table: str, namespace: str, version: int | None = None) -> DataFrame:
        """The table, at its newest or a given version.

        Raises:
            MissingTableError: nothing has written it yet.
        """
        path = self.path(table, namespace)
        if not self.exists(table, namespace):
            raise MissingTableError(f"table '{table}'", f"not written in {path}", do="run the stage that writes it first")
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.load(path)

    def read_or_empty(self, table: str, namespace: str) -> DataFrame:
        """The table, or an empty frame of its contract where nothing has written it yet."""
        if self.exists(table, namespace):
            return self.read(table, namespace)
        return self.spark.createDataFrame([], contract(table).schema)

    def version(self, table: str, namespace: str) -> int:
        """Newest version; -1 when the table does not exist."""
        if not self.exists(table, namespace):
            return -1
        return int(self._last_commit(table, namespace)["version"])

    def content(self, table: str, namespace: str) -> str:
        """Content hash of the newest version; ``"absent"`` when the table does not exist."""
        if not self.exists(table, namespace):
            return "absent"
        metadata = self._metadata(self._last_commit(table, namespace))
        known = metadata.get("content")
        return str(known) if known else content_hash(self.read(table, namespace))

    def files(self, table: str, namespace: str, version: int | None = None) -> list[str]:
        """Exact data files of one version, sorted, as unquoted URLs (what Petastorm is given)."""
        return sorted(unquote(f) for f in self.read(table, namespace, version).inputFiles())

    def commits(self, table: str, namespace: str) -> list[dict[str, Any]]:
        """Metadata of every commit that carries ours, newest first, with its ``version``."""
        if not self.exists(table, namespace):
            return []
        rows = DeltaTable.forPath(self.spark, self.path(table, namespace)).history().collect()
        return [{**self._metadata(row.asDict()), "version": row["version"]} for row in rows if row["userMetadata"]]

    def replace(
        self, table: str, namespace: str, frame: DataFrame, commit: Commit, where: str | None = None, num_files: int | None = None
    ) -> Written:
        """Make the table (or its slice ``where``) hold exactly ``frame``; a result equal to the present one is not committed.

        Raises:
            ContractError: types, nulls or keys break the contract; nothing is written.
        """
        spec = contract(table)
        with _kept(conform(frame, spec)) as rows:
            checked = check(rows, spec)
            held = self._already_holds(spec, namespace, rows, checked, where)
            if held and self._dealt(table, namespace, checked.rows, num_files):
                return Written(table, self.version(table, namespace), checked.rows, self.content(table, namespace), False)
            out = rows if num_files is None else _equal_files(rows, num_files)
            facts = (
                {"rows": checked.rows, "content": checked.content} if where is None else {"rows": checked.rows, "slice": where}
            )
            writer = out.write.format("delta").mode("overwrite").option("userMetadata", commit.metadata(table=table, **facts))
            if where is not None and self.exists(table, namespace):
                writer = writer.option("replaceWhere", where)
            if num_files is not None:
                writer = writer.option("delta.enableDeletionVectors", "false")
            writer.partitionBy(*spec.partition).save(self.path(table, namespace))
            return Written(table, self.version(table, namespace), checked.rows, self.content(table, namespace), True)

    def merge(self, table: str, namespace: str, frame: DataFrame, commit: Commit) -> Written:
        """Upsert by key. Only rows that are new or differ are written; none, and nothing is committed.

        Raises:
            ContractError: types, nulls or keys break the contract; nothing is written.
        """
        spec = contract(table)
        with _kept(conform(frame, spec)) as rows:
            check(rows, spec)
            if not self.exists(table, namespace):
                return self.replace(table, namespace, rows, commit)
            with _kept(differing_rows(rows, self._pruned(spec, namespace, rows), spec.key)) as changes:
                count = changes.count()
                if count:
                    self._upsert(spec, namespace, changes, commit, count)
                version = self.version(table, namespace)
                return Written(table, version, count, self.content(table, namespace), count > 0)

    def append(self, table: str, namespace: str, frame: DataFrame, commit: Commit) -> Written:
        """Add rows, in one commit."""
        spec = contract(table)
        with _kept(conform(frame, spec)) as rows:
            checked = check(rows, spec)
            metadata = commit.metadata(table=table, rows=checked.rows)
            rows.write.format("delta").mode("append").option("userMetadata", metadata).save(self.path(table, namespace))
        return Written(table, self.version(table, namespace), checked.rows, checked.content, True)

    def _last_commit(self, table: str, namespace: str) -> dict[str, Any]:
        rows = DeltaTable.forPath(self.spark, self.path(table, namespace)).history(1).collect()
        found: dict[str, Any] = rows[0].asDict()
        return found

    @staticmethod
    def _metadata(commit: dict[str, Any]) -> dict[str, Any]:
        try:
            found = json.loads(commit.get("userMetadata") or "{}")
        except ValueError:  # somebody else's commit
            return {}
        return found if isinstance(found, dict) else {}

    def _already_holds(self, spec: Contract, namespace: str, rows: DataFrame, new: Checked, where: str | None) -> bool:
        if not self.exists(spec.name, namespace):
            return False
        present = self.read(spec.name, namespace)
        if where is not None:
            present = present.where(where)
        elif self.content(spec.name, namespace) == new.content:
            return True
        if present.count() != new.rows:
            return False
        if content_hash(present) == new.content:
            return True
        return bool(spec.key) and frames_equal(rows, present, spec.key)

    def _dealt(self, table: str, namespace: str, rows: int, num_files: int | None) -> bool:
        """Whether the rows lie in as many files as wanted; fewer rows than files make one file each."""
        return num_files is None or len(self.files(table, namespace)) == min(num_files, rows)

    def _pruned(self, spec: Contract, namespace: str, rows: DataFrame) -> DataFrame:
        present = self.read(spec.name, namespace)
        condition = _partition_condition(spec, rows)
        return present.where(condition) if condition else present

    def _upsert(self, spec: Contract, namespace: str, changes: DataFrame, commit: Commit, count: int) -> None:
        condition = " AND ".join(f"t.{c} = s.{c}" for c in spec.key)
        pruned = _partition_condition(spec, changes, "t.")
        condition = f"{condition} AND {pruned}" if pruned else condition
        self.spark.conf.set(_METADATA_CONF, commit.metadata(table=spec.name, rows=count))
        try:
            target = DeltaTable.forPath(self.spark, self.path(spec.name, namespace)).alias("t")
            target.merge(changes.alias("s"), condition).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
        finally:
            self.spark.conf.unset(_METADATA_CONF)


@contextmanager
def _kept(frame: DataFrame) -> Iterator[DataFrame]:
    """The frame, computed once while it is checked and written."""
    kept = frame.persist()
    try:
        yield kept
    finally:
        kept.unpersist()


def _equal_files(frame: DataFrame, num_files: int) -> DataFrame:
    """Deal rows to ``num_files`` partitions in the order of a row hash: sizes equal to within one, and the same rows
    in the same order in the same file each time, so that a seed gives the same training batches."""
    ordered = frame.withColumn("_hash", row_hash(frame)).orderBy("_hash", *[c for c, t in frame.dtypes if "map" not in t])
    keyed = ordered.drop("_hash").rdd.zipWithIndex().map(lambda pair: (pair[1], pair[0]))
    dealt = keyed.repartitionAndSortWithinPartitions(num_files, lambda position: int(position) % num_files).values()
    return frame.sparkSession.createDataFrame(dealt, frame.schema)


def _partition_condition(spec: Contract, rows: DataFrame, prefix: str = "") -> str:
    """SQL that limits a date-partitioned table to the dates in ``rows``; empty when there is nothing to prune by."""
    if spec.partition != ("event_date",):
        return ""
    dates = [r[0] for r in rows.select("event_date").distinct().limit(_MAX_PRUNED_DATES + 1).collect()]
    if not dates or len(dates) > _MAX_PRUNED_DATES or not all(isinstance(d, date) for d in dates):
        return ""
    listed = ", ".join(f"DATE'{d.isoformat()}'" for d in sorted(dates))
    return f"{prefix}event_date IN ({listed})"


def slice_of(**values: str) -> str:
    """A ``where`` for ``replace`` out of checked parts: ``slice_of(as_of=..., run_id=...)``.

    Raises:
        ContractError: a value holds anything but letters, digits and ``_-.:+ ``.
    """
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z0-9_.:+ -]+", value):
            raise ContractError(f"slice by {name}", repr(value), "letters, digits, '_', '-', '.', ':', '+' and spaces")
    return " AND ".join(
        f"{name} = TIMESTAMP'{value}'" if name == "as_of" else f"{name} = '{value}'" for name, value in values.items()
    )


__all__ = ["Commit", "Store", "Written", "slice_of"]
