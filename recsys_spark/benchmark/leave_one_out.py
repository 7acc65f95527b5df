"""Leave-one-out on any data folder, with cold items on request: the production stages in a namespace of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from recsys_spark.benchmark.folder import laid_over, settings_for
from recsys_spark.benchmark.night import STAGES, BenchmarkNight
from recsys_spark.benchmark.tidy import tidied
from recsys_spark.evaluate.split import leave_one_out
from recsys_spark.log import get_logger
from recsys_spark.night import closing_night
from recsys_spark.tables.store import Store

log = get_logger(__name__)
K = 10
SEGMENTS = ("all", "item_head", "item_torso", "item_tail", "item_cold")
_HIDDEN_OF = 1_000_000
_DRAWN = {"recommend": {"new_item_demand": 1.0}}  # at random: asked for as often as others, which validation has not left to see


@dataclass(frozen=True)
class Protocol:
    """What is measured: ``cold_share`` of the items hidden from everything but the test (0: plain leave-one-out)."""

    data: Path
    cold_share: float = 0.0
    seed: int = 0

    @property
    def namespace(self) -> str:
        cold = f"cold{round(self.cold_share * 100)}-" if self.cold_share else ""
        return f"benchmark/leave-one-out-{cold}seed{self.seed}"

    def tables(self, warehouse: Path) -> Path:
        """Where the tables of this data lie: those of another would be one log with them."""
        return _tables(tidied(self.data, warehouse), warehouse)


def _tables(tidy: Path, warehouse: Path) -> Path:
    return warehouse / tidy.name / "tables"


def cold_holdout(events: DataFrame, share: float, seed: int) -> DataFrame:
    """``(event_id, role)``: each user's last event is test; items drawn by seeded hash are hidden everywhere else.

    Who has no other event that is shown is not asked for: nothing is known of them.
    The newest of what is left of a history is validation, where at least one event before it can be fitted on. The
    targets among the drawn items are the segment ``cold``; all targets together tell what finding them costs.
    """
    drawn = F.pmod(F.xxhash64("item_id", F.lit(seed)), F.lit(_HIDDEN_OF)) < round(share * _HIDDEN_OF)
    by_user = Window.partitionBy("user_idx")
    newest = by_user.orderBy(F.desc("ts"), F.desc("event_pos"))
    marked = events.select("event_id", "user_idx", "ts", "event_pos", drawn.alias("cold"))
    ranked = marked.withColumn("place", F.row_number().over(newest))
    ranked = ranked.withColumn("num_shown", F.sum(F.when((F.col("place") > 1) & ~F.col("cold"), 1).otherwise(0)).over(by_user))
    test = ranked.where("place = 1 and num_shown >= 1").select("event_id", F.lit("test").alias("role"))
    hidden = ranked.where("place > 1 and cold").select("event_id", F.lit("hidden").alias("role"))
    left = ranked.where("place > 1 and not cold")
    left = left.withColumn("left_place", F.row_number().over(newest)).withColumn("num_left", F.count(F.lit(1)).over(by_user))
    validation = left.where("left_place = 1 and num_left >= 2").select("event_id", F.lit("validation").alias("role"))
    return test.unionByName(hidden).unionByName(validation)


def run_leave_one_out(protocol: Protocol, spark: SparkSession, warehouse: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Run the protocol; returns the row of figures: per system and segment HR@10 and NDCG@10 with intervals.

    Raises:
        InputError: see ``tidied``.
    """
    cold = protocol.cold_share > 0
    holdout = partial(cold_holdout, share=protocol.cold_share, seed=protocol.seed) if cold else leave_one_out
    data = tidied(protocol.data, warehouse)
    config = settings_for(data, _tables(data, warehouse), protocol.seed, laid_over(_DRAWN if cold else {}, overrides))
    night = BenchmarkNight(config, spark, protocol.namespace, holdout, places=cold)
    with closing_night(night):
        night.ingest()
        for stage in STAGES:
            getattr(night, stage)("eval")
        training, registered, events = night.facts("train"), night.facts("register"), _events_told(night)
    return {
        "row": "leave-one-out",
        "data": protocol.data.name,
        "cold_share": protocol.cold_share,
        "seed": protocol.seed,
        "events": events,
        "systems": figures(night.store, protocol.namespace),
        "fusion": registered["fusion"],
        "validation_ndcg": next((ndcg for weights, ndcg in registered["tried"] if weights == registered["weights"]), None),
        "new_items": registered.get("new_items"),
        "rerank": registered.get("rerank"),
        "training_seconds": round(float(training["seconds"]), 1),
        "best_epoch": training.get("best_epoch"),
    }


def _events_told(night: BenchmarkNight) -> dict[str, Any]:
    """What became of the rows of the log, and how many targets their users had met before: these are in no list."""
    taken = night.facts("ingest", "live")
    told = {**taken["tables"]["events"], "reasons": taken["reasons"].get("events", {})}
    if told["quarantined"]:
        log.warning("rows of events.parquet were left out", rows=told["quarantined"], reasons=told["reasons"])
    holdout, log_rows = night.store.read("holdout", night.eval_namespace), night.store.read("events", "live")
    held = log_rows.select("event_id", "user_idx", "item_idx").join(holdout, "event_id", "left")
    asked = held.where("role = 'test'").select("user_idx", "item_idx")
    shown = held.where("role is null or role = 'validation'").select("user_idx", "item_idx").distinct()
    told["targets"], told["targets_met_before"] = asked.count(), asked.join(shown, ["user_idx", "item_idx"], "left_semi").count()
    if told["targets_met_before"]:
        log.warning("targets that their users had met before are in nobody's list", users=told["targets_met_before"])
    return told


def figures(store: Store, namespace: str, names: tuple[str, ...] = ("hit_rate", "ndcg")) -> dict[str, Any]:
    """System -> metric -> segment -> [value, low, high, users] at 10, differences included."""
    chosen = (F.col("k") == K) & F.col("segment").isin(*SEGMENTS) & F.col("name").isin(*names)
    found: dict[str, Any] = {}
    for row in store.read("metrics", namespace).where(chosen).collect():
        cell = [row["value"], row["low"], row["high"], row["num_users"]]
        found.setdefault(row["system"], {}).setdefault(row["name"], {})[row["segment"]] = cell
    return found


def mean_over_seeds(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last line of the benchmark: each system's metrics by segment, averaged over the seeds' rows that have them."""
    means: dict[str, Any] = {}
    for system, metrics in rows[0]["systems"].items():
        for metric, segments in metrics.items():
            for segment in segments:
                values = [row["systems"].get(system, {}).get(metric, {}).get(segment) for row in rows]
                there = [value[0] for value in values if value is not None]
                means.setdefault(system, {}).setdefault(metric, {})[segment] = sum(there) / len(there)
    kept = {name: rows[0][name] for name in ("row", "data", "cold_share")}
    return {**kept, "seeds": len(rows), "mean": means}
