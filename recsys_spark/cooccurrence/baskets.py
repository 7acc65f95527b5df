"""Baskets out of events: which items were met together, as one narrow frame."""

from __future__ import annotations

from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.histories import DISLIKE

BasketKind = Literal["session", "history", "user_day"]
_MICROS_PER_DAY = 86_400_000_000


def basket_rows(events: DataFrame, kind: BasketKind, likes_only: bool = True) -> DataFrame:
    """One row per event: ``basket bigint, item_idx int, ts timestamp``; repeated items are not yet merged.

    ``kind``: ``session`` (``session_id``), ``history`` (all events of a user) or ``user_day`` (a user's events of one
    UTC day). ``basket`` is a 64-bit hash of the string ids, so that neither the basket nor its cut depends on the order
    in which dense ids were dealt. ``likes_only`` leaves out events with label -1.
    """
    kept = events.where(F.col("label") != DISLIKE) if likes_only else events
    return kept.select(_key(kind).alias("basket"), "item_idx", "ts")


def _key(kind: BasketKind) -> Column:
    day = F.floor(F.unix_micros("ts") / _MICROS_PER_DAY)
    keys: dict[BasketKind, list[Column]] = {
        "session": [F.col("session_id")],
        "history": [F.col("user_id")],
        "user_day": [F.col("user_id"), day],
    }
    return F.xxhash64(*keys[kind])
