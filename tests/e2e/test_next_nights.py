"""Nights after the first: later events, a later as_of, a champion to beat, and the way back."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.cli.work import return_to
from recsys_spark.config import parse_config
from recsys_spark.night import Night
from recsys_spark.order import run_night
from recsys_spark.publish import stage as publish
from recsys_spark.registry import CHAMPION, Registry
from recsys_spark.tables.runs import run_rows
from recsys_spark.tables.store import Store
from tests.debug_data import debug_config
from tests.e2e.conftest import Done, run, versions

LATER = datetime(2024, 2, 2, tzinfo=UTC)  # a day after as_of
LATE_USERS = 40


def later_events(folder: Path) -> Path:
    """One event after the cutoff for each of 40 users."""
    path = folder / "late.csv"
    seconds = int(LATER.timestamp())
    with path.open("w", newline="") as out:
        rows = [(f"u{n}", f"i{n}", 5, seconds + n) for n in range(LATE_USERS)]
        csv.writer(out).writerows([("user", "item", "rating", "time"), *rows])
    return path


def with_later_events(done: Done, folder: Path, **overrides: Any) -> dict[str, Any]:
    settings: dict[str, Any] = debug_config(done.data, folder / "warehouse", **overrides)
    settings["ingest"]["events"]["path"] = [str(done.data / "events.csv"), str(later_events(folder))]
    return settings


@pytest.fixture
def copy(done: Done, tmp_path: Path) -> Path:
    """Warehouse and registry of the undisturbed night, to go on from; the models themselves stay where they are."""
    home = Path(done.config.warehouse).parent
    shutil.copytree(done.config.warehouse, tmp_path / "warehouse", ignore=shutil.ignore_patterns("_locks"))
    shutil.copy(home / "mlflow.db", tmp_path / "mlflow.db")
    return tmp_path


@pytest.mark.timeout(1800)
def test_later_events_change_nothing_and_the_next_night_meets_a_champion(spark: SparkSession, done: Done, copy: Path) -> None:
    settings = with_later_events(done, copy)
    before = versions(Store(spark, settings["warehouse"]))
    run_night(parse_config(settings), spark)
    store = Store(spark, settings["warehouse"])
    changed = {table for (table, _), version in versions(store).items() if before.get((table, _)) != version}
    assert changed == {"events", "ledger", "runs"}  # the log grew; all that is made of it stands
    assert publish.current(store) == publish.current(done.store)

    # two days on these events are the test; the champion was tried on another split: its recipe is trained to this cutoff
    split = {"split": "time", "holdout_days": 2.0, "validation_days": 40.0, "bootstrap_samples": 200}
    config = parse_config(settings | {"as_of": "2024-02-03T00:00:00Z", "evaluate": split})
    text_vectors = store.version("item_text_vectors", "live")
    run_night(config, spark)
    night = Night(config, spark)
    found = {r["system"]: r for r in store.read("metrics", night.eval_namespace).where("segment = 'all' AND k = 10").collect()}
    assert {"fused", CHAMPION, f"fused - {CHAMPION}"} <= set(found)
    assert found["fused"]["num_users"] == LATE_USERS
    stand_in = run_rows(store, f"{night.eval_namespace}/systems/{CHAMPION}")
    assert {row["stage"] for row in stand_in} >= {"cooccurrence", "pairs", "train", "embed", "recommend"}
    assert store.version("item_text_vectors", "live") == text_vectors  # no text is encoded twice
    assert [r["stage"] for r in run_rows(store, "live")].count("ingest") == 2  # the second night found the files known
    now = publish.current(store)
    assert now is not None
    assert now["run_id"] == night.run_id != done.night.run_id

    registry = Registry(config.tracking_uri, config.registry.experiment)
    return_to(parse_config(settings), store)
    back = publish.current(store)
    assert back is not None
    assert (back["run_id"], back["action"]) == (done.night.run_id, "rollback")
    holder = registry.holder(config.model_name, CHAMPION)
    assert holder is not None
    assert holder.version == back["model_version"]


@pytest.mark.timeout(1800)
def test_an_event_past_the_cutoff_changes_no_output(spark: SparkSession, done: Done, tmp_path: Path) -> None:
    """The same night from nothing, on a log with later events: what readers see and what was measured is the same."""
    other = run(spark, with_later_events(done, tmp_path), done.data)
    assert other.store.rows("events", "live") == done.store.rows("events", "live") + LATE_USERS
    for table in ("recommendations", "item_neighbours", "fallback_recommendations"):
        mine = done.store.read(table, "live").drop("run_id", "model_version")
        theirs = other.store.read(table, "live").drop("run_id", "model_version")
        assert mine.select("as_of", "rank", "score").exceptAll(theirs.select("as_of", "rank", "score")).isEmpty(), table
    mine, theirs = (
        {
            (r["system"], r["name"], r["k"], r["segment"]): r["value"]
            for r in d.store.read("metrics", d.night.eval_namespace).collect()
        }
        for d in (done, other)
    )
    assert mine == pytest.approx(theirs, nan_ok=True)
    facts = [json.loads(row["facts"]) for row in run_rows(other.store, "live") if row["stage"] == "ingest"]
    assert [f["num_events"] for f in facts] == [other.store.rows("events", "live")]
