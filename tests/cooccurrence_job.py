"""The whole co-occurrence job without Spark: events dealt to two tasks by basket, three blocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence import messages, tasks
from recsys_spark.cooccurrence.plan import Plan, plan_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REFERENCE = EPOCH + timedelta(days=60)
DAY = 86_400_000_000
_KINDS = {"keys": np.int64, "items": np.int32, "times": np.int64, "weights": np.float64, "sides": np.int8, "owners": np.int64}


class Event(NamedTuple):
    """One row of the job; ``day`` counts from the epoch."""

    basket: int
    item: int
    day: float = 0
    weight: float = 1.0
    side: int = 3
    owner: int = 0


class Job(NamedTuple):
    """What came out: rows by (a, b), facts, and the number of messages with baskets."""

    rows: dict[tuple[int, int], dict[str, Any]]
    facts: dict[str, Any]
    num_messages: int


def count_without_spark(
    events: list[Event],
    settings: CooccurrenceSettings,
    slots: tuple[int, ...] = (5, 8, 9),
    reference: datetime = REFERENCE,
) -> Job:
    plan = plan_of(settings, reference, 0, slots, "blocked" if settings.way == "auto" else settings.way)
    nothing: Any = SimpleNamespace(value=None)
    sent: list[pa.RecordBatch] = []
    for part in dealt([batch_of(some, plan, settings) for some in (events[::2], events[1::2]) if some], plan):
        sent += tasks.send_baskets(plan, nothing, part)
    plain = [row for batch in sent for row in batch.to_pylist()]
    assert {r["slot"] for r in plain if r["block"] >= 0} <= set(slots)
    totals, facts = messages.gather_totals([r for r in plain if r["block"] == messages.TOTALS])
    blocks, baskets = _blocks(sent, plan)
    if plan.weightings:
        lengths = tasks.sum_squares(plan, _shared(totals), baskets, blocks)
        squares = [r for b in lengths for r in b.to_pylist()]
        none = dict.fromkeys(plan.weightings, totals.weights * 0.0)
        totals = replace(totals, squares=none | messages.gather_squares(squares, len(totals.baskets)))
    found = [r for b in tasks.count_blocks(plan, _shared(totals), nothing, baskets, blocks) for r in b.to_pylist()]
    assert len({(r["item_a"], r["item_b"]) for r in found}) == len(found)
    return Job({(r["item_a"], r["item_b"]): r for r in found}, facts, len(blocks))


def _blocks(sent: list[pa.RecordBatch], plan: Plan) -> tuple[list[pa.RecordBatch], Any]:
    """What the tasks of blocks are handed: messages, or the names of the blocks and all baskets."""
    baskets = [b for b in sent if b["block"][0].as_py() != messages.TOTALS]
    if not plan.shared:
        return baskets, None
    named = [pa.RecordBatch.from_pydict({"block": pa.array([block], pa.int32())}) for block in range(plan.num_blocks)]
    return named, _shared(tasks.all_baskets(baskets))


def _shared(value: Any) -> Any:
    return SimpleNamespace(value=value)


def dealt(batches: list[pa.RecordBatch], plan: Plan) -> list[list[pa.RecordBatch]]:
    """The rows of each task of baskets, dealt by two tasks that read the log; one task has nothing."""
    sent = [message for batch in batches for message in messages.deal_rows(plan.slots, [batch])]
    slots = [s for s in plan.slots if any(m["slot"][0].as_py() == s for m in sent)]
    return [*([m for m in sent if m["slot"][0].as_py() == slot] for slot in slots), []]


def batch_of(events: list[Event], plan: Any, settings: CooccurrenceSettings) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {"keys": [e.basket for e in events], "items": [e.item for e in events]}
    if plan.timing.needed:
        columns["times"] = [round(e.day * DAY) for e in events]
    if plan.whole_baskets:
        columns["weights"] = [e.weight for e in events]
    if settings.crosses:
        columns["sides"] = [e.side for e in events]
    if plan.counts_users:
        columns["owners"] = [e.owner for e in events]
    return pa.RecordBatch.from_pydict({name: pa.array(np.array(values, dtype=_KINDS[name])) for name, values in columns.items()})
