"""Rules and measures beyond plain counts equal slow twins on random logs."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.config.signals import CooccurrenceSettings, Measure
from tests.cooccurrence_job import Event, count_without_spark
from tests.cooccurrence_twin import twin_llr, twin_ordered, twin_swing, twin_vectors

events_of_weight = st.lists(
    st.builds(Event, st.integers(0, 7), st.integers(0, 9), weight=st.sampled_from([0.2, 1.0, 2.5])), max_size=70
)
events_of_days = st.lists(st.builds(Event, st.integers(0, 5), st.integers(0, 7), st.integers(0, 6)), max_size=60)


def settings(rank_by: Measure = "count", **more: object) -> CooccurrenceSettings:
    return CooccurrenceSettings.model_validate(
        {"rank_by": rank_by, "measures": [], "top_n": 1000, "max_occurrences": 1000, **more}
    )


WAYS = ("blocked", "broadcast", "files")


@given(events_of_weight, st.floats(0, 2), st.floats(0, 1))
def test_weighted_vectors_equal_the_twin(events: list[Event], k1: float, b: float) -> None:
    asked = settings(measures=["tanimoto", "tfidf_cosine", "bm25_cosine"], bm25_k1=k1, bm25_b=b)
    found = count_without_spark(events, asked).rows
    rows = [(e.basket, e.item, e.weight) for e in events]
    for name, kind in (("tanimoto", "plain"), ("tfidf_cosine", "tfidf"), ("bm25_cosine", "bm25")):
        vectors = twin_vectors(rows, kind, k1, b) if rows else {}
        squares = {item: sum(v * v for v in vector.values()) for item, vector in vectors.items()}
        for (x, y), row in found.items():
            dot = sum(value * vectors[y].get(basket, 0.0) for basket, value in vectors[x].items())
            below = squares[x] + squares[y] - dot if name == "tanimoto" else math.sqrt(squares[x] * squares[y])
            assert row[name] == pytest.approx(dot / below, rel=1e-9), (name, x, y)


@given(events_of_weight, st.sampled_from([0.5, 1.0, 10.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_swing_equals_the_twin(events: list[Event], alpha: float, power: float) -> None:
    baskets: dict[int, set[int]] = defaultdict(set)
    for event in events:
        baskets[event.basket].add(event.item)
    found = count_without_spark(events, settings("swing", swing_alpha=alpha, swing_power=power)).rows
    for (a, j), row in found.items():
        assert row["swing"] == pytest.approx(twin_swing(baskets, a, j, alpha, power), rel=1e-9, abs=1e-15)


@given(events_of_weight, st.randoms())
def test_the_order_of_rows_and_baskets_changes_no_bit(events: list[Event], random: object) -> None:
    asked = settings("swing", measures=["tanimoto", "tfidf_cosine", "bm25_cosine"], swing_max_baskets=3)
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert count_without_spark(shuffled, asked).rows == count_without_spark(events, asked).rows


@given(
    st.lists(
        st.builds(
            Event,
            st.integers(0, 7),
            st.integers(0, 9),
            st.integers(0, 6),
            st.sampled_from([0.2, 1.0]),
            st.integers(1, 3),
            st.just(0),
        ),
        max_size=70,
    ),
    st.sampled_from([{}, {"half_life_days": 2.0}, {"window_days": 3}, {"anchor_types": ["view"]}, {"min_users": 2}]),
)
def test_baskets_shared_by_all_tasks_give_the_same(events: list[Event], rule: dict[str, Any]) -> None:
    whole = [] if "anchor_types" in rule else ["swing", "bm25_cosine"]
    ways = [settings("cosine", measures=["llr", *whole], basket="session", way=way, **rule) for way in WAYS]
    owned = [event._replace(owner=event.basket % 4) for event in events]
    blocked, *shared = (count_without_spark(owned, asked) for asked in ways)
    for found in shared:
        assert found.rows == blocked.rows
        assert found.facts == blocked.facts


@given(events_of_days, st.one_of(st.none(), st.integers(1, 4)), st.sampled_from([1.0, 0.5]), st.booleans())
def test_places_and_directions_equal_the_twin(events: list[Event], steps: int | None, decay: float, directed: bool) -> None:
    asked = settings(window_items=steps, distance_decay=decay, directed=directed)
    found = count_without_spark(events, asked).rows
    expected = twin_ordered([(e.basket, e.item, e.day) for e in events], steps, decay, directed)
    assert {pair: row["num_baskets"] for pair, row in found.items()} == {pair: n for pair, (n, _) in expected.items()}
    if decay < 1.0:
        for pair, row in found.items():
            assert row["decayed_count"] == pytest.approx(expected[pair][1], rel=1e-12)


@given(st.lists(st.builds(Event, st.integers(0, 9), st.integers(0, 6), owner=st.just(0)), max_size=60), st.integers(2, 4))
def test_a_pair_needs_distinct_users_not_baskets(events: list[Event], min_users: int) -> None:
    owned = [event._replace(owner=event.basket % 4) for event in events]  # a user has several sessions
    found = count_without_spark(owned, settings(basket="session", min_users=min_users)).rows
    users: dict[tuple[int, int], set[int]] = defaultdict(set)
    baskets: dict[tuple[int, int], set[int]] = defaultdict(set)
    for x in owned:
        for y in owned:
            if x.basket == y.basket and x.item != y.item:
                users[x.item, y.item].add(x.owner)
                baskets[x.item, y.item].add(x.basket)
    expected = {pair: len(baskets[pair]) for pair, who in users.items() if len(who) >= min_users}
    assert {pair: row["num_baskets"] for pair, row in found.items()} == expected


@given(
    st.lists(st.builds(Event, st.integers(0, 6), st.integers(0, 6), st.integers(0, 4), side=st.integers(1, 3)), max_size=60),
    st.booleans(),
)
def test_views_against_purchases_equal_the_twin(events: list[Event], directed: bool) -> None:
    asked = settings(anchor_types=["view"], target_types=["buy"], measures=["confidence"], directed=directed)
    found = count_without_spark(events, asked).rows
    met: dict[tuple[int, int], set[int]] = defaultdict(set)
    anchors: dict[int, set[int]] = defaultdict(set)
    for x in events:
        if x.side & 1:
            anchors[x.item].add(x.basket)
        for y in events:
            if x.basket == y.basket and x.item != y.item and x.side & 1 and y.side & 2 and (not directed or x.day < y.day):
                met[x.item, y.item].add(x.basket)
    assert {pair: row["num_baskets"] for pair, row in found.items()} == {pair: len(who) for pair, who in met.items()}
    for (a, _), row in found.items():
        assert row["num_baskets_a"] == len(anchors[a])
        assert row["confidence"] == pytest.approx(row["num_baskets"] / len(anchors[a]))


@given(events_of_weight, st.sampled_from([0.5, 2.0]), st.sampled_from([1.0, 20.0]))
def test_cuts_by_significance_and_shrinkage(events: list[Event], least: float, shrinkage: float) -> None:
    names = ["cosine", "llr", "lift", "tanimoto", "pmi"]
    whole = count_without_spark(events, settings(measures=names)).rows
    cut = count_without_spark(events, settings(measures=names, min_llr=least, shrinkage=shrinkage)).rows
    assert set(cut) == {pair for pair, row in whole.items() if row["llr"] >= least and row["lift"] > 1}
    for pair, row in cut.items():
        before, n = whole[pair], row["num_baskets"]
        assert twin_llr(n, row["num_baskets_a"] - n, row["num_baskets_b"] - n, _neither(row)) >= least - 1e-9
        for name in ("cosine", "tanimoto"):
            assert row[name] == pytest.approx(before[name] * n / (n + shrinkage), rel=1e-12)
        assert row["pmi"] == before["pmi"]  # no similarity: not shrunk


def _neither(row: dict[str, int]) -> int:
    return row["num_baskets_total"] - row["num_baskets_a"] - row["num_baskets_b"] + row["num_baskets"]
