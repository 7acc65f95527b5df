"""User histories: the last items of each user in order, as training, embedding and scoring all need them."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

DISLIKE = -1


def histories(events: DataFrame, max_items: int) -> DataFrame:
    """The last ``max_items`` events of each user, oldest first; disliked items (label -1) are left out.

    Ties in time keep the log's order (``event_pos``). Returns one row per user with at least one such event:
    ``user_id string, user_idx int, items array<int>, num_events int`` (num_events counts all, not just the kept).
    """
    entry = F.struct("ts", "event_pos", "event_id", "item_idx")
    ordered = F.array_sort(F.collect_list(entry))
    kept = F.expr(f"slice(ordered, greatest(1, size(ordered) - {int(max_items)} + 1), {int(max_items)})")
    return (
        events.where(F.col("label") != DISLIKE)
        .groupBy("user_id", "user_idx")
        .agg(ordered.alias("ordered"))
        .select(
            "user_id",
            "user_idx",
            F.transform(kept, lambda e: e["item_idx"]).alias("items"),
            F.size("ordered").alias("num_events"),
        )
    )
