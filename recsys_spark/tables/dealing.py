"""Numbers and places for rows that do not depend on how Spark happened to split them."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.tables.content import row_hash

_ROW_BITS = (1 << 33) - 1  # monotonically_increasing_id: partition above, row in partition in these bits


def numbered(ordered: DataFrame, name: str, start: int = 0) -> DataFrame:
    """Add ``name bigint``: start, start + 1, ... in the order of the frame, which must be sorted and persisted (its
    partitions are counted before they are numbered)."""
    sizes = {row[0]: row[1] for row in ordered.groupBy(F.spark_partition_id()).count().collect()}
    offsets = [start + sum(size for partition, size in sizes.items() if partition < p) for p in range(max(sizes, default=0) + 1)]
    offset = F.get(F.array(*[F.lit(o).cast("bigint") for o in offsets]), F.spark_partition_id())
    return ordered.withColumn(name, offset + F.monotonically_increasing_id().bitwiseAND(F.lit(_ROW_BITS)))


def partition_keys(spark: SparkSession, partitions: int) -> list[int]:
    """For each partition the smallest int that ``repartition(partitions, ...)`` sends there, so that no two keys share one."""
    places = f"transform(sequence(0, {64 * partitions}), key -> pmod(hash(key), {partitions}))"
    row = spark.sql(f"SELECT {places} AS places").first()
    first: dict[int, int] = {}
    for key, place in enumerate(row["places"] if row is not None else []):
        first.setdefault(place, key)
    return sorted(first.values())


def shuffled(frame: DataFrame) -> DataFrame:
    """Rows in the order of a hash: mixed, and the same each time, so that a seed gives the same training batches."""
    ordered = frame.withColumn("_hash", row_hash(frame))
    return ordered.orderBy("_hash", *[c for c, t in frame.dtypes if "map" not in t]).drop("_hash")


def in_equal_parts(ordered: DataFrame, parts: int) -> DataFrame:
    """The rows of a sorted, persisted frame dealt round robin to ``parts`` partitions: sizes equal to within one, and the
    same rows in the same order in the same partition each time."""
    keys = F.array(*[F.lit(key) for key in partition_keys(ordered.sparkSession, parts)])
    placed = numbered(ordered, "_position")
    dealt = placed.withColumn("_part", F.get(keys, (F.col("_position") % parts).cast("int")))
    return dealt.repartition(parts, "_part").sortWithinPartitions("_position").select(*ordered.columns)
