"""Reads everything the report shows out of the tables of one night."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.code_version import code_version
from recsys_spark.context import Context
from recsys_spark.evaluate.gate import GateDecision
from recsys_spark.histories import histories
from recsys_spark.parallel import side_by_side
from recsys_spark.report.data import Fates, Listed, Metric, ProbabilityRow, Reason, ReportData, Sample, StageRow
from recsys_spark.tables.instants import instant
from recsys_spark.tables.runs import find_run, run_rows
from recsys_spark.tables.store import Store

LIVE = "live"
NESTED = ("cooccurrence", "popularity", "champion")
# facts of train with figures of probabilities, what they are about, and where they say of how many held-out rows
_PROBABILITIES = (("calibration", "next item", "users"), ("outcome", "outcome of an event", "events"))
_WHEN = {"_base": "base rate for all", "_before": "as learned", "": "calibrated"}
SAMPLES, LIST_LENGTH, HISTORY_LENGTH, POPULARITY_GROUPS = 3, 10, 12, 50


def collect(live: Context, eval_namespace: str, gate: GateDecision | None = None) -> ReportData:
    """Everything the page shows; tables and facts that do not exist leave their part empty."""
    store, config = live.store, live.config
    training = _facts(store, eval_namespace, "train")
    curves = {"loss_curve": training.pop("loss_curve", []), "recall_curve": training.pop("recall_curve", [])}
    registered, measured = _facts(store, eval_namespace, "register"), _facts(store, eval_namespace, "evaluate")
    published, (events, places), fates, quarantined, metrics, users, neighbours = side_by_side(
        lambda: _published(live),
        lambda: _popularity(live),
        lambda: _fates(store),
        lambda: _quarantine(store),
        lambda: _metrics(store, eval_namespace),
        lambda: _user_samples(live),
        lambda: _item_samples(live),
    )
    return ReportData(
        name=config.name,
        as_of=_moment(live.as_of),
        run_id=live.run_id,
        eval_namespace=eval_namespace,
        code_version=code_version(),
        model_name=config.model_name,
        model_version=published.get("model_version"),
        gate_passed=None if gate is None else gate.passed,
        gate_reason=published.get("reason", "") if gate is None else gate.reason,
        publishes="" if gate is None else gate.publish,
        gate_metric=config.gate.metric,
        gate_k=config.gate.k,
        num_targets=int(measured.get("num_targets", 0)),
        targets_out_of_reach=int(measured.get("targets_out_of_reach", 0)),
        confidence=config.evaluate.confidence,
        cutoff=str(measured.get("cutoff", "")),
        counts={k: v for k, v in _facts(store, LIVE, "ingest").items() if not isinstance(v, dict | list)},
        fates=fates,
        quarantine=quarantined,
        training={k: v for k, v in training.items() if k == "privacy" or not isinstance(v, dict | list)},
        **curves,
        probabilities=_probabilities(training),
        profile=training.get("profile") or {},
        metrics=metrics,
        item_events=events,
        item_places=places,
        searches=_searches(store),
        weights=registered.get("weights") or {},
        fusion=registered.get("fusion") or {},
        new_items=registered.get("new_items") or {},
        rerank=_facts(store, LIVE, "recommend").get("rerank") or {},
        diversities=[(d, ndcg, unlike) for d, ndcg, unlike in (registered.get("rerank") or {}).get("tried", [])],
        samples=users,
        neighbours=neighbours,
        stages=_stages(store, eval_namespace),
        versions=dict(published.get("versions") or {}),
        published_at=_moment(published["published_at"]) if published else "",
    )


def _probabilities(training: dict[str, Any]) -> list[ProbabilityRow]:
    """Of the facts of train: the next item's, and the outcome's where there is a head for it."""
    found = []
    for fact, name, rows in _PROBABILITIES:
        figures = training.get(fact) or {}
        for suffix, when in _WHEN.items():
            if f"log_loss{suffix}" in figures:
                values = figures[f"log_loss{suffix}"], figures[f"ece{suffix}"], int(figures[rows])
                found.append(ProbabilityRow(name, when, *values))
    return found


def _moment(value: datetime) -> str:
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return utc.strftime("%Y-%m-%d %H:%M:%S UTC")


def _facts(store: Store, namespace: str, stage: str) -> dict[str, Any]:
    run = find_run(store, namespace, stage)
    facts: dict[str, Any] = json.loads(run["facts"] or "{}") if run else {}
    return facts


def _searches(store: Store) -> dict[str, dict[str, Any]]:
    """What the live lists said of their searches: "items" and "users", those that were made."""
    facts = _facts(store, LIVE, "recommend")
    named = {"items": facts.get("neighbours"), "users": facts.get("user_neighbours")}
    return {name: found for name, found in named.items() if found}


def _published(live: Context) -> dict[str, Any]:
    """The newest publication of this run; empty when it has not been published."""
    rows = live.store.read_or_empty("published", LIVE).where(F.col("run_id") == live.run_id)
    newest = rows.orderBy(F.desc("sequence")).first()
    return {} if newest is None else newest.asDict()


def _fates(store: Store) -> list[Fates]:
    """The ledger summed per table, over all files ever read."""
    fates = ("read", "kept", "merged", "known", "quarantined")
    sums = [F.sum(f"rows_{fate}").alias(fate) for fate in fates]
    rows = store.read_or_empty("ledger", LIVE).groupBy("table").agg(F.count(F.lit(1)).alias("files"), *sums).orderBy("table")
    return [Fates(row["table"], row["files"], *[int(row[fate]) for fate in fates]) for row in rows.collect()]


def _quarantine(store: Store) -> list[tuple[str, str, int]]:
    """Commonest reasons; a row with two reasons counts in both."""
    rows = store.read_or_empty("quarantine", LIVE).select("table", F.explode("reasons").alias("reason"))
    counted = rows.groupBy("table", "reason").count().orderBy(F.desc("count"), "table", "reason").limit(50)
    return [(row["table"], row["reason"], row["count"]) for row in counted.collect()]


def _metrics(store: Store, namespace: str) -> list[Metric]:
    rows = store.read_or_empty("metrics", namespace).orderBy("system", "name", "k", "segment").collect()
    names = ("system", "name", "k", "segment", "value", "low", "high", "num_users")
    return [Metric(*[row[name] for name in names]) for row in rows]


def _current(live: Context, table: str) -> DataFrame:
    """Rows of a serving table that this run wrote."""
    as_of = instant(live.as_of)
    return live.store.read_or_empty(table, LIVE).where((F.col("as_of") == as_of) & (F.col("run_id") == live.run_id))


def _popularity(live: Context) -> tuple[list[float], list[float]]:
    """Events and recommended places of groups of equally many items, most popular first."""
    events = live.events("history").groupBy("item_id").agg(F.count(F.lit(1)).alias("events"))
    places = _current(live, "recommendations").groupBy("item_id").agg(F.count(F.lit(1)).alias("places"))
    joined = live.items().select("item_id").join(events, "item_id", "left").join(places, "item_id", "left")
    counts = joined.select(*[F.coalesce(c, F.lit(0)).alias(c) for c in ("events", "places")]).orderBy(
        F.desc("events"), F.desc("places")
    )
    found = counts.toArrow()
    groups = min(POPULARITY_GROUPS, found.num_rows)
    if groups == 0:
        return [], []
    columns = [np.array_split(found.column(c).to_numpy(), groups) for c in ("events", "places")]
    first, second = [[float(part.sum()) for part in column] for column in columns]
    return first, second


def _titles(live: Context) -> DataFrame:
    """Titles of all items: only those in this run's lists and histories are looked up."""
    return live.read("items").select("item_id", "item_idx", F.coalesce("title", "item_id").alias("title"))


