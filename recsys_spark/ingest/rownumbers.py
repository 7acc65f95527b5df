"""Row numbers in file order, right for files of many splits, without a sort."""

from __future__ import annotations

from urllib.parse import unquote

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.ingest.files import SourceFile
from recsys_spark.tables.local import local_frame

SOURCE_HASH, FILE_NO, ROW_NUMBER = "__source_hash", "__file_no", "__row_number"
_PATH, _BLOCK, _SEEN = "__path", "__block", "__seen"


def plain_path(path: str) -> str:
    """One spelling for the several that Spark and Hadoop give the same file (``file:/a%20b``, ``file:///a b``)."""
    text = unquote(path)
    scheme, _, rest = text.partition(":/")
    return f"{scheme}:/{rest.lstrip('/')}" if rest else text


def number_rows(scan: DataFrame, files: list[tuple[int, SourceFile]]) -> DataFrame:
    """Add ``__source_hash``, ``__file_no`` and ``__row_number`` (0-based, in file order) to a fresh file scan.

    Args:
        scan: a reader's frame with nothing but reading in its plan, so that two runs of it are cut alike.
        files: (position in the source, file) of every file in the scan; a Delta table counts as one file, whose
            parts follow each other by path.

    Rows of a split are numbered as they are read; where each split starts in its file comes from one pass that
    counts the rows of each split (a few numbers per split reach the driver).
    """
    seen = F.monotonically_increasing_id()
    if len(files) == 1 and scan.rdd.getNumPartitions() == 1 and files[0][1].version is None:
        return scan.select(
            "*", F.lit(files[0][1].source_hash).alias(SOURCE_HASH), F.lit(files[0][0]).alias(FILE_NO), seen.alias(ROW_NUMBER)
        )
    placed = scan.select(
        "*", F.col("_metadata.file_path").alias(_PATH), F.col("_metadata.file_block_start").alias(_BLOCK), seen.alias(_SEEN)
    )
    starts = _split_starts(placed, files)
    numbered = placed.join(F.broadcast(starts), [_PATH, _BLOCK]).withColumn(
        ROW_NUMBER, F.col(_SEEN) - F.col("__first") + F.col("__start")
    )
    return numbered.drop(_PATH, _BLOCK, _SEEN, "__first", "__start")


def _split_starts(placed: DataFrame, files: list[tuple[int, SourceFile]]) -> DataFrame:
    """One row per split: its path and block, the first number seen in it, and how many rows of its file lie before it."""
    splits = placed.groupBy(_PATH, _BLOCK).agg(F.min(_SEEN).alias("first"), F.count(F.lit(1)).alias("rows")).collect()
    by_path = {plain_path(file.path): (number, file) for number, file in files}
    rows = []
    before: dict[str, int] = {}
    for split in sorted(splits, key=lambda row: (row[_PATH], row[_BLOCK])):
        number, file = by_path.get(plain_path(split[_PATH]), files[0])
        start = before.get(file.source_hash, 0)
        before[file.source_hash] = start + split["rows"]
        rows.append((split[_PATH], split[_BLOCK], split["first"], start, file.source_hash, number))
    schema = f"{_PATH} string, {_BLOCK} long, __first long, __start long, {SOURCE_HASH} string, {FILE_NO} int"
    return local_frame(placed.sparkSession, rows, schema)
