"""Short lists against the whole catalogue: text moments and cells against dense products, chosen neighbours against all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recsys_spark.recommend.catalogue import Item, build_catalogue
from recsys_spark.recommend.neighbours.from_short_lists import num_found
from recsys_spark.recommend.neighbours.short_lists import ShortLists, most_popular
from recsys_spark.recommend.neighbours.text import CellScores, TextNeighbours, sums_of_squares
from recsys_spark.recommend.neighbours.whole_catalogue import best_of_all, known_anchors
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RelatedItems, TextItems
from recsys_spark.recommend.scoring.scores import as_rows, rounding
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.topk.best import Best
from recsys_spark.recommend.worker import Side, Task

N, K = 160, 6
WEIGHTS = {"encoder": 1.0, "cooccurrence": 0.5, "text": 0.7, "popularity": 1e-3}


def side(seed: int, num_items: int = N) -> Side:
    """A random catalogue: a fifth not available, some without text, vector or events; many equal scores."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{n}" for n in range(40)])
    texts = [" ".join(rng.choice(words, rng.integers(0, 8), p=_zipf(40))) for _ in range(num_items)]
    items = [Item(n, f"i{n}", None, texts[n], "c", None, bool(rng.random() > 0.2)) for n in range(num_items)]
    vectors = rng.integers(-2, 3, (num_items, 4)).astype(np.float32)
    vectors[rng.random(num_items) < 0.1] = 0.0
    pairs = rng.integers(0, num_items, (2, 6 * num_items))
    together = RelatedItems.of(*pairs, rng.integers(1, 4, 6 * num_items).astype(float), num_items)
    counts = PopularityItems(rng.integers(0, 5, num_items).astype(float))
    return Side(build_catalogue(items, Rule()), Partners(counts, EncoderItems.of(vectors), together, TextItems.of(texts)))


def _zipf(size: int) -> Any:
    weights = 1.0 / np.arange(1, size + 1)
    return weights / weights.sum()


@dataclass(frozen=True)
class Exact:
    """The encoder's search, item by item."""

    side: Side
    length: int

    def items(self, queries: Any) -> Any:
        encoder = self.side.partners.encoder
        assert encoder is not None
        usable = np.flatnonzero(self.side.catalogue.allowed & encoder.vectors.any(axis=1))
        order = np.argsort(-(queries @ encoder.vectors[usable].T), axis=1, kind="stable")
        return usable[order[:, : self.length]]


def short_lists(of: Side, length: int, leaders: int = 1_000) -> ShortLists:
    allowed, text = of.catalogue.allowed, of.partners.text
    near = None if text is None else TextNeighbours.of(text, allowed, leaders)
    return ShortLists(Exact(of, length + 1), length, most_popular(of.partners.popularity, allowed, K), near)


def task(weights: dict[str, float] = WEIGHTS) -> Task:
    return Task(weights, K, 1.0, 3, 64, 50)


def both(of: Side, length: int, weights: dict[str, float] = WEIGHTS) -> tuple[Best, Best]:
    """(from short lists, from all) for every item."""
    anchors, block = known_anchors(np.arange(len(of.catalogue)), of, task(weights))
    return short_lists(of, length).best(anchors, block, of, task(weights)), best_of_all(block, of, task(weights))


@given(st.integers(0, 10_000), st.sampled_from([1, 7, 100, 10**6]))
def test_sums_of_squares_are_those_of_the_dense_product(seed: int, products_at_once: int) -> None:
    rng = np.random.default_rng(seed)
    rows = as_rows(sparse.random(rng.integers(1, 30), rng.integers(1, 20), 0.3, random_state=rng))
    dense = rows.toarray()
    np.testing.assert_allclose(sums_of_squares(rows, products_at_once), ((dense @ dense.T) ** 2).sum(axis=1), atol=1e-12)


