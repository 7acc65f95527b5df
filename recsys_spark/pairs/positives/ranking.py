"""The strongest pairs of each anchor with weights in (0, 1], the common end of the sources that rank in Spark."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def strongest(found: DataFrame, top_n: int) -> DataFrame:
    """The ``top_n`` strongest pairs of each anchor, ties to the lower ``item_idx``.

    Args:
        found: ``anchor_idx int, item_idx int, strength double``; a strength that is not above 0, not finite, or of
            an item with itself is left out.
        top_n: pairs kept per anchor.

    Returns:
        ``anchor_idx int, item_idx int, weight float``. The weight is the strength over the anchor's largest, so that
        every anchor's best pair has weight 1, whatever the scale of the measure: an anchor counts alike, popular or rare.
    """
    of_anchor = Window.partitionBy("anchor_idx")
    by_strength = of_anchor.orderBy(F.desc("strength"), "item_idx")
    usable = found.where("anchor_idx != item_idx AND strength > 0 AND strength < double('inf')")  # NaN sorts above infinity
    ranked = usable.select(
        "anchor_idx",
        "item_idx",
        (F.col("strength") / F.max("strength").over(of_anchor)).cast("float").alias("weight"),
        F.row_number().over(by_strength).alias("rank"),
    )
    return ranked.where((F.col("rank") <= top_n) & (F.col("weight") > 0)).select("anchor_idx", "item_idx", "weight")
