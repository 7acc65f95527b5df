"""The blockwise top-K against its slow twin: full rows, full sort, and the same definition written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.rules import SegmentLists
from recsys_spark.recommend.scoring.blocks import Block, fuse, history_matrix, seen_matrix
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RelatedItems, TextItems
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.topk import best as best_module
from recsys_spark.recommend.topk.best import best
from recsys_spark.recommend.topk.cells import best_first
from recsys_spark.recommend.topk.targets import Targets

WEIGHTS = (
    {"encoder": 1.0},
    {"cooccurrence": 1.0},
    {"cooccurrence": 1.0, "transitions": 0.6},
    {"text": 1.0},
    {"popularity": 1.0},
    {"encoder": 1.0, "cooccurrence": 0.3, "text": 0.7, "popularity": 0.1},
)


def _world(
    seed: int, num_items: int, num_users: int, coarse: bool, all_seen: bool
) -> tuple[Partners, Block, np.ndarray[Any, Any]]:
    """Random partners; ``coarse`` values are small integers, so that many scores are equal."""
    rng = np.random.default_rng(seed)
    draw = (
        (lambda *s: rng.integers(-1, 2, s).astype(np.float32)) if coarse else (lambda *s: rng.normal(size=s).astype(np.float32))
    )
    cells = 4 * num_items
    values = np.ones(cells) if coarse else rng.random(cells)
    cooccurrence = RelatedItems.of(rng.integers(0, num_items, cells), rng.integers(0, num_items, cells), values, num_items)
    texts = [" ".join(f"word{w}" for w in rng.integers(0, 6, 2)) for _ in range(num_items)]
    counts = rng.integers(0, 4, num_items).astype(np.float64)
    ends = rng.integers(0, num_items, (2, num_items))
    transitions = RelatedItems.of(*ends, np.where(rng.random(num_items) < 0.3, -1.0, 1.0), num_items)  # some say: rather not
    partners = Partners(
        PopularityItems(counts), EncoderItems.of(draw(num_items, 3)), cooccurrence, TextItems.of(texts), transitions=transitions
    )
    lengths = rng.integers(0, 5, num_users)
    history = history_matrix(lengths, rng.integers(0, num_items, lengths.sum()), 0.7, num_items)
    if all_seen:
        met = np.full(num_users, num_items)
        seen = seen_matrix(met, np.tile(np.arange(num_items), num_users), num_items)
    else:
        met = rng.integers(0, num_items + 1, num_users)
        seen = seen_matrix(met, rng.integers(0, num_items, met.sum()), num_items)
    return partners, Block(history, seen, draw(num_users, 3)), rng.random(num_items) < 0.8


def _twin(partners: Partners, block: Block, weights: dict[str, float], allowed: Any) -> np.ndarray[Any, Any]:
    """Fused scores ``[B, N]``: z-scores of whole rows, summed; -inf where filtered."""
    total = np.zeros(block.history.shape)
    for name, weight in weights.items():
        if name != "popularity" and getattr(partners, name) is None:
            continue
        raw = _raw(name, partners, block)
        std = raw.std(axis=1, keepdims=True)
        real = std > 1e-6 * np.abs(raw).max(axis=1, keepdims=True, initial=0)
        total += weight * np.where(real, (raw - raw.mean(axis=1, keepdims=True)) / np.where(real, std, 1), 0)
    total = np.round(total, 9)
    total[:, ~allowed] = -np.inf
    total[block.seen.toarray() > 0] = -np.inf
    return total


def _raw(name: str, partners: Partners, block: Block) -> np.ndarray[Any, Any]:
    history = block.history.toarray()
    if name == "encoder":
        return block.vectors.astype(float) @ partners.encoder.vectors.astype(float).T
    if name in partners.related:
        return history @ partners.related[name].rows.toarray()
    if name == "text":
        profile = history @ partners.text.by_item.toarray()
        norm = np.linalg.norm(profile, axis=1, keepdims=True)
        return np.where(norm > 0, profile / np.where(norm > 0, norm, 1), 0) @ partners.text.by_item.toarray().T
    return np.tile(np.log1p(partners.popularity.counts), (block.num_users, 1))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_items=st.sampled_from([1, 2, 7, 40, 700]),
    num_users=st.sampled_from([1, 5]),
    k=st.sampled_from([1, 3, 10, 50]),
    item_tile=st.sampled_from([1, 3, 64, 4096]),
    weights=st.sampled_from(WEIGHTS),
    coarse=st.booleans(),
    all_seen=st.booleans(),
)
def test_blockwise_equals_the_slow_twin(
    seed: int, num_items: int, num_users: int, k: int, item_tile: int, weights: dict[str, float], coarse: bool, all_seen: bool
) -> None:
    partners, block, allowed = _world(seed, num_items, num_users, coarse, all_seen)
    full = _twin(partners, block, weights, allowed)
    order = np.argsort(-full, axis=1, kind="stable")
    fused, keep = fuse(block, partners, weights), Filter(allowed, block.seen)
    found = best(fused, keep, k, max(item_tile, 1 if num_items < 100 else 64))
    for user in range(num_users):
        mine = found.rows == user
        want = [item for item in order[user] if np.isfinite(full[user, item])][:k]
        assert found.ranks[mine].tolist() == list(range(1, len(want) + 1))
        np.testing.assert_allclose(found.scores[mine], full[user, want], atol=1e-6)
        if coarse:
            assert_same_up_to_rounding(found.cols[mine], want, full[user])
        else:
            assert found.cols[mine].tolist() == want
    np.testing.assert_array_equal(keep.num_candidates(), np.isfinite(full).sum(axis=1))


def assert_same_up_to_rounding(found: Any, want: Any, scores: Any) -> None:
    """Equal, but for items whose scores the twin's own rounding tells apart by the last digit."""
    for mine, other in zip(found, want, strict=True):
        assert mine == other or abs(scores[mine] - scores[other]) <= 2e-9


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), num_items=st.sampled_from([1, 9, 300]), weights=st.sampled_from(WEIGHTS), coarse=st.booleans()
)
def test_ranks_of_targets_equal_the_full_sort(seed: int, num_items: int, weights: dict[str, float], coarse: bool) -> None:
    partners, block, allowed = _world(seed, num_items, 4, coarse, False)
    fused, keep = fuse(block, partners, weights), Filter(allowed, block.seen)
    rows, cols = np.repeat(np.arange(4), num_items), np.tile(np.arange(num_items), 4)
    targets = Targets.of(fused, keep, rows, cols)
    found = best(fused, keep, num_items, 64, targets)
    ranks = np.zeros((4, num_items), int)
    ranks[found.rows, found.cols] = found.ranks
    assert targets.ranks.tolist() == ranks.ravel().tolist()  # K = N: every allowed item is in the list, at its rank


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.sampled_from([1, 10, 90]), weights=st.sampled_from(WEIGHTS), coarse=st.booleans())
def test_ranks_counted_in_float32_equal_the_full_sort(seed: int, k: int, weights: dict[str, float], coarse: bool) -> None:
    """Enough items for the quick pass; where many scores are equal it leaves the count to the sure one."""
    num_items = 1_500
    partners, block, allowed = _world(seed, num_items, 3, coarse, False)
    fused, keep = fuse(block, partners, weights), Filter(allowed, block.seen)
    cols = np.random.default_rng(seed).integers(-1, num_items, 60)
    rows = np.arange(60) % 3
    targets = Targets.of(fused, keep, rows, cols)
    short = best(fused, keep, k, 256, targets)
    full = best(fused, keep, num_items, 256)
    ranks = np.zeros((3, num_items), int)
    ranks[full.rows, full.cols] = full.ranks
    assert targets.ranks.tolist() == np.where(cols < 0, 0, ranks[rows, cols]).tolist()
    listed = full.ranks <= k
    assert (short.rows.tolist(), short.cols.tolist()) == (full.rows[listed].tolist(), full.cols[listed].tolist())


