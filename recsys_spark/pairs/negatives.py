"""Explicit negatives: the items that users said they dislike."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.histories import DISLIKE
from recsys_spark.pairs.examples import split_of


def dislikes(events: DataFrame, seed: int, validation_share: float) -> DataFrame:
    """One row per user and item whose newest event is a dislike (label -1); who came to like it later is left out.

    Args:
        events: visible events to fit on.
        seed: of the split.
        validation_share: share of (user, item) in the validation split, by hash.

    Returns:
        ``user_idx int, item_idx int, weight float (of that event), source 'dislike', split string``.
    """
    newest = F.max(F.struct("ts", "event_pos", "event_id", "label", "weight")).alias("newest")
    last = events.groupBy("user_idx", "item_idx").agg(newest).where(F.col("newest.label") == DISLIKE)
    return last.select(
        "user_idx",
        "item_idx",
        F.col("newest.weight").alias("weight"),
        F.lit("dislike").alias("source"),
        split_of(F.col("user_idx"), F.col("item_idx"), seed, validation_share).alias("split"),
    )
