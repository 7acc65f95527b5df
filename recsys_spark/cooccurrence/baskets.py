"""Baskets out of events: which items were met together, as one narrow frame."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.signals import BasketKind, CooccurrenceSettings
from recsys_spark.cooccurrence.grouping import ANCHOR, TARGET
from recsys_spark.histories import liked
from recsys_spark.tables.instants import MICROS_PER_DAY


def basket_rows(events: DataFrame, settings: CooccurrenceSettings, *more: str) -> DataFrame:
    """One row per event: ``basket bigint, owner bigint, item_idx int, ts timestamp, weight float``, and for cross-behaviour
    ``side tinyint``; repeated items are not yet merged.

    A basket is a session (``session_id``), a history (all events of a user) or a user's events of one UTC day. ``basket``
    and ``owner`` are 64-bit hashes of the string ids, so that neither the basket nor its cut depends on the order in which
    dense ids were dealt. With ``likes_only``, events with label -1 are left out. ``more``: further columns of the events.
    """
    kept = liked(events) if settings.likes_only else events
    owner = F.xxhash64("user_id").alias("owner")
    columns: list[Any] = [basket_key(settings.basket).alias("basket"), owner, "item_idx", "ts", "weight", *more]
    if not settings.crosses:
        return kept.select(*columns)
    anchor, target = _bit(settings.anchor_types, ANCHOR), _bit(settings.target_types, TARGET)
    return kept.select(*columns, (anchor + target).cast("tinyint").alias("side")).where("side != 0")


def _bit(event_types: list[str], side: int) -> Column:
    """The side's bit where an event may take it; no types: any event may."""
    return F.when(F.col("event_type").isin(event_types), side).otherwise(0) if event_types else F.lit(side)


def basket_key(kind: BasketKind) -> Column:
    """``basket`` of an event: a 64-bit hash of what its basket is known by."""
    day = F.floor(F.unix_micros("ts") / MICROS_PER_DAY)
    keys: dict[BasketKind, list[Column]] = {
        "session": [F.col("session_id")],
        "history": [F.col("user_id")],
        "user_day": [F.col("user_id"), day],
    }
    return F.xxhash64(*keys[kind])
