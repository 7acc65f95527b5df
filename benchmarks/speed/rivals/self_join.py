"""Co-occurrence by a DataFrame self-join.

Why it is fair: it does what a good Spark program does. Each pair is joined once (a < b) and mirrored after counting and
after the cut by support, when few are left; entries are deduplicated and cached once for both sides of the join; item
totals are broadcast; adaptive execution is on, as in our own session; the same Delta writer takes the result.
"""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from benchmarks.spark import write_delta


def self_join(rows: DataFrame, min_support: int, top_n: int) -> DataFrame:
    """Pairs a < b once by a join, counted, mirrored, scored by cosine and ranked per item_a.

    Ties are broken by the item's number. Returns item_a, item_b, num_baskets, num_baskets_a, num_baskets_b, cosine, rank_a.
    """
    entries = rows.select("basket", "item_idx").distinct().persist()
    held = entries.groupBy("item_idx").agg(F.count(F.lit(1)).alias("held"))
    left, right = entries.withColumnRenamed("item_idx", "item_a"), entries.withColumnRenamed("item_idx", "item_b")
    half = (
        left.join(right, "basket")
        .where("item_a < item_b")
        .groupBy("item_a", "item_b")
        .agg(F.count(F.lit(1)).alias("num_baskets"))
    )
    half = half.where(F.col("num_baskets") >= min_support)
    both = half.union(half.select(F.col("item_b"), F.col("item_a"), F.col("num_baskets")))
    for side in ("a", "b"):
        sided = held.select(F.col("item_idx").alias(f"item_{side}"), F.col("held").alias(f"num_baskets_{side}"))
        both = both.join(F.broadcast(sided), f"item_{side}")
    n, a, b = (F.col(c).cast("double") for c in ("num_baskets", "num_baskets_a", "num_baskets_b"))
    scored = both.withColumn("cosine", F.sqrt(n * n / (a * b)))
    order = Window.partitionBy("item_a").orderBy(F.desc("cosine"), F.asc("item_b"))
    ranked = scored.withColumn("rank_a", F.row_number().over(order)).where(F.col("rank_a") <= top_n)
    return ranked.select("item_a", "item_b", "num_baskets", "num_baskets_a", "num_baskets_b", "cosine", "rank_a")


def write_self_join(rows: DataFrame, min_support: int, top_n: int, target: Path) -> None:
    """From the frame to a new Delta table."""
    write_delta(self_join(rows, min_support, top_n), target)
    rows.sparkSession.catalog.clearCache()
