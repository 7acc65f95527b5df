"""What a frame of vectors must be before anything is built from it."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import InputError


@dataclass(frozen=True)
class Shape:
    """Rows and dimensions of a checked frame; a frame without rows has 0 dimensions."""

    rows: int
    dimension: int


def check_columns(frame: DataFrame, key: str, what: str) -> None:
    """Refuse a frame without ``key int`` and ``vector array<float>``; no job.

    Raises:
        InputError: a column is missing or of another type.
    """
    types = dict(frame.dtypes)
    for name, kind in ((key, "int"), ("vector", "array<float>")):
        if types.get(name) != kind:
            found = f"column {name} is {types[name]}" if name in types else f"no column {name}"
            raise InputError(f"{what} of the search", found, f"{name} {kind}", "cast or rename it")


def check_rows(frame: DataFrame, key: str, what: str) -> Shape:
    """Size of a frame whose every row can be searched; one job.

    Raises:
        InputError: nulls, values that are not finite, vectors of different length or without dimensions, a key that occurs
            twice.
    """
    where = f"{what} of the search"
    strange = F.exists("vector", lambda x: x.isNull() | F.isnan(x) | (F.abs(x) == F.lit(float("inf"))))
    row = frame.select(
        F.count(F.lit(1)).alias("rows"),
        F.count_distinct(key).alias("keys"),
        F.count_if(F.col(key).isNull() | F.col("vector").isNull()).alias("nulls"),
        F.count_if(strange).alias("strange"),
        F.min(F.size("vector")).alias("shortest"),
        F.max(F.size("vector")).alias("longest"),
    ).first()
    if row is None or not row["rows"]:
        return Shape(0, 0)
    if row["nulls"]:
        raise InputError(where, f"{row['nulls']} rows with a null {key} or vector", "no nulls", "leave these rows out")
    if row["strange"]:
        raise InputError(
            where, f"{row['strange']} vectors with null, NaN or infinity", "finite numbers", "find out where they come from"
        )
    if row["shortest"] != row["longest"] or not row["longest"]:
        raise InputError(
            where, f"vectors of {row['shortest']} to {row['longest']} dimensions", "one number of dimensions above 0"
        )
    if row["keys"] != row["rows"]:
        raise InputError(
            where, f"{row['rows']} rows with {row['keys']} different {key}", f"each {key} once", "drop the duplicates"
        )
    return Shape(int(row["rows"]), int(row["longest"]))
