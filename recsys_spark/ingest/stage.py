"""The ingest stage: the only file of this folder that reads and writes tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.ingest import SOURCE_PLACES
from recsys_spark.context import Context
from recsys_spark.errors import ConfigError
from recsys_spark.ingest import items, users
from recsys_spark.ingest.gather import Job, files_of, gather_events, gather_graph, gather_items, gather_users, sources_of
from recsys_spark.ingest.identify import deal
from recsys_spark.ingest.intake import Intake
from recsys_spark.ingest.ledger import ledger_rows, ledgers, totals
from recsys_spark.ingest.pseudonyms import id_key, key_check
from recsys_spark.ingest.quality import KEPT, bad, quarantine
from recsys_spark.ingest.sessions import with_sessions
from recsys_spark.ingest.times import check_time_settings
from recsys_spark.log import get_logger
from recsys_spark.parallel import side_by_side
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.runs import StagePlan, StageReport, find_run
from recsys_spark.tables.store import MANY_ROWS, Commit, Written

log = get_logger(__name__)
_WAS = "_session_before"
_KEY_CHECK = "id_key_check"
OUTPUTS = ("events", "items", "users", "quarantine", "ledger")


def run(config: Config, context: Context) -> StageReport:
    """Bring new files into events, items, users, knowledge_graph, quarantine and ledger.

    Raises:
        InputError: a missing file or column, an empty source, or a source without one good row (its rows are in
            quarantine then; nothing else is written).
        ConfigError: an unknown zone or pattern, no id key, or changed settings for files that are gone.
    """
    key = id_key(config.ingest.id_key_env)
    check_time_settings(context.spark, config.ingest.events, "[ingest.events]")
    sources = sources_of(config)
    some = context.store.rows("forgotten", context.namespace) > 0  # else nobody has to be looked for
    forgotten = context.store.read("forgotten", context.namespace) if some else None
    _check_key(context, key)
    job = Job(context.spark, config, sources, files_of(context.spark, sources), key, datetime.now(UTC), forgotten)
    return context.run_stage(_plan(job, context), lambda commit: _Ingest(job, context, commit).run())


def _check_key(context: Context, key: bytes | None) -> None:
    """Users of one warehouse have names of one key: others would stand beside their old names, and those who were forgotten,
    of whom only a hash of the name is kept, would come back."""
    earlier = find_run(context.store, context.namespace, "ingest")
    before = None if earlier is None else json.loads(earlier["facts"]).get(_KEY_CHECK)
    if before is None or before == key_check(key):
        return
    found = "no key" if key is None else "another key" if before else "a key"
    do = "go back to it, or set another warehouse, where 'recsys-spark forget' comes before the first night for who was forgotten"
    raise ConfigError("[ingest] id_key_env", found, "what this warehouse was made with", do)


def _plan(job: Job, context: Context) -> StagePlan:
    """Where the files lie is no part of the identity, and robots are judged by those who read the log."""
    exclude: Any = SOURCE_PLACES | {"robots": True}
    ingest = job.config.ingest
    settings = {"ingest": ingest.model_dump(mode="json", exclude=exclude), "seed": job.config.seed, "key": key_check(job.key)}
    inputs = {f"{table} {n} {f.name}": f.source_hash for table, files in job.files.items() for n, f in enumerate(files)}
    if job.forgotten is not None:
        inputs["forgotten"] = context.store.content("forgotten", context.namespace)
    outputs = (*OUTPUTS, "knowledge_graph") if "knowledge_graph" in job.sources else OUTPUTS
    return StagePlan("ingest", settings, inputs, outputs)


class _Ingest:
    """One run. Every source is read, judged and counted before anything is written; then the dictionaries are written
    before the events that use their numbers, and the ledger last: a run killed anywhere is simply done again."""

    def __init__(self, job: Job, context: Context, commit: Commit) -> None:
        self.job, self.context, self.store, self.commit = job, context, context.store, commit
        self.intakes: list[Intake] = []
        self.ledger = ledgers(self._present("ledger"))

    def run(self) -> tuple[list[Written], dict[str, Any]]:
        taken, new, anew = gather_events(self.job, self.ledger, self._present("events"))
        self.intakes.append(taken)
        catalogue, profiles = self._catalogues()
        self._stop_where_all_bad()
        events = self.store.empty("events") if new is None else new
        written = side_by_side(lambda: self._write_users(profiles, events), lambda: self._write_items(catalogue, events))
        if "knowledge_graph" in self.job.sources:
            written.append(self._write_graph())
        written += side_by_side(self._write_quarantine, *([] if new is None else [lambda: self._write_events(new, anew)]))
        ledger, facts = side_by_side(self._write_ledger, self._facts)
        written += ledger
        self._release()
        return written, facts

    def _present(self, table: str) -> DataFrame:
        return self.store.read_or_empty(table, self.context.namespace)

    def _catalogues(self) -> tuple[DataFrame, DataFrame]:
        """Rows of the items' and the users' source; empty where none is configured."""
        catalogue: DataFrame | None = None
        profiles: DataFrame | None = None
        if "items" in self.job.sources:
            taken, catalogue = gather_items(self.job, self.ledger)
            self.intakes.append(taken)
        if "users" in self.job.sources:
            taken, profiles = gather_users(self.job, self.ledger)
            self.intakes.append(taken)
        spark = self.job.spark
        return (
            local_frame(spark, [], items.CATALOGUE_COLUMNS) if catalogue is None else catalogue,
            local_frame(spark, [], users.PROFILE_COLUMNS) if profiles is None else profiles,
        )

    def _stop_where_all_bad(self) -> None:
        for taken in self.intakes:
            if taken.all_bad():
                self._write_quarantine()
                raise taken.nothing_good()

    def _write_users(self, profiles: DataFrame, events: DataFrame) -> Written:
        present = self._present("users")
        ids = profiles.select("user_id").unionByName(events.select("user_id"))
        dealt = deal(ids, present, "user", self.job.config.seed)
        rows = users.user_rows(profiles, events.select("user_id"), present, dealt)
        return self.store.merge("users", self.context.namespace, rows, self.commit)

    def _write_items(self, catalogue: DataFrame, events: DataFrame) -> Written:
        present = self._present("items")
        catalogue = catalogue.persist()
        met = events.groupBy("item_id").agg(F.to_date(F.min("ts")).alias("first_date"))
        ids = catalogue.select("item_id").unionByName(met.select("item_id"))
        dealt = deal(ids, present, "item", self.job.config.seed)
        rows = items.item_rows(catalogue, met, present, dealt, self.context.as_of)
        written = self.store.merge("items", self.context.namespace, rows, self.commit)
        catalogue.unpersist()
        return written

    def _write_graph(self) -> Written:
        known = self._present("items").select("item_id")
        intakes, facts = gather_graph(self.job, self.ledger, known)
        self.intakes += intakes
        self._stop_where_all_bad()
        return self.store.replace("knowledge_graph", self.context.namespace, facts, self.commit)

    def _write_quarantine(self) -> Written:
        rows = self.store.empty("quarantine")
        for taken in self.intakes:
            if taken.rows is not None:
                rows = rows.unionByName(bad(taken.rows, taken.table, self.commit.run_id))
        processed = {taken.table: [file.source_hash for file in taken.read_now] for taken in self.intakes}
        everything = quarantine(rows, self._present("quarantine"), processed)
        return self.store.replace("quarantine", self.context.namespace, everything, self.commit)

    def _write_events(self, new: DataFrame, anew: bool) -> Written:
        """Add ``new`` and set the sessions of their users anew, over whole histories."""
        numbered = new.join(self._present("users").select("user_id", "user_idx"), "user_id")
        numbered = numbered.join(self._present("items").select("item_id", "item_idx"), "item_id")
        columns = [name for name in contract("events").schema.fieldNames() if name != "session_id"]
        numbered = numbered.select(*columns)
        gap = self.job.config.ingest.session_gap_minutes
        if anew or not self.store.exists("events", self.context.namespace):
            rows = with_sessions(numbered, gap).hint("rebalance", "event_date")  # else each task writes a file per day
            return self.store.replace("events", self.context.namespace, rows, self.commit, many=self._many_events())
        was = F.col("session_id").alias(_WAS)
        touched = self._present("events").join(new.select("user_id").distinct(), "user_id", "left_semi").select(*columns, was)
        rows = with_sessions(touched.unionByName(numbered.withColumn(_WAS, F.lit(None).cast("string"))), gap)
        # events whose session stays as it was need not be looked for in the table, all of whose days they are of
        moved = rows.where(~F.col("session_id").eqNullSafe(F.col(_WAS))).drop(_WAS)
        return self.store.merge("events", self.context.namespace, moved, self.commit, many=self._many_events())

    def _many_events(self) -> bool:
        taken = self.intakes[0]  # events come first
        return sum(fates[KEPT] for fates in taken.counts.values()) >= MANY_ROWS

    def _write_ledger(self) -> list[Written]:
        rows = self.store.empty("ledger")
        for taken in self.intakes:
            rows = rows.unionByName(
                ledger_rows(self.job.spark, taken.table, taken.new, taken.counts, taken.sha, self.commit.run_id)
            )
        if not any(taken.new for taken in self.intakes):
            return []
        return [self.store.merge("ledger", self.context.namespace, rows, self.commit)]

    def _facts(self) -> dict[str, Any]:
        """Figures for the report: the sums of each source (DESIGN promise 2), reasons, and what the tables hold now."""
        times = self._present("events").agg(F.min("ts").cast("string"), F.max("ts").cast("string")).first() or (None, None)
        rows = {table: self.store.rows(table, self.context.namespace) for table in ("events", "users", "items")}
        with_text = self._present("items").where("has_text").count()
        if "items" in self.job.sources and rows["items"] > 2 * with_text:
            told = {"items": rows["items"], "with_text": with_text}
            log.warning("ingest: most items have no text: do events and items call them by the same ids?", **told)
        return {
            "tables": {t.table: totals(t.new_counts(), t.known_rows, len(t.files)) for t in self.intakes},
            "reasons": {t.table: t.reasons for t in self.intakes if t.reasons},
            "num_events": rows["events"],
            "first_event": times[0],
            "last_event": times[1],
            "num_users": rows["users"],
            _KEY_CHECK: key_check(self.job.key),
            "num_items": rows["items"],
            "num_items_with_text": with_text,
        }

    def _release(self) -> None:
        for taken in self.intakes:
            if taken.rows is not None:
                taken.rows.unpersist()
