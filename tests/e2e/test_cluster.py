"""All stages by spark-submit on a standalone cluster of two workers, ranks on executors; tables equal the in-process night's.

Two applications: a stage through a doorway of its own, then a night that finds it done and runs the rest. The other
doorways differ from the first in one word. One application per stage (eleven) costs six minutes more on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.session import BRIEF
from recsys_spark.tables.store import Store
from tests.debug_data import QUICK, debug_config, write_config
from tests.e2e.conftest import Done

ROOT = Path(__file__).resolve().parents[2]
SUBMIT = Path(sys.executable).parent / "spark-submit"
ENV = os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cluster")
    scripts = ROOT / "deploy" / "spark"
    start = [str(scripts / "start-cluster.sh"), str(folder), "1", "2g"]
    started = subprocess.run(start, env=ENV, capture_output=True, text=True, timeout=120, check=False)
    assert started.returncode == 0, started.stderr
    yield (folder / "master-url").read_text().strip()
    subprocess.run([str(scripts / "stop-cluster.sh"), str(folder)], env=ENV, timeout=60, check=True)


def _submit(master: str, job: str, config: Path, *arguments: str) -> str:
    command = [
        *(str(SUBMIT), "--properties-file", str(ROOT / "conf" / "spark.conf"), "--master", master),
        *("--driver-memory", "2g", "--executor-memory", "1g", "--total-executor-cores", "2"),
        *("--conf", "spark.driver.host=127.0.0.1", "--conf", "spark.driver.bindAddress=127.0.0.1"),
        *("--conf", "spark.databricks.delta.snapshotPartitions=2"),
        *("--conf", "spark.python.daemon.module=recsys_spark.worker_daemon"),
        *("--conf", f"spark.driver.extraJavaOptions={BRIEF}", "--conf", f"spark.executor.extraJavaOptions={BRIEF}"),
        *[part for name, value in QUICK.items() for part in ("--conf", f"{name}={value}")],
        *(str(ROOT / "jobs" / f"{job}.py"), "--config", str(config), *arguments),
    ]
    scratch = config.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = ENV | {"TMPDIR": str(scratch)}
    done = subprocess.run(command, env=environment, cwd=config.parent, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{job}:\n{done.stderr[-4000:]}"
    assert not list(scratch.iterdir())  # models that were shipped to executors are no longer here
    return done.stdout + done.stderr


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_a_night_by_spark_submit_on_two_workers(spark: SparkSession, done: Done, master: str, tmp_path: Path) -> None:
    settings = debug_config(done.data, tmp_path / "warehouse")
    settings["spark"] = {"shuffle_partitions": 2}
    settings["train"] = {**settings["train"], "ranks": 2, "local_ranks": False}  # type: ignore[dict-item]
    config = write_config(tmp_path / "cluster.toml", settings)
    _submit(master, "ingest", config)
    said = _submit(master, "night", config)
    assert "ingest: nothing to do" in said
    made_while_training = 4  # two baselines' lists, the live counts and EASE, found standing by their own steps
    assert said.count(": nothing to do") == 1 + made_while_training
    store = Store(spark, str(tmp_path / "warehouse"))
    for table in ("events", "items", "cooccurrence"):
        assert store.content(table, "live") == done.store.content(table, "live"), table
    assert store.read("recommendations", "live").count() == done.store.read("recommendations", "live").count()
    users = store.rows("users", "live")
    assert (users, store.rows("items", "live")) == (200, 150)
    assert store.rows("recommendations", "live") == users * settings["recommend"]["k"]  # type: ignore[index]
    published = store.read("published", "live").collect()
    assert [row["model_version"] for row in published] == [1]  # trained by two ranks on the executors, and let through
    assert list(tmp_path.glob("reports/*.html"))