def test_text_scores_of_cells_are_those_of_the_whole_catalogue() -> None:
    of = side(1)
    text = of.partners.text
    assert text is not None
    anchors = np.array([3, 50, 7, 120])
    profiles = text.profiles(sparse.csr_matrix((np.ones(4), (np.arange(4), anchors)), shape=(4, N)))
    ours, whole = TextNeighbours.of(text, of.catalogue.allowed).scores(anchors, profiles), text.scores(profiles)
    rows, cols = (cells.ravel() for cells in np.indices((4, N)))
    np.testing.assert_allclose(ours.inverse_std, whole.inverse_std, rtol=1e-9)
    np.testing.assert_allclose(ours.at(rows, cols), whole.at(rows, cols), atol=1e-11)
    np.testing.assert_allclose(ours.tile(0.3, 10, 60, np.float64), whole.tile(0.3, 10, 60, np.float64), atol=1e-11)
    some = np.array([5, 100, 2])
    np.testing.assert_allclose(
        ours.columns(some).tile(1.0, 0, 3, np.float64), whole.columns(some).tile(1.0, 0, 3, np.float64), atol=1e-11
    )
    largest = np.abs(ours.at(rows, cols)).reshape(4, N).max(axis=1)
    assert (ours.error(0.3, np.float32) >= rounding(np.float32, 0.3, largest)).all()


def test_leaders_are_the_items_in_which_a_word_weighs_most() -> None:
    of = side(2)
    assert of.partners.text is not None
    allowed = of.catalogue.allowed
    found = TextNeighbours.of(of.partners.text, allowed, leaders=5).leaders.toarray()
    dense = of.partners.text.by_item.toarray().T * allowed
    for word, weights in enumerate(dense):
        order = np.argsort(-weights, kind="stable")[:5]
        expected = np.zeros(N)
        expected[order] = weights[order]
        np.testing.assert_array_equal(found[word], expected)


def test_the_text_short_list_holds_the_most_alike_allowed_items() -> None:
    of = side(3)
    assert of.partners.text is not None
    near = TextNeighbours.of(of.partners.text, of.catalogue.allowed)
    profiles = of.partners.text.by_item[:20]
    rows, cols = near.short_list(profiles, 8)
    dense = (profiles @ of.partners.text.by_item.T).toarray() * of.catalogue.allowed
    for row in range(20):
        mine = np.sort(dense[row, cols[rows == row]])
        wanted = np.sort(dense[row])[::-1][:8]
        np.testing.assert_allclose(mine[::-1], wanted[wanted > 0])
    assert not near.short_list(sparse.csr_matrix((3, profiles.shape[1])), 8)[0].size


@given(st.integers(0, 10_000))
def test_lists_long_enough_give_the_exact_neighbours_and_ties(seed: int) -> None:
    found, exact = both(side(seed), N)
    for name in ("rows", "cols", "ranks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(exact, name), err_msg=name)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=0, atol=1.1e-9)  # rounded to 9 decimals, either way
    assert list(found.shares) == list(exact.shares)
    for name, share in exact.shares.items():
        np.testing.assert_allclose(found.shares[name], share, atol=1e-9)


@pytest.mark.parametrize("weights", [{"encoder": 1.0, "popularity": 1e-3}, {"encoder": 1.0, "text": 0.2, "popularity": 1e-3}])
def test_only_partners_with_a_weight_propose_and_score(weights: dict[str, float]) -> None:
    of = side(4)
    if "text" not in weights:
        of = replace(of, partners=replace(of.partners, text=None))
    found, exact = both(of, N, weights)
    np.testing.assert_array_equal(found.cols, exact.cols)
    assert set(found.shares) == set(weights)


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_short_lists_are_full_allowed_and_nearly_exact(seed: int, length: int) -> None:
    """Whatever is on them: K ranks without a gap for each anchor, scores as the whole catalogue gives them."""
    of = side(seed)
    found, exact = both(of, length)
    np.testing.assert_array_equal(np.bincount(found.rows), np.bincount(exact.rows))
    np.testing.assert_array_equal(found.ranks, exact.ranks)
    assert of.catalogue.allowed[found.cols].all()
    assert (found.scores <= exact.scores + 1e-9).all()  # rank by rank: what is missed is never replaced by better


def test_agreement_counts_ties_with_the_last_and_misses() -> None:
    empty: dict[str, Any] = {}
    exact = Best(np.array([0, 0, 1]), np.array([4, 5, 6]), np.array([1, 2, 1]), np.array([2.0, 1.0, 3.0]), empty)
    found = Best(np.array([0, 0, 1]), np.array([4, 7, 8]), np.array([1, 2, 1]), np.array([2.0, 1.0, 2.9]), empty)
    assert num_found(exact, exact, 2) == 3
    assert num_found(found, exact, 2) == 2


def test_cells_of_no_pair_are_empty() -> None:
    nothing = CellScores(sparse.csr_matrix((2, 3)), sparse.csr_matrix((1, 3)), np.zeros(1), np.zeros(1))
    assert nothing.at(np.empty(0, np.int64), np.empty(0, np.int64)).shape == (0,)
