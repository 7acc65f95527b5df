"""User sequences of fixed length: what the user tower learns from (history -> next item) and is validated on."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.histories import DISLIKE, histories

PADDING = -1
_ALL = 1_000_000_000  # more items than any history has


def training_sequences(events: DataFrame, max_history: int) -> DataFrame:
    """Each user's history, oldest first, in chunks of ``max_history + 1`` items that overlap by one.

    Every step from one item to the next is in exactly one chunk. Chunks are cut from the newest item backwards, so that
    the newest steps have a full history, as when served; the oldest chunk may be short and is padded on the left.

    Args:
        events: visible events to fit on; dislikes are left out.
        max_history: items before the last in a full chunk.

    Returns:
        ``user_idx int, items array<int> [max_history + 1], num_items int (real ones), weight float (1)``; users with
        fewer than two items have no row.
    """
    whole = histories(events, _ALL).where(F.size("items") >= 2)
    chunks = whole.select("user_idx", F.explode(_chunks(F.col("items"), max_history)).alias("chunk"))
    return _padded(chunks, max_history + 1)


def validation_sequences(events: DataFrame, validation: DataFrame, max_history: int) -> DataFrame:
    """The last ``max_history`` fitted items of a user, then the first item of the validation events, as last element.

    Users without a fitted item or without a validation event (dislikes aside) have no row. Columns as above.
    """
    first = F.min(F.struct("ts", "event_pos", "event_id", "item_idx")).alias("first")
    targets = validation.where(F.col("label") != DISLIKE).groupBy("user_idx").agg(first)
    joined = histories(events, max_history).join(targets, "user_idx")
    return _padded(joined.select("user_idx", F.concat("items", F.array("first.item_idx")).alias("chunk")), max_history + 1)


def _chunks(items: Column, max_history: int) -> Column:
    size = F.size(items)

    def chunk(steps_back: Column) -> Column:
        end = size - steps_back * max_history
        start = F.greatest(end - max_history, F.lit(1))  # 1-based
        return F.slice(items, start, end - start + 1)

    last = F.floor((size - 2) / max_history).cast("int")
    return F.transform(F.sequence(F.lit(0), last), chunk)


def _padded(chunks: DataFrame, length: int) -> DataFrame:
    padding = F.array_repeat(F.lit(PADDING), F.lit(length) - F.size("chunk"))
    return chunks.select(
        "user_idx",
        F.concat(padding, "chunk").alias("items"),
        F.size("chunk").alias("num_items"),
        F.lit(1.0).cast("float").alias("weight"),
    )
