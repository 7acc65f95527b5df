"""The log, the items and the graph as Spark frames with the columns that the files have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from recsys_spark.synthetic import flaws
from recsys_spark.synthetic.blocks import ROW, Plan, make_blocks
from recsys_spark.synthetic.catalogue import SERIES_LENGTH, catalogue
from recsys_spark.synthetic.choices import DEVICES, EVENT_TYPES
from recsys_spark.synthetic.settings import SyntheticSettings
from recsys_spark.synthetic.words import categories, titles

EVENTS_PER_FILE = 1_000_000
LEAST_FILES = 8  # so that a small log, too, is made by several cores
ITEMS_PER_BLOCK = 65_536
_ITEM_ROW = "item int, title string, category string, series int, price double, first_day int"
_TIME_TEXT = "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"  # of an instant in UTC, the zone of our sessions


def num_files(settings: SyntheticSettings) -> int:
    """Files of events: never by the number of cores, so that the same settings give the same files."""
    wanted = settings.files or max(LEAST_FILES, -(-settings.events // EVENTS_PER_FILE))
    return min(wanted, Plan(settings).blocks)


def rows(spark: SparkSession, settings: SyntheticSettings) -> DataFrame:
    """``blocks.ROW``: numbers instead of ids, and each row's flaw not yet done to it.

    The rows of people are ``events`` in expectation, duplicates not counted. They stray from it only by the most active
    user of each block: with the default sizes by less than half a percent.
    """
    blocks = spark.range(0, Plan(settings).blocks, 1, num_files(settings))
    return blocks.mapInArrow(partial(make_blocks, settings), ROW)


def observed(made: DataFrame, settings: SyntheticSettings, counts: Observation) -> DataFrame:
    """``made``, counted as it passes: rows, users, robots, robots' events, duplicates, and each kind of bad row."""
    person, original = F.col("user") < settings.users, F.col("flaw") != flaws.DUPLICATE
    first = (F.col("number") == 0) & original
    conditions = {
        "users": first & person,
        "robots": first & ~person,
        "robot_events": ~person,
        "duplicates": ~original,
        **{kind.name: F.col("flaw") == kind.code for kind in flaws.BAD},
    }
    return made.observe(counts, F.count(F.lit(1)).alias("rows"), *[F.count_if(c).alias(name) for name, c in conditions.items()])


def events(made: DataFrame, settings: SyntheticSettings) -> DataFrame:
    """``event_id, user_id, item_id, event_type, ts, value, device`` with flaws; ``ts`` is text but in Parquet."""
    ts = flaws.spoilt_ts(F.col("ts"))
    if settings.format != "parquet":
        ts = flaws.spoilt_ts_text(F.date_format(ts, _TIME_TEXT))
    return made.select(
        F.concat(F.lit("e"), F.col("user"), F.lit("-"), F.col("number")).alias("event_id"),
        flaws.spoilt_user(F.concat(F.lit("u"), F.col("user"))).alias("user_id"),
        flaws.spoilt_item(item_id()).alias("item_id"),
        _word("kind", EVENT_TYPES).alias("event_type"),
        ts.alias("ts"),
        flaws.spoilt_value(F.col("value")).alias("value"),
        _word("device", DEVICES).alias("device"),
    )


def item_id() -> Column:
    """The id of the item with the number in column ``item``."""
    return F.concat(F.lit("i"), F.col("item"))


def _word(column: str, words: tuple[str, ...]) -> Column:
    chosen = F.when(F.col(column) == 0, F.lit(words[0]))
    for number, word in enumerate(words[1:], start=1):
        chosen = chosen.when(F.col(column) == number, F.lit(word))
    return chosen


def item_rows(spark: SparkSession, settings: SyntheticSettings) -> DataFrame:
    """``_ITEM_ROW``, one row per item."""
    blocks = -(-settings.items // ITEMS_PER_BLOCK)
    return spark.range(0, blocks, 1, blocks).mapInArrow(partial(_item_blocks, settings), _ITEM_ROW)


def items(made: DataFrame, settings: SyntheticSettings) -> DataFrame:
    """``item_id, title, category, price, first_day`` (a date)."""
    day = F.date_add(F.lit(settings.start.isoformat()).cast("date"), F.col("first_day"))
    return made.select(item_id().alias("item_id"), "title", "category", "price", day.alias("first_day"))


def graph(made: DataFrame) -> DataFrame:
    """``head, relation, tail``: each item's topic, and its series (``SERIES_LENGTH`` neighbours in the topic's chain)."""
    topic = F.struct(F.lit("topic").alias("relation"), F.concat(F.lit("topic "), "category").alias("tail"))
    series_name = F.concat(F.lit("series "), F.col("category"), F.lit(" "), F.col("series"))
    series = F.struct(F.lit("series").alias("relation"), series_name.alias("tail"))
    facts = made.select(item_id().alias("head"), F.explode(F.array(topic, series)).alias("fact"))
    return facts.select("head", "fact.relation", "fact.tail")


def _item_blocks(settings: SyntheticSettings, batches: Iterable[Any]) -> Iterator[Any]:
    held = catalogue(settings)
    for batch in batches:
        for block in batch.column(0).to_pylist():
            number = np.arange(block * ITEMS_PER_BLOCK, min((block + 1) * ITEMS_PER_BLOCK, settings.items))
            topic = held.topic[number]
            columns = {
                "item": pa.array(number.astype(np.int32)),
                "title": titles(settings, topic, block),
                "category": categories(settings, topic),
                "series": pa.array((held.chain_place[number] // SERIES_LENGTH).astype(np.int32)),
                "price": pa.array(held.price[number]),
                "first_day": pa.array(held.first_day[number]),
            }
            yield pa.RecordBatch.from_pydict(columns)
