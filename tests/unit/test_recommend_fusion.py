"""Choosing the fusion: short lists count as the whole catalogue does, the search finds what was planted, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from recsys_spark.recommend.fusion import Fusion
from recsys_spark.register import fusion_examples, fusion_likelihood, fusion_search
from recsys_spark.register.fusion_examples import Examples
from recsys_spark.register.fusion_fit import examples_of
from recsys_spark.register.fusion_likelihood import likeliest, value_and_gradient, without_idle
from recsys_spark.register.fusion_ndcg import ScoredUser, ideal_share, user_ndcg
from recsys_spark.register.fusion_search import search
from recsys_spark.segments import HISTORY_SEGMENTS, history_codes, item_codes

NUM_ITEMS = 60


def _examples(z_EPN: Any, targets_E: Any, length: int, history: Any = None, codes: Any = None) -> Examples:
    """One target per user; nothing is barred."""
    codes = np.zeros(NUM_ITEMS, np.int8) if codes is None else codes
    history = np.zeros(len(z_EPN), np.int8) if history is None else history
    barred = np.zeros(NUM_ITEMS, np.float32)
    users = [ScoredUser(z, barred, targets_E[e : e + 1], int(history[e]), e // 2 % 2) for e, z in enumerate(z_EPN)]
    z, earlier, segment, own_z, *singles = zip(*[row for user in users for row in examples_of(user, codes, length)], strict=True)
    flat = (np.concatenate(z).reshape(-1, z_EPN.shape[1]), np.concatenate(earlier), np.concatenate(segment))
    return Examples(*flat, np.array([len(row) for row in earlier]), np.stack(own_z), *map(np.array, singles), len(z_EPN))


def _drawn(num_users: int, num_partners: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    z = np.round(8 * rng.normal(size=(num_users, num_partners, NUM_ITEMS))) / 8  # coarse: many scores are equal, exactly
    return z.astype(np.float32), rng.integers(0, NUM_ITEMS, num_users)


@pytest.mark.parametrize("length", [NUM_ITEMS, 25])
def test_short_lists_give_the_ndcg_of_the_whole_catalogue(length: int) -> None:
    z, targets = _drawn(200, 3)
    examples = _examples(z, targets, length)
    for weights in ([1, 0, 0], [0.5, 1, 0], [1, 1, 1]):
        row = np.array([weights], np.float32)
        whole = sum(user_ndcg(z[u], np.zeros(NUM_ITEMS), targets[u : u + 1], row)[0] for u in range(200))
        assert examples.gains(row).sum() == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("cells", [1, 700, 1 << 18])
def test_all_candidates_at_once_total_what_each_gains(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where many scores are equal, a chunk ends anywhere, and weights differ by user and item segment."""
    monkeypatch.setattr(fusion_examples, "_CELLS", cells)
    z, targets = _drawn(120, 3, seed=2)
    rng = np.random.default_rng(5)
    examples = _examples(z, targets, 20, rng.integers(0, 3, 120).astype(np.int8), rng.integers(0, 4, NUM_ITEMS).astype(np.int8))
    steps = np.array([0.0, 0.25, 0.5, 1.0])
    for segments in (1, 3):
        weights = rng.choice(steps, (6, segments, 3))
        factors = rng.choice(steps[1:], (6, 4, 3))
        for tables in (None, factors):
            each = [examples.gains(w, None if tables is None else tables[c]).sum() for c, w in enumerate(weights)]
            np.testing.assert_allclose(examples.totals(weights, tables), each, rtol=1e-12)
            assert len(set(each)) > 3
    assert examples.take(np.zeros(len(examples), bool)).totals(weights).tolist() == [0.0] * 6


