"""Weights for users of whom only a profile text is known, chosen on those who came after everything was fitted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.draw import drawn_users
from recsys_spark.histories import liked
from recsys_spark.log import get_logger
from recsys_spark.recommend.fusion import Weights
from recsys_spark.recommend.model import POPULARITY
from recsys_spark.recommend.side import Recency, item_side
from recsys_spark.recommend.users import with_vectors
from recsys_spark.register.fusion_ndcg import Feature, mean_ndcg

log = get_logger(__name__)

MIN_PROFILE_USERS = 100  # fewer tell words from popularity by chance
_LEVELS = (0.0, 0.1, 0.25, 0.5, 1.0)
POPULAR = {"popularity": 1.0}
Vectors = Callable[[DataFrame], DataFrame]


@dataclass(frozen=True)
class ProfileFit:
    """The chosen weights with their mean NDCG@10, that of the popular list, and how many users are behind both."""

    weights: Weights
    ndcg: float
    popular_ndcg: float
    num_users: int

    def document(self) -> dict[str, Any]:
        """For the report."""
        figures = {"ndcg": round(self.ndcg, 6), "popular_ndcg": round(self.popular_ndcg, 6), "users": self.num_users}
        return {"weights": self.weights, **figures}


def fit_profiles(
    config: Config,
    context: Context,
    item_vectors: DataFrame | None,
    vectors: Vectors | None,
    half_life_days: float | None = None,
) -> ProfileFit | None:
    """The weights of profile words, profile vector and popularity with the best mean NDCG@10; popularity alone among equals.

    The users are those with validation events, a profile text and no event before: neither a tower nor a partner has seen
    them, which others with the same text could not be sure of. None where the weights are set in the config, or such users
    are fewer than ``MIN_PROFILE_USERS``.

    Args:
        item_vectors: ``(item_idx, vector)``; None: no encoder takes part.
        vectors: gives ``(user_idx, vector)`` of rows of users; None: users have no vectors by their profiles.
        half_life_days: of what is popular; None: all events count alike.
    """
    if config.recommend.profile_weights:
        return None
    newcomers = _newcomers(config, context).persist()
    try:
        num_users = newcomers.count()
        if num_users < MIN_PROFILE_USERS:
            return None
        return _best(config, context, newcomers, item_vectors, vectors, half_life_days)
    finally:
        newcomers.unpersist()


def _best(
    config: Config,
    context: Context,
    newcomers: DataFrame,
    item_vectors: DataFrame | None,
    vectors: Vectors | None,
    half_life: float | None,
) -> ProfileFit | None:
    recency = Recency.at(half_life, by_context=False)
    side = item_side(config, context, item_vectors, context.namespace, recency=recency)
    if side.partners.text is None:
        return None
    names = ["text", *(["encoder"] if vectors is not None and item_vectors is not None else []), POPULARITY]
    features: list[Feature] = [(name, half_life if name == POPULARITY else None) for name in names]
    rows = with_vectors(newcomers, None if vectors is None else vectors(newcomers.select("user_idx")))
    broadcast = context.spark.sparkContext.broadcast(side)
    try:
        tried, users = mean_ndcg(rows, broadcast, config, features, candidates(names), profile=True)
    finally:
        broadcast.unpersist()
    weights, ndcg = max(tried, key=lambda row: row[1])  # of equals the first, what is popular
    found = ProfileFit(weights, ndcg, tried[0][1], users)
    log.info("weights of profile texts chosen on new users of the validation", **found.document())
    return found


def candidates(names: list[str]) -> list[Weights]:
    """What is popular, then every other combination of ``_LEVELS`` whose largest is 1."""
    grid = [
        dict(zip(names, levels, strict=True)) for levels in itertools.product(_LEVELS, repeat=len(names)) if max(levels) == 1.0
    ]
    return [POPULAR, *(each for each in grid if any(weight for name, weight in each.items() if name != "popularity"))]


def _newcomers(config: Config, context: Context) -> DataFrame:
    """Rows as ``recommend.users.user_rows`` has them, without a vector, of a seeded draw."""
    targets = liked(context.events("validation")).select("user_idx", "item_idx").distinct()
    described = context.users().where("profile_text IS NOT NULL").select("user_id", "user_idx", "profile_text")
    known = context.events("fit").select("user_idx").distinct()
    wanted = targets.groupBy("user_idx").agg(F.sort_array(F.collect_list("item_idx")).alias("target_idx"))
    empty = F.array().cast("array<int>")
    tasks = 2 * context.spark.sparkContext.defaultParallelism
    newcomers = described.join(wanted, "user_idx").join(known, "user_idx", "left_anti")
    columns = ("user_id", "user_idx", empty.alias("items"), empty.alias("seen"), "profile_text", "target_idx")
    drawn = drawn_users(newcomers, config.evaluate.max_fusion_users, config.seed)
    return drawn.repartition(tasks, "user_idx").select(*columns)