def test_targets_are_counted_in_the_quick_pass_unless_scores_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    sure = _calls_of_the_sure_pass(monkeypatch)
    partners, block, _ = _world(3, 1_500, 3, False, False)
    keep, cells = Filter(np.ones(1_500, np.bool_), block.seen), (np.arange(3), np.array([5, 700, 1_400]))
    for weights, expected in (({"encoder": 1.0}, 0), (WEIGHTS[-1], 0), ({"cooccurrence": 1.0}, 0), ({"text": 1.0}, 1)):
        fused = fuse(block, partners, weights)
        best(fused, keep, 10, 256, Targets.of(fused, keep, *cells))
        assert len(sure) == expected


def _calls_of_the_sure_pass(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows whenever the sure pass is taken."""
    calls: list[int] = []
    plain = best_module._sure_cells

    def counted(*args: Any) -> Any:
        calls.append(1)
        return plain(*args)

    monkeypatch.setattr(best_module, "_sure_cells", counted)
    return calls


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), weights=st.sampled_from(WEIGHTS))
def test_a_user_alone_gets_the_same_list_as_in_a_block(seed: int, weights: dict[str, float]) -> None:
    partners, block, allowed = _world(seed, 300, 6, True, False)
    together = best(fuse(block, partners, weights), Filter(allowed, block.seen), 10, 64)
    for user in range(6):
        part = block.take(np.array([user]))
        alone = best(fuse(part, partners, weights), Filter(allowed, part.seen), 10, 128)
        assert alone.cols.tolist() == together.cols[together.rows == user].tolist()
        assert alone.scores.tolist() == together.scores[together.rows == user].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 4_000_000), st.floats(width=32, allow_nan=False)), max_size=80),
    st.booleans(),
)
def test_one_sort_of_integers_equals_the_sort_by_three_keys(cells: list[tuple[int, int, float]], wide: bool) -> None:
    cells = sorted(cells, key=lambda cell: cell[1]) + ([(0, 2**22, 1.0)] if wide else [])  # beyond the packed columns
    rows, cols, scores = (np.array([cell[n] for cell in cells]) for n in range(3))
    values = scores.astype(np.float32)
    found = best_first(rows.astype(np.int64), cols.astype(np.int64), values)
    order = np.lexsort((cols, -values, rows)) if cells else []
    for mine, theirs in zip(found, (rows, cols, values), strict=True):
        assert mine.tolist() == theirs[order].tolist() if cells else not len(mine)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_items=st.sampled_from([1, 9, 300]),
    k=st.sampled_from([1, 10]),
    weights=st.sampled_from(WEIGHTS),
)
def test_rules_of_segments_are_applied_before_the_cut(seed: int, num_items: int, k: int, weights: dict[str, float]) -> None:
    partners, block, allowed = _world(seed, num_items, 6, False, False)
    rng = np.random.default_rng(seed)
    lists = SegmentLists(("a", "b"), rng.random((2, num_items)) < 0.4)
    segment_of = rng.integers(-1, 2, 6)
    keep = Filter.of(allowed, block.seen, lists, segment_of)
    full = _twin(partners, block, weights, allowed)
    for user in np.flatnonzero(segment_of >= 0):
        full[user, ~lists.allowed[segment_of[user]]] = -np.inf
    fused = fuse(block, partners, weights)
    rows, cols = np.repeat(np.arange(6), num_items), np.tile(np.arange(num_items), 6)
    targets = Targets.of(fused, keep, rows, cols)
    found = best(fused, keep, k, 64, targets)
    for user in range(6):
        want = [item for item in np.argsort(-full[user], kind="stable") if np.isfinite(full[user, item])][:k]
        assert found.cols[found.rows == user].tolist() == want
    assert ((targets.ranks.reshape(6, -1) > 0) == np.isfinite(full)).all()
    np.testing.assert_array_equal(keep.num_candidates(), np.isfinite(full).sum(axis=1))
    some = rng.permutation(num_items)[: max(1, num_items // 2)]
    np.testing.assert_array_equal(keep.columns(some).num_candidates(), np.isfinite(full[:, some]).sum(axis=1))


def test_an_item_outside_the_catalogue_has_rank_zero() -> None:
    partners, block, _ = _world(1, 9, 1, False, False)
    keep = Filter(np.ones(9, np.bool_), sparse.csr_matrix((1, 9)))
    fused = fuse(block, partners, {"encoder": 1.0})
    targets = Targets.of(fused, keep, np.array([0, 0]), np.array([-1, 4]))
    best(fused, keep, 3, 4, targets)
    assert targets.ranks[0] == 0
    assert targets.ranks[1] >= 1


@pytest.mark.parametrize("num_items", [5_000])
def test_thousands_of_equal_scores_keep_tie_order(num_items: int) -> None:
    """A sparse partner with three cells: behind them the first positions, in order."""
    cooccurrence = RelatedItems.of(np.array([0, 0, 0]), np.array([4_000, 70, 10]), np.array([1.0, 3.0, 2.0]), num_items)
    partners = Partners(PopularityItems(np.zeros(num_items)), None, cooccurrence)
    history = history_matrix(np.array([1]), np.array([0]), 0.7, num_items)
    block = Block(history, history, np.zeros((1, 0), np.float32))
    found = best(fuse(block, partners, {"cooccurrence": 1.0}), Filter(np.ones(num_items, np.bool_), history), 8, 512)
    assert found.cols.tolist() == [70, 10, 4_000, 1, 2, 3, 4, 5]
