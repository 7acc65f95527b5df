"""kill -9 of a Python worker, and of the driver twice: the tables of the rerun equal those of an undisturbed night."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.tables.store import Store
from tests.debug_data import debug_config
from tests.e2e.compare import differences
from tests.e2e.conftest import NOT_COMPARED, Done, tables_of

ROOT = Path(__file__).resolve().parents[2]


def _night(settings: Path, kill: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.e2e.disturbed_night", str(settings), kill]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.timeout(2400)
def test_killed_nights_end_in_the_same_tables(spark: SparkSession, done: Done, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    config: dict[str, Any] = debug_config(done.data, tmp_path / "warehouse")
    settings.write_text(json.dumps(config))
    assert _night(settings, "after:pairs:eval").returncode == -signal.SIGKILL
    assert _night(settings, "write:recommendations").returncode == -signal.SIGKILL
    half = Path(config["warehouse"]) / done.night.eval_namespace / "recommendations"
    assert list(half.rglob("*.parquet"))
    assert not list(half.glob("_delta_log/*.json"))  # files without a commit: nothing half-written is visible
    last = _night(settings, "worker:recommend")
    assert last.returncode == 0, last.stderr[-3000:]
    assert settings.with_suffix(".killed").exists()
    again = Store(spark, config["warehouse"])
    assert tables_of(again) == tables_of(done.store)
    found = [d for t, n in tables_of(again) if t not in NOT_COMPARED for d in differences(t, n, again, done.store)]
    assert not found
