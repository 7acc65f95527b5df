"""Frames to arrays: the item side of every partner, collected once on the driver in tie order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config.signals import AlsShape
from recsys_spark.cooccurrence.strength import strength
from recsys_spark.histories import liked
from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.catalogue import Catalogue, Item, in_tie_order
from recsys_spark.recommend.fallback import MAX_CONTEXTS
from recsys_spark.recommend.scoring.partners import PopularityItems, RecentEvents, RelatedItems
from recsys_spark.recommend.scoring.scores import as_rows
from recsys_spark.recommend.scoring.vector_items import EncoderItems, FactorItems
from recsys_spark.tables.instants import MICROS_PER_DAY

_WHOLE = 2.0**30  # parts of one event; eight milliards of events have room in a long


def _arrow(frame: DataFrame) -> Any:
    return frame.toArrow().combine_chunks()


def _column(table: Any, name: str) -> Any:
    return table.column(name).to_numpy()


def items_in_order(items: DataFrame, seed: int) -> list[Item]:
    """Rows of the items table in tie order."""
    columns = ("item_idx", "item_id", "title", "text", "category", "attributes", "available")
    return in_tie_order((Item(*row) for row in items.select(*columns).collect()), seed)


def popularity_items(fit_events: DataFrame, catalogue: Catalogue, context_key: str | None) -> PopularityItems:
    """Events per item, disliked ones left out, and per value of the context key."""
    positive = liked(fit_events)
    table = _arrow(positive.groupBy("item_idx").count())
    counts = _counts(catalogue, _column(table, "item_idx"), _column(table, "count"))
    if context_key is None:
        return PopularityItems(counts)
    value = positive.withColumn("value", F.element_at("context", F.lit(context_key))).where("value is not null and value != ''")
    largest = value.groupBy("value").count().orderBy(F.desc("count"), "value").limit(MAX_CONTEXTS)
    values = sorted(row["value"] for row in largest.collect())
    cells = _arrow(value.where(F.col("value").isin(values)).groupBy("value", "item_idx").count())
    return PopularityItems(counts, tuple(values), _by_context(cells, "count", catalogue, values))


def recent_events(
    events: DataFrame, catalogue: Catalogue, context_key: str | None, popularity: PopularityItems, half_lives: Sequence[float]
) -> dict[float, RecentEvents]:
    """What ``popularity_items`` counts, each event as ``2^(-age / half-life)`` of one; by half-life (days).

    An event's age is that before the last one: a log that ended a while ago still says what was popular at its end.

    Args:
        events: those that are known where lists are made.
        popularity: whose values of the context key are counted.
    """
    positive = liked(events)
    found = positive.agg(F.max(F.unix_micros("ts"))).first()
    last = None if found is None else found[0]
    age_days = (F.lit(last) - F.unix_micros("ts")) / F.lit(MICROS_PER_DAY)  # without events nothing is summed
    # whole numbers: a sum that is the same in whatever order tasks come
    parts = [F.sum(F.rint(F.pow(F.lit(2.0), -age_days / days) * _WHOLE).cast("long")).alias(f"c{days}") for days in half_lives]
    overall = _arrow(positive.groupBy("item_idx").agg(*parts))
    counts = {
        days: _counts(catalogue, _column(overall, "item_idx"), _column(overall, f"c{days}") / _WHOLE) for days in half_lives
    }
    if context_key is None:
        return {days: RecentEvents(counts[days]) for days in half_lives}
    value = positive.withColumn("value", F.element_at("context", F.lit(context_key)))
    value = value.where(F.col("value").isin(list(popularity.context_values)))
    cells = _arrow(value.groupBy("value", "item_idx").agg(*parts))
    return {
        days: RecentEvents(counts[days], _by_context(cells, f"c{days}", catalogue, popularity.context_values) / _WHOLE)
        for days in half_lives
    }


def _by_context(cells: Any, name: str, catalogue: Catalogue, values: Sequence[str]) -> Any:
    """CSR ``[V, N]`` of a column of cells ``(value, item_idx)``; items outside the catalogue are left out."""
    place = {value: row for row, value in enumerate(values)}
    rows = np.array([place[value] for value in cells.column("value").to_pylist()], np.int64)
    positions, data = catalogue.positions(_column(cells, "item_idx")), _column(cells, name).astype(np.float64)
    known = positions >= 0
    matrix = sparse.csr_matrix((data[known], (rows[known], positions[known])), shape=(len(values), len(catalogue)))
    return as_rows(matrix)


def _counts(catalogue: Catalogue, item_idx: Any, count: Any) -> Any:
    counts = np.zeros(len(catalogue))
    positions = catalogue.positions(item_idx)
    counts[positions[positions >= 0]] = count[positions >= 0]
    return counts


def encoder_items(embeddings: DataFrame, catalogue: Catalogue) -> EncoderItems | None:
    """From ``(item_idx, vector)``; None where there is no vector. Items without one are zero vectors."""
    vectors = _vectors(embeddings, catalogue)
    return None if vectors is None else EncoderItems.of(vectors)


def factor_items(factors: DataFrame, catalogue: Catalogue, shape: AlsShape) -> FactorItems | None:
    """From the item_factors table; None where it has no rows."""
    vectors = _vectors(factors, catalogue)
    return None if vectors is None else FactorItems(vectors, shape)


def _vectors(rows: DataFrame, catalogue: Catalogue) -> Any:
    """float32 ``[N, D]``; None where there is no vector."""
    table = _arrow(rows.select("item_idx", "vector"))
    if table.num_rows == 0:
        return None
    values = table.column("vector").combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    vectors = np.zeros((len(catalogue), len(flat) // table.num_rows), np.float32)
    positions = catalogue.positions(_column(table, "item_idx"))
    vectors[positions[positions >= 0]] = flat.reshape(table.num_rows, -1)[positions >= 0]
    return vectors


def weighted_items(rows: DataFrame, catalogue: Catalogue) -> RelatedItems | None:
    """From a table like item_weights; None where it has no rows."""
    table = _arrow(rows.select("item_a", "item_b", "weight"))
    if table.num_rows == 0:
        return None
    lengths, others = flat_list(table.column("item_b").combine_chunks())
    _, weights = flat_list(table.column("weight").combine_chunks())
    anchors = np.repeat(catalogue.positions(_column(table, "item_a")), lengths)
    return RelatedItems.of(anchors, catalogue.positions(others), weights, len(catalogue))


def related_items(related: DataFrame, catalogue: Catalogue, measure: str) -> RelatedItems | None:
    """From ``item_a, item_b`` and a column of weights; None where no cell has one."""
    cells = related.select("item_a", "item_b", strength(measure).cast("double").alias("value")).where("value is not null")
    table = _arrow(cells)
    if table.num_rows == 0:
        return None
    anchors, others = (catalogue.positions(_column(table, name)) for name in ("item_a", "item_b"))
    return RelatedItems.of(anchors, others, _column(table, "value"), len(catalogue))
