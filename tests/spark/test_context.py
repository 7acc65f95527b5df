"""What a context holds is what it would read: contents out of one pass, and nothing left behind once it is released."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pyspark import StorageLevel
from pyspark.sql import SparkSession

from recsys_spark import context as module
from recsys_spark.context import Context
from recsys_spark.errors import InputError
from recsys_spark.evaluate.split import cutoff_for
from recsys_spark.evaluate.targets import check_test, held_out_targets
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import ROLES, visible
from tests.spark.test_evaluate_split import config, log

EVENTS = [(f"e{u}{n}", u, 1 + (u + n) % 5, 9 - n, 1) for u in range(1, 6) for n in range(4)]


def context_of(spark: SparkSession, store: Store, commit: Commit, split: str) -> Context:
    store.replace("events", "live", log(spark, EVENTS), commit)
    settings = config(store.root, split=split)
    return Context(spark, store, settings, "eval/r1", cutoff_for(settings, store, "eval/r1"), "r1")


@pytest.fixture
def here(spark: SparkSession, store: Store, commit: Commit) -> Context:
    return context_of(spark, store, commit, "leave_one_out")


@pytest.mark.parametrize("most_held", [1_000, 0])
def test_contents_of_all_views_are_those_of_the_rows(here: Context, monkeypatch: pytest.MonkeyPatch, most_held: int) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_EVENTS", most_held)
    events, sizes = here.read("events"), {}
    for rows in ROLES:
        plain = visible(events, here.cutoff, rows).select(*events.columns)
        assert here.events_content(rows) == content_hash(plain) == content_hash(here.events(rows)), rows
        sizes[rows] = plain.count()
    assert sizes == {"fit": 10, "history": 15, "validation": 5, "test": 5}
    here.release()


@pytest.mark.parametrize(("split", "held"), [("leave_one_out", StorageLevel.DISK_ONLY), ("time", StorageLevel.NONE)])
def test_a_log_that_would_fill_the_heap_is_kept_on_disk_where_its_roles_come_of_a_join(
    spark: SparkSession, store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch, split: str, held: StorageLevel
) -> None:
    here = context_of(spark, store, commit, split)
    in_memory = [here.events_content(rows) for rows in ("fit", "history")]
    assert here._log().storageLevel.useMemory
    here.release()
    monkeypatch.setattr(module, "_BYTES_PER_EVENT", 1 << 32)
    assert [here.events_content(rows) for rows in ("fit", "history")] == in_memory
    assert here._log().storageLevel == held
    here.release()


def test_a_released_context_holds_nothing_and_reads_again(spark: SparkSession, here: Context) -> None:
    manager = spark._jsparkSession.sharedState().cacheManager()
    manager.clearCache()
    before = here.events_content("fit")
    assert not manager.isEmpty()
    here.release()
    assert manager.isEmpty()
    assert here.events_content("fit") == before
    here.release()


@pytest.mark.parametrize("most_held", [1, 0])
def test_robots_are_left_out_and_few_of_them_are_sent_to_the_log(
    spark: SparkSession, store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch, most_held: int
) -> None:
    monkeypatch.setattr(module, "MAX_HELD_ROBOTS", most_held)
    monkeypatch.setattr(module, "MAX_KEPT_EVENTS", 0)
    store.replace("events", "live", log(spark, [*EVENTS, *[(f"r{n}", 9, n % 5 + 1, 12, 1) for n in range(4)]]), commit)
    settings = config(store.root, split="time")
    robots = settings.ingest.robots.model_copy(update={"max_events_per_minute": 3.0})
    settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"robots": robots})})
    here = Context(spark, store, settings, "eval/r1", cutoff_for(settings, store, "eval/r1"), "r1")
    history = here.events("history").select("user_idx", "event_id").collect()
    assert {row["user_idx"] for row in history} == {1, 2, 3, 4, 5}
    assert len(history) == len(set(history)) == len(visible(here.read("events"), here.cutoff, "history").collect()) - 4
    assert [(row["user_idx"], row["reasons"]) for row in here.robots().collect()] == [(9, ["rate"])]
    assert {row["user_idx"] for row in here.robots_of_the_test().collect()} == {9}
    plan = here.events("fit")._jdf.queryExecution().optimizedPlan().toString()
    assert ("LocalRelation" in plan) == (most_held == 1)
    here.release()


def test_who_acts_like_a_machine_in_the_test_is_no_measure(spark: SparkSession, store: Store, commit: Commit) -> None:
    settings = config(store.root, split="time")
    burst = [(f"b{n}", 77, n % 5 + 1, 1, 1) for n in range(4)]
    store.replace("events", "live", log(spark, [*EVENTS, *burst]), commit)
    cutoff = cutoff_for(settings, store, "eval/r1")
    robots = settings.ingest.robots.model_copy(update={"max_events_per_minute": 3.0})
    settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"robots": robots})})
    here = Context(spark, store, settings, "eval/r1", cutoff, "r1")
    assert 77 in {row["user_idx"] for row in here.events("test").collect()}
    assert 77 not in {row["user_idx"] for row in held_out_targets(here).collect()}
    check_test(here)
    late = settings.model_copy(update={"as_of": settings.as_of + timedelta(days=400)})
    nothing = Context(spark, store, late, "eval/r2", cutoff_for(late, store, "eval/r2"), "r2")
    with pytest.raises(InputError, match=r"no test event: the last event is of 20\d\d-.*expected held-out events"):
        check_test(nothing)
    here.release()
    nothing.release()
