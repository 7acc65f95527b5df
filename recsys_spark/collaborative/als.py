"""Implicit ALS by Spark: factors of items, from which a user's come by one small equation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.signals import AlsShape
from recsys_spark.histories import liked

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]


def item_factors(events: DataFrame, settings: AlsShape, seed: int) -> tuple[Ints, Floats] | None:
    """``(item_idx int32 [N] ascending, factors float32 [N, F])``, or None without any event to fit on.

    The model is that of Hu, Koren and Volinsky 2008 ("Collaborative filtering for implicit feedback datasets"): preference 1
    with confidence 1 + ``confidence`` x (sum of the event weights of that user and item). Dislikes take no part.

    Args:
        events: visible events to fit on (``user_idx, item_idx, weight, label``).
        settings: size of the model.
        seed: of the initial factors; with the fixed numbers of blocks and the sorted input the factors are the same
            each time.
    """
    ratings = _ratings(events, settings.blocks).persist()
    try:
        if ratings.isEmpty():
            return None
        als = ALS(
            rank=settings.factors,
            maxIter=settings.iterations,
            regParam=settings.regularisation,
            implicitPrefs=True,
            alpha=settings.confidence,
            userCol="user_idx",
            itemCol="item_idx",
            ratingCol="rating",
            seed=seed,
            numUserBlocks=settings.blocks,
            numItemBlocks=settings.blocks,
        )
        table = als.fit(ratings).itemFactors.orderBy("id").toArrow()
    finally:
        ratings.unpersist()
    factors = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return table["id"].to_numpy().astype(np.int32), factors.astype(np.float32).reshape(-1, settings.factors)


def _ratings(events: DataFrame, blocks: int) -> DataFrame:
    """``user_idx, item_idx, rating``: exact sums (of decimals), in partitions and an order that do not vary."""
    weighty = liked(events).where(F.col("weight") > 0)
    total = F.sum(F.col("weight").cast("decimal(28,6)")).cast("float")
    summed = weighty.groupBy("user_idx", "item_idx").agg(total.alias("rating")).where("rating > 0")
    return summed.repartition(blocks, "user_idx").sortWithinPartitions("user_idx", "item_idx")
