"""Embed end to end on a small log: what is encoded, what is kept, what goes, and what the vectors are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import parse_config
from recsys_spark.config.learning import EncoderSettings
from recsys_spark.context import Context
from recsys_spark.embed import stage
from recsys_spark.embed.encode import item_vectors, user_vectors
from recsys_spark.embed.text_vectors import ensure_text_vectors, text_vectors
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import load_model, save_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.registry import ModelVersion
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

AS_OF = datetime(2024, 1, 10, tzinfo=UTC)
START = datetime(2024, 1, 1, tzinfo=UTC)
TEXTS = {"a": "garden rake", "b": "kitchen pan", "c": "", "d": "😀 שלום " + "long " * 25_000, "e": "never bought"}
HISTORIES = {"u0": "ab", "u1": "c", "u2": "dab", "u3": "abcd"}
SETTINGS = EncoderSettings(text_model="tiny", dimension=8, max_tokens=12, user_layers=1, max_history=3, text_training="frozen")
VERSION = ModelVersion("debug", 1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = Encoder(SETTINGS, 32, 2)
    with torch.no_grad():
        encoder.item_tower.ids.weight.normal_()
    folder = tmp_path_factory.mktemp("models") / "debug-1"
    return save_model(folder, encoder, TextEncoder.load("tiny", 12), ["a", "c"], 0.07, {})


def write_items(store: Store, commit: Commit, texts: dict[str, str]) -> None:
    rows = [
        (name, number, name, text, bool(text), None, None, True, f"sha of {text[:20]}", date(2024, 1, 1), None)
        for number, (name, text) in enumerate(texts.items())
    ]
    store.replace("items", "live", store.spark.createDataFrame(rows, contract("items").schema), commit)


def write_events(store: Store, commit: Commit, histories: dict[str, str]) -> None:
    rows = []
    for user, items in histories.items():
        for place, item in enumerate(items):
            ts, number = START + timedelta(hours=place), list(TEXTS).index(item)
            idx = int(user[1:])
            rows.append(
                (f"{user}-{place}", user, idx, item, number, "view", None, 1.0, 1, ts, place, f"s{user}", {}, ts.date())
            )
    store.replace("events", "live", store.spark.createDataFrame(rows, contract("events").schema), commit)


def make_context(store: Store) -> Context:
    events = {"path": "x", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}
    config = parse_config(
        {
            "as_of": AS_OF,
            "warehouse": store.root,
            "ingest": {"events": events},
            "encoder": SETTINGS.model_dump(),
            "pairs": {"max_history": 3},
        }
    )
    return Context(store.spark, store, config, "live", InstantCutoff(AS_OF, AS_OF, AS_OF), "run")


@pytest.fixture
def context(store: Store, commit: Commit) -> Context:
    write_items(store, commit, TEXTS)
    write_events(store, commit, HISTORIES)
    return make_context(store)


def run(context: Context, model_dir: Path, version: ModelVersion = VERSION) -> Any:
    return stage.run(context.config, context, version, model_dir)


def vectors(frame: DataFrame, key: str) -> dict[str, np.ndarray]:
    return {row[key]: np.array(row["vector"], dtype=np.float32) for row in frame.collect()}


def test_embed_vectors_equal_those_of_the_loaded_model_and_reruns_encode_only_changes(
    context: Context, store: Store, commit: Commit, model_dir: Path
) -> None:
    report = run(context, model_dir)
    assert report.facts == {"items_encoded": 5, "users_encoded": 4, "texts_encoded": 4}
    model = load_model(model_dir)
    expected = dict(zip(TEXTS, model.encode_items(list(TEXTS.values()), list(TEXTS)), strict=True))
    found = vectors(context.read("item_embeddings"), "item_id")
    assert set(found) == set(TEXTS)
    for name, vector in expected.items():
        np.testing.assert_allclose(found[name], vector, atol=1e-6)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    users = vectors(context.read("user_embeddings"), "user_id")
    for user, items in HISTORIES.items():
        history = np.stack([expected[i] for i in items[-3:]])[None]
        np.testing.assert_allclose(users[user], model.encode_users(history, np.ones(history.shape[:2], bool))[0], atol=1e-6)

    assert run(make_context(store), model_dir).status == "skipped"

    # one text changes, one user gets an event, one user disappears: that and what depends on it
    write_items(store, commit, TEXTS | {"b": "kitchen bowl"})
    write_events(store, commit, {"u0": "ab", "u1": "ca", "u3": "abcd", "u4": "a"})
    changed = make_context(store)
    again = run(changed, model_dir)
    assert again.facts == {"items_encoded": 1, "users_encoded": 4, "texts_encoded": 1}  # u0, u3 hold b; u1, u4 are new
    after = vectors(changed.read("item_embeddings"), "item_id")
    assert not np.allclose(after["b"], found["b"], atol=1e-3)
    np.testing.assert_array_equal(after["a"], found["a"])
    assert set(vectors(changed.read("user_embeddings"), "user_id")) == {"u0", "u1", "u3", "u4"}

    # another version has its own rows; those of the first stay for a rollback
    run(changed, model_dir, replace(VERSION, version=2))
    counts = {r["model_version"]: r["count"] for r in changed.read("item_embeddings").groupBy("model_version").count().collect()}
    assert counts == {1: 5, 2: 5}


def test_a_shorter_catalogue_drops_rows_and_an_unchanged_history_with_more_events_is_kept(
    context: Context, store: Store, commit: Commit, model_dir: Path
) -> None:
    run(context, model_dir)
    write_items(store, commit, {name: text for name, text in TEXTS.items() if name != "e"})
    rows = store.read("events", "live")
    early = rows.where("user_id = 'u3' AND item_id = 'a'").withColumn("event_id", F.lit("early"))
    early = early.withColumn("ts", F.expr("ts - interval 1 hour")).withColumn("event_date", F.to_date("ts"))
    store.replace("events", "live", rows.unionByName(early).localCheckpoint(), commit)
    later = make_context(store)
    report = run(later, model_dir)
    assert report.facts == {"items_encoded": 0, "users_encoded": 0, "texts_encoded": 0}
    assert later.read("item_embeddings").where("item_id = 'e'").count() == 0
    assert later.read("user_embeddings").where("user_id = 'u3'").first()["num_events"] == 5


def test_text_vectors_are_encoded_once_and_zero_where_there_is_no_text(context: Context, commit: Commit) -> None:
    frame = {r["item_idx"]: np.array(r["vector"]) for r in text_vectors(context, context.items()).collect()}
    assert set(frame) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(frame[2], np.zeros(32))
    expected = TextEncoder.load("tiny", 12).encode(list(TEXTS.values()))
    np.testing.assert_allclose(np.stack([frame[i] for i in range(5)]), expected, atol=1e-6)
    table = context.read("item_text_vectors")
    assert table.count() == 4
    assert ensure_text_vectors(context, context.items(), "tiny", 12, "auto", commit) is None
    assert ensure_text_vectors(context, context.items(), "tiny", 8, "auto", commit) is not None  # another cut, other vectors
    assert table.count() == 4
    assert context.read("item_text_vectors").count() == 8


def test_frames_without_any_table_of_text_vectors(context: Context, spark: SparkSession, model_dir: Path) -> None:
    """As fusion uses them: nothing cached, a user whose items are unknown, an item that is not in the frame."""
    items = item_vectors(context, model_dir, context.items()).localCheckpoint()
    model = load_model(model_dir)
    expected = model.encode_items(list(TEXTS.values()), list(TEXTS))
    np.testing.assert_allclose(np.stack([vectors(items, "item_id")[name] for name in TEXTS]), expected, atol=1e-6)
    rows = [("x", 0, [0, 99, 1], 3), ("nothing", 1, [99], 1), ("empty", 2, [], 0)]
    histories = spark.createDataFrame(rows, "user_id string, user_idx int, items array<int>, num_events int")
    found = vectors(user_vectors(context, model_dir, histories, items), "user_id")
    assert set(found) == {"x"}
    history = expected[[0, 1]][None]
    np.testing.assert_allclose(found["x"], model.encode_users(history, np.ones((1, 2), bool))[0], atol=1e-6)
