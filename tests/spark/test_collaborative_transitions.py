"""Transitions against a plain count: direction, distance, ties in time, and the cut."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.collaborative.transitions import item_transitions
from recsys_spark.config.signals import TransitionSettings

NUM_USERS, NUM_ITEMS = 40, 12


@pytest.fixture(scope="module")
def histories() -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [[int(i) for i in rng.permutation(NUM_ITEMS)[: rng.integers(1, 9)]] for _ in range(NUM_USERS)]


@pytest.fixture(scope="module")
def events(spark: SparkSession, histories: list[list[int]]) -> DataFrame:
    """Pairs of events share an instant: only their place in the log tells which was first. Rows arrive in any order."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        (f"u{user}", 3 * item, start + timedelta(minutes=place // 2), place, f"{user}-{-place}", 1)
        for user, items in enumerate(histories)
        for place, item in enumerate(items)
    ]
    rows += [("u0", 999, start, -1, "disliked", -1)]
    order = np.random.default_rng(1).permutation(len(rows))
    schema = "user_id string, item_idx int, ts timestamp, event_pos long, event_id string, label int"
    return spark.createDataFrame([rows[n] for n in order], schema)


def _plain(histories: list[list[int]], places: int, decay: float, min_support: int) -> dict[int, dict[int, float]]:
    sums: dict[tuple[int, int], float] = defaultdict(float)
    users: dict[tuple[int, int], int] = defaultdict(int)
    met = np.bincount([item for items in histories for item in items], minlength=NUM_ITEMS)
    for items in histories:
        for first, a in enumerate(items):
            for apart, b in enumerate(items[first + 1 : first + 1 + places]):
                sums[a, b] += decay**apart
                users[a, b] += 1
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for (a, b), value in sums.items():
        if users[a, b] >= min_support:
            found[3 * a][3 * b] = value / float(np.sqrt(met[a] * met[b]))
    return dict(found)


@pytest.mark.parametrize(("places", "decay", "support"), [(3, 0.5, 1), (1, 0.5, 1), (2, 1.0, 2)])
def test_they_are_what_a_plain_count_gives(
    events: DataFrame, histories: list[list[int]], places: int, decay: float, support: int
) -> None:
    settings = TransitionSettings(places=places, distance_decay=decay, min_support=support)
    with item_transitions(events, settings, seed=1) as frame:
        rows = frame.collect()
    found = {row["item_a"]: dict(zip(row["item_b"], row["weight"], strict=True)) for row in rows}
    expected = _plain(histories, places, decay, support)
    assert {a: set(b) for a, b in found.items()} == {a: set(b) for a, b in expected.items()}
    for a, others in expected.items():
        assert found[a] == pytest.approx(others, abs=1e-6)
    assert all(list(row["weight"]) == sorted(row["weight"], reverse=True) for row in rows)


def test_one_direction_only_and_the_best_are_kept(events: DataFrame, histories: list[list[int]]) -> None:
    with item_transitions(events, TransitionSettings(places=1, top_n=2), seed=1) as frame:
        found = {row["item_a"]: dict(zip(row["item_b"], row["weight"], strict=True)) for row in frame.collect()}
    expected = _plain(histories, 1, 0.5, 1)
    assert any(found.get(a, {}).get(b) != found.get(b, {}).get(a) for a in found for b in found)
    for a, kept in found.items():
        assert sorted(kept.values(), reverse=True) == pytest.approx(sorted(expected[a].values(), reverse=True)[:2], abs=1e-6)
