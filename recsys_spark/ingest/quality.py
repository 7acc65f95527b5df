"""The rules for bad rows: every reason of a row is collected, and the row goes to quarantine."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.ingest.names import MALFORMED, quoted
from recsys_spark.ingest.read import source_columns
from recsys_spark.ingest.rownumbers import FILE_NO, ROW_NUMBER, SOURCE_HASH

UNPARSED, MALFORMED_RECORD = "malformed row", "malformed_record"
OPEN_QUOTE = "goes over several lines: is a quote not closed? With quote = '' it is a character like others"
REASONS, ROW, FATE = "__reasons", "__row", "__fate"
PLACE = (SOURCE_HASH, FILE_NO, ROW_NUMBER)
KEPT, MERGED, KNOWN, QUARANTINED = "kept", "merged", "known", "quarantined"
FATES = (KEPT, MERGED, KNOWN, QUARANTINED)

Rule = tuple[Column, str]


def reasons(rules: list[Rule]) -> Column:
    """All reasons whose condition is true (null counts as false), in the order of the rules.

    Nearly every row is good: whether any condition is true is asked first, and without lambdas, which Spark does not compile.
    """
    some = reduce(lambda a, b: a | b, [condition for condition, _ in rules])
    told = F.array(*[F.when(condition, F.lit(reason)) for condition, reason in rules])
    none = F.array().cast("array<string>")
    return F.when(some, F.array_except(told, F.array(F.lit(None).cast("string")))).otherwise(none)


def judged(raw: DataFrame, columns: dict[str, Column], rules: list[Rule], private: bool) -> DataFrame:
    """Typed columns plus the row's place, its ``__reasons`` and, where there are any, the row itself as JSON.

    Args:
        raw: as ``read_source`` returns it.
        columns: our name -> expression over ``raw``.
        rules: condition over ``raw`` -> reason.
        private: with an id key, the JSON holds the length of each field, never its value.
    """
    rules = [(F.col(MALFORMED).isNotNull(), UNPARSED), (F.col(MALFORMED).contains("\n"), OPEN_QUOTE), *rules]
    flagged = raw.withColumn(REASONS, reasons(rules))
    row = F.when(F.size(REASONS) > 0, _as_json(raw, private))
    return flagged.select(*PLACE, *[value.alias(name) for name, value in columns.items()], REASONS, row.alias(ROW))


def _as_json(raw: DataFrame, private: bool) -> Column:
    names = source_columns(raw)
    if private:
        lengths = [F.coalesce(F.length(F.col(quoted(name)).cast("string")), F.lit(0)).alias(name) for name in names]
        return F.to_json(F.struct(*lengths))
    record = F.col(MALFORMED).alias(MALFORMED_RECORD)
    return F.to_json(F.struct(*[F.col(quoted(name)).cast("string").alias(name) for name in names], record))


def good(rows: DataFrame) -> DataFrame:
    """Rows without a reason."""
    return rows.where(F.size(REASONS) == 0).drop(REASONS, ROW)


def bad(rows: DataFrame, table: str, run_id: str) -> DataFrame:
    """Rows for the quarantine table."""
    return rows.where(F.size(REASONS) > 0).select(
        F.col(SOURCE_HASH).alias("source_hash"),
        F.col(ROW_NUMBER).cast("bigint").alias("row_number"),
        F.lit(table).alias("table"),
        F.coalesce(F.col(ROW), F.lit("{}")).alias("row"),
        F.col(REASONS).alias("reasons"),
        F.lit(run_id).alias("run_id"),
    )


def quarantine(new: DataFrame, present: DataFrame, processed: dict[str, list[str]]) -> DataFrame:
    """The whole quarantine after this run: what it held for other sources, and ``new``.

    A row that is there already keeps the run that first found it, so that nothing differs on a rerun.

    Args:
        processed: table -> source hashes read in this run.
    """
    read_again = [(F.col("table") == table) & F.col("source_hash").isin(hashes) for table, hashes in processed.items() if hashes]
    others = present.where(~reduce(lambda a, b: a | b, read_again)) if read_again else present
    key = ["source_hash", "row_number", "table"]
    old = present.select(*key, F.col("row").alias("_row"), F.col("reasons").alias("_reasons"), F.col("run_id").alias("_run_id"))
    same = (F.col("row") == F.col("_row")) & (F.col("reasons") == F.col("_reasons"))
    found = new.join(old, key, "left").withColumn("run_id", F.when(same, F.col("_run_id")).otherwise(F.col("run_id")))
    return others.unionByName(found.drop("_row", "_reasons", "_run_id"))


def count_fates(rows: DataFrame, fated: DataFrame) -> dict[str, Counter[str]]:
    """Source hash -> fate -> rows; the sum over fates is the number of rows read (DESIGN promise 2).

    Args:
        rows: all judged rows.
        fated: the good ones with their ``__fate``.
    """
    lost = rows.where(F.size(REASONS) > 0).select(SOURCE_HASH, F.lit(QUARANTINED).alias(FATE))
    counts: dict[str, Counter[str]] = {}
    for row in lost.unionByName(fated.select(SOURCE_HASH, FATE)).groupBy(SOURCE_HASH, FATE).count().collect():
        counts.setdefault(row[SOURCE_HASH], Counter())[row[FATE]] = row["count"]
    return counts


def count_reasons(rows: DataFrame, most: int = 20) -> dict[str, int]:
    """Reason -> rows, the most common first."""
    counted = rows.select(F.explode(REASONS).alias("reason")).groupBy("reason").count()
    found: list[Any] = counted.orderBy(F.desc("count"), "reason").limit(most).collect()
    return {row["reason"]: row["count"] for row in found}
