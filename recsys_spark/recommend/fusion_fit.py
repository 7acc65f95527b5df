"""Choosing the fusion weights: the combination that ranks validation targets best, with partners that never saw them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.log import get_logger
from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.blocks import fuse, users_per_block
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.matmul import matmul
from recsys_spark.recommend.model import KNOWN, fusion_weights
from recsys_spark.recommend.new_items_fit import NDCG_K, FloorFit, fit_floor
from recsys_spark.recommend.scores import Float64, FloatArray, Ints
from recsys_spark.recommend.side import item_side
from recsys_spark.recommend.users import user_rows, with_targets, with_vectors
from recsys_spark.recommend.worker import Side, block_of
from recsys_spark.threads import one_thread

log = get_logger(__name__)

STEPS = (0.0, 0.1, 0.3, 1.0, 3.0)
POPULARITY_STEPS = (0.0, 0.1, 0.3)
FACTORS = (0.5, 0.7, 1.5, 2.0)  # of the second round, one weight at a time
Weights = dict[str, float]


@dataclass(frozen=True)
class FusionFit:
    """The chosen weights, every candidate with its mean NDCG@10 on validation, best first, and the places of new items."""

    weights: Weights
    table: list[tuple[Weights, float]]
    num_users: int = 0
    floor: FloorFit = field(default_factory=lambda: FloorFit(None))

    def document(self) -> dict[str, Any]:
        """What goes into the model version as ``fusion.json``."""
        return {"segments": {"all": self.weights}, "new_items": self.floor.document()}


def first_round(present: Iterable[str]) -> list[Weights]:
    """A grid with the leading partner (encoder, else co-occurrence, else text) at 1; every partner leads once."""
    names = [name for name in KNOWN if name in present]
    found: list[Weights] = []
    for lead, leader in enumerate(names):
        others = names[lead + 1 :]
        steps = [POPULARITY_STEPS if name == "popularity" else STEPS for name in others]
        found += [_without_zeros({leader: 1.0, **dict(zip(others, point, strict=True))}) for point in itertools.product(*steps)]
    return found


def second_round(best: Weights, present: Iterable[str]) -> list[Weights]:
    """One step along each weight around the best; the leader stays at 1."""
    leader = next(name for name in KNOWN if name in best)
    found: list[Weights] = []
    for name in (n for n in KNOWN if n in present and KNOWN.index(n) > KNOWN.index(leader)):
        values = [best[name] * factor for factor in FACTORS] if name in best else [0.03, 0.05]
        found += [{**best, name: round(value, 4)} for value in values]
    return found


def choose(table: list[tuple[Weights, float]]) -> list[tuple[Weights, float]]:
    """Best first; of equals the one with the fewest partners, then the smallest weights."""
    return sorted(table, key=lambda row: (-round(row[1], 9), len(row[0]), sum(row[0].values()), sorted(row[0].items())))


def fit_weights(config: Config, context: Context, item_vectors: DataFrame | None, user_vectors: DataFrame | None) -> FusionFit:
    """Weights with the best mean NDCG@10 of the validation targets, every item ranked, fit items left out as recommend does.

    Scored are at most ``evaluate.max_fusion_users`` users, drawn by seeded hash. Weights set in the config, or a cutoff
    without validation rows, are taken as they are (or the prior), with an empty table.

    Args:
        item_vectors: ``(item_idx, vector)`` of a model not fitted on validation; None: no encoder takes part.
        user_vectors: ``(user_idx, vector)``, from fit histories.
    """
    fallback = FusionFit(fusion_weights(config.recommend, None, item_vectors is not None), [])
    if config.recommend.weights:
        return fallback
    side = item_side(config, context, item_vectors, context.namespace)
    names = side.partners.present()
    present = [name for name in names if name in config.recommend.partners]
    rows = _validation_users(config, context, user_vectors).persist()
    broadcast = context.spark.sparkContext.broadcast(side)
    try:
        score = functools.partial(_evaluate, rows, broadcast, config)
        table, num_users = score(first_round(present))
        if num_users == 0:
            log.warning("no validation targets: fusion weights are the prior", **fallback.weights)
            return fallback
        table += score(second_round(choose(table)[0][0], present))[0]
        ordered = choose(table)
        floor = fit_floor(config, rows, broadcast, ordered[0][0])
    finally:
        rows.unpersist()
        broadcast.unpersist()
    return FusionFit(ordered[0][0], ordered, num_users, floor)


def _validation_users(config: Config, context: Context, user_vectors: DataFrame | None) -> DataFrame:
    targets = context.events("validation").where("label != -1").select("user_id", "user_idx", "item_idx").distinct()
    order = (F.xxhash64(F.lit(config.seed), "user_id"), F.col("user_id"))
    drawn = targets.select("user_id", "user_idx").distinct().orderBy(*order).limit(config.evaluate.max_fusion_users)
    settings = config.recommend
    fit = context.events("fit").join(drawn.select("user_idx"), "user_idx", "left_semi")
    rows = user_rows(fit, context.users().limit(0), settings.history_items, settings.filter_seen, None, None)
    wanted = targets.join(drawn.select("user_idx"), "user_idx", "left_semi")
    named = with_targets(rows, wanted, context.read("items"))
    tasks = 2 * context.spark.sparkContext.defaultParallelism
    columns = ("user_id", "items", "seen", "vector", "target_idx")
    return with_vectors(named, user_vectors).repartition(tasks, "user_idx").select(*columns)


def _evaluate(
    rows: DataFrame, broadcast: Any, config: Config, candidates: list[Weights]
) -> tuple[list[tuple[Weights, float]], int]:
    """Mean NDCG@10 of each candidate, and the number of users behind it."""
    if not candidates:
        return [], 0
    task = _FitTask(tuple(candidates), config.recommend.history_decay, config.recommend.user_block)
    make = functools.partial(ndcg_batches, broadcast=broadcast, task=task)
    sums = (
        rows.mapInArrow(make, "candidate int, total double, users long").groupBy("candidate").agg(F.sum("total"), F.sum("users"))
    )
    found = {row[0]: (row[1], row[2]) for row in sums.collect()}
    users = max((count for _, count in found.values()), default=0)
    return [(weights, found[i][0] / users) for i, weights in enumerate(candidates) if i in found], int(users)


@dataclass(frozen=True)
class _FitTask:
    candidates: tuple[Weights, ...]
    decay: float
    user_block: int


def ndcg_batches(batches: Iterator[Any], broadcast: Any, task: _FitTask) -> Iterator[Any]:
    """For ``mapInArrow``: the sum of NDCG@10 over this task's users, for each candidate."""
    one_thread()
    side: Side = broadcast.value
    totals, users = np.zeros(len(task.candidates)), 0
    names = side.partners.present()
    weights = np.array([[c.get(name, 0.0) for name in names] for c in task.candidates], np.float32)
    rows = users_per_block(min(task.user_block, 128), len(side.catalogue))
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            part = batch.slice(start, rows)
            totals += _block_ndcg(part, side, task.decay, names, weights)
            users += part.num_rows
    indices = pa.array(range(len(totals)), pa.int32())
    counts = pa.array([users] * len(totals), pa.int64())
    yield pa.RecordBatch.from_arrays([indices, pa.array(totals), counts], names=["candidate", "total", "users"])


