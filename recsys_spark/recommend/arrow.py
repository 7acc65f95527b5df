"""Arrow batches in and out: list columns as flat arrays, and the one row type that all lists leave the workers in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_spark.recommend.explain import Reasons
from recsys_spark.recommend.scoring.scores import Ints

REASON = "struct<kind:string,ref_id:string,text:string,contribution:double>"
OUTPUT = (
    f"table string, owner_id string, rank int, item_id string, score double, source string, reasons array<{REASON}>, "
    "number int, reason string"
)
_REASON_TYPE = pa.struct([("kind", pa.string()), ("ref_id", pa.string()), ("text", pa.string()), ("contribution", pa.float64())])
_TYPES = {
    "table": pa.string(),
    "owner_id": pa.string(),
    "rank": pa.int32(),
    "item_id": pa.string(),
    "score": pa.float64(),
    "source": pa.string(),
    "reasons": pa.list_(_REASON_TYPE),
    "number": pa.int32(),
    "reason": pa.string(),
}


def flat_list(column: Any) -> tuple[Ints, npt.NDArray[Any]]:
    """Lengths ``[B]`` (0 for null) and values end to end of a list column."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths, column.flatten().to_numpy(zero_copy_only=False)


def vector_rows(column: Any, dimension: int) -> npt.NDArray[np.float32]:
    """A list column as ``[B, dimension]``; null is a row of zeros."""
    out = np.zeros((len(column), dimension), np.float32)
    lengths, values = flat_list(column)
    if dimension:
        out[lengths == dimension] = values.reshape(-1, dimension)
    return out


def reason_lists(reasons: Reasons) -> Any:
    """Reasons as an Arrow list column, one list per recommendation."""
    fields = [reasons.kinds, reasons.ref_ids, reasons.texts, pa.array(reasons.contributions, pa.float64())]
    structs = pa.StructArray.from_arrays(fields, fields=list(_REASON_TYPE))
    return pa.ListArray.from_arrays(pa.array(reasons.offsets, pa.int32()), structs)


def output_batch(table: str, num_rows: int, **columns: Any) -> Any:
    """Rows of one kind; columns that are not given are null."""
    arrays = []
    for name, kind in _TYPES.items():
        if name == "table":
            arrays.append(pa.repeat(pa.scalar(table, kind), num_rows))
        elif name in columns:
            given = columns[name]
            arrays.append(given if isinstance(given, pa.Array) else pa.array(given, kind))
        else:
            arrays.append(pa.nulls(num_rows, kind))
    return pa.RecordBatch.from_arrays(arrays, names=list(_TYPES))
