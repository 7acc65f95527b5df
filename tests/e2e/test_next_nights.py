"""Nights after the first: later events, a later as_of, a champion to beat, and the way back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from recsys_spark.cli.work import return_to
from recsys_spark.config import parse_config
from recsys_spark.night import Night
from recsys_spark.order import run_night, run_step
from recsys_spark.publish import stage as publish
from recsys_spark.publish.forget import forget
from recsys_spark.publish.prune import keep_newest
from recsys_spark.register.rerank_fit import DIVERSITIES
from recsys_spark.registry import CHAMPION, Registry
from recsys_spark.tables.content import frames_equal
from recsys_spark.tables.runs import run_rows
from recsys_spark.tables.store import Store
from tests.debug_data import debug_config
from tests.e2e.conftest import Done, versions
from tests.e2e.later import LATE_USERS, with_later_events


@pytest.fixture
def copy(done: Done, tmp_path: Path) -> Path:
    """Warehouse and registry of the undisturbed night, to go on from; the models themselves stay where they are."""
    home = Path(done.config.warehouse).parent
    shutil.copytree(done.config.warehouse, tmp_path / "warehouse", ignore=shutil.ignore_patterns("_locks"))
    shutil.copy(home / "mlflow.db", tmp_path / "mlflow.db")
    return tmp_path


def test_a_champion_that_may_be_compared_is_listed_by_the_challengers_counts(spark: SparkSession, done: Done, copy: Path) -> None:
    night = Night(parse_config(debug_config(done.data, copy / "warehouse")), spark)
    model = night._model("eval")
    assert model is not None
    for table in ("item_embeddings", "user_embeddings"):
        shutil.rmtree(copy / "warehouse" / night.eval_namespace / table)  # a champion's vectors are its own
    night._champion(model, night._targets())  # meets itself: it has to have the same lists
    theirs = f"{night.eval_namespace}/systems/{CHAMPION}"
    assert {row["stage"] for row in run_rows(night.store, theirs)} == {"embed", "recommend"}
    for table, key in (("recommendations", ("user_id", "rank")), ("target_ranks", ("user_id", "item_id"))):
        ours, found = (night.store.read(table, namespace) for namespace in (night.eval_namespace, theirs))
        assert not found.isEmpty()
        assert frames_equal(found, ours, key), table


def check_lists_put_in_order_once_more(night: Night) -> None:
    """As validation and the limits have it."""
    tried, served = (night.facts(stage)["rerank"] for stage in ("register", "recommend"))
    assert len(tried["tried"]) == len(DIVERSITIES)
    assert (served["diversity"], served["max_per_ten"]) == (tried["diversity"], {"category": 6})
    category = night.store.read("items", "live").select("item_id", "category")
    lists = (
        night.store.read("recommendations", night.eval_namespace).join(category, "item_id").groupBy("user_id", "category").count()
    )
    assert 1 < lists.agg({"count": "max"}).collect()[0][0] <= 6  # there are five topics, and ten places


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
    varied = settings["recommend"] | {"rerank": {"diversity": "auto", "max_diversity_loss": 0.05, "max_per_ten": {"category": 6}}}
    config = parse_config(settings | {"as_of": "2024-02-03T00:00:00Z", "evaluate": split, "recommend": varied})
    text_vectors = store.version("item_text_vectors", "live")
    run_night(config, spark)
    night = Night(config, spark)
    found = {r["system"]: r for r in store.read("metrics", night.eval_namespace).where("segment = 'all' AND k = 10").collect()}
    assert {"fused", CHAMPION, f"fused - {CHAMPION}"} <= set(found)
    assert found["fused"]["num_users"] == LATE_USERS
    check_lists_put_in_order_once_more(night)
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

    publish.rollback(store, publish.published_night(store, config.as_of))
    found = keep_newest(config, spark, 1, dry_run=False, free_files=False)
    assert (found.kept[0][1], found.namespaces, found.models) == (night.run_id, (done.night.eval_namespace,), ())
    assert {r["run_id"] for r in store.read("recommendations", "live").select("run_id").distinct().collect()} == {night.run_id}
    assert {table for table, n in versions(store) if n.startswith(done.night.eval_namespace)} == {"metrics", "runs"}


def test_purged_a_user_is_in_no_file(spark: SparkSession, done: Done, copy: Path) -> None:
    """Neither in a table nor in an older version of one, nor in Delta's record of changes."""
    config = parse_config(debug_config(done.data, copy / "warehouse"))

    def holders(user: str) -> set[str]:
        found = set()
        for path in [path for path in copy.rglob("*.parquet") if "_delta_log" not in path.parts]:
            table = pq.read_table(path)
            named = [name for name in ("user_id", "neighbour_id") if name in table.column_names]
            found |= {str(path) for name in named if user in table.column(name).to_pylist()}
        return found

    assert any("/live/" in path for path in holders("u3"))
    assert any("/eval/" in path for path in holders("u3"))
    gone = forget(config, spark, ["u3"], purge=True)
    assert {"events", "users", "recommendations", "user_embeddings"} <= set(gone.rows)
    assert holders("u3") == set()
    store = Store(spark, config.warehouse)
    assert store.rows("events", "live") == done.store.rows("events", "live") - gone.rows["events"]
    assert store.read("recommendations", "live").where("user_id = 'u4'").count() == config.recommend.k
    run_step(config, spark, "ingest", None)
    run_step(config, spark, "cooccurrence", "live")  # without them
    assert store.content("cooccurrence", "live") != done.store.content("cooccurrence", "live")
    assert holders("u3") == set()
