"""Which events are held out, by all three splits, and that nothing past as_of matters."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import Config, parse_config
from recsys_spark.errors import InputError, MissingTableError
from recsys_spark.evaluate.segments import item_segments
from recsys_spark.evaluate.split import cutoff_for, leave_one_out, make_holdout
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import HoldoutCutoff, InstantCutoff, visible

AS_OF = datetime(2024, 2, 1, tzinfo=UTC)


def config(warehouse: str, **evaluate: Any) -> Config:
    source = {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}
    return parse_config({"as_of": AS_OF, "warehouse": warehouse, "ingest": {"events": source}, "evaluate": evaluate})


def log(spark: SparkSession, rows: list[tuple[str, int, int, float, int]]) -> DataFrame:
    """Events of (event_id, user_idx, item_idx, days before as_of, label), event_pos as listed."""
    full = []
    for position, (event_id, user, item, days, label) in enumerate(rows):
        ts = AS_OF - timedelta(days=days)
        full.append(
            (
                event_id,
                f"u{user}",
                user,
                f"i{item}",
                item,
                "view",
                None,
                1.0,
                label,
                ts,
                position,
                "s",
                {},
                date(ts.year, ts.month, ts.day),
            )
        )
    return spark.createDataFrame(full, contract("events").schema)


ROWS = [
    ("a1", 1, 1, 9, 1),
    ("a3", 1, 3, 5, 1),
    ("a2", 1, 2, 5, 1),  # the same instant as a3, but later in the file: the last one
    ("a4", 1, 4, 4, -1),  # a dislike after the test event is hidden with it
    ("b1", 2, 1, 3, 1),
    ("b2", 2, 2, 2, 1),  # two events only: nothing held out
    ("c1", 3, 1, 9, 1),
    ("c2", 3, 2, 8, -1),
    ("c3", 3, 2, 7, 1),
    ("c4", 3, 3, 6, 1),
    ("d1", 4, 1, 3, 1),
    ("d2", 4, 2, 2, 1),
    ("d3", 4, 3, -1, 1),  # after as_of
]


def roles(frame: DataFrame) -> dict[str, str]:
    rows = frame.collect()
    assert len({r["event_id"] for r in rows}) == len(rows)
    return {r["event_id"]: r["role"] for r in rows}


def test_leave_one_out_by_time_then_file_order(spark: SparkSession) -> None:
    found = roles(leave_one_out(log(spark, ROWS[:-3])))
    assert found == {"a2": "test", "a4": "test", "a3": "validation", "c4": "test", "c3": "validation"}


def test_cutoffs_of_namespaces(spark: SparkSession, store: Store, commit: Commit) -> None:
    store.replace("events", "live", log(spark, ROWS), commit)
    settings = config(store.root, split="leave_one_out")
    assert cutoff_for(settings, store, "live") == InstantCutoff(AS_OF, AS_OF, AS_OF)
    by_time = cutoff_for(config(store.root, split="time", holdout_days=2, validation_days=3), store, "eval/r1")
    assert by_time == InstantCutoff(AS_OF - timedelta(days=5), AS_OF - timedelta(days=2), AS_OF)
    cutoff = cutoff_for(settings, store, "eval/r1")
    assert isinstance(cutoff, HoldoutCutoff)
    tests = visible(store.read("events", "live"), cutoff, "test")
    assert {r["event_id"] for r in tests.where("label != -1").collect()} == {"a2", "c4"}  # d has two events before as_of
    first = store.version("holdout", "eval/r1")
    below = cutoff_for(settings, store, "eval/r1/popularity")
    assert below.name == cutoff.name  # baselines share the holdout of their run
    assert store.version("holdout", "eval/r1") == first
    assert not store.exists("holdout", "eval/r1/popularity")
    # an event past as_of changes no holdout
    store.replace("events", "live", log(spark, [*ROWS, ("z", 3, 9, -2, 1)]), commit)
    assert cutoff_for(settings, store, "eval/r1").name == cutoff.name
    assert store.version("holdout", "eval/r1") == first


def test_too_short_histories_are_an_error(spark: SparkSession, store: Store, commit: Commit) -> None:
    store.replace("events", "live", log(spark, ROWS[4:6]), commit)
    with pytest.raises(InputError, match="no user has 3 events"):
        cutoff_for(config(store.root, split="leave_one_out"), store, "eval/r1")


def test_given_table_is_checked(spark: SparkSession, store: Store, commit: Commit, tmp_path: Path) -> None:
    events = log(spark, ROWS)
    path = str(tmp_path / "given")

    def given(rows: list[tuple[Any, ...]], columns: str = "event_id string, role string") -> Any:
        spark.createDataFrame(rows, columns).write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(path)
        return make_holdout(events, config("w", split="table", holdout_table=path).evaluate)

    with pytest.raises(MissingTableError, match="no Delta table"):
        make_holdout(events, config("w", split="table", holdout_table=path).evaluate)
    with pytest.raises(InputError, match="column role is absent"):
        given([("a1",)], "event_id string")
    with pytest.raises(InputError, match="role 'train'"):
        given([("a1", "train")])
    with pytest.raises(InputError, match="no row names an event"):
        given([("nobody", "test")])
    assert roles(given([("a1", "test"), ("b1", "validation"), ("nobody", "test")])) == {"a1": "test", "b1": "validation"}
    store.replace("events", "live", events, commit)
    cutoff = cutoff_for(config(store.root, split="table", holdout_table=path), store, "benchmark/given")
    assert {r["event_id"] for r in visible(events, cutoff, "validation").collect()} == {"b1"}


def test_item_segments(spark: SparkSession) -> None:
    counts = {1: 10, 2: 4, 3: 3, 4: 1, 5: 1}
    events = spark.createDataFrame([(i,) for i, n in counts.items() for _ in range(n)], "item_idx int")
    items = spark.createDataFrame([(i, f"i{i}") for i in range(1, 7)], "item_idx int, item_id string")
    rows = {r["item_id"]: (r["num_events"], r["segment"]) for r in item_segments(events, items, 0.3, 0.15).collect()}
    assert rows == {
        "i1": (10, "head"),
        "i2": (4, "torso"),
        "i3": (3, "torso"),
        "i4": (1, "tail"),
        "i5": (1, "tail"),
        "i6": (0, "cold"),
    }
