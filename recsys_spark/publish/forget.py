"""Users who ask to be forgotten: every row of theirs goes, and what they did until now stays out for good.

What was counted or learned from them goes with the next night, which finds the log changed. A trained model cannot be made
to forget; it is not used any more once that night's challenger is in its place.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import escape
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.ingest import Source
from recsys_spark.ingest.forgotten import user_sha
from recsys_spark.ingest.names import literal_pattern
from recsys_spark.ingest.pseudonyms import id_key, pseudonym_of
from recsys_spark.ingest.quality import MALFORMED_RECORD
from recsys_spark.log import get_logger
from recsys_spark.publish.prune import FIGURES
from recsys_spark.publish.stage import LIVE, current, point
from recsys_spark.recommend.neighbours.users import index_folder
from recsys_spark.report.stage import report_folder
from recsys_spark.tables.contracts import TABLES
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.lock import namespace_lock
from recsys_spark.tables.namespaces import below, remove, vacuum
from recsys_spark.tables.store import Commit, Store

log = get_logger(__name__)
MEASURED = ("eval", "benchmark")  # namespaces of nights' evaluations and of benchmarks, which are made again when asked for
_USER_COLUMNS = ("user_id", "user_idx", "neighbour_id")
_LAST = ("events", "users")  # by these the others are found: a forgetting that was killed is done again
_OF_ITEMS = ("item_neighbours",)  # whose neighbours are no users


@dataclass(frozen=True)
class Forgotten:
    """What went (or, in a dry run, would go): rows by table, namespaces, reports; and how many of the users were known."""

    asked: int
    known: int
    rows: dict[str, int] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    reports: tuple[Path, ...] = ()


def forget(config: Config, spark: SparkSession, user_ids: Sequence[str], dry_run: bool = False, purge: bool = False) -> Forgotten:
    """Remove all that is kept of these users, as the log calls them, and bar what they did until now from coming in again.

    Args:
        purge: free the files that hold them at once, instead of when Delta's retention is over and ``prune`` comes by. Who
            still reads an older version of a table loses it.

    Raises:
        ConfigError: the id key is not in the environment. LockError: a night is running.
    """
    store, names = Store(spark, config.warehouse), _names(config, user_ids)
    with namespace_lock(store, LIVE):
        work = _Forgetting(config, store, names, dry_run)
        found = work.run()
        log.info("forget", asked=found.asked, known=found.known, dry_run=dry_run, rows=sum(found.rows.values()))
        if purge and not dry_run:
            log.info("forget: files that hold them", tables=vacuum(store, LIVE, at_once=True))
    return found


def welcome(config: Config, spark: SparkSession, user_ids: Sequence[str]) -> int:
    """Let these users' rows of before come in again, where they are delivered again; returns how many were barred."""
    store, names = Store(spark, config.warehouse), _names(config, user_ids)
    with namespace_lock(store, LIVE):
        shas = _ids(spark, names).select(user_sha(F.col("user_id")).alias("user_sha"))
        return store.remove("forgotten", LIVE, shas, _commit())


def _names(config: Config, user_ids: Sequence[str]) -> list[str]:
    """What the tables call these users."""
    key = id_key(config.ingest.id_key_env)
    return sorted({pseudonym_of(user_id, key) for user_id in user_ids})


def _ids(spark: SparkSession, names: Sequence[str]) -> DataFrame:
    return local_frame(spark, [(name,) for name in names], "user_id string")


def _commit() -> Commit:
    run_id = f"forget-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    return Commit(run_id, "forget", run_id)


