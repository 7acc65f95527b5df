"""What tasks send each other: baskets for a block of items and a task's totals, as one binary row each.

A binary array costs nothing per entry on its way through Spark, and is read as a view.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.cooccurrence.blocks import deal_anchors
from recsys_spark.cooccurrence.grouping import Baskets, Dealt, Floats, Ints, Items, from_sizes, mix
from recsys_spark.cooccurrence.plan import ItemTotals

TOTALS = -1  # the "block" of the rows that carry a task's item totals and facts
WHOLE = -2  # of the rows that carry baskets for all blocks
MAX_ROWS = 1 << 20  # of a task that are dealt at once: larger ones leave the cache and gain nothing
MAX_ENTRIES = 16_000_000  # of a message: 192 MB with times; a Spark row must stay below 2 GB
_OF_ENTRIES: dict[str, type[np.generic]] = {"items": np.int32, "times": np.int64, "weights": np.float64, "sides": np.int8}
_OF_BASKETS: dict[str, type[np.generic]] = {
    **{"sizes": np.int32, "starts": np.int32},  # one of them
    **{"keys": np.int64, "owners": np.int64, "signs": np.int8},
}
_OF_ITEMS: dict[str, type[np.generic]] = {"anchors": np.int64, "targets": np.int64}
_OF_CHANGES: dict[str, type[np.generic]] = {"new": np.int32, "old": np.int32}
_OF_BLOCKS: dict[str, type[np.generic]] = {"ends": np.int32, "firsts": np.int32, "rows": np.int32, "steps": np.int32}
_NARROW = {"keys", "rows", "steps", "anchors", "targets"}  # may be in fewer bytes than above, as column ``kinds`` says
_COLUMNS = {**_OF_ENTRIES, **_OF_BASKETS, **_OF_ITEMS, **_OF_CHANGES, **_OF_BLOCKS}
_TOTALS = ("items", "anchors", "targets", "weights")
SCHEMA = "slot int, block int, " + ", ".join(f"{name} binary" for name in _COLUMNS) + ", kinds string, facts string"
ARROW = pa.schema(
    [
        *[("slot", pa.int32()), ("block", pa.int32())],
        *[(name, pa.binary()) for name in _COLUMNS],
        *[("kinds", pa.string()), ("facts", pa.string())],
    ]
)


@dataclass(frozen=True)
class ItemCounts:
    """A task's part of the totals: of each of ``items`` the baskets that hold it as an anchor and as a target, and its
    summed weight (None where no measure needs it)."""

    items: Items
    anchors: Ints
    targets: Ints
    weights: Floats | None = None


def deal_rows(slots: Sequence[int], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of a task to binary messages, each with the rows of one slot: all rows of a basket go to the same."""
    held: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in batches:
        held.append(batch)
        num_rows += batch.num_rows
        if num_rows >= MAX_ROWS:
            yield from _dealt(slots, held)
            held, num_rows = [], 0
    if held:
        yield from _dealt(slots, held)


