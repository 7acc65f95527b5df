"""One source on its way in: its files, those already known, its judged rows and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config.ingest import Source
from recsys_spark.errors import InputError, RecsysError
from recsys_spark.ingest.files import SourceFile
from recsys_spark.ingest.quality import QUARANTINED, count_fates, count_reasons
from recsys_spark.ingest.read import read_source


@dataclass
class Intake:
    """State of one source during a run.

    Args:
        table: its name in quarantine, ledger and report.
        where: how errors call it.
        source: its settings.
        files: all its files, each content once.
        sha: hash of the settings that decide what its rows become.
        known: source hash -> rows, of files that earlier runs ingested with these settings.
        reads_known: catalogues are read whole each time, since a later file may have replaced what an earlier one
            said; a log never reads a known file again.
    """

    table: str
    where: str
    source: Source
    files: list[SourceFile]
    sha: str
    known: dict[str, int]
    reads_known: bool
    rows: DataFrame | None = None
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def read_now(self) -> list[SourceFile]:
        return self.files if self.reads_known else self.new

    @property
    def new(self) -> list[SourceFile]:
        return [file for file in self.files if file.source_hash not in self.known]

    @property
    def known_rows(self) -> int:
        return sum(self.known.get(file.source_hash, 0) for file in self.files)

    def new_counts(self) -> dict[str, Counter[str]]:
        return {source: fates for source, fates in self.counts.items() if source not in self.known}

    def read(self, spark: SparkSession, needed: set[str], typed: Callable[[DataFrame], DataFrame]) -> None:
        """Read and judge the files; ``rows`` stays None where there is nothing to read.

        Raises:
            InputError: the source has no rows at all, or its files are not what ``format`` says.
        """
        raw = self._read(spark, needed) if self.read_now else None
        if raw is not None:
            self.rows = typed(raw).persist()
        elif not self.known:
            raise self.empty()

    def _read(self, spark: SparkSession, needed: set[str]) -> DataFrame | None:
        try:
            return read_source(spark, self.source, self.read_now, needed)
        except RecsysError:
            raise
        except Exception as error:  # Spark's, or what py4j made of it
            said = str(error).strip().splitlines()
            reason = next((line.strip() for line in said if "Exception" in line or line.startswith("[")), said[0] if said else "")
            do = f"check that every file is {self.source.format}, or set format"
            raise InputError(
                self.where, f"cannot be read: {reason[:300]}", f"files of format {self.source.format}", do
            ) from error

    def count(self, fated: DataFrame | None) -> None:
        """Count what became of the rows (``fated``: good rows with their fate) and why bad ones are bad.

        Raises:
            InputError: the source has no rows at all.
        """
        if self.rows is not None and fated is not None:
            self.counts = count_fates(self.rows, fated)
            if any(fates[QUARANTINED] for fates in self.counts.values()):
                self.reasons = count_reasons(self.rows)
        if not self.counts and not self.known_rows:
            raise self.empty()

    def all_bad(self) -> bool:
        """Whether there were rows, none of them good."""
        total = sum(sum(fates.values()) for fates in self.counts.values())
        return total > 0 and total == sum(fates[QUARANTINED] for fates in self.counts.values())

    def empty(self) -> InputError:
        return InputError(self.where, "the source has no rows", "at least one row", "check what writes it")

    def nothing_good(self) -> InputError:
        """The error for ``all_bad``: the most common reasons with their counts."""
        total = sum(sum(fates.values()) for fates in self.counts.values())
        common = ", ".join(f"{reason} ({rows})" for reason, rows in list(self.reasons.items())[:5])
        do = "compare 'columns' and the formats in the config with the file; the rows are in table quarantine"
        return InputError(self.where, f"all {total} rows are bad: {common}", "at least one good row", do)


def each_once(files: list[SourceFile]) -> list[SourceFile]:
    """Files without those whose content came before under another name."""
    return list({file.source_hash: file for file in reversed(files)}.values())[::-1]
