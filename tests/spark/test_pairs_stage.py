"""The pairs stage as a whole: what it writes, that it sees fit events only, and that nothing is too small for it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.errors import ConfigError, MissingTableError
from recsys_spark.pairs import stage
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

START = datetime(2024, 1, 1, tzinfo=UTC)
FIT_UNTIL, HISTORY_UNTIL, END = (START + timedelta(days=n) for n in (10, 12, 14))
NS = "eval/r1"
Event = tuple[int, int, float, int]  # user, item, day, label

TEXTS = ["red pan", "red pan lid", "blue tent", "blue tent peg", "green rope", "green rope", "", "drum", "", "", "", ""]
FIT: list[Event] = [(u, (u + 2 * n) % 9, n + u / 10, 1) for u in range(6) for n in range(5)] + [(0, 7, 9.5, -1), (6, 1, 3, 1)]
VALIDATION: list[Event] = [(0, 2, 11, 1), (0, 3, 10.5, 1), (1, 10, 10, 1), (6, 1, 10, -1)]  # item 10: no text, met only here
TEST: list[Event] = [(2, 11, 13, 1), (3, 0, 12.5, -1), (5, 1, 12, 1)]  # item 11: no text, met only here


def config(warehouse: str, **pairs: Any) -> Config:
    source = {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t", "event_type": "k"}}
    settings = {
        "max_history": 3,
        "num_files": 3,
        "validation_share": 0.2,
        "collaborative": {"factors": 4, "iterations": 2, "blocks": 2},
    }
    document = {"as_of": END, "warehouse": warehouse, "ingest": {"events": source}, "pairs": settings | pairs}
    return parse_config(document)


def context(store: Store, settings: Config) -> Context:
    return Context(store.spark, store, settings, NS, InstantCutoff(FIT_UNTIL, HISTORY_UNTIL, END), "r1")


def fill(store: Store, commit: Commit, events: list[Event], texts: list[str]) -> None:
    """Events and items as ingest writes them, and co-occurrence of neighbouring items by hand, the hidden ones included."""
    rows = []
    for position, (user, item, day, label) in enumerate(events):
        ts = START + timedelta(days=day)
        rows.append(
            (f"e{position}", f"u{user}", user, f"i{item}", item, "view", None, 1.0, label, ts, position, "s", {}, ts.date())
        )
    spark = store.spark
    store.replace("events", NS, spark.createDataFrame(rows, contract("events").schema), commit)
    items = [(f"i{n}", n, None, t, bool(t), None, {}, True, f"sha{t}", date(2024, 1, 1), END) for n, t in enumerate(texts)]
    store.replace("items", NS, spark.createDataFrame(items, contract("items").schema), commit)
    counts = [
        (a, b, 2, 3, 3, 9, None, 2.0, 0.5 + a / 100, *[0.5] * 10, 1) for a in range(12) for b in (a - 1, a + 1) if 0 <= b < 12
    ]
    frame = spark.createDataFrame(counts if len(texts) > 1 else [], contract("cooccurrence").schema)
    store.replace("cooccurrence", NS, frame, commit)


def fill_graph(store: Store, commit: Commit) -> None:
    triples = [("i0", "by", "ann"), ("i6", "by", "ann"), ("i10", "by", "ann"), ("i11", "by", "ann"), ("i3", "by", "bob")]
    store.replace("knowledge_graph", NS, store.spark.createDataFrame(triples, contract("knowledge_graph").schema), commit)


def test_what_the_stage_writes(spark: SparkSession, store: Store, commit: Commit) -> None:
    fill(store, commit, [*FIT, *VALIDATION, *TEST], TEXTS)
    fill_graph(store, commit)
    settings = config(store.root)
    report = stage.run(settings, context(store, settings))
    pairs = store.read("pairs", NS).collect()
    assert {row["source"] for row in pairs} == {"behaviour", "collaborative", "knowledge_graph", "text"}
    assert all(row["anchor_idx"] != row["item_idx"] and 0 < row["weight"] <= 1 for row in pairs)
    assert {row[side] for row in pairs for side in ("anchor_idx", "item_idx")} == set(range(9))  # 9 to 11 are not to be known
    by_graph = {(row["anchor_idx"], row["item_idx"]) for row in pairs if row["source"] == "knowledge_graph"}
    assert by_graph == {(0, 6), (6, 0)}

    trained = {(r["anchor_idx"], r["item_idx"]): r["weight"] for r in store.read("training_pairs", NS).collect()}
    expected: dict[tuple[int, int], float] = {}
    share = {"behaviour": 1.0, "collaborative": 0.5, "knowledge_graph": 0.3, "text": 0.3}
    for row in pairs:
        if row["split"] == "train":
            key = (row["anchor_idx"], row["item_idx"])
            expected[key] = expected.get(key, 0.0) + share[row["source"]] * row["weight"]
    assert trained == pytest.approx(expected)
    assert 0 < len(expected) < len({(r["anchor_idx"], r["item_idx"]) for r in pairs})
    assert [len(store.files(table, NS)) for table in ("training_pairs", "training_sequences")] == [3, 3]

    assert [(r["user_idx"], r["item_idx"]) for r in store.read("negatives", NS).collect()] == [(0, 7)]
    sequences = {(r["user_idx"], tuple(r["items"])) for r in store.read("training_sequences", NS).collect()}
    assert {s for s in sequences if s[0] == 0} == {(0, (2, 4, 6, 8)), (0, (-1, -1, 0, 2))}
    assert len(sequences) == 12  # user 6 has one event
    held = {(r["user_idx"], tuple(r["items"]), r["num_items"]) for r in store.read("validation_sequences", NS).collect()}
    assert held == {(0, (4, 6, 8, 3), 4), (1, (5, 7, 0, 10), 4)}
    assert report.facts["num_training_sequences"] == 12
    assert report.facts["num_negatives"] == 1
    assert report.facts["pairs_per_source"]["knowledge_graph"] == 2
    assert sum(report.facts["pairs_per_source"].values()) == report.facts["num_pairs"] == len(pairs)

    assert stage.run(settings, context(store, settings)).status == "skipped"
    more_files = config(store.root, num_files=4)
    again = stage.run(more_files, context(store, more_files))
    assert {name for name, written in again.written.items() if written.changed} == {"training_pairs", "training_sequences"}
    assert len(store.files("training_sequences", NS)) == 4


def test_nothing_beyond_the_fit_cutoff_changes_what_is_learned_from(spark: SparkSession, tmp_path: Path, commit: Commit) -> None:
    beyond = [(0, 1, 10.0, 1), (4, 9, 10, -1), (5, 9, 11.9, 1), (6, 8, 12, 1), (2, 10, 13, 1), (3, 11, 20, -1)]
    learned = ("pairs", "negatives", "training_pairs", "training_sequences")
    contents = []
    for name, later in {"one": [*VALIDATION, *TEST], "two": beyond}.items():
        store = Store(spark, str(tmp_path / name))
        fill(store, commit, [*FIT, *later], TEXTS)
        fill_graph(store, commit)
        settings = config(store.root)
        stage.run(settings, context(store, settings))
        contents.append([store.content(table, NS) for table in (*learned, "validation_sequences")])
    assert contents[0][:4] == contents[1][:4]
    assert contents[0][4] != contents[1][4]  # the world did change


@pytest.mark.parametrize("enabled", [True, False])
def test_one_user_one_item_no_text_no_graph(spark: SparkSession, store: Store, commit: Commit, enabled: bool) -> None:
    fill(store, commit, [(0, 0, 1, 1)], [""])
    sources = ("behaviour", "collaborative", "knowledge_graph", "text")
    settings = config(store.root, **{source: {"enabled": enabled} for source in sources})
    report = stage.run(settings, context(store, settings))
    assert {table: store.read(table, NS).count() for table in stage.OUTPUTS} == dict.fromkeys(stage.OUTPUTS, 0)
    assert report.facts["pairs_per_source"] == dict.fromkeys(sources, 0)
    assert stage.run(settings, context(store, settings)).status == "skipped"


def test_what_is_missing_is_named(spark: SparkSession, store: Store, commit: Commit) -> None:
    settings = config(store.root, behaviour={"measure": "llr"})
    fill(store, commit, [(0, 0, 1, 1)], [""])
    fewer = settings.model_copy(update={"cooccurrence": settings.cooccurrence.model_copy(update={"measures": ["count"]})})
    with pytest.raises(
        ConfigError, match=r"\[pairs.behaviour\]: measure 'llr' is not computed; expected one of count, cosine; or add it"
    ):
        stage.run(fewer, context(store, fewer))
    elsewhere = Context(spark, store, settings, "eval/r2", InstantCutoff(FIT_UNTIL, HISTORY_UNTIL, END), "r2")
    with pytest.raises(MissingTableError, match="table 'cooccurrence': not written"):
        stage.run(settings, elsewhere)


def test_impressions_are_negatives_and_nothing_else(spark: SparkSession, store: Store, commit: Commit) -> None:
    """Of three impressions one stands at the end of the fit, of an item user 1 has no event with; the others are too late,
    or followed by an event. No history holds them."""
    impressions = [(1, 8, 2.0, 1), (1, 4, 11.0, 1), (1, 3, 0.5, 1)]
    met = {(u, i) for u, i, _, _ in FIT}
    assert {(1, 8), (1, 4), (1, 3)} & met == {(1, 3)}
    explicit = {"per_user": 2, "shown_types": ["impression"]}
    off = {name: {"enabled": False} for name in ("behaviour", "collaborative", "knowledge_graph", "text")}
    settings = config(store.root, negatives=explicit, **off)
    settings = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"split": "time"})})
    fill(store, commit, [*FIT, *VALIDATION, *impressions], TEXTS)
    late = F.expr(f"if(event_pos >= {len(FIT) + len(VALIDATION)}, 'impression', event_type)")
    store.replace("events", NS, store.read("events", NS).withColumn("event_type", late), commit)
    report = stage.run(settings, context(store, settings))
    rows = store.read("negatives", NS).collect()
    assert {(r["user_idx"], r["item_idx"], r["source"]) for r in rows} == {(0, 7, "dislike"), (1, 8, "shown")}
    sequences = {tuple(r["items"]) for r in store.read("training_sequences", NS).where("user_idx = 1").collect()}
    assert sequences == {(3, 5, 7, 0), (-1, -1, 1, 3)}
    trained = {r["user_idx"]: (r["items"], r["unwanted"]) for r in store.read("training_negatives", NS).collect()}
    expected = {0: ([2, 4, 6, 8], [7, -1]), 1: ([3, 5, 7, 0], [8, -1])}
    splits = {r["user_idx"]: r["split"] for r in rows}
    assert trained == {user: row for user, row in expected.items() if splits[user] == "train"}
    assert report.facts["num_training_negatives"] == len(trained) > 0
