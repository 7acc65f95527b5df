"""Synthetic logs before a job starts: settings, the folder, and the configuration that is left in it."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.config import load_config
from recsys_spark.errors import ConfigError
from recsys_spark.synthetic.folder import CONFIG, config_text, prepare
from recsys_spark.synthetic.settings import SyntheticSettings, clean_folder, parse_settings

TODAY = date(2025, 1, 1)


@pytest.mark.parametrize(
    ("values", "where", "found"),
    [
        ({"events": 0}, "--events", "0"),
        ({"bad_rows": -0.1}, "--bad-rows", "-0.1"),
        ({"format": "xml"}, "--format", "'xml'"),
        ({"zipf": "steep"}, "--zipf", "'steep'"),
        ({"start": "yesterday"}, "--start", "'yesterday'"),
        ({"itmes": 5}, "--itmes", "no such setting"),
        ({"items": 10, "topics": 11}, "--topics", "11 topics for 10 items"),
        ({"items": 20_000, "topics": 10_000, "days": 1_001}, "--topics", "10000 topics x 1001 days"),
        ({"events": 1_000_001, "users": 10}, "--events", "100,000 events per user"),
        ({"duplicates": 0.3, "bad_rows": 0.3}, "--bad-rows", "together are 0.6"),
        ({"start": "2024-12-03", "days": 30}, "--start", "end on 2025-01-02"),
        ({"session_minutes": 0.2}, "--session-minutes", "2.4 seconds between events"),
        ({"session_events": 2, "session_minutes": 11}, "--session-minutes", "660 seconds between events"),
    ],
)
def test_bad_settings_are_one_error(values: dict[str, Any], where: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(values, TODAY)
    assert caught.value.where == where
    assert found in caught.value.found
    assert caught.value.expected


def test_settings_at_the_edge_are_good() -> None:
    edge = {"start": "2024-12-02", "days": 30, "items": 11, "topics": 11, "duplicates": 0.25, "bad_rows": 0.25}
    assert parse_settings(edge, TODAY).end == TODAY
    assert parse_settings({}).num_robots == 25


def test_the_command_refuses_before_a_job_starts(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    result = CliRunner().invoke(app, ["synthetic", "--out", str(tmp_path), "--events", "10"])
    assert isinstance(result.exception, ConfigError)
    assert "is not empty" in str(result.exception)
    late = (date.today() + timedelta(days=1)).isoformat()
    result = CliRunner().invoke(app, ["synthetic", "--out", str(tmp_path / "new"), "--start", late])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.where == "--start"
    assert not (tmp_path / "new").exists()


def test_only_a_log_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    for name in ("events", "graph", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / CONFIG).write_text("x")
    with pytest.raises(ConfigError, match=r"not empty.*--overwrite"):
        prepare(tmp_path, overwrite=False)
    assert (tmp_path / "events" / "file").exists()
    prepare(tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    (tmp_path / "warehouse").mkdir()
    with pytest.raises(ConfigError, match="tables made from an earlier log"):
        prepare(tmp_path, overwrite=True)
    with pytest.raises(ConfigError, match="is a file"):
        prepare(tmp_path / "mine" / "file", overwrite=True)
    with pytest.raises(ConfigError, match="a folder of this machine"):
        clean_folder("s3a://bucket/log")


@pytest.mark.parametrize("graph", [True, False])
def test_the_configuration_loads(tmp_path: Path, graph: bool) -> None:
    folder = tmp_path / 'a "quoted" \\ né'
    folder.mkdir()
    settings = SyntheticSettings(days=8, format="jsonl", graph=graph, seed=9)
    (folder / CONFIG).write_text(config_text(folder, settings), encoding="utf-8")
    config = load_config(folder / CONFIG)
    assert config.ingest.events.paths == [str(folder / "events")]
    assert config.as_of.date() == date(2024, 1, 9)
    assert config.seed == 9
    assert config.evaluate.holdout_days == 2.0
    assert (config.ingest.knowledge_graph is not None) == graph
    assert config.ingest.items is not None
    assert config.ingest.items.format == "jsonl"
