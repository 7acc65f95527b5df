"""Which users get lists, and what is known of each: history, seen items, vector, profile text, context, targets."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.histories import histories
from recsys_spark.tables.instants import instant


def user_rows(
    history_events: DataFrame,
    users: DataFrame,
    history_items: int,
    filter_seen: bool,
    active_since: datetime | None,
    context_key: str | None,
    segment_key: str | None = None,
) -> DataFrame:
    """One row per user who gets a list: those with a visible event since ``active_since`` (None: ever), and those with a
    profile text and no event. ``user_id, user_idx, items, seen, profile_text, context, segment``; items oldest first, seen with
    disliked ones. The context is the newest event's, else the user's attribute; the segment the other way round.
    """
    met = history_events.groupBy("user_id", "user_idx").agg(
        F.sort_array(F.collect_set("item_idx")).alias("seen"),
        F.max("ts").alias("last_ts"),
        _newest(context_key).alias("last_context"),
        _newest(segment_key).alias("last_segment"),
    )
    likes = histories(history_events, history_items).select("user_idx", "items")
    own = [_value("attributes", context_key).alias("own_context"), _value("attributes", segment_key).alias("own_segment")]
    table = users.select("user_id", "user_idx", "profile_text", *own)
    empty = F.array().cast("array<int>")
    joined = met.join(likes, "user_idx", "left").join(table.drop("user_id"), "user_idx", "left")
    described = table.where("profile_text is not null").join(met.select("user_idx"), "user_idx", "left_anti")
    rows = joined.unionByName(described, allowMissingColumns=True)
    if active_since is not None:
        moment = instant(active_since)
        rows = rows.where((F.col("last_ts") >= moment) | F.col("last_ts").isNull())  # who has a profile alone is no one's past
    return rows.select(
        "user_id",
        "user_idx",
        F.coalesce("items", empty).alias("items"),
        (F.coalesce("seen", empty) if filter_seen else empty).alias("seen"),
        "profile_text",
        F.coalesce("last_context", "own_context").alias("context"),
        F.coalesce("own_segment", "last_segment").alias("segment"),
    )


def _value(map_column: str, key: str | None) -> Column:
    return F.lit(None).cast("string") if key is None else F.element_at(map_column, F.lit(key))


def _newest(key: str | None) -> Column:
    """The value that the newest event of a group with one has under ``key``."""
    value = _value("context", key)
    return F.max_by(value, F.when(value.isNotNull(), F.struct("ts", "event_pos", "event_id")))


def with_vectors(rows: DataFrame, vectors: DataFrame | None) -> DataFrame:
    """Add ``vector`` out of ``(user_idx, vector)``; null where the encoder knows nothing of a user."""
    if vectors is None:
        return rows.withColumn("vector", F.lit(None).cast("array<float>"))
    return rows.join(vectors.select("user_idx", "vector"), "user_idx", "left")


def with_targets(rows: DataFrame, targets: DataFrame | None, items: DataFrame) -> DataFrame:
    """Add ``target_idx`` and ``target_ids`` (arrays in one order); users with a target and no row of their own get one.

    ``targets``: ``(user_id, user_idx, item_idx)``; ``items``: the whole items table, for the ids of items not visible.
    """
    none_idx, none_ids = F.array().cast("array<int>"), F.array().cast("array<string>")
    if targets is None:
        return rows.withColumn("target_idx", none_idx).withColumn("target_ids", none_ids)
    named = targets.select("user_id", "user_idx", "item_idx").distinct().join(items.select("item_idx", "item_id"), "item_idx")
    wanted = named.groupBy("user_id", "user_idx").agg(F.sort_array(F.collect_list(F.struct("item_idx", "item_id"))).alias("t"))
    pairs = wanted.select(
        F.col("user_id").alias("target_user"), "user_idx", F.col("t.item_idx").alias("idx"), F.col("t.item_id").alias("ids")
    )
    joined = rows.join(pairs, "user_idx", "full")
    empty = F.array().cast("array<int>")
    filled = {
        "user_id": F.coalesce("user_id", "target_user"),
        "items": F.coalesce("items", empty),
        "seen": F.coalesce("seen", empty),
    }
    return (
        joined.withColumns(filled)
        .withColumn("target_idx", F.coalesce("idx", none_idx))
        .withColumn("target_ids", F.coalesce("ids", none_ids))
        .drop("target_user", "idx", "ids")
    )


def active_since(last_moment: datetime, active_days: int | None) -> datetime | None:
    """Start of the last ``active_days`` days before ``last_moment``; None for no limit."""
    return None if active_days is None else last_moment - timedelta(days=active_days)
