"""Who is head, torso, tail or cold: items by their share of events, users by their activity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

ITEM_SEGMENTS = ("head", "torso", "tail", "cold")
USER_SEGMENTS = ("light", "medium", "heavy", "cold")


def popularity_bounds(counts: NDArray[np.int64], items: NDArray[np.int64], head: float, tail: float) -> tuple[int, int]:
    """``(head_from, tail_to)``: an item with at least head_from events is head, with at most tail_to events tail.

    Items are taken in levels of equal popularity, so that equal items share a segment. A level is head when the
    middle of its share of events, counted from the most popular, lies within ``head``; tail likewise from the other
    end. Where popularity differs at all, the top level is head and the bottom level tail, however large they are.

    Args:
        counts: the distinct numbers of events per item, all above 0.
        items: how many items have that number.
        head: share of events held by the most popular items.
        tail: share of events held by the least popular items.
    """
    if len(counts) < 2:
        return (int(counts[0]) + 1, 0) if len(counts) else (1, 0)
    order = np.argsort(-counts)
    levels, mass = counts[order], (counts * items)[order].astype(np.float64)
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    in_head, in_tail = middle <= head, middle >= 1 - tail
    in_head[0], in_tail[-1] = True, True
    head_from = int(levels[in_head].min())
    tail_to = int(levels[in_tail & ~in_head].max()) if (in_tail & ~in_head).any() else 0
    return head_from, tail_to


def item_segments(fit_events: DataFrame, items: DataFrame, head: float, tail: float) -> DataFrame:
    """``(item_idx, item_id, num_events bigint, segment)`` for every item; ``cold`` means no event was fitted on."""
    per_item = fit_events.groupBy("item_idx").agg(F.count(F.lit(1)).alias("num_events"))
    levels = per_item.groupBy("num_events").count().toPandas()
    head_from, tail_to = popularity_bounds(levels["num_events"].to_numpy(), levels["count"].to_numpy(), head, tail)
    events = F.coalesce("num_events", F.lit(0))
    segment = F.when(events == 0, "cold").when(events >= head_from, "head").when(events <= tail_to, "tail").otherwise("torso")
    joined = items.select("item_idx", "item_id").join(per_item, "item_idx", "left")
    return joined.select("item_idx", "item_id", events.alias("num_events"), segment.alias("segment"))


def user_segments(num_events_U: NDArray[np.int64]) -> NDArray[np.str_]:
    """Activity of each user, by terciles of the number of history events; ``cold`` is a user without any.

    Users with equal numbers share a segment, so terciles may differ in size.
    """
    events = np.asarray(num_events_U)
    warm = events[events > 0]
    first, second = np.quantile(warm, [1 / 3, 2 / 3]) if len(warm) else (0.0, 0.0)
    names = np.where(events <= first, "light", np.where(events <= second, "medium", "heavy"))
    return np.where(events > 0, names, "cold")
