"""Users who asked to be forgotten: what they did before stays out, whoever delivers it again."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.ingest.quality import REASONS, ROW, Rule
from recsys_spark.ingest.read import FORGOTTEN_COLUMNS

REASON = "user was forgotten"
SINCE, _SHA = FORGOTTEN_COLUMNS


def user_sha(user_id: Column) -> Column:
    """How the table names a user: nobody can read an id there."""
    return F.sha2(user_id, 256)


def marked(rows: DataFrame, user_id: Column, forgotten: DataFrame) -> DataFrame:
    """Add ``__forgotten_at``: when the user of a row was forgotten; null for all others."""
    known = F.broadcast(forgotten.select(F.col("user_sha").alias(_SHA), F.col("forgotten_at").alias(SINCE)))
    return rows.join(known, user_sha(user_id) == F.col(_SHA), "left")


def rule(ts: Column | None = None) -> Rule:
    """Bad: a row of before the user was forgotten; without a time, any."""
    was = F.col(SINCE).isNotNull()
    return (was if ts is None else was & (ts < F.col(SINCE)), REASON)


def unread(judged: DataFrame) -> DataFrame:
    """Judged rows, of which quarantine gets to know nothing where the user was forgotten."""
    return judged.withColumn(ROW, F.when(F.array_contains(REASONS, REASON), F.lit("{}")).otherwise(F.col(ROW)))
