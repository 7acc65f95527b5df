"""Long Spark work says how far it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark import log
from recsys_spark.parallel import side_by_side
from recsys_spark.tables.tasks_done import tasks_shown

NUM_TASKS = 60


def test_tasks_are_counted_once_and_told_with_their_rate(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "LOG_EVERY_SECONDS", 0.0)

    def slowly(batches: Iterator[Any]) -> Iterator[Any]:
        sum(range(2_000_000))
        yield from batches

    with tasks_shown(spark, "counting in live", every_seconds=0.01):
        spark.range(NUM_TASKS, numPartitions=NUM_TASKS).mapInArrow(slowly, "id bigint").collect()
    told = [line for line in capsys.readouterr().out.splitlines() if "counting in live" in line]
    done = [float(found[1]) for line in told if (found := re.search(r"done=([\d.]+)", line))]
    left = [float(found[1]) for line in told if (found := re.search(r"left=([\d.]+)", line))]
    assert len(told) >= 3
    assert done == sorted(done)
    assert done[-1] <= NUM_TASKS
    assert all(d + still == NUM_TASKS for d, still in zip(done, left, strict=True))
    assert all("tasks/s" in line for line in told)


def test_jobs_bear_the_name_of_the_stage_while_it_runs_and_not_after(spark: SparkSession) -> None:
    context: Any = spark.sparkContext
    tracker = context.statusTracker()
    with tasks_shown(spark, "pairs in eval"):
        context.setJobGroup("named", "")
        spark.range(3).count()
    spark.range(3).count()
    context.setLocalProperty("spark.jobGroup.id", None)
    infos = {
        tracker.getStageInfo(stage).name
        for job in tracker.getJobIdsForGroup("named")
        for stage in tracker.getJobInfo(job).stageIds
    }
    assert "pairs in eval" in infos
    assert len(infos) == 2  # the count after it has Spark's own name
    assert context.getLocalProperty("callSite.short") is None


def test_jobs_of_work_side_by_side_bear_the_name_too(spark: SparkSession) -> None:
    context: Any = spark.sparkContext
    tracker = context.statusTracker()

    def count() -> int:
        return spark.range(5).count()

    def stage() -> None:
        with tasks_shown(spark, "ingest in live"):
            context.setJobGroup("beside", "")
            assert side_by_side(count, count) == [5, 5]

    with ThreadPoolExecutor(1) as pool:  # in a thread that has not built the session, as that of a command
        pool.submit(stage).result()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup("beside")]
    assert len(jobs) >= 2
    assert {tracker.getStageInfo(stage).name for job in jobs for stage in job.stageIds} == {"ingest in live"}
