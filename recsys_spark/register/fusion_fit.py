"""Choosing how partners are fused: what ranks validation targets best, with partners that never saw them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.log import get_logger
from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.fusion import Fusion, Weights
from recsys_spark.recommend.model import KNOWN, fusion_weights
from recsys_spark.recommend.scoring.blocks import Block, fuse, users_per_block
from recsys_spark.recommend.scoring.matmul import matmul
from recsys_spark.recommend.scoring.partners import PAST
from recsys_spark.recommend.scoring.scores import Float64, FloatArray, Ints
from recsys_spark.recommend.side import item_side
from recsys_spark.recommend.users import user_rows, with_targets, with_vectors
from recsys_spark.recommend.worker import Side, block_of
from recsys_spark.register.fusion_examples import NDCG_K, Examples, joined, short_list
from recsys_spark.register.fusion_search import search
from recsys_spark.register.new_items_fit import PlacesFit, fit_places
from recsys_spark.segments import history_codes, item_codes
from recsys_spark.threads import one_thread

log = get_logger(__name__)

DECAYS = (1.0, 0.9, 0.8, 0.7, 0.5, 0.3)
DECAY_USERS = 4_000  # that decays are compared on
LISTED = 100  # best items of each partner that stand against a target
_EXAMPLE = (
    "z array<float>, earlier array<boolean>, segment array<tinyint>, target_z array<float>, target_segment tinyint, "
    "history tinyint, share double, fold tinyint"
)
Feature = tuple[str, float | None]  # a partner, and how it weighs the past


@dataclass(frozen=True)
class FusionFit:
    """The chosen fusion; it and each partner alone with their mean NDCG@10 on validation; and the places of new items."""

    fusion: Fusion
    table: list[tuple[Weights, float]]
    num_users: int = 0
    places: PlacesFit = field(default_factory=lambda: PlacesFit(None))

    def document(self) -> dict[str, Any]:
        """What goes into the model version as ``fusion.json``."""
        return self.fusion.document() | {"new_items": self.places.document()}


def fit_fusion(config: Config, context: Context, item_vectors: DataFrame | None, user_vectors: DataFrame | None) -> FusionFit:
    """The fusion that ranks validation targets best, fit items left out as recommend does.

    First each partner alone chooses how it weighs the past; then weights are fitted (``fusion_likelihood``), and segments
    searched where they prove themselves, on short lists (``fusion_examples``). Scored are at most
    ``evaluate.max_fusion_users`` users, drawn by seeded hash. Weights set in the config, or a cutoff without validation rows,
    are taken as they are (or the prior), with an empty table.

    Args:
        item_vectors: ``(item_idx, vector)`` of a model not fitted on validation; None: no encoder takes part.
        user_vectors: ``(user_idx, vector)``, from fit histories.
    """
    fallback = FusionFit(Fusion(fusion_weights(config.recommend, None, item_vectors is not None)), [])
    if config.recommend.weights:
        return fallback
    side = item_side(config, context, item_vectors, context.namespace)
    names: list[str] = [name for name in KNOWN if name in side.partners.present() and name in config.recommend.partners]
    rows = _validation_users(config, context, user_vectors).persist()
    held = [context.spark.sparkContext.broadcast(side)]
    try:
        num_users = rows.count()
        if num_users == 0:
            log.warning("no validation targets: fusion weights are the prior", **fallback.fusion.weights)
            return fallback
        features = _past_of_each(rows, num_users, held[0], config, names)
        examples = _examples(rows, num_users, held[0], config, features)
        fusion = search(examples, names, {name: decay for name, decay in features if decay is not None})
        tried = mean_ndcg(rows, held[0], config, features, [*({name: 1.0} for name in names), fusion.weights])[0]
        held.append(context.spark.sparkContext.broadcast(side.fused_by(fusion, config.evaluate)))
        places = fit_places(config, rows, held[-1], fusion.weights)
    finally:
        rows.unpersist()
        for shared in held:
            shared.unpersist()
    return FusionFit(fusion, sorted(tried, key=lambda row: -row[1]), num_users, places)


def drawn_users(users: DataFrame, config: Config) -> DataFrame:
    """At most ``evaluate.max_fusion_users`` of them, drawn by seeded hash of ``user_id``."""
    order = (F.xxhash64(F.lit(config.seed), "user_id"), F.col("user_id"))
    return users.orderBy(*order).limit(config.evaluate.max_fusion_users)


def _validation_users(config: Config, context: Context, user_vectors: DataFrame | None) -> DataFrame:
    targets = context.events("validation").where("label != -1").select("user_id", "user_idx", "item_idx").distinct()
    drawn = drawn_users(targets.select("user_id", "user_idx").distinct(), config)
    settings = config.recommend
    fit = context.events("fit").join(drawn.select("user_idx"), "user_idx", "left_semi")
    rows = user_rows(fit, context.users().limit(0), settings.history_items, settings.filter_seen, None, None)
    wanted = targets.join(drawn.select("user_idx"), "user_idx", "left_semi")
    named = with_targets(rows, wanted, context.read("items"))
    tasks = 2 * context.spark.sparkContext.defaultParallelism
    fold = F.pmod(F.xxhash64(F.lit(config.seed + 1), "user_id"), F.lit(2)).cast("int").alias("fold")
    columns = ("user_id", "items", "seen", "vector", "target_idx", fold)
    return with_vectors(named, user_vectors).repartition(tasks, "user_idx").select(*columns)


# -- how each partner weighs the past -----------------------------------------------------------------------------


def _past_of_each(rows: DataFrame, num_users: int, broadcast: Any, config: Config, names: list[str]) -> list[Feature]:
    """Each partner with the decay at which it ranks best alone, of equals the largest."""
    open_to_choice = config.recommend.history_decay is None
    every: list[Feature] = [(n, d) for n in names for d in (DECAYS if n in PAST and open_to_choice else (None,))]
    share = int(np.ceil(10_000 * min(1.0, DECAY_USERS / num_users)))
    few = rows.where(F.pmod(F.xxhash64(F.lit(config.seed + 2), "user_id"), F.lit(10_000)) < share)
    candidates = np.eye(len(every), dtype=np.float32)
    totals, _ = _totals(few, broadcast, config, every, candidates)
    best = {name: max((p for p, f in enumerate(every) if f[0] == name), key=lambda p: (totals[p], -p)) for name in names}
    return [every[best[name]] for name in names]


# -- exact NDCG of candidates -------------------------------------------------------------------------------------


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
        features: the partners that candidates weigh, each with its decay.
        candidates: weights; a partner that one does not name has 0.
        profile: text is scored by ``profile_text``, which rows have, too, not by what users have met.
    """
    names = [name for name, _ in features]
    matrix = np.array([[c.get(name, 0.0) for name in names] for c in candidates], np.float32)
    totals, users = _totals(rows, broadcast, config, features, matrix, profile)
    return [(weights, float(total) / max(users, 1)) for weights, total in zip(candidates, totals, strict=True)], users


