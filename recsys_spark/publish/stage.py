"""The pointer that readers follow: publish moves it forward, rollback moves it back; neither touches a list."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.errors import MissingTableError
from recsys_spark.log import get_logger
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.store import Commit, Store, slice_of

log = get_logger(__name__)
LIVE = "live"
LISTS, FALLBACK = "recommendations", "fallback_recommendations"
TABLES = (LISTS, FALLBACK, "shortfalls", "item_neighbours")
WHERE_ASKED_FOR = ("user_neighbours",)


def current(store: Store) -> dict[str, Any] | None:
    """The row of ``published`` that readers follow now, or None before the first night."""
    if not store.exists("published", LIVE):
        return None
    row = store.read("published", LIVE).orderBy(F.desc("sequence")).first()
    return None if row is None else row.asDict()


def run(config: Config, context: Context, model_version: int | None, reason: str) -> int | None:
    """Make this run's lists the ones readers see, in one commit (its version is returned); None when they already are, and for a
    night before the one that readers see: to go back is what ``rollback`` is for.

    Raises:
        MissingTableError: this run has made no lists.
    """
    store = context.store
    if not _has_lists(store, context):
        found = f"no lists of run {context.run_id}, as these settings and this data make it"
        raise MissingTableError(
            "publish", found, "lists in recommendations", "run 'recsys-spark recommend --namespace live' first"
        )
    present = (*TABLES, *(table for table in WHERE_ASKED_FOR if store.exists(table, LIVE)))
    versions = {table: store.version(table, LIVE) for table in present}
    now = current(store)
    if now is not None and is_older(context.as_of, now):
        log.warning("publish: readers see a later night, and stay there", as_of=now["as_of"].isoformat(), run_id=now["run_id"])
        return None
    if now is not None and (now["run_id"], now["versions"], now["model_version"]) == (context.run_id, versions, model_version):
        log.info("publish: nothing to do", run_id=context.run_id)
        return None
    return point(store, context.as_of, context.run_id, model_version, versions, "publish", reason)


def is_older(as_of: datetime, published: dict[str, Any]) -> bool:
    """Whether a night comes before a published one."""
    return bool(as_of < published["as_of"].replace(tzinfo=UTC))


def _has_lists(store: Store, context: Context) -> bool:
    where = slice_of(as_of=context.as_of.isoformat(), run_id=context.run_id)
    return any(not store.read_or_empty(table, LIVE).where(where).isEmpty() for table in (FALLBACK, LISTS))


def published_night(store: Store, as_of: datetime) -> dict[str, Any]:
    """The row of the newest night published with this ``as_of`` whose lists are still there.

    Raises:
        MissingTableError: no such night was published, or its lists were pruned; names those that can be returned to.
    """
    rows = store.read("published", LIVE).where("action = 'publish'").orderBy(F.desc("sequence")).collect()
    there = {night for table in TABLES for night in nights_in(store, table)}
    nights = [row for row in rows if (row["as_of"], row["run_id"]) in there]
    chosen = next((n for n in nights if n["as_of"].replace(tzinfo=UTC) == as_of), None)
    if chosen is None:
        pruned = any(row["as_of"].replace(tzinfo=UTC) == as_of for row in rows)
        why = "the lists of that night were pruned" if pruned else "no such night was published"
        known = ", ".join(sorted({n["as_of"].isoformat() + "Z" for n in nights}))
        raise MissingTableError(f"rollback to {as_of.isoformat()}", why, f"one of: {known}")
    found: dict[str, Any] = chosen.asDict()
    return found


def rollback(store: Store, night: dict[str, Any]) -> None:
    """Point readers at a night (``published_night``); nothing is recomputed."""
    as_of = night["as_of"].replace(tzinfo=UTC)
    reason = f"rolled back to the night of {as_of.isoformat()}"
    point(store, as_of, night["run_id"], night["model_version"], dict(night["versions"]), "rollback", reason)


def nights_in(store: Store, table: str) -> list[tuple[datetime, str]]:
    """``(as_of, run_id)`` of every night that a live table holds lists of; ``as_of`` in UTC without a zone, as Spark gives it."""
    rows = store.read_or_empty(table, LIVE).select("as_of", "run_id").distinct().collect()
    return sorted((row["as_of"], row["run_id"]) for row in rows)


def point(
    store: Store, as_of: datetime, run_id: str, model_version: int | None, versions: dict[str, int], action: str, reason: str
) -> int:
    """Add a row to ``published``; the newest is where readers look. Returns its commit's version."""
    now = current(store)
    sequence = 0 if now is None else int(now["sequence"]) + 1
    row = (sequence, as_of, run_id, model_version, versions, action, reason, datetime.now(UTC))
    frame = local_frame(store.spark, [row], contract("published").schema)
    written = store.append("published", LIVE, frame, Commit(run_id, action, run_id))
    log.info(action, as_of=as_of.isoformat(), run_id=run_id, model_version=model_version)
    return written
