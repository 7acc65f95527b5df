"""Explicit negatives: what users said they dislike, what they were shown and left alone, and what was mined for them."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.histories import DISLIKE, histories
from recsys_spark.pairs.examples import TRAIN, split_of
from recsys_spark.pairs.sequences import PADDING


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


def shown(impressions: DataFrame, events: DataFrame, at_least: int, seed: int, validation_share: float) -> DataFrame:
    """One row per user and item that was shown to them ``at_least`` times and that no event of theirs names.

    Args:
        impressions: visible events that only say an item was shown, up to the same instant as ``events``.
        events: visible events to fit on; an item that nobody had one with is left out: it says nothing about the user.

    Returns:
        As ``dislikes``, with source 'shown'; the weight is 1.
    """
    counted = impressions.groupBy("user_idx", "item_idx").agg(F.count(F.lit(1)).alias("times"))
    alone = counted.where(F.col("times") >= at_least).join(events, ["user_idx", "item_idx"], "left_anti")
    known = alone.join(events.select("item_idx"), "item_idx", "left_semi")
    return known.select(
        "user_idx",
        "item_idx",
        F.lit(1.0).cast("float").alias("weight"),
        F.lit("shown").alias("source"),
        split_of(F.col("user_idx"), F.col("item_idx"), seed, validation_share).alias("split"),
    )


def mined(found: DataFrame, seed: int, validation_share: float) -> DataFrame:
    """Rows of table mined_negatives as those of ``dislikes``, with source 'mined'; the weight is the score, .01 to 1: the
    harder, the heavier."""
    return found.select(
        "user_idx",
        "item_idx",
        F.least(F.greatest("score", F.lit(0.01)), F.lit(1.0)).cast("float").alias("weight"),
        F.lit("mined").alias("source"),
        split_of(F.col("user_idx"), F.col("item_idx"), seed, validation_share).alias("split"),
    )


def training_negatives(negatives: DataFrame, events: DataFrame, per_user: int, max_history: int) -> DataFrame:
    """What the ranks read: users with something they do not want, their newest items, and what it is.

    Args:
        negatives: the table; rows of its train split are used.
        events: visible events to fit on.
        per_user: most items of a user: the heaviest, dislikes before others of the same weight, then the lower item_idx.
        max_history: items before the last in ``items``.

    Returns:
        ``user_idx int, items array<int> [max_history + 1]`` (oldest first, padded on the left with -1), ``unwanted array<int>
        [per_user]`` (padded on the right with -1), ``weight float`` (mean of the kept ones'). Users with fewer than two
        items in their history have no row.
    """
    order = F.struct(-F.col("weight"), F.col("source") != "dislike", "item_idx")
    kept = F.slice(F.array_sort(F.collect_list(order)), 1, per_user)
    by_user = negatives.where(F.col("split") == TRAIN).groupBy("user_idx").agg(kept.alias("kept"))
    items = F.transform("kept", lambda row: row["item_idx"])
    weight = F.aggregate("kept", F.lit(0.0).cast("double"), lambda total, row: total - row["col1"]) / F.size("kept")
    past = histories(events, max_history + 1).where(F.size("items") >= 2).select("user_idx", "items")
    return past.join(by_user, "user_idx").select(
        "user_idx",
        F.concat(F.array_repeat(F.lit(PADDING), max_history + 1 - F.size("items")), "items").alias("items"),
        F.concat(items, F.array_repeat(F.lit(PADDING), per_user - F.size("kept"))).alias("unwanted"),
        weight.cast("float").alias("weight"),
    )
