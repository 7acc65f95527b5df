"""Frames of rows that the driver holds, as a plan without tasks: ``createDataFrame`` of a list would start Python workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import DataType, MapType, StructType


def local_frame(spark: SparkSession, rows: Iterable[Sequence[Any]], schema: str | StructType) -> DataFrame:
    """A frame of ``rows`` (tuples in the order of ``schema``; instants without a zone are UTC).

    The optimiser knows its size: joins with it are broadcast, and branches of a plan over no rows fall away.
    """
    struct = cast(StructType, StructType.fromDDL(schema)) if isinstance(schema, str) else schema
    held = list(rows)
    if not held:
        return _empty(spark, struct)
    columns = [_column([row[n] for row in held], field.dataType) for n, field in enumerate(struct)]
    table: Any = pa.Table.from_arrays(columns, names=struct.names)
    return spark.createDataFrame(table, struct)


def _column(values: list[Any], kind: DataType) -> pa.Array:
    if isinstance(kind, MapType):
        values = [value if value is None else list(value.items()) for value in values]
    return pa.array(values, type=to_arrow_type(kind))


def _empty(spark: SparkSession, schema: StructType) -> DataFrame:
    """Arrow's stream of no batch names no schema, so the JVM is asked for the frame."""
    jvm, session = cast(Any, spark._jvm), cast(Any, spark._jsparkSession)
    return DataFrame(session.createDataFrame(jvm.java.util.ArrayList(), session.parseDataType(schema.json())), spark)