def _totals(
    rows: DataFrame, broadcast: Any, config: Config, features: list[Feature], candidates: FloatArray, profile: bool = False
) -> tuple[Float64, int]:
    task = FitTask(tuple(features), candidates, config.recommend.decay, config.recommend.user_block, profile)
    make = functools.partial(ndcg_batches, broadcast=broadcast, task=task)
    sums = (
        rows.mapInArrow(make, "candidate int, total double, users long").groupBy("candidate").agg(F.sum("total"), F.sum("users"))
    )
    totals, users = np.zeros(len(candidates)), 0
    for place, total, number in sums.collect():
        totals[place], users = total, max(users, int(number))
    return totals, users


@dataclass(frozen=True)
class FitTask:
    """What a task computes: ``features`` are the P columns that candidates ``[C, P]`` weigh."""

    features: tuple[Feature, ...]
    candidates: FloatArray
    decay: float
    user_block: int
    profile: bool = False  # text is scored by the users' profile texts


def ndcg_batches(batches: Iterator[Any], broadcast: Any, task: FitTask) -> Iterator[Any]:
    """For ``mapInArrow``: the sum of NDCG@10 over this task's users, for each candidate."""
    one_thread()
    totals, users = np.zeros(len(task.candidates)), 0
    for user in _users(batches, broadcast.value, task):
        totals += user_ndcg(user.z_PN, user.barred_N, user.targets, task.candidates)
        users += 1
    indices = pa.array(range(len(totals)), pa.int32())
    counts = pa.array([users] * len(totals), pa.int64())
    yield pa.RecordBatch.from_arrays([indices, pa.array(totals), counts], names=["candidate", "total", "users"])


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
    ndcg: Float64 = gains * _share(len(targets))
    return ndcg


