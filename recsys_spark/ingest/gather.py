"""Every source read, judged and counted, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.ingest import EventSource, ItemSource, KnowledgeGraphSource, Source, UserSource
from recsys_spark.ingest import events, items, knowledge_graph, users
from recsys_spark.ingest.described import source_names
from recsys_spark.ingest.files import SourceFile, list_files
from recsys_spark.ingest.identify import event_ids, fates, last_wins
from recsys_spark.ingest.intake import Intake, each_once
from recsys_spark.ingest.ledger import Ledger, rebuilds, settings_sha
from recsys_spark.ingest.pseudonyms import key_check
from recsys_spark.ingest.quality import FATE, KEPT, good

Ledgers = dict[str, Ledger]  # by table
MAX_SENT_EVENTS = 1_000_000  # new ones, whose ids are sent to all tasks that read the log


@dataclass(frozen=True)
class Job:
    """What a run works on: settings, sources with their files, the id key, and its clock."""

    spark: SparkSession
    config: Config
    sources: dict[str, Source]
    files: dict[str, list[SourceFile]]
    key: bytes | None
    now: datetime
    forgotten: DataFrame | None = None  # users of whom nothing from before is taken

    @property
    def private(self) -> bool:
        return self.key is not None


def sources_of(config: Config) -> dict[str, Source]:
    """The configured sources by the name that quarantine, ledger and report give them."""
    settings = config.ingest
    graph = settings.knowledge_graph
    found: dict[str, Source | None] = {
        "events": settings.events,
        "items": settings.items,
        "users": settings.users,
        "knowledge_graph": graph,
        "links": graph.links if graph is not None else None,
    }
    return {table: source for table, source in found.items() if source is not None}


def place_of(table: str, source: Source) -> str:
    """How errors call a source."""
    section = {"links": "knowledge_graph.links"}.get(table, table)
    paths = ", ".join(source.paths[:3]) + (", ..." if len(source.paths) > 3 else "")
    return f"[ingest.{section}] {paths}"


def files_of(spark: SparkSession, sources: dict[str, Source]) -> dict[str, list[SourceFile]]:
    """The files of each source, each content once.

    Raises:
        InputError: a path names nothing.
    """
    return {table: each_once(list_files(spark, source, place_of(table, source))) for table, source in sources.items()}


def book_of(ledger: Ledgers, table: str) -> Ledger:
    """The files of a table that earlier runs ingested; none before the first."""
    return ledger.get(table, Ledger(table, {}))


def intake(job: Job, table: str, book: Ledger) -> Intake:
    """A source before reading; its settings' hash holds all that decides what its rows become."""
    source = job.sources[table]
    others: dict[str, object] = {"key": key_check(job.key)}
    if table == "events":
        others["session_gap_minutes"] = job.config.ingest.session_gap_minutes
    sha = settings_sha(source, **others)
    where = place_of(table, source)
    return Intake(table, where, source, job.files[table], sha, book.known(sha), reads_known=table != "events")


def gather_events(job: Job, ledger: Ledgers, present: DataFrame) -> tuple[Intake, DataFrame | None, bool]:
    """The new events: their intake, the rows to add (``event_pos`` and ``event_date`` set), and whether the table is
    to be made anew, because the settings changed.

    Raises:
        InputError, ConfigError: as ``Fields``, ``Intake`` and ``rebuilds`` do.
    """
    source, book = cast(EventSource, job.sources["events"]), book_of(ledger, "events")
    taken = intake(job, "events", book)
    anew = rebuilds(book, taken.sha, taken.files, taken.where)
    if anew:
        taken.known, present = {}, present.limit(0)
    taken.read(
        job.spark,
        events.needed_columns(source),
        lambda raw: events.typed_events(raw, source, taken.where, job.now, job.key, job.forgotten),
    )
    if taken.rows is None:
        return taken, None, anew
    given = "event_id" in source.columns
    found: Any = good(taken.rows).agg(F.to_date(F.min("ts")), F.to_date(F.max("ts")), F.count(F.lit(1))).first()
    first_day, last_day, num_good = found
    if not given and first_day is not None:  # ts is part of the hash: other days hold no such id
        present = present.where(F.col("event_date").between(F.lit(first_day), F.lit(last_day)))
    identified = event_ids(good(taken.rows), given)
    if num_good <= MAX_SENT_EVENTS:  # else both sides would be shuffled, whatever their sizes
        present = present.join(F.broadcast(identified.select("event_id")), "event_id", "left_semi")
    fated = fates(identified, present).persist()
    taken.count(fated)
    before, position = {}, 0
    for number, file in enumerate(taken.read_now):
        before[number] = position
        position += sum(taken.counts.get(file.source_hash, {}).values())
    earlier = 0 if anew else sum(rows for rows, _ in book.files.values())
    return taken, events.placed(fated.where(F.col(FATE) == KEPT), earlier, before), anew


