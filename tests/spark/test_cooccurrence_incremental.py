"""Counts kept up to date from what has changed in the log equal a count of the whole log, whatever has changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.cooccurrence import incremental
from recsys_spark.cooccurrence.stage import run
from recsys_spark.cooccurrence.state import TABLE, State
from recsys_spark.errors import ConfigError
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.store import Store
from tests.spark.test_cooccurrence_stage import COMMIT, CUTOFF, context, settings, stored, write

DAY = timedelta(days=1)
Event = tuple[int, int, datetime, int]
RULES = {"window_days": 5.0, "half_life_days": 4.0, "measures": ["cosine", "llr"], "fold_after": 3, "max_basket_items": 3}
FIRST: list[Event] = [
    (user, item, CUTOFF - timedelta(days=2 + (user + item) % 6), 1) for user in range(8) for item in range(user % 5)
]


def add(store: Store, events: list[Event], start: int) -> None:
    """More events into the log, the way ingest adds them."""
    rows = [
        (f"e{start + n}", f"u{u}", u, f"i{i}", i, "view", None, 1.0, label, ts, n, f"s{u}", None, ts.date())
        for n, (u, i, ts, label) in enumerate(events)
    ]
    store.merge("events", "live", local_frame(store.spark, rows, contract("events").schema), COMMIT)


def delete(store: Store, condition: str) -> None:
    DeltaTable.forPath(store.spark, store.path("events", "live")).delete(condition)


def state(store: Store) -> State:
    found = State.of_commit(store.last_facts(TABLE, "live"))
    assert found is not None
    return found


def direct(spark: SparkSession, store: Store, config: Config, until: datetime) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The table by a count of everything, in a namespace of its own."""
    plain = config.model_copy(update={"cooccurrence": config.cooccurrence.model_copy(update={"incremental": False})})
    elsewhere = Context(spark, store, plain, "benchmark/direct", context(spark, store, plain, until).cutoff, "run")
    report = run(plain, elsewhere)
    rows = store.read("cooccurrence", "benchmark/direct").collect()
    return {(r["item_a"], r["item_b"]): r for r in rows}, report.facts


def check(spark: SparkSession, store: Store, config: Config, until: datetime) -> None:
    """One night by the state, compared with a count of everything."""
    report = run(config, context(spark, store, config, until))
    expected, facts = direct(spark, store, config, until)
    found = stored(store)
    assert found.keys() == expected.keys()
    assert report.facts == facts
    for pair, row in expected.items():
        for name, value in row.asDict().items():
            assert found[pair][name] == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value), name


@pytest.fixture
def config(store: Store) -> Config:
    return settings(store.root, incremental=True, **RULES)


def test_nights_of_every_kind_of_change(spark: SparkSession, store: Store, config: Config) -> None:
    write(store, FIRST)
    check(spark, store, config, CUTOFF)
    assert (state(store).batches, len(store.commits(TABLE, "live"))) == (0, 1)
    add(store, [(1, 7, CUTOFF + DAY / 4, 1), (9, 2, CUTOFF + DAY / 3, 1), (9, 3, CUTOFF + DAY / 2, 1)], 100)
    check(spark, store, config, CUTOFF + DAY)  # one more day
    assert state(store).batches == 1
    add(store, [(2, 6, CUTOFF - 4 * DAY, 1), (9, 5, CUTOFF - 3 * DAY, 1), (3, 1, CUTOFF - DAY, -1)], 200)
    check(spark, store, config, CUTOFF + DAY)  # late events, one of them a dislike
    delete(store, "user_id = 'u4'")
    check(spark, store, config, CUTOFF + DAY)  # a user is forgotten
    assert state(store).batches == 3
    delete(store, f"event_date = DATE'{(CUTOFF - 4 * DAY).date()}'")
    check(spark, store, config, CUTOFF + 2 * DAY)  # a bad day is taken back, while time goes on; three batches are summed first
    assert state(store).batches == 1
    check(spark, store, config, CUTOFF - 2 * DAY)  # an earlier cutoff
    assert state(store).batches == 2
    assert state(store).reference == CUTOFF


