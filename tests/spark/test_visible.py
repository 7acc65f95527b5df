"""The cutoff: nothing at or after it is seen, holdouts hide their rows, robots are judged on visible rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.histories import histories
from recsys_spark.tables.visible import HoldoutCutoff, InstantCutoff, Rows, robots, visible

START = datetime(2024, 1, 1, tzinfo=UTC)


def _day(n: float) -> datetime:
    return START + timedelta(days=n)


def _events(spark: SparkSession, rows: list[tuple[str, str, float]]) -> DataFrame:
    full = [
        (f"e{n}", user, int(user[1:]), int(item[1:]), _day(day), n, 1 if item != "i9" else -1)
        for n, (user, item, day) in enumerate(rows)
    ]
    frame = spark.createDataFrame(
        full, "event_id string, user_id string, user_idx int, item_idx int, ts timestamp, event_pos bigint, label int"
    )
    return frame.selectExpr("*", "to_date(ts) event_date")


def _ids(frame: DataFrame) -> list[str]:
    return sorted(r["event_id"] for r in frame.collect())


def test_instants_cut_exactly(spark: SparkSession) -> None:
    events = _events(spark, [("u1", "i1", 0), ("u1", "i2", 1), ("u1", "i3", 2), ("u1", "i4", 3), ("u1", "i5", 4)])
    cutoff = InstantCutoff(_day(1), _day(3), _day(4))
    found = {rows: _ids(visible(events, cutoff, rows)) for rows in ("fit", "history", "validation", "test")}
    assert found == {"fit": ["e0"], "history": ["e0", "e1", "e2"], "validation": ["e1", "e2"], "test": ["e3"]}


def test_holdout_hides_roles(spark: SparkSession) -> None:
    events = _events(spark, [("u1", "i1", 0), ("u1", "i2", 1), ("u1", "i3", 2), ("u2", "i1", 3), ("u2", "i2", 9)])
    holdout = spark.createDataFrame(
        [("e1", "validation"), ("e2", "test"), ("e4", "test"), ("e3", "hidden")], "event_id string, role string"
    )
    cutoff = HoldoutCutoff(holdout, _day(5), "h")
    expected: dict[Rows, list[str]] = {"fit": ["e0"], "history": ["e0", "e1"], "validation": ["e1"], "test": ["e2"]}
    for rows, ids in expected.items():
        assert _ids(visible(events, cutoff, rows)) == ids, rows


def test_robots_by_rate_and_by_z_score(spark: SparkSession) -> None:
    burst = [("u1", f"i{n % 5}", 0.0) for n in range(50)]
    slow = [("u2", f"i{n % 5}", n * 0.01) for n in range(400)]
    people = [(f"u{u}", "i1", u + n) for u in range(3, 60) for n in range(3)]
    flagged = robots(_events(spark, burst + slow + people), 40, 4.0, 30)
    assert {r["user_idx"]: r["reasons"] for r in flagged.collect()} == {1: ["rate"], 2: ["z_score"]}
    assert robots(_events(spark, slow + people[:30]), None, 4.0, 30).isEmpty()


def test_histories_keep_order_ties_and_leave_dislikes_out(spark: SparkSession) -> None:
    rows = [("u1", "i3", 1.0), ("u1", "i2", 1.0), ("u1", "i9", 2.0), ("u1", "i1", 0.0), ("u1", "i4", 5.0), ("u2", "i9", 1.0)]
    found = histories(_events(spark, rows), 3).collect()
    assert [(r["user_id"], r["items"], r["num_events"]) for r in found] == [("u1", [3, 2, 4], 4)]
