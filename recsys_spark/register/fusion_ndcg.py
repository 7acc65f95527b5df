"""Exact NDCG@10 of fusion weights on users of the validation: every item scored by every partner, in Spark tasks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.fusion import Weights
from recsys_spark.recommend.scoring.blocks import Block, fuse, users_per_block
from recsys_spark.recommend.scoring.matmul import matmul
from recsys_spark.recommend.scoring.scores import Float64, FloatArray, Ints
from recsys_spark.recommend.worker import Side, block_of
from recsys_spark.register.fusion_examples import NDCG_K, kth_best
from recsys_spark.segments import history_codes
from recsys_spark.threads import one_thread

Feature = tuple[str, float | None]  # a partner, and how it weighs the past: a decay, or popularity's half-life in days


def mean_ndcg(
    rows: DataFrame,
    broadcast: Any,
    config: Config,
    features: list[Feature],
    candidates: list[Weights],
    profile: bool = False,
) -> tuple[list[tuple[Weights, float]], int]:
    """Mean NDCG@10 of each candidate, every item ranked, and the number of users behind it.

    Args:
        rows: ``user_id, items, seen, vector, target_idx`` of users.
        broadcast: the item side.
        features: the partners that candidates weigh.
        candidates: weights; a partner that one does not name has 0.
        profile: text is scored by ``profile_text``, which rows have, too, not by what users have met.
    """
    names = [name for name, _ in features]
    matrix = np.array([[c.get(name, 0.0) for name in names] for c in candidates], np.float32)
    totals, users = candidate_totals(rows, broadcast, config, features, matrix, profile)
    return [(weights, float(total) / max(users, 1)) for weights, total in zip(candidates, totals, strict=True)], users


def candidate_totals(
    rows: DataFrame, broadcast: Any, config: Config, features: list[Feature], candidates: FloatArray | None, profile: bool = False
) -> tuple[Float64, int]:
    """Sums over users of NDCG@10 for each row of ``candidates`` ``[C, P]`` (None: for each feature alone), and the number of
    users; see ``mean_ndcg``."""
    task = FitTask(tuple(features), candidates, config.recommend.decay, config.recommend.user_block, profile)
    make = functools.partial(ndcg_batches, broadcast=broadcast, task=task)
    sums = (
        rows.mapInArrow(make, "candidate int, total double, users long").groupBy("candidate").agg(F.sum("total"), F.sum("users"))
    )
    totals, users = np.zeros(task.num_candidates), 0
    for place, total, number in sums.collect():
        totals[place], users = total, max(users, int(number))
    return totals, users


@dataclass(frozen=True)
class FitTask:
    """What a task computes: ``features`` are the P columns that candidates ``[C, P]`` weigh; None: each of them alone."""

    features: tuple[Feature, ...]
    candidates: FloatArray | None
    decay: float
    user_block: int
    profile: bool = False  # text is scored by the users' profile texts

    @property
    def num_candidates(self) -> int:
        return len(self.features if self.candidates is None else self.candidates)


def ndcg_batches(batches: Iterator[Any], broadcast: Any, task: FitTask) -> Iterator[Any]:
    """For ``mapInArrow``: the sum of NDCG@10 over this task's users, for each candidate."""
    one_thread()
    totals, users = np.zeros(task.num_candidates), 0
    for user in scored_users(batches, broadcast.value, task):
        totals += user_ndcg(user.z_PN, user.barred_N, user.targets, task.candidates)
        users += 1
    indices = pa.array(range(len(totals)), pa.int32())
    counts = pa.array([users] * len(totals), pa.int64())
    yield pa.RecordBatch.from_arrays([indices, pa.array(totals), counts], names=["candidate", "total", "users"])


def user_ndcg(z_PN: FloatArray, barred_N: FloatArray, targets: Ints, weights_CP: FloatArray | None) -> Float64:
    """NDCG@10 of one user for each of C candidates: binary relevance, all items ranked, ties in tie order.

    Args:
        z_PN: z-scores of P partners for N items.
        barred_N: 0, or -inf where an item may not be listed; a target there gains nothing.
        targets: positions; -1 is an item outside the catalogue.
        weights_CP: the candidates; None: each partner alone.
    """
    gains = np.zeros(len(z_PN if weights_CP is None else weights_CP))
    if not len(targets):
        return gains
    scores_CN = (z_PN if weights_CP is None else matmul(weights_CP, z_PN)) + barred_N
    open_to_them = targets[(targets >= 0) & np.isfinite(barred_N[targets])]
    for candidate, scores_N in enumerate(scores_CN):
        least = kth_best(scores_N, min(NDCG_K, len(scores_N)))  # hardly a target reaches it, and only then is it ranked
        for target in open_to_them[scores_N[open_to_them] >= least].tolist():
            own = scores_N[target]
            rank = np.count_nonzero(scores_N > own) + np.count_nonzero(scores_N[:target] == own) + 1
            gains[candidate] += 1.0 / np.log2(rank + 1.0) if rank <= NDCG_K else 0.0
    ndcg: Float64 = gains * ideal_share(len(targets))
    return ndcg


def ideal_share(num_targets: int) -> float:
    """1 / the best DCG@10 that a user with so many targets could have."""
    return 1.0 / float((1.0 / np.log2(np.arange(min(num_targets, NDCG_K)) + 2.0)).sum())


@dataclass(frozen=True)
class ScoredUser:
    """A user with what every partner says of all items; see ``user_ndcg``. ``history`` is a place in ``HISTORY_SEGMENTS``."""

    z_PN: FloatArray
    barred_N: FloatArray
    targets: Ints
    history: int
    fold: int


def scored_users(batches: Iterator[Any], side: Side, task: FitTask) -> Iterator[ScoredUser]:
    """Each user of the batches, scored in blocks; ``fold`` is 0 where rows have none."""
    size = len(side.catalogue)
    rows = users_per_block(min(task.user_block, 128), size * max(1, len(task.features) // 4))
    for whole in batches:
        for start in range(0, whole.num_rows, rows):
            batch = whole.slice(start, rows)
            block = block_of(batch, side, task.decay)
            z_by_partner = _z_scores(block, side, task)
            barred = np.zeros((block.num_users, size), np.float32)
            Filter(side.catalogue.allowed, block.seen).apply(barred, 0, size)
            lengths, target_idx = flat_list(batch.column("target_idx"))
            targets, ends = side.catalogue.positions(target_idx), np.cumsum(lengths)
            history = history_codes(flat_list(batch.column("items"))[0])
            folds = batch.column("fold").to_pylist() if "fold" in batch.schema.names else [0] * block.num_users
            for user in range(block.num_users):
                wanted = targets[ends[user] - lengths[user] : ends[user]]
                z_PN = np.array([z[user] for z in z_by_partner])  # of one user at a time: the whole would leave the caches
                yield ScoredUser(z_PN, barred[user], wanted, int(history[user]), folds[user])


def _z_scores(block: Block, side: Side, task: FitTask) -> list[FloatArray]:
    """float32 ``[B, N]`` of each feature."""
    size, found = len(side.catalogue), []
    for name, past in task.features:
        scores = fuse(block, side.partners.weighing(name, past), {name: 1.0}, profile=task.profile).parts[0].scores
        found.append(np.broadcast_to(scores.tile(1.0, 0, size, np.float32), (block.num_users, size)))
    return found