def test_every_target_within_reach_stands_against_the_others_there() -> None:
    z = np.stack([np.arange(NUM_ITEMS), np.zeros(NUM_ITEMS)]).astype(np.float32)  # the second partner says nothing
    barred = np.zeros(NUM_ITEMS, np.float32)
    barred[58] = -np.inf
    user = ScoredUser(z, barred, np.array([59, 55, 58, -1, 56]), 2, 1)  # 55 is out of reach, -1 outside the catalogue
    codes = np.arange(NUM_ITEMS, dtype=np.int8)  # so that others are known by their segments
    found = [
        (row[2].tolist(), row[1].tolist(), row[0].reshape(-1, 2)[:, 0].tolist(), *row[4:]) for row in examples_of(user, codes, 3)
    ]
    share = ideal_share(5)
    assert found == [
        ([56, 57], [True, True], [56.0, 57.0], 59, 2, share, 1),
        ([57, 59], [False, False], [57.0, 59.0], 56, 2, share, 1),
    ]
    assert not list(examples_of(replace(user, barred_N=barred - np.inf), codes, 3))
    assert not list(examples_of(replace(user, targets=np.array([59])), codes, 1))  # against nothing


def _planted(num_users: int, teller_of: Any, seed: int = 1) -> tuple[Any, Any]:
    """Three partners of noise; the one that ``teller_of(user, target)`` names has a signal for the target."""
    rng = np.random.default_rng(seed)
    z, targets = rng.normal(size=(num_users, 3, NUM_ITEMS)), rng.integers(0, NUM_ITEMS, num_users)
    for user in range(num_users):
        z[user, teller_of(user, targets[user]), targets[user]] += 2.5
    return z.astype(np.float32), targets


def test_the_search_finds_who_knows() -> None:
    z, targets = _planted(600, lambda user, target: 0 if user % 3 else 1)
    found = search(_examples(z, targets, 30), ("a", "b", "c"), {"a": 0.7, "c": 0.5})
    assert found.weights["a"] == 1.0
    assert 0.2 < found.weights["b"] < 1.0
    assert found.weights.get("c", 0.0) < 0.3
    assert not found.segments  # one kind of user, one kind of item
    assert not found.items
    assert found.decays == {"a": 0.7, "c": 0.5}


def test_segments_of_users_are_kept_where_they_differ() -> None:
    z, targets = _planted(900, lambda user, target: 0 if user % 2 else 1)
    history = np.array([2 * (user % 2) for user in range(900)], np.int8)
    found = search(_examples(z, targets, 30, history), ("a", "b", "c"), {})
    heavy, new = found.segments["heavy"], found.segments["new"]
    assert heavy["a"] / heavy["b"] > 2 * found.weights["a"] / found.weights["b"]
    assert new["b"] / new["a"] > 2 * found.weights["b"] / found.weights["a"]
    assert Fusion.from_document(found.document()) == found
    assert found.by_history()[1] == found.weights  # no light user was seen


def test_rows_of_user_segments_are_tried_on_their_users_alone_with_the_same_result() -> None:
    z, targets = _planted(900, lambda user, target: user % 3)
    examples = _examples(z, targets, 25, history=(np.arange(900) % 3).astype(np.int8))
    flat = np.tile([1.0, 0.7, 0.4], (len(HISTORY_SEGMENTS), 1))
    found = [
        fusion_search._refined(examples, flat, [0, 1, 2], fusion_search._Meaning(lambda table: (table, None), concerned))
        for concerned in (fusion_search._of_history, None)
    ]
    np.testing.assert_array_equal(*found)
    assert (found[0] != flat).any(axis=1).all()


def test_segments_of_items_are_kept_where_they_differ() -> None:
    codes = np.array([0] * 30 + [2] * 30, np.int8)
    z, targets = _planted(1_200, lambda user, target: 0 if target < 30 else 1)
    found = search(_examples(z, targets, 30, codes=codes), ("a", "b", "c"), {})
    assert found.items["tail"].get("b", 1.0) > found.items["tail"].get("a", 1.0)
    assert found.items["cold"] == found.items["tail"]
    factors = found.weight_factors(np.array([90.0, 5, 0]), 0.2, 0.2)
    assert factors["b"].tolist() == [1.0, found.items["tail"]["b"], found.items["tail"]["b"]]


def _plain_value(examples: Examples, weights: Any, power: float) -> float:
    """The formula, one example at a time: share * p^q / q with the softmax probability p of the target."""
    ends = np.cumsum(examples.lengths)
    total = 0.0
    for e, end in enumerate(ends):
        scores = np.append(examples.z[end - examples.lengths[e] : end] @ weights, examples.target_z[e] @ weights)
        total += examples.share[e] * softmax(scores)[-1] ** power / power
    return total


