"""What a frame holds, as one short hash: the identity of a table's content, whatever its order or version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, MapType

from recsys_spark.errors import ContractError
from recsys_spark.tables.contracts import Contract

TOLERANCE = 1e-6  # floats this close are equal (DESIGN, promise 1)


@dataclass(frozen=True)
class Checked:
    """One pass over a frame: its rows and content hash."""

    rows: int
    content: str


def _hashable(name: str, kind: DataType) -> Column:
    if isinstance(kind, MapType):
        return F.array_sort(F.map_entries(F.col(name)))
    return F.col(name)


def row_hash(frame: DataFrame) -> Column:
    """64-bit hash of a whole row; nulls count (xxhash64 alone skips them)."""
    parts: list[Column] = []
    for field in frame.schema:
        parts += [_hashable(field.name, field.dataType), F.col(field.name).isNull()]
    return F.xxhash64(*parts)


def _content(total: object, rows: int, schema: str) -> str:
    return hashlib.sha256(f"{total}|{rows}|{schema}".encode()).hexdigest()[:16]


def content_hash(frame: DataFrame) -> str:
    """Hash of the multiset of rows; the order of rows does not matter."""
    total, rows = frame.select(F.sum(row_hash(frame).cast("decimal(38,0)")), F.count(F.lit(1))).first() or (None, 0)
    return _content(total, rows, frame.schema.simpleString())


def check(frame: DataFrame, spec: Contract) -> Checked:
    """Rows and content of a frame that keeps its contract.

    Raises:
        ContractError: a null in a column that may not be null, or a key that occurs twice.
    """
    totals = [F.sum(row_hash(frame).cast("decimal(38,0)")).alias("total"), F.count(F.lit(1)).alias("rows")]
    nulls = [F.sum(F.col(c).isNull().cast("long")).alias(f"null_{c}") for c in spec.not_null]
    found = frame.agg(*totals, *nulls).first()
    if found is None:  # an aggregate always has one row
        raise ContractError(f"table '{spec.name}'", "no aggregate row")
    for column in spec.not_null:
        if found[f"null_{column}"]:
            raise ContractError(f"table '{spec.name}'", f"{found[f'null_{column}']} rows with null {column}", "no nulls")
    for key in spec.keys:
        _check_key(frame, spec.name, key, found["rows"])
    return Checked(found["rows"], _content(found["total"], found["rows"], frame.schema.simpleString()))


def _check_key(frame: DataFrame, table: str, key: tuple[str, ...], rows: int) -> None:
    """Count distinct 64-bit hashes first (cheap); group by the key itself only when they disagree."""
    distinct = frame.agg(F.count_distinct(F.xxhash64(*key))).first()
    if distinct is None or distinct[0] == rows:
        return
    twice = frame.groupBy(*key).count().where("count > 1").first()
    if twice is not None:
        value = ", ".join(f"{k}={twice[k]!r}" for k in key)
        raise ContractError(f"table '{table}'", f"key {value} occurs {twice['count']} times", "a unique key")


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


def differing_rows(new: DataFrame, old: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Rows of ``new`` whose key is not in ``old`` or whose other columns differ beyond TOLERANCE."""
    others = [f for f in new.schema if f.name not in key]
    found = old.select(*key, F.struct(*[F.col(f.name) for f in others]).alias("_old"), F.lit(True).alias("_found"))
    same = F.lit(True)
    for field in others:
        same = same & _same(F.col(field.name), F.col(f"_old.{field.name}"), field.dataType)
    joined = new.join(found, list(key), "left")
    return joined.where(F.col("_found").isNull() | ~F.coalesce(same, F.lit(False))).select(*new.columns)


def frames_equal(new: DataFrame, old: DataFrame, key: tuple[str, ...]) -> bool:
    """Equal as DESIGN promise 1 defines it, but for swapped ranks; both frames have unique keys."""
    if new.count() != old.count():
        return False
    return differing_rows(new, old, key).isEmpty()
