"""Positives from behaviour: the items that most often share a basket with the anchor."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.signals import BehaviourPositives
from recsys_spark.cooccurrence.strength import strength
from recsys_spark.pairs.positives.ranking import strongest


def behaviour(cooccurrence: DataFrame, items: DataFrame, settings: BehaviourPositives) -> DataFrame:
    """The ``top_n`` neighbours of each item by one co-occurrence measure.

    Args:
        cooccurrence: the table of that name (``item_a, item_b`` and one column per measure).
        items: visible items; pairs with any other item are left out before the cut.
        settings: which measure, how many.

    Returns:
        ``anchor_idx int, item_idx int, weight float``; the weight is the measure over the anchor's largest. A measure
        of 0 or less (PMI and NPMI: no more often together than by chance) makes no pair.
    """
    known = items.select("item_idx")
    found = cooccurrence.select(
        F.col("item_a").alias("anchor_idx"), F.col("item_b").alias("item_idx"), strength(settings.measure).alias("strength")
    )
    among_known = found.join(known, "item_idx", "left_semi").join(
        known.withColumnRenamed("item_idx", "anchor_idx"), "anchor_idx", "left_semi"
    )
    return strongest(among_known, settings.top_n)
