"""The Spark job around the kernels: rows -> baskets -> blocks of items -> scored, cut co-occurrence rows.

Baskets are formed where a plain repartition puts their rows; each is sent to every block of items it touches, as
binary arrays without any cost per row; a block counts, scores and cuts its own items, and only what is left becomes
Spark rows. The totals of all items, which scores need, are gathered on the driver in between and broadcast.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.signals import CooccurrenceSettings, Measure
from recsys_spark.cooccurrence.grouping import (
    Baskets,
    Ints,
    cut_baskets,
    distinct_entries,
    from_sizes,
    group_rows,
    join_baskets,
    mix,
    touching,
)
from recsys_spark.cooccurrence.kernels import PairCounts, Timing, best, pair_counts
from recsys_spark.cooccurrence.measures import MEASURES
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.dealing import partition_keys

Hashes = NDArray[np.uint64]

TOTALS = -1  # the "block" of the rows that carry a task's item totals and facts
_MICROS_PER_DAY = 86_400_000_000
_MESSAGE = "slot int, block int, sizes binary, items binary, times binary, facts string"
_MESSAGE_SCHEMA = pa.schema(
    [("slot", pa.int32()), ("block", pa.int32())]
    + [(name, pa.binary()) for name in ("sizes", "items", "times")]
    + [("facts", pa.string())]
)
_MAX_MESSAGE_ENTRIES = 16_000_000  # 192 MB with times; a Spark row must stay below 2 GB


@dataclass(frozen=True)
class Plan:
    """What the tasks need to know."""

    max_basket_items: int
    min_support: int
    top_n: int
    measures: tuple[Measure, ...]
    rank_by: Measure
    timing: Timing
    seed: int
    slots: tuple[int, ...]  # slots[block]: a key that Spark's hash partitioner sends to a partition of its own

    @property
    def num_blocks(self) -> int:
        return len(self.slots)


@dataclass(frozen=True)
class ItemTotals:
    """``baskets[item_idx]``: baskets that hold the item, int64 [N]; ``total``: all baskets."""

    baskets: Ints
    total: int


@dataclass(frozen=True)
class Counted:
    """``frame`` keeps the contract 'cooccurrence'; ``facts``: num_baskets, num_items, capped_baskets, items_cut,
    basket_sizes (baskets of 1, 2, 3-4, 5-8, ... distinct items, before the cut)."""

    frame: DataFrame
    facts: dict[str, Any]


@contextmanager
def cooccurrences(
    rows: DataFrame, settings: CooccurrenceSettings, reference: datetime, seed: int = 0, hashes: Hashes | None = None
) -> Iterator[Counted]:
    """Count, score and cut all co-occurrences of ``rows``; the frame can be read while the block is open.

    Args:
        rows: ``basket bigint, item_idx int, ts timestamp`` (see ``baskets.basket_rows``), one row per event.
        settings: support, cut, measures, window and half-life. The measure ranked by is always filled.
        reference: the fixed instant of the decay, where a pair weighs 1.
        seed: of the hashes, where none are given.
        hashes: ``hashes[item_idx]``, a seeded hash of the item id, which breaks ties and cuts large baskets; without
            it, hashes of ``item_idx``.
    """
    spark = rows.sparkSession
    partitions = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    plan = plan_of(settings, reference, seed, partition_keys(spark, partitions))
    shared_hashes = spark.sparkContext.broadcast(hashes)
    micros = [F.unix_micros("ts").alias("micros")] if plan.timing.needed else []
    dealt = rows.select(F.col("basket"), F.col("item_idx"), *micros).repartition(partitions, "basket")
    messages = dealt.mapInArrow(partial(send_baskets, plan, shared_hashes), _MESSAGE).persist(StorageLevel.MEMORY_AND_DISK)
    totals = None
    try:
        found, facts = gather_totals(messages.where(F.col("block") == TOTALS).collect())
        totals = spark.sparkContext.broadcast(found)
        blocks = messages.where(F.col("block") != TOTALS).repartition(partitions, "slot")
        schema = contract("cooccurrence").schema
        yield Counted(blocks.mapInArrow(partial(count_blocks, plan, totals, shared_hashes), schema), facts)
    finally:
        messages.unpersist()
        shared_hashes.unpersist()
        if totals is not None:
            totals.unpersist()


def plan_of(settings: CooccurrenceSettings, reference: datetime, seed: int, slots: Sequence[int]) -> Plan:
    """The plan of the tasks; days become microseconds."""
    timing = Timing(
        None if settings.window_days is None else round(settings.window_days * _MICROS_PER_DAY),
        None if settings.half_life_days is None else settings.half_life_days * _MICROS_PER_DAY,
        round(reference.timestamp() * 1_000_000),
    )
    wanted = tuple(m for m in MEASURES if m in settings.measures or m == settings.rank_by)
    return Plan(
        settings.max_basket_items, settings.min_support, settings.top_n, wanted, settings.rank_by, timing, seed, tuple(slots)
    )


def item_hashes(items: NDArray[np.integer[Any]], seed: int, hashes: Hashes | None) -> Hashes:
    """Hash of each item: looked up, or made of its number where none are given."""
    if hashes is not None:
        found: Hashes = hashes[items]
        return found
    start = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    return mix(items.astype(np.uint64) ^ start)


def send_baskets(plan: Plan, hashes: Broadcast[Hashes | None], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of one task to messages: its totals and facts, then the baskets for each block."""
    keys, items, times = _columns(batches, plan.timing.needed)
    grouped, basket_keys = group_rows(keys, items, times, occurrences=plan.timing.window is not None)
    sizes = np.bincount(distinct_entries(grouped)[0], minlength=len(basket_keys))
    entry_hashes = item_hashes(grouped.items, plan.seed, hashes.value)
    baskets, was_cut, items_cut = cut_baskets(grouped, basket_keys, plan.max_basket_items, entry_hashes)
    held, counts = np.unique(distinct_entries(baskets)[1], return_counts=True)
    facts = {
        "num_baskets": len(basket_keys),
        "capped_baskets": int(was_cut.sum()),
        "items_cut": items_cut,
        "basket_sizes": size_histogram(sizes),
    }
    yield _message(plan, TOTALS, from_sizes(counts, held.astype(np.int32)), json.dumps(facts))
    block_of = baskets.items % plan.num_blocks
    for block in range(plan.num_blocks):
        for part in _chunks(touching(baskets, block_of, block)):
            yield _message(plan, block, part)


