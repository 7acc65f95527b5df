"""Skewed logs: a giant basket, an item in nearly all baskets, a user who never stops. None may fail or dominate."""

from __future__ import annotations

import random

from recsys_spark.config.signals import CooccurrenceSettings
from tests.cooccurrence_job import Event, count_without_spark

CAP = 50


def usual_log(num_baskets: int = 400, num_items: int = 120) -> list[Event]:
    rng = random.Random(4)
    return [
        Event(basket, min(int(rng.expovariate(0.05)), num_items - 1), rng.randrange(30))
        for basket in range(num_baskets)
        for _ in range(rng.randrange(2, 9))
    ]


def settings(**more: object) -> CooccurrenceSettings:
    usual = {"max_basket_items": CAP, "rank_by": "count", "measures": ["count"], "top_n": 10_000}
    return CooccurrenceSettings.model_validate({**usual, **more})


def test_a_giant_basket_counts_as_one_of_the_cap() -> None:
    log = usual_log()
    giant = [Event(1_000, item) for item in range(20_000)]
    before, after = count_without_spark(log, settings()), count_without_spark(log + giant, settings())
    assert after.facts["items_cut"] == 20_000 - CAP
    assert after.facts["capped_baskets"] == 1
    grown = {pair: row["count"] - before.rows.get(pair, {"count": 0.0})["count"] for pair, row in after.rows.items()}
    assert set(grown.values()) <= {0.0, 1.0}
    assert sum(grown.values()) == CAP * (CAP - 1)


def test_an_item_in_nearly_all_baskets_is_common_not_similar() -> None:
    rng = random.Random(5)
    everywhere = [Event(basket, 7) for basket in range(400) if rng.random() < 0.9]
    found = count_without_spark(usual_log() + everywhere, settings(rank_by="llr", min_llr=10.83, top_n=3)).rows
    assert all(row["num_baskets_b"] * row["num_baskets_a"] < row["num_baskets"] * 400 for row in found.values())
    first = [b for (_, b), row in found.items() if row["rank_a"] == 1]
    assert first.count(7) <= len(first) / 10


def test_a_user_who_never_stops_is_bounded_in_rules_of_order() -> None:
    rng = random.Random(6)
    robot = [Event(1_001, rng.randrange(30), day) for day in range(20_000)]
    asked = settings(window_days=1_000, half_life_days=1_000, max_occurrences=20)
    found = count_without_spark(usual_log() + robot, asked)
    assert found.facts["occurrences_cut"] >= 20_000 - 30 * 20
    without = count_without_spark(usual_log(), asked).rows
    assert all(row["num_baskets"] - without.get(pair, {"num_baskets": 0})["num_baskets"] <= 1 for pair, row in found.rows.items())
