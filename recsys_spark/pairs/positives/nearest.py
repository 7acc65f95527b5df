"""Exact nearest neighbours under the cosine, block by block on the executors, for dense and for sparse vectors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from scipy import sparse

from recsys_spark.ranges import position_in_group
from recsys_spark.search.held import best_cells, slack
from recsys_spark.search.lists import exact_scores
from recsys_spark.search.vectors import Float64, Ints, Pieces, Vectors
from recsys_spark.tables.local import local_frame

SCHEMA = "anchor_idx int, item_idx int, weight float"
_MAX_BLOCK_ROWS = 512
_MAX_BLOCK_CELLS = 2**25  # of sparse vectors' scores at a time
_DECIMALS = 6  # scores this close are ties: the last bits of a sparse product depend on the order of its sums
_TIE = 10.0**-_DECIMALS
_ONE = 10**_DECIMALS
_VALUE_BITS, _COLUMN_BITS = 20, 31  # of a value in millionths, and of a column; a block has few rows

Floats = npt.NDArray[np.floating[Any]]


def nearest(spark: SparkSession, vectors: Any, item_idx: Ints, top_n: int, min_similarity: float = 0.0) -> DataFrame:
    """The ``top_n`` other rows with the highest cosine to each row, by comparing all with all.

    Args:
        spark: the session; the vectors are broadcast, blocks of rows are the unit of work.
        vectors: [N, D] float32 of unit (or zero) rows, a NumPy array or a SciPy CSR matrix.
        item_idx: [N], the item of each row, ascending.
        top_n: neighbours kept per row.
        min_similarity: lowest cosine kept; 0 or less is never kept.

    Returns:
        ``anchor_idx int, item_idx int, weight float``, the weight being the cosine, at most 1, rounded to 6 decimals
        before it is ranked; ties go to the lower item.
    """
    rows = len(item_idx)
    if rows < 2:
        return local_frame(spark, [], SCHEMA)
    most_rows = _MAX_BLOCK_CELLS // rows if sparse.issparse(vectors) else _MAX_BLOCK_ROWS
    block_rows = max(1, min(_MAX_BLOCK_ROWS, most_rows))
    num_blocks = -(-rows // block_rows)
    blocks = spark.range(0, num_blocks, 1, min(num_blocks, 4 * spark.sparkContext.defaultParallelism))
    shared = spark.sparkContext.broadcast((vectors, item_idx.astype(np.int32)))
    return blocks.mapInArrow(partial(_blocks, shared, block_rows, top_n, min_similarity), SCHEMA)


def _blocks(
    shared: Broadcast[Any], block_rows: int, top_n: int, min_similarity: float, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    vectors, item_idx = shared.value
    for batch in batches:
        for block in batch.column(0).to_pylist():
            rows, columns, scores = nearest_of_block(vectors, block * block_rows, block_rows, top_n, min_similarity)
            arrays = [pa.array(item_idx[rows]), pa.array(item_idx[columns]), pa.array(scores)]
            yield pa.RecordBatch.from_arrays(arrays, names=["anchor_idx", "item_idx", "weight"])


def nearest_of_block(vectors: Any, start: int, block_rows: int, top_n: int, min_similarity: float) -> tuple[Ints, Ints, Floats]:
    """Neighbours of rows ``start`` to ``start + block_rows``: (row, column, cosine) arrays, best first within each row."""
    if sparse.issparse(vectors):
        rows, columns, values = _sparse_scores(vectors[start : start + block_rows] @ vectors.T, min_similarity)
    else:
        rows, columns, values = _dense_scores(vectors, start, block_rows, top_n)
    kept = (rows + start != columns) & (values > 0) & (values >= min_similarity)
    rows, columns, values = _in_order(rows[kept], columns[kept], values[kept])
    best = position_in_group(rows) < top_n
    return rows[best] + start, columns[best], values[best].astype(np.float32)


def _rounded(cosines: Floats) -> Float64:
    return np.minimum(np.round(cosines.astype(np.float64), _DECIMALS), 1.0)


def _in_order(rows: Ints, columns: Ints, values: Float64) -> tuple[Ints, Ints, Float64]:
    """By row, then the highest rounded value, then the lowest column: all three fit into 64 bits, which are sorted at once."""
    micros = np.rint(values * _ONE).astype(np.int64)
    packed = rows.astype(np.int64) << (_VALUE_BITS + _COLUMN_BITS) | (_ONE - micros) << _COLUMN_BITS | columns
    packed.sort()
    micros = _ONE - (packed >> _COLUMN_BITS & ((1 << _VALUE_BITS) - 1))
    return packed >> (_VALUE_BITS + _COLUMN_BITS), packed & ((1 << _COLUMN_BITS) - 1), micros / _ONE


def _sparse_scores(scores: Any, min_similarity: float) -> tuple[Ints, Ints, Float64]:
    """Cells that rounding may bring to ``min_similarity``, rounded; nine of ten are dropped before anything is made of them."""
    enough = np.flatnonzero(scores.data >= max(min_similarity - _TIE, np.finfo(np.float32).tiny))
    rows = np.searchsorted(scores.indptr, enough, side="right") - 1
    return rows, scores.indices[enough].astype(np.int64), _rounded(scores.data[enough])


def _dense_scores(vectors: Vectors, start: int, block_rows: int, top_n: int) -> tuple[Ints, Ints, Float64]:
    """Only what can be among the ``top_n``, rounded; all that may tie with the last once rounded is included."""
    block = vectors[start : start + block_rows]
    some = np.flatnonzero(block.any(axis=1))  # a row of zeros has no neighbour, and all would tie for it
    asked, items = block[some], Pieces.of(vectors)

    def decisive(rows: Ints, columns: Ints) -> Float64:
        return _rounded(exact_scores(asked, items, rows, columns))

    length = min(top_n + 1, len(vectors))  # an item is met with itself
    spare = slack(asked, items) + 2 * _TIE
    rows, columns = best_cells(lambda tile: asked @ tile.T, items, len(some), length, spare=spare, rescore=decisive)
    return some[rows], columns, decisive(rows, columns)
