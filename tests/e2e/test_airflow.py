"""The DAGs of deploy/airflow: the order of a night, and tasks of both run by a real Airflow (`make airflow` installs one)."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys_spark.order import STEPS
from tests.debug_data import debug_config, write_config
from tests.e2e.conftest import Done

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "deploy" / "airflow"
AIRFLOW = ROOT / ".airflow" / "bin"
CONNECTION = "recsys"
needs_airflow = pytest.mark.skipif(not (AIRFLOW / "airflow").exists(), reason="no Airflow: make airflow")

# what Airflow has read of the file, with the arguments as a run on that day would have them
_SHOW = """
import datetime, json, sys
from types import SimpleNamespace
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
day = datetime.datetime(2024, 2, 1, 3, tzinfo=datetime.timezone.utc)
def shown(dag, task):
    run = SimpleNamespace(logical_date=None, run_after=day)
    params = {**dag.params.dump(), **json.loads(sys.argv[2])}
    arguments = task.render_template(task.application_args, {"params": params, "dag_run": run}, dag.get_template_env())
    return [task.task_id, sorted(task.upstream_task_ids), task.application, arguments]
print(json.dumps({dag.dag_id: [shown(dag, task) for task in dag.topological_sort()] for dag in bag.dags.values()}))
"""


def test_the_order_is_that_of_a_night() -> None:
    tree = ast.parse((DAGS / "recsys_spark_nights.py").read_text())
    said = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STEPS"]
    assert [ast.literal_eval(value) for value in said] == [STEPS]
    assert all((ROOT / "jobs" / f"{stage}.py").exists() for stage, _ in STEPS)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow with a database of its own."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "RECSYS_HOME": str(ROOT),
        "RECSYS_BIN": str(Path(sys.executable).parent),
        "RECSYS_CONN": CONNECTION,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    _said([str(AIRFLOW / "airflow"), "db", "migrate"], environment)
    return environment


def _said(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def _shown(airflow: dict[str, str], params: dict[str, Any]) -> dict[str, Any]:
    command = [str(AIRFLOW / "python"), "-c", _SHOW, str(DAGS), json.dumps(params)]
    found: dict[str, Any] = json.loads(_said(command, {**airflow, "RECSYS_CONFIG": "/conf/shop.toml"}).strip().splitlines()[-1])
    return found


@needs_airflow
@pytest.mark.parametrize("asked", [None, "2026-11-22T00:00:00Z"])
def test_a_night_is_one_chain_of_its_steps(airflow: dict[str, str], asked: str | None) -> None:
    night = _shown(airflow, {"as_of": asked})["recsys_spark_night"]
    names = [f"{stage}_{namespace}" for stage, namespace in STEPS]
    as_of = asked or "2024-02-01T00:00:00Z"
    assert night == [
        [
            name,
            before,
            str(ROOT / "jobs" / f"{stage}.py"),
            ["--config", "/conf/shop.toml", "--as-of", as_of, "--namespace", namespace],
        ]
        for name, before, (stage, namespace) in zip(names, [[], *[[n] for n in names]], STEPS, strict=False)
    ]


@needs_airflow
@pytest.mark.timeout(900)
def test_tasks_run_for_real(airflow: dict[str, str], done: Done, tmp_path: Path) -> None:
    """On a night that is done: its first step finds that, and nothing is left to remove."""
    shutil.copytree(done.config.warehouse, tmp_path / "warehouse", ignore=shutil.ignore_patterns("_locks"))
    shutil.copy(Path(done.config.warehouse).parent / "mlflow.db", tmp_path / "mlflow.db")
    settings = debug_config(done.data, tmp_path / "warehouse") | {"spark": {"shuffle_partitions": 2}}
    config = write_config(tmp_path / "night.toml", settings)
    mine = {**airflow, "RECSYS_CONFIG": str(config)}
    command = str(AIRFLOW / "airflow")
    first_step = [command, "tasks", "test", "recsys_spark_night", "ingest_live", "2024-02-01"]
    assert "ingest: nothing to do" in _said(first_step, mine)
    said = _said([command, "dags", "test", "recsys_spark_prune", "2024-02-04"], mine)
    assert "state=success" in said
    config.write_text(config.read_text().replace("warehouse = ", "warehose = "))
    said = _said(first_step, mine)  # of a task that fails too, Airflow's test command ends well
    assert "unknown key 'warehose'" in said
    assert "new_state=up_for_retry" not in said  # no second try would mend it
    assert "new_state=failed" in said
