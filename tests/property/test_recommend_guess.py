"""The quick pass of the top-K against a full sort: its floors are guessed, its products rough, its lists exact all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.blocks import Block, fuse, seen_matrix
from recsys_spark.recommend.scoring.fuse import Fused
from recsys_spark.recommend.scoring.matmul import LOWEST_BITS, RoughVectors, bits_not_above, float_of_bits
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RelatedItems
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.topk.best import best
from recsys_spark.recommend.topk.guess import guessed_cells
from recsys_spark.search.rows import place_in_row

KINDS = ("normal", "coarse", "equal", "rising", "falling", "zeros")
ALONE, TOGETHER = {"encoder": 1.0}, {"encoder": 1.0, "cooccurrence": 0.3, "popularity": 0.1}


def _vectors(rng: np.random.Generator, kind: str, num_items: int) -> np.ndarray[Any, Any]:
    """Items whose scores are well apart, often equal, all equal, in the order of their positions, or mostly 0 and -0."""
    drawn = rng.normal(size=(num_items, 8)).astype(np.float32)
    if kind == "coarse":
        return np.round(drawn).astype(np.float32)
    if kind == "equal":
        return np.tile(drawn[:1], (num_items, 1))
    if kind in ("rising", "falling"):  # positions are no hash: what was read says nothing about what follows
        ramp = np.linspace(0, 5, num_items) * (1 if kind == "rising" else -1)
        return (np.ones((num_items, 8)) * ramp[:, None]).astype(np.float32)
    return np.where(rng.random((num_items, 1)) < 0.01, drawn, np.float32(-0.0)) if kind == "zeros" else drawn


def _world(seed: int, kind: str, num_items: int, num_seen: int, rough: bool) -> tuple[Partners, Block]:
    """Five users; a sparse partner that knows few items, beside the encoder."""
    rng = np.random.default_rng(seed)
    encoder = EncoderItems.of(_vectors(rng, kind, num_items))
    encoder.__dict__["rough"] = RoughVectors.of(encoder.centred) if rough else None  # whatever this machine's hardware
    cells = rng.integers(0, num_items, (2, 50))
    partners = Partners(
        PopularityItems(rng.integers(0, 3, num_items).astype(np.float64)),
        encoder,
        RelatedItems.of(cells[0], cells[1], rng.random(50), num_items),
    )
    seen = seen_matrix(np.full(5, num_seen), np.concatenate([rng.permutation(num_items)[:num_seen] for _ in range(5)]), num_items)
    users = np.abs(rng.normal(size=(5, 8))) + 0.1 if kind in ("rising", "falling") else rng.normal(size=(5, 8))
    return partners, Block(sparse.csr_matrix(np.eye(5, num_items)), seen, users.astype(np.float32))


def _full_sort(fused: Fused, allowed: Filter, k: int) -> list[tuple[int, int]]:
    rows, cols = np.divmod(np.arange(fused.num_users * fused.num_items), fused.num_items)
    keep = allowed.allows(rows, cols)
    rows, cols = rows[keep], cols[keep]
    order = np.lexsort((cols, -fused.at(rows, cols), rows))
    rows, cols = rows[order], cols[order]
    first = place_in_row(rows, fused.num_users) < k
    return list(zip(rows[first].tolist(), cols[first].tolist(), strict=True))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(KINDS),
    num_items=st.sampled_from([1_025, 5_000]),
    seen_share=st.sampled_from([0.0, 0.1, 0.999, 1.0]),
    k=st.sampled_from([1, 20, 300, 6_000]),
    item_tile=st.sampled_from([100, 700, 8_192]),
    rough=st.booleans(),
    weights=st.sampled_from([ALONE, TOGETHER, {"cooccurrence": 1.0}]),
)
def test_lists_equal_the_full_sort_whatever_the_guess_was(
    seed: int, kind: str, num_items: int, seen_share: float, k: int, item_tile: int, rough: bool, weights: dict[str, float]
) -> None:
    partners, block = _world(seed, kind, num_items, int(seen_share * num_items), rough)
    allowed = Filter(np.random.default_rng(seed).random(num_items) < 0.95, block.seen)
    fused = fuse(block, partners, weights)
    found = best(fused, allowed, k, item_tile)
    assert list(zip(found.rows.tolist(), found.cols.tolist(), strict=True)) == _full_sort(fused, allowed, k)
    guessed = guessed_cells(fused, allowed, k, item_tile)
    if guessed is not None:
        assert set(_full_sort(fused, allowed, k)) <= set(zip(*(part.tolist() for part in guessed), strict=True))


@pytest.mark.parametrize(
    ("kind", "rough", "proven"),
    [
        *((kind, rough, True) for kind in ("normal", "coarse") for rough in (True, False)),
        *((kind, rough, False) for kind in ("rising", "equal") for rough in (True, False)),
        ("falling", False, False),
    ],
)
def test_which_guesses_prove_right(kind: str, rough: bool, proven: bool) -> None:
    """Where items come in random order, all do. Best last, or all alike: too many cells reach the floors. Best first: too few."""
    partners, block = _world(1, kind, 30_000, 30, rough)
    fused, allowed = fuse(block, partners, ALONE), Filter(np.ones(30_000, np.bool_), block.seen)
    assert (guessed_cells(fused, allowed, 20, 2_048) is not None) is proven
    found = best(fused, allowed, 20, 2_048)
    assert list(zip(found.rows.tolist(), found.cols.tolist(), strict=True)) == _full_sort(fused, allowed, 20)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-6, 1.0, 1e5]),
    weight=st.sampled_from([0.3, 1.0, 7.0]),
    dimension=st.sampled_from([1, 3, 128]),
)
def test_rough_products_stay_within_their_bound(seed: int, scale: float, weight: float, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    items = (scale * rng.normal(size=(400, dimension)) * rng.lognormal(size=(400, 1))).astype(np.float32)
    encoder = EncoderItems.of(items)
    encoder.__dict__["rough"] = RoughVectors.of(encoder.centred)
    block = Block(sparse.csr_matrix((3, 400)), sparse.csr_matrix((3, 400)), rng.normal(size=(3, dimension)).astype(np.float32))
    rough = fuse(block, Partners(PopularityItems(np.zeros(400)), encoder), {"encoder": weight}).roughly()
    found = rough.tile(0, 400, np.float32).astype(np.float64)
    exact = rough.parts[0].weight * rough.parts[0].scores.at(*np.divmod(np.arange(1_200), 400)).reshape(3, 400)
    bound = rough.parts[0].scores.error(weight, np.float32)[:, None] + 1.01 * rough.coarseness * np.abs(exact)
    assert rough.coarseness > 0
    assert (np.abs(found - exact) <= bound * 1.01).all()
    assert np.abs(found - exact).max() > 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_bits_compare_as_the_numbers_that_they_stand_for(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    products = RoughVectors.of((scale * rng.normal(size=(200, 1))).astype(np.float32))
    one = RoughVectors.of(np.ones((1, 1), np.float32))
    numbers, bits = products.products(one, 0, 1).ravel(), products.product_bits(one, 0, 1).ravel()
    assert (float_of_bits(bits) == numbers).all()
    floors = np.concatenate([np.abs(scale * rng.normal(size=50)).astype(np.float32), numbers[numbers > 0][:50]])
    lowered = float_of_bits(bits_not_above(floors))
    assert ((lowered <= floors) & (lowered > floors * (1 - 2.0**-7))).all()
    reached = bits[:, None] >= bits_not_above(floors)[None, :]
    assert (reached == (numbers[:, None] >= lowered[None, :])).all()
    assert bits_not_above(np.zeros(1, np.float32))[0] > LOWEST_BITS
    assert bits.min() >= LOWEST_BITS


def test_the_quick_pass_compares_bits_once_its_floors_are_above_zero() -> None:
    partners, block = _world(1, "normal", 30_000, 30, True)
    allowed, read = Filter(np.ones(30_000, np.bool_), block.seen), []

    class Watched(Fused):
        def tile_bits(self, start: int, stop: int) -> Any:
            read.append(start)
            return super().tile_bits(start, stop)

    fused = fuse(block, partners, ALONE).roughly()
    watched = Watched(fused.parts, fused.num_users, fused.num_items, fused.coarseness)
    assert guessed_cells(watched, allowed, 20, 2_048) is not None
    assert read[0] == 256
    assert read[-1] + 2_048 >= 30_000
