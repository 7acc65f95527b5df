"""Whole nights on odd logs: no text, fewer items than places in a list, strange ids, a single user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config import parse_config
from recsys_spark.errors import InputError
from recsys_spark.order import run_night
from recsys_spark.registry import Registry
from tests.debug_data import START_SECONDS, debug_config
from tests.e2e.conftest import Done, run

ITEMS = ["plain", "quote \"'`", "slash/and\\back", "line\nbreak", "😀 שלום", "%20 space ", "semi;colon"]
USERS = [f"user/{n} \"'\n\U0001f600" for n in range(14)]


def write_log(path: Path, users: list[str], items: list[str], events_per_user: int) -> None:
    """User n meets items n, n + 1, ... of the ring, an hour apart."""
    rows = [
        {"user": user, "item": items[(n + step) % len(items)], "time": START_SECONDS + 3_600 * (step + 100 * n)}
        for n, user in enumerate(users)
        for step in range(events_per_user)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def settings_for(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = debug_config(folder, folder / "warehouse")
    columns = {"user_id": "user", "item_id": "item", "ts": "time"}
    events = {"path": str(folder / "log.jsonl"), "format": "jsonl", "columns": columns, "time_format": "epoch_seconds"}
    return settings | {"ingest": {"events": events}}


@pytest.mark.timeout(1200)
def test_no_text_few_items_strange_ids_and_a_private_encoder(spark: SparkSession, tmp_path: Path) -> None:
    """K is 10 and the catalogue 7: everyone gets all they have not seen, and a reason why it is not ten."""
    write_log(tmp_path / "log.jsonl", USERS, ITEMS, 4)
    settings = settings_for(tmp_path)
    settings["recommend"] |= {"partners": ["encoder", "transitions", "popularity"], "rerank": {"diversity": "auto"}}
    settings["train"] |= {"privacy": {"epsilon": 3.0, "users_per_step": 7}}
    done = run(spark, settings, tmp_path)
    lists: dict[str, list[str]] = {}
    for row in done.store.read("recommendations", "live").orderBy("user_id", "rank").collect():
        lists.setdefault(row["user_id"], []).append(row["item_id"])
    for n, user in enumerate(USERS):
        seen = {ITEMS[(n + step) % len(ITEMS)] for step in range(4)}
        assert sorted(lists[user]) == sorted(set(ITEMS) - seen)
    short = {row["user_id"]: row for row in done.store.read("shortfalls", "live").collect()}
    assert set(short) == set(USERS)
    assert {row["num_items"] for row in short.values()} == {3}
    assert {row["reason"] for row in short.values()} == {"catalogue smaller than K"}
    measured = done.store.read("metrics", done.night.eval_namespace).select("system").distinct().collect()
    assert {"fused", "cooccurrence", "popularity"} <= {row["system"] for row in measured}  # baselines, left out or not
    neighbours = done.store.read("item_neighbours", "live").collect()
    assert {row["item_id"] for row in neighbours} == set(ITEMS)
    page = done.report.read_text(encoding="utf-8")
    assert "slash/and" in page
    assert "quote &#34;" in page or "quote &quot;" in page
    check_privacy(done)


def check_privacy(done: Done) -> None:
    """What the encoder was trained to keep to is what its version says, and no more noise was made than that takes."""
    (run_of_train,) = done.store.read("runs", done.night.eval_namespace).where("stage = 'train'").collect()
    kept = json.loads(run_of_train["facts"])["privacy"]
    assert 2.8 < kept["epsilon"] <= 3.0
    assert kept["users"] == len(USERS)
    registered = Registry(done.config.tracking_uri, done.config.registry.experiment).versions(done.config.model_name)
    promised = [float(version.tags["privacy_epsilon"]) for version in registered]
    assert promised
    assert all(2.8 < epsilon <= 3.0 for epsilon in promised)
    assert "Privacy of users" in done.report.read_text(encoding="utf-8")


def test_one_user_and_one_item_end_in_a_line_that_says_why(spark: SparkSession, tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", ["only"], ["one"], 1)
    with pytest.raises(InputError, match="no user has 3 events") as caught:
        run_night(parse_config(settings_for(tmp_path)), spark)
    assert "evaluate.split" in str(caught.value)
