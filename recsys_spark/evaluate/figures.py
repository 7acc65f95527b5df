"""All rows of table metrics out of plain arrays: per system, metric, k and segment, with intervals and paired differences.

Shape legend: S systems, U users with a target, M targets, V figures (system x metric x k) of a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.evaluate import metrics
from recsys_spark.evaluate.segments import USER_SEGMENTS, user_segments
from recsys_spark.evaluate.significance import bootstrap_means, percentile_interval
from recsys_spark.segments import ITEM_SEGMENTS

ALL = "all"
AUC_K = 0  # AUC reads the whole ranking


@dataclass(frozen=True)
class RankedTargets:
    """Where each system ranked each target; rank 0 means not at all."""

    systems: tuple[str, ...]
    user_M: NDArray[np.int64]  # dense, 0..U-1
    segment_M: NDArray[np.int64]  # position in ITEM_SEGMENTS
    activity_U: NDArray[np.int64]
    rank_SM: NDArray[np.int64]  # in the lists
    full_SM: Mapping[str, NDArray[np.int64]]  # among all candidates, of systems that have them
    candidates_SU: Mapping[str, NDArray[np.int64]]

    @property
    def num_users(self) -> int:
        return len(self.activity_U)


@dataclass(frozen=True)
class Draws:
    """How intervals are drawn."""

    samples: int
    confidence: float
    seed: int


def from_columns(systems: Sequence[str], columns: Mapping[str, NDArray[np.int64]]) -> RankedTargets:
    """Arrays of ``frames.ranked_targets``, one per column, as RankedTargets."""
    _, first, user_M = np.unique(columns["user_idx"], return_index=True, return_inverse=True)
    full, candidates = {}, {}
    for place, name in enumerate(systems):
        if f"full_{place}" in columns:
            full[name] = columns[f"full_{place}"]
            candidates[name] = np.zeros(len(first), dtype=np.int64)
            np.maximum.at(candidates[name], user_M, columns[f"candidates_{place}"])
    ranks = np.stack([columns[f"rank_{place}"] for place in range(len(systems))])
    return RankedTargets(tuple(systems), user_M, columns["segment"], columns["activity"][first], ranks, full, candidates)


def segments(targets: RankedTargets) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name and mask over targets of every segment that has any: all, item segments, user segments."""
    yield ALL, np.ones(len(targets.user_M), dtype=bool)
    activity_U = user_segments(targets.activity_U)
    for code, name in enumerate(ITEM_SEGMENTS):
        yield f"item_{name}", targets.segment_M == code
    for name in USER_SEGMENTS:
        yield f"user_{name}", (activity_U == name)[targets.user_M]


def hits(user_M: NDArray[np.int64], rank_M: NDArray[np.int64], num_users: int, length: int) -> NDArray[np.bool_]:
    """[U, length] from the rank of each target; ranks of 0 and beyond ``length`` are misses."""
    out = np.zeros((num_users, length), dtype=bool)
    found = (rank_M > 0) & (rank_M <= length)
    out[user_M[found], rank_M[found] - 1] = True
    return out


def user_values(
    targets: RankedTargets, mask_M: NDArray[np.bool_], ks: Sequence[int]
) -> tuple[dict[tuple[str, str, int], int], NDArray[np.float64]]:
    """Each figure of each user with a target in the segment: ``{(system, metric, k): column}`` and values [U, V]."""
    users, user_M = np.unique(targets.user_M[mask_M], return_inverse=True)
    relevant_U = np.bincount(user_M, minlength=len(users))
    columns: dict[tuple[str, str, int], int] = {}
    values: list[NDArray[np.float64]] = []
    for place, system in enumerate(targets.systems):
        hits_UK = hits(user_M, targets.rank_SM[place][mask_M], len(users), max(ks))
        for name, metric in metrics.RANKING.items():
            for k in ks:
                columns[system, name, k] = len(values)
                values.append(metric(hits_UK, relevant_U, k))
        if system in targets.full_SM:
            columns[system, "auc", AUC_K] = len(values)
            found = metrics.auc(user_M, targets.full_SM[system][mask_M], targets.candidates_SU[system][users])
            values.append(np.nan_to_num(found, nan=0.5))  # nothing irrelevant to order: as good as a coin
    return columns, np.stack(values, axis=1)


