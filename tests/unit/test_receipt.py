"""A receipt vouches for a night only while nothing it rests on has changed; no Spark takes part."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_spark import receipt
from recsys_spark.config import Config, parse_config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "monday.csv").write_text("u,i,t\n")
    for table in ("shared/events", "live/recommendations", "eval/run1/systems/champion/recommendations"):
        log = tmp_path / "warehouse" / table / "_delta_log"
        log.mkdir(parents=True)
        (log / f"{0:020}.json").write_text("{}")
    (tmp_path / "mlflow.db").write_text("registry")
    (tmp_path / "report.html").write_text("<html>")
    columns = {"user_id": "u", "item_id": "i", "ts": "t"}
    return parse_config(
        {
            "as_of": "2026-11-22T00:00:00Z",
            "warehouse": str(tmp_path / "warehouse"),
            "ingest": {"events": {"path": str(tmp_path / "log" / "*.csv"), "columns": columns}},
        }
    )


def _keep(config: Config) -> None:
    receipt.keep(config, "run1", Path(config.warehouse).parent / "report.html", "what it said")


def test_an_untouched_night_stands(config: Config) -> None:
    assert receipt.standing(config) is None
    _keep(config)
    found = receipt.standing(config)
    assert found is not None
    assert (found.run_id, found.screen) == ("run1", "what it said")


def _same_bytes_written_again(home: Path) -> None:
    path = home / "log" / "monday.csv"
    status = path.stat()
    path.write_text("u,i,T\n")  # as many bytes, and the old time of modification put back
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file is added": lambda home: (home / "log" / "tuesday.csv").write_text("u,i,t\n"),
    "a file grows": lambda home: (home / "log" / "monday.csv").write_text("u,i,t\na,b,2\n"),
    "a file is rewritten behind its times": _same_bytes_written_again,
    "a file is gone": lambda home: (home / "log" / "monday.csv").unlink(),
    "a table has a commit": lambda home: (home / "warehouse/live/recommendations/_delta_log" / f"{1:020}.json").write_text("{}"),
    "a nested table has a commit": lambda home: (
        home / "warehouse/eval/run1/systems/champion/recommendations/_delta_log" / f"{1:020}.json"
    ).write_text("{}"),
    "a table is new": lambda home: (home / "warehouse/live/published/_delta_log").mkdir(parents=True),
    "a model is promoted": lambda home: (home / "mlflow.db").write_text("registry, changed"),
    "the report is gone": lambda home: (home / "report.html").unlink(),
    "the receipt is cut short": lambda home: next((home / "models/receipts").glob("*.json")).write_text('{"run_id": "run'),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_asks_for_a_closer_look(config: Config, tmp_path: Path, what: str) -> None:
    _keep(config)
    CHANGES[what](tmp_path)
    assert receipt.standing(config) is None


def test_other_settings_and_other_code_ask_too(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    _keep(config)
    assert receipt.standing(config.model_copy(update={"seed": 43})) is None
    monkeypatch.setattr(receipt, "code_version", lambda: "other code")
    assert receipt.standing(config) is None


@pytest.mark.parametrize("where", ["warehouse", "events", "registry"])
def test_what_lies_elsewhere_gets_no_receipt(config: Config, where: str) -> None:
    update = {
        "warehouse": {"warehouse": "s3a://bucket/warehouse", "train": config.train.model_copy(update={"work_dir": "models"})},
        "events": {
            "ingest": config.ingest.model_copy(
                update={"events": config.ingest.events.model_copy(update={"path": "hdfs://host/log"})}
            )
        },
        "registry": {"registry": config.registry.model_copy(update={"tracking_uri": "http://127.0.0.1:5000"})},
    }[where]
    remote = config.model_copy(update=update)
    _keep(remote) if where != "warehouse" else receipt.keep(remote, "run1", Path("report.html"), "")
    assert receipt.standing(remote) is None
    assert not list(Path(config.warehouse).parent.rglob("receipts"))
