"""Co-occurrence kept up to date: the state takes in what has changed in the log, and the table is derived from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import Broadcast, StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.context import Context
from recsys_spark.cooccurrence.additive.deltas import (
    SCHEMA,
    Pairs,
    count_changes,
    count_totals,
    difference,
    fold_pairs,
    gather_state_totals,
    pairs_of_rows,
    score_pairs,
    send_changes,
)
from recsys_spark.cooccurrence.additive.files import GROUPS, bytes_beside_the_largest, groups_of_files, pairs_in_files
from recsys_spark.cooccurrence.additive.state import TABLE, State, rules_of, utc, why_anew
from recsys_spark.cooccurrence.additive.touched import Sight, touched_rows
from recsys_spark.cooccurrence.baskets import basket_rows
from recsys_spark.cooccurrence.carriers import dealt
from recsys_spark.cooccurrence.count import Counted, row_columns, shuffle_partitions
from recsys_spark.cooccurrence.messages import SCHEMA as MESSAGES
from recsys_spark.cooccurrence.messages import TOTALS, gather_facts
from recsys_spark.cooccurrence.plan import Hashes, Plan, plan_of
from recsys_spark.log import get_logger
from recsys_spark.tables.change_feed import changes_since, identity
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.dealing import partition_keys
from recsys_spark.tables.delta_log import num_bytes, transaction
from recsys_spark.tables.instants import instant
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.plain_files import plain_files
from recsys_spark.tables.store import Commit
from recsys_spark.tables.task_files import Made

log = get_logger(__name__)
_BYTES_PER_TASK = 48 << 20  # of the state's files that one task sums: 5 to 10M pairs


@dataclass(frozen=True)
class Keeper:
    """Keeps the state of one namespace."""

    context: Context
    settings: CooccurrenceSettings
    seed: int
    hashes: Hashes | None
    commit: Commit

    # -- bringing the state up to date ----------------------------------------------------------------------------

    def update(self, until: datetime) -> State:
        """The state of all events before ``until``; one commit, or none where nothing has changed."""
        present = State.of_commit(self.context.store.last_facts(TABLE, self.context.namespace))
        wanted, has_feed = self._wanted(until)
        reason = why_anew(present, wanted, self.settings, has_feed)
        if present is not None and reason is None:
            if present.sees_the_same_as(wanted):
                return present
            touched = self._touched(present, wanted)
            if touched is not None:
                return self._changed(self._folded(present), wanted, *touched)
            reason = "its changes cannot be read any more"
        log.info("co-occurrence state is counted anew", reason=reason)
        return self._anew(replace(wanted, reference=wanted.until))

    def _wanted(self, until: datetime) -> tuple[State, bool]:
        """What the state is to see, and whether the log records its changes."""
        store, namespace = self.context.store, self.context.namespace
        found = identity(store, "events", namespace)
        robots = store.replace("robots", namespace, self.context.robots(), self.commit)
        version, until = store.version("events", namespace), utc(until)
        rules = rules_of(self.settings, self.seed)
        return State(rules, found.table_id, version, robots.version, until, until, 0, {}), found.has_feed

    def _anew(self, wanted: State) -> State:
        rows = basket_rows(self.context.events("fit"), self.settings).drop("owner", "weight")
        with self._contributions(rows, wanted) as (frame, facts):
            return self._put(frame, replace(wanted, facts=facts), anew=True)

    def _touched(self, present: State, wanted: State) -> tuple[DataFrame, tuple[DataFrame, ...]] | None:
        """As ``touched_rows``; None where commits that are needed have been cleaned away."""
        store, namespace = self.context.store, self.context.namespace
        robots = {version: self._robots(version) for version in {present.robots_version, wanted.robots_version}}
        before, after = (Sight(seen.until, robots[seen.robots_version]) for seen in (present, wanted))
        try:
            changes = changes_since(store, "events", namespace, present.events_version, wanted.events_version)
            events = store.read("events", namespace, wanted.events_version)
            rows, kept = touched_rows(events, changes, before, after, self.settings)
        except (PySparkException, Py4JJavaError) as error:
            log.warning("changes of table events", problem=str(error).splitlines()[0][:300])
            return None
        return rows, kept

    def _robots(self, version: int) -> DataFrame:
        """Table robots at a version; what is said to hold no row is not read."""
        store, namespace = self.context.store, self.context.namespace
        if version == store.version("robots", namespace) and not store.rows("robots", namespace):
            return store.empty("robots")
        return store.read("robots", namespace, version)

    def _changed(self, present: State, wanted: State, rows: DataFrame, kept: tuple[DataFrame, ...]) -> State:
        try:
            with self._contributions(rows, present) as (frame, facts):
                added = difference(present.facts, facts, sign=1)
                done = replace(wanted, reference=present.reference, batches=present.batches + 1, facts=added)
                return self._put(frame, done, anew=False)
        finally:
            for frame in kept:
                frame.unpersist()

    @contextmanager
    def _contributions(self, rows: DataFrame, state: State) -> Iterator[tuple[DataFrame, dict[str, Any]]]:
        """What the rows add to a state, ``deltas.SCHEMA``, and the facts that they add."""
        spark, partitions = rows.sparkSession, shuffle_partitions(rows.sparkSession)
        plan = plan_of(self.settings, state.reference, self.seed, partition_keys(spark, partitions))
        shared = spark.sparkContext.broadcast(self.hashes)
        flags = [name for name in ("old", "new") if name in rows.columns]
        sent = dealt(rows.select(*row_columns(rows, plan), *flags), plan)
        messages = sent.mapInArrow(partial(send_changes, plan, shared), MESSAGES).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            told = messages.where(F.col("block") == TOTALS)
            facts = gather_facts([row["facts"] for row in told.select("facts").collect()])
            blocks = messages.where(F.col("block") != TOTALS).repartition(partitions, "slot")
            counted = blocks.mapInArrow(partial(count_changes, plan), SCHEMA)
            yield counted.union(told.coalesce(1).mapInArrow(count_totals, SCHEMA)), facts
        finally:
            messages.unpersist()
            shared.unpersist()

    def _put(self, frame: DataFrame, state: State, anew: bool) -> State:
        stamped = frame.withColumns({"batch_id": F.lit(self.commit.fingerprint), "reference": instant(state.reference)})
        store, namespace = self.context.store, self.context.namespace
        store.append(TABLE, namespace, stamped, self.commit, anew=anew, **state.document())
        log.info("co-occurrence state", batches=state.batches, until=state.until.isoformat(), baskets=state.facts["num_baskets"])
        return state

    # -- summing it and deriving the table from it ----------------------------------------------------------------

    def _folded(self, state: State) -> State:
        """The same state with its batches summed into one, where they have become many."""
        if state.batches < self.settings.fold_after:
            return state
        log.info("co-occurrence state is summed", batches=state.batches)
        source, pairs_of = self._by_anchor()
        pairs = source.mapInArrow(partial(fold_pairs, pairs_of), SCHEMA)
        totals = self._rows().where("item_a < 0").coalesce(1).mapInArrow(partial(fold_pairs, pairs_of_rows), SCHEMA)
        return self._put(pairs.union(totals), replace(state, batches=0), anew=True)

    def _rows(self) -> DataFrame:
        return self.context.read(TABLE).select("item_a", "item_b", "num_baskets", "decayed_count")

    def _by_anchor(self) -> tuple[DataFrame, Pairs]:
        """All pairs of an anchor in one task, and no more in a task than it can hold at once: what each task is given, and how it
        makes pairs of it. Files are read by the tasks where they can be, else rows are shuffled."""
        spark, tasks = self.context.spark, shuffle_partitions(self.context.spark)
        groups = self._groups_of_files()
        log.info("pairs of the state", way="shuffle" if groups is None else "files", tasks=len(groups or ()) or None)
        if groups is not None:
            slots = partition_keys(spark, len(groups))
            named = [(slot, [str(file) for file in group]) for slot, group in zip(slots, groups, strict=True)]
            return local_frame(spark, named, GROUPS).repartition(len(groups), "slot"), pairs_in_files
        held = num_bytes(transaction(spark, self.context.store.path(TABLE, self.context.namespace)))
        rows = self._rows().where("item_a >= 0")
        return rows.repartition(max(tasks, -(-held // _BYTES_PER_TASK)), "item_a"), pairs_of_rows

    def _groups_of_files(self) -> list[list[Path]] | None:
        """Of the state, where tasks can read its files, these are enough for all cores, and none has to hold much at once."""
        if self.settings.way not in ("auto", "files"):
            return None
        files = plain_files(self.context.store, TABLE, self.context.namespace)
        groups = groups_of_files(files) if files else []
        if not groups or any(bytes_beside_the_largest(group) > _BYTES_PER_TASK for group in groups):
            return None
        small = sum(file.stat().st_size for group in groups for file in group) <= _BYTES_PER_TASK
        return groups if small or len(groups) >= self.context.spark.sparkContext.defaultParallelism else None

    @contextmanager
    def table(self, state: State, reference: datetime) -> Iterator[Counted]:
        """Scored, cut rows of table cooccurrence; they can be read while the block is open."""
        spark = self.context.spark
        plan: Plan = plan_of(self.settings, reference, self.seed, ())
        of_totals = self._rows().where("item_a < 0").toArrow().to_batches()
        totals = gather_state_totals(of_totals, state.facts["num_baskets"])
        held: list[Broadcast[Any]] = [spark.sparkContext.broadcast(value) for value in (totals, self.hashes)]
        source, pairs_of = self._by_anchor()
        work = partial(score_pairs, plan, held[0], held[1], state.scale(self.settings, reference), pairs_of)
        try:
            scored = Made(source, work, contract("cooccurrence").schema)
            yield Counted(scored, state.facts | {"num_items": totals.num_items})
        finally:
            for shared in held:
                shared.unpersist()
