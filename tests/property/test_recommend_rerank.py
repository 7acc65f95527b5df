"""Lists put in order once more against the definition written out, place by place; and the choice of a diversity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys_spark.config.rerank import RerankSettings
from recsys_spark.recommend.catalogue import Catalogue, Item, build_catalogue
from recsys_spark.recommend.rerank.lists import Alike, Rerank, reranked
from recsys_spark.recommend.rerank.varied import QUALITY, varied
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, TextItems
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.topk.best import Best
from recsys_spark.register.rerank_fit import Tried, choose

Array = np.ndarray[Any, Any]
_seeds = st.integers(0, 10_000)
_CATEGORIES, _BRANDS = "abcd", "xyz"


def _items(rng: np.random.Generator, count: int) -> tuple[Catalogue, Partners]:
    """Items with one or two categories each, brands and vectors without negative parts."""
    rows = []
    for n in range(count):
        category = "|".join(rng.choice(list(_CATEGORIES), rng.integers(1, 3), replace=False))
        rows.append(Item(n, f"i{n}", f"t{n}", f"word{n % 5} word{n % 3}", category, {"brand": rng.choice(list(_BRANDS))}, True))
    vectors = rng.random((count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    partners = Partners(PopularityItems(np.ones(count)), EncoderItems.of(vectors), None, TextItems.of([r.text for r in rows]))
    return build_catalogue(rows, Rule(), "|"), partners


def _values(catalogue: Catalogue, item: int, name: str) -> set[str]:
    own = catalogue.attribute_names[catalogue.attributes[item].indices]
    return {str(value) for value in own if str(value).startswith(f"{name}: ")}


def _definition(
    known: list[tuple[int, float]], new: dict[int, int], alike: Array, rerank: Rerank, catalogue: Catalogue, k: int
) -> list[int]:
    """``known``: (item, score), best first; ``new``: place -> item. Each place by the determinant of the list so far."""
    scores = np.array([score for _, score in known])
    span = scores.max() - scores.min() if len(scores) else 0.0
    quality = {item: np.exp(QUALITY * ((score - scores.min()) / span if span else 0.0)) for item, score in known}
    quality |= dict.fromkeys(new.values(), 1.0)
    left, found = [item for item, _ in known], list[int]()

    def has_room(item: int, since: int) -> bool:
        ten = found[since:]
        for name, most in rerank.max_per_ten.items():
            for value in _values(catalogue, item, name):
                if sum(value in _values(catalogue, other, name) for other in ten) >= most:
                    return False
        return True

    def gain(item: int) -> float:
        chosen = [*found, item]
        kernel = rerank.diversity * alike[np.ix_(chosen, chosen)] + (1 - rerank.diversity) * np.eye(len(chosen))
        outer = np.array([quality[i] for i in chosen])
        return float(np.linalg.slogdet(outer[:, None] * kernel * outer[None, :])[1])

    for place in range(k):
        since = place - place % 10
        if place in new and has_room(new[place], since):
            found.append(new[place])
            continue
        some = [item for item in left if has_room(item, since)] or left
        if some:
            item = max(some, key=lambda i: (round(gain(i), 9), -left.index(i)))
            found.append(item)
            left.remove(item)
    return found


@settings(max_examples=150, deadline=None)
@given(
    seed=_seeds,
    k=st.sampled_from([1, 4, 10, 13]),
    diversity=st.sampled_from([0.0, 0.3, 0.9]),
    limits=st.sampled_from([{}, {"category": 2}, {"category": 3, "brand": 4}]),
)
def test_lists_equal_the_definition(seed: int, k: int, diversity: float, limits: dict[str, int]) -> None:
    rng = np.random.default_rng(seed)
    items = catalogue, partners = _items(rng, 60)
    rerank = Rerank(diversity, limits, "encoder", 3)
    users, pools, lists, fresh = 3, [], [], []
    for _ in range(users):
        order = rng.permutation(50)[: rng.integers(k, 3 * k + 1)]
        scores = -np.sort(-rng.normal(0, 1, len(order)))
        places = rng.choice(k, rng.integers(0, min(3, k) + 1), replace=False)
        pools.append(list(zip(order.tolist(), scores.tolist(), strict=True)))
        fresh.append({int(place): 50 + n for n, place in enumerate(places)})
        known = iter(pools[-1])
        lists.append([(fresh[-1][p], 0.0) if p in fresh[-1] else next(known) for p in range(k)])
    is_new = np.array([item >= 50 for own in lists for item, _ in own])
    found, new = reranked(_best(pools), _best(lists), is_new, k, rerank, items)
    assert partners.encoder is not None
    alike = np.clip(partners.encoder.vectors @ partners.encoder.vectors.T, 0, 1).astype(float)
    np.fill_diagonal(alike, 1.0)
    for user in range(users):
        mine = found.rows == user
        expected = _definition(pools[user], fresh[user], alike, rerank, catalogue, k)
        assert found.cols[mine].tolist() == expected
        assert found.ranks[mine].tolist() == list(range(1, len(expected) + 1))
        assert (new[mine] == (found.cols[mine] >= 50)).all()
        score = dict(pools[user])
        assert all(score[c] == s for c, s in zip(found.cols[mine], found.scores[mine], strict=True) if c < 50)
        assert (found.shares["encoder"][mine] == found.scores[mine] * 2).all()


def _best(lists: list[list[tuple[int, float]]]) -> Best:
    rows = np.repeat(np.arange(len(lists)), [len(own) for own in lists])
    ranks = np.concatenate([np.arange(1, len(own) + 1) for own in lists])
    cols, scores = (np.array([pair[n] for own in lists for pair in own]) for n in range(2))
    return Best(rows, cols.astype(np.int64), ranks, scores, {"encoder": scores * 2})


@settings(max_examples=50, deadline=None)
@given(seed=_seeds, k=st.integers(1, 12))
def test_without_diversity_and_limits_lists_stay_as_they_are(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    pool = [[(int(i), float(-n)) for n, i in enumerate(rng.permutation(40)[: rng.integers(0, 40)])] for _ in range(4)]
    wide = _best(pool)
    listed = wide.take(np.flatnonzero(wide.ranks <= k))
    found, is_new = reranked(wide, listed, np.zeros(len(listed.rows), bool), k, Rerank(), _items(rng, 40))
    assert not is_new.any()
    for name in ("rows", "cols", "ranks", "scores"):
        assert (getattr(found, name) == getattr(listed, name)).all()


@settings(max_examples=50, deadline=None)
@given(seed=_seeds)
def test_more_diversity_makes_lists_less_alike(seed: int) -> None:
    """The greedy choice is no optimum, so this holds of the mean."""
    rng = np.random.default_rng(seed)
    vectors = rng.random((40, 30, 5))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    alike = (vectors @ vectors.transpose(0, 2, 1)).astype(np.float32)
    scores, open_places = -np.sort(-rng.normal(0, 1, (40, 30))), np.full((40, 8), -1)
    within = []
    for diversity in (0.0, 0.5, 1.0):
        chosen = varied(scores, alike, diversity, open_places)
        assert all(len(set(row)) == 8 for row in chosen.tolist())
        within.append(np.mean([alike[u][np.ix_(own, own)].mean() for u, own in enumerate(chosen)]))
    assert within[0] > within[1] > within[2]


def test_likeness_goes_by_what_there_is() -> None:
    rng = np.random.default_rng(1)
    catalogue, partners = _items(rng, 12)
    places = np.array([[0, 3, -1], [5, 5, 1]])
    by_vectors = Alike(catalogue, partners, "encoder").of(places)
    assert partners.encoder is not None
    assert by_vectors[0, 0, 1] == pytest.approx(float(partners.encoder.vectors[0] @ partners.encoder.vectors[3]), abs=1e-6)
    assert by_vectors[1, 0, 1] == pytest.approx(1.0, abs=1e-6)
    assert not by_vectors[0, 2].any()
    plain = Partners(partners.popularity, None, None, partners.text)
    by_words = Alike(catalogue, plain, "encoder").of(places)
    assert by_words[0, 0, 1] == Alike(catalogue, partners, "text").of(places)[0, 0, 1] > 0  # both have word0
    by_values = Alike(catalogue, partners, "attributes").of(places)
    shared = len(set(catalogue.attributes[0].indices) & set(catalogue.attributes[3].indices))
    lengths = [catalogue.attributes[n].nnz for n in (0, 3)]
    assert by_values[0, 0, 1] == pytest.approx(shared / np.sqrt(np.prod(lengths)), abs=1e-6)


def test_what_no_two_items_share_limits_nothing() -> None:
    items = _items(np.random.default_rng(0), 12)
    pool = _best([[(0, 1.0), (1, 0.5)]])
    found, _ = reranked(pool, pool, np.zeros(2, bool), 2, Rerank(0.0, {"serial number": 1}), items)
    assert found.cols.tolist() == [0, 1]


def test_a_value_of_nearly_all_items_is_limited_too() -> None:
    rows = [Item(n, f"i{n}", None, "", "own" if n < 19 else "other", None, True) for n in range(20)]
    catalogue = build_catalogue(rows, Rule())
    assert catalogue.attribute_names.tolist() == []  # it explains nothing
    pool = _best([[(n, 20.0 - n) for n in range(20)]])
    own = np.array([catalogue.item_ids[n] != "i19" for n in range(20)])
    places = Partners(PopularityItems(np.ones(20)))
    found, _ = reranked(pool, pool, np.zeros(20, bool), 5, Rerank(0.0, {"category": 4}), (catalogue, places))
    assert int(own[found.cols].sum()) == 4


@settings(max_examples=60, deadline=None)
@given(seed=_seeds, values=st.integers(1, 6), diversity=st.sampled_from([0.5, 1.0]))
def test_lists_stay_whole_where_nothing_new_is_left_to_add(seed: int, values: int, diversity: float) -> None:
    """More places than values: what is left repeats what the list has."""
    rng = np.random.default_rng(seed)
    rows = [Item(n, f"i{n}", None, "", None, {"genre": "|".join(_some_of(rng, values))}, True) for n in range(120)]
    catalogue = build_catalogue(rows, Rule())
    pool = _best([[(n, 120.0 - n) for n in rng.permutation(120)] for _ in range(3)])
    places = Partners(PopularityItems(np.ones(120)))
    rerank = Rerank(diversity, {}, "attributes", 5)
    found, _ = reranked(pool, pool, np.zeros(360, bool), 60, rerank, (catalogue, places))
    for user in range(3):
        assert len(set(found.cols[found.rows == user].tolist())) == 60


def _some_of(rng: np.random.Generator, values: int) -> list[str]:
    return [f"g{n}" for n in rng.choice(values, rng.integers(1, min(3, values) + 1), replace=False)]


def test_items_that_nothing_compares_stay_in_the_order_of_their_scores() -> None:
    """No encoder, no texts, no value that two items share."""
    catalogue = build_catalogue([Item(n, f"i{n}", None, "", None, None, True) for n in range(8)], Rule())
    pool = _best([[(n, 8.0 - n) for n in range(8)]])
    found, _ = reranked(pool, pool, np.zeros(8, bool), 5, Rerank(0.3), (catalogue, Partners(PopularityItems(np.ones(8)))))
    assert found.cols.tolist() == [0, 1, 2, 3, 4]


def test_an_item_counts_for_each_of_its_values() -> None:
    rows = [Item(n, f"i{n}", None, "", "", {"tags": tags}, True) for n, tags in enumerate(("a|b", "b|c", "c|d", "d | a", "b"))]
    catalogue = build_catalogue(rows, Rule())
    assert set(catalogue.attribute_names) == {f"tags: {value}" for value in "abcd"}
    pool = _best([[(n, 5.0 - n) for n in range(5)]])
    places = Partners(PopularityItems(np.ones(5)))
    found, _ = reranked(pool, pool, np.zeros(5, bool), 5, Rerank(0.0, {"tags": 1}), (catalogue, places))
    assert found.cols.tolist() == [0, 2, 1, 3, 4]  # a and b, then c and d, then whoever is left


@given(costs=st.lists(st.floats(0, 0.2), min_size=1, max_size=10), bearable=st.floats(0, 0.1))
def test_the_largest_bearable_diversity_is_chosen(costs: list[float], bearable: float) -> None:
    tried = [Tried(0.0, 0.1, 0.3), *(Tried((n + 1) / 10, 0.1 * (1 - cost), 0.4) for n, cost in enumerate(costs))]
    assume(all(abs(cost - bearable) > 1e-9 for cost in costs))
    fit = choose(tried, bearable)
    assert fit.diversity == max([0.0, *((n + 1) / 10 for n, cost in enumerate(costs) if cost < bearable)])
    document = fit.document()
    assert document is not None
    assert len(document["tried"]) == len(tried)
    assert Rerank.of(RerankSettings(diversity="auto"), document) == (Rerank(fit.diversity) if fit.diversity else None)


def test_what_a_config_asks_for() -> None:
    assert Rerank.of(RerankSettings(), {"diversity": 0.7}) is None
    assert Rerank.of(RerankSettings(diversity=0.2), {"diversity": 0.7}) == Rerank(0.2)
    assert Rerank.of(RerankSettings(diversity="auto", max_per_ten={"category": 3}), None) == Rerank(0.0, {"category": 3})
