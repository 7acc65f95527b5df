"""Ranking and list metrics in plain NumPy, one value per user, so that intervals and pairing come from one vector.

Shape legend: U users, K length of the ranked lists, M targets of all users together, N items, D dimensions.
``hits_UK[u, i]`` is True where the item at rank i + 1 of user u is relevant; shorter lists are padded with False.
``relevant_U[u]`` is the number of all relevant items of user u (in the lists or not), at least 1. Every metric of
a ranked list reads the first k columns and returns float64 [U]; the figure reported is the mean over users.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys_spark.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def _top(hits_UK: Bools, relevant_U: Ints, k: int) -> Bools:
    """First k columns, checked.

    Raises:
        InputError: wrong shapes, k below 1, a user without a relevant item, or more hits than relevant items.
    """
    hits_UK, relevant_U = np.asarray(hits_UK), np.asarray(relevant_U)
    if hits_UK.ndim != 2 or relevant_U.shape != hits_UK.shape[:1]:
        raise InputError("metrics", f"hits {hits_UK.shape}, relevant {relevant_U.shape}", "[U, K] and [U]")
    if k < 1:
        raise InputError("metrics", f"k = {k}", "k of at least 1")
    if (relevant_U < 1).any():
        raise InputError("metrics", "a user without a relevant item", "users with at least one", "leave the others out")
    if (hits_UK.sum(axis=1) > relevant_U).any():
        raise InputError("metrics", "more hits than relevant items of a user", "each relevant item at most once in a list")
    return np.asarray(hits_UK[:, :k], dtype=np.bool_)


def recall(hits_UK: Bools, relevant_U: Ints, k: int) -> Floats:
    """hits@k / relevant: the found share of everything a user wanted (van Rijsbergen, 1979)."""
    return np.asarray(_top(hits_UK, relevant_U, k).sum(axis=1) / np.asarray(relevant_U), dtype=np.float64)


def precision(hits_UK: Bools, relevant_U: Ints, k: int) -> Floats:
    """hits@k / k; a list shorter than k is not excused (van Rijsbergen, 1979)."""
    return np.asarray(_top(hits_UK, relevant_U, k).sum(axis=1) / k, dtype=np.float64)


def f1(hits_UK: Bools, relevant_U: Ints, k: int) -> Floats:
    """2 P R / (P + R) per user, 0 where both are 0; equals 2 hits@k / (k + relevant) (van Rijsbergen, 1979)."""
    return np.asarray(2 * _top(hits_UK, relevant_U, k).sum(axis=1) / (k + np.asarray(relevant_U)), dtype=np.float64)


def hit_rate(hits_UK: Bools, relevant_U: Ints, k: int) -> Floats:
    """1 where any of the first k is relevant, else 0 (Deshpande and Karypis, 2004)."""
    return np.asarray(_top(hits_UK, relevant_U, k).any(axis=1), dtype=np.float64)


def ndcg(hits_UK: Bools, relevant_U: Ints, k: int) -> Floats:
    """DCG@k / ideal DCG@k, binary: sum of 1 / log2(rank + 1) over hits, over the same sum for ranks 1..min(k, relevant).

    Source: Jarvelin and Kekalainen, ACM TOIS 20(4), 2002; the ideal list is truncated at k like the list.
    """
    top = _top(hits_UK, relevant_U, k)
    discounts_K = 1.0 / np.log2(np.arange(2, k + 2))
    ideal_U = np.asarray(np.cumsum(discounts_K))[np.minimum(relevant_U, k) - 1]
    return np.asarray(top @ discounts_K[: top.shape[1]] / ideal_U, dtype=np.float64)


def average_precision(hits_UK: Bools, relevant_U: Ints, k: int, truncate: bool = False) -> Floats:
    """Sum over hits of precision at the hit's rank, divided by relevant (its mean over users is MAP).

    ``truncate=True`` divides by min(k, relevant), so that a perfect list scores 1 for users with more than k
    relevant items. The default divides by all relevant items, as the recommenders-team protocol does.
    Source: Buckley and Voorhees, SIGIR 2000.
    """
    top = _top(hits_UK, relevant_U, k)
    precision_UK = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    divisor_U = np.minimum(relevant_U, k) if truncate else np.asarray(relevant_U)
    return np.asarray((precision_UK * top).sum(axis=1) / divisor_U, dtype=np.float64)


def mrr(hits_UK: Bools, relevant_U: Ints, k: int) -> Floats:
    """1 / rank of the first hit within k, 0 without one (Voorhees, TREC-8, 1999)."""
    top = _top(hits_UK, relevant_U, k)
    return np.asarray(top.any(axis=1) / (top.argmax(axis=1) + 1) if top.shape[1] else np.zeros(len(top)), dtype=np.float64)


RANKING: dict[str, Callable[[Bools, Ints, int], Floats]] = {
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": mrr,
}


def auc(user_M: Ints, rank_M: Ints, num_candidates_U: Ints) -> Floats:
    """Chance that a relevant candidate is ranked above an irrelevant one, exact, from full ranks without ties.

    With m ranked targets of a user at ranks r among N candidates (the targets among them), the irrelevant
    candidates below them number sum(N - r) - m (m - 1) / 2 (Mann and Whitney, 1947; Hanley and McNeil, 1982).

    Args:
        user_M: row of the user of each target, 0..U-1.
        rank_M: rank of each target, from 1; 0 where the target is no candidate, which counts as below all.
        num_candidates_U: ranked candidates of each user.

    Returns:
        [U]; 0 for a user with targets but no ranked one, NaN where there is no target or nothing irrelevant.
    """
    size = len(num_candidates_U)
    ranked = np.asarray(rank_M) > 0
    targets_U = np.bincount(user_M, minlength=size).astype(np.float64)
    ranked_U = np.bincount(user_M, weights=ranked, minlength=size)
    rank_sum_U = np.bincount(user_M, weights=np.where(ranked, rank_M, 0), minlength=size)
    candidates_U = np.asarray(num_candidates_U, dtype=np.float64)
    below_U = ranked_U * candidates_U - rank_sum_U - ranked_U * (ranked_U - 1) / 2
    pairs_U = targets_U * (candidates_U - ranked_U)
    with np.errstate(invalid="ignore", divide="ignore"):
        found_U = np.where(pairs_U > 0, below_U / pairs_U, np.nan)
    return np.where((targets_U > 0) & (ranked_U == 0), 0.0, found_U)


def coverage(counts_N: Ints) -> float:
    """Share of the catalogue that is recommended to anyone (Herlocker et al., ACM TOIS 22(1), 2004).

    ``counts_N``: how often each item of the whole catalogue is recommended, zeros included.
    """
    counts_N = np.asarray(counts_N)
    return float((counts_N > 0).mean()) if len(counts_N) else float("nan")


def gini(counts_N: Ints) -> float:
    """Inequality of recommendation counts: 0 all items equally often, towards 1 one item takes all.

    sum_i (2 i - N - 1) c_i / (N sum c), c sorted ascending, i from 1 (Gini, 1912; Adomavicius and Kwon, 2012).
    NaN when nothing is recommended.
    """
    counts = np.sort(np.asarray(counts_N, dtype=np.float64))
    total, size = counts.sum(), len(counts)
    if total <= 0:
        return float("nan")
    return float(((2 * np.arange(1, size + 1) - size - 1) * counts).sum() / (size * total))


def novelty(counts_N: Ints, popularity_N: Floats) -> float:
    """Mean of -log2 p(item) over all recommended places, in bits (Zhou et al., PNAS 107(10), 2010).

    ``popularity_N``: share of events of each item, above 0 where an item is recommended (see ``smoothed_shares``).
    """
    counts = np.asarray(counts_N, dtype=np.float64)
    shown = counts > 0
    if not shown.any():
        return float("nan")
    return float((counts[shown] * -np.log2(np.asarray(popularity_N)[shown])).sum() / counts.sum())


def smoothed_shares(events_N: Ints) -> Floats:
    """(events + 1) / (all events + N): popularity that stays above 0 for items never met (Laplace)."""
    events = np.asarray(events_N, dtype=np.float64)
    return np.asarray((events + 1) / (events.sum() + len(events)), dtype=np.float64)


def intra_list_diversity(items_UK: Ints, features_ND: Floats, block: int = 1_024) -> Floats:
    """1 - mean pairwise cosine of a list's items (Ziegler et al., WWW 2005); NaN for lists under two items.

    Args:
        items_UK: row of ``features_ND`` of each recommended item, -1 where a list is shorter.
        features_ND: item vectors of any length, or 0/1 rows of category sets; a zero row is like nothing else.
        block: users done at once; bounds the memory to block x K x D.

    The mean over pairs of unit vectors is (|sum v|^2 - sum |v|^2) / (n (n - 1)), without forming any pair.
    """
    features = np.asarray(features_ND, dtype=np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.vstack([np.divide(features, norms, out=np.zeros_like(features), where=norms > 0), np.zeros(features.shape[1])])
    parts = [np.zeros(0)]
    for start in range(0, len(items_UK), block):
        items = np.asarray(items_UK)[start : start + block]  # -1 picks the zero row at the end
        vectors = unit[items]
        size = (items >= 0).sum(axis=1).astype(np.float64)
        together = (vectors.sum(axis=1) ** 2).sum(axis=1) - (vectors**2).sum(axis=(1, 2))
        parts.append(np.where(size > 1, 1 - together / np.maximum(size * (size - 1), 1), np.nan))
    return np.concatenate(parts)
