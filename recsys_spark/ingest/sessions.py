"""Sessions: a user's events with no gap longer than the configured one."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.ingest.identify import digest


def with_sessions(events: DataFrame, gap_minutes: float) -> DataFrame:
    """Set ``session_id`` = hash(user_id, first ts of the session); ``events`` must hold whole histories.

    A gap of exactly ``gap_minutes`` is still the same session. Ties in time do not matter: they never split.
    """
    per_user = Window.partitionBy("user_id").orderBy("ts", "event_pos", "event_id")
    pause = F.unix_micros("ts") - F.lag(F.unix_micros("ts")).over(per_user)
    starts = F.coalesce(pause > F.lit(round(gap_minutes * 60_000_000)), F.lit(True))
    opened = F.when(starts, digest(F.col("user_id"), F.unix_micros("ts").cast("string")))  # hashed once a session
    so_far = per_user.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    marked = events.withColumn("__opened", opened)
    return marked.withColumn("session_id", F.last("__opened", ignorenulls=True).over(so_far)).drop("__opened")