@pytest.mark.parametrize("cells", [1, 300, 1 << 18])
def test_the_fitted_value_and_its_gradient(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion_likelihood, "_CELLS", cells)
    z, targets = _drawn(40, 3, seed=4)
    plain = _examples(z, targets, 20)
    examples = replace(plain, share=np.linspace(0.2, 1.0, len(plain)))
    tried = ([0.3, 0.0, 1.2], 0.5), ([0.3, 0.0, 1.2], 0.05), ([40.0, 900.0, 0.0], 0.5)  # the last beyond what exp can take
    for weights, power in [(np.array(w), q) for w, q in tried]:
        value, gradient = value_and_gradient(examples, weights, power)
        assert value == pytest.approx(_plain_value(examples, weights, power), rel=1e-6)
        steps = 1e-5 * np.eye(3)
        ways = [[_plain_value(examples, weights + sign * step, power) for sign in (1, -1)] for step in steps]
        slopes = [(up - down) / 2e-5 for up, down in ways]
        np.testing.assert_allclose(gradient, slopes, atol=1e-5)


def test_fitted_weights_leave_out_who_knows_nothing_more() -> None:
    """Of four partners two know, the third says what the first does, the fourth says nothing."""
    z, targets = _planted(800, lambda user, target: 0 if user % 3 else 1)
    doubled = np.stack([z[:, 0], z[:, 1], z[:, 0], z[:, 2]], axis=1)
    examples = _examples(doubled, targets, 30)
    for power in (0.5, 0.3, 0.05):
        every = likeliest(examples, power)
        assert every[0] == pytest.approx(every[2], rel=1e-2)
        weights = without_idle(examples, power, every)
        assert (weights[0] > 0) != (weights[2] > 0)
        assert weights[3] == 0.0
        assert weights[:3].max() > weights[1] > 0
    nobody = examples.take(np.zeros(len(examples), bool))
    assert len(set(likeliest(nobody, 0.3).tolist())) == 1


def test_fitted_weights_hold_on_users_they_were_not_chosen_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each target is known to one partner of two; the best weights of a fine grid are hardly better."""
    z, targets = _planted(1_200, lambda user, target: 0 if user % 3 else 1)
    examples = _examples(z, targets, 30)
    chosen, held = (examples.take(examples.fold == fold) for fold in (0, 1))
    found = search(chosen, ("a", "b", "c"), {}).weights
    with monkeypatch.context() as patched:
        patched.setattr(fusion_search, "MAX_ROWS", len(chosen.z) // 3)
        assert 0.9 < 3 * len(fusion_search._thinned(chosen)) / len(chosen) < 1.1
        assert search(chosen, ("a", "b", "c"), {}).weights != found
    row = np.array([found.get(name, 0.0) for name in "abc"])
    grid = np.array([[1.0, share, 0.0] for share in np.linspace(0, 1, 21)])
    assert held.totals(row[None, None])[0] > 0.97 * held.totals(grid[:, None]).max()


def test_a_partner_that_ranks_better_alone_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    z, targets = _planted(300, lambda user, target: 1)
    monkeypatch.setattr(fusion_search, "likeliest", lambda examples, power: np.array([1.0, 0.5, 0.0]))
    monkeypatch.setattr(fusion_search, "without_idle", lambda examples, power, weights: weights)
    assert search(_examples(z, targets, 30), ("a", "b", "c"), {}).weights == {"b": 1.0}
    monkeypatch.setattr(fusion_search, "likeliest", lambda examples, power: np.array([0.0, 1.0, 0.0]))
    assert search(_examples(z, targets, 30), ("a", "b", "c"), {}).weights == {"b": 1.0}


def test_codes_of_segments() -> None:
    assert [HISTORY_SEGMENTS[code] for code in history_codes([0, 5, 6, 19, 20])] == ["new", "new", "light", "light", "heavy"]
    assert item_codes(np.array([50, 20, 20, 1, 0]), 0.2, 0.2).tolist() == [0, 1, 1, 2, 3]
