"""What came of events: the user's past before each, its item, and whether it was of the wanted kind."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config.moments import Part
from recsys_spark.config.signals import OutcomeSettings
from recsys_spark.histories import DISLIKE, LIKE, histories, liked
from recsys_spark.pairs.sequences import PADDING

_ALL = 1_000_000_000  # more items than any history has
_ORDER = ("ts", "event_pos", "event_id")  # of the log
_ASKED = ("user_idx", "item_idx", *_ORDER, "outcome")


def asked_events(events: DataFrame, settings: OutcomeSettings) -> DataFrame:
    """Events that there is an answer for: ``user_idx, item_idx, ts, event_pos, event_id, outcome int (0 or 1)``.

    By type every event has one; by liking only those with label 1 or -1.
    """
    if settings.about == "like":
        outcome, rows = F.col("label") == LIKE, events.where(F.col("label").isin(LIKE, DISLIKE))
    else:
        outcome, rows = F.col("event_type").isin(settings.wanted_types), events
    return rows.withColumn("outcome", outcome.cast("int")).select(*_ASKED)


def left_alone(impressions: DataFrame, events: DataFrame, items: DataFrame) -> DataFrame:
    """Impressions whose user has no event with their item, as rows of ``asked_events`` with outcome 0.

    Where there is an event, it says what came of the impression. Impressions of items that are not among ``items``
    (``item_idx``, those that a training knows) are left out.
    """
    alone = impressions.join(events, ["user_idx", "item_idx"], "left_anti").join(items, "item_idx", "left_semi")
    return alone.withColumn("outcome", F.lit(0)).select(*_ASKED)


def outcomes(asked: DataFrame, events: DataFrame, per_user: int, max_history: int, parts: Sequence[Part] = ()) -> DataFrame:
    """One row per asked event, with what its user had done strictly before it in the order (ts, event_pos, event_id).

    Args:
        asked: rows of ``asked_events``; of a user the newest ``per_user`` are kept.
        events: visible events that histories are made of; dislikes are left out.
        max_history: newest items of a history that are kept.
        parts: of ``moments``, when and where each item of the history was met; none: they are null.

    Returns:
        ``user_idx int, items array<int> [max_history]`` (oldest first, padded on the left with -1; nothing but padding for
        a user's first event), ``item_idx int, outcome int, weight float, moments array<bigint>``. The weight is 1: weights of
        event types say what counts as more of a positive, and would bend a probability.
    """
    past = histories(events, _ALL, parts).drop("user_id", "num_events")
    rows = _with_place(asked, events, per_user).join(past, "user_idx", "left")
    names = ("items", "moments") if parts else ("items",)
    cut = {name: _before(F.col(name), max_history) for name in names}
    padded = {name: _padded(cut[name], max_history, PADDING if name == "items" else 0) for name in names}
    moments = padded.get("moments", F.lit(None).cast("array<bigint>"))
    weight = F.lit(1.0).cast("float").alias("weight")
    return rows.select("user_idx", padded["items"].alias("items"), "item_idx", "outcome", weight, moments.alias("moments"))


def _with_place(asked: DataFrame, events: DataFrame, per_user: int) -> DataFrame:
    """The newest ``per_user`` asked events of each user, with ``_before``: how many items of the history come before."""
    past = liked(events).withColumn("outcome", F.lit(None).cast("int")).select(*_ASKED)
    both = asked.withColumn("_past", F.lit(0)).unionByName(past.withColumn("_past", F.lit(1)))
    # an asked event stands before itself as a part of the history, so it does not count itself
    in_order = Window.partitionBy("user_idx").orderBy(*_ORDER, "_past")
    counted = both.withColumn("_before", F.sum("_past").over(in_order.rowsBetween(Window.unboundedPreceding, 0)))
    newest_first = Window.partitionBy("user_idx").orderBy(*[F.desc(name) for name in _ORDER])
    ranked = counted.where("_past = 0").withColumn("_place", F.row_number().over(newest_first))
    return ranked.where(F.col("_place") <= per_user).select("user_idx", "item_idx", "outcome", F.col("_before").cast("int"))


def _before(values: Column, max_history: int) -> Column:
    """The last ``max_history`` of a user's first ``_before`` values; null (a user without a history) counts as none."""
    first = F.greatest(F.col("_before") - max_history + 1, F.lit(1))
    known = F.coalesce(values, F.array().cast("array<int>"))
    return F.slice(known, first, F.least(F.col("_before"), F.lit(max_history)))


def _padded(values: Column, length: int, filling: int) -> Column:
    return F.concat(F.array_repeat(F.lit(filling), length - F.size(values)), values)
