"""How rows and baskets get from task to task: through shuffles of Spark, or on one machine through files.

Both make baskets of rows and know their totals; what is left to do is to go over the blocks of items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pyspark import Broadcast, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.cooccurrence.message_files import (
    POINTERS,
    BasketFiles,
    Pointer,
    from_files,
    into_files,
    message_folder,
    messages_at,
)
from recsys_spark.cooccurrence.messages import SCHEMA, TOTALS, WHOLE, deal_rows
from recsys_spark.cooccurrence.plan import Hashes, Plan
from recsys_spark.cooccurrence.tasks import Shared, all_baskets, send_baskets
from recsys_spark.tables.dealing import partition_keys
from recsys_spark.tables.local import local_frame

_SLOT_MIB = 32  # of the optimiser's estimate: what rows are dealt to, before anybody knows how many there are
_TASK_ROWS = 1 << 22  # about so many a task makes baskets of, and as many anchors are a block
_MOST_SLOTS = 256  # an estimate may be far too high, and each costs a message a million rows
_MOST_BLOCKS = 1024


@dataclass(frozen=True)
class Carried:
    """``totals``: the totals message of every task; ``blocks``: each block of items in a partition of its own, with its
    baskets, or where baskets are ``shared``, only named. ``plan`` may have more blocks than it had."""

    plan: Plan
    totals: Sequence[Any]
    blocks: DataFrame
    shared: Shared | None


def carried(rows: DataFrame, plan: Plan, hashes: Broadcast[Hashes | None]) -> AbstractContextManager[Carried]:
    """Baskets of ``rows`` (columns by the names of ``rows.Rows``), there while the block is open."""
    return _through_files(rows, plan, hashes) if plan.way == "files" else _through_shuffles(rows, plan, hashes)


@contextmanager
def _through_shuffles(rows: DataFrame, plan: Plan, hashes: Broadcast[Hashes | None]) -> Iterator[Carried]:
    messages = dealt(rows, plan).mapInArrow(partial(send_baskets, plan, hashes), SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)
    shared: Broadcast[Any] | None = None
    try:
        totals = messages.where(F.col("block") == TOTALS).collect()
        if plan.shared:
            baskets = all_baskets(messages.where(F.col("block") == WHOLE).toArrow().to_batches())
            shared = rows.sparkSession.sparkContext.broadcast(baskets)
            yield Carried(plan, totals, _named_blocks(rows.sparkSession, plan), shared)
        else:
            yield Carried(plan, totals, messages.where(F.col("block") != TOTALS).repartition(plan.num_blocks, "slot"), None)
    finally:
        messages.unpersist()
        if shared is not None:
            shared.unpersist()


@contextmanager
def _through_files(rows: DataFrame, plan: Plan, hashes: Broadcast[Hashes | None]) -> Iterator[Carried]:
    spark = rows.sparkSession
    with message_folder(spark) as folder:
        num_slots = _doubled(plan.num_blocks, estimated_mib(rows) / _SLOT_MIB, _MOST_SLOTS)
        deal = partial(into_files, partial(deal_rows, range(num_slots)), folder)
        dealt_rows = _pointers(rows.mapInArrow(deal, POINTERS))
        plan = _with_blocks(spark, plan, sum(pointer.num_entries for pointer in dealt_rows))
        read = local_frame(spark, _to_tasks(dealt_rows, num_slots, plan), POINTERS).repartition(plan.num_blocks, "slot")
        send = partial(into_files, partial(from_files, partial(send_baskets, plan, hashes)), folder)
        sent = _pointers(read.mapInArrow(send, POINTERS))
        for file in {pointer.file for pointer in dealt_rows}:
            Path(file).unlink()  # now, since what memory the system keeps of them is wanted
        totals = [message.to_pylist()[0] for message in messages_at([p for p in sent if p.block == TOTALS])]
        yield Carried(plan, totals, _named_blocks(spark, plan), BasketFiles([p for p in sent if p.block == WHOLE]))


def _pointers(frame: DataFrame) -> list[Pointer]:
    return [Pointer(*row) for row in frame.collect()]


def _with_blocks(spark: SparkSession, plan: Plan, num_rows: int) -> Plan:
    """With so many blocks that tasks of a large log have as much to hold as those of a small one."""
    num_blocks = _doubled(plan.num_blocks, num_rows / _TASK_ROWS, _MOST_BLOCKS)
    return plan if num_blocks == plan.num_blocks else replace(plan, slots=tuple(partition_keys(spark, num_blocks)))


def _doubled(tasks: int, wanted: float, most: int) -> int:
    """Doubled until as many are there as are wanted, or ``most`` would be passed: whole rounds of the tasks that there were."""
    while tasks < wanted and 2 * tasks <= most:
        tasks *= 2
    return tasks


def _to_tasks(pointers: Sequence[Pointer], num_slots: int, plan: Plan) -> list[Pointer]:
    """Pointers with the slots of the tasks that are to read them."""
    num_tasks = min(plan.num_blocks, num_slots)
    return [pointer._replace(slot=plan.slots[pointer.slot * num_tasks // num_slots]) for pointer in pointers]


def _named_blocks(spark: SparkSession, plan: Plan) -> DataFrame:
    named = local_frame(spark, [(slot, block) for block, slot in enumerate(plan.slots)], "slot int, block int")
    return named.repartition(plan.num_blocks, "slot")


def estimated_mib(rows: DataFrame) -> int:
    """The optimiser's estimate of their size, by which it decides on joins."""
    query: Any = rows._jdf.queryExecution()  # no public way to ask for it
    return int(str(query.optimizedPlan().stats().sizeInBytes())) >> 20


def dealt(rows: DataFrame, plan: Plan) -> DataFrame:
    """Rows (columns by the names of ``rows.Rows``) as binary messages, those of a basket in one partition: a shuffle of
    rows would cost more than the counting."""
    return rows.mapInArrow(partial(deal_rows, plan.slots), SCHEMA).repartition(plan.num_blocks, "slot")
