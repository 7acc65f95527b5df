"""Vectors between NumPy and Arrow without a Python object per number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def vector_column(vectors: NDArray[np.float32]) -> Any:
    """Rows [n, D] as an Arrow list<float> array of n lists."""
    rows, width = vectors.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(vectors).reshape(-1)))


def vectors_of(column: Any, width: int | None = None) -> NDArray[np.float32]:
    """An Arrow list<float> column without nulls as rows [n, D]; ``width`` is D where n may be 0."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = whole.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    width = width if width is not None else len(values) // max(len(whole), 1)
    shaped: NDArray[np.float32] = values.reshape(len(whole), width)
    return shaped


def padded_lists(column: Any, length: int, fill: int) -> NDArray[np.int64]:
    """An Arrow list<int> column as [n, length], the last ``length`` of each list at the right, ``fill`` at the left."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    out = np.full((len(whole), length), fill, dtype=np.int64)
    values = whole.flatten().to_numpy(zero_copy_only=False)
    sizes = np.array([0 if size is None else size for size in whole.value_lengths().to_pylist()], dtype=np.int64)
    ends = np.cumsum(sizes)
    kept = np.minimum(sizes, length)
    rows = np.repeat(np.arange(len(whole)), kept)
    nth = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)  # 0.. within each row
    out[rows, length - kept[rows] + nth] = values[ends[rows] - kept[rows] + nth]
    return out
