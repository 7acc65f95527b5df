"""Leave-one-out on any data folder, with cold items on request: the production stages in a namespace of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.errors import InputError
from recsys_spark.evaluate.split import leave_one_out
from recsys_spark.night import BASELINES, Night, closing_night
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import HoldoutCutoff

AS_OF = datetime(2100, 1, 1, tzinfo=UTC)  # after every event: the holdout does the cutting
K = 10
SYSTEMS = {**BASELINES, "text": {"text": 1.0}}
_NO_TEXT = {"item_id"}


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


def settings_for(protocol: Protocol, warehouse: Path, overrides: dict[str, Any]) -> Config:
    """A configuration from the folder's columns: ``events.parquet`` and, where there is one, ``items.parquet``.

    Raises:
        InputError: no events.parquet, or it lacks user_id, item_id and one of ts and pos.
    """
    events = protocol.data / "events.parquet"
    if not events.exists():
        raise InputError(str(protocol.data), "no events.parquet", "columns user_id, item_id, and pos or ts")
    names = set(pq.read_schema(events).names)
    if not {"user_id", "item_id"} <= names or not {"ts", "pos"} & names:
        raise InputError(str(events), f"columns {sorted(names)}", "user_id, item_id, and pos or ts")
    columns = {"user_id": "user_id", "item_id": "item_id"} | ({"ts": "ts"} if "ts" in names else {"event_pos": "pos"})
    columns |= {"value": "rating"} if "rating" in names else {}
    ingest: dict[str, Any] = {
        "events": {"path": str(events), "format": "parquet", "columns": columns, "time_format": "epoch_seconds"},
        "robots": {"max_events_per_minute": None, "max_z_score": None},
    }
    items = protocol.data / "items.parquet"
    if items.exists():
        texts = _text_columns(items)
        ingest["items"] = {
            "path": str(items),
            "format": "parquet",
            "columns": {"item_id": "item_id"} | {name: name for name in texts},
            "template": ". ".join(f"{{{name}}}" for name in texts),
        }
    base = {
        "name": f"benchmark-{protocol.data.name}",
        "as_of": AS_OF,
        "warehouse": str(warehouse),
        "seed": 42 + protocol.seed,
        "ingest": ingest,
        "train": {"batch_size": 64},
        "recommend": {"k": 20, "history_items": 10, "history_decay": 0.7},
        "evaluate": {"split": "leave_one_out"},
    }
    return parse_config(base | overrides, "benchmark")


def _text_columns(items: Path) -> list[str]:
    """Text columns in the file's order; one that only joins the others (called text) stands for all."""
    schema = pq.read_schema(items)
    names = [f.name for f in schema if str(f.type) in ("string", "large_string") and f.name not in _NO_TEXT]
    return ["text"] if "text" in names else names


def cold_holdout(events: DataFrame, share: float, seed: int) -> DataFrame:
    """``(event_id, role)``: items drawn by seeded hash are cold; all their events are hidden, but a user's last one is test.

    Users whose last item is warm give only a validation event, so that training and fusion have something to choose on.
    """
    drawn = F.pmod(F.xxhash64("item_id", F.lit(seed)), F.lit(1_000_000)) < round(share * 1_000_000)
    newest = Window.partitionBy("user_idx").orderBy(F.desc("ts"), F.desc("event_pos"))
    marked = events.select("event_id", "user_idx", "ts", "event_pos", drawn.alias("cold"))
    ranked = marked.withColumn("place", F.row_number().over(newest))
    warm = ranked.where(~F.col("cold")).withColumn("warm_place", F.row_number().over(newest))
    validation = warm.where("warm_place = 1").select("event_id", F.lit("validation").alias("role"))
    role = F.when(F.col("place") == 1, F.lit("test")).otherwise(F.lit("hidden"))
    return ranked.where("cold").select("event_id", role.alias("role")).unionByName(validation)


class BenchmarkNight(Night):
    """The stages of a night's evaluation, in ``benchmark/<name>``; never published."""

    def __init__(self, config: Config, spark: SparkSession, protocol: Protocol) -> None:
        super().__init__(config, spark)
        self.protocol = protocol

    @property
    def eval_namespace(self) -> str:
        return self.protocol.namespace

    @cached_property
    def evaluation(self) -> Context:
        everything = self.store.read("events", "live")
        chosen = (
            cold_holdout(everything, self.protocol.cold_share, self.protocol.seed)
            if self.protocol.cold_share
            else leave_one_out(everything)
        )
        self.store.replace("holdout", self.eval_namespace, chosen, Commit(self.run_id, "holdout", self.run_id))
        holdout = self.store.read("holdout", self.eval_namespace)
        cutoff = HoldoutCutoff(holdout, self.config.as_of, self.eval_namespace)
        return Context(self.spark, self.store, self.config, self.eval_namespace, cutoff, self.run_id)

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        return SYSTEMS


def run_leave_one_out(protocol: Protocol, spark: SparkSession, warehouse: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Run the protocol; returns the row of figures: per system HR@10 and NDCG@10 with intervals.

    Raises:
        InputError: see ``settings_for``.
    """
    night = BenchmarkNight(settings_for(protocol, warehouse, overrides), spark, protocol)
    with closing_night(night):
        night.ingest()
        for stage in ("cooccurrence", "pairs", "train", "embed", "recommend", "evaluate"):
            getattr(night, stage)("eval")
    return {
        "row": "leave-one-out",
        "data": protocol.data.name,
        "cold_share": protocol.cold_share,
        "seed": protocol.seed,
        "systems": figures(night.store, protocol.namespace),
    }


def figures(store: Store, namespace: str) -> dict[str, dict[str, list[float]]]:
    """System -> metric@10 -> [value, low, high] over all users, differences included."""
    rows = store.read("metrics", namespace).where((F.col("segment") == "all") & (F.col("k") == K)).collect()
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["name"] in ("hit_rate", "ndcg"):
            found.setdefault(row["system"], {})[row["name"]] = [row["value"], row["low"], row["high"]]
    return found


def mean_over_seeds(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last line of the benchmark: each system's metrics, averaged over the seeds' rows."""
    systems = rows[0]["systems"]
    means = {
        system: {metric: sum(row["systems"][system][metric][0] for row in rows) / len(rows) for metric in found}
        for system, found in systems.items()
    }
    kept = {name: rows[0][name] for name in ("row", "data", "cold_share")}
    return {**kept, "seeds": len(rows), "mean": means}
