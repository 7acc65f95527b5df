"""The work of Spark's tasks: rows to messages, messages to lengths of vectors, messages to scored and cut rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pyspark import Broadcast

from recsys_spark.cooccurrence.blocks import touching, whole_baskets
from recsys_spark.cooccurrence.grouping import (
    ANCHOR,
    TARGET,
    Baskets,
    Ints,
    Sides,
    cut_baskets,
    cut_occurrences,
    distinct,
    group_rows,
)
from recsys_spark.cooccurrence.kernels import pair_counts
from recsys_spark.cooccurrence.messages import (
    WHOLE,
    ItemCounts,
    basket_messages,
    read_baskets,
    read_columns,
    squares_message,
    totals_message,
)
from recsys_spark.cooccurrence.plan import Hashes, ItemTotals, Plan, item_hashes
from recsys_spark.cooccurrence.rows import Rows
from recsys_spark.cooccurrence.score import Scorer, WholeBaskets
from recsys_spark.cooccurrence.weighting import Corpus, squares


def send_baskets(plan: Plan, hashes: Broadcast[Hashes | None], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of one task to messages: its totals and facts, then the baskets for each block."""
    baskets, facts = baskets_of(plan, hashes.value, Rows(**read_columns(batches)))
    yield totals_message(item_counts(baskets), facts)
    if not (plan.whole_baskets or plan.counts_users):
        baskets = Baskets(baskets.starts, baskets.items, baskets.times, sides=baskets.sides)  # send what is needed only
    if plan.shared:
        counted = baskets.pick(baskets.sizes >= plan.min_entries)
        yield from basket_messages(0, WHOLE, counted, plan.num_blocks if plan.deals_anchors else None)
    else:
        yield from to_blocks(plan, baskets)


def baskets_of(plan: Plan, hashes: Hashes | None, rows: Rows) -> tuple[Baskets, dict[str, Any]]:
    """Rows (all of each basket) to baskets within their caps, and the facts about them, which add up over tasks."""
    grouped = group_rows(rows, plan.timing.occurrences)
    sizes = distinct(grouped).sizes
    grouped, occurrences_cut = cut_occurrences(grouped, plan.settings.max_occurrences)
    cap = plan.settings.max_basket_items
    baskets, was_cut, items_cut = cut_baskets(grouped, cap, partial(item_hashes, seed=plan.seed, hashes=hashes))
    return baskets, {
        "num_baskets": len(sizes),
        "capped_baskets": int(was_cut.sum()),
        "items_cut": items_cut,
        "occurrences_cut": occurrences_cut,
        "basket_sizes": size_histogram(sizes),
    }


def to_blocks(plan: Plan, baskets: Baskets) -> Iterator[pa.RecordBatch]:
    """Messages with the baskets that each block of items needs."""
    for block in range(plan.num_blocks):
        yield from basket_messages(plan.slots[block], block, touching(baskets, block, plan.num_blocks, plan.min_entries))


def item_counts(baskets: Baskets) -> ItemCounts:
    """Items in any basket, in how many (net, where there are signs) as an anchor and as a target, and their summed weight."""
    whole = distinct(baskets)
    met = np.bincount(whole.items)
    items = np.flatnonzero(met).astype(np.int32)
    if baskets.sides is None:
        anchors = targets = met if whole.signs is None else _num_baskets(whole, len(met))
    else:
        anchors, targets = (_num_baskets(_able(baskets, baskets.sides, side), len(met)) for side in (ANCHOR, TARGET))
    weights = None if whole.weights is None else np.bincount(whole.items, weights=whole.weights).astype(np.float64)[items]
    of_items = anchors[items]
    return ItemCounts(items, of_items, of_items if targets is anchors else targets[items], weights)


def _able(baskets: Baskets, sides: Sides, side: int) -> Baskets:
    """With one entry for each item that may take the side."""
    return distinct(baskets.keep((sides & side) > 0))


def _num_baskets(whole: Baskets, num_items: int) -> Ints:
    """Of each item [N]."""
    signs = None if whole.signs is None else np.repeat(whole.signs, whole.sizes)
    return np.bincount(whole.items, weights=signs, minlength=num_items).astype(np.int64)


def size_histogram(sizes: Ints) -> dict[str, int]:
    """Baskets by number of distinct items, in bins that double: 1, 2, 3-4, 5-8 ..."""
    bins, counts = np.unique(np.ceil(np.log2(np.maximum(sizes, 1))).astype(int), return_counts=True)
    names = [str(2**b) if b < 2 else f"{2 ** (b - 1) + 1}-{2**b}" for b in bins.tolist()]
    return dict(zip(names, counts.tolist(), strict=True))


def all_baskets(batches: Iterable[pa.RecordBatch]) -> list[Baskets]:
    """Those of all messages."""
    return [read_baskets(batch, row) for batch in batches for row in range(batch.num_rows)]


def by_block(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, list[Baskets]]]:
    """The baskets of each block that this task was sent, in the parts that they were sent in."""
    parts: dict[int, list[Baskets]] = defaultdict(list)
    for batch in batches:
        for row in range(batch.num_rows):
            parts[batch["block"][row].as_py()].append(read_baskets(batch, row))
    for block in sorted(parts):
        yield block, parts.pop(block)


class Shared(Protocol):
    """All baskets, in parts."""

    @property
    def value(self) -> list[Baskets]: ...


def _blocks(shared: Shared | None, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, list[Baskets]]]:
    """This task's blocks and the baskets of each: sent to it, or those that all tasks share (``batches`` then only name the
    blocks), of which some do not touch the block."""
    if shared is None:
        yield from by_block(batches)
        return
    parts = shared.value
    for batch in batches:
        for block in batch.column("block").to_pylist():
            yield block, parts


def corpus_of(plan: Plan, totals: ItemTotals) -> Corpus:
    """What the weights of vectors depend on."""
    return Corpus(totals.num_items, totals.weights, plan.settings.bm25_k1, plan.settings.bm25_b)


def sum_squares(
    plan: Plan, totals: Broadcast[ItemTotals], shared: Shared | None, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Messages of whole blocks to the squared lengths of their items' vectors."""
    for block, parts in _blocks(shared, batches):
        whole, corpus = whole_baskets(parts, block, plan.num_blocks, plan.min_entries), corpus_of(plan, totals.value)
        if not len(whole.items):
            continue
        own = np.arange(block, len(totals.value.baskets), plan.num_blocks, dtype=np.int32)
        yield from squares_message(own, {name: squares(whole, corpus, name)[own] for name in plan.weightings})


def count_blocks(
    plan: Plan,
    totals: Broadcast[ItemTotals],
    hashes: Broadcast[Hashes | None],
    shared: Shared | None,
    batches: Iterable[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Messages of one or more whole blocks to co-occurrence rows."""
    num_items, users = len(totals.value.baskets), plan.settings.min_users if plan.counts_users else 1
    scorer = Scorer(plan, totals.value, hashes.value)
    for block, parts in _blocks(shared, batches):
        whole = WholeBaskets(plan, totals.value, hashes.value, corpus_of(plan, totals.value), parts, block)
        for pairs in pair_counts(parts, num_items, block, plan.num_blocks, plan.min_support, plan.timing, users):
            yield scorer.rows(pairs, whole)
