"""User sequences of fixed length: what the user tower learns from (history -> next item) and is validated on."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.moments import Part
from recsys_spark.histories import histories, liked

PADDING = -1
_ALL = 1_000_000_000  # more items than any history has


def training_sequences(events: DataFrame, max_history: int, parts: Sequence[Part] = ()) -> DataFrame:
    """Each user's history, oldest first, in chunks of ``max_history + 1`` items that overlap by one.

    Every step from one item to the next is in exactly one chunk. Chunks are cut from the newest item backwards, so that
    the newest steps have a full history, as when served; the oldest chunk may be short and is padded on the left.

    Args:
        events: visible events to fit on; dislikes are left out.
        max_history: items before the last in a full chunk.
        parts: of ``moments``, when and where each item of the whole history was met, padded with 0; none: they are null.

    Returns:
        ``user_idx int, items array<int> [max_history + 1], num_items int (real ones), weight float (1), moments array<bigint>``;
        users with fewer than two items have no row.
    """
    whole = histories(events, _ALL, parts).where(F.size("items") >= 2)
    chunks = [_chunks(F.col(name), max_history).alias(name) for name in (("items", "moments") if parts else ("items",))]
    return _padded(whole.select("user_idx", F.inline(F.arrays_zip(*chunks))), max_history + 1)


def validation_sequences(events: DataFrame, validation: DataFrame, max_history: int, parts: Sequence[Part] = ()) -> DataFrame:
    """The last ``max_history`` fitted items of a user, then the first item of the validation events, as last element.

    Users without a fitted item or without a validation event (dislikes aside) have no row. Columns as above; the moment
    of the validation event is 0, for no state sees it.
    """
    first = F.min(F.struct("ts", "event_pos", "event_id", "item_idx")).alias("first")
    targets = liked(validation).groupBy("user_idx").agg(first)
    joined = histories(events, max_history, parts).join(targets, "user_idx")
    also = [F.concat("moments", F.array(F.lit(0))).alias("moments")] if parts else []
    items = F.concat("items", F.array("first.item_idx")).alias("items")
    return _padded(joined.select("user_idx", items, *also), max_history + 1)


def _chunks(items: Column, max_history: int) -> Column:
    size = F.size(items)

    def chunk(steps_back: Column) -> Column:
        end = size - steps_back * max_history
        start = F.greatest(end - max_history, F.lit(1))  # 1-based
        return F.slice(items, start, end - start + 1)

    last = F.floor((size - 2) / max_history).cast("int")
    return F.transform(F.sequence(F.lit(0), last), chunk)


def _padded(chunks: DataFrame, length: int) -> DataFrame:
    missing = F.lit(length) - F.size("items")
    no_moments = F.lit(None).cast("array<bigint>")
    return chunks.select(
        "user_idx",
        F.concat(F.array_repeat(F.lit(PADDING), missing), "items").alias("items"),
        F.size("items").alias("num_items"),
        F.lit(1.0).cast("float").alias("weight"),
        (F.concat(F.array_repeat(F.lit(0), missing), "moments") if "moments" in chunks.columns else no_moments).alias("moments"),
    )
