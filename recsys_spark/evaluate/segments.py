"""Who is head, torso, tail or cold: items by their share of events, users by their activity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.segments import popularity_bounds

USER_SEGMENTS = ("light", "medium", "heavy", "cold")


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