def _columns(batches: Iterable[pa.RecordBatch], timed: bool) -> tuple[Ints, NDArray[np.int32], Ints | None]:
    kept = list(batches)

    def column(number: int, kind: type[np.generic]) -> NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype=kind), *[b.column(number).to_numpy(zero_copy_only=False) for b in kept]])

    return column(0, np.int64), column(1, np.int32), column(2, np.int64) if timed else None


def size_histogram(sizes: Ints) -> dict[str, int]:
    """Baskets by number of distinct items, in bins that double: 1, 2, 3-4, 5-8 ..."""
    bins, counts = np.unique(np.ceil(np.log2(np.maximum(sizes, 1))).astype(int), return_counts=True)
    names = [str(2**b) if b < 2 else f"{2 ** (b - 1) + 1}-{2**b}" for b in bins.tolist()]
    return dict(zip(names, counts.tolist(), strict=True))


def _message(plan: Plan, block: int, baskets: Baskets, facts: str | None = None) -> pa.RecordBatch:
    slot = plan.slots[block] if block != TOTALS else 0
    times = b"" if baskets.times is None else baskets.times.tobytes()
    row = [slot, block, baskets.sizes.astype(np.int32).tobytes(), baskets.items.tobytes(), times, facts]
    return pa.RecordBatch.from_arrays(
        [pa.array([value], field.type) for value, field in zip(row, _MESSAGE_SCHEMA, strict=True)], schema=_MESSAGE_SCHEMA
    )


