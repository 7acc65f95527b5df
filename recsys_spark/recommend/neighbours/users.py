"""The nearest users of every user, by the vectors of the user tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.search.choose import prepare
from recsys_spark.search.sharded import search_all
from recsys_spark.tables.local import local_frame

USER_NEIGHBOURS = "user_neighbours"
_LISTS = "user_id string, rank int, neighbour_id string, score double"


def index_folder(config: Config) -> Path:
    """Where an index of the users lies, where there is one."""
    return config.work_dir / "search" / "users"


def near_users(vectors: DataFrame, config: Config) -> tuple[DataFrame, dict[str, Any]]:
    """The ``recommend.user_neighbours`` users with the highest cosine to each user, or all others where there are fewer.

    Exact for fewer users than ``search.exact_below``, else approximate with the recall that ``search.choose`` measures. Of
    equal scores (to 9 decimals) a seeded hash of the user id decides. A user whose vector is all zeros has no neighbours
    and is nobody's.

    Args:
        vectors: ``(user_id, user_idx int, vector array<float>)``, each user once.

    Returns:
        ``(user_id, rank, neighbour_id, score)``, ranks 1..K without gaps, computed when it is read; and the facts of the
        search.
    """
    k, spark = config.recommend.user_neighbours, vectors.sparkSession
    known = vectors.where(F.exists("vector", lambda value: value != 0)).select("user_id", "user_idx", "vector")
    if known.isEmpty():
        return local_frame(spark, [], _LISTS), {"method": "exact", "reason": "no user has a vector"}
    asked = known.select(F.col("user_idx").alias("query_idx"), "vector")
    tie = F.xxhash64(F.lit(config.seed), "user_id").alias("tie")  # not of user_idx: later events may shift the numbers
    folder = str(index_folder(config))
    # one more, for a user is the nearest to itself
    items = known.select(F.col("user_idx").alias("item_idx"), "vector", tie)
    task, facts = prepare(spark, asked, items, k + 1, config.search, folder, config.seed)
    others = (
        search_all(asked, task)
        .where("query_idx != item_idx")
        .withColumn("rank", F.row_number().over(Window.partitionBy("query_idx").orderBy("rank")))
    )
    users = known.select(F.col("user_idx").alias("query_idx"), "user_id")
    neighbours = known.select(F.col("user_idx").alias("item_idx"), F.col("user_id").alias("neighbour_id"))
    named = others.where(F.col("rank") <= k).join(users, "query_idx").join(neighbours, "item_idx")
    return named.select("user_id", "rank", "neighbour_id", "score"), facts
