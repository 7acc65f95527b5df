"""Places for new items against their definition written out, list by list; and the floor against trying every one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.recommend.new_items import NewItems, with_new_items
from recsys_spark.recommend.new_items_fit import LEAST_FLOOR, choose_floor, filled_one_by_one, list_ndcg
from recsys_spark.recommend.topk import Best


def _lists(rng: np.random.Generator, items: list[np.ndarray[Any, Any]], share: str) -> Best:
    """Lists with falling scores; user u gets ``items[u]``."""
    rows = np.repeat(np.arange(len(items)), [len(own) for own in items])
    ranks = np.concatenate([np.arange(1, len(own) + 1) for own in items])
    scores = np.concatenate([-np.sort(-np.round(rng.normal(3, 2, len(own)), 1)) for own in items])
    return Best(rows, np.concatenate(items).astype(np.int64), ranks, scores, {share: scores * 2, "both": scores * 3})


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 35), per_ten=st.integers(0, 9), floor=st.sampled_from([-9.0, 2.0, 3.0, 9.0]))
def test_places_equal_the_definition(seed: int, k: int, per_ten: int, floor: float) -> None:
    rng = np.random.default_rng(seed)
    num_items, users = int(rng.integers(1, 60)), 4
    order = [rng.permutation(num_items)[: rng.integers(0, num_items + 1)] for _ in range(users)]  # candidates, best first
    main = _lists(rng, [own[:k] for own in order], "behaviour")
    new = _lists(rng, [rng.permutation(own[own % 3 == 0]) for own in order], "text")
    merged, is_new = with_new_items(main, new, NewItems(per_ten, floor), k)
    stretch = min(10, k)
    kept = int(per_ten * stretch / 10)
    places = [place for place in range(1, k - k % stretch + 1) if (place - 1) % stretch >= stretch - kept]
    assert NewItems(per_ten, floor).slots(k) == len(places)
    for user in range(users):
        mine, theirs = main.rows == user, new.rows == user
        listed, scores = main.cols[mine].tolist(), main.scores[mine].tolist()
        waiting = [c for c, s in zip(new.cols[theirs], new.scores[theirs], strict=True) if s >= floor and c not in listed]
        want = list(zip(listed, scores, [False] * len(listed), strict=True))
        for place in places:
            if waiting:
                want.insert(place - 1, (waiting.pop(0), want[place - 1][1], True))
        got = merged.rows == user
        assert list(zip(merged.cols[got], merged.scores[got], is_new[got], strict=True)) == want[:k]
        assert merged.ranks[got].tolist() == list(range(1, len(want[:k]) + 1))
    of_main = {(r, c): s for r, c, s in zip(main.rows, main.cols, main.shares["behaviour"], strict=True)}
    of_new = {(r, c): s for r, c, s in zip(new.rows, new.cols, new.shares["text"], strict=True)}
    for place, cell in enumerate(zip(merged.rows, merged.cols, strict=True)):
        assert merged.shares["behaviour"][place] == (0.0 if is_new[place] else of_main[cell])
        assert merged.shares["text"][place] == (of_new[cell] if is_new[place] else 0.0)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), max_loss=st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_the_floor_is_the_lowest_that_can_be_borne(seed: int, max_loss: float) -> None:
    rng = np.random.default_rng(seed)
    users = int(rng.integers(1, 30))
    score = np.round(rng.normal(3, 1, users), 1)
    before = rng.random(users) * (rng.random(users) < 0.5)
    after = np.where(rng.random(users) < 0.5, before, before * 0.7)
    total = float(before.sum())
    floor, loss = choose_floor(score, before - after, total, max_loss)

    def cost(level: float) -> float:
        return float((before - after)[score >= level].sum())

    bearable = [s for s in set(score) if s >= LEAST_FLOOR and cost(s) <= max_loss * before.sum() + 1e-9]
    if bearable:
        assert floor == min(bearable)
        assert np.isclose(loss * before.sum(), cost(floor))
    else:
        assert floor > score.max()
        assert loss == 0.0


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), per_ten=st.integers(1, 6), floor=st.sampled_from([-9.0, 0.0, 2.0, 3.0, 9.0]))
def test_what_a_floor_costs_is_the_sum_over_the_places_that_reach_it(seed: int, per_ten: int, floor: float) -> None:
    rng = np.random.default_rng(seed)
    users, num_items, k = 6, 40, 10
    order = [rng.permutation(num_items) for _ in range(users)]
    main = _lists(rng, [own[:k] for own in order], "behaviour")
    new = _lists(rng, [rng.permutation(own[own % 3 == 0])[: rng.integers(0, 9)] for own in order], "text")
    targets = rng.integers(0, num_items, users)

    def ndcg(lists: Best) -> np.ndarray[Any, Any]:
        return list_ndcg(lists, np.arange(users), targets, np.ones(users, np.int64), num_items)

    steps = list(filled_one_by_one(main, new, NewItems(per_ten, 7.0), k, ndcg))
    assert [place for place, *_ in steps] == list(range(1, per_ten + 1))
    lost = sum(float((before - after)[score >= floor].sum()) for _, score, before, after in steps)
    merged, _ = with_new_items(main, new, NewItems(per_ten, floor), k)
    assert np.isclose(lost, float((ndcg(main) - ndcg(merged)).sum()))


def test_ndcg_of_lists_by_hand() -> None:
    lists = Best(np.array([0, 0, 0, 2]), np.array([5, 6, 7, 1]), np.array([1, 2, 3, 1]), np.zeros(4), {})
    owners, targets, lengths = np.array([0, 0, 1, 2]), np.array([6, 9, 4, -1]), np.array([2, 1, 1])
    found = list_ndcg(lists, owners, targets, lengths, 10)
    ideal = 1.0 + 1.0 / np.log2(3.0)
    np.testing.assert_allclose(found, [1.0 / np.log2(3.0) / ideal, 0.0, 0.0])