def _chunks(baskets: Baskets) -> Iterator[Baskets]:
    """Parts of whole baskets that fit into one message each."""
    first = 0
    while first < len(baskets.starts) - 1:
        limit = baskets.starts[first] + _MAX_MESSAGE_ENTRIES
        last = max(first + 1, int(np.searchsorted(baskets.starts, limit, side="right")) - 1)
        span = slice(baskets.starts[first], baskets.starts[last])
        times = None if baskets.times is None else baskets.times[span]
        yield from_sizes(baskets.sizes[first:last], baskets.items[span], times)
        first = last


def gather_totals(messages: Sequence[Any]) -> tuple[ItemTotals, dict[str, Any]]:
    """Totals of all items and the summed facts, out of the totals rows of all tasks."""
    held = [(np.frombuffer(m["items"], np.int32), np.frombuffer(m["sizes"], np.int32)) for m in messages]
    num_items = 1 + max((int(items.max()) for items, _ in held if len(items)), default=-1)
    baskets = np.zeros(num_items, dtype=np.int64)
    for items, counts in held:
        baskets[items] += counts
    facts, sizes = Counter[str](), Counter[str]()
    for found in (json.loads(m["facts"]) for m in messages):
        sizes.update(found.pop("basket_sizes"))
        facts.update(found)
    ordered = dict(sorted(sizes.items(), key=lambda entry: int(entry[0].split("-")[0])))
    summed = {name: facts[name] for name in ("num_baskets", "capped_baskets", "items_cut")}
    totals = ItemTotals(baskets, summed["num_baskets"])
    return totals, {**summed, "num_items": int((baskets > 0).sum()), "basket_sizes": ordered}


def _baskets(batch: pa.RecordBatch, row: int, timed: bool) -> Baskets:
    def read(name: str, kind: type[np.generic]) -> NDArray[Any]:
        return np.frombuffer(batch[name][row].as_buffer(), kind)  # a view: nothing is copied

    return from_sizes(read("sizes", np.int32), read("items", np.int32), read("times", np.int64) if timed else None)


def count_blocks(
    plan: Plan, totals: Broadcast[ItemTotals], hashes: Broadcast[Hashes | None], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Messages of one or more whole blocks to co-occurrence rows."""
    parts: dict[int, list[Baskets]] = defaultdict(list)
    for batch in batches:
        for row in range(batch.num_rows):
            parts[batch["block"][row].as_py()].append(_baskets(batch, row, plan.timing.needed))
    num_items = len(totals.value.baskets)
    for block in sorted(parts):
        baskets = join_baskets(parts.pop(block))
        for pairs in pair_counts(baskets, num_items, block, plan.num_blocks, plan.min_support, plan.timing):
            yield score(pairs, totals.value, plan, hashes.value)


def score(pairs: PairCounts, totals: ItemTotals, plan: Plan, hashes: Hashes | None) -> pa.RecordBatch:
    """Rows of the table for the best pairs of each item a; measures not asked for are null."""
    held_a, held_b = totals.baskets[pairs.item_a], totals.baskets[pairs.item_b]
    ranking = MEASURES[plan.rank_by](pairs.both, held_a, held_b, totals.total)
    kept, ranks = best(pairs.item_a, ranking, item_hashes(pairs.item_b, plan.seed, hashes), plan.top_n)
    pairs, held_a, held_b = pairs.take(kept), held_a[kept], held_b[kept]
    empty = pa.nulls(len(kept), pa.float64())
    columns = {
        "item_a": pa.array(pairs.item_a),
        "item_b": pa.array(pairs.item_b),
        "num_baskets": pa.array(pairs.both),
        "num_baskets_a": pa.array(held_a),
        "num_baskets_b": pa.array(held_b),
        "num_baskets_total": pa.array(np.full(len(kept), totals.total, dtype=np.int64)),
        "decayed_count": empty if pairs.decayed is None else pa.array(pairs.decayed),
        **dict.fromkeys(MEASURES, empty),
        **{name: pa.array(MEASURES[name](pairs.both, held_a, held_b, totals.total)) for name in plan.measures},
        "rank_a": pa.array(ranks.astype(np.int32)),
    }
    return pa.RecordBatch.from_pydict(columns)
