"""Mined negatives against a full sort of the loaded model's scores, and on into the tables that the ranks read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_spark.config import Config, parse_config
from recsys_spark.config.learning import EncoderSettings
from recsys_spark.context import Context
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.errors import MissingTableError
from recsys_spark.mine import stage
from recsys_spark.pairs import stage as pairs
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

START = datetime(2024, 1, 1, tzinfo=UTC)
FIT_UNTIL, END = START + timedelta(days=5), START + timedelta(days=9)
ITEMS = [f"thing {n} of kind {n % 4}" for n in range(14)]  # the last two are met by nobody, or too late
HISTORIES = {0: [0, 1, 2], 1: [3, 4, 5, 6], 2: [7, 8], 3: [9, 10, 11, 0]}
LATE = {0: 12, 2: 3}  # events after the fit
FIRST, LAST = 3, 7
SETTINGS = EncoderSettings(text_model="tiny", dtype="float32", dimension=8, max_tokens=12, user_layers=1, max_history=4)


def fill(store: Store, commit: Commit) -> None:
    items = [(f"i{n}", n, None, text, True, None, None, True, f"sha{n}", date(2024, 1, 1), None) for n, text in enumerate(ITEMS)]
    events = []
    for user, history in HISTORIES.items():
        placed = [(item, START + timedelta(hours=n)) for n, item in enumerate(history)]
        placed += [(LATE[user], FIT_UNTIL + timedelta(hours=1))] if user in LATE else []
        for item, ts in placed:
            name, number = f"e{user}-{item}", len(events)
            events.append((name, f"u{user}", user, f"i{item}", item, "view", None, 1.0, 1, ts, number, "s", {}, ts.date()))
    for table, rows in {"items": items, "events": events}.items():
        store.replace(table, "live", store.spark.createDataFrame(rows, contract(table).schema), commit)


def config(store: Store, **negatives: int) -> Config:
    source = {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}
    off = {name: {"enabled": False} for name in ("behaviour", "collaborative", "knowledge_graph", "text")}
    document = {
        "as_of": END,
        "warehouse": store.root,
        "ingest": {"events": source},
        "encoder": SETTINGS.model_dump(),
        "pairs": {"max_history": 3, "num_files": 1, "validation_share": 0.0, "negatives": negatives, **off},
    }
    return parse_config(document)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "scout"
    return save_model(folder, Encoder(SETTINGS, 32, 2), TextEncoder.load("tiny", 12, "float32"), ["i0", "i1"], 0.07, {})


def plain(model_dir: Path) -> dict[tuple[int, int], int]:
    """(user, item) -> rank among all items with a fit event, for ranks in the cut and items the user has none with."""
    model, found = load_model(model_dir), {}
    met = sorted({item for history in HISTORIES.values() for item in history})
    vectors = model.encode_items([ITEMS[n] for n in met], [f"i{n}" for n in met])
    row = {item: n for n, item in enumerate(met)}
    for user, history in HISTORIES.items():
        past = np.stack([vectors[row[item]] for item in history])[None]
        scores = vectors @ model.encode_users(past, np.ones(past.shape[:2], bool))[0]
        for rank, place in enumerate(np.argsort(-scores, kind="stable"), start=1):
            if FIRST <= rank <= LAST and met[place] not in history:
                found[user, met[place]] = rank
    return found


def test_mined_items_are_the_nearest_unknown_ones_of_the_cut(store: Store, commit: Commit, model_dir: Path) -> None:
    fill(store, commit)
    settings = config(store, per_user=2, mined_first=FIRST, mined_last=LAST)
    context = Context(store.spark, store, settings, "live", InstantCutoff(FIT_UNTIL, END, END), "run")
    with pytest.raises(MissingTableError, match="mined_negatives"):
        pairs.run(settings, context)
    report = stage.run(settings, context, model_dir)
    found = {(r["user_idx"], r["item_idx"]): r["rank"] for r in store.read("mined_negatives", "live").collect()}
    expected = plain(model_dir)
    assert found == expected
    assert len(found) > len(HISTORIES)
    assert (report.facts["method"], report.facts["num_items"]) == ("exact", 12)
    assert stage.run(settings, context, model_dir).status == "skipped"

    pairs.run(settings, context)
    rows = store.read("negatives", "live").collect()
    assert {(r["user_idx"], r["item_idx"], r["source"]) for r in rows} == {(*cell, "mined") for cell in expected}
    trained = {r["user_idx"]: r["unwanted"] for r in store.read("training_negatives", "live").collect()}
    heaviest = {u: sorted((i for v, i in expected if v == u), key=lambda i, u=u: expected[u, i])[:2] for u in HISTORIES}
    assert {u: [i for i in items if i >= 0] for u, items in trained.items()} == {u: i for u, i in heaviest.items() if i}