def _share(num_targets: int) -> float:
    """1 / the best DCG@10 that a user with so many targets could have."""
    return 1.0 / float((1.0 / np.log2(np.arange(min(num_targets, NDCG_K)) + 2.0)).sum())


@dataclass(frozen=True)
class _User:
    z_PN: FloatArray
    barred_N: FloatArray
    targets: Ints
    history: int
    fold: int


def _users(batches: Iterator[Any], side: Side, task: FitTask) -> Iterator[_User]:
    size = len(side.catalogue)
    rows = users_per_block(min(task.user_block, 128), size * max(1, len(task.features) // 4))
    for whole in batches:
        for start in range(0, whole.num_rows, rows):
            batch = whole.slice(start, rows)
            block = block_of(batch, side, task.decay)
            z_PBN = _z_scores(block, side, task)
            barred = np.zeros((block.num_users, size), np.float32)
            Filter(side.catalogue.allowed, block.seen).apply(barred, 0, size)
            lengths, target_idx = flat_list(batch.column("target_idx"))
            targets, ends = side.catalogue.positions(target_idx), np.cumsum(lengths)
            history = history_codes(flat_list(batch.column("items"))[0])
            folds = batch.column("fold").to_pylist() if "fold" in batch.schema.names else [0] * block.num_users
            for user in range(block.num_users):
                wanted = targets[ends[user] - lengths[user] : ends[user]]
                yield _User(z_PBN[:, user], barred[user], wanted, int(history[user]), folds[user])


def _z_scores(block: Block, side: Side, task: FitTask) -> FloatArray:
    """float32 ``[P, B, N]``."""
    size, found = len(side.catalogue), []
    for name, decay in task.features:
        partners = replace(side.partners, decays={} if decay is None else {name: decay}, weight_factors={})
        scores = fuse(block, partners, {name: 1.0}, profile=task.profile).parts[0].scores
        found.append(np.broadcast_to(scores.tile(1.0, 0, size, np.float32), (block.num_users, size)))
    return np.stack(found)


# -- short lists --------------------------------------------------------------------------------------------------


def _examples(rows: DataFrame, num_users: int, broadcast: Any, config: Config, features: list[Feature]) -> Examples:
    none = np.zeros((0, len(features)), np.float32)
    task = FitTask(tuple(features), none, config.recommend.decay, config.recommend.user_block)
    counts = broadcast.value.partners.popularity.counts
    codes = item_codes(counts, config.evaluate.head_share, config.evaluate.tail_share)
    make = functools.partial(example_batches, broadcast=broadcast, task=task, codes=codes)
    found = rows.mapInArrow(make, _EXAMPLE).toArrow()
    return joined(found, num_users, len(features))


def example_batches(batches: Iterator[Any], broadcast: Any, task: FitTask, codes: Any) -> Iterator[Any]:
    """For ``mapInArrow``: one row per target that is in reach (``_EXAMPLE``)."""
    one_thread()
    kinds = [
        pa.list_(pa.float32()),
        pa.list_(pa.bool_()),
        pa.list_(pa.int8()),
        pa.list_(pa.float32()),
        pa.int8(),
        pa.int8(),
        pa.float64(),
        pa.int8(),
    ]
    names = ["z", "earlier", "segment", "target_z", "target_segment", "history", "share", "fold"]
    for user in _users(batches, broadcast.value, task):
        rows = [row for target in user.targets if (row := _example(user, int(target), codes)) is not None]
        if rows:
            columns = [pa.array(list(column), kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, names=names)


def _example(user: _User, target: int, codes: Any) -> tuple[Any, ...] | None:
    if target < 0:
        return None
    listed = short_list(user.z_PN, user.barred_N, target, LISTED)
    if not len(listed):
        return None
    own, rows = user.z_PN[:, target], np.ascontiguousarray(user.z_PN[:, listed].T)
    parts = (rows.ravel(), listed < target, codes[listed], own)
    return (*parts, int(codes[target]), user.history, _share(len(user.targets)), user.fold)


__all__ = ["FusionFit", "drawn_users", "fit_fusion", "mean_ndcg"]
