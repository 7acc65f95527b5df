"""What every stage is handed: the store, the namespace, the cutoff, and the visible part of events, items and users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from threading import RLock
from typing import Any, TypeVar

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.tables.content import Content, content_hash, contents_by
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.held import level_for
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.runs import Body, StagePlan, StageReport, run_stage
from recsys_spark.tables.store import Store
from recsys_spark.tables.visible import ROLE, ROLES, Cutoff, InstantCutoff, Rows, of_role, robots, with_role

T = TypeVar("T")
MAX_KEPT_EVENTS = 20_000_000  # a larger log is read from the table each time: holding it would only fill the disks
MAX_HELD_ROBOTS = 100_000  # by the driver, and sent to every task that reads the log
_BYTES_PER_EVENT = 200  # as Spark holds one


@dataclass
class Cache:
    """What contexts of one cutoff have computed already, and the frames that are held for it."""

    made: dict[str, Any] = field(default_factory=dict)
    frames: list[DataFrame] = field(default_factory=list)
    lock: Any = field(default_factory=RLock)  # steps of a night may run side by side


@dataclass(frozen=True)
class Context:
    """Handed to every stage's ``run(config, context)``."""

    spark: SparkSession
    store: Store
    config: Config
    namespace: str
    cutoff: Cutoff
    run_id: str
    cache: Cache = field(default_factory=Cache, repr=False)

    @property
    def as_of(self) -> datetime:
        return self.config.as_of

    def read(self, table: str) -> DataFrame:
        return self.store.read(table, self.namespace)

    def content(self, table: str) -> str:
        return self.store.content(table, self.namespace)

    def events(self, rows: Rows = "fit") -> DataFrame:
        """Visible events without those of robots; robots are judged on what is visible, never beyond it."""
        return self.once(f"events {rows}", lambda: of_role(self._log(), rows))

    def shown(self, rows: Rows = "fit") -> DataFrame:
        """Visible events that only say an item was shown (``pairs.negatives.shown_types``); ``events`` never has them."""
        types = self.config.pairs.negatives.shown_types
        marked = with_role(self.store.read("events", self.namespace).where(F.col("event_type").isin(types)), self.cutoff)
        return of_role(self._without_robots(marked), rows).drop(ROLE)

    def shown_content(self, rows: Rows = "fit") -> str:
        """Identity of ``shown(rows)``; empty where no event type says no more than that."""
        wanted = bool(self.config.pairs.negatives.shown_types)
        return str(self.once(f"shown {rows}", lambda: content_hash(self.shown(rows)))) if wanted else ""

    def _log(self) -> DataFrame:
        """Every visible event with its role, robots left out; kept where it is small, for a night reads it dozens of times."""
        return self.once("log", self._make_log)

    def _make_log(self) -> DataFrame:
        everything = self.store.read("events", self.namespace)
        types = self.config.pairs.negatives.shown_types
        told = everything.where(~F.col("event_type").isin(types)) if types else everything
        marked = with_role(told, self.cutoff)
        log = self._without_robots(marked).select(*everything.columns, ROLE)
        num_events = self.store.rows("events", self.namespace)
        if num_events > MAX_KEPT_EVENTS:
            return log
        level = level_for(self.spark, "event log", num_events * _BYTES_PER_EVENT)
        if not level.useMemory and isinstance(self.cutoff, InstantCutoff):
            return log  # the table lies on a disk too, and roles by time cost nothing: nothing to gain by a copy
        return self.kept(log, level)

    def _without_robots(self, events: DataFrame) -> DataFrame:
        return events.join(self.robots().select("user_idx"), "user_idx", "left_anti")

    def robots(self) -> DataFrame:
        """Users that act like machines in the visible history: ``(user_idx, reasons)``."""
        return self.once("robots", self._make_robots)

    def robots_of_the_test(self) -> DataFrame:
        """As ``robots``, of those who are seen to be such by the test's events too: nobody is measured by a machine."""
        return self.once("robots of the test", lambda: self._make_robots(("history", "test")))

    def _make_robots(self, parts: tuple[Rows, ...] = ("history",)) -> DataFrame:
        settings = self.config.ingest.robots
        if settings.max_events_per_minute is None and settings.max_z_score is None:
            return self.store.empty("robots")
        marked = with_role(self.store.read("events", self.namespace), self.cutoff)
        seen = of_role(marked, *parts)
        return self._held(robots(seen, settings.max_events_per_minute, settings.max_z_score, settings.min_users))

    def _held(self, found: DataFrame) -> DataFrame:
        """Robots, as few as they are, as rows of the driver: the planner knows how many there are and sends them to the log. Of a
        frame yet to be computed it knows nothing, and shuffles the log to it."""
        rows = [tuple(row) for row in found.limit(MAX_HELD_ROBOTS + 1).collect()]
        if len(rows) > MAX_HELD_ROBOTS:
            return self.kept(found)
        return local_frame(self.spark, sorted(rows), contract("robots").schema)

    def events_content(self, rows: Rows = "fit") -> str:
        """Identity of ``events(rows)``; all four come out of one pass."""
        parts = self.once("contents", lambda: contents_by(self._log(), ROLE))
        return sum((parts[role] for role in ROLES[rows] if role in parts), Content(0, 0)).digest

    def items(self) -> DataFrame:
        """Items this run may know: those with text from the catalogue, and those in a visible history."""
        return self.once("items", lambda: self.kept(self._known("items", "item_idx", "has_text")))

    def items_content(self) -> str:
        """Identity of ``items()``, but for when each was written."""
        return str(self.once("items content", lambda: content_hash(self.items().drop("updated_at", "first_seen"))))

    def users(self) -> DataFrame:
        """Users this run may know: those of the users table with a profile, and those with a visible history."""
        return self.once("users", lambda: self.kept(self._known("users", "user_idx", "profile_text IS NOT NULL")))

    def users_content(self) -> str:
        """Identity of ``users()``."""
        return str(self.once("users content", lambda: content_hash(self.users())))

    def _known(self, table: str, key: str, otherwise: str) -> DataFrame:
        met = self.events("history").select(key).distinct().withColumn("_met", F.lit(True))
        rows = self.store.read(table, self.namespace)
        return rows.join(met, key, "left").where(f"({otherwise}) OR _met").select(*rows.columns)

    def run_stage(self, plan: StagePlan, body: Body) -> StageReport:
        """Run ``body`` once per fingerprint (see ``tables.runs``)."""
        return run_stage(self.store, self.namespace, self.run_id, self.as_of, plan, body)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """``make()``, called once for all contexts that share this one's cache (those of one night and cutoff)."""
        with self.cache.lock:
            if name not in self.cache.made:
                self.cache.made[name] = make()
            found: T = self.cache.made[name]
            return found

    def kept(self, frame: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK_DESER) -> DataFrame:
        """The frame, computed at its first use and held until ``release``."""
        self.cache.frames.append(frame.persist(level))
        return frame

    def release(self) -> None:
        """Let go of all that is held."""
        for frame in self.cache.frames:
            frame.unpersist()
        self.cache.frames.clear()
        self.cache.made.clear()
