"""The ledger of files already ingested: what to skip, and the sums of every file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.ingest import Source
from recsys_spark.errors import ConfigError
from recsys_spark.ingest.files import SourceFile
from recsys_spark.ingest.quality import FATES, KEPT, KNOWN, MERGED, QUARANTINED
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame


@dataclass(frozen=True)
class Ledger:
    """Files of one table that earlier runs ingested: source hash -> (rows read, settings_sha)."""

    table: str
    files: dict[str, tuple[int, str]]

    def known(self, settings_sha: str) -> dict[str, int]:
        """Source hash -> rows, of files ingested with these settings."""
        return {source: rows for source, (rows, sha) in self.files.items() if sha == settings_sha}


def ledgers(rows: DataFrame) -> dict[str, Ledger]:
    """The ledger of each table that has files in it; one row per file reaches the driver."""
    found: dict[str, Ledger] = {}
    for row in rows.select("table", "source_hash", "rows_read", "settings_sha").collect():
        book = found.setdefault(row["table"], Ledger(row["table"], {}))
        book.files[row["source_hash"]] = (row["rows_read"], row["settings_sha"])
    return found


def settings_sha(source: Source, **others: object) -> str:
    """Short hash of all settings that decide what a file's rows become; where the file lies is none of them."""
    settings = source.model_dump(mode="json", exclude={"path": True, "links": {"path"}})
    return hashlib.sha256(json.dumps([settings, others], sort_keys=True).encode()).hexdigest()[:16]


def rebuilds(ledger: Ledger, sha: str, files: list[SourceFile], where: str) -> bool:
    """Whether events must be made anew from all files, because the settings are not those of the last run.

    Raises:
        ConfigError: the settings changed, and a file that the table was made of is no longer among the sources.
    """
    others = {source for source, (_, old) in ledger.files.items() if old != sha}
    if not others:
        return False
    gone = set(ledger.files) - {file.source_hash for file in files}
    if gone:
        raise ConfigError(
            where,
            f"settings differ from those of the last run, and {len(gone)} of its {len(ledger.files)} files are not in 'path' now",
            "the settings of the last run, or all files again",
            "undo the change, list all files, or use a new warehouse",
        )
    return True


def ledger_rows(
    spark: SparkSession, table: str, files: list[SourceFile], counts: dict[str, Counter[str]], sha: str, run_id: str
) -> DataFrame:
    """One row per file; rows read = kept + merged + known + quarantined."""
    rows = []
    for file in files:
        fates = counts.get(file.source_hash, Counter())
        sums = [fates[fate] for fate in (KEPT, MERGED, KNOWN, QUARANTINED)]
        rows.append((file.source_hash, table, file.name, sha, sum(sums), *sums, run_id))
    return local_frame(spark, rows, contract("ledger").schema)


def totals(counts: dict[str, Counter[str]], known: int, num_files: int) -> dict[str, int]:
    """The sums of one table for the report; ``known``: rows of files skipped, since they were ingested before."""
    summed: Counter[str] = Counter()
    for fates in counts.values():
        summed.update(fates)
    summed[KNOWN] += known
    return {"files": num_files, "read": sum(summed[fate] for fate in FATES), **{fate: summed[fate] for fate in FATES}}
