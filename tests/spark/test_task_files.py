"""Tables whose files tasks write themselves: the same tables as by Spark's writer, and nothing in them that no commit names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from delta.tables import DeltaTable
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from recsys_spark.errors import ContractError
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.places import local_path
from recsys_spark.tables.store import Commit, Store, slice_of
from recsys_spark.tables.task_files import Made, Staged, partition_text, stage

NS, AS_OF = "live", datetime(2024, 1, 1, tzinfo=UTC)


def _made(spark: SparkSession, num_rows: int, weight: float = 1.0, copies: int = 1, fails: bool = False) -> Made:
    """Rows of table pairs, in three tasks where they are few, else in one."""

    def make(batches: Iterable[Any]) -> Iterable[Any]:
        for batch in batches:
            anchors = np.tile(batch.column("id").to_numpy().astype(np.int32), copies)
            texts = pa.repeat(pa.scalar("behaviour"), len(anchors)), pa.repeat(pa.scalar("träin"), len(anchors))
            weights = pa.array(np.full(len(anchors), weight, np.float32), mask=np.isnan(np.full(len(anchors), weight)))
            columns = [pa.array(anchors), pa.array(anchors + 1), weights, *texts]
            yield pa.RecordBatch.from_arrays(columns, names=["anchor_idx", "item_idx", "weight", "source", "split"])
        if fails:
            raise RuntimeError("after its rows")

    return Made(spark.range(0, num_rows, 1, 3 if num_rows < 100 else 1), make, contract("pairs").schema)


def _on_disk(store: Store, table: str) -> set[str]:
    return {str(path) for path in Path(store.path(table, NS)).rglob("*.parquet")}


def _named(store: Store, table: str) -> set[str]:
    return {str(local_path(store.spark, url)) for url in store.files(table, NS)}


@pytest.mark.parametrize("num_rows", [0, 2, 140_000])  # none, fewer than tasks, more than a row group
def test_the_table_is_that_of_spark_s_own_writer(spark: SparkSession, store: Store, commit: Commit, num_rows: int) -> None:
    made = _made(spark, num_rows)
    written = store.replace("pairs", NS, made, commit)
    usual = store.replace("pairs", "usual", made.frame, commit)
    assert written == usual
    assert store.read("pairs", NS).schema == store.read("pairs", "usual").schema
    if num_rows < 100:  # beyond, the equal hashes of all rows must do
        assert store.read("pairs", NS).exceptAll(store.read("pairs", "usual")).isEmpty()
    assert store.rows("pairs", NS) == num_rows == store.read("pairs", NS).count()
    assert store.commits("pairs", NS)[0]["fingerprint"] == commit.fingerprint
    again = store.replace("pairs", NS, _made(spark, num_rows), commit)
    assert (again.version, again.changed) == (0, False)
    assert _on_disk(store, "pairs") == _named(store, "pairs")  # what was made for nothing is gone


def test_a_folder_may_have_any_name(spark: SparkSession, tmp_path: Path, commit: Commit) -> None:
    store = Store(spark, str(tmp_path / "ware [1]{a,b}* %20 höuse"))
    for weight in (1.0, 0.5):
        store.replace("pairs", NS, _made(spark, 4, weight), commit)
        assert {(r["anchor_idx"], r["weight"]) for r in store.read("pairs", NS).collect()} == {(i, weight) for i in range(4)}


def test_other_rows_take_the_place_of_all(spark: SparkSession, store: Store, commit: Commit) -> None:
    store.replace("pairs", NS, _made(spark, 6), commit)
    before = _named(store, "pairs")
    assert store.replace("pairs", NS, _made(spark, 4, weight=0.5), commit).version == 1
    assert {(r["anchor_idx"], r["weight"]) for r in store.read("pairs", NS).collect()} == {(i, 0.5) for i in range(4)}
    assert before <= _on_disk(store, "pairs")  # readers of the version before still find theirs
    assert store.read("pairs", NS, version=0).count() == 6


@pytest.mark.parametrize("many", [0, 500_000])
def test_what_breaks_the_contract_leaves_nothing(
    spark: SparkSession, store: Store, commit: Commit, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_spark.tables.store.MANY_ROWS", many)
    store.replace("pairs", "kept", _made(spark, 4), commit)
    assert store.rows("pairs", "kept") == 4
    for made, message in ((_made(spark, 4, copies=2), "occurs 2 times"), (_made(spark, 4, weight=np.nan), "null weight")):
        with pytest.raises(ContractError, match=message):
            store.replace("pairs", NS, made, commit)
    with pytest.raises(PythonException, match="after its rows"):
        store.replace("pairs", NS, _made(spark, 140_000, fails=True), commit)
    assert not store.exists("pairs", NS)
    assert not _on_disk(store, "pairs")


def test_files_of_a_copy_of_the_tasks_are_in_no_table(spark: SparkSession, store: Store, commit: Commit) -> None:
    """As speculation and a retry leave them: written, never told of."""
    folder = store.path("pairs", NS)
    lost = stage(_made(spark, 5, weight=7.0), contract("pairs"), folder)
    store.replace("pairs", NS, _made(spark, 5), commit)
    assert {r["weight"] for r in store.read("pairs", NS).collect()} == {1.0}
    assert store.read("pairs", NS).count() == 5
    assert _on_disk(store, "pairs") - _named(store, "pairs") == {f"{folder}/{file.name}" for file in lost.files}


def test_slices_of_a_partition(spark: SparkSession, store: Store, commit: Commit) -> None:
    table = "fallback_recommendations"

    def staged(run: str, k: int) -> Staged:
        def make(batches: Iterable[Any]) -> Iterable[Any]:
            for batch in batches:
                ranks = batch.column("id").to_numpy().astype(np.int32) + 1
                items, contexts = pa.array([f"i{r}" for r in ranks]), pa.array([""] * len(ranks))
                columns = [contexts, pa.array(ranks), items, pa.array(np.ones(len(ranks)))]
                yield pa.RecordBatch.from_arrays(columns, names=["context", "rank", "item_id", "score"])

        made = Made(spark.range(0, k, 1, 2), make, "")
        found = stage(made, contract(table), store.path(table, NS), {"run_id": run})
        return Staged(found.folder, found.files, {"as_of": partition_text(AS_OF)})

    versions = []
    for run, k in (("a", 2), ("b", 3), ("a", 1), ("a", 1), ("b", 4)):
        where = slice_of(as_of=AS_OF.isoformat(), run_id=run)
        versions.append(store.replace(table, NS, staged(run, k), commit, where=where).version)
    assert versions == [0, 1, 2, 2, 3]
    rows = store.read(table, NS)
    assert {r["run_id"]: r["count"] for r in rows.groupBy("run_id").count().collect()} == {"a": 1, "b": 4}
    assert [r["as_of"].replace(tzinfo=UTC) for r in rows.select("as_of").distinct().collect()] == [AS_OF]
    assert store.rows(table, NS) == 5
    assert rows.where(f"as_of = '{AS_OF.isoformat()}'").count() == 5


def test_tables_that_only_delta_s_writer_can_keep_are_left_to_it(spark: SparkSession, store: Store, commit: Commit) -> None:
    made = _made(spark, 4)
    store.replace("pairs", NS, made, commit)
    spark.sql(f"ALTER TABLE delta.`{store.path('pairs', NS)}` SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")
    store.replace("pairs", NS, _made(spark, 3), commit)
    assert store.read("pairs", NS).count() == 3
    detail = DeltaTable.forPath(spark, store.path("pairs", NS)).detail().first()
    assert detail is not None
    assert detail["properties"]["delta.enableChangeDataFeed"] == "true"
    changes = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 2)
    assert changes.load(store.path("pairs", NS)).count() == 7  # as Delta records them: four rows gone, three come

    narrow = spark.createDataFrame([(1, 2)], "anchor_idx int, item_idx int")  # of an earlier version of ours
    narrow.write.format("delta").save(store.path("pairs", "old"))
    store.replace("pairs", "old", made, commit)
    assert store.read("pairs", "old").count() == 4
    assert store.read("pairs", "old").schema == store.read("pairs", NS).schema


def test_tasks_write_where_they_can_reach_the_folder(spark: SparkSession) -> None:
    assert local_path(spark, "/data/pairs") == Path("/data/pairs")
    assert local_path(spark, "work/warehouse") == Path.cwd() / "work/warehouse"  # executors may start in another folder
    assert local_path(spark, "file:///data/pairs") == local_path(spark, "file:/data/pairs") == Path("/data/pairs")
    assert [local_path(spark, f"{scheme}://bucket/pairs") for scheme in ("s3a", "abfss", "hdfs", "dbfs")] == [None] * 4
    context: Any = spark._jsc
    context.hadoopConfiguration().set("fs.defaultFS", "hdfs://namenode")
    try:
        assert local_path(spark, "/data/pairs") is None
        assert local_path(spark, "file:/data/pairs") == Path("/data/pairs")
    finally:
        context.hadoopConfiguration().unset("fs.defaultFS")
