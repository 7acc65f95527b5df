"""The evaluate stage on a log small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.context import Cache, Context
from recsys_spark.errors import InputError, MissingTableError
from recsys_spark.evaluate import stage
from recsys_spark.evaluate.gate import differences
from recsys_spark.evaluate.split import cutoff_for
from recsys_spark.evaluate.targets import held_out_targets
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.runs import StagePlan, run_stage
from recsys_spark.tables.store import Commit, Store, Written
from tests.spark.test_evaluate_split import AS_OF, config, log

# users 1..3 have three events each, user 4 only one; targets: 1 -> i3, 2 -> i4, 3 -> i3; i5 is never met
EVENTS = [
    (f"e{u}{n}", u, item, 9 - n, 1)
    for u, items in {1: (1, 2, 3), 2: (1, 2, 4), 3: (1, 4, 3), 4: (1,)}.items()
    for n, item in enumerate(items)
]
FUSED = {1: [3, 4], 2: [3, 4]}  # user 3 has no list
POPULAR = {1: [4, 5], 2: [4, 3], 3: [2, 3]}


def fill(spark: SparkSession, store: Store, commit: Commit) -> None:
    store.replace("events", "live", log(spark, EVENTS), commit)
    day = date(2024, 1, 1)
    items = [(f"i{i}", i, f"title {i}", "text", True, "AB"[i % 2], {}, i != 6, "sha", day, AS_OF) for i in range(1, 7)]
    store.replace("items", "live", spark.createDataFrame(items, contract("items").schema), commit)
    for name, lists in {"fused": FUSED, "popularity": POPULAR}.items():
        rows = [
            (f"u{user}", rank, f"i{item}", 1.0 / rank, "personal", [], 3, "r1", AS_OF)
            for user, items_of in lists.items()
            for rank, item in enumerate(items_of, 1)
        ]
        frame = spark.createDataFrame(rows, contract("recommendations").schema)
        plan = StagePlan("recommend", {}, {}, ("recommendations",))
        run_stage(store, space(name), "r1", AS_OF, plan, partial(write_lists, store, space(name), frame))
    ranks = [("u1", "i3", 1, 3), ("u2", "i4", 2, 3), ("u3", "i3", 3, 3)]
    store.replace("target_ranks", "eval/r1", spark.createDataFrame(ranks, contract("target_ranks").schema), commit)


def write_lists(store: Store, namespace: str, frame: DataFrame, commit: Commit) -> tuple[list[Written], dict[str, Any]]:
    return [store.replace("recommendations", namespace, frame, commit)], {"model_version": 3}


def space(name: str) -> str:
    return "eval/r1" if name == "fused" else f"eval/r1/{name}"


def context(spark: SparkSession, store: Store) -> tuple[Any, Context]:
    settings = config(store.root, split="leave_one_out", ks=[1, 2, 50], bootstrap_samples=50)
    settings = settings.model_copy(update={"gate": settings.gate.model_copy(update={"k": 2})})
    return settings, Context(spark, store, settings, "eval/r1", cutoff_for(settings, store, "eval/r1"), "r1")


def test_metrics_of_two_systems_on_the_same_users(spark: SparkSession, store: Store, commit: Commit) -> None:
    fill(spark, store, commit)
    settings, here = context(spark, store)
    with pytest.raises(MissingTableError, match="recommendations"):
        stage.run(settings, here, {"fused": "eval/r1/nothing"})
    with pytest.raises(InputError, match="no systems"):
        stage.run(settings, here, {})
    report = stage.run(settings, here, {name: space(name) for name in ("fused", "popularity")})
    rows = {(r["system"], r["name"], r["k"], r["segment"]): r for r in store.read("metrics", "eval/r1").collect()}
    value = {key: row["value"] for key, row in rows.items()}
    assert value["fused", "recall", 2, "all"] == pytest.approx(2 / 3)  # user 3 without a list counts 0
    assert value["fused", "ndcg", 2, "all"] == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert value["popularity", "recall", 2, "all"] == pytest.approx(2 / 3)
    assert value["popularity", "recall", 1, "all"] == pytest.approx(1 / 3)
    assert value["fused - popularity", "ndcg", 2, "all"] == pytest.approx((1 - 1) / 3)
    assert value["fused", "auc", 0, "all"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert value["fused", "coverage", 2, "all"] == pytest.approx(2 / 5)  # i3, i4 of five available items
    assert value["popularity", "coverage", 2, "all"] == pytest.approx(4 / 5)
    assert value["fused", "diversity", 2, "all"] == pytest.approx(1.0)
    # fit events: i1 four times; the targets i3 and i4 none
    assert rows["fused", "recall", 2, "item_cold"]["num_users"] == 3
    row = rows["fused", "recall", 2, "all"]
    assert (row["num_users"], row["model_version"]) == (3, 3)
    assert row["cutoff"].startswith("holdout leave_one_out ")
    assert row["low"] <= row["value"] <= row["high"]
    assert ("fused", "recall", 50, "all") not in rows
    assert report.facts["ks_left_out"] == [50]
    assert report.facts["num_targets"] == 3
    assert differences(report.facts["main"], settings.gate)["popularity"].value == pytest.approx(0, abs=1e-12)

    with pytest.raises(InputError, match="no difference to cooccurrence"):
        stage.decide(settings, here)
    systems = {name: space(name) for name in ("fused", "popularity")}
    again = stage.run(settings, context(spark, store)[1], systems)
    assert again.status == "skipped"
    assert again.facts["main"] == report.facts["main"]
    assert report.facts["targets_out_of_reach"] == 0
    barred = [("u1", "i3", 1, 3), ("u2", "i4", 0, 3), ("u3", "i3", 0, 3)]
    store.replace("target_ranks", "eval/r1", spark.createDataFrame(barred, contract("target_ranks").schema), commit)
    assert stage.run(settings, context(spark, store)[1], systems).facts["targets_out_of_reach"] == 2


def test_of_many_users_some_are_measured_the_same_every_time(spark: SparkSession, store: Store, commit: Commit) -> None:
    fill(spark, store, commit)
    here = context(spark, store)[1]
    every = {tuple(row) for row in held_out_targets(here).collect()}
    assert every == {(1, "u1", 3, "i3"), (2, "u2", 4, "i4"), (3, "u3", 3, "i3")}
    drawn = []
    for most in (2, 2, 1):
        config = here.config.model_copy(update={"evaluate": here.config.evaluate.model_copy(update={"max_users": most})})
        drawn.append({tuple(row) for row in held_out_targets(replace(here, config=config, cache=Cache())).collect()})
    assert [len(targets) for targets in drawn] == [2, 2, 1]
    assert every > drawn[0] == drawn[1] > drawn[2]
    settings = config.model_copy(update={"gate": here.config.gate})
    done = stage.run(
        settings, replace(here, config=config, cache=Cache()), {name: space(name) for name in ("fused", "popularity")}
    )
    assert (done.facts["num_users"], done.facts["num_targets"]) == (1, 1)
