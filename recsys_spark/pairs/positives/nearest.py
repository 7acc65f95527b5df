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

from recsys_spark.tables.local import local_frame

SCHEMA = "anchor_idx int, item_idx int, weight float"
_MAX_BLOCK_ROWS = 1024
_MAX_BLOCK_CELLS = 2**25  # 128 MiB of float32 scores at a time
_DECIMALS = 6  # scores this close are ties: the last bits depend on the machine's BLAS

Ints = npt.NDArray[np.integer[Any]]
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
    block_rows = max(1, min(_MAX_BLOCK_ROWS, _MAX_BLOCK_CELLS // rows))
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
    scores = vectors[start : start + block_rows] @ vectors.T
    rows, columns, values = _sparse_scores(scores) if sparse.issparse(scores) else _dense_scores(scores, start, top_n)
    values = np.minimum(np.round(values.astype(np.float64), _DECIMALS), 1.0)
    kept = (rows + start != columns) & (values > 0) & (values >= min_similarity)
    rows, columns, values = rows[kept], columns[kept], values[kept]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    first_of_row = np.searchsorted(rows, rows, side="left")
    best = np.arange(len(rows)) - first_of_row < top_n
    return rows[best] + start, columns[best], values[best].astype(np.float32)


def _sparse_scores(scores: Any) -> tuple[Ints, Ints, Floats]:
    found = scores.tocoo()
    return found.row.astype(np.int64), found.col.astype(np.int64), found.data


def _dense_scores(scores: Floats, start: int, top_n: int) -> tuple[Ints, Ints, Floats]:
    """Only what can be among the ``top_n``; all that may tie with the last once rounded is included."""
    scores[np.arange(len(scores)), start + np.arange(len(scores))] = -np.inf  # never an item with itself
    last = max(scores.shape[1] - top_n, 0)
    threshold = np.partition(scores, last, axis=1)[:, last] - 2 * 10.0**-_DECIMALS
    rows, columns = np.nonzero((scores >= threshold[:, None]) & (scores > 0))
    return rows, columns, scores[rows, columns]
