"""Training sequences hold every step of every history exactly once, as a plain Python cutting says."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.moments import moment_of, moment_parts
from recsys_spark.pairs.sequences import training_sequences, validation_sequences

SCHEMA = (
    "event_id string, user_id string, user_idx int, item_idx int, label tinyint, ts timestamp, event_pos bigint, "
    "context map<string,string>"
)
PARTS = moment_parts(True, ["hour", "device", "weekday"], "search")
Histories = list[list[tuple[int, int]]]  # per user: (item, label)


def log(spark: SparkSession, histories: Histories) -> DataFrame:
    """Events in reverse order; times tie in pairs, so that only the position decides."""
    rows = [
        (f"e{user}-{n}", f"u{user}", user, item, label, datetime(2024, 1, 1, n // 2 % 24), n, said(n))
        for user, history in enumerate(histories)
        for n, (item, label) in enumerate(history)
    ]
    return spark.createDataFrame(rows[::-1], SCHEMA)


def liked(history: list[tuple[int, int]]) -> list[int]:
    return [item for item, label in history if label != -1]


def said(n: int) -> dict[str, str] | None:
    return None if n % 4 == 3 else {"device": f"phone {n % 3} é", "search": f"réd {n} 😀"} if n % 4 else {"other": "y"}


def moments(history: list[tuple[int, int]]) -> list[int]:
    """Those of liked events, whose times are those of ``log``: a Monday, 1 January 2024."""
    found, before = [], None
    for n, (_, label) in enumerate(history):
        if label != -1:
            hour = n // 2
            gap = {} if before is None else {"gap_seconds": (hour - before) * 3_600}
            found.append(moment_of(PARTS, {"hour": hour, "weekday": 2, "context": said(n), **gap}))
            before = hour
    return found


def chunks(items: list[int], padding: int, max_history: int, beside: list[int]) -> list[tuple[list[int], list[int]]]:
    """Items and what stands beside them, cut from the newest backwards."""
    found = []
    for end in range(len(items), 1, -max_history):
        rows = slice(max(0, end - max_history - 1), end)
        missing = max_history + 1 - len(items[rows])
        found.append(([padding] * missing + items[rows], [0] * missing + beside[rows]))
    return found


history = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, 1, 1, 0, -1])), max_size=40)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(history, min_size=1, max_size=12), st.integers(1, 6))
def test_each_step_is_in_exactly_one_sequence(spark: SparkSession, histories: Histories, max_history: int) -> None:
    rows = training_sequences(log(spark, histories), max_history, PARTS).collect()
    steps: dict[int, Counter[tuple[int, int]]] = {}
    for row in rows:
        assert len(row["items"]) == max_history + 1
        padding, real = row["items"][: -row["num_items"]], row["items"][-row["num_items"] :]
        assert 2 <= row["num_items"] <= max_history + 1
        assert set(padding) <= {-1}
        assert -1 not in real
        assert row["weight"] == 1.0
        steps.setdefault(row["user_idx"], Counter()).update(pairwise(real))
    for user, one in enumerate(histories):
        items = liked(one)
        assert steps.get(user, Counter()) == Counter(pairwise(items))
        mine = [row["items"] for row in rows if row["user_idx"] == user]
        assert len(mine) == (len(items) - 1 + max_history - 1) // max_history if len(items) > 1 else not mine
        if len(items) > max_history:  # the newest sequence is a full one
            assert items[-max_history - 1 :] in mine
        found = [(row["items"], row["moments"]) for row in rows if row["user_idx"] == user]
        assert sorted(found) == sorted(chunks(items, -1, max_history, moments(one)))


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(history, min_size=1, max_size=8), st.lists(history, min_size=1, max_size=8), st.integers(1, 6))
def test_validation_takes_the_last_items_and_the_first_target(
    spark: SparkSession, fit: Histories, later: Histories, max_history: int
) -> None:
    rows = validation_sequences(log(spark, fit), log(spark, later), max_history).collect()
    expected = {}
    for user, (one, two) in enumerate(zip(fit, later, strict=False)):
        if liked(one) and liked(two):
            items = liked(one)[-max_history:] + liked(two)[:1]
            expected[user] = ([-1] * (max_history + 1 - len(items)) + items, len(items))
    assert {row["user_idx"]: (row["items"], row["num_items"]) for row in rows} == expected
