"""The log, the items and the graph as Spark frames with the columns that the files have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.synthetic.blocks import COUNTS, Plan
from recsys_spark.synthetic.catalogue import SERIES_LENGTH, catalogue
from recsys_spark.synthetic.columns import numbered_ids
from recsys_spark.synthetic.settings import SyntheticSettings
from recsys_spark.synthetic.tasks import count_events, make_events, write_parts
from recsys_spark.synthetic.words import categories, titles

ITEMS_PER_BLOCK = 65_536
_ITEM_ROW = "item_id string, title string, category string, series int, price double, first_day int"


def events(spark: SparkSession, settings: SyntheticSettings) -> DataFrame:
    """``columns.event_schema`` as a frame, one partition per file.

    The rows of people are ``settings.events`` in expectation, duplicates not counted. They stray from it only by the most
    active user of each block: with the default sizes by less than half a percent.
    """
    ts = "timestamp" if settings.format == "parquet" else "string"
    schema = f"event_id string, user_id string, item_id string, event_type string, ts {ts}, value double, device string"
    return file_numbers(spark, settings).mapInArrow(partial(make_events, settings), schema)


def written(spark: SparkSession, settings: SyntheticSettings, folder: Path) -> int:
    """Write the events as Parquet by the tasks themselves, three times as fast as by way of the JVM.

    Args:
        folder: one that all executors see; each task makes it where it is absent.

    Returns: rows written.
    """
    parts = file_numbers(spark, settings).mapInArrow(partial(write_parts, settings, str(folder)), "rows long")
    return sum(row["rows"] for row in parts.collect())


def file_numbers(spark: SparkSession, settings: SyntheticSettings) -> DataFrame:
    """``id``: the number of each file of events, a partition each."""
    files = Plan(settings).files
    return spark.range(0, files, 1, files)


def counts(spark: SparkSession, settings: SyntheticSettings) -> dict[str, int]:
    """What the events hold, by ``blocks.COUNTS``: each block's flaws drawn again, from the same numbers as for its rows.

    A task that is tried again would count its rows twice if they were counted as they are made.
    """
    each = file_numbers(spark, settings).mapInArrow(partial(count_events, settings), ", ".join(f"{name} long" for name in COUNTS))
    sums = each.agg(*[F.sum(name).alias(name) for name in COUNTS]).first()
    return {} if sums is None else sums.asDict()


def item_rows(spark: SparkSession, settings: SyntheticSettings) -> DataFrame:
    """``_ITEM_ROW``, one row per item."""
    blocks = -(-settings.items // ITEMS_PER_BLOCK)
    return spark.range(0, blocks, 1, blocks).mapInArrow(partial(_item_blocks, settings), _ITEM_ROW)


def items(made: DataFrame, settings: SyntheticSettings) -> DataFrame:
    """``item_id, title, category, price, first_day`` (a date)."""
    day = F.date_add(F.lit(settings.start.isoformat()).cast("date"), F.col("first_day"))
    return made.select("item_id", "title", "category", "price", day.alias("first_day"))


def graph(made: DataFrame) -> DataFrame:
    """``head, relation, tail``: each item's topic, and its series (``SERIES_LENGTH`` neighbours in the topic's chain)."""
    topic = F.struct(F.lit("topic").alias("relation"), F.concat(F.lit("topic "), "category").alias("tail"))
    series_name = F.concat(F.lit("series "), F.col("category"), F.lit(" "), F.col("series"))
    series = F.struct(F.lit("series").alias("relation"), series_name.alias("tail"))
    facts = made.select(F.col("item_id").alias("head"), F.explode(F.array(topic, series)).alias("fact"))
    return facts.select("head", "fact.relation", "fact.tail")


def _item_blocks(settings: SyntheticSettings, batches: Iterable[Any]) -> Iterator[Any]:
    held = catalogue(settings)
    for batch in batches:
        for block in batch.column(0).to_pylist():
            number = np.arange(block * ITEMS_PER_BLOCK, min((block + 1) * ITEMS_PER_BLOCK, settings.items))
            topic = held.topic[number]
            columns = {
                "item_id": numbered_ids("i", number),
                "title": titles(settings, topic, block),
                "category": categories(settings, topic),
                "series": pa.array((held.chain_place[number] // SERIES_LENGTH).astype(np.int32)),
                "price": pa.array(held.price[number]),
                "first_day": pa.array(held.first_day[number]),
            }
            yield pa.RecordBatch.from_pydict(columns)
