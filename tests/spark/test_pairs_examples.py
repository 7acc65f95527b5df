"""Split, mix, overlap and explicit negatives, with figures worked out by hand."""

from __future__ import annotations

from datetime import datetime

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.pairs.examples import mixed, overlap, with_provenance
from recsys_spark.pairs.negatives import dislikes, mined, shown, training_negatives
from recsys_spark.tables.contracts import contract

EVENT = "event_id string, user_idx int, item_idx int, label tinyint, weight float, ts timestamp, event_pos bigint"


def pairs(spark: SparkSession, rows: list[tuple[int, int, float]]) -> DataFrame:
    return spark.createDataFrame(rows, "anchor_idx int, item_idx int, weight float")


def test_a_pair_its_mirror_and_all_its_sources_share_a_split(spark: SparkSession) -> None:
    forward = pairs(spark, [(a, b, 0.5) for a in range(60) for b in range(a)])
    mirror = pairs(spark, [(b, a, 0.25) for a in range(60) for b in range(a)])
    rows = with_provenance({"behaviour": forward, "text": mirror, "collaborative": mirror}, 42, 0.1).collect()
    splits: dict[frozenset[int], set[str]] = {}
    for row in rows:
        splits.setdefault(frozenset((row["anchor_idx"], row["item_idx"])), set()).add(row["split"])
    assert len(splits) == 1770
    assert all(len(names) == 1 for names in splits.values())
    validation = {pair for pair, names in splits.items() if names == {"validation"}}
    assert len(validation) == pytest.approx(177, abs=40)  # three standard deviations

    again = with_provenance({"text": mirror.repartition(5)}, 42, 0.1).where("split = 'validation'").collect()
    assert {frozenset((r["anchor_idx"], r["item_idx"])) for r in again} == validation
    other = with_provenance({"text": mirror}, 43, 0.1).where("split = 'validation'").collect()
    assert {frozenset((r["anchor_idx"], r["item_idx"])) for r in other} != validation
    assert with_provenance({"text": mirror}, 42, 0.0).where("split = 'validation'").isEmpty()


def table(spark: SparkSession) -> DataFrame:
    rows = [
        (1, 2, 1.0, "behaviour", "train"), (1, 2, 0.5, "collaborative", "train"), (1, 2, 0.25, "text", "train"),
        (2, 1, 0.5, "collaborative", "train"),
        (1, 3, 1.0, "text", "train"),
        (1, 4, 1.0, "behaviour", "validation"), (1, 4, 1.0, "text", "validation"),
    ]  # fmt: skip
    return spark.createDataFrame(rows, contract("pairs").schema)


def test_the_mix_is_the_sum_of_share_times_weight_over_train_pairs(spark: SparkSession) -> None:
    shares = {"behaviour": 1.0, "collaborative": 0.5, "knowledge_graph": 9.0, "text": 0.0}
    mix = mixed(table(spark), shares)
    assert {(r["anchor_idx"], r["item_idx"]): r["weight"] for r in mix.collect()} == {(1, 2): 1.25, (2, 1): 0.25}
    assert mix.dtypes == [("anchor_idx", "int"), ("item_idx", "int"), ("weight", "float")]


def test_overlap_counts_pairs_by_source_and_by_two_sources(spark: SparkSession) -> None:
    facts = overlap(table(spark))
    assert facts["pairs_per_source"] == {"behaviour": 2, "collaborative": 2, "knowledge_graph": 0, "text": 3}
    assert facts["pairs_per_split"] == {"train": 3, "validation": 1}
    both = {name: number for name, number in facts["pairs_in_both"].items() if number}
    assert both == {"behaviour+collaborative": 1, "behaviour+text": 2, "collaborative+text": 1}
    assert overlap(table(spark).limit(0))["pairs_per_split"] == {"train": 0, "validation": 0}


