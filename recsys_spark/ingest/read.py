"""Read the new files of a source: every column as the file has it, text as text, with a stable row number."""

from __future__ import annotations

import re
from functools import reduce

from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from recsys_spark.config.ingest import Source
from recsys_spark.errors import InputError
from recsys_spark.ingest.files import SourceFile, first_line, is_compressed
from recsys_spark.ingest.names import MALFORMED, literal_path
from recsys_spark.ingest.open_quotes import with_swallowed_rows
from recsys_spark.ingest.pseudonyms import KEY_COLUMNS
from recsys_spark.ingest.rownumbers import FILE_NO, ROW_NUMBER, SOURCE_HASH, number_rows
from recsys_spark.tables.local import local_frame

FORGOTTEN_COLUMNS = ("__forgotten_at", "__user_sha")  # see forgotten.py
OUR_COLUMNS = (MALFORMED, SOURCE_HASH, FILE_NO, ROW_NUMBER)
WHOLE_FILE_BYTES = 32 << 20  # a CSV file up to this size is read in one task, so quoted line breaks need no search
_KEY_SAMPLE_LINES = 1_000

Numbered = tuple[int, SourceFile]


def read_source(spark: SparkSession, source: Source, files: list[SourceFile], needed: set[str]) -> DataFrame | None:
    """The rows of ``files`` with all source columns, and ours: ``__malformed, __source_hash, __file_no, __row_number``.

    CSV and JSON columns are strings. ``needed`` names the source columns the caller will use (JSON lines have no
    header, so these are looked for). None where every file is empty, without even a header.
    """
    numbered = list(enumerate(files))
    if source.format in ("csv", "tsv"):
        frames = [_read_csv(spark, source, group) for group in _csv_groups(spark, source, numbered)]
    elif source.format == "jsonl":
        frames = [_read_json(spark, files, numbered, needed)]
    elif source.format == "delta":
        frames = [_number(_read_delta(spark, file), [(position, file)]) for position, file in numbered]
    else:
        frames = [_read_parquet(spark, group) for group in _by_base(numbered)]
    frames = [frame for frame in frames if len(frame.columns) > len(OUR_COLUMNS)]
    if not frames:
        return None
    return reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), frames)


def source_columns(frame: DataFrame) -> list[str]:
    """Columns that come from the file."""
    return [column for column in frame.columns if column not in (*OUR_COLUMNS, *KEY_COLUMNS, *FORGOTTEN_COLUMNS)]


def _number(scan: DataFrame, group: list[Numbered]) -> DataFrame:
    marked = scan if MALFORMED in scan.columns else scan.withColumn(MALFORMED, F.lit(None).cast("string"))
    return number_rows(marked, group)


def _paths(group: list[Numbered]) -> list[str]:
    return [literal_path(file.path) for _, file in group]


def _by_base(numbered: list[Numbered]) -> list[list[Numbered]]:
    """Files of one listed folder together: each folder has its own partition columns."""
    groups: dict[str | None, list[Numbered]] = {}
    for entry in numbered:
        groups.setdefault(entry[1].base, []).append(entry)
    return list(groups.values())


def _based(spark: SparkSession, group: list[Numbered]) -> DataFrameReader:
    base = group[0][1].base
    return spark.read if base is None else spark.read.option("basePath", base)


def _read_parquet(spark: SparkSession, group: list[Numbered]) -> DataFrame:
    """Files of later days may have columns more, or other ones; one column has one type."""
    try:
        return _number(_based(spark, group).option("mergeSchema", len(group) > 1).parquet(*_paths(group)), group)
    except Exception as error:  # what comes out of the tasks that read schemas is py4j's
        reason = re.search(r"Failed to merge incompatible data types .*", str(error))
        if reason is None:
            raise
        where, do = f"{len(group)} Parquet files, the first {group[0][1].path}", "write the column with one type in all of them"
        raise InputError(where, reason[0].strip(), "one type for each column", do) from None


def _read_delta(spark: SparkSession, file: SourceFile) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", file.version or 0).load(file.path)


def _csv_groups(spark: SparkSession, source: Source, numbered: list[Numbered]) -> list[tuple[list[Numbered], bool]]:
    """Files that one scan may read: same folder, same header, and all or none read as a whole."""
    groups: dict[tuple[str | None, str, bool], list[Numbered]] = {}
    for position, file in numbered:
        if file.size == 0:
            continue
        header = first_line(spark, file.path, source.encoding) if source.header else ""
        groups.setdefault((file.base, header, _read_whole(spark, source, file)), []).append((position, file))
    return [(group, whole) for (_, _, whole), group in groups.items()]


def _read_whole(spark: SparkSession, source: Source, file: SourceFile) -> bool:
    """Whether a CSV file must be read in one task: small, compressed, or with a line that holds half a quoted field."""
    if not source.is_utf8:
        return True  # Spark cuts only such lines that are UTF-8
    if not source.quote:
        return False
    if file.size <= WHOLE_FILE_BYTES or is_compressed(spark, file.path):
        return True
    quotes = F.length("value") - F.length(F.replace(F.col("value"), F.lit(source.quote), F.lit("")))
    return not spark.read.text(literal_path(file.path)).where(quotes % 2 == 1).isEmpty()


def _read_csv(spark: SparkSession, source: Source, group_and_whole: tuple[list[Numbered], bool]) -> DataFrame:
    group, whole = group_and_whole
    separator = source.delimiter or {"csv": ",", "tsv": "\t"}[source.format]
    options: dict[str, str | bool] = {
        "header": source.header,
        "sep": separator,
        "quote": source.quote,
        "encoding": source.encoding,
        "escape": source.quote,  # RFC 4180: a quote inside quotes is doubled
        "multiLine": whole,
        "columnPruning": False,  # else a malformed row is only seen when all its columns are used
        "columnNameOfCorruptRecord": MALFORMED,
    }
    names = spark.read.options(**options).csv(literal_path(group[0][1].path)).columns
    if not names:
        return local_frame(spark, [], StructType([StructField(c, StringType()) for c in OUR_COLUMNS]))
    schema = StructType([StructField(name, StringType()) for name in (*names, MALFORMED)])
    scan = _based(spark, group).options(**options).schema(schema).csv(_paths(group))
    return _number(with_swallowed_rows(scan, names, separator) if whole else scan, group)


def _read_json(spark: SparkSession, files: list[SourceFile], group: list[Numbered], needed: set[str]) -> DataFrame:
    """All keys of the first lines and those needed, as text; a key that no line has stays away, so it is reported."""
    lines = spark.read.text(_paths(group))
    keys = _json_keys(lines.limit(_KEY_SAMPLE_LINES))
    if not needed <= keys:
        keys |= needed & _json_keys(lines)
    schema = StructType([StructField(name, StringType()) for name in (*sorted(keys), MALFORMED)])
    scan = spark.read.schema(schema).option("columnNameOfCorruptRecord", MALFORMED).json(_paths(group))
    return _number(scan, group)


def _json_keys(lines: DataFrame) -> set[str]:
    return {row[0] for row in lines.select(F.explode(F.json_object_keys("value"))).distinct().collect()}


__all__ = ["FORGOTTEN_COLUMNS", "OUR_COLUMNS", "read_source", "source_columns"]
