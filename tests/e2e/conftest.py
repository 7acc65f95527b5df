"""One undisturbed night on the debug fixture, shared by the end-to-end tests."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from pyspark.sql import SparkSession

from recsys_spark.config import Config, parse_config
from recsys_spark.night import Night
from recsys_spark.order import run_night
from recsys_spark.tables.contracts import TABLES
from recsys_spark.tables.store import Store
from tests.debug_data import debug_config, write_debug_data

NOT_COMPARED = {"runs", "published", "ledger"}  # hold times of the clock


@dataclass(frozen=True)
class Done:
    """A finished night and where it lies."""

    config: Config
    data: Path
    report: Path
    night: Night

    @property
    def store(self) -> Store:
        return self.night.store


def run(spark: SparkSession, settings: dict[str, Any], data: Path) -> Done:
    config = parse_config(settings)
    report = run_night(config, spark)
    return Done(config, data, report, Night(config, spark))


def tables_of(store: Store) -> list[tuple[str, str]]:
    """Every Delta table below the root as (table, namespace)."""
    root = Path(store.root)
    found = [log.parent.relative_to(root) for log in root.rglob("_delta_log")]
    return sorted((path.name, "/".join(path.parts[:-1])) for path in found if path.name in TABLES)


def versions(store: Store) -> dict[tuple[str, str], int]:
    return {(table, namespace): store.version(table, namespace) for table, namespace in tables_of(store)}


@pytest.fixture(scope="session")
def done(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The undisturbed night, made by whichever test process comes first; tests must leave its warehouse as they find it."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "undisturbed"
    home.mkdir(exist_ok=True)
    settings, finished = debug_config(home / "data", home / "warehouse"), home / "report.txt"
    with FileLock(home / "lock"):
        if not finished.exists():
            made = run(spark, settings, write_debug_data(home / "data"))
            finished.write_text(str(made.report))
    config = parse_config(settings)
    return Done(config, home / "data", Path(finished.read_text()), Night(config, spark))
