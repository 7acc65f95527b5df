"""Embed end to end on a small log: what is encoded, what is kept, what goes, and what the vectors are."""

from __future__ import annotations

import hashlib
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
from recsys_spark.encoder.package import save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.encoder.text_source import text_model_key
from recsys_spark.registry import ModelVersion
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

AS_OF = datetime(2024, 1, 10, tzinfo=UTC)
START = datetime(2024, 1, 1, tzinfo=UTC)
TEXTS = {"a": "garden rake", "b": "kitchen pan", "c": "", "d": "😀 שלום " + "long " * 25_000, "e": "never bought"}
HISTORIES = {"u0": "ab", "u1": "c", "u2": "dab", "u3": "abcd"}
SETTINGS = EncoderSettings(
    text_model="tiny", dtype="float32", dimension=8, max_tokens=12, user_layers=1, max_history=3, text_training="frozen"
)
VERSION = ModelVersion("debug", 1)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = Encoder(SETTINGS, 32, 2)
    with torch.no_grad():
        encoder.item_tower.ids.weight.normal_()
    folder = tmp_path_factory.mktemp("models") / "debug-1"
    return save_model(folder, encoder, TextEncoder.load("tiny", 12, "float32"), ["a", "c"], 0.07, {})


def write_items(store: Store, texts: dict[str, str]) -> None:
    rows = [
        (name, number, name, text, bool(text), None, None, True, f"sha of {text[:20]}", date(2024, 1, 1), None)
        for number, (name, text) in enumerate(texts.items())
    ]
    _overwrite(store, "items", rows)


def write_events(store: Store, histories: dict[str, str]) -> None:
    rows = []
    for user, items in histories.items():
        for place, item in enumerate(items):
            ts, number = START + timedelta(hours=place), list(TEXTS).index(item)
            idx = int(user[1:])
            rows.append((f"{user}-{place}", user, idx, item, number, "view", None, 1.0, 1, ts, place, f"s{user}", {}, ts.date()))
    _overwrite(store, "events", rows)


