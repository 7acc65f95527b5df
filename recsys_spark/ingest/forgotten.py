"""Users who asked to be forgotten: what they did before stays out, whoever delivers it again."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.ingest.quality import REASONS, ROW, UNPARSED, Rule, judged
from recsys_spark.ingest.read import FORGOTTEN_COLUMNS

REASON = "user was forgotten"
SINCE, _SHA = FORGOTTEN_COLUMNS


def user_sha(user_id: Column) -> Column:
    """How the table names a user: nobody can read an id there."""
    return F.sha2(user_id, 256)


def judged_unless_forgotten(
    raw: DataFrame,
    columns: dict[str, Column],
    rules: list[Rule],
    private: bool,
    forgotten: DataFrame | None,
    ts: Column | None = None,
) -> DataFrame:
    """``quality.judged``; where a user (``columns["user_id"]``) was forgotten, a row of before is bad, and quarantine gets to
    know nothing of it. So is one without a time: of before it may be. Of a row that does not parse nothing is
    kept as soon as anybody was forgotten, for whose it is cannot be known."""
    if forgotten is None:
        return judged(raw, columns, rules, private)
    known = F.broadcast(forgotten.select(F.col("user_sha").alias(_SHA), F.col("forgotten_at").alias(SINCE)))
    marked = raw.join(known, user_sha(columns["user_id"]) == F.col(_SHA), "left")
    was = F.col(SINCE).isNotNull()
    before = was if ts is None else was & ~F.coalesce(ts >= F.col(SINCE), F.lit(False))
    found = judged(marked, columns, [*rules, (before, REASON)], private)
    unknown = F.array_contains(REASONS, REASON) | F.array_contains(REASONS, UNPARSED)
    return found.withColumn(ROW, F.when(unknown, F.lit("{}")).otherwise(F.col(ROW)))