def _block_ndcg(batch: Any, side: Side, decay: float, names: tuple[str, ...], weights: FloatArray) -> Float64:
    block = block_of(batch, side, decay)
    fused = fuse(block, side.partners, dict.fromkeys(names, 1.0))
    size = len(side.catalogue)
    z_PBN = np.stack([np.broadcast_to(p.scores.tile(1.0, 0, size, np.float32), (block.num_users, size)) for p in fused.parts])
    barred = np.zeros((block.num_users, size), np.float32)
    Filter(side.catalogue.allowed, block.seen).apply(barred, 0, size)
    lengths, target_idx = flat_list(batch.column("target_idx"))
    positions = side.catalogue.positions(target_idx)
    ends = np.cumsum(lengths)
    total = np.zeros(len(weights))
    for user in range(block.num_users):
        targets = positions[ends[user] - lengths[user] : ends[user]]
        total += user_ndcg(z_PBN[:, user], barred[user], targets, weights)
    return total


def user_ndcg(z_PN: FloatArray, barred_N: FloatArray, targets: Ints, weights_CP: FloatArray) -> Float64:
    """NDCG@10 of one user for each of C candidates: binary relevance, all items ranked, ties in tie order.

    Args:
        z_PN: z-scores of P partners for N items.
        barred_N: 0, or -inf where an item may not be listed; a target there gains nothing.
        targets: positions; -1 is an item outside the catalogue.
        weights_CP: the candidates.
    """
    if not len(targets):
        return np.zeros(len(weights_CP))
    scores_CN = matmul(weights_CP, np.ascontiguousarray(z_PN)) + barred_N
    gains = np.zeros(len(weights_CP))
    for target in targets:
        if target < 0 or not np.isfinite(barred_N[target]):
            continue
        own = scores_CN[:, target, None]
        rank = (scores_CN > own).sum(axis=1) + (scores_CN[:, :target] == own).sum(axis=1) + 1
        gains += np.where(rank <= NDCG_K, 1.0 / np.log2(rank + 1.0), 0.0)
    ideal = (1.0 / np.log2(np.arange(min(len(targets), NDCG_K)) + 2.0)).sum()
    ndcg: Float64 = gains / ideal
    return ndcg


def _without_zeros(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if value != 0.0}


__all__ = ["FusionFit", "choose", "first_round", "fit_weights", "second_round"]
