"""Rows of a CSV file that lie inside a value of another: a quote before them was opened and not closed."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.ingest.names import MALFORMED, literal_pattern, quoted

_LINE_BREAK = "\\r\\n?|\\n"


def with_swallowed_rows(scan: DataFrame, names: list[str], separator: str) -> DataFrame:
    """``scan`` with ``MALFORMED`` set where a value has several lines of which each inner one is a whole row, or holds a tab
    beside a line break in a file that is separated by tabs. No text that was meant to be in quotes looks like that.

    Of a quote that is closed in the row after its own nothing can be told in a CSV file.
    """
    if len(names) < 2:
        return scan
    found = reduce(lambda a, b: a | b, [_swallows(F.col(quoted(name)), len(names), separator) for name in names])
    record = F.concat_ws(separator, *[F.col(quoted(name)) for name in names])
    return scan.withColumn(MALFORMED, F.coalesce(F.col(MALFORMED), F.when(found, record)))


def _swallows(value: Column, num_columns: int, separator: str) -> Column:
    several = F.coalesce(value.contains("\n") | value.contains("\r"), F.lit(False))  # nearly no value: no pattern is asked
    if separator == "\t":
        return several & F.coalesce(value.contains(separator), F.lit(False))
    lines = F.split(value, _LINE_BREAK)
    inner = F.slice(lines, 2, F.greatest(F.size(lines) - 2, F.lit(0)))
    is_row = F.forall(inner, lambda line: F.size(F.split(line, literal_pattern(separator), -1)) == num_columns)
    return several & F.coalesce((F.size(inner) > 0) & is_row, F.lit(False))