def test_only_a_standing_dislike_is_a_negative(spark: SparkSession) -> None:
    def event(user: int, item: int, label: int, hour: int, position: int = 0, weight: float = 1.0) -> tuple[object, ...]:
        return (f"e{user}{item}{hour}{position}", user, item, label, weight, datetime(2024, 1, 1, hour), position)

    rows = [
        event(1, 5, -1, 3, weight=2.0), event(1, 5, 1, 2),  # liked, then not: stands
        event(1, 6, -1, 2), event(1, 6, 1, 3),  # came to like it
        event(2, 5, 1, 4, 1), event(2, 5, -1, 4, 2, weight=0.5), event(2, 7, 0, 1),  # same time: the log's order
    ]  # fmt: skip
    found = dislikes(spark.createDataFrame(rows, EVENT), 42, 0.5)
    assert {(r["user_idx"], r["item_idx"]): (r["weight"], r["source"]) for r in found.collect()} == {
        (1, 5): (2.0, "dislike"),
        (2, 5): (0.5, "dislike"),
    }
    assert {r["split"] for r in found.collect()} <= {"train", "validation"}


def test_shown_often_enough_and_left_alone_is_a_negative(spark: SparkSession) -> None:
    seen = [(1, 5), (1, 5), (1, 6), (1, 6), (1, 7), (2, 5), (2, 5), (2, 9), (2, 9)]
    impressions = spark.createDataFrame(seen, "user_idx int, item_idx int")
    events = spark.createDataFrame([(1, 6, -1), (2, 7, 1), (3, 5, 1)], "user_idx int, item_idx int, label int")
    found = shown(impressions, events, 2, 42, 0.0)
    # (1, 6) was judged, (1, 7) shown once, and nobody ever had an event with 9
    assert {tuple(row) for row in found.collect()} == {(u, 5, 1.0, "shown", "train") for u in (1, 2)}
    assert found.dtypes == dislikes(spark.createDataFrame([], EVENT), 42, 0.0).dtypes


def test_what_was_mined_weighs_as_it_scored(spark: SparkSession) -> None:
    rows = spark.createDataFrame([(1, 2, 12, 0.7), (1, 3, 13, -0.2), (2, 2, 11, 1.0000001)], contract("mined_negatives").schema)
    found = mined(rows, 42, 0.0)
    assert {(r[0], r[1]): (pytest.approx(r[2]), r[3]) for r in found.collect()} == {
        (1, 2): (0.7, "mined"),
        (1, 3): (0.01, "mined"),
        (2, 2): (1.0, "mined"),
    }
    assert found.dtypes == dislikes(spark.createDataFrame([], EVENT), 42, 0.0).dtypes


def test_training_negatives_are_the_heaviest_of_a_user_beside_their_newest_items(spark: SparkSession) -> None:
    rows = [
        (0, 9, 0.5, "mined", "train"), (0, 8, 1.0, "shown", "train"), (0, 7, 1.0, "dislike", "train"),
        (0, 6, 2.0, "dislike", "validation"),
        (1, 5, 1.0, "dislike", "train"), (1, 4, 0.5, "shown", "train"),
        (2, 4, 1.0, "dislike", "train"),
    ]  # fmt: skip
    negatives = spark.createDataFrame(rows, contract("negatives").schema)
    past = [
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
        (1, 3),
        (1, 2),
        (2, 1),
        (3, 1),
        (3, 2),
    ]  # user 2 has a single item, user 3 no negative
    events = [(f"e{n}", f"u{u}", u, i, 1, 1.0, datetime(2024, 1, 1), n) for n, (u, i) in enumerate(past)]
    schema = "event_id string, user_id string, " + EVENT.removeprefix("event_id string, ")
    found = training_negatives(negatives, spark.createDataFrame(events, schema), 2, 2)
    assert {r["user_idx"]: (r["items"], r["unwanted"], r["weight"]) for r in found.collect()} == {
        0: ([2, 3, 4], [7, 8], 1.0),
        1: ([-1, 3, 2], [5, 4], 0.75),
    }
    wider = training_negatives(negatives, spark.createDataFrame(events, schema), 4, 2).where("user_idx = 0").first()
    assert wider is not None
    assert (wider["unwanted"], wider["weight"]) == ([7, 8, 9, -1], pytest.approx(2.5 / 3))
