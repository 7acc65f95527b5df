"""The additive state: what is there, less what touched baskets gave, plus what they give, is what a count of everything gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence import messages
from recsys_spark.cooccurrence.additive import deltas
from recsys_spark.cooccurrence.plan import plan_of
from tests.cooccurrence_job import REFERENCE, Event, batch_of, count_without_spark, dealt

SLOTS = (5, 8, 9)
NOTHING: Any = SimpleNamespace(value=None)
KEPT, ADDED, REMOVED, LATE = "kept", "added", "removed", "late"  # late: it lies before what the state has seen

Log = list[tuple[Event, str]]


class State(NamedTuple):
    batches: list[pa.RecordBatch]
    facts: dict[str, Any]


def contributions(rows: list[tuple[Event, int, int]], settings: CooccurrenceSettings) -> State:
    """What rows (event, old, new) add to a state."""
    plan = plan_of(settings, REFERENCE, 0, SLOTS)
    batch = batch_of([e for e, _, _ in rows], plan, settings)
    flags = {name: pa.array([row[place] for row in rows], pa.int32()) for name, place in (("old", 1), ("new", 2))}
    columns = dict(zip(batch.schema.names, batch.columns, strict=True)) | flags
    parts = dealt([pa.RecordBatch.from_pydict(columns)] if rows else [], plan)
    sent = [message for part in parts for message in deltas.send_changes(plan, NOTHING, part)]
    told = [b for b in sent if b["block"][0].as_py() == messages.TOTALS]
    blocks = [b for b in sent if b["block"][0].as_py() != messages.TOTALS]
    facts = messages.gather_facts([b["facts"][0].as_py() for b in told])
    return State([*deltas.count_changes(plan, blocks), *deltas.count_totals(told)], facts)


def of_events(events: list[Event], settings: CooccurrenceSettings) -> State:
    return contributions([(event, 0, 1) for event in events], settings)


def pairs_of(state: State) -> dict[tuple[int, int], tuple[int, float | None]]:
    """The sums of pairs, and of totals, whose rows have no decayed counts."""
    found: dict[tuple[int, int], tuple[int, float | None]] = {}
    for totals in (False, True):
        some = [b.filter(pc.equal(pc.less(b["item_a"], 0), totals)) for b in state.batches]
        pairs = deltas.summed(some)
        shares = [None] * len(pairs.both) if pairs.decayed is None else pairs.decayed.tolist()
        keys = zip(pairs.item_a.tolist(), pairs.item_b.tolist(), strict=True)
        found |= dict(zip(keys, zip(pairs.both.tolist(), shares, strict=True), strict=True))
    return found


def table_of(state: State, settings: CooccurrenceSettings) -> dict[tuple[int, int], dict[str, Any]]:
    """The derived table."""
    plan = plan_of(settings, REFERENCE, 0, SLOTS)
    totals_rows = [b.filter(pc.less(b["item_a"], 0)) for b in state.batches]
    pair_rows = [b.filter(pc.greater_equal(b["item_a"], 0)) for b in state.batches]
    totals: Any = SimpleNamespace(value=deltas.gather_state_totals(totals_rows, state.facts["num_baskets"]))
    rows = [r for b in deltas.score_pairs(plan, totals, NOTHING, 1.0, deltas.pairs_of_rows, pair_rows) for r in b.to_pylist()]
    return {(row["item_a"], row["item_b"]): row for row in rows}


def as_rows(event: Event, fate: str) -> list[tuple[Event, int, int]]:
    """The rows of a touched basket as the log and its changes give them."""
    return {
        KEPT: [(event, 1, 1)],
        ADDED: [(event, 0, 1)],
        REMOVED: [(event, 1, 0)],
        LATE: [(event, 1, 1), (event, -1, 0)],
    }[fate]


events_of_days = st.builds(Event, st.integers(0, 6), st.integers(0, 8), st.integers(0, 6), side=st.integers(1, 3))
logs = st.lists(st.tuples(events_of_days, st.sampled_from([KEPT, KEPT, ADDED, REMOVED, LATE])), max_size=70)
rules = st.fixed_dictionaries(
    {},
    optional={
        "window_days": st.integers(1, 4),
        "half_life_days": st.sampled_from([1.0, 3.0]),
        "window_items": st.integers(1, 3),
        "distance_decay": st.just(0.5),
        "directed": st.booleans(),
        "anchor_types": st.just(["view"]),
        "max_basket_items": st.integers(2, 5),
        "max_occurrences": st.integers(1, 2),
    },
)


@given(logs, rules, st.booleans())
def test_the_old_state_and_the_changes_are_the_new_state(log: Log, rule: dict[str, Any], all_of_it: bool) -> None:
    asked = CooccurrenceSettings.model_validate({"measures": ["llr"], "min_support": 1, "top_n": 1000, **rule})
    before = [event for event, fate in log if fate in (KEPT, REMOVED)]
    after = [event for event, fate in log if fate != REMOVED]
    touched = {event.basket for event, fate in log if fate != KEPT}
    rows = [row for event, fate in log if all_of_it or event.basket in touched for row in as_rows(event, fate)]
    old, change, new = of_events(before, asked), contributions(rows, asked), of_events(after, asked)
    state = State(old.batches + change.batches, deltas.difference(old.facts, change.facts, sign=1))
    found, expected = pairs_of(state), pairs_of(new)
    assert {pair: both for pair, (both, _) in found.items()} == {pair: both for pair, (both, _) in expected.items()}
    assert state.facts == new.facts
    for pair, (_, decayed) in expected.items():
        assert found[pair][1] == (None if decayed is None else pytest.approx(decayed, rel=1e-9))
    direct = count_without_spark(after, asked)
    table = table_of(state, asked)
    assert {pair: (r["num_baskets"], r["rank_a"], r["llr"]) for pair, r in table.items()} == {
        pair: (r["num_baskets"], r["rank_a"], r["llr"]) for pair, r in direct.rows.items()
    }
    assert {k: v for k, v in direct.facts.items() if k != "num_items"} == state.facts


@given(logs, rules)
def test_a_folded_state_is_the_same_state(log: Log, rule: dict[str, Any]) -> None:
    asked = CooccurrenceSettings.model_validate({"measures": [], **rule})
    parts = [of_events([e for e, fate in log if fate == kind], asked) for kind in (KEPT, ADDED, REMOVED)]
    batches = [b for part in parts for b in part.batches]
    state = State(batches, {})
    folded = [
        b
        for negative in (False, True)
        for b in deltas.fold_pairs(deltas.pairs_of_rows, [b.filter(pc.equal(pc.less(b["item_a"], 0), negative)) for b in batches])
    ]
    assert pairs_of(State(folded, {})) == pairs_of(state)
    anchors = [a for b in folded for a in b["item_a"].to_pylist()]
    assert len(anchors) == len(set(anchors))


def test_a_removed_user_leaves_nothing() -> None:
    asked = CooccurrenceSettings.model_validate({"measures": [], "half_life_days": 1.0})
    events = [Event(1, 3, 0), Event(1, 4, 30), Event(1, 5, 59)]
    old = of_events(events, asked)
    gone = contributions([(event, 1, 0) for event in events], asked)
    assert pairs_of(old) != {}
    assert pairs_of(State(old.batches + gone.batches, {})) == {}
    assert deltas.difference(old.facts, gone.facts, sign=1)["basket_sizes"] == {}


def test_counts_do_not_wrap_and_a_large_item_number_is_no_sign() -> None:
    top = np.iinfo(np.int32).max
    big = deltas.PairCounts(np.array([top], np.int32), np.array([top - 1], np.int32), np.array([2**40], np.int64))
    assert pairs_of(State([deltas.state_batch(big)] * 2, {})) == {(top, top - 1): (2**41, None)}
