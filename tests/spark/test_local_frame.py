"""Frames of driver rows: the same rows as createDataFrame gives, without a Python worker."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import SparkSession

from recsys_spark.tables.contracts import TABLES
from recsys_spark.tables.local import local_frame

SCHEMA = (
    "a int, b string, c double, d boolean, t timestamp, tags array<string>, m map<string,bigint>, "
    "reasons array<struct<kind: string, share: double>>, raw binary"
)
MOMENT = datetime(2024, 2, 1, 3, 4, 5, 678901, tzinfo=UTC)
ROWS = [
    (1, "x'\n\u05d0", 0.5, True, MOMENT, ["a", "b"], {"k": 2}, [{"kind": "text", "share": 0.25}], bytearray(b"\x00\xff")),
    (None, None, None, None, None, None, None, None, None),
    (-3, "", float("inf"), False, MOMENT.replace(tzinfo=None), [], {}, [], bytearray()),
]


def test_rows_are_those_of_create_data_frame(spark: SparkSession) -> None:
    plain = [(*row[:7], None if row[7] is None else [tuple(r.values()) for r in row[7]], row[8]) for row in ROWS]
    expected = spark.createDataFrame(plain, SCHEMA)
    found = local_frame(spark, ROWS, SCHEMA)
    assert found.schema == expected.schema
    assert found.collect() == expected.collect()


def test_no_python_worker_and_no_task_takes_part(spark: SparkSession) -> None:
    plan = local_frame(spark, ROWS, SCHEMA)._jdf.queryExecution().optimizedPlan().toString()  # type: ignore[union-attr]
    assert plan.startswith("LocalRelation")


def test_no_rows_of_every_contract(spark: SparkSession) -> None:
    for name, contract in TABLES.items():
        frame = local_frame(spark, [], contract.schema)
        assert frame.schema == contract.schema, name
        assert frame.collect() == [], name


def test_a_join_with_no_rows_falls_away(spark: SparkSession) -> None:
    joined = spark.range(10).join(local_frame(spark, [], "id bigint"), "id")
    assert "Join" not in joined._jdf.queryExecution().optimizedPlan().toString()  # type: ignore[union-attr]
    assert joined.count() == 0
