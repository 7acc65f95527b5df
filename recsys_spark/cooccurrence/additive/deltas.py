"""The additive state in plain NumPy: what changed baskets take away and add, how it is stored, and sums of what is stored.

A basket's contribution is a function of its rows alone. So the state after a change is the state before it, less what
the touched baskets contributed, plus what they contribute now; nothing else has to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast
from scipy.sparse import csr_matrix

from recsys_spark.cooccurrence.grouping import Baskets, Ints, join_baskets
from recsys_spark.cooccurrence.kernels import pair_counts
from recsys_spark.cooccurrence.messages import ItemCounts, read_columns, read_counts, totals_message
from recsys_spark.cooccurrence.occurrences import PairCounts
from recsys_spark.cooccurrence.plan import Hashes, ItemTotals, Plan
from recsys_spark.cooccurrence.rows import Rows
from recsys_spark.cooccurrence.score import Scorer
from recsys_spark.cooccurrence.tasks import baskets_of, by_block, item_counts, to_blocks
from recsys_spark.ranges import changes, sums_of_runs

ANCHORS, TARGETS = -1, -2  # as item_a: the row holds, for each of item_b, the baskets that have it as an anchor (a target)
SCHEMA = "item_a int, item_b array<int>, num_baskets array<bigint>, decayed_count array<double>"
_ITEMS_PER_ROW = 1_000_000  # of a row of totals
Pairs = Callable[[Iterable[pa.RecordBatch]], Iterator[PairCounts]]  # what a task is given to the pairs of whole anchors


def send_changes(plan: Plan, hashes: Broadcast[Hashes | None], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of touched baskets to messages, as ``tasks.send_baskets``; ``new`` says whether a row counts now, ``old`` how
    often it has been counted (in sum over equal rows: an event that has gone stands once more, with -1)."""
    columns = read_columns(batches)
    new = columns.pop("new", np.ones(len(columns["keys"]), dtype=np.int32))
    old = columns.pop("old", np.zeros(len(columns["keys"]), dtype=np.int32))
    rows = Rows(**columns)
    after, facts = baskets_of(plan, hashes.value, rows.take(new > 0))
    before, taken_back = baskets_of(plan, hashes.value, _counted(rows, old))
    signed = join_baskets([_signed(before, -1), _signed(after, 1)])
    yield totals_message(item_counts(signed), difference(facts, taken_back))
    yield from to_blocks(plan, signed)


def _counted(rows: Rows, times: NDArray[np.int32]) -> Rows:
    """The rows that remain of equal rows counted so many times."""
    if not (times < 0).any():
        return rows.take(times > 0)
    columns = list(rows.columns().values())
    order = np.lexsort(columns)
    starts = np.flatnonzero(changes(*[column[order] for column in columns]))
    return rows.take(order[starts][sums_of_runs(times[order].astype(np.int64), starts) > 0])


def _signed(baskets: Baskets, sign: int) -> Baskets:
    """Only what counts need, and the sign."""
    signs = np.full(len(baskets.starts) - 1, sign, dtype=np.int8)
    return Baskets(baskets.starts, baskets.items, baskets.times, sides=baskets.sides, signs=signs)


def difference(facts: dict[str, Any], less: dict[str, Any], sign: int = -1) -> dict[str, Any]:
    """Facts of ``tasks.baskets_of`` less others (or plus, with sign 1); bins of sizes that come to 0 are left out."""
    sizes = {**facts["basket_sizes"]}
    for name, number in less["basket_sizes"].items():
        sizes[name] = sizes.get(name, 0) + sign * number
    kept = {name: sizes[name] for name in sorted(sizes, key=lambda name: int(name.split("-")[0])) if sizes[name]}
    return {name: facts[name] + sign * less[name] for name in facts if name != "basket_sizes"} | {"basket_sizes": kept}


