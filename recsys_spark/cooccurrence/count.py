"""The Spark job around the kernels: rows -> baskets -> blocks of items -> scored, cut co-occurrence rows.

Rows are dealt to tasks by basket; each basket is sent to every block of items it touches, as
binary arrays without any cost per row; a block counts, scores and cuts its own items, and only what is left becomes
Spark rows. The totals of all items, which scores need, are gathered on the driver in between and broadcast. Where the
log is small, so are the baskets themselves, and where tasks run on one machine they lie in files (``carriers``): every task
then picks those of its block, and no basket is sent to several.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.carriers import Carried, carried, estimated_mib
from recsys_spark.cooccurrence.message_files import is_one_machine
from recsys_spark.cooccurrence.messages import SCHEMA, gather_squares, gather_totals
from recsys_spark.cooccurrence.plan import Hashes, ItemTotals, Plan, plan_of
from recsys_spark.cooccurrence.tasks import count_blocks, sum_squares
from recsys_spark.cooccurrence.way import way_of_baskets
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.dealing import partition_keys
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
    way = way_of_baskets(estimated_mib(rows), settings, is_one_machine(spark))
    plan = plan_of(settings, reference, seed, partition_keys(spark, shuffle_partitions(spark)), way)
    held: list[Broadcast[Any]] = [spark.sparkContext.broadcast(hashes)]
    try:
        with carried(rows.select(*row_columns(rows, plan)), plan, held[0]) as sent:
            plan = sent.plan
            totals, facts = gather_totals(sent.totals)
            if plan.weightings:
                held.append(spark.sparkContext.broadcast(totals))
                totals = _with_squares(plan, totals, held[-1], sent)
            held.append(spark.sparkContext.broadcast(totals))
            work = partial(count_blocks, plan, held[-1], held[0], sent.shared)
            yield Counted(Made(sent.blocks, work, contract("cooccurrence").schema), facts)
    finally:
        for kept in held:
            kept.unpersist()


def shuffle_partitions(spark: SparkSession) -> int:
    """How many tasks a shuffle of this session feeds."""
    return int(spark.conf.get("spark.sql.shuffle.partitions") or 1)


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


def _with_squares(plan: Plan, totals: ItemTotals, told: Broadcast[ItemTotals], sent: Carried) -> ItemTotals:
    """The totals with the lengths of all vectors: both ends of a pair are divided by theirs, and only one lies in the block."""
    work = partial(sum_squares, plan, told, sent.shared)
    found = sent.blocks.mapInArrow(work, SCHEMA).select("items", "weights", "facts").collect()
    none = dict.fromkeys(plan.weightings, totals.weights * 0.0)
    return replace(totals, squares=none | gather_squares(found, len(totals.baskets)))
