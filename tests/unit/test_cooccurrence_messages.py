"""What tasks send each other: baskets survive the wire, however finely messages are cut, and totals add up."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence import count
from tests.cooccurrence_twin import Row, twin_counts

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000


def two_tasks(rows: list[Row], settings: CooccurrenceSettings) -> tuple[dict[tuple[int, int], dict], dict, int]:
    """The whole job without Spark: rows dealt to two tasks by basket, three blocks. Also returns the number of messages."""
    plan = count.plan_of(settings, EPOCH + timedelta(days=60), 0, (5, 8, 9))
    nothing = SimpleNamespace(value=None)
    sent: list[pa.RecordBatch] = []
    for task in range(2):
        keys, items, days = (np.array([r[i] for r in rows if r[0] % 2 == task], dtype=np.int64) for i in range(3))
        batch = pa.RecordBatch.from_arrays(
            [pa.array(keys), pa.array(items.astype(np.int32)), pa.array(days * DAY)], ["b", "i", "t"]
        )
        sent += count.send_baskets(plan, nothing, [batch] if len(keys) else [])  # type: ignore[arg-type]
    plain = [row for batch in sent for row in batch.to_pylist()]
    assert {r["slot"] for r in plain if r["block"] != count.TOTALS} <= {5, 8, 9}
    totals, facts = count.gather_totals([r for r in plain if r["block"] == count.TOTALS])
    blocks = [b for b in sent if b["block"][0].as_py() != count.TOTALS]
    found = [r for b in count.count_blocks(plan, SimpleNamespace(value=totals), nothing, blocks) for r in b.to_pylist()]  # type: ignore[arg-type]
    assert len({(r["item_a"], r["item_b"]) for r in found}) == len(found)
    return {(r["item_a"], r["item_b"]): r for r in found}, facts, len(blocks)


@pytest.mark.parametrize(("window", "half_life"), [(None, None), (None, 9.0), (4.0, 9.0)])
def test_the_job_without_spark_equals_the_twin(
    window: float | None, half_life: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    rows = [(rng.randrange(30), rng.randrange(25), rng.randrange(60)) for _ in range(400)]
    settings = CooccurrenceSettings(window_days=window, half_life_days=half_life)
    expected, held, total = twin_counts(rows, None if window is None else int(window), half_life, 60)
    found, facts, few = two_tasks(rows, settings)
    assert {pair: r["num_baskets"] for pair, r in found.items()} == {pair: n for pair, (n, _) in expected.items()}
    assert all(r["num_baskets_a"] == held[a] and r["num_baskets_total"] == total for (a, _), r in found.items())
    if half_life is not None:
        assert all(r["decayed_count"] == pytest.approx(expected[pair][1], rel=1e-9) for pair, r in found.items())
    assert (facts["num_baskets"], facts["num_items"]) == (total, len(held))
    monkeypatch.setattr(count, "_MAX_MESSAGE_ENTRIES", 7)  # smaller than most baskets: one basket a message
    again, _, many = two_tasks(rows, settings)
    assert many > few
    assert again == found


def test_size_histogram_doubles_its_bins() -> None:
    assert count.size_histogram(np.array([1, 1, 2, 3, 4, 5, 8, 9])) == {"1": 2, "2": 1, "3-4": 2, "5-8": 2, "9-16": 1}
    assert count.size_histogram(np.zeros(0, dtype=np.int64)) == {}


def test_empty_tasks_send_only_totals() -> None:
    found, facts, messages = two_tasks([], CooccurrenceSettings())
    assert (found, messages) == ({}, 0)
    assert facts == {"num_baskets": 0, "capped_baskets": 0, "items_cut": 0, "num_items": 0, "basket_sizes": {}}