def test_the_rows_of_a_night_are_those_of_touched_baskets(spark: SparkSession, store: Store, config: Config) -> None:
    write(store, FIRST)
    run(config, context(spark, store, config))
    add(store, [(3, 7, CUTOFF + DAY / 2, 1)], 100)
    run(config, context(spark, store, config, CUTOFF + DAY))
    version = store.version(TABLE, "live")
    added = store.read(TABLE, "live").join(store.read(TABLE, "live", version - 1), ["batch_id"], "left_anti").collect()
    others = {pair for row in added if row["item_a"] >= 0 for pair in [(row["item_a"], b) for b in row["item_b"]]}
    assert others <= {(a, b) for a in (0, 1, 2, 7) for b in (0, 1, 2, 7)}
    assert sum(sum(row["num_baskets"]) for row in added if row["item_a"] == -1) in (0, 1)  # the cap may drop another item


def test_a_user_who_becomes_a_robot_leaves_and_comes_back(spark: SparkSession, store: Store, config: Config) -> None:
    robots = config.ingest.robots.model_copy(update={"max_events_per_minute": 4.0, "max_z_score": None})
    config = config.model_copy(update={"ingest": config.ingest.model_copy(update={"robots": robots})})
    write(store, FIRST)
    check(spark, store, config, CUTOFF)
    baskets = state(store).facts["num_baskets"]
    add(store, [(4, item, CUTOFF + DAY / 2 + timedelta(seconds=item), 1) for item in range(6)], 100)
    check(spark, store, config, CUTOFF + DAY)
    assert state(store).facts["num_baskets"] == baskets - 1
    delete(store, f"ts > TIMESTAMP'{CUTOFF:%Y-%m-%d %H:%M:%S}'")
    check(spark, store, config, CUTOFF + DAY)
    assert state(store).facts["num_baskets"] == baskets


def test_killed_between_state_and_table_a_night_is_finished_by_its_rerun(
    spark: SparkSession, store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, FIRST)
    run(config, context(spark, store, config))
    add(store, [(1, 7, CUTOFF + DAY / 4, 1), (5, 7, CUTOFF + DAY / 3, 1)], 100)
    with monkeypatch.context() as patched:
        patched.setattr(incremental.Keeper, "table", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            run(config, context(spark, store, config, CUTOFF + DAY))
    commits = len(store.commits(TABLE, "live"))
    check(spark, store, config, CUTOFF + DAY)
    assert len(store.commits(TABLE, "live")) == commits  # nothing is counted twice


@pytest.mark.parametrize("why", ["settings", "table", "cleaned"])
def test_what_cannot_be_updated_is_counted_anew(spark: SparkSession, store: Store, config: Config, why: str) -> None:
    write(store, FIRST)
    run(config, context(spark, store, config))
    add(store, [(1, 7, CUTOFF + DAY / 4, 1)], 100)
    if why == "settings":
        config = settings(store.root, incremental=True, **RULES | {"half_life_days": 9.0})
    if why == "table":
        table = f"delta.`{store.path('events', 'live')}`"
        spark.sql(f"CREATE OR REPLACE TABLE {table} USING delta AS SELECT * FROM {table}")
    if why == "cleaned":  # the files of a change that is not in the newest version any more
        add(store, [(1, 6, CUTOFF + DAY / 3, 1)], 200)
        delete(store, "event_id = 'e200'")
        spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
        DeltaTable.forPath(spark, store.path("events", "live")).vacuum(0)
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    check(spark, store, config, CUTOFF + DAY)
    assert state(store).batches == 0


@pytest.mark.parametrize("asked", [{"measures": ["swing"]}, {"rank_by": "tfidf_cosine"}, {"basket": "session", "min_users": 2}])
def test_what_is_no_function_of_the_state_is_refused(store: Store, asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="kept up to date"):
        settings(store.root, incremental=True, **asked)