def _listed(row: Any, item_id: str) -> Listed:
    reasons = [Reason(r["kind"], r["text"] or r["ref_id"] or r["kind"], r["contribution"]) for r in row["reasons"]]
    source = row["source"] if "source" in row.asDict() else ""
    return Listed(row["rank"], item_id, row["title"], row["score"], source, reasons)


def _user_samples(live: Context) -> list[Sample]:
    """A few users drawn by seeded hash, with their newest history and their list."""
    lists = _current(live, "recommendations")
    drawn = lists.select("user_id").distinct().orderBy(F.xxhash64("user_id", F.lit(live.config.seed)), "user_id").limit(SAMPLES)
    users = [row["user_id"] for row in drawn.collect()]
    if not users:
        return []
    titles = _titles(live)
    chosen = lists.where(F.col("user_id").isin(users) & (F.col("rank") <= LIST_LENGTH))
    rows = chosen.join(titles, "item_id").orderBy("user_id", "rank").collect()
    events = live.events("history").where(F.col("user_id").isin(users))
    past = {row["user_id"]: row for row in histories(events, HISTORY_LENGTH).collect()}
    wanted = sorted({item for row in past.values() for item in row["items"]})
    name_of = {row["item_idx"]: row["title"] for row in titles.where(F.col("item_idx").isin(wanted)).collect()}
    samples = []
    for user in users:
        listed = [_listed(row, row["item_id"]) for row in rows if row["user_id"] == user]
        history = [name_of.get(item, str(item)) for item in reversed(past[user]["items"])] if user in past else []
        samples.append(Sample(user, user, listed, history, past[user]["num_events"] if user in past else 0))
    return samples


def _item_samples(live: Context) -> list[Sample]:
    """The most popular item, one from the middle and the least popular one that has neighbours."""
    lists, titles = _current(live, "item_neighbours"), _titles(live)
    popular = live.events("history").groupBy("item_id").agg(F.count(F.lit(1)).alias("events"))
    known = lists.select("item_id").distinct().join(popular, "item_id").orderBy(F.desc("events"), "item_id").toPandas()
    if known.empty:
        return []
    places = sorted({0, len(known) // 2, len(known) - 1})[:SAMPLES]
    items = {str(known["item_id"][place]): int(known["events"][place]) for place in places}
    name_of = {row["item_id"]: row["title"] for row in titles.where(F.col("item_id").isin(list(items))).collect()}
    chosen = lists.where(F.col("item_id").isin(list(items)) & (F.col("rank") <= LIST_LENGTH))
    named = chosen.join(titles.select(F.col("item_id").alias("neighbour_id"), "title"), "neighbour_id").orderBy("rank").collect()
    return [
        Sample(item, name_of.get(item, item), [_listed(r, r["neighbour_id"]) for r in named if r["item_id"] == item], [], events)
        for item, events in items.items()
    ]


def _stages(store: Store, eval_namespace: str) -> list[StageRow]:
    """The newest finished run of every stage, in the order they ended."""
    found = []
    for namespace in (LIVE, eval_namespace, *[f"{eval_namespace}/systems/{name}" for name in NESTED]):
        newest = {}
        finished = [row for row in run_rows(store, namespace) if row["status"] == "done"]
        for row in sorted(finished, key=lambda row: row["finished_at"]):
            newest[row["stage"]] = row
        found += [(row["finished_at"], namespace, row) for row in newest.values()]
    ordered = sorted(found, key=lambda entry: entry[0])
    return [
        StageRow(r["stage"], space, r["seconds"], _moment(r["finished_at"]), dict(r["rows"]), r["fingerprint"], r["run_id"])
        for _, space, r in ordered
    ]
