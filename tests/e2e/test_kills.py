"""kill -9 of a Python worker, and of the driver twice: the tables of the rerun equal those of an undisturbed night.

The log of the killed night goes on past the cutoff, which must change no output either: a night of its own for that would
cost minutes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import parse_config
from recsys_spark.order import run_night
from recsys_spark.tables.store import Store
from tests.e2e.compare import differences
from tests.e2e.conftest import NOT_COMPARED, Done, tables_of
from tests.e2e.later import LATE_USERS, LATER, with_later_events

ROOT = Path(__file__).resolve().parents[2]


def _killed(settings: Path, *kills: str) -> str:
    """A night in a process of its own that must die by SIGKILL; returns what it said."""
    command = [sys.executable, "-m", "tests.e2e.disturbed_night", str(settings), *kills]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.timeout(2400)
def test_killed_nights_on_a_log_that_goes_on_end_in_the_same_tables(spark: SparkSession, done: Done, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    config = with_later_events(done, tmp_path)
    settings.write_text(json.dumps(config))
    _killed(settings, "worker:cooccurrence", "after:pairs:eval")
    said = _killed(settings, "worker:embed", "write:recommendations")
    assert all(settings.with_suffix(f".{stage}").exists() for stage in ("cooccurrence", "embed"))  # a worker of each was killed
    assert said.count(": nothing to do") >= 3  # ingest, cooccurrence and pairs
    half = Path(config["warehouse"]) / done.night.eval_namespace / "recommendations"
    assert list(half.rglob("*.parquet"))
    assert not list(half.glob("_delta_log/*.json"))  # files without a commit: nothing half-written is visible
    run_night(parse_config(config), spark)
    again = Store(spark, config["warehouse"])
    assert tables_of(again) == tables_of(done.store)
    compared = [(t, n) for t, n in tables_of(again) if t not in {*NOT_COMPARED, "events"}]
    assert not [d for t, n in compared for d in differences(t, n, again, done.store)]
    events, later = again.read("events", "live"), F.col("ts") >= F.lit(LATER)
    assert events.where(later).count() == LATE_USERS
    assert again.rows("events", "live") == done.store.rows("events", "live") + LATE_USERS
