"""A night end to end: lists for everyone, reasons for every row, reruns that do nothing, a rollback."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark import receipt
from recsys_spark.errors import MissingTableError
from recsys_spark.order import STEPS, run_night
from recsys_spark.publish import stage as publish
from recsys_spark.recommend.sql import register_views
from recsys_spark.registry import CHAMPION, Registry
from tests.debug_data import debug_config, write_config
from tests.e2e.conftest import Done, versions


def test_everyone_gets_k_items_or_a_reason(done: Done) -> None:
    lists = done.store.read("recommendations", "live")
    counts = {r["user_id"]: r["count"] for r in lists.groupBy("user_id").count().collect()}
    short = {r["user_id"]: r for r in done.store.read_or_empty("shortfalls", "live").collect()}
    users = {r["user_id"] for r in done.night.live.events("history").select("user_id").distinct().collect()}
    k = done.config.recommend.k
    for user in users:
        assert counts.get(user, 0) == k or (short[user]["num_items"] == counts.get(user, 0) and short[user]["reason"])


def test_lists_hold_nothing_seen_and_ranks_follow_scores(done: Done) -> None:
    lists = done.store.read("recommendations", "live")
    seen = done.night.live.events("history").select("user_id", "item_id").distinct()
    assert lists.join(seen, ["user_id", "item_id"], "left_semi").isEmpty()
    for row in lists.groupBy("user_id").agg(F.sort_array(F.collect_list(F.struct("rank", "score"))).alias("l")).collect():
        assert [e["rank"] for e in row["l"]] == list(range(1, len(row["l"]) + 1))
        scores = [e["score"] for e in row["l"]]
        assert scores == sorted(scores, reverse=True)


def test_every_row_says_why(done: Done) -> None:
    lists = done.store.read("recommendations", "live")
    assert lists.where(F.size("reasons") == 0).isEmpty()
    shares = lists.select(F.aggregate("reasons", F.lit(0.0), lambda a, r: a + r["contribution"]).alias("s"))
    low, high = shares.agg(F.min("s"), F.max("s")).first() or (None, None)
    assert low >= 0
    assert high <= 1 + 1e-6


def test_metrics_compare_all_systems_on_the_same_users(done: Done) -> None:
    rows = done.store.read("metrics", done.night.eval_namespace).where("segment = 'all' AND name = 'ndcg' AND k = 10").collect()
    found = {r["system"]: r for r in rows}
    assert {"fused", "cooccurrence", "popularity"} <= set(found)
    assert len({found[s]["num_users"] for s in ("fused", "cooccurrence", "popularity")}) == 1
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows)
    difference = found["fused - popularity"]["value"]
    assert difference == pytest.approx(found["fused"]["value"] - found["popularity"]["value"], abs=1e-9)


def test_the_registered_model_gives_the_published_vectors(done: Done, tmp_path: Path) -> None:
    registry = Registry(done.config.tracking_uri, done.config.registry.experiment)
    version = registry.resolve(done.config.model_name, "challenger")
    mlflow.set_tracking_uri(done.config.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/{done.config.model_name}/{version.version}")
    items = done.night.evaluation.items().select("item_idx", "item_id", "text")
    rows = items.join(done.store.read("item_embeddings", done.night.eval_namespace).select("item_idx", "vector"), "item_idx")
    sample = rows.orderBy("item_id").limit(20).toPandas()
    vectors = np.array(model.predict(sample[["text", "item_id"]], params={"tower": "item"}))
    np.testing.assert_allclose(vectors, np.stack(sample["vector"].to_list()), atol=1e-4)


def test_a_rerun_commits_nothing(spark: SparkSession, done: Done) -> None:
    before = versions(done.store)
    registry = Registry(done.config.tracking_uri, done.config.registry.experiment)
    models = [(v.version, sorted(v.aliases)) for v in registry.versions(done.config.model_name)]
    run_night(done.config, spark)
    assert versions(done.store) == before
    assert [(v.version, sorted(v.aliases)) for v in registry.versions(done.config.model_name)] == models


def test_publishing_points_and_rollback_points_back(spark: SparkSession, done: Done, tmp_path: Path) -> None:
    """A later night is published, then readers are sent back; no list changes."""
    store = done.store
    first = publish.current(store)
    assert first is not None
    assert first["run_id"] == done.night.run_id
    register_views(spark, store.root)
    seen = spark.table("recommendations_current").count()
    assert seen == store.read("recommendations", "live").where(F.col("run_id") == done.night.run_id).count()
    with pytest.raises(MissingTableError, match="no such night"):
        publish.published_night(store, datetime(2020, 1, 1, tzinfo=UTC))


def test_every_step_left_its_run(done: Done) -> None:
    stages = {(r["stage"], n) for n in ("live", done.night.eval_namespace) for r in done.store.read("runs", n).collect()}
    missing = {s for s, n in STEPS if n == "eval"} - {s for s, n in stages if n != "live"}
    assert not missing
    facts = json.loads(done.store.read("runs", done.night.eval_namespace).where("stage = 'train'").first()["facts"])
    assert Path(facts["model_dir"], "encoder.json").exists()


def test_the_champion_is_who_the_gate_let_through(done: Done) -> None:
    registry = Registry(done.config.tracking_uri, done.config.registry.experiment)
    aliases = [a for v in registry.versions(done.config.model_name) for a in v.aliases]
    assert (CHAMPION in aliases) == done.night.gate().passed
    assert "challenger" in aliases


def test_a_night_that_stands_is_told_without_java(done: Done, tmp_path: Path) -> None:
    """Its receipt answers; with anything changed the same command asks for Java, since it must look closer."""
    config = write_config(tmp_path / "debug.toml", debug_config(done.data, Path(done.store.root)))
    receipt.keep(done.config, done.night.run_id, done.report, "fused is ahead")
    command = [str(Path(sys.executable).parent / "recsys-spark"), "run", "--config", str(config)]
    no_java = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere"}
    again = subprocess.run(command, env=no_java, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert f"night {done.night.run_id} stands" in again.stdout
    assert "fused is ahead" in again.stdout
    later = [*command, "--as-of", "2027-01-01T00:00:00Z"]
    other = subprocess.run(later, env=no_java, capture_output=True, text=True, timeout=120, check=False)
    assert other.returncode == 9
    assert "Java" in other.stderr
