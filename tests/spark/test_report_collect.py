"""What the report says is what the tables hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.context import Context
from recsys_spark.evaluate.gate import GateDecision
from recsys_spark.evaluate.split import cutoff_for
from recsys_spark.report.collect import collect
from recsys_spark.report.data import Fates
from recsys_spark.report.stage import write_report
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from tests.spark.test_evaluate_split import AS_OF, config, log
from tests.spark.test_evaluate_stage import EVENTS

ENDED = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
TITLES = {1: 'A "quoted" <b>title</b>', 2: "Two", 3: "Three 🎬", 4: None, 5: "Five", 6: "Six"}

RERANK = {"diversity": 0.5, "max_per_ten": {}, "similarity": "encoder", "depth": 5}


def put(store: Store, table: str, namespace: str, commit: Commit, *rows: dict[str, Any]) -> None:
    """Rows by column name; columns left out are null, or empty where null is forbidden."""
    blank = {"string": "", "bigint": 0, "map<string,string>": {}, "map<string,bigint>": {}}
    schema = contract(table).schema
    full = [tuple(row.get(f.name, None if f.nullable else blank.get(f.dataType.simpleString())) for f in schema) for row in rows]
    store.append(table, namespace, store.spark.createDataFrame(full, schema), commit)


def fill(store: Store, commit: Commit) -> None:
    store.append("events", "live", log(store.spark, EVENTS), commit)
    day = AS_OF.date()
    items = [
        {"item_id": f"i{i}", "item_idx": i, "title": title, "text": "x", "has_text": True, "available": True, "first_seen": day}
        for i, title in TITLES.items()
    ]
    put(store, "items", "live", commit, *items)
    fates = {"rows_read": 13, "rows_kept": 10, "rows_merged": 1, "rows_known": 0, "rows_quarantined": 2}
    put(store, "ledger", "live", commit, *[{"source_hash": h, "table": "events", **fates} for h in "ab"])
    bad = [(1, ["ts is absent", "item_id is absent"]), (2, ["ts is absent"])]
    put(
        store,
        "quarantine",
        "live",
        commit,
        *[{"source_hash": "a", "row_number": n, "table": "events", "reasons": r} for n, r in bad],
    )
    reason = [("cooccurrence", "i1", "with One", 0.75)]
    here = {"run_id": "r1", "as_of": AS_OF, "reasons": reason, "score": 1.0}
    lists = [("u1", 1, "i4"), ("u1", 2, "i5"), ("u2", 1, "i5")]
    put(
        store,
        "recommendations",
        "live",
        commit,
        *[{**here, "user_id": u, "rank": r, "item_id": i, "source": "personal"} for u, r, i in lists],
    )
    put(store, "recommendations", "live", commit, {**here, "run_id": "older", "user_id": "u9", "rank": 1, "item_id": "i1"})
    put(store, "item_neighbours", "live", commit, {**here, "item_id": "i1", "rank": 1, "neighbour_id": "i3"})
    metric = {"system": "fused", "name": "ndcg", "k": 10, "segment": "all", "value": 0.5, "num_users": 3}
    put(store, "metrics", "eval/r1", commit, metric)
    facts = {"best_epoch": 2, "loss_curve": [[1, 3.0], [2, 2.0]], "recall_curve": [[1, 0.1], [2, 0.2]], "steps": 2}
    facts["calibration"] = {
        "temperature": 0.1,
        "log_loss": 6.1,
        "log_loss_before": 6.5,
        "ece": 0.01,
        "ece_before": 0.04,
        "users": 30,
    }
    three = {"log_loss": 0.3, "log_loss_before": 0.4, "log_loss_base": 0.5, "ece": 0.02, "ece_before": 0.1, "ece_base": 0.0}
    facts["outcome"] = {"slope": 0.5, "offset": 0.1, "events": 80, "wanted": 9, **three}
    run = {"run_id": "r1", "status": "done", "as_of": AS_OF, "finished_at": ENDED, "seconds": 2.5}
    put(store, "runs", "eval/r1", commit, {**run, "stage": "train", "fingerprint": "f1", "facts": json.dumps(facts)})
    places = {"per_ten": 3, "eagerness": 2.5, "loss": 0.004, "share_of_lists": 0.21}
    tried = {"diversity": 0.5, "tried": [[0.0, 0.1, 0.3], [0.5, 0.11, 0.4]]}
    segments = {"all": {"encoder": 1.0}, "new": {"encoder": 1.0, "text": 0.75}}
    fusion = {"segments": segments, "items": {"tail": {"text": 1.4}}, "decays": {"text": 0.9}}
    weights = json.dumps({"weights": {"encoder": 1.0, "text": 0.3}, "fusion": fusion, "new_items": places, "rerank": tried})
    put(store, "runs", "eval/r1", commit, {**run, "stage": "register", "fingerprint": "f2", "facts": weights})
    put(store, "runs", "live", commit, {**run, "stage": "ingest", "rows": {"events": 10}, "facts": json.dumps({"num_users": 4})})
    near = {
        "method": "approximate",
        "reason": "500,000 items",
        "short_list_recall": 0.98,
        "agreement": 0.9971,
        "agreement_sample": 512,
    }
    put(
        store,
        "runs",
        "live",
        commit,
        {
            **run,
            "stage": "recommend",
            "fingerprint": "f3",
            "facts": json.dumps({"neighbours": near, "rerank": RERANK}),
        },
    )
    published = {"as_of": AS_OF, "run_id": "r1", "model_version": 7, "versions": {"recommendations": 5}, "published_at": ENDED}
    put(store, "published", "live", commit, {**published, "action": "publish", "reason": "why"})


def test_collect_and_write(spark: SparkSession, store: Store, commit: Commit, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(store.root)
    fill(store, commit)
    live = Context(spark, store, settings, "live", cutoff_for(settings, store, "live"), "r1")
    data = collect(live, "eval/r1", GateDecision(True, "it is better", "encoder"))
    assert data.fates == [Fates("events", 2, 26, 20, 2, 0, 4)]
    assert data.fates[0].lost == 0
    assert data.quarantine == [("events", "ts is absent", 2), ("events", "item_id is absent", 1)]
    assert data.counts == {"num_users": 4}
    assert data.training == {"best_epoch": 2, "steps": 2}
    assert data.loss_curve == [[1, 3.0], [2, 2.0]]
    assert data.recall_curve == [[1, 0.1], [2, 0.2]]
    assert [(r.name, r.when, r.log_loss, r.ece, r.rows) for r in data.probabilities] == [
        ("next item", "as learned", 6.5, 0.04, 30),
        ("next item", "calibrated", 6.1, 0.01, 30),
        ("outcome of an event", "base rate for all", 0.5, 0.0, 80),
        ("outcome of an event", "as learned", 0.4, 0.1, 80),
        ("outcome of an event", "calibrated", 0.3, 0.02, 80),
    ]
    assert data.weights == {"encoder": 1.0, "text": 0.3}
    assert data.new_items == {"per_ten": 3, "eagerness": 2.5, "loss": 0.004, "share_of_lists": 0.21}
    assert data.rerank == RERANK
    assert data.diversities == [(0.0, 0.1, 0.3), (0.5, 0.11, 0.4)]
    assert [(m.system, m.name, m.value) for m in data.metrics] == [("fused", "ndcg", 0.5)]
    assert data.item_events == [4, 2, 2, 2, 0, 0]  # i1; i4, i2, i3 in some order by places; i5, i6
    assert data.item_places == [0, 1, 0, 0, 2, 0]
    assert sorted(s.ref_id for s in data.samples) == ["u1", "u2"]  # the older run's list is not shown
    first = next(s for s in data.samples if s.ref_id == "u1")
    assert first.history == ["Three 🎬", "Two", TITLES[1]]  # newest first
    assert [(p.rank, p.title) for p in first.listed] == [(1, "i4"), (2, "Five")]  # no title: the id
    assert (first.listed[0].reasons[0].text, first.listed[0].reasons[0].share) == ("with One", 0.75)
    assert [(s.ref_id, s.num_events, [p.title for p in s.listed]) for s in data.neighbours] == [("i1", 4, ["Three 🎬"])]
    ran = {("live", "ingest"), ("live", "recommend"), ("eval/r1", "train"), ("eval/r1", "register")}
    assert {(s.namespace, s.stage) for s in data.stages} == ran
    assert (data.model_version, data.versions, data.gate_reason) == (7, {"recommendations": 5}, "it is better")
    assert data.published_at == "2026-11-22 04:00:00 UTC"

    monkeypatch.setattr("recsys_spark.report.stage.collect", lambda *_: data)  # once is enough
    page = write_report(settings, live, "eval/r1", GateDecision(True, "it is better", "encoder"))
    text = page.read_text(encoding="utf-8")
    assert page.name == "r1.html"
    assert "A &#34;quoted&#34; &lt;b&gt;title&lt;/b&gt;" in text
    assert "http" not in text
    assert "history of up to 5 items have weights of their own: encoder 1, text 0.75." in text
    assert "approximate search (500,000 items), recall of the short lists 0.980, agreement with the lists of the whole" in text
    assert "For tail items weights are multiplied: text 1.4." in text