def _dealt(slots: Sequence[int], batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    names = batches[0].schema.names
    columns = {name: _column(batches, number) for number, name in enumerate(names)}
    place = (mix(columns["keys"].astype(np.uint64)) % np.uint64(len(slots))).astype(np.int16 if len(slots) < 32_768 else np.int32)
    columns["keys"] = _in_32_bits(columns["keys"])
    order = np.argsort(place, kind="stable")  # of 16-bit numbers: a radix sort
    bounds = np.searchsorted(place[order], np.arange(len(slots) + 1))
    columns = {name: column[order] for name, column in columns.items()}
    for number, slot in enumerate(slots):
        part = slice(bounds[number], bounds[number + 1])
        if part.stop > part.start:
            yield _message(slot, number, {name: column[part] for name, column in columns.items()})


def _in_32_bits(values: Ints) -> Ints | Items:
    """The same numbers, in half the bytes where they fit."""
    least, most = values.min(initial=0), values.max(initial=0)
    return values.astype(np.int32) if np.iinfo(np.int32).min <= least and most <= np.iinfo(np.int32).max else values


def _column(batches: list[pa.RecordBatch], number: int) -> NDArray[Any]:
    return np.concatenate([batch.column(number).to_numpy(zero_copy_only=False) for batch in batches])


def read_columns(batches: Iterable[pa.RecordBatch]) -> dict[str, NDArray[Any]]:
    """All rows that were dealt to a task, by the names of ``grouping.Rows`` (and ``new``, ``old``, see ``deltas``); no rows:
    empty columns."""
    held = [_arrays(batch, row) for batch in batches for row in range(batch.num_rows)]
    if not held:
        return {"keys": np.zeros(0, dtype=np.int64), "items": np.zeros(0, dtype=np.int32)}
    return {name: np.concatenate([part[name] for part in held], dtype=_COLUMNS[name]) for name in held[0]}


def _arrays(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    """One message, without a copy."""
    kinds = {**_COLUMNS, **json.loads(batch["kinds"][row].as_py() or "{}")}
    columns = {name: batch.column(name) for name in kinds}
    return {name: _view(columns[name], row, np.dtype(kind)) for name, kind in kinds.items() if columns[name][row].is_valid}


def _view(column: Any, row: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """One binary value; Arrow's scalars are copies. Where others of their row have odd sizes, it may have to be one too."""
    _, ends, data = column.buffers()
    first, last = np.frombuffer(ends, np.int32, 2, 4 * (column.offset + row)).tolist()
    if first == last:
        return np.zeros(0, kind)
    found = np.frombuffer(data, kind, (last - first) // kind.itemsize, first)
    return found if found.flags.aligned else found.copy()


def basket_messages(slot: int, block: int, baskets: Baskets, deal_to: int | None = None) -> Iterator[pa.RecordBatch]:
    """The baskets for a block, in as many messages as their size demands.

    Args:
        deal_to: blocks that they are for all together: their anchors are dealt to these, and where baskets begin is sent rather
            than their sizes, so that none of the tasks that share them has to make it.
    """
    first = 0
    while first < len(baskets.starts) - 1:
        limit = baskets.starts[first] + MAX_ENTRIES
        last = max(first + 1, int(np.searchsorted(baskets.starts, limit, side="right")) - 1)
        part = baskets.span(first, last)
        where = {"sizes": part.sizes} if deal_to is None else {"starts": part.starts, **vars(deal_anchors(part, deal_to))}
        yield _message(slot, block, {"items": part.items, **part.of_entries(), **part.of_baskets(), **where})
        first = last


def read_baskets(batch: pa.RecordBatch, row: int) -> Baskets:
    """One message, without a copy."""
    columns = _arrays(batch, row)
    if "sizes" in columns:
        return from_sizes(columns.pop("sizes"), columns.pop("items"), **columns)
    return Baskets(dealt=Dealt(*[columns.pop(name) for name in _OF_BLOCKS]), **columns)


def num_entries(message: pa.RecordBatch) -> int:
    """How many items a message holds."""
    return len(_view(message.column("items"), 0, np.dtype(np.int32))) if message["items"][0].is_valid else 0


def totals_message(counts: ItemCounts, facts: dict[str, Any]) -> pa.RecordBatch:
    """A task's totals and facts. Every task has most of the items, so few bytes are spent on each: targets that are the same as
    anchors are not sent."""
    columns: dict[str, NDArray[Any]] = {"items": counts.items, "anchors": _in_32_bits(counts.anchors)}
    if counts.targets is not counts.anchors:
        columns["targets"] = _in_32_bits(counts.targets)
    if counts.weights is not None:
        columns["weights"] = counts.weights
    return _message(0, TOTALS, columns, json.dumps(facts))


def squares_message(items: Items, squares: dict[str, Floats]) -> list[pa.RecordBatch]:
    """Squared lengths of the items of a block, one message per measure."""
    return [_message(0, TOTALS, {"items": items, "weights": values}, name) for name, values in squares.items()]


def _message(slot: int, block: int, columns: dict[str, NDArray[Any]], facts: str | None = None) -> pa.RecordBatch:
    kinds = {name: columns[name].dtype.name for name in sorted(_NARROW & columns.keys())}
    values = {"slot": slot, "block": block, "facts": facts, "kinds": json.dumps(kinds) if kinds else None}
    sent = {n: _binary(columns[n].astype(kinds.get(n, kind), copy=False)) for n, kind in _COLUMNS.items() if n in columns}
    arrays = [sent.get(field.name, pa.array([values.get(field.name)], field.type)) for field in ARROW]
    return pa.RecordBatch.from_arrays(arrays, schema=ARROW)


def _binary(values: NDArray[Any]) -> Any:
    """The bytes of an array as Arrow's one binary value, without a copy."""
    ends = pa.py_buffer(np.array([0, values.nbytes], np.int32))
    return pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(np.ascontiguousarray(values))])


def gather_totals(messages: Sequence[Any]) -> tuple[ItemTotals, dict[str, Any]]:
    """Totals of all items and the summed facts, out of the totals rows of all tasks."""
    held = [read_counts(message) for message in messages]
    num_items = 1 + max((int(part.items.max()) for part in held if len(part.items)), default=-1)
    anchors = _summed(num_items, [(part.items, part.anchors) for part in held])
    same = all(part.targets is part.anchors for part in held)
    targets = anchors if same else _summed(num_items, [(part.items, part.targets) for part in held])
    facts = gather_facts([message["facts"] for message in messages])
    totals = ItemTotals(anchors, targets, facts["num_baskets"], _exact_sums(held, num_items), {})
    return totals, facts | {"num_items": totals.num_items}


def _summed(num_items: int, parts: list[tuple[Items, Ints]]) -> Ints:
    found = np.zeros(num_items, dtype=np.int64)
    for items, values in parts:
        found[items] += values  # a part has an item once
    return found


def gather_facts(messages: Sequence[str]) -> dict[str, Any]:
    """The facts of all tasks, summed."""
    facts, sizes = Counter[str](), Counter[str]()
    for found in map(json.loads, messages):
        sizes.update(found.pop("basket_sizes"))
        facts.update(found)
    ordered = dict(sorted(sizes.items(), key=lambda entry: int(entry[0].split("-")[0])))
    summed = {name: facts[name] for name in ("num_baskets", "capped_baskets", "items_cut", "occurrences_cut")}
    return {**summed, "basket_sizes": ordered}


def read_counts(message: Any) -> ItemCounts:
    """The totals in a totals message."""
    kinds = {**_COLUMNS, **json.loads(message["kinds"] or "{}")}
    found = {n: np.frombuffer(message[n], kinds[n]) for n in _TOTALS if message[n] is not None}
    columns: dict[str, Any] = {n: values.astype(_COLUMNS[n], copy=False) for n, values in found.items()}
    return ItemCounts(**{"targets": columns["anchors"], **columns})


def _exact_sums(held: Sequence[ItemCounts], num_items: int) -> Floats:
    """Summed weights in an order that tasks finishing early or late do not change; zeros where none were sent."""
    weighed = [(part.items, part.weights) for part in held if part.weights is not None]
    items = np.concatenate([np.zeros(0, dtype=np.int32), *[items for items, _ in weighed]])
    weights = np.concatenate([np.zeros(0), *[weights for _, weights in weighed]])
    order = np.lexsort((weights, items))
    return np.bincount(items[order], weights=weights[order], minlength=num_items).astype(np.float64)


def gather_squares(messages: Sequence[Any], num_items: int) -> dict[str, Floats]:
    """Measure -> squared length of each item's vector [N]; an item lies in one block only."""
    found: dict[str, Floats] = {}
    for message in messages:
        values = found.setdefault(message["facts"], np.zeros(num_items))
        values[np.frombuffer(message["items"], np.int32)] = np.frombuffer(message["weights"], np.float64)
    return found
