"""The one reader of Delta tables: by name and namespace, at any version, with what their commits say of them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.errors import ContractError, MissingTableError
from recsys_spark.tables.commits import LastCommit, last_commit
from recsys_spark.tables.content import Content, content
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]*")


class Reader:
    """Delta tables under one root: ``root/shared/<table>`` and ``root/<namespace>/<table>``."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark, self.root = spark, root.rstrip("/")
        self.runs_seen: dict[str, tuple[int, list[dict[str, Any]]]] = {}  # namespace -> (version, rows) of table runs

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
        return self._last_commit(table, namespace) is not None

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
        return self.empty(table)

    def empty(self, table: str) -> DataFrame:
        """No rows, with the columns of the table's contract."""
        return local_frame(self.spark, [], contract(table).schema)

    def version(self, table: str, namespace: str) -> int:
        """Newest version; -1 when the table does not exist."""
        last = self._last_commit(table, namespace)
        return -1 if last is None else last.version

    def rows(self, table: str, namespace: str) -> int:
        """Rows of the newest version; 0 when the table does not exist."""
        last = self._last_commit(table, namespace)
        return 0 if last is None else self._content(table, namespace, last).rows

    def content(self, table: str, namespace: str) -> str:
        """Digest of the newest version's content; ``"absent"`` when the table does not exist."""
        last = self._last_commit(table, namespace)
        return "absent" if last is None else self._content(table, namespace, last).digest

    def files(self, table: str, namespace: str, version: int | None = None) -> list[str]:
        """Exact data files of one version, sorted, as unquoted URLs (what Petastorm is given)."""
        return sorted(unquote(f) for f in self.read(table, namespace, version).inputFiles())

    def commits(self, table: str, namespace: str) -> list[dict[str, Any]]:
        """Metadata of every commit that carries ours, newest first, with its ``version``."""
        if not self.exists(table, namespace):
            return []
        rows = DeltaTable.forPath(self.spark, self.path(table, namespace)).history().collect()
        return [{**json.loads(row["userMetadata"]), "version": row["version"]} for row in rows if row["userMetadata"]]

    def last_facts(self, table: str, namespace: str) -> dict[str, Any]:
        """Metadata of the newest commit that is ours; empty where there is none."""
        last = self._last_commit(table, namespace)
        if last is None or last.metadata:
            return {} if last is None else last.metadata
        return next(iter(self.commits(table, namespace)), {})

    def _last_commit(self, table: str, namespace: str) -> LastCommit | None:
        return last_commit(self.spark, self.path(table, namespace))

    def _content(self, table: str, namespace: str, last: LastCommit) -> Content:
        """From the commit's metadata; by a scan where the newest commit is somebody else's."""
        if {"total", "rows"} <= set(last.metadata):
            return Content(int(last.metadata["total"]), int(last.metadata["rows"]))
        return content(self.read(table, namespace))
