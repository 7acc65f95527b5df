"""New items among known ones against the definition written out, list by list; their chances; and the choice of eagerness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.new_items import NewItems, Offer, known_lists, log_sums, with_new_items
from recsys_spark.recommend.scoring.fuse import Fused, Part
from recsys_spark.recommend.scoring.scores import FullScores, SharedScores
from recsys_spark.recommend.topk.best import Best, best
from recsys_spark.register.new_items_fit import EAGERNESS, Asked, Lists, choose, demand_of, first_tens, fit_known

Array = np.ndarray[Any, Any]
_seeds = st.integers(0, 10_000)


def _lists(rng: np.random.Generator, items: list[Array], share: str) -> Best:
    """Lists with falling scores; user u gets ``items[u]``."""
    rows = np.repeat(np.arange(len(items)), [len(own) for own in items])
    ranks = np.concatenate([np.arange(1, len(own) + 1) for own in items])
    scores = np.concatenate([-np.sort(-np.round(rng.normal(3, 2, len(own)), 1)) for own in items])
    return Best(rows, np.concatenate(items).astype(np.int64), ranks, scores, {share: scores * 2, "both": scores * 3})


def _offer(rng: np.random.Generator, items: list[Array]) -> Offer:
    new = _lists(rng, items, "text")
    return Offer(new, np.exp(new.scores - 9.0))


def _one_list(known: list[Any], new: list[Any], of: NewItems, share: float, k: int) -> list[Any]:
    """``known``: (item, score), ``new``: (item, chance), best first. The definition, place by place."""
    last_score = known[-1][1] if known else 0.0
    share = min(0.9, of.demand * share)
    stretch = min(10, k)
    most = int(of.per_ten * stretch / 10)
    found: list[Any] = []
    known, new, since = list(known), list(new), 0
    for place in range(k):
        since = 0 if place % stretch == 0 else since
        whole = place < k - k % stretch
        last = place % stretch >= stretch - most
        weight = of.eagerness if last else min(1.0, of.eagerness)
        chance = 1 / (1 + np.exp(-(of.intercept + of.slope * known[0][1]))) if known else 0.0
        if whole and since < most and new and weight * share * new[0][1] > (1 - share) * chance:
            found.append((new.pop(0)[0], known[0][1] if known else last_score, True))
            since += 1
        elif known:
            found.append((*known.pop(0), False))
    return found


@settings(max_examples=300, deadline=None)
@given(
    seed=_seeds,
    k=st.integers(1, 35),
    per_ten=st.integers(0, 9),
    eagerness=st.sampled_from([0.0, 0.5, 1.0, 3.0, 1e9]),
    slope=st.sampled_from([0.0, 0.4, 2.0]),
    share=st.sampled_from([0.01, 0.1, 0.6]),
    demand=st.sampled_from([0.5, 1.0, 5.0]),
)
def test_lists_with_new_items_equal_the_definition(
    seed: int, k: int, per_ten: int, eagerness: float, slope: float, share: float, demand: float
) -> None:
    rng = np.random.default_rng(seed)
    num_items, users = int(rng.integers(1, 60)), 4
    order = [rng.permutation(num_items)[: rng.integers(0, num_items + 1)] for _ in range(users)]  # candidates, best first
    main = _lists(rng, [own[:k] for own in order], "behaviour")
    offer = _offer(rng, [rng.permutation(own[own % 3 == 0]) for own in order])
    of, new = NewItems(per_ten, eagerness, slope, -3.0, demand), offer.best
    merged, is_new = with_new_items(main, offer, of, share, k)
    for user in range(users):
        mine, theirs = main.rows == user, new.rows == user
        listed = list(zip(main.cols[mine], main.scores[mine], strict=True))
        waiting = [
            (c, p) for c, p in zip(new.cols[theirs], offer.chances[theirs], strict=True) if c not in main.cols[mine].tolist()
        ]
        want = _one_list(listed, waiting[: of.slots(k)], of, share, k)
        got = merged.rows == user
        assert list(zip(merged.cols[got], merged.scores[got], is_new[got], strict=True)) == want
        assert merged.ranks[got].tolist() == list(range(1, len(want) + 1))
        assert (np.diff(merged.scores[got]) <= 0).all()
    of_main = {(r, c): s for r, c, s in zip(main.rows, main.cols, main.shares["behaviour"], strict=True)}
    of_new = {(r, c): s for r, c, s in zip(new.rows, new.cols, new.shares["text"], strict=True)}
    for place, cell in enumerate(zip(merged.rows, merged.cols, strict=True)):
        assert merged.shares["behaviour"][place] == (0.0 if is_new[place] else of_main[cell])
        assert merged.shares["text"][place] == (of_new[cell] if is_new[place] else 0.0)


@settings(max_examples=100, deadline=None)
@given(seed=_seeds, k=st.integers(1, 12), num_new=st.integers(0, 30))
def test_lists_of_known_items_are_the_best_of_these_alone(seed: int, k: int, num_new: int) -> None:
    """And those of all items where there are fewer than k others."""
    rng = np.random.default_rng(seed)
    users, items = 4, 30
    scores = np.round(rng.normal(size=(items, users)), 1)
    fused = Fused((Part("text", 1.0, FullScores(scores)),), users, items)
    new, seen = rng.permutation(items)[:num_new], rng.random((users, items)) < rng.random((users, 1))
    allowed = Filter(rng.random(items) < 0.9, sparse.csr_matrix(seen.astype(float)))
    width = k + int(rng.integers(0, 5))
    found = known_lists(best(fused, allowed, width, 7), width, fused, allowed, new, k, 7)
    z = fused.tile(0, items, np.float64)
    for user in range(users):
        left = np.flatnonzero(allowed.allowed & ~seen[user])
        known = left[~np.isin(left, new)]
        mine = left if len(known) < k else known
        want = mine[np.lexsort((mine, -np.round(z[user, mine], 9)))][:k]
        got = found.rows == user
        assert found.cols[got].tolist() == want.tolist()
        assert found.ranks[got].tolist() == list(range(1, len(want) + 1))


@settings(max_examples=100, deadline=None)
@given(seed=_seeds, tile=st.integers(1, 20))
def test_sums_over_allowed_items_equal_those_of_all_at_once(seed: int, tile: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = 3, int(rng.integers(1, 40))
    allowed, seen = rng.random(items) < 0.7, rng.random((users, items)) < 0.3
    fused = Fused((Part("text", 0.7, SharedScores(rng.normal(size=items), users)),), users, items)
    found = log_sums(fused, Filter(allowed, sparse.csr_matrix(seen.astype(float))), tile)
    scores = fused.tile(0, items, np.float64)
    for user in range(users):
        left = scores[user, allowed & ~seen[user]]
        assert np.isclose(found[user], np.log(np.exp(left).sum())) if len(left) else found[user] == -np.inf


@settings(max_examples=200, deadline=None)
@given(seed=_seeds, bearable=st.sampled_from([0.0, 0.05, 0.5, 1.0]), per_ten=st.integers(1, 6))
def test_the_chosen_eagerness_is_the_largest_that_can_be_borne(seed: int, bearable: float, per_ten: int) -> None:
    """What the fit says a list costs is what ``with_new_items`` makes of it."""
    rng = np.random.default_rng(seed)
    users, num_items, share = 6, 40, 0.3
    order = [rng.permutation(num_items) for _ in range(users)]
    main = _lists(rng, [own[: rng.integers(8, 11)] for own in order], "behaviour")
    offer = _offer(rng, [rng.permutation(own[own % 3 == 0])[: rng.integers(0, 9)] for own in order])
    owners = np.repeat(np.arange(users), rng.integers(0, 4, users))
    targets = rng.integers(-1, num_items, len(owners))
    lengths = np.bincount(owners, minlength=users)
    places = NewItems(per_ten, 0.0, 0.3, -3.0, 2.0)
    lists = first_tens(main, offer, Asked(owners, targets, targets % 3 == 0, users), places.slots(10), num_items)
    assert lists.targets.tolist() == lengths.tolist()
    assert lists.new_targets.tolist() == [int((targets[owners == user] % 3 == 0).sum()) for user in range(users)]

    def ndcg(eagerness: float) -> float:
        merged, _ = with_new_items(main, offer, NewItems(per_ten, eagerness, 0.3, -3.0, 2.0), share, 10)
        total = 0.0
        for user in range(users):
            wanted, own = set(targets[owners == user]) - {-1}, merged.cols[merged.rows == user]
            gains = sum(1 / np.log2(rank + 2) for rank, item in enumerate(own) if item in wanted)
            total += gains / sum(1 / np.log2(rank + 2) for rank in range(min(max(lengths[user], 1), 10)))
        return total

    found, before = choose(lists, places, share, bearable, least_hits=1), ndcg(0.0)
    assert found.new_items is not None
    if not before:  # nothing is found without new items: nothing tells what their places cost
        assert (found.new_items.eagerness, found.loss) == (1.0, 0.0)
        return
    losses = {e: 1 - ndcg(e) / before for e in EAGERNESS}
    assert choose(lists, places, share, bearable).new_items == replace(places, eagerness=1.0)  # six users tell too little
    assert found.new_items.eagerness == max(e for e, loss in losses.items() if loss <= bearable + 1e-9)
    assert np.isclose(found.loss, losses[found.new_items.eagerness])


def test_chances_of_known_items_are_those_that_made_the_hits() -> None:
    """Hits drawn with the chance 1 / (1 + exp(4 - .8 score)): both figures come out again; of two targets each counts half."""
    rng = np.random.default_rng(5)
    scores = -np.sort(-rng.normal(0, 2, (20_000, 10)), axis=1)
    hit = rng.random(scores.shape) < 1 / (1 + np.exp(4 - 0.8 * scores))
    none, one = np.zeros((len(hit), 0)), np.ones(len(hit), np.int64)
    slope, intercept = fit_known(Lists(scores, hit, none, none > 0, one, 0 * one))
    assert abs(slope - 0.8) < 0.03
    assert abs(intercept + 4) < 0.06
    scores[:, 7:] = -np.inf  # shorter lists: what is not there says nothing
    chances = NewItems(3, 1.0, *fit_known(Lists(scores, hit, none, none > 0, one, 0 * one))).known_chances(scores)
    assert abs(chances.sum() - hit[:, :7].sum()) < 2
    halves = NewItems(3, 1.0, *fit_known(Lists(scores, hit, none, none > 0, 2 * one, 0 * one))).known_chances(scores)
    assert abs(halves.sum() - hit[:, :7].sum() / 2) < 2
    assert fit_known(Lists(scores, np.zeros_like(hit), none, none > 0, one, 0 * one))[0] < 0.01
    asked_new = Lists(scores, hit, none, none > 0, 2 * one, one)  # of two targets one is a new item
    assert abs(NewItems(3, 1.0, *fit_known(asked_new)).known_chances(scores).sum() - hit[:, :7].sum()) < 2
    flat = np.ones((30, 10))
    assert (
        NewItems(3, 1.0, *fit_known(Lists(flat, hit[:30], none, none > 0, one[:30], 0 * one[:30]))).known_chances(flat)[0, 0]
        < 0.3
    )


@settings(max_examples=50, deadline=None)
@given(asked=st.integers(0, 40), share=st.sampled_from([0.001, 0.05, 0.5]))
def test_demand_is_what_validation_has_and_never_nothing(asked: int, share: float) -> None:
    none = np.zeros((100, 0))
    new_targets = (np.arange(100) < asked).astype(np.int64)
    lists = Lists(none, none > 0, none, none > 0, np.full(100, 2), new_targets)
    demand = demand_of(lists, share)
    assert np.isclose(demand, max(asked / 200 / share, min(0.5, 0.03 / share)))
    assert NewItems(3, demand=demand).chance(share) <= max(asked / 200, 0.03) + 1e-12
