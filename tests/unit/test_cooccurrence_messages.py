"""What tasks send each other: baskets survive the wire, however finely messages are cut, and totals add up."""

from __future__ import annotations

import random

import numpy as np
import pytest

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence import messages, tasks
from tests.cooccurrence_job import Event, count_without_spark
from tests.cooccurrence_twin import twin_counts


@pytest.mark.parametrize(("window", "half_life"), [(None, None), (None, 9.0), (4.0, 9.0)])
def test_the_job_without_spark_equals_the_twin(
    window: float | None, half_life: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    rows = [(rng.randrange(30), rng.randrange(25), rng.randrange(60)) for _ in range(400)]
    events = [Event(*row) for row in rows]
    settings = CooccurrenceSettings(window_days=window, half_life_days=half_life)
    expected, held, total = twin_counts(rows, None if window is None else int(window), half_life, 60)
    found, facts, few = count_without_spark(events, settings)
    assert {pair: r["num_baskets"] for pair, r in found.items()} == {pair: n for pair, (n, _) in expected.items()}
    assert all(r["num_baskets_a"] == held[a] and r["num_baskets_total"] == total for (a, _), r in found.items())
    if half_life is not None:
        assert all(r["decayed_count"] == pytest.approx(expected[pair][1], rel=1e-9) for pair, r in found.items())
    assert (facts["num_baskets"], facts["num_items"]) == (total, len(held))
    monkeypatch.setattr(messages, "MAX_ENTRIES", 7)  # smaller than most baskets: one basket a message
    again, _, many = count_without_spark(events, settings)
    assert many > few
    assert again == found


def test_size_histogram_doubles_its_bins() -> None:
    assert tasks.size_histogram(np.array([1, 1, 2, 3, 4, 5, 8, 9])) == {"1": 2, "2": 1, "3-4": 2, "5-8": 2, "9-16": 1}
    assert tasks.size_histogram(np.zeros(0, dtype=np.int64)) == {}


def test_empty_tasks_send_only_totals() -> None:
    found, facts, sent = count_without_spark([], CooccurrenceSettings())
    assert (found, sent) == ({}, 0)
    assert facts == {
        "num_baskets": 0,
        "capped_baskets": 0,
        "items_cut": 0,
        "occurrences_cut": 0,
        "num_items": 0,
        "basket_sizes": {},
    }