def ranking_rows(targets: RankedTargets, ks: Sequence[int], draws: Draws) -> list[dict[str, Any]]:
    """Rows (system, name, k, segment, value, low, high, num_users); differences stand as ``"first - other"``.

    The first system is compared with each other one, on the same users and with the same redraws.
    """
    rows = []
    for segment, mask_M in segments(targets):
        if not mask_M.any():
            continue
        columns, values_UV = user_values(targets, mask_M, ks)
        means_BV = bootstrap_means(values_UV, draws.samples, draws.seed)
        value_V = values_UV.mean(axis=0)
        for (system, name, k), column in columns.items():
            common = {"name": name, "k": k, "segment": segment, "num_users": len(values_UV)}
            rows.append({"system": system, **common, **_interval(value_V[column], means_BV[:, column], draws)})
            base = columns.get((targets.systems[0], name, k))
            if system != targets.systems[0] and base is not None:
                difference = _interval(value_V[base] - value_V[column], means_BV[:, base] - means_BV[:, column], draws)
                rows.append({"system": f"{targets.systems[0]} - {system}", **common, **difference})
    return rows


def _interval(value: float, means: NDArray[np.float64], draws: Draws) -> dict[str, float]:
    low, high = percentile_interval(means, draws.confidence)
    return {"value": float(value), "low": low, "high": high}


def list_rows(
    systems: Sequence[str], ks: Sequence[int], counts: Mapping[str, NDArray[np.int64]], num_users: int
) -> list[dict[str, Any]]:
    """Coverage, Gini and novelty per system and k, from the arrays of ``frames.item_counts``; no intervals."""
    popularity = metrics.smoothed_shares(counts["num_events"])
    rows = []
    for place, system in enumerate(systems):
        for k in ks:
            shown = counts[f"count_{place}_{k}"]
            values = {
                "coverage": metrics.coverage(shown),
                "gini": metrics.gini(shown),
                "novelty": metrics.novelty(shown, popularity),
            }
            rows += [_list_row(system, name, k, value, num_users) for name, value in values.items()]
    return [row for row in rows if not np.isnan(row["value"])]


def diversity_rows(
    systems: Sequence[str], ks: Sequence[int], lists: Sequence[tuple[int, str, int, str, str | None]], split: str | None
) -> list[dict[str, Any]]:
    """Mean intra-list diversity by category sets, from rows of ``frames.sampled_categories``.

    ``split`` separates several categories in one field. Systems without any category give no row.
    """
    of_item = {item: _categories(category, split) for _, _, _, item, category in lists}
    names = sorted({name for found in of_item.values() for name in found})
    if not names:
        return []
    column, row_of = {name: i for i, name in enumerate(names)}, {item: i for i, item in enumerate(of_item)}
    features = np.zeros((len(of_item), len(names)))
    for item, found in of_item.items():
        features[row_of[item], [column[name] for name in found]] = 1
    rows = []
    for place, system in enumerate(systems):
        entries = [(user, rank, row_of[item]) for s, user, rank, item, _ in lists if s == place]
        users = {user: i for i, user in enumerate(sorted({user for user, _, _ in entries}))}
        for k in ks:
            items_UK = np.full((len(users), k), -1)
            for user, rank, row in entries:
                if rank <= k:
                    items_UK[users[user], rank - 1] = row
            found_U = metrics.intra_list_diversity(items_UK, features)
            if len(found_U) and not np.isnan(found_U).all():
                rows.append(_list_row(system, "diversity", k, float(np.nanmean(found_U)), len(users)))
    return rows


def _categories(category: str | None, split: str | None) -> list[str]:
    parts = [] if category is None else category.split(split) if split else [category]
    return [part.strip() for part in parts if part.strip()]


def _list_row(system: str, name: str, k: int, value: float, num_users: int) -> dict[str, Any]:
    common = {"segment": ALL, "num_users": num_users, "low": None, "high": None}
    return {"system": system, "name": name, "k": k, "value": value, **common}
