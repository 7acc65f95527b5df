"""Identity: event ids, which of several equal events stays, and dense numbers for users and items."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.ingest.quality import FATE, KEPT, KNOWN, MERGED
from recsys_spark.ingest.rownumbers import FILE_NO, ROW_NUMBER
from recsys_spark.tables.dealing import numbered

_BASE, _TURN = "__base", "__turn"
HASH_CHARS = 32


def digest(*parts: Column) -> Column:
    """First 32 hex digits of the sha256 over the parts' texts, each with its length in front, so that no two lists
    of parts give the same bytes; a null part differs from an empty one."""
    texts = [F.coalesce(F.concat(F.length(text).cast("string"), F.lit(":"), text), F.lit("-")) for text in parts]
    return F.substring(F.sha2(F.concat(*texts), 256), 1, HASH_CHARS)


def event_ids(events: DataFrame, given: bool) -> DataFrame:
    """Add ``event_id``: the source's (``given``), else the hash of user, item, type, ts, value and the occurrence number
    in the file. So an event that a file holds twice is two events, and the same row in two files is one."""
    if given:
        return events.withColumnRenamed("given_id", "event_id")
    value = F.xxhash64("value").cast("string")  # of the bits: texts of doubles differ between Java versions
    written = digest(
        F.col("user_id"),
        F.col("item_id"),
        F.col("event_type"),
        F.unix_micros("ts").cast("string"),
        F.when(F.col("value").isNotNull(), value),
    )
    occurrence = F.row_number().over(Window.partitionBy(_BASE, FILE_NO).orderBy(ROW_NUMBER))
    numbered = events.withColumn(_BASE, written).withColumn(_TURN, occurrence)
    return numbered.withColumn("event_id", digest(F.col(_BASE), F.col(_TURN).cast("string"))).drop(_BASE, _TURN, "given_id")


def fates(events: DataFrame, present: DataFrame) -> DataFrame:
    """Add ``__fate``: the first row of an event_id (by file, then row) is kept, others are merged into it; one whose
    event_id is in ``present`` is known. The event as first seen stays."""
    first = F.row_number().over(Window.partitionBy("event_id").orderBy(FILE_NO, ROW_NUMBER))
    there = present.select("event_id").distinct().withColumn("__there", F.lit(True))
    fate = F.when(F.col("__there"), F.lit(KNOWN)).when(F.col(_TURN) == 1, F.lit(KEPT)).otherwise(F.lit(MERGED))
    return events.withColumn(_TURN, first).join(there, "event_id", "left").withColumn(FATE, fate).drop(_TURN, "__there")


def last_wins(rows: DataFrame, *key: str) -> DataFrame:
    """Add ``__fate`` to catalogue rows: the last row of a key (by file, then row) is kept, earlier ones are merged."""
    turn = F.row_number().over(Window.partitionBy(*key).orderBy(F.desc(FILE_NO), F.desc(ROW_NUMBER)))
    return rows.withColumn(FATE, F.when(turn == 1, F.lit(KEPT)).otherwise(F.lit(MERGED)))


def deal(ids: DataFrame, present: DataFrame, kind: str, seed: int) -> DataFrame:
    """Dense numbers for the ids that ``present`` lacks, in the order of a seeded hash, after its largest number.

    The order of first appearance would tell a model which items are new. Numbers never change once dealt.

    Args:
        ids: a column ``<kind>_id``, repeats allowed.
        present: ``<kind>_id, <kind>_idx``.
        kind: ``"user"`` or ``"item"``.

    Returns: ``<kind>_id string, <kind>_idx int``, new ids only; cached, since partitions are counted before they are used.
    """
    name = f"{kind}_id"
    largest = present.agg(F.max(f"{kind}_idx")).first()
    start = 0 if largest is None or largest[0] is None else int(largest[0]) + 1
    new = ids.select(name).distinct().join(present.select(name), name, "left_anti")
    ordered = new.orderBy(F.sha2(F.concat(F.lit(f"{seed}|"), F.col(name)), 256), name).persist()
    return numbered(ordered, "_position", start).select(name, F.col("_position").cast("int").alias(f"{kind}_idx"))
