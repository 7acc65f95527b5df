"""What every stage is handed: the store, the namespace, the cutoff, and the visible part of events, items and users."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.runs import Body, StagePlan, StageReport, run_stage
from recsys_spark.tables.store import Store
from recsys_spark.tables.visible import Cutoff, Rows, robots, visible


@dataclass(frozen=True)
class Context:
    """Handed to every stage's ``run(config, context)``."""

    spark: SparkSession
    store: Store
    config: Config
    namespace: str
    cutoff: Cutoff
    run_id: str
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def as_of(self) -> datetime:
        return self.config.as_of

    def read(self, table: str) -> DataFrame:
        return self.store.read(table, self.namespace)

    def content(self, table: str) -> str:
        return self.store.content(table, self.namespace)

    def events(self, rows: Rows = "fit") -> DataFrame:
        """Visible events without those of robots; robots are judged on what is visible, never beyond it."""
        settings = self.config.ingest.robots
        everything = self.store.read("events", self.namespace)
        history = visible(everything, self.cutoff, "history")
        flagged = robots(history, settings.max_events_per_minute, settings.max_z_score, settings.min_users)
        return (
            visible(everything, self.cutoff, rows)
            .join(self._keep("robots", flagged), "user_idx", "left_anti")
            .select(*everything.columns)
        )

    def events_content(self, rows: Rows = "fit") -> str:
        return str(self._once(f"events {rows}", lambda: content_hash(self.events(rows))))

    def items(self) -> DataFrame:
        """Items this run may know: those with text from the catalogue, and those in a visible history."""
        known = self.events("history").select("item_idx").distinct().withColumn("_met", F.lit(True))
        joined = self.store.read("items", self.namespace).join(known, "item_idx", "left")
        columns = self.store.read("items", self.namespace).columns
        return joined.where(F.col("has_text") | F.col("_met")).select(*columns)

    def items_content(self) -> str:
        return str(self._once("items", lambda: content_hash(self.items().drop("updated_at", "first_seen"))))

    def users(self) -> DataFrame:
        """Users this run may know: those of the users table with a profile, and those with a visible history."""
        known = self.events("history").select("user_idx").distinct().withColumn("_met", F.lit(True))
        table = self.store.read("users", self.namespace)
        met = table.join(known, "user_idx", "left")
        return met.where(F.col("profile_text").isNotNull() | F.col("_met")).select(*table.columns)

    def users_content(self) -> str:
        return str(self._once("users", lambda: content_hash(self.users())))

    def run_stage(self, plan: StagePlan, body: Body) -> StageReport:
        """Run ``body`` once per fingerprint (see ``tables.runs``)."""
        return run_stage(self.store, self.namespace, self.run_id, self.as_of, plan, body)

    def _keep(self, name: str, frame: DataFrame) -> DataFrame:
        kept: DataFrame = self._once(name, lambda: frame.persist())
        return kept

    def _once(self, name: str, make: Any) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]
