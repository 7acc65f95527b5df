"""Users drawn by a seeded hash of their id: the same ones in every run, however the log is laid out."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def drawn_users(users: DataFrame, most: int, seed: int) -> DataFrame:
    """At most ``most`` rows of ``users`` (one row per ``user_id``)."""
    return users.orderBy(F.xxhash64(F.lit(seed), "user_id"), F.col("user_id")).limit(most)
