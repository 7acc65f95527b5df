"""How rows and baskets get from task to task: through shuffles of Spark, or on one machine through files.

Both make baskets of rows and know their totals; what is left to do is to go over the blocks of items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark import Broadcast, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.cooccurrence.message_files import POINTERS, BasketFiles, from_files, into_files, message_folder, messages_at
from recsys_spark.cooccurrence.messages import SCHEMA, TOTALS, WHOLE, deal_rows
from recsys_spark.cooccurrence.plan import Hashes, Plan
from recsys_spark.cooccurrence.tasks import Shared, all_baskets, send_baskets
from recsys_spark.cooccurrence.way import Way
from recsys_spark.tables.local import local_frame


@dataclass(frozen=True)
class Carried:
    """``totals``: the totals message of every task; ``blocks``: each block of items in a partition of its own, with its
    baskets, or where baskets are ``shared``, only named."""

    totals: Sequence[Any]
    blocks: DataFrame
    shared: Shared | None


def carried(rows: DataFrame, plan: Plan, hashes: Broadcast[Hashes | None], way: Way) -> AbstractContextManager[Carried]:
    """Baskets of ``rows`` (columns by the names of ``rows.Rows``), there while the block is open."""
    return _through_files(rows, plan, hashes) if way == "files" else _through_shuffles(rows, plan, hashes)


@contextmanager
def _through_shuffles(rows: DataFrame, plan: Plan, hashes: Broadcast[Hashes | None]) -> Iterator[Carried]:
    send = partial(send_baskets, plan, hashes)
    messages = dealt(rows, plan).mapInArrow(send, SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
    shared: Broadcast[Any] | None = None
    try:
        totals = messages.where(F.col("block") == TOTALS).collect()
        if plan.shared:
            baskets = all_baskets(messages.where(F.col("block") == WHOLE).toArrow().to_batches())
            shared = rows.sparkSession.sparkContext.broadcast(baskets)
            yield Carried(totals, _named_blocks(rows.sparkSession, plan), shared)
        else:
            yield Carried(totals, messages.where(F.col("block") != TOTALS).repartition(plan.num_blocks, "slot"), None)
    finally:
        messages.unpersist()
        if shared is not None:
            shared.unpersist()


@contextmanager
def _through_files(rows: DataFrame, plan: Plan, hashes: Broadcast[Hashes | None]) -> Iterator[Carried]:
    spark = rows.sparkSession
    with message_folder(spark) as folder:
        deal = partial(into_files, partial(deal_rows, plan.slots), folder)
        pointers = local_frame(spark, rows.mapInArrow(deal, POINTERS).collect(), POINTERS)
        send = partial(into_files, partial(from_files, partial(send_baskets, plan, hashes)), folder)
        sent = pointers.repartition(plan.num_blocks, "slot").mapInArrow(send, POINTERS).collect()
        totals = [message.to_pylist()[0] for message in messages_at([row for row in sent if row["block"] == TOTALS])]
        shared = BasketFiles([tuple(row) for row in sent if row["block"] == WHOLE])
        yield Carried(totals, _named_blocks(spark, plan), shared)


def _named_blocks(spark: SparkSession, plan: Plan) -> DataFrame:
    named = local_frame(spark, [(slot, block) for block, slot in enumerate(plan.slots)], "slot int, block int")
    return named.repartition(plan.num_blocks, "slot")


def dealt(rows: DataFrame, plan: Plan) -> DataFrame:
    """Rows (columns by the names of ``rows.Rows``) as binary messages, those of a basket in one partition: a shuffle of
    rows would cost more than the counting."""
    return rows.mapInArrow(partial(deal_rows, plan.slots), SCHEMA).repartition(plan.num_blocks, "slot")
