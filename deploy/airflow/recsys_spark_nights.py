"""Airflow DAGs: ``recsys_spark_night``, one task per step of a night, and ``recsys_spark_prune``, once a week.

Put this file (or a link to it) into Airflow's dags folder. Environment of scheduler and workers:

    RECSYS_HOME      folder with jobs/ and conf/spark.conf
    RECSYS_CONFIG    the night's TOML configuration
    RECSYS_BIN       bin folder of the Python environment that recsys-spark and Spark are installed in (not Airflow's own)
    RECSYS_CONN      Airflow connection of the cluster; default: spark_default
    RECSYS_SCHEDULE  when nights begin, UTC; default: 0 2 * * *

A task that failed or was killed is simply run again: a finished step finds its work done, a half-done one leaves nothing. What
no second try mends, as a wrong configuration, fails at once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, Param, chain
from airflow.sdk.exceptions import AirflowException, AirflowFailException

STEPS = (
    ("ingest", "live"),
    ("cooccurrence", "eval"),
    ("pairs", "eval"),
    ("train", "eval"),
    ("embed", "eval"),
    ("recommend", "eval"),
    ("evaluate", "eval"),
    ("cooccurrence", "live"),
    ("embed", "live"),
    ("recommend", "live"),
    ("publish", "live"),
)
AS_OF = "{{ params.as_of or ((dag_run.logical_date or dag_run.run_after) | ds) ~ 'T00:00:00Z' }}"
START = datetime(2024, 1, 1, tzinfo=UTC)
USELESS = (2, 3, 4, 6)  # exit codes: wrong configuration, unusable input, a table unlike its contract, unusable model


class Step(SparkSubmitOperator):
    """``spark-submit``, whose exit code says whether a second try can help."""

    def execute(self, context: Any) -> None:
        try:
            super().execute(context)
        except AirflowException as error:
            if any(f"Error code is: {code}." in str(error) for code in USELESS):
                raise AirflowFailException(str(error)) from error
            raise


def submit(task_id: str, job: str, *arguments: str) -> Step:
    """``spark-submit jobs/<job>.py`` with the project's own Python."""
    home, programs = Path(os.environ.get("RECSYS_HOME", ".")), Path(os.environ.get("RECSYS_BIN", "/usr/bin"))
    return Step(
        task_id=task_id,
        name=f"recsys-spark {task_id}",
        conn_id=os.environ.get("RECSYS_CONN", "spark_default"),
        spark_binary=str(programs / "spark-submit"),
        env_vars={"PYSPARK_PYTHON": str(programs / "python")},
        properties_file=str(home / "conf" / "spark.conf"),
        application=str(home / "jobs" / f"{job}.py"),
        application_args=["--config", os.environ.get("RECSYS_CONFIG", "conf/mine.toml"), *arguments],
    )


with DAG(
    "recsys_spark_night",
    description="Events and item text in, explained recommendations out; visible by one commit at the end",
    schedule=os.environ.get("RECSYS_SCHEDULE", "0 2 * * *"),
    start_date=START,
    catchup=False,
    max_active_runs=1,  # a warehouse has one writer
    params={"as_of": Param(None, type=["null", "string"], description="e.g. 2026-11-22T00:00:00Z; default: the run's midnight")},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=6)},
    tags=["recsys-spark"],
):
    chain(*[submit(f"{stage}_{where}", stage, "--as-of", AS_OF, "--namespace", where) for stage, where in STEPS])

with DAG(
    "recsys_spark_prune",
    description="Removes what nights before the newest ones left behind",
    schedule="0 12 * * 0",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    params={"keep_nights": Param(14, type="integer", minimum=1, description="nights that can still be returned to")},
    default_args={"retries": 6, "retry_delay": timedelta(minutes=30)},  # a night that is not done yet holds the warehouse
    tags=["recsys-spark"],
):
    submit("prune", "prune", "--keep-nights", "{{ params.keep_nights }}")
