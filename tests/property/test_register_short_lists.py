"""Short lists of the fusion's fit equal what a full sort of every partner's scores says."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.register.fusion_examples import NDCG_K, in_reach, kth_best
from recsys_spark.register.fusion_ndcg import ideal_share, user_ndcg


def _plain(z_PN: Any, barred_N: Any, length: int) -> list[int]:
    """Every partner's open items in full order: those no worse than the last of its best, unless these tie without end."""
    open_items = [i for i in range(len(barred_N)) if barred_N[i] == 0]
    listed: set[int] = set()
    for row in z_PN:
        scores = sorted((float(row[i]) for i in open_items), reverse=True)
        least = scores[min(length, len(scores)) - 1] if scores else 0.0
        # the cut of a list that barred items shorten reaches below every open item
        reached = [i for i in open_items if row[i] >= least]
        if min(length, len(barred_N)) <= len(open_items) and len(reached) > 4 * length:
            reached = [i for i in open_items if row[i] > least]
        if len({float(row[i]) for i in open_items}) > 1:
            listed |= set(reached)
    return sorted(listed)


@st.composite
def _scores(draw: Any) -> tuple[Any, Any, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.one_of(st.integers(1, 40), st.integers(400, 3_000)))
    rows = []
    for kind in draw(st.lists(st.sampled_from(["spread", "ties", "sparse", "silent", "ascending"]), min_size=1, max_size=4)):
        row = np.round(rng.normal(size=size), 1 if kind == "ties" else 6)
        row[rng.random(size) < {"sparse": 0.97, "silent": 1.1}.get(kind, 0.0)] = -0.125
        rows.append(np.sort(row) if kind == "ascending" else row)
    barred = np.where(rng.random(size) < draw(st.sampled_from([0.0, 0.1, 0.9])), -np.inf, 0.0).astype(np.float32)
    z = np.array(rows, np.float32)
    return z, barred, draw(st.integers(1, 30))


@given(_scores())
def test_short_lists_hold_what_a_full_sort_puts_first(case: tuple[Any, Any, int]) -> None:
    z, barred, length = case
    assert in_reach(z, barred, length).tolist() == _plain(z, barred, length)


@given(_scores(), st.integers(0, 2**32 - 1), st.booleans())
def test_ndcg_ranks_every_target_among_all_items(case: tuple[Any, Any, int], seed: int, alone: bool) -> None:
    z, barred, _ = case
    z = np.round(8 * z) / 8  # sums of these are exact, whoever adds them
    rng = np.random.default_rng(seed)
    targets = np.unique(np.concatenate([rng.integers(-1, len(barred), 6), np.argsort(-(z[0] + barred))[:3]]))
    weights = None if alone else rng.choice([0.0, 0.5, 1.0], (4, len(z))).astype(np.float32)
    expected = []
    for row in z if weights is None else weights @ z:
        order = np.lexsort((np.arange(len(row)), -(row + barred))).tolist()
        open_to_them = [order.index(int(t)) + 1 for t in targets if t >= 0 and barred[t] == 0]
        expected.append(sum(1 / np.log2(rank + 1) for rank in open_to_them if rank <= NDCG_K) * ideal_share(len(targets)))
    np.testing.assert_allclose(user_ndcg(z, barred, targets, weights), expected, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.sampled_from(["drawn", "ascending", "descending", "few", "in step"]))
def test_the_kth_best_is_that_of_the_full_order(seed: int, k: int, kind: str) -> None:
    """Also where the sample misleads: every 16th value is the largest."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, 2_000).astype(np.float32) if kind == "few" else rng.normal(size=2_000).astype(np.float32)
    if kind in ("ascending", "descending"):
        values = np.sort(values) if kind == "ascending" else np.sort(values)[::-1].copy()
    if kind == "in step":
        values[::16] += 10.0
    assert kth_best(values, k) == np.sort(values)[::-1][k - 1]
