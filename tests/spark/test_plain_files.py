"""Files that hold a table's rows and no others."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from recsys_spark.tables.local import local_frame
from recsys_spark.tables.plain_files import plain_files
from recsys_spark.tables.store import Commit, Store

COMMIT = Commit("r", "test", "none")


def rows_of(store: Store, table: str) -> list[int]:
    files = plain_files(store, table, "live")
    assert files is not None
    held = pa.concat_tables([pq.read_table(file, columns=["user_idx"]) for file in files])
    return sorted(held.column("user_idx").to_pylist())


def put(spark: SparkSession, store: Store, users: list[int], anew: bool = False) -> None:
    rows = [(user, [f"reason {user}"]) for user in users]
    store.append("robots", "live", local_frame(spark, rows, "user_idx int, reasons array<string>"), COMMIT, anew=anew)


def test_they_are_those_of_the_newest_version(spark: SparkSession, store: Store) -> None:
    put(spark, store, [1, 2, 3])
    put(spark, store, [4])
    assert rows_of(store, "robots") == [1, 2, 3, 4]
    put(spark, store, [5, 6], anew=True)
    assert rows_of(store, "robots") == [5, 6]


@pytest.mark.parametrize("feature", ["'delta.enableDeletionVectors' = 'true'", "'delta.columnMapping.mode' = 'name'"])
def test_where_files_do_not_say_it_all_there_are_none(spark: SparkSession, store: Store, feature: str) -> None:
    put(spark, store, [1, 2, 3])
    spark.sql(f"ALTER TABLE delta.`{store.path('robots', 'live')}` SET TBLPROPERTIES ({feature})")
    assert plain_files(store, "robots", "live") is None


def test_a_table_in_partitions_has_none(spark: SparkSession, store: Store) -> None:
    spark.range(3).selectExpr("id", "id % 2 AS part").write.format("delta").partitionBy("part").save(store.path("robots", "live"))
    assert plain_files(store, "robots", "live") is None


def test_storage_that_only_hadoop_reaches_has_none(spark: SparkSession) -> None:
    assert plain_files(Store(spark, "s3a://bucket/warehouse"), "robots", "live") is None


def test_a_shallow_clone_has_those_of_its_source(spark: SparkSession, store: Store) -> None:
    put(spark, store, [1, 2, 3])
    spark.sql(f"CREATE TABLE delta.`{store.path('robots', 'eval')}` SHALLOW CLONE delta.`{store.path('robots', 'live')}`")
    assert plain_files(store, "robots", "eval") == plain_files(store, "robots", "live")


def test_files_on_another_file_system_are_not_left_out(
    spark: SparkSession, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spark, store, [1, 2, 3])
    monkeypatch.setattr(Store, "files", lambda *_: [f"file://{store.root}/live/robots/a.parquet", "s3a://bucket/b.parquet"])
    assert plain_files(store, "robots", "live") is None
