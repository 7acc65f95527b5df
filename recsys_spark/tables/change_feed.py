"""What commits have put into a table and taken out of it, row by row, as Delta records it where the contract asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.tables.contracts import contract
from recsys_spark.tables.delta_log import metadata, transaction
from recsys_spark.tables.store import Store

SIGN = "_sign"


@dataclass(frozen=True)
class Identity:
    """Which table it is (a table made anew under its path is another), and whether its changes are recorded."""

    table_id: str
    has_feed: bool


def identity(store: Store, table: str, namespace: str) -> Identity:
    """Of the newest version of a table that exists."""
    found = metadata(transaction(store.spark, store.path(table, namespace)))
    return Identity(found["id"], found["configuration"].get("delta.enableChangeDataFeed") == "true")


def changes_since(store: Store, table: str, namespace: str, version: int, until: int) -> DataFrame:
    """Rows put in and taken out by the commits after ``version`` up to ``until``, with ``_sign`` 1 or -1; an updated row is
    both. Where a commit's files have been cleaned away, reading the frame fails."""
    if until <= version:
        return store.empty(table).withColumn(SIGN, F.lit(1))
    feed = store.spark.read.format("delta").option("readChangeFeed", "true")
    rows = feed.option("startingVersion", version + 1).option("endingVersion", until).load(store.path(table, namespace))
    put = F.col("_change_type").isin("insert", "update_postimage")
    return rows.select(*contract(table).schema.names, F.when(put, 1).otherwise(-1).alias(SIGN))
