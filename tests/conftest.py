"""Shared fixtures: one Spark session for the whole test run, and stores in fresh folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.serving import SparkSettings
from recsys_spark.session import build_session
from recsys_spark.tables.store import Commit, Store
from tests.debug_data import QUICK

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before anything loads torch
os.environ.setdefault("RECSYS_SPARK_THREADS", "1")  # per rank: tests start several on few cores
# no test fails because the machine is busy
hypothesis.settings.register_profile("busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A small local session that all Spark tests share."""
    settings = SparkSettings(master="local[2]", driver_memory="2g", shuffle_partitions=2, options=QUICK)
    session = build_session(settings, "tests", brief=True)
    yield session
    session.stop()


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path) -> Store:
    """An empty store in a fresh folder."""
    return Store(spark, str(tmp_path / "warehouse"))


@pytest.fixture
def commit() -> Commit:
    return Commit("run", "test", "fingerprint")
