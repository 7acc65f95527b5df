"""The Spark job equals the slow twin and the plain self-join, on random and on degenerate logs."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.speed.rivals.self_join import self_join
from recsys_spark.config.signals import CooccurrenceSettings, CountingWay
from recsys_spark.cooccurrence import carriers
from recsys_spark.cooccurrence.baskets import basket_rows
from recsys_spark.cooccurrence.count import cooccurrences
from recsys_spark.cooccurrence.measures import MEASURES
from recsys_spark.cooccurrence.message_files import is_one_machine
from recsys_spark.cooccurrence.way import way_of_baskets
from recsys_spark.errors import MachineError
from tests.cooccurrence_job import EPOCH, Event, count_without_spark
from tests.cooccurrence_twin import Row, twin_counts, twin_score

START = datetime(2024, 1, 1, tzinfo=UTC)
REFERENCE = START + timedelta(days=60)
DAY = 86_400_000_000


def frame(spark: SparkSession, rows: list[Row]) -> DataFrame:
    """Times are days after START."""
    data = [(basket, item, START + timedelta(days=day)) for basket, item, day in rows]
    return spark.createDataFrame(data, "basket bigint, item_idx int, ts timestamp")


def random_rows(seed: int, num_rows: int = 600, num_baskets: int = 40, num_items: int = 30) -> list[Row]:
    rng = random.Random(seed)
    return [
        (rng.randrange(-num_baskets, num_baskets), min(int(rng.expovariate(0.15)), num_items - 1), rng.randrange(50))
        for _ in range(num_rows)
    ]


def collected(rows: DataFrame, settings: CooccurrenceSettings, **more: object) -> tuple[list[dict], dict]:
    with cooccurrences(rows, settings, REFERENCE, **more) as counted:  # type: ignore[arg-type]
        return [r.asDict() for r in counted.frame.collect()], counted.facts


@pytest.mark.parametrize(
    ("seed", "window", "half_life", "way"),
    [
        (1, None, None, "auto"),
        (2, None, 14.0, "broadcast"),
        (3, 3.0, None, "blocked"),
        (4, 5.0, 14.0, "auto"),
        (5, None, None, "blocked"),
    ],
)
def test_equals_the_twin(spark: SparkSession, seed: int, window: float | None, half_life: float | None, way: CountingWay) -> None:
    rows = random_rows(seed)
    settings = CooccurrenceSettings(window_days=window, half_life_days=half_life, top_n=1000, measures=list(MEASURES), way=way)
    found, facts = collected(frame(spark, rows), settings)
    expected, held, total = twin_counts(rows, None if window is None else int(window), half_life, 60)
    assert {(r["item_a"], r["item_b"]): r["num_baskets"] for r in found} == {p: n for p, (n, _) in expected.items()}
    assert len(found) == len(expected)
    for row in found:
        a, b, n = row["item_a"], row["item_b"], row["num_baskets"]
        assert (row["num_baskets_a"], row["num_baskets_b"], row["num_baskets_total"]) == (held[a], held[b], total)
        if half_life is None:
            assert row["decayed_count"] is None
        else:
            assert row["decayed_count"] == pytest.approx(expected[a, b][1], rel=1e-9)
        for name in MEASURES:
            assert row[name] == pytest.approx(twin_score(name, n, held[a], held[b], total), abs=1e-9)
    assert facts["num_baskets"] == total
    assert facts["num_items"] == len(held)
    assert (facts["capped_baskets"], facts["items_cut"]) == (0, 0)
    assert sum(facts["basket_sizes"].values()) == total


def test_top_n_equals_the_self_join(spark: SparkSession) -> None:
    rows = frame(spark, random_rows(9, num_rows=900)).persist()
    settings = CooccurrenceSettings(measures=["cosine"], min_support=2, top_n=4)
    found, _ = collected(rows, settings, hashes=np.arange(30, dtype=np.uint64))
    columns = ("item_a", "item_b", "num_baskets", "num_baskets_a", "num_baskets_b", "rank_a")
    expected = self_join(rows, 2, 4).select(*columns).collect()
    assert sorted(tuple(r[c] for c in columns) for r in found) == sorted(tuple(r) for r in expected)
    assert max(r["rank_a"] for r in found) == 4
    assert all(r["cosine"] is not None and r["jaccard"] is None and r["llr"] is None for r in found)


def test_the_measure_ranked_by_is_filled_though_not_asked_for(spark: SparkSession) -> None:
    rows = frame(spark, [(1, 1, 0), (1, 2, 0), (2, 1, 0), (3, 3, 0), (3, 1, 0)])
    found, _ = collected(rows, CooccurrenceSettings(measures=["count"], rank_by="jaccard", top_n=1))
    assert {(r["item_a"], r["rank_a"]) for r in found} == {(1, 1), (2, 1), (3, 1)}
    assert all(r["jaccard"] == pytest.approx(1 / 3) and r["count"] == 1.0 and r["pmi"] is None for r in found)


@pytest.mark.parametrize("rows", [[], [(1, 5, 0)], [(1, 5, 0), (1, 5, 1), (2, 5, 0)], [(b, b, 0) for b in range(9)]])
def test_logs_without_a_pair_give_an_empty_frame(spark: SparkSession, rows: list[Row]) -> None:
    found, facts = collected(frame(spark, rows), CooccurrenceSettings())
    assert found == []
    assert facts["num_baskets"] == len({r[0] for r in rows})


def test_cap_is_the_same_whatever_the_partitioning(spark: SparkSession) -> None:
    rows = random_rows(5, num_rows=400, num_baskets=6)
    settings = CooccurrenceSettings(max_basket_items=8, measures=["count"], rank_by="count", top_n=5)
    once, facts = collected(frame(spark, rows), settings, seed=3)
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        again, more_facts = collected(frame(spark, rows[::-1]).repartition(7), settings, seed=3)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
    other, _ = collected(frame(spark, rows), settings, seed=4)

    def key(found: list[dict]) -> list[tuple]:
        return sorted((r["item_a"], r["rank_a"], r["item_b"], r["num_baskets"]) for r in found)

    assert key(once) == key(again)
    assert facts == more_facts
    assert key(other) != key(once)
    sizes = [len({r[1] for r in rows if r[0] == b}) for b in {r[0] for r in rows}]
    assert facts["capped_baskets"] == sum(s > 8 for s in sizes) > 0
    assert facts["items_cut"] == sum(max(0, s - 8) for s in sizes)


def test_baskets_by_session_history_and_day(spark: SparkSession) -> None:
    at = datetime(2024, 3, 1, 23, 50, tzinfo=UTC)
    data = [
        ("u1", "s1", 1, at, 1, "view"),
        ("u1", "s1", 2, at + timedelta(minutes=20), 1, "view"),  # the next UTC day, the same session
        ("u1", "s2", 3, at + timedelta(hours=5), 1, "buy"),
        ("u2", "s3", 4, at, -1, "view"),
        ("u2", "s3", 5, at, 0, "cart"),
    ]
    schema = "user_id string, session_id string, item_idx int, ts timestamp, label int, event_type string"
    events = spark.createDataFrame(data, schema).withColumn("weight", F.lit(1.0).cast("float"))

    def contents(kind: str, likes_only: bool = True) -> set[frozenset[int]]:
        found: dict[int, set[int]] = {}
        settings = CooccurrenceSettings(basket=kind, likes_only=likes_only)  # type: ignore[arg-type]
        for row in basket_rows(events, settings).collect():
            found.setdefault(row["basket"], set()).add(row["item_idx"])
        return {frozenset(items) for items in found.values()}

    assert contents("session") == {frozenset({1, 2}), frozenset({3}), frozenset({5})}
    assert contents("history") == {frozenset({1, 2, 3}), frozenset({5})}
    assert contents("user_day", likes_only=False) == {frozenset({1}), frozenset({2, 3}), frozenset({4, 5})}
    crossed = CooccurrenceSettings(anchor_types=["view"], target_types=["buy"])
    assert {(r["item_idx"], r["side"]) for r in basket_rows(events, crossed).collect()} == {(1, 1), (2, 1), (3, 2)}


@pytest.mark.parametrize("way", ["blocked", "broadcast", "files"])
def test_rules_and_measures_pass_through_spark(spark: SparkSession, way: CountingWay) -> None:
    """All that a task may be sent at once equals the job without Spark."""
    rng = random.Random(8)
    events = [
        Event(basket := rng.randrange(12), rng.randrange(9), rng.randrange(20), rng.choice([0.5, 1.0]), owner=basket % 5)
        for _ in range(200)
    ]
    settings = CooccurrenceSettings(
        basket="session",
        measures=["swing", "bm25_cosine", "tfidf_cosine", "tanimoto", "confidence", "llr"],
        rank_by="bm25_cosine",
        directed=True,
        half_life_days=7.0,
        window_items=6,
        min_users=2,
        top_n=50,
        way=way,
    )
    data = [(e.basket, e.owner, e.item, START + timedelta(days=e.day), e.weight) for e in events]
    rows = spark.createDataFrame(data, "basket bigint, owner bigint, item_idx int, ts timestamp, weight double")
    found, facts = collected(rows, settings)
    shift = (START - EPOCH).days
    expected = count_without_spark([e._replace(day=e.day + shift) for e in events], settings, reference=REFERENCE)
    assert facts == expected.facts
    assert len(found) > 20
    assert {(r["item_a"], r["item_b"]): r for r in found} == expected.rows


def test_the_way_goes_by_size_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for least, way in ((1, "blocked"), (64, "broadcast")):
        assert way_of_baskets(5, CooccurrenceSettings(broadcast_below_mib=least), one_machine=False) == way
        told = capsys.readouterr().out
        assert f"way={way}" in told
        assert f"broadcast below {least}" in told


def test_on_one_machine_baskets_go_through_files(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_one_machine(spark)
    with cooccurrences(frame(spark, random_rows(1)), CooccurrenceSettings(), REFERENCE):
        assert "way=files" in capsys.readouterr().out
    assert way_of_baskets(5, CooccurrenceSettings(way="blocked"), one_machine=True) == "blocked"


def test_files_need_one_machine() -> None:
    with pytest.raises(MachineError, match="way = 'auto'"):
        way_of_baskets(5, CooccurrenceSettings(way="files"), one_machine=False)


def test_a_large_log_is_more_parts_and_blocks_and_leaves_no_file(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks become 16 blocks and eight slots, all of them of the same baskets; item 0 is in most."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path},/nowhere")
    monkeypatch.setattr(carriers, "_TASK_ROWS", 50)
    monkeypatch.setattr(carriers, "_MOST_SLOTS", 8)
    monkeypatch.setattr(carriers, "_SLOT_MIB", 1e-9)
    rows = random_rows(6)
    settings = CooccurrenceSettings(top_n=1000)
    with cooccurrences(frame(spark, rows), settings, REFERENCE) as counted:
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 16  # rows are gone; a file of each task that made baskets, empty or not
        assert counted.frame.rdd.getNumPartitions() == 16
        found = {(r["item_a"], r["item_b"]): r["num_baskets"] for r in counted.frame.collect()}
    expected, _, total = twin_counts(rows, None, None, 60)
    assert found == {pair: n for pair, (n, _) in expected.items()}
    assert counted.facts["num_baskets"] == total
    assert not list(tmp_path.iterdir())