def gather_items(job: Job, ledger: Ledgers) -> tuple[Intake, DataFrame | None]:
    """The catalogue: its intake, and one row per item."""
    source, taken = cast(ItemSource, job.sources["items"]), intake(job, "items", book_of(ledger, "items"))
    needed = {*source.columns.values(), *source_names(source)}
    taken.read(job.spark, needed, lambda raw: items.typed_items(raw, source, taken.where, job.private))
    if taken.rows is None:
        return taken, None
    fated = last_wins(good(taken.rows), "item_id")
    taken.count(fated)
    return taken, items.catalogue(fated.where(F.col(FATE) == KEPT), job.config.ingest.max_text_chars)


def gather_users(job: Job, ledger: Ledgers) -> tuple[Intake, DataFrame | None]:
    """The users' source: its intake, and one row per user."""
    source, taken = cast(UserSource, job.sources["users"]), intake(job, "users", book_of(ledger, "users"))
    needed = {*source.columns.values(), *source_names(source)}
    taken.read(job.spark, needed, lambda raw: users.typed_users(raw, source, taken.where, job.key, job.forgotten))
    if taken.rows is None:
        return taken, None
    fated = last_wins(good(taken.rows), "user_id")
    taken.count(fated)
    return taken, users.profiles(fated.where(F.col(FATE) == KEPT), source, job.config.ingest.max_text_chars)


def gather_graph(job: Job, ledger: Ledgers, known_items: DataFrame) -> tuple[list[Intake], DataFrame]:
    """The knowledge graph: the intakes of triples and (where configured) links, and the facts about known items.

    Args:
        known_items: ``item_id``, as the items table has them after this run.
    """
    intakes = []
    links = known_items.select("item_id", F.col("item_id").alias("entity_id"))
    if "links" in job.sources:
        taken, links = _gather_links(job, ledger, known_items)
        intakes.append(taken)
    source = cast(KnowledgeGraphSource, job.sources["knowledge_graph"])
    taken = intake(job, "knowledge_graph", book_of(ledger, "knowledge_graph"))

    def typed(raw: DataFrame) -> DataFrame:
        triples = knowledge_graph.typed_triples(raw, source, taken.where, job.private)
        return knowledge_graph.about_items(triples, links, ("head", "tail"), knowledge_graph.NO_ITEM)

    taken.read(job.spark, set(source.columns.values()), typed)
    if taken.rows is None:
        raise taken.empty()
    fated = last_wins(good(taken.rows), "head", "relation", "tail")
    taken.count(fated)
    kept = fated.where(F.col(FATE) == KEPT)
    return [*intakes, taken], knowledge_graph.facts(kept, links)


def _gather_links(job: Job, ledger: Ledgers, known_items: DataFrame) -> tuple[Intake, DataFrame]:
    source, taken = job.sources["links"], intake(job, "links", book_of(ledger, "links"))
    itself = known_items.select(F.col("item_id").alias("entity_id"))

    def typed(raw: DataFrame) -> DataFrame:
        rows = knowledge_graph.typed_links(raw, source, taken.where, job.private)
        return knowledge_graph.about_items(rows, itself, ("item_id",), knowledge_graph.UNKNOWN_ITEM)

    taken.read(job.spark, set(source.columns.values()), typed)
    if taken.rows is None:
        raise taken.empty()
    fated = last_wins(good(taken.rows), "item_id", "entity_id")
    taken.count(fated)
    return taken, fated.where(F.col(FATE) == KEPT).select("item_id", "entity_id")
