"""Stage runs: done once per fingerprint, done again after a kill, and one writer at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.errors import LockError
from recsys_spark.files import write_text
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.lock import _process_ids, namespace_lock
from recsys_spark.tables.runs import Body, StagePlan, fingerprint, rebuild_runs, run_stage
from recsys_spark.tables.store import Commit, Store, Written

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)


def _body(spark: SparkSession, store: Store, calls: list[str], weight: float = 1.0) -> Body:
    def body(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        calls.append(commit.fingerprint)
        frame = spark.createDataFrame([(1, 2, weight, "behaviour", "train")], contract("pairs").schema)
        return [store.replace("pairs", "live", frame, commit)], {"figure": 7}

    return body


def _run(store: Store, plan: StagePlan, body: Body) -> tuple[str, dict[str, Any]]:
    report = run_stage(store, "live", "run", AS_OF, plan, body)
    return report.status, report.facts


def test_a_stage_runs_once_per_fingerprint(spark: SparkSession, store: Store) -> None:
    calls: list[str] = []
    plan = StagePlan("pairs", {"a": 1}, {"events": "x"}, ("pairs",))
    assert _run(store, plan, _body(spark, store, calls)) == ("done", {"figure": 7})
    assert _run(store, plan, _body(spark, store, calls)) == ("skipped", {"figure": 7})
    other = StagePlan("pairs", {"a": 1}, {"events": "y"}, ("pairs",))
    assert _run(store, other, _body(spark, store, calls))[0] == "done"
    assert len(calls) == 2
    assert store.version("pairs", "live") == 0  # the second run found the same content


def test_a_changed_output_or_a_lost_file_runs_again(spark: SparkSession, store: Store) -> None:
    calls: list[str] = []
    plan = StagePlan("pairs", {}, {}, ("pairs",))
    _run(store, plan, _body(spark, store, calls))
    _run(store, StagePlan("other", {}, {}, ("pairs",)), _body(spark, store, calls, weight=2.0))
    assert _run(store, plan, _body(spark, store, calls))[0] == "done"
    lost = StagePlan("pairs", {}, {}, ("pairs",), standing=lambda facts: facts["figure"] != 7)
    assert _run(store, lost, _body(spark, store, calls))[0] == "done"


def test_a_body_that_dies_leaves_no_run(spark: SparkSession, store: Store) -> None:
    calls: list[str] = []

    def dies(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        _body(spark, store, calls)(commit)
        raise RuntimeError("killed")

    plan = StagePlan("pairs", {}, {}, ("pairs",))
    with pytest.raises(RuntimeError):
        _run(store, plan, dies)
    assert _run(store, plan, _body(spark, store, calls))[0] == "done"
    assert store.version("pairs", "live") == 0
    told = rebuild_runs(store, "live", ("pairs",))
    assert [(e["stage"], e["run_id"], e["table"], e["version"]) for e in told] == [("pairs", "run", "pairs", 0)]


def test_fingerprint_depends_on_each_part() -> None:
    base = fingerprint("s", {"a": 1}, {"i": "x"})
    assert (
        len(
            {
                base,
                fingerprint("t", {"a": 1}, {"i": "x"}),
                fingerprint("s", {"a": 2}, {"i": "x"}),
                fingerprint("s", {"a": 1}, {"i": "y"}),
            }
        )
        == 4
    )
    assert base == fingerprint("s", {"a": 1}, {"i": "x"})


def _lock_file(store: Store) -> Path:
    return Path(store.root) / "_locks" / "live.json"


def test_one_writer_at_a_time(store: Store) -> None:
    with namespace_lock(store, "live"):
        with pytest.raises(LockError, match=f"process {os.getpid()}"), namespace_lock(store, "live"):
            pass
        with namespace_lock(store, "eval/x"):
            pass
    assert not _lock_file(store).exists()


def test_a_dead_or_expired_holder_does_not_block(store: Store) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    here = {"host": socket.gethostname(), "pids": _process_ids()}
    holders = [
        json.dumps({"pid": int(dead.stdout), **here, "started": "1", "expires_at": 9e12}),
        json.dumps({"pid": 1, "host": "elsewhere", "started": "1", "expires_at": 1.0}),
        "",
    ]
    for content in holders:
        _lock_file(store).parent.mkdir(parents=True, exist_ok=True)
        _lock_file(store).write_text(content)
        os.utime(_lock_file(store), (1.0, 1.0))
        with namespace_lock(store, "live"):
            assert json.loads(_lock_file(store).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("where", [{"host": "elsewhere"}, {"host": socket.gethostname(), "pids": "pid:[of another container]"}])
def test_a_live_holder_elsewhere_blocks(store: Store, where: dict[str, str]) -> None:
    """It is known by its renewals."""
    file, ended = _lock_file(store), threading.Event()
    file.parent.mkdir(parents=True, exist_ok=True)

    def renew() -> None:
        renewed = 0
        while not ended.is_set():
            renewed += 1
            write_text(file, json.dumps({"pid": 1, **where, "expires_at": 9e12 + renewed}))

    holder = threading.Thread(target=renew)
    holder.start()
    try:
        while not file.exists():
            pass
        with (
            pytest.raises(LockError, match=f"process 1 on {where['host']}"),
            namespace_lock(store, "live", look_every_seconds=0.01),
        ):
            pass
    finally:
        ended.set()
        holder.join()


def test_a_silent_holder_elsewhere_is_waited_for(store: Store) -> None:
    """As a machine that was lost in the middle of a night."""
    _lock_file(store).parent.mkdir(parents=True, exist_ok=True)
    lapses = time.time() + 0.5
    _lock_file(store).write_text(json.dumps({"pid": 1, "host": "elsewhere", "expires_at": lapses}))
    with namespace_lock(store, "live", look_every_seconds=0.01):
        assert time.time() > lapses
        assert json.loads(_lock_file(store).read_text())["pid"] == os.getpid()


def test_a_holder_that_lives_here_keeps_it_for_as_long_as_it_takes(store: Store) -> None:
    with (
        namespace_lock(store, "live", lifetime_seconds=-1.0),
        pytest.raises(LockError, match=r"if its host is gone, delete .*live\.json"),
        namespace_lock(store, "live"),
    ):
        pass


def test_who_ends_leaves_the_lock_of_another_alone(store: Store) -> None:
    with namespace_lock(store, "live"):
        _lock_file(store).write_text(json.dumps({"pid": 1, "host": "elsewhere", "expires_at": 9e12, "token": "theirs"}))
    assert json.loads(_lock_file(store).read_text())["token"] == "theirs"


def test_a_lock_is_renewed_and_one_that_is_about_to_be_written_blocks(store: Store) -> None:
    with namespace_lock(store, "live", lifetime_seconds=100.0, renewed_every_seconds=0.01):
        first, found = json.loads(_lock_file(store).read_text())["expires_at"], 0.0
        deadline = time.monotonic() + 60
        while found <= first and time.monotonic() < deadline:
            with contextlib.suppress(ValueError):  # read while it is written
                found = json.loads(_lock_file(store).read_text())["expires_at"]
        assert found > first
    assert not _lock_file(store).exists()
    _lock_file(store).write_text("")
    with pytest.raises(LockError, match="just taken"), namespace_lock(store, "live"):
        pass
