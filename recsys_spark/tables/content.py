"""What a frame holds, as one short hash: the identity of a table's content, whatever its order or version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, MapType

from recsys_spark.errors import ContractError
from recsys_spark.tables.contracts import Contract
from recsys_spark.tables.keys import check_key, check_key_of_many, refuse_duplicates

TOLERANCE = 1e-6  # floats this close are equal (DESIGN, promise 1)


@dataclass(frozen=True)
class Content:
    """A multiset of rows as a sum of row hashes and a count, so that it can be kept up to date by adding and taking away."""

    total: int
    rows: int

    def __add__(self, other: Content) -> Content:
        return Content(self.total + other.total, self.rows + other.rows)

    def __sub__(self, other: Content) -> Content:
        return Content(self.total - other.total, self.rows - other.rows)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.total}|{self.rows}".encode()).hexdigest()[:16]


def _hashable(name: str, kind: DataType) -> str:
    column = "`" + name.replace("`", "``") + "`"
    return f"array_sort(map_entries({column}))" if isinstance(kind, MapType) else column


def row_hash(frame: DataFrame) -> Column:
    """64-bit hash of a whole row; nulls count (xxhash64 alone skips them), and so do the names and types of columns."""
    parts = ["'" + frame.schema.simpleString().replace("\\", "\\\\").replace("'", "\\'") + "'"]
    for field in frame.schema:
        parts += [_hashable(field.name, field.dataType), f"{_hashable(field.name, field.dataType)} IS NULL"]
    return F.expr(f"xxhash64({', '.join(parts)})")  # as text: a round trip to the JVM per column would cost more than the job


def hash_sums(row_hash: Column) -> dict[str, Column]:
    """What ``summed`` needs of the rows of a group. A sum of 64-bit numbers needs more bits than these: both
    halves are summed, the lower one about 0, so that neither sum leaves 64 bits. It costs a fifth less than decimals."""
    low = row_hash.bitwiseAND(F.lit(2**32 - 1)) - F.lit(2**31)
    return {"high": F.sum(F.shiftright(row_hash, 32)), "low": F.sum(low), "rows": F.count(row_hash)}


def summed(row: Any) -> Content:
    """Out of a row with ``hash_sums``, of no rows too."""
    rows = int(row["rows"] or 0)
    return Content((int(row["high"] or 0) << 32) + int(row["low"] or 0) + (rows << 31), rows)


def content(frame: DataFrame) -> Content:
    """The content of a frame; the order of rows and their partitions do not matter."""
    return summed(frame.agg(*[part.alias(name) for name, part in hash_sums(row_hash(frame)).items()]).first())


def contents_by(frame: DataFrame, column: str) -> dict[str, Content]:
    """The content of each group of rows with one value in ``column``, which itself does not count; one job for all."""
    others = frame.drop(column)
    rows = frame.select(F.col(column).alias("group"), row_hash(others).alias("hash")).groupBy("group")
    found = rows.agg(*[part.alias(name) for name, part in hash_sums(F.col("hash")).items()]).collect()
    return {row["group"]: summed(row) for row in found}


def content_hash(frame: DataFrame) -> str:
    """``content(frame).digest``: what fingerprints are made of."""
    return content(frame).digest


def check(frame: DataFrame, spec: Contract, many: bool = False) -> Content:
    """The content of a frame that keeps its contract; one job, and one more per further key. ``many``: rows are so many that
    a job per key is cheaper than all in one.

    Raises:
        ContractError: a null in a column that may not be null, or a key that occurs twice.
    """
    first, *others = spec.keys or ((),)
    groups = frame.groupBy(F.xxhash64(*first)) if first and not many else frame.groupBy()
    parts = hash_sums(row_hash(frame)) | {f"null_{c}": F.sum(F.col(c).isNull().cast("bigint")) for c in spec.not_null}
    by_group = groups.agg(*[part.alias(name) for name, part in parts.items()])
    found: Any = by_group.agg(F.max("rows").alias("most"), *[F.sum(name).alias(name) for name in parts]).first()
    if not found["rows"]:
        return Content(0, 0)
    for column in spec.not_null:
        if found[f"null_{column}"]:
            raise ContractError(f"table '{spec.name}'", f"{found[f'null_{column}']} rows with null {column}", "no nulls")
    if many:
        for key in spec.keys:
            check_key_of_many(frame, spec.name, key)
        return summed(found)
    if first and found["most"] > 1:
        refuse_duplicates(frame, spec.name, first)
    for key in others:
        check_key(frame, spec.name, key, int(found["rows"]))
    return summed(found)


def _same(left: Column, right: Column, kind: DataType) -> Column:
    """Null-safe equality; floats, alone or in arrays, within TOLERANCE (NaN equals NaN)."""
    if isinstance(kind, FloatType | DoubleType):
        return left.eqNullSafe(right) | (F.abs(left.cast("double") - right.cast("double")) <= TOLERANCE)
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, FloatType | DoubleType):
        close = F.forall(F.zip_with(left, right, lambda a, b: F.abs(a - b) <= TOLERANCE), lambda same: same)
        return left.eqNullSafe(right) | ((F.size(left) == F.size(right)) & close)
    if isinstance(kind, MapType):
        return F.array_sort(F.map_entries(left)).eqNullSafe(F.array_sort(F.map_entries(right)))
    return left.eqNullSafe(right)


def changes(new: DataFrame, old: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Rows of ``new`` whose key is not in ``old`` or whose other columns differ beyond TOLERANCE.

    Two columns more: ``_found`` (true where the key was there, else null) and ``_old_hash`` (hash of the old row).
    """
    others = [f for f in new.schema if f.name not in key]
    found = old.select(
        *key,
        F.struct(*[F.col(f.name) for f in others]).alias("_old"),
        row_hash(old.select(*new.columns)).alias("_old_hash"),
        F.lit(True).alias("_found"),
    )
    same = F.lit(True)
    for field in others:
        same = same & _same(F.col(field.name), F.col(f"_old.{field.name}"), field.dataType)
    joined = new.join(found, list(key), "left")
    return joined.where(F.col("_found").isNull() | ~F.coalesce(same, F.lit(False))).select(*new.columns, "_found", "_old_hash")


def differing_rows(new: DataFrame, old: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Rows of ``new`` whose key is not in ``old`` or whose other columns differ beyond TOLERANCE."""
    return changes(new, old, key).select(*new.columns)


def frames_equal(new: DataFrame, old: DataFrame, key: tuple[str, ...]) -> bool:
    """Equal as DESIGN promise 1 defines it, but for swapped ranks; both frames have unique keys."""
    if new.count() != old.count():
        return False
    return changes(new, old, key).isEmpty()
