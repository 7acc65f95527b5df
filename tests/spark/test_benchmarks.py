"""The benchmark rows run at a tiny scale and say what they found; their checks see a planted difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.compare import same_rows
from benchmarks.rows import ROWS
from benchmarks.runner import main

ROW = {row.name: row for row in ROWS}


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command line sends log lines to the stderr of one test."""
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("name", ["cooccurrence-self-join", "cooccurrence-scipy", "topk-als-32", "topk-sgemm-128"])
def test_a_row_at_a_tiny_scale(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["--small", name], results=tmp_path) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["row"] == name
    assert found["scale"] == "small"
    assert found["equal"] is True
    assert (found["required"], found["aim"]) == (ROW[name].required, ROW[name].aim)
    assert found["met"] is ROW[name].reaches(found["ratio"], found["required"])
    assert min(found["ratio"], found["ours_s"], found["rival_s"]) > 0
    assert {"versions", "machine", "code", "rounds", "measured_at"} <= set(found)
    assert not list(tmp_path.iterdir())


def test_a_planted_difference_is_seen(spark: SparkSession) -> None:
    rows = spark.range(40).selectExpr("id % 10 AS item_a", "id AS item_b", "1D / (id + 3) AS cosine")
    assert same_rows(rows, rows.orderBy(F.desc("item_b")), ("cosine",))
    assert same_rows(rows, rows.withColumn("cosine", F.col("cosine") + 1e-13), ("cosine",))
    assert not same_rows(rows, rows.withColumn("cosine", F.expr("if(item_b = 17, cosine + 1e-6, cosine)")), ("cosine",))
    assert not same_rows(rows, rows.withColumn("item_a", F.expr("if(item_b = 17, item_a + 1, item_a)")), ("cosine",))
    assert not same_rows(rows, rows.where("item_b != 17"), ("cosine",))
    assert not same_rows(rows.where("item_b != 17"), rows, ("cosine",))
    assert not same_rows(rows, rows.union(rows.limit(1)), ("cosine",))
