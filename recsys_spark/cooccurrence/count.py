"""The Spark job around the kernels: rows -> baskets -> blocks of items -> scored, cut co-occurrence rows.

Rows are dealt to tasks by basket; each basket is sent to every block of items it touches, as
binary arrays without any cost per row; a block counts, scores and cuts its own items, and only what is left becomes
Spark rows. The totals of all items, which scores need, are gathered on the driver in between and broadcast. Where the
log is small, so are the baskets themselves: every task then picks those of its block, and no basket is sent to several.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pyspark import Broadcast, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.messages import SCHEMA, TOTALS, WHOLE, deal_rows, gather_squares, gather_totals
from recsys_spark.cooccurrence.plan import Hashes, ItemTotals, Plan, plan_of
from recsys_spark.cooccurrence.tasks import Shared, all_baskets, count_blocks, send_baskets, sum_squares
from recsys_spark.cooccurrence.way import is_broadcast
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.dealing import partition_keys
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.task_files import Made

NO_DECAY = datetime(2000, 1, 1, tzinfo=UTC)  # a reference for counts that do not decay by time: any instant would do


@dataclass(frozen=True)
class Counted:
    """``rows`` keep the contract 'cooccurrence'; ``facts``: num_baskets, num_items, capped_baskets, items_cut,
    occurrences_cut, basket_sizes (baskets of 1, 2, 3-4, 5-8, ... distinct items, before the cut)."""

    rows: Made
    facts: dict[str, Any]

    @property
    def frame(self) -> DataFrame:
        return self.rows.frame


@contextmanager
def cooccurrences(
    rows: DataFrame, settings: CooccurrenceSettings, reference: datetime, seed: int = 0, hashes: Hashes | None = None
) -> Iterator[Counted]:
    """Count, score and cut all co-occurrences of ``rows``; they can be read while the block is open.

    Args:
        rows: ``basket bigint, item_idx int, ts timestamp``, one row per event; ``weight`` for measures of whole baskets,
            ``owner bigint`` for a minimum of users, ``side tinyint`` for cross-behaviour (see ``baskets.basket_rows``).
        settings: support, cuts, measures, rules of time and order. The measure ranked by is always filled.
        reference: the fixed instant of the decay, where a pair weighs 1.
        seed: of the hashes, where none are given.
        hashes: ``hashes[item_idx]``, a seeded hash of the item id, which breaks ties and cuts large baskets; without
            it, hashes of ``item_idx``.
    """
    spark = rows.sparkSession
    partitions = shuffle_partitions(spark)
    plan = plan_of(settings, reference, seed, partition_keys(spark, partitions), _is_broadcast(rows, settings))
    held: list[Broadcast[Any]] = [spark.sparkContext.broadcast(hashes)]
    messages = (
        dealt(rows.select(*row_columns(rows, plan)), plan)
        .mapInArrow(partial(send_baskets, plan, held[0]), SCHEMA)
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    try:
        totals, facts = gather_totals(messages.where(F.col("block") == TOTALS).collect())
        blocks, shared = _blocks(messages, plan)
        held += [shared] if shared is not None else []
        if plan.weightings:
            held.append(spark.sparkContext.broadcast(totals))
            totals = _with_squares(plan, totals, held[-1], shared, blocks)
        held.append(spark.sparkContext.broadcast(totals))
        work = partial(count_blocks, plan, held[-1], held[0], shared)
        yield Counted(Made(blocks, work, contract("cooccurrence").schema), facts)
    finally:
        messages.unpersist()
        for kept in held:
            kept.unpersist()


def _is_broadcast(rows: DataFrame, settings: CooccurrenceSettings) -> bool:
    """Whether all baskets are broadcast: by the optimiser's estimate of their size, as it decides on joins (see ``way``)."""
    query: Any = rows._jdf.queryExecution()  # no public way to ask for it
    return is_broadcast("baskets", int(str(query.optimizedPlan().stats().sizeInBytes())) >> 20, settings)


def _blocks(messages: DataFrame, plan: Plan) -> tuple[DataFrame, Shared | None]:
    """The blocks of items, each in a partition of its own, and where baskets are shared, those."""
    spark = messages.sparkSession
    if not plan.broadcast:
        return messages.where(F.col("block") != TOTALS).repartition(plan.num_blocks, "slot"), None
    baskets = all_baskets(messages.where(F.col("block") == WHOLE).toArrow().to_batches())
    shared = spark.sparkContext.broadcast(baskets)
    named = local_frame(spark, [(slot, block) for block, slot in enumerate(plan.slots)], "slot int, block int")
    return named.repartition(plan.num_blocks, "slot"), shared


def shuffle_partitions(spark: SparkSession) -> int:
    """How many tasks a shuffle of this session feeds."""
    return int(spark.conf.get("spark.sql.shuffle.partitions") or 1)


def dealt(rows: DataFrame, plan: Plan) -> DataFrame:
    """Rows (columns by the names of ``grouping.Rows``) as binary messages, those of a basket in one partition: a shuffle of
    rows would cost more than the counting."""
    return rows.mapInArrow(partial(deal_rows, plan.slots), SCHEMA).repartition(plan.num_blocks, "slot")


def row_columns(rows: DataFrame, plan: Plan) -> list[Any]:
    """Of each event what the plan needs, by the names of ``grouping.Rows``; narrow rows are cheap to shuffle."""
    found = [F.col("basket").alias("keys"), F.col("item_idx").alias("items")]
    if plan.timing.needed:
        found.append(F.unix_micros("ts").alias("times"))
    if plan.whole_baskets:
        found.append(F.col("weight").cast("double").alias("weights"))
    if "side" in rows.columns:
        found.append(F.col("side").cast("tinyint").alias("sides"))
    if plan.counts_users:
        found.append(F.col("owner").alias("owners"))
    return found


def _with_squares(plan: Plan, totals: ItemTotals, sent: Broadcast[ItemTotals], shared: Any, blocks: DataFrame) -> ItemTotals:
    """The totals with the lengths of all vectors: both ends of a pair are divided by theirs, and only one lies in the block."""
    work = partial(sum_squares, plan, sent, shared)
    found = blocks.mapInArrow(work, SCHEMA).select("items", "weights", "facts").collect()
    none = dict.fromkeys(plan.weightings, totals.weights * 0.0)
    return replace(totals, squares=none | gather_squares(found, len(totals.baskets)))