def count_changes(plan: Plan, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Messages of whole blocks to rows of the state, one per anchor and slice, ``SCHEMA``."""
    for block, parts in by_block(batches):
        num_items = 1 + max(int(part.items.max(initial=-1)) for part in parts)
        for pairs in pair_counts(parts, num_items, block, plan.num_blocks, 1, plan.timing):
            yield state_batch(pairs)


def count_totals(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Messages with totals to rows of the state: item_a is ANCHORS or TARGETS, item_b the items."""
    for batch in batches:
        for row in batch.to_pylist():
            counts = read_counts(row)
            yield from _totals_batches(counts)


def _totals_batches(counts: ItemCounts) -> Iterator[pa.RecordBatch]:
    for kind, numbers in ((ANCHORS, counts.anchors), (TARGETS, counts.targets)):
        changed = np.flatnonzero(numbers)
        for first in range(0, len(changed), _ITEMS_PER_ROW):
            part = changed[first : first + _ITEMS_PER_ROW]
            same = np.full(len(part), kind, dtype=np.int32)
            yield state_batch(PairCounts(same, counts.items[part], numbers[part]))


def state_batch(pairs: PairCounts) -> pa.RecordBatch:
    """One row per run of equal anchors, its pairs as lists."""
    starts = np.flatnonzero(changes(pairs.item_a))
    offsets = pa.array(np.append(starts, len(pairs.item_a)), pa.int32())
    lists = pa.nulls(len(starts), pa.list_(pa.float64()))
    if pairs.decayed is not None:
        lists = pa.ListArray.from_arrays(offsets, pa.array(pairs.decayed))
    columns = {
        "item_a": pa.array(pairs.item_a[starts]),
        "item_b": pa.ListArray.from_arrays(offsets, pa.array(pairs.item_b)),
        "num_baskets": pa.ListArray.from_arrays(offsets, pa.array(pairs.both)),
        "decayed_count": lists,
    }
    return pa.RecordBatch.from_pydict(columns)


def summed(batches: Iterable[pa.RecordBatch]) -> PairCounts:
    """All pairs in rows of the state (all rows of each anchor), each once, ascending; those that come to no basket are gone."""
    parts = [_pairs_of(batch) for batch in batches]
    item_a = np.concatenate([np.zeros(0, dtype=np.int32), *[p.item_a for p in parts]])
    item_b = np.concatenate([np.zeros(0, dtype=np.int32), *[p.item_b for p in parts]])
    both = np.concatenate([np.zeros(0, dtype=np.int64), *[p.both for p in parts]])
    decayed = [p.decayed for p in parts if p.decayed is not None]
    shares = np.concatenate(decayed) if decayed else None
    keys = item_a.astype(np.int64) << 32 | item_b
    # by size among equal pairs, so that a sum of floats does not depend on the order in which rows arrive
    order = np.argsort(keys, kind="stable") if shares is None else np.lexsort((shares, keys))
    keys = keys[order]
    starts = np.flatnonzero(changes(keys))
    total = sums_of_runs(both[order], starts)
    share = None if shares is None else sums_of_runs(shares[order], starts)
    pairs = PairCounts((keys[starts] >> 32).astype(np.int32), (keys[starts] & 0xFFFFFFFF).astype(np.int32), total, share)
    return pairs.take(total != 0)


def _pairs_of(batch: pa.RecordBatch) -> PairCounts:
    lists = batch.column("item_b")
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    shares = batch.column("decayed_count")
    return PairCounts(
        np.repeat(batch.column("item_a").to_numpy(), lengths),
        lists.flatten().to_numpy(),
        batch.column("num_baskets").flatten().to_numpy(),
        None if shares.null_count == len(shares) else shares.flatten().to_numpy(),
    )


def added_up(main: pa.RecordBatch, others: pa.RecordBatch) -> PairCounts:
    """What ``summed`` gives of both, in any order within an anchor; most pairs are in ``main``, of distinct ascending anchors,
    which those of ``others`` are among. Only these are sorted."""
    anchors = main.column("item_a").to_numpy()
    if (np.diff(anchors) <= 0).any():
        return summed([main, others])
    most, few = _pairs_of(main), _pairs_of(others)
    if not len(few.both):
        return most.take(most.both != 0)
    rows = np.searchsorted(anchors, few.item_a)
    order = np.lexsort((few.both if few.decayed is None else few.decayed, few.item_b, rows))
    shape = len(anchors), 1 + max(int(pairs.item_b.max(initial=-1)) for pairs in (most, few))
    of_most = main.column("item_b").value_lengths().to_numpy(zero_copy_only=False)
    first, second = (
        csr_matrix((_values(pairs), pairs.item_b, np.append(0, np.cumsum(lengths, dtype=np.int64))), shape=shape)
        for pairs, lengths in ((most, of_most), (few.take(order), np.bincount(rows, minlength=len(anchors))))
    )
    found = first + second
    both, decayed = (found.data, None) if most.decayed is None else (found.data.real.astype(np.int64), found.data.imag)
    pairs = PairCounts(np.repeat(anchors, np.diff(found.indptr)), found.indices, both, decayed)
    return pairs if decayed is None else pairs.take(both != 0)  # SciPy has left out what is 0 altogether


def _values(pairs: PairCounts) -> NDArray[Any]:
    """What is added up of each pair: a number, or two as one complex one (counts of baskets are exact as doubles)."""
    return pairs.both if pairs.decayed is None else pairs.both + 1j * pairs.decayed


def pairs_of_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[PairCounts]:
    """Rows of the state, all of each anchor."""
    yield summed(batches)


def fold_pairs(pairs_of: Pairs, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The state with one row per anchor."""
    for pairs in pairs_of(batches):
        yield state_batch(pairs)


def score_pairs(
    plan: Plan,
    totals: Broadcast[ItemTotals],
    hashes: Broadcast[Hashes | None],
    scale: float,
    pairs_of: Pairs,
    batches: Iterable[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """The state's pairs to rows of table cooccurrence; decayed counts are multiplied by ``scale``."""
    scorer = Scorer(plan, totals.value, hashes.value)
    for pairs in pairs_of(batches):
        pairs = pairs.take(pairs.both >= plan.min_support)
        if pairs.decayed is not None:
            pairs = PairCounts(pairs.item_a, pairs.item_b, pairs.both, pairs.decayed * scale)
        yield scorer.rows(pairs, None)


def gather_state_totals(batches: Iterable[pa.RecordBatch], num_baskets: int) -> ItemTotals:
    """Totals out of the rows of the state with item_a ANCHORS and TARGETS; ``num_baskets`` of all."""
    pairs = summed(batches)
    num_items = int(pairs.item_b.max(initial=-1)) + 1
    found: dict[int, Ints] = {}
    for kind in (ANCHORS, TARGETS):
        mine = pairs.item_a == kind
        found[kind] = np.zeros(num_items, dtype=np.int64)
        found[kind][pairs.item_b[mine]] = pairs.both[mine]
    return ItemTotals(found[ANCHORS], found[TARGETS], num_baskets, np.zeros(num_items), {})
