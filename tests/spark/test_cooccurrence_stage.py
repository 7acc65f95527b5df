"""The stage: it writes its table once, skips equal work, and sees neither dislikes nor anything past the cutoff."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.cooccurrence.stage import refuse_days_without_times, run
from recsys_spark.cooccurrence.strength import strength
from recsys_spark.errors import ConfigError
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

CUTOFF = datetime(2024, 2, 1, tzinfo=UTC)
COMMIT = Commit("run", "test", "fingerprint")
Event = tuple[int, int, datetime, int]  # user, item, time, label
LOG: list[Event] = [
    (1, 10, CUTOFF - timedelta(days=9), 1),
    (1, 11, CUTOFF - timedelta(days=8), 1),
    (2, 10, CUTOFF - timedelta(days=7), 1),
    (2, 11, CUTOFF - timedelta(days=6), 0),
    (2, 12, CUTOFF - timedelta(days=5), 1),
    (3, 12, CUTOFF - timedelta(days=4), 1),
    (3, 10, CUTOFF - timedelta(days=3), -1),
]


PAST_CUTOFF: list[Event] = [(3, 10, CUTOFF, 1), (3, 11, CUTOFF + timedelta(days=1), 1), (4, 7, CUTOFF, 1)]


def write(store: Store, events: list[Event], items: int = 13) -> None:
    rows = [
        (f"e{n}", f"u{u}", u, f"i{i}", i, "view", None, 1.0, label, ts, n, f"s{u}", None, ts.date())
        for n, (u, i, ts, label) in enumerate(events)
    ]
    store.replace("events", "live", store.spark.createDataFrame(rows, contract("events").schema), COMMIT)
    known = [(f"i{i}", i, None, "", False, None, None, True, "", CUTOFF.date(), None) for i in range(items)]
    store.replace("items", "live", store.spark.createDataFrame(known, contract("items").schema), COMMIT)


def settings(warehouse: str, columns: tuple[str, ...] = ("user_id", "item_id", "ts"), **cooccurrence: Any) -> Config:
    events = {"path": "events.csv", "columns": {c: c for c in columns}}
    data = {"as_of": CUTOFF, "warehouse": warehouse, "ingest": {"events": events}, "cooccurrence": cooccurrence}
    return parse_config(data)


def context(spark: SparkSession, store: Store, config: Config, until: datetime = CUTOFF) -> Context:
    return Context(spark, store, config, "live", InstantCutoff(until, until, until), "run")


def stored(store: Store) -> dict[tuple[int, int], Any]:
    return {(r["item_a"], r["item_b"]): r for r in store.read("cooccurrence", "live").collect()}


def test_writes_what_lies_before_the_cutoff_and_writes_it_once(spark: SparkSession, store: Store) -> None:
    write(store, LOG + PAST_CUTOFF)
    config = settings(store.root)
    report = run(config, context(spark, store, config))
    found = stored(store)
    assert {pair: r["num_baskets"] for pair, r in found.items()} == {
        (10, 11): 2, (11, 10): 2, (10, 12): 1, (12, 10): 1, (11, 12): 1, (12, 11): 1,
    }  # fmt: skip
    assert found[10, 12]["num_baskets_b"] == 2
    assert found[10, 11]["rank_a"] == 1
    assert found[10, 11]["cosine"] == 1.0
    assert report.facts == {
        "num_baskets": 3,
        "num_items": 3,
        "capped_baskets": 0,
        "items_cut": 0,
        "occurrences_cut": 0,
        "basket_sizes": {"1": 1, "2": 1, "3-4": 1},
        "num_pairs": 6,
    }
    again = run(config, context(spark, store, config))
    assert (again.status, again.facts) == ("skipped", report.facts)
    assert len(store.commits("cooccurrence", "live")) == 1


def test_decay_refers_to_the_cutoff(spark: SparkSession, store: Store) -> None:
    write(store, LOG + PAST_CUTOFF)
    config = settings(store.root, half_life_days=4.0, likes_only=False)
    run(config, context(spark, store, config))
    found = stored(store)
    assert found[10, 11]["decayed_count"] == pytest.approx(2**-2 + 2**-1.5)
    assert found[12, 10]["decayed_count"] == pytest.approx(2**-1.25 + 2**-0.75)  # the later of the two times
    assert run(config, context(spark, store, config, CUTOFF + timedelta(days=4))).status == "done"
    later = stored(store)
    assert later[10, 12]["num_baskets"] == 2
    assert later[10, 11]["decayed_count"] == pytest.approx(2**-3 + 2**-2.5 + 2**-0.75)


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"window_days": 3.0}, "window_days"), ({"half_life_days": 3.0}, "half_life_days"), ({"basket": "user_day"}, "user_day")],
)
def test_days_are_refused_where_the_log_has_only_an_order(asked: dict[str, Any], named: str) -> None:
    config = settings("warehouse", ("user_id", "item_id", "event_pos"), **asked)
    with pytest.raises(ConfigError, match=named):
        refuse_days_without_times(config.cooccurrence, has_times=False)
    refuse_days_without_times(config.cooccurrence, has_times=True)
    refuse_days_without_times(settings("warehouse").cooccurrence, has_times=False)


def test_pairs_of_long_ago_give_way(spark: SparkSession, store: Store) -> None:
    """Three baskets of two months ago against one of yesterday."""
    old = [(user, item, CUTOFF - timedelta(days=60), 1) for user in (1, 2, 3) for item in (1, 2)]
    new = [(user, item, CUTOFF - timedelta(days=1), 1) for user in (4,) for item in (1, 3)]
    write(store, old + new)
    first = {}
    for half_life in (None, 7.0):
        config = settings(store.root, **({} if half_life is None else {"half_life_days": half_life}))
        run(config, context(spark, store, config))
        rows = stored(store)
        first[half_life] = next(b for (a, b), row in rows.items() if a == 1 and row["rank_a"] == 1)
    assert first == {None: 2, 7.0: 3}
    found = store.read("cooccurrence", "live").select("item_a", "item_b", strength("decayed_cosine").alias("s")).collect()
    left = {(row["item_a"], row["item_b"]): row["s"] for row in found}
    assert left[1, 3] == pytest.approx(2 ** (-1 / 7) / 2)  # one of 4 baskets with item 1, of 1 with item 3
    assert left[1, 2] == pytest.approx(3 * 2 ** (-60 / 7) / 12**0.5)
