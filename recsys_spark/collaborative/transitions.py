"""What comes next: items that soon follow an item in histories, counted like co-occurrence but in one direction.

Sequential rules (Kamehkhosh, Jannach and Ludewig 2017, "A comparison of frequent pattern techniques and a deep learning
method for session-based recommendation"), with the cosine's denominator in place of the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config.signals import CooccurrenceSettings, TransitionSettings
from recsys_spark.cooccurrence.count import NO_DECAY, cooccurrences
from recsys_spark.cooccurrence.plan import Hashes
from recsys_spark.histories import liked


@contextmanager
def item_transitions(
    events: DataFrame, settings: TransitionSettings, seed: int, hashes: Hashes | None = None, min_users: int = 1
) -> Iterator[DataFrame]:
    """``item_a int, item_b array<int>, weight array<float>``: what a says of the items after it, the weightiest first.

    ``weight(a, b) = sum over histories and places p of distance_decay^(p - 1) [b follows a after p places] / sqrt(n_a n_b)``,
    p at most ``settings.places``, n the users who met an item. Dislikes are left out. The frame can be read while the block
    is open.

    Args:
        events: visible events to fit on.
        seed, hashes: see ``cooccurrences``.
        min_users: of a pair; fewer are not told of.
    """
    counting = CooccurrenceSettings(
        basket="history",
        window_items=settings.places,
        distance_decay=settings.distance_decay,
        directed=True,
        measures=["cosine"],
        rank_by="cosine",
        min_support=max(settings.min_support, min_users),  # a history is a user's
        top_n=settings.top_n,
        max_basket_items=settings.max_history,
    )
    with cooccurrences(_places(events), counting, NO_DECAY, seed, hashes) as counted:
        product = F.col("num_baskets_a").cast("double") * F.col("num_baskets_b")
        both = F.coalesce("decayed_count", F.col("num_baskets").cast("double"))
        weighed = counted.frame.select("item_a", "item_b", (both / F.sqrt(product)).cast("float").alias("weight"))
        ordered = F.sort_array(F.collect_list(F.struct((-F.col("weight")).alias("below"), "item_b", "weight")))
        lists = weighed.groupBy("item_a").agg(ordered.alias("rows"))
        yield lists.select("item_a", F.col("rows.item_b").alias("item_b"), F.col("rows.weight").alias("weight"))


def _places(events: DataFrame) -> DataFrame:
    """Histories as baskets whose times are places: logs often hold several events of one instant, which their order parts."""
    order = Window.partitionBy("user_id").orderBy("ts", "event_pos", "event_id")
    kept = liked(events).select(F.xxhash64("user_id").alias("basket"), "item_idx", F.row_number().over(order).alias("place"))
    return kept.select("basket", "item_idx", F.timestamp_micros("place").alias("ts"))