class _Forgetting:
    def __init__(self, config: Config, store: Store, names: Sequence[str], dry_run: bool) -> None:
        self.config, self.store, self.names, self.dry_run = config, store, names, dry_run
        self.ids, self.commit = _ids(store.spark, names), _commit()
        users = store.read_or_empty("users", LIVE).join(F.broadcast(self.ids), "user_id", "left_semi")
        self.known = [row["user_idx"] for row in users.select("user_idx").collect()]

    def run(self) -> Forgotten:
        """In an order that can be done again from any point: barred first, the rows by which all others are found last."""
        if not self.dry_run:
            self._bar()
        namespaces = tuple(self._measured()) if self.known else ()
        for namespace in namespaces:
            self._clear(namespace)
        rows: dict[str, int] = {}
        tables = [name for name in TABLES if self.store.exists(name, LIVE) and name not in (*_LAST, *_OF_ITEMS)]
        for table in [*tables, *_LAST]:
            gone = sum(self._remove(table, keys) for keys in self._keys(table))
            rows |= {table: gone} if gone else {}
        reports = tuple(self._reports())
        if not self.dry_run:
            self._point()
            for report in reports:
                report.unlink()
            shutil.rmtree(index_folder(self.config), ignore_errors=True)
        return Forgotten(len(self.names), len(self.known), rows, namespaces, reports)

    def _bar(self) -> None:
        barred = self.ids.select(user_sha(F.col("user_id")).alias("user_sha"), F.lit(datetime.now(UTC)).alias("forgotten_at"))
        self.store.merge("forgotten", LIVE, barred, self.commit)

    def _measured(self) -> Iterator[str]:
        for parent in MEASURED:
            for name in below(self.store, parent):
                if not set(below(self.store, f"{parent}/{name}")) <= set(FIGURES):
                    yield f"{parent}/{name}"

    def _clear(self, namespace: str) -> None:
        if not self.dry_run:
            remove(self.store, namespace, FIGURES)
            shutil.rmtree(self.config.work_dir / namespace, ignore_errors=True)

    def _keys(self, table: str) -> Iterator[DataFrame]:
        """What rows of theirs in a table are known by: columns of the table, with the users' values. Only bad rows are kept of
        users whom the table of users does not have."""
        if table == "quarantine":
            yield from self._quarantined()
        columns = TABLES[table].schema.names if self.known else []
        idx = local_frame(self.store.spark, [(number,) for number in self.known], "user_idx int")
        by_id = "user_id" in columns
        for column in _USER_COLUMNS:
            if column in columns and not (by_id and column == "user_idx"):
                yield idx if column == "user_idx" else self.ids.withColumnRenamed("user_id", column)

    def _quarantined(self) -> Iterator[DataFrame]:
        """Bad rows that name one of them, also those that did not parse; with an id key they hold no id."""
        sources: dict[str, Source | None] = {"events": self.config.ingest.events, "users": self.config.ingest.users}
        rows = self.store.read("quarantine", LIVE)
        for table, source in sources.items():
            if source is not None:
                named = F.from_json("row", "map<string,string>")[source.columns["user_id"]].alias("user_id")
                found = rows.where(F.col("table") == table).select("source_hash", "row_number", "table", named)
                yield found.join(F.broadcast(self.ids), "user_id", "left_semi").drop("user_id")
        record, word = F.get_json_object("row", f"$.{MALFORMED_RECORD}"), "[A-Za-z0-9_-]"
        names = "|".join(literal_pattern(name) for name in self.names)
        yield rows.where(record.rlike(f"(?<!{word})(?:{names})(?!{word})")).select("source_hash", "row_number", "table")

    def _remove(self, table: str, keys: DataFrame) -> int:
        if not self.dry_run:
            return self.store.remove(table, LIVE, keys, self.commit)
        return self.store.read(table, LIVE).join(F.broadcast(keys.distinct()), keys.columns, "left_semi").count()

    def _point(self) -> None:
        """The same night, with the versions its tables have now."""
        now = current(self.store)
        if now is None:
            return
        versions = {table: self.store.version(table, LIVE) for table in now["versions"]}
        if versions != now["versions"]:
            reason = "users were forgotten"
            point(self.store, now["as_of"], now["run_id"], now["model_version"], versions, "forget", reason)

    def _reports(self) -> Iterator[Path]:
        """Pages that show one of them."""
        shown = [f"User <bdi>{escape(name)}</bdi>" for name in self.names]
        for page in sorted(report_folder(self.config).glob("*.html")):
            text = page.read_text(encoding="utf-8")
            if any(name in text for name in shown):
                yield page