def _overwrite(store: Store, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Quicker than a checked replace, which these fixtures do not need."""
    frame = store.spark.createDataFrame(rows, contract(table).schema).coalesce(1)
    frame.write.format("delta").mode("overwrite").save(store.path(table, "live"))


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
def context(store: Store) -> Context:
    write_items(store, TEXTS)
    write_events(store, HISTORIES)
    return make_context(store)


def run(context: Context, model_dir: Path, version: ModelVersion = VERSION) -> Any:
    return stage.run(context.config, context, version, model_dir)


def vectors(frame: DataFrame, key: str) -> dict[str, np.ndarray]:
    return {row[key]: np.array(row["vector"], dtype=np.float32) for row in frame.collect()}


def test_embed_vectors_equal_those_of_the_loaded_model_and_reruns_encode_only_changes(
    context: Context, store: Store, model_dir: Path
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

    # a text changes (b), an item goes (e), a user goes (u2) and comes (u4), u3 gets an event before its last three
    other_version = context.read("item_embeddings").where("item_id = 'e'").withColumn("model_version", F.lit(2))
    other_version.write.format("delta").mode("append").save(store.path("item_embeddings", "live"))
    write_items(store, {name: text for name, text in (TEXTS | {"b": "kitchen bowl"}).items() if name != "e"})
    write_events(store, {"u0": "ab", "u1": "c", "u3": "dabcd", "u4": "a", "u5": "acd"})
    changed = make_context(store)
    again = run(changed, model_dir)
    assert again.facts == {"items_encoded": 1, "users_encoded": 4, "texts_encoded": 1}  # u0 and u3 hold b; u4, u5 are new
    rows = changed.read("item_embeddings").collect()
    assert sorted((r["model_version"], r["item_id"]) for r in rows) == [(1, "a"), (1, "b"), (1, "c"), (1, "d"), (2, "e")]
    after = {r["item_id"]: np.array(r["vector"], dtype=np.float32) for r in rows}
    np.testing.assert_allclose(after["b"], model.encode_items(["kitchen bowl"], ["b"])[0], atol=1e-6)
    np.testing.assert_array_equal(after["a"], found["a"])
    now = vectors(changed.read("user_embeddings"), "user_id")
    assert set(now) == {"u0", "u1", "u3", "u4", "u5"}
    np.testing.assert_array_equal(now["u1"], users["u1"])
    assert not np.allclose(now["u0"], users["u0"], atol=1e-3)

    # an event before the items that count: the vector is kept, the number of events is not
    write_events(store, {"u0": "ab", "u1": "c", "u3": "ddabcd", "u4": "a", "u5": "acd"})
    later = make_context(store)
    assert run(later, model_dir).facts == {"items_encoded": 0, "users_encoded": 0, "texts_encoded": 0}
    assert later.read("user_embeddings").where("user_id = 'u3'").first()["num_events"] == 6


def test_text_vectors_are_encoded_once_and_zero_where_there_is_no_text(context: Context, commit: Commit) -> None:
    frame = {r["item_idx"]: np.array(r["vector"]) for r in text_vectors(context, context.items()).collect()}
    assert set(frame) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(frame[2], np.zeros(32))
    expected = TextEncoder.load("tiny", 12, "float32").encode(list(TEXTS.values()))
    np.testing.assert_allclose(np.stack([frame[i] for i in range(5)]), expected, atol=1e-6)
    assert context.read("item_text_vectors").count() == 4
    assert ensure_text_vectors(context, context.items(), "tiny", 12, "float32", commit) is None
    assert ensure_text_vectors(context, context.items(), "tiny", 8, "float32", commit) is not None  # another cut, other vectors
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


def test_users_with_a_profile_alone_get_the_vector_of_an_item_with_its_text(
    context: Context, store: Store, model_dir: Path
) -> None:
    users = [(f"u{i}", i, "garden", None) for i in range(4)] + [("new", 8, "kitchen knife", None), ("blank", 9, None, None)]
    trained_on = "a planted vector tells that this text is not encoded again"
    _overwrite(store, "users", [*users, ("known", 10, trained_on, None)])
    key, planted = text_model_key("tiny", 12, "float32"), np.linspace(-1, 1, 32, dtype=np.float32)
    _overwrite(store, "item_text_vectors", [(hashlib.sha256(trained_on.encode()).hexdigest(), key, planted.tolist())])
    config = context.config.model_copy(update={"embed": context.config.embed.model_copy(update={"profile_users": True})})
    report = stage.run(config, replace(context, config=config), VERSION, model_dir)
    assert report.facts["users_encoded"] == 6
    rows = {r["user_id"]: r for r in context.read("user_embeddings").collect()}
    assert set(rows) == {"u0", "u1", "u2", "u3", "new", "known"}
    assert (rows["new"]["num_events"], rows["new"]["user_idx"]) == (0, 8)
    model = load_model(model_dir)
    np.testing.assert_allclose(rows["new"]["vector"], model.encode_items(["kitchen knife"])[0], atol=1e-6)
    expected = model.encode_text_vectors(planted[None], np.array([-1]))[0]
    np.testing.assert_allclose(rows["known"]["vector"], expected, atol=1e-6)
    assert rows["u0"]["num_events"] == 2, "who has a history is known by it"
    measured = context.users().where("user_id IN ('u0', 'known')")
    stage.run(config, replace(context, config=config), VERSION, model_dir, measured)
    assert {r["user_id"]: r["vector"] for r in context.read("user_embeddings").collect()} == {
        user: rows[user]["vector"] for user in ("u0", "known")
    }


def test_frames_of_a_model_with_a_gate_attributes_time_gaps_and_queries(
    context: Context, spark: SparkSession, tmp_path: Path
) -> None:
    told = {"item_gate": "learned", "attributes": ["category", "brand"], "time_gaps": True, "query_key": "search"}
    settings = SETTINGS.model_copy(update=told)
    torch.manual_seed(0)
    asked, unit = 2**32 - 1, settings.moments[-1].unit
    encoder = Encoder(settings, 32, 2, counts=[3.0, 9.0], num_values=2).with_queries((torch.tensor([asked]), torch.randn(1, 32)))
    with torch.no_grad():
        for weight in (encoder.item_tower.ids.weight, encoder.item_tower.values.weight, encoder.user_tower.moments[0].weight):
            weight.normal_()
    known, values = ["a", "c"], ["brand=ace", "category=garden"]
    folder = save_model(tmp_path / "model", encoder, TextEncoder.load("tiny", 12, "float32"), known, 0.07, {}, values)
    category = F.when(F.col("item_id") == "a", "garden")
    brand = F.when(F.col("item_id") == "b", F.create_map(F.lit("brand"), F.lit("ace")))
    described = context.items().withColumns({"category": category, "attributes": brand})
    items = item_vectors(context, folder, described).localCheckpoint()
    model = load_model(folder)
    expected = model.encode_items(list(TEXTS.values()), list(TEXTS), [["category=garden"], ["brand=ace"], [], [], []])
    np.testing.assert_allclose(np.stack([vectors(items, "item_id")[name] for name in TEXTS]), expected, atol=1e-6)
    shas = [
        {r["item_id"]: r["input_sha"] for r in frame.collect()}
        for frame in (items, item_vectors(context, folder, context.items()))
    ]
    assert {name for name in TEXTS if shas[0][name] != shas[1][name]} == {"a"}, "another category, another vector"

    with_query = 9 + asked * unit
    rows = [
        ("x", 0, [0, 99, 1], [0, 4, 9], 3),
        ("y", 1, [0, 1], [0, 2], 2),
        ("z", 2, [2], [0], 1),
        ("q", 3, [0, 1], [0, with_query], 2),
    ]
    schema = "user_id string, user_idx int, items array<int>, moments array<bigint>, num_events int"
    histories = spark.createDataFrame(rows, schema)
    frame = user_vectors(context, folder, histories, items).localCheckpoint()
    found = vectors(frame, "user_id")
    history, mask = expected[[0, 1]][None], np.ones((1, 2), bool)
    for user, moments in (("x", [[0, 9]]), ("y", [[0, 2]]), ("q", [[0, with_query]])):  # item 99 goes with its gap
        np.testing.assert_allclose(found[user], model.encode_users(history, mask, np.array(moments))[0], atol=1e-6)
    assert not np.allclose(found["x"], found["y"], atol=1e-3)
    assert not np.allclose(found["x"], found["q"], atol=1e-3)
    assert frame.select("history_sha").distinct().count() == 4
