"""One run of one stage: its fingerprint, whether it is already done, and the row it leaves in ``runs``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recsys_spark.code_version import code_version
from recsys_spark.config.base import Settings
from recsys_spark.log import get_logger
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.store import Commit, Store, Written
from recsys_spark.tables.tasks_done import tasks_shown

log = get_logger(__name__)


def fingerprint(stage: str, settings: object, inputs: Mapping[str, str]) -> str:
    """Identity of a stage's result: stage, settings, contents of its inputs, code version."""
    if isinstance(settings, Settings):
        settings = settings.model_dump(mode="json")
    document = json.dumps([stage, settings, dict(inputs), code_version()], sort_keys=True, default=str)
    return hashlib.sha256(document.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StagePlan:
    """What a stage is about to do.

    Args:
        stage: its name, one word.
        settings: the settings (or dict of them) that its result depends on.
        inputs: name -> content hash (or version) of everything it reads.
        outputs: the tables it writes.
        standing: given the facts of an earlier equal run, whether what it left outside the tables (files) still stands.
    """

    stage: str
    settings: object
    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    standing: Callable[[dict[str, Any]], bool] = lambda facts: True


@dataclass(frozen=True)
class StageReport:
    """What a stage did; ``facts`` are figures for the report (JSON values only)."""

    stage: str
    namespace: str
    fingerprint: str
    status: str  # "done", or "skipped" where an equal run stands
    seconds: float
    written: dict[str, Written] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


Body = Callable[[Commit], tuple[list[Written], dict[str, Any]]]


def run_stage(store: Store, namespace: str, run_id: str, as_of: datetime, plan: StagePlan, body: Body) -> StageReport:
    """Run ``body`` unless a finished run with the same fingerprint still has its outputs in place.

    A run killed half-way leaves no row in ``runs``, so it is done again; what it had committed is found equal
    and not committed twice.
    """
    commit = Commit(run_id, plan.stage, fingerprint(plan.stage, plan.settings, plan.inputs))
    earlier = find_run(store, namespace, plan.stage, commit.fingerprint)
    if earlier is not None and _stands(store, namespace, plan, earlier):
        log.info(f"{plan.stage}: nothing to do", namespace=namespace, fingerprint=commit.fingerprint)
        return StageReport(plan.stage, namespace, commit.fingerprint, "skipped", 0.0, facts=json.loads(earlier["facts"] or "{}"))
    log.info(f"{plan.stage}: start", namespace=namespace, fingerprint=commit.fingerprint)
    start = time.monotonic()
    with tasks_shown(store.spark, f"{plan.stage} in {namespace}"):
        written, facts = body(commit)
    seconds = time.monotonic() - start
    done = StageReport(plan.stage, namespace, commit.fingerprint, "done", seconds, {w.table: w for w in written}, facts)
    _record(store, namespace, as_of, plan, commit, done)
    rows = {w.table: w.rows for w in written}
    log.info(f"{plan.stage}: done", namespace=namespace, seconds=round(seconds, 1), **rows)
    return done


def _stands(store: Store, namespace: str, plan: StagePlan, earlier: dict[str, Any]) -> bool:
    tables = all(store.content(t, namespace) == earlier["outputs"].get(t) for t in plan.outputs)
    return tables and plan.standing(json.loads(earlier["facts"] or "{}"))


def find_run(store: Store, namespace: str, stage: str, wanted: str | None = None) -> dict[str, Any] | None:
    """Newest finished run of a stage (with a given fingerprint), or None."""
    found = [
        row
        for row in run_rows(store, namespace)
        if row["stage"] == stage and row["status"] == "done" and wanted in (None, row["fingerprint"])
    ]
    return max(found, key=lambda row: row["finished_at"], default=None)


def run_rows(store: Store, namespace: str) -> list[dict[str, Any]]:
    """The rows of ``runs``, read again only when somebody else has written it: it is asked before and after every stage."""
    version = store.version("runs", namespace)
    known, rows = store.runs_seen.get(namespace, (-2, []))  # -1 is the version of a table that is not there
    if version != known:
        rows = [row.asDict() for row in store.read("runs", namespace).collect()] if version >= 0 else []
        store.runs_seen[namespace] = (version, rows)
    return rows


def _record(store: Store, namespace: str, as_of: datetime, plan: StagePlan, commit: Commit, done: StageReport) -> None:
    row = (
        commit.run_id,
        plan.stage,
        commit.fingerprint,
        dict(plan.inputs),
        {table: store.content(table, namespace) for table in plan.outputs},
        {w.table: w.rows for w in done.written.values()},
        done.seconds,
        "done",
        as_of,
        datetime.now(UTC),
        json.dumps(done.facts, sort_keys=True, default=str),
    )
    before = run_rows(store, namespace)
    schema = contract("runs").schema
    version = store.append("runs", namespace, local_frame(store.spark, [row], schema), commit)
    if version == store.runs_seen[namespace][0] + 1:  # nobody else wrote in between
        store.runs_seen[namespace] = (version, [*before, dict(zip(schema.names, _as_read(row), strict=True))])


def restate(store: Store, namespace: str, before: Mapping[str, str]) -> None:
    """After rows that nobody needs were removed: the newest run of each stage whose outputs stood ``before`` (table -> content)
    is recorded with what they hold now, so that a rerun finds it done."""
    rows = run_rows(store, namespace)
    for stage in sorted({row["stage"] for row in rows}):
        row = find_run(store, namespace, stage) or {}
        outputs = row.get("outputs") or {}
        changed = outputs.keys() & before.keys()
        if not changed or any(outputs[name] != before[name] for name in changed):
            continue
        held = {name: store.content(name, namespace) for name in outputs}
        if held != outputs:
            again = {**row, "outputs": held, "finished_at": datetime.now(UTC)}
            schema, commit = contract("runs").schema, Commit(row["run_id"], "prune", row["fingerprint"])
            values = tuple(again[name] for name in schema.names)
            store.append("runs", namespace, local_frame(store.spark, [values], schema), commit)


def _as_read(row: tuple[Any, ...]) -> list[Any]:
    """Values as Spark gives them back: instants without a zone, in UTC."""
    return [v.astimezone(UTC).replace(tzinfo=None) if isinstance(v, datetime) else v for v in row]


def rebuild_runs(store: Store, namespace: str, tables: tuple[str, ...]) -> list[dict[str, Any]]:
    """The log of runs as the tables' own commits tell it, newest first: (run_id, stage, fingerprint, table, version)."""
    found = [entry for table in tables for entry in store.commits(table, namespace)]
    return sorted(found, key=lambda entry: (entry.get("table", ""), -int(entry["version"])))
