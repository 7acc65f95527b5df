"""Counts kept up to date from what has changed in the log equal a count of the whole log, whatever has changed."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.additive.keeper import Keeper
from recsys_spark.cooccurrence.additive.state import TABLE, State, rules_of, why_anew
from recsys_spark.cooccurrence.stage import run
from recsys_spark.errors import ConfigError
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.store import Store
from tests.cooccurrence_job import EPOCH, count_without_spark
from tests.cooccurrence_job import Event as Job
from tests.spark.test_cooccurrence_stage import COMMIT, CUTOFF, context, settings, stored, write

DAY = timedelta(days=1)
Event = tuple[int, int, datetime, int]
RULES = {"window_days": 5.0, "half_life_days": 4.0, "measures": ["cosine", "llr"], "fold_after": 3}
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


def check(spark: SparkSession, store: Store, config: Config, until: datetime, robots: frozenset[int] = frozenset()) -> None:
    """One night by the state, compared with a count of everything that is in the log, by the job without Spark."""
    report = run(config, context(spark, store, config, until))
    rows = store.read("events", "live").select("user_idx", "item_idx", "ts", "label").collect()
    log = [(r["user_idx"], r["item_idx"], r["ts"].replace(tzinfo=UTC), r["label"]) for r in rows]
    kept = [Job(u, i, (ts - EPOCH) / DAY) for u, i, ts, label in log if ts < until and label != -1 and u not in robots]
    plain = config.cooccurrence.model_copy(update={"incremental": False})
    expected, found = count_without_spark(kept, plain, reference=until), stored(store)
    assert found.keys() == expected.rows.keys()
    assert {k: v for k, v in report.facts.items() if k != "num_pairs"} == expected.facts
    for pair, row in expected.rows.items():
        for name in ("num_baskets", "num_baskets_a", "num_baskets_b", "num_baskets_total", "decayed_count", "cosine", "llr"):
            assert found[pair][name] == pytest.approx(row[name], rel=1e-9, abs=1e-12), name


@pytest.fixture
def config(store: Store) -> Config:
    return settings(store.root, incremental=True, **RULES)


@pytest.mark.parametrize(
    ("way", "basket", "touched", "read"),
    [
        ("auto", "history", r"touched baskets .*way=broadcast", "files"),
        ("blocked", "history", r"touched baskets .*way=blocked", "shuffle"),
        # a user's events are one session here; 1 and 9 have two days
        ("auto", "session", r"touched baskets .*days=2\b", "files"),
    ],
)
def test_nights_of_every_kind_of_change(
    spark: SparkSession, store: Store, way: str, basket: str, touched: str, read: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(store.root, incremental=True, way=way, basket=basket, **RULES)
    write(store, FIRST)
    check(spark, store, config, CUTOFF)
    assert (state(store).batches, len(store.commits(TABLE, "live"))) == (0, 1)
    add(store, [(1, 7, CUTOFF + DAY / 4, 1), (9, 2, CUTOFF + DAY / 3, 1), (9, 3, CUTOFF + DAY / 2, 1)], 100)
    check(spark, store, config, CUTOFF + DAY)  # one more day
    told = capsys.readouterr().out
    assert re.search(touched, told)
    assert re.search(rf"pairs of the state .*way={read}\b", told)
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


def test_a_table_that_others_have_looked_after_is_read_all_the_same(
    spark: SparkSession, store: Store, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    write(store, FIRST)
    check(spark, store, config, CUTOFF)
    add(store, [(1, 7, CUTOFF + DAY / 4, 1), (9, 2, CUTOFF + DAY / 3, 1)], 100)
    check(spark, store, config, CUTOFF + DAY)
    path, before = f"delta.`{store.path(TABLE, 'live')}`", stored(store)
    marks_rows = f"ALTER TABLE {path} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    for statement, way in ((f"OPTIMIZE {path}", "files"), (marks_rows, "shuffle")):
        spark.sql(statement)
        capsys.readouterr()
        keeper = Keeper(context(spark, store, config, CUTOFF + DAY), config.cooccurrence, config.seed, None, COMMIT)
        with keeper.table(state(store), CUTOFF + DAY) as counted:
            rows = {(row["item_a"], row["item_b"]): row.asDict() for row in counted.rows.frame.collect()}
        assert {pair: row["num_baskets"] for pair, row in rows.items()} == {p: row["num_baskets"] for p, row in before.items()}
        assert f"way={way}" in capsys.readouterr().out


def test_the_rows_of_a_night_are_those_of_touched_baskets(spark: SparkSession, store: Store, config: Config) -> None:
    write(store, FIRST)
    run(config, context(spark, store, config))
    add(store, [(3, 7, CUTOFF + DAY / 2, 1)], 100)
    run(config, context(spark, store, config, CUTOFF + DAY))
    version = store.version(TABLE, "live")
    added = store.read(TABLE, "live").join(store.read(TABLE, "live", version - 1), ["batch_id"], "left_anti").collect()
    others = {pair for row in added if row["item_a"] >= 0 for pair in [(row["item_a"], b) for b in row["item_b"]]}
    assert others <= {(a, b) for a in (0, 1, 2, 7) for b in (0, 1, 2, 7)}
    assert sum(sum(row["num_baskets"]) for row in added if row["item_a"] == -1) == 1


def test_a_user_who_becomes_a_robot_leaves_and_comes_back(spark: SparkSession, store: Store, config: Config) -> None:
    robots = config.ingest.robots.model_copy(update={"max_events_per_minute": 4.0, "max_z_score": None})
    config = config.model_copy(update={"ingest": config.ingest.model_copy(update={"robots": robots})})
    write(store, FIRST)
    check(spark, store, config, CUTOFF)
    baskets = state(store).facts["num_baskets"]
    add(store, [(4, item, CUTOFF + DAY / 2 + timedelta(seconds=item), 1) for item in range(6)], 100)
    check(spark, store, config, CUTOFF + DAY, frozenset([4]))
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
        patched.setattr(Keeper, "table", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            run(config, context(spark, store, config, CUTOFF + DAY))
    commits = len(store.commits(TABLE, "live"))
    check(spark, store, config, CUTOFF + DAY)
    assert len(store.commits(TABLE, "live")) == commits  # nothing is counted twice


def test_changes_that_have_been_cleaned_away_are_counted_anew(spark: SparkSession, store: Store, config: Config) -> None:
    write(store, FIRST)
    run(config, context(spark, store, config))
    add(store, [(1, 6, CUTOFF + DAY / 3, 1)], 200)
    delete(store, "event_id = 'e200'")  # its file is in no version that is left
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    DeltaTable.forPath(spark, store.path("events", "live")).vacuum(0)
    spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    check(spark, store, config, CUTOFF + DAY)
    assert state(store).batches == 0


def test_what_the_state_cannot_be_brought_to_has_a_reason() -> None:
    present = State("rules", "table", 3, 1, CUTOFF, CUTOFF, 2, {})
    asked = CooccurrenceSettings(half_life_days=1.0)

    def why(has_feed: bool = True, **wanted: Any) -> str | None:
        return why_anew(present, replace(present, **wanted), asked, has_feed)

    assert why() is None
    assert why(events_version=4, until=CUTOFF + DAY) is None
    assert why(has_feed=False) is None  # nothing has changed that would have to be read
    assert "does not record its changes" in str(why(has_feed=False, events_version=4))
    assert "settings or code" in str(why(rules="others"))
    assert "made anew" in str(why(events_id="another"))
    assert "made anew" in str(why(events_version=2))
    assert "600 half-lives away" in str(why(until=CUTOFF + 600 * DAY))
    assert why_anew(None, present, asked, True) == "there is none yet"


def test_rules_are_what_a_basket_contributes_and_nothing_else() -> None:
    plain = CooccurrenceSettings()
    assert rules_of(plain, 0) == rules_of(CooccurrenceSettings(measures=["count"], top_n=3, min_support=2, fold_after=2), 0)
    others = [{"half_life_days": 3.0}, {"basket": "session"}, {"likes_only": False}, {"max_basket_items": 9}, {"directed": True}]
    digests = {rules_of(CooccurrenceSettings.model_validate(other), 0) for other in ({}, *others)}
    assert len(digests) == 1 + len(others)
    assert rules_of(plain, 1) != rules_of(plain, 0)  # the cap draws by seed


@pytest.mark.parametrize("asked", [{"measures": ["swing"]}, {"rank_by": "tfidf_cosine"}, {"basket": "session", "min_users": 2}])
def test_what_is_no_function_of_the_state_is_refused(store: Store, asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="kept up to date"):
        settings(store.root, incremental=True, **asked)
