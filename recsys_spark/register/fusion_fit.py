"""Choosing how partners are fused: what ranks validation targets best, with partners that never saw them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.draw import drawn_users
from recsys_spark.histories import liked
from recsys_spark.log import get_logger
from recsys_spark.recommend.fusion import Fusion, Weights
from recsys_spark.recommend.model import KNOWN, POPULARITY, fusion_weights, half_life_days
from recsys_spark.recommend.scoring.partners import PAST, Partners
from recsys_spark.recommend.side import Recency, item_side
from recsys_spark.recommend.users import user_rows, with_targets, with_vectors
from recsys_spark.register.fusion_examples import Examples, in_reach, joined
from recsys_spark.register.fusion_ndcg import Feature, FitTask, ScoredUser, candidate_totals, ideal_share, mean_ndcg, scored_users
from recsys_spark.register.fusion_search import search
from recsys_spark.register.new_items_fit import PlacesFit, fit_places
from recsys_spark.register.rerank_fit import RerankFit, fit_rerank
from recsys_spark.segments import item_codes
from recsys_spark.threads import one_thread

log = get_logger(__name__)

DECAYS = (1.0, 0.9, 0.8, 0.7, 0.5, 0.3)
HALF_LIVES_DAYS = (365.0, 90.0, 30.0, 14.0, 7.0, 3.0, 1.0, 0.25, 0.05)  # of what is popular; and none
DECAY_USERS = 4_000  # that decays are compared on
LISTED = 100  # best items of each partner that stand against a target
_EXAMPLE = (
    "z array<float>, earlier array<boolean>, segment array<tinyint>, target_z array<float>, target_segment tinyint, "
    "history tinyint, share double, fold tinyint"
)


@dataclass(frozen=True)
class FusionFit:
    """The chosen fusion; it and each partner alone with their mean NDCG@10 on validation; the places of
    new items, and how much lists may vary."""

    fusion: Fusion
    table: list[tuple[Weights, float]]
    num_users: int = 0
    places: PlacesFit = field(default_factory=lambda: PlacesFit(None))
    rerank: RerankFit = field(default_factory=RerankFit)

    def document(self) -> dict[str, Any]:
        """What goes into the model version as ``fusion.json``."""
        return self.fusion.document() | {"new_items": self.places.document(), "rerank": self.rerank.document()}


def fit_fusion(config: Config, context: Context, item_vectors: DataFrame | None, user_vectors: DataFrame | None) -> FusionFit:
    """The fusion that ranks validation targets best, fit items left out as recommend does.

    First each partner alone chooses how it weighs the past; then weights are fitted (``fusion_likelihood``), and segments
    searched where they prove themselves, on short lists (``fusion_examples``). Scored are at most
    ``evaluate.max_fusion_users`` users, drawn by seeded hash. Users without a history get popular lists and have a say in the
    half-life of these alone. Weights set in the config are taken as they are, and so is the prior without validation rows, with
    an empty table; the places of new items are chosen beside given weights too.

    Args:
        item_vectors: ``(item_idx, vector)`` of a model not fitted on validation; None: no encoder takes part.
        user_vectors: ``(user_idx, vector)``, from fit histories.
    """
    settings = config.recommend
    prior = Fusion(fusion_weights(settings, None, item_vectors is not None), half_life_days=half_life_days(settings, None))
    fallback, given = FusionFit(prior, []), bool(settings.weights)
    if given and not settings.new_items_per_ten:
        return fallback
    open_to_choice = settings.popularity_half_life_days is None and not given
    recency = Recency(HALF_LIVES_DAYS, by_context=False) if open_to_choice else Recency.at(prior.half_life_days, by_context=False)
    side = item_side(config, context, item_vectors, context.namespace, recency=recency)
    names: list[str] = [name for name in KNOWN if name in side.partners.present() and name in config.recommend.partners]
    rows = _validation_users(config, context, user_vectors).persist()
    held = [context.spark.sparkContext.broadcast(side)]
    try:
        met_something = F.size("items") > 0
        known = rows.where(met_something)
        num_rows, num_users = rows.select(F.count(F.lit(1)), F.count(F.when(met_something, 1))).collect()[0]
        tried: list[tuple[Weights, float]] = []
        if given:
            fusion = prior
        else:
            past = _past_of_each(rows, num_rows, held[0], config, list(dict.fromkeys([*names, POPULARITY])))
            if num_users == 0:
                log.warning("no validation targets of users with a history: weights are the prior", **fallback.fusion.weights)
                return replace(fallback, fusion=replace(prior, half_life_days=past[POPULARITY]))
            fusion, tried = _chosen(known, num_users, held[0], config, [(name, past[name]) for name in names], past[POPULARITY])
        held.append(context.spark.sparkContext.broadcast(side.fused_by(fusion, config.evaluate)))
        places = fit_places(config, known, held[-1], fusion.weights)
        rerank = fit_rerank(config, known, held[-1], fusion.weights, places.new_items)
    finally:
        rows.unpersist()
        for shared in held:
            shared.unpersist()
    return FusionFit(fusion, sorted(tried, key=lambda row: -row[1]), num_users, places, rerank)


def _chosen(
    known: DataFrame, num_users: int, broadcast: Any, config: Config, features: list[Feature], half_life: float | None
) -> tuple[Fusion, list[tuple[Weights, float]]]:
    """The fusion that is found, and what it and each partner alone reach."""
    names = [name for name, _ in features]
    examples = _examples(known, num_users, broadcast, config, features)
    decays = {name: decay for name, decay in features if decay is not None and name != POPULARITY}
    fusion = replace(search(examples, names, decays), half_life_days=half_life)
    return fusion, mean_ndcg(known, broadcast, config, features, [*({name: 1.0} for name in names), fusion.weights])[0]


def fusion_users(config: Config, context: Context) -> DataFrame:
    """``user_id, user_idx`` of the users of the validation that weights are fitted on."""

    def drawn() -> DataFrame:
        asked = liked(context.events("validation")).select("user_id", "user_idx").distinct()
        return context.kept(drawn_users(asked, config.evaluate.max_fusion_users, config.seed))

    return context.once("fusion users", drawn)


def _validation_users(config: Config, context: Context, user_vectors: DataFrame | None) -> DataFrame:
    targets = liked(context.events("validation")).select("user_id", "user_idx", "item_idx").distinct()
    drawn = fusion_users(config, context)
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


def _past_of_each(rows: DataFrame, num_users: int, broadcast: Any, config: Config, names: list[str]) -> dict[str, float | None]:
    """Each partner with the memory of the past at which it ranks best alone, of equals the longest; to all that knows of
    histories alone, users without one are all the same."""
    every: list[Feature] = [(name, past) for name in names for past in _pasts(name, broadcast.value.partners, config)]
    share = int(np.ceil(10_000 * min(1.0, DECAY_USERS / max(num_users, 1))))
    few = rows.where(F.pmod(F.xxhash64(F.lit(config.seed + 2), "user_id"), F.lit(10_000)) < share)
    totals, _ = candidate_totals(few, broadcast, config, every, None)
    best = {name: max((p for p, f in enumerate(every) if f[0] == name), key=lambda p: (totals[p], -p)) for name in names}
    return {name: every[best[name]][1] for name in names}


def _pasts(name: str, partners: Partners, config: Config) -> Sequence[float | None]:
    """What the partner has to choose from, the longest memory first; popularity: half-lives in days."""
    if name == POPULARITY:
        known = sorted(partners.popularity.recent, reverse=True)
        return known if config.recommend.popularity_half_life_days else (None, *known)
    return DECAYS if name in PAST and config.recommend.history_decay is None else (None,)


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
    for user in scored_users(batches, broadcast.value, task):
        rows = list(examples_of(user, codes))
        if rows:
            columns = [pa.array(list(column), kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, names=names)


def examples_of(user: ScoredUser, codes: Any, length: int = LISTED) -> Iterator[tuple[Any, ...]]:
    """A row of ``_EXAMPLE`` for each target within reach, against the others there. What is within reach is found out once: all
    targets of a user share it but for their own place."""
    reach = in_reach(user.z_PN, user.barred_N, length)
    place_of = {item: place for place, item in enumerate(reach.tolist())}
    z, share = np.ascontiguousarray(user.z_PN[:, reach].T), ideal_share(len(user.targets))
    for place in [place_of[target] for target in user.targets.tolist() if target in place_of]:
        others = np.delete(reach, place)
        if len(others):
            rows = (np.delete(z, place, axis=0).ravel(), others < reach[place], codes[others])
            yield *rows, z[place], int(codes[reach[place]]), user.history, share, user.fold
