"""User histories: the last items of each user in order, as training, embedding and scoring all need them."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.moments import GAP, HOUR, WEEKDAY, Part

DISLIKE, NEUTRAL, LIKE = -1, 0, 1  # of an event


def liked(events: DataFrame) -> DataFrame:
    """All events but those that say no."""
    return events.where(F.col("label") != DISLIKE)


def histories(events: DataFrame, max_items: int, parts: Sequence[Part] = ()) -> DataFrame:
    """The last ``max_items`` events of each user, oldest first; disliked items (label -1) are left out.

    Ties in time keep the log's order (``event_pos``). Returns one row per user with at least one such event:
    ``user_id string, user_idx int, items array<int>, num_events int`` (num_events counts all, not just the kept), and
    ``moments array<bigint>`` where parts of them are asked for: when and where each event was (see ``moments_of``).
    """
    entry = F.struct("ts", "event_pos", "event_id", "item_idx", *([_where(parts).alias("_where")] if parts else []))
    ordered = F.array_sort(F.collect_list(entry))
    first = F.greatest(F.lit(1), F.size("ordered") - int(max_items) + 1)
    items = F.transform(F.slice("ordered", first, F.lit(int(max_items))), lambda e: e["item_idx"])
    told = [F.slice(moments_of(F.col("ordered"), parts), first, F.lit(int(max_items))).alias("moments")] if parts else []
    return (
        liked(events)
        .groupBy("user_id", "user_idx")
        .agg(ordered.alias("ordered"))
        .select(
            "user_id",
            "user_idx",
            items.alias("items"),
            F.size("ordered").alias("num_events"),
            *told,
        )
    )


def moments_of(ordered: Column, parts: Sequence[Part]) -> Column:
    """The moment of each event (``recsys_spark.config.moments``), array<bigint>, of an array of structs with ``ts`` and
    ``_where``.

    A gap is the number of binary digits of the seconds plus one, so each is twice as long as the one before; 0 at the first.
    """
    units = {part.name: part for part in parts}

    def moment(event: Column, place: Column) -> Column:
        if GAP not in units:
            return event["_where"]
        seconds = F.unix_seconds(event["ts"]) - F.unix_seconds(F.get(ordered, place - 1)["ts"])
        digits = F.least(F.length(F.bin(F.greatest(seconds, F.lit(0)) + 1)), F.lit(units[GAP].size - 1))
        return event["_where"] + F.when(place == 0, F.lit(0)).otherwise(digits * units[GAP].unit)

    return F.transform(ordered, moment)


def _where(parts: Sequence[Part]) -> Column:
    """The parts of a moment that an event tells by itself."""
    total = F.lit(0).cast("bigint")
    for part in parts:
        if part.name != GAP:
            total = total + value_of(part) * F.lit(part.unit)
    return total


def value_of(part: Part) -> Column:
    """What an event says of a part other than the gap, from 1; 0 where it does not."""
    if part.name == HOUR:
        return F.hour("ts") + 1
    if part.name == WEEKDAY:
        return F.dayofweek("ts")
    said = F.element_at("context", F.lit(part.name))
    return F.coalesce(F.crc32(said.cast("binary")) % (part.size - 1) + 1, F.lit(0))
