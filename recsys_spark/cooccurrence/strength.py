"""How strong a pair of table cooccurrence is by a measure, as a column."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def strength(measure: str) -> Column:
    """The measure's own column, or what others make of it: ``decayed_cosine`` (see ``measures``) has none."""
    if measure != "decayed_cosine":
        return F.col(measure)
    return F.col("decayed_count") / F.sqrt(F.col("num_baskets_a").cast("double") * F.col("num_baskets_b"))
