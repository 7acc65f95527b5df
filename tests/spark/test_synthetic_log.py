"""Synthetic logs as files: the same whatever the parts, and ingest finds the flaws that were put in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from recsys_spark.config import load_config
from recsys_spark.context import Context
from recsys_spark.errors import MachineError
from recsys_spark.ingest.stage import run
from recsys_spark.synthetic import frames
from recsys_spark.synthetic.folder import CONFIG, COUNTS, EVENTS, GRAPH, ITEMS
from recsys_spark.synthetic.settings import parse_settings
from recsys_spark.synthetic.write import write_log
from recsys_spark.tables.store import Store
from recsys_spark.tables.visible import InstantCutoff, robots

FLAWED: dict[str, Any] = {
    "events": 4_000,
    "users": 200,
    "items": 100,
    "topics": 5,
    "days": 20,
    "duplicates": 0.02,
    "bad_rows": 0.05,
    "robots": 0.01,
}


def test_the_same_rows_from_any_number_of_files(spark: SparkSession, tmp_path: Path) -> None:
    tables = []
    for files in (1, 3):
        settings = parse_settings({"events": 270_000, "users": 9_000, "items": 500, "topics": 5, "files": files})
        rows = frames.written(spark, settings, tmp_path / str(files))
        parts = sorted((tmp_path / str(files)).iterdir())
        assert [part.name for part in parts] == [f"part-{n:05d}.parquet" for n in range(files)]
        tables.append(pq.read_table(parts))
        assert len(tables[-1]) == rows == frames.counts(spark, settings)["rows"]
    assert tables[0].equals(tables[1])


def test_files_on_other_disks_are_an_error(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    write = frames.written
    monkeypatch.setattr(frames, "written", lambda session, settings, folder: write(session, settings, elsewhere))
    with pytest.raises(MachineError, match="0 of 2 files"):
        write_log(spark, parse_settings(FLAWED | {"graph": False}), tmp_path / "log")
    assert len(list(elsewhere.iterdir())) == 2
    assert not (tmp_path / "log" / CONFIG).exists()


@pytest.mark.parametrize("log_format", ["parquet", "csv", "jsonl"])
def test_ingest_finds_what_was_put_in(spark: SparkSession, tmp_path: Path, log_format: str) -> None:
    settings = parse_settings(FLAWED | {"format": log_format, "graph": log_format == "csv"})
    figures = write_log(spark, settings, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [EVENTS, ITEMS, CONFIG, COUNTS, *([GRAPH] if settings.graph else [])]
    )
    document = json.loads((tmp_path / COUNTS).read_text())
    assert document["settings"] == settings.model_dump(mode="json")
    assert document["counts"].items() <= figures.items()

    config = load_config(tmp_path / CONFIG)
    store = Store(spark, config.warehouse)
    cutoff = InstantCutoff(config.as_of, config.as_of, config.as_of)
    facts = run(config, Context(spark, store, config, "live", cutoff, "r1")).facts
    expected = document["ingest"]
    events = facts["tables"]["events"]
    assert {name: events[name] for name in ("read", "kept", "merged", "quarantined")} == {
        name: expected[name] for name in ("read", "kept", "merged", "quarantined")
    }
    assert facts["reasons"]["events"] == expected["reasons"]
    assert len(expected["reasons"]) == (4 if log_format == "parquet" else 5)
    assert facts["num_items_with_text"] == 100
    assert facts["num_users"] == document["counts"]["users"] + document["counts"]["robots"]
    if settings.graph:
        assert facts["tables"]["knowledge_graph"]["kept"] == 200
    found = robots(store.read("events", "live"), 120.0, 6.0, 30)
    assert found.count() == document["counts"]["robots"] == 2
