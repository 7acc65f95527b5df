"""Vectors cut to their first dimensions, which Matryoshka training makes good ones: smaller and quicker lists."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F


def first_dimensions(vectors: DataFrame, dimensions: int | None) -> DataFrame:
    """``vector`` of each row cut to the first ``dimensions`` and brought to unit length (zero stays zero); None: as it is."""
    if dimensions is None:
        return vectors
    cut = F.slice("vector", 1, dimensions)
    squares = F.aggregate(cut, F.lit(0.0), lambda total, value: total + value.cast("double") * value.cast("double"))
    return vectors.withColumn("_length", F.sqrt(squares)).withColumn("vector", _over(cut, "_length")).drop("_length")


def _over(values: Column, length: str) -> Column:
    return F.when(F.col(length) > 0, F.transform(values, lambda value: (value / F.col(length)).cast("float"))).otherwise(values)
