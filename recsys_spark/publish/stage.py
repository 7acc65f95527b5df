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
from recsys_spark.tables.store import Commit, Store

log = get_logger(__name__)
LIVE = "live"
TABLES = ("recommendations", "fallback_recommendations", "shortfalls", "item_neighbours")
WHERE_ASKED_FOR = ("user_neighbours",)


def current(store: Store) -> dict[str, Any] | None:
    """The row of ``published`` that readers follow now, or None before the first night."""
    if not store.exists("published", LIVE):
        return None
    row = store.read("published", LIVE).orderBy(F.desc("sequence")).first()
    return None if row is None else row.asDict()


def run(config: Config, context: Context, model_version: int | None, reason: str) -> int | None:
    """Make this run's lists the ones readers see, in one commit (its version is returned); None when they already are."""
    store = context.store
    present = (*TABLES, *(table for table in WHERE_ASKED_FOR if store.exists(table, LIVE)))
    versions = {table: store.version(table, LIVE) for table in present}
    now = current(store)
    if now is not None and (now["run_id"], now["versions"], now["model_version"]) == (context.run_id, versions, model_version):
        log.info("publish: nothing to do", run_id=context.run_id)
        return None
    return point(store, context.as_of, context.run_id, model_version, versions, "publish", reason)


def rollback(store: Store, to: datetime) -> dict[str, Any]:
    """Point readers at the newest night published with ``as_of = to``; nothing is recomputed. Returns its row.

    Raises:
        MissingTableError: no such night was published; names those that were.
    """
    nights = store.read("published", LIVE).where("action = 'publish'").orderBy(F.desc("sequence")).collect()
    chosen = next((n for n in nights if n["as_of"].replace(tzinfo=UTC) == to), None)
    if chosen is None:
        known = ", ".join(sorted({n["as_of"].isoformat() + "Z" for n in nights}))
        raise MissingTableError(f"rollback to {to.isoformat()}", "no such night was published", f"one of: {known}")
    reason = f"rolled back to the night of {to.isoformat()}"
    versions = dict(chosen["versions"])
    point(store, to, chosen["run_id"], chosen["model_version"], versions, "rollback", reason)
    found: dict[str, Any] = chosen.asDict()
    return found


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
