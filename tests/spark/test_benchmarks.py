"""The benchmark rows run at a tiny scale and say what they found; their checks see a planted difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import structlog
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.compare import same_rows
from benchmarks.machine import peak_memory
from benchmarks.rows import ROWS
from benchmarks.runner import main
from benchmarks.speed import topk
from recsys_spark.benchmark.leave_one_out import cold_holdout

ROW = {row.name: row for row in ROWS}


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command line sends log lines to the stderr of one test."""
    yield
    structlog.reset_defaults()


def _run(name: str, results: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The row's line, which has all that every line has."""
    assert main(["--small", name], results=results) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert (found["row"], found["scale"], found["equal"]) == (name, "small", True)
    assert (found["required"], found["aim"]) == (ROW[name].required, ROW[name].aim)
    assert found["met"] is ROW[name].reaches(found["ratio"], found["required"])
    assert min(found["ratio"], found["ours_s"], found["rival_s"]) > 0
    assert {"versions", "machine", "code", "rounds", "measured_at"} <= set(found)
    assert not list(results.iterdir())
    return found


@pytest.mark.parametrize(
    "name",
    ["cooccurrence-self-join", "cooccurrence-scipy", "topk-sgemm-128", "approximate-search", "approximate-neighbours"],
)
def test_a_row_at_a_tiny_scale(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    _run(name, tmp_path, capsys)


def test_a_rival_that_takes_too_long_is_timed_on_a_sample(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topk, "_SAMPLE_USERS", 50)
    monkeypatch.setattr(topk, "_SLOW_S", 0.0)
    found = _run("topk-als-32", tmp_path, capsys)
    assert (found["users"], found["rival_users"], found["rival_scaled_from_a_sample"]) == (150, 50, True)
    assert found["ratio"] == pytest.approx(found["rival_s"] / found["ours_s"], rel=0.01)  # of all users, in the only round


def test_wrong_lists_make_a_row_unequal(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = topk.our_lists

    def planted(*arguments: Any) -> dict[int, list[int]]:
        lists = right(*arguments)
        user = next(iter(lists))
        return lists | {user: lists[user][::-1]}

    monkeypatch.setattr(topk, "our_lists", planted)
    assert main(["--small", "topk-sgemm-128"], results=tmp_path) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["equal"], found["met"]) == (False, False)


def test_a_planted_difference_is_seen(spark: SparkSession) -> None:
    rows = spark.range(40).selectExpr("id % 10 AS item_a", "id AS item_b", "1D / (id + 3) AS cosine")
    assert same_rows(rows, rows.orderBy(F.desc("item_b")), ("cosine",))
    assert same_rows(rows, rows.withColumn("cosine", F.col("cosine") + 1e-13), ("cosine",))
    assert not same_rows(rows, rows.withColumn("cosine", F.expr("if(item_b = 17, cosine + 1e-6, cosine)")), ("cosine",))
    assert not same_rows(rows, rows.withColumn("item_a", F.expr("if(item_b = 17, item_a + 1, item_a)")), ("cosine",))
    assert not same_rows(rows, rows.where("item_b != 17"), ("cosine",))
    assert not same_rows(rows.where("item_b != 17"), rows, ("cosine",))
    assert not same_rows(rows, rows.union(rows.limit(1)), ("cosine",))


def test_cold_items_are_seen_only_as_targets(spark: SparkSession) -> None:
    rows = [(f"{u}-{p}", u, p, f"i{(3 * u + p) % 11}") for u in range(40) for p in range(u % 5 + 1)]
    frame = spark.createDataFrame(rows, "event_id string, user_idx int, event_pos int, item_id string")
    events = frame.withColumn("ts", F.lit(0).cast("timestamp"))
    roles = {row["event_id"]: row["role"] for row in cold_holdout(events, 0.3, 1).collect()}
    drawn = {r["item_id"] for r in events.where("pmod(xxhash64(item_id, 1), 1000000) < 300000").collect()}
    assert 0 < len(drawn) < 11
    for user in range(40):
        own = [row for row in rows if row[1] == user]
        left = [row for row in own[:-1] if row[3] not in drawn]
        assert roles.get(own[-1][0]) == ("test" if left else None), "who has no history left is not asked for"
        assert all(roles[row[0]] == "hidden" for row in own[:-1] if row[3] in drawn)
        fitted = [None] * max(len(left) - 1, min(len(left), 1))
        assert [roles.get(row[0]) for row in left] == fitted + ["validation"] * (len(left) > 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_peak_memory_tells_the_workers_from_the_rest(spark: SparkSession) -> None:
    with peak_memory() as peaks:
        spark.range(0, 2, 1, 2).mapInArrow(_hold, "id long").collect()
    found = peaks.by_kind()
    assert found["python worker"] >= 128
    assert {"driver", "jvm"} <= set(found)


def _hold(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    held = np.ones(16 << 20)  # 128 MiB
    del held
    yield from batches
