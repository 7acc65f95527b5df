"""What nights of long ago left behind: which of it nobody can ask for any more, and its removal.

A night leaves a slice in each live list, a namespace ``eval/<run_id>`` of everything it was judged by, a folder of its
training, and a model version with its vectors. A rollback can ask for the newest night of each published ``as_of``, so
these stay for the newest of them; figures and runs stay for all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.errors import MissingTableError
from recsys_spark.log import get_logger
from recsys_spark.night_names import as_of_in
from recsys_spark.publish.stage import LIVE, TABLES, WHERE_ASKED_FOR, current, nights_in, point
from recsys_spark.registry import CHAMPION, REPLACED, ModelVersion, Registry
from recsys_spark.tables.lock import namespace_lock
from recsys_spark.tables.namespaces import below, remove, vacuum
from recsys_spark.tables.runs import restate
from recsys_spark.tables.store import Commit, Store, slice_of

log = get_logger(__name__)
LISTS = (*TABLES, *WHERE_ASKED_FOR)
VECTORS = ("item_embeddings", "user_embeddings")
FIGURES = ("metrics", "runs")  # of an evaluation; small, and the history of how good the nights were
_EVAL = "eval"
Night = tuple[datetime, str]  # as_of (UTC, without a zone, as Spark gives it) and run_id


@dataclass(frozen=True)
class Leftovers:
    """What goes, and the published nights that stay (``as_of``, ``run_id``; oldest first)."""

    kept: tuple[Night, ...]
    slices: Mapping[str, Sequence[Night]]  # live list -> its slices
    namespaces: tuple[str, ...]
    models: tuple[ModelVersion, ...]

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.slices or self.namespaces or self.models)


def keep_newest(config: Config, spark: SparkSession, keep_nights: int, dry_run: bool, free_files: bool) -> Leftovers:
    """Find what older nights left and, unless ``dry_run``, remove it, under the lock of the warehouse; returns it.

    Raises:
        MissingTableError: nothing has been published.
        LockError: a night is running.
    """
    store, registry = Store(spark, config.warehouse), Registry(config.tracking_uri, config.registry.experiment)
    with namespace_lock(store, LIVE):
        found = leftovers(config, store, registry, keep_nights)
        lists = {table: len(nights) for table, nights in found.slices.items()}
        counts = {"evaluations": len(found.namespaces), "model_versions": len(found.models), **lists}
        log.info("prune", kept=len(found.kept), dry_run=dry_run, **counts)
        if not dry_run:
            prune(config, store, registry, found, free_files)
    return found


def leftovers(config: Config, store: Store, registry: Registry, keep_nights: int) -> Leftovers:
    """What the newest ``keep_nights`` published nights, and the one that readers see, have no need of.

    Of an as_of that was published twice the newer night counts, of those that have lists. Nights that were never published go
    once they are older than the oldest that stays: a younger one may be running again. A model version stays while it has an
    alias, belongs to a night that stays, or is what the champion replaced.

    Raises:
        MissingTableError: nothing has been published.
    """
    now = current(store)
    if now is None:
        raise MissingTableError("prune", "no night has been published", do="run a night first")
    rows = store.read("published", LIVE).where("action = 'publish'").orderBy("sequence").collect()
    nights = {table: nights_in(store, table) for table in LISTS}
    listed = {night for table in TABLES for night in nights[table]}
    newest = {row["as_of"]: row for row in rows if (row["as_of"], row["run_id"]) in listed}
    staying = [newest[as_of] for as_of in sorted(newest)[-keep_nights:]]
    kept = {row["run_id"]: row["as_of"] for row in staying} | {now["run_id"]: now["as_of"]}
    oldest, published = min(kept.values()), {row["run_id"] for row in rows}

    def gone(as_of: datetime, run_id: str) -> bool:
        return run_id not in kept and (run_id in published or as_of < oldest)

    slices = {table: [night for night in nights[table] if gone(*night)] for table in LISTS}
    old = [name for name in below(store, _EVAL) if (as_of := as_of_in(name)) is not None and gone(as_of, name)]
    left = [name for name in old if not set(below(store, f"{_EVAL}/{name}")) <= set(FIGURES)]
    used = {now["model_version"], *(row["model_version"] for row in staying)}
    return Leftovers(
        tuple(sorted((as_of, run_id) for run_id, as_of in kept.items())),
        {table: nights for table, nights in slices.items() if nights},
        tuple(f"{_EVAL}/{name}" for name in left),
        tuple(_unused(registry.versions(config.model_name), used, gone)),
    )


def prune(config: Config, store: Store, registry: Registry, found: Leftovers, free_files: bool) -> None:
    """Remove it. A prune that was killed is finished by the next; every night that stays is found done by its rerun.

    ``free_files``: then also the data files that Delta no longer needs (``vacuum``).
    """
    now = current(store)
    if now is not None and not found.nothing:
        commit = Commit(now["run_id"], "prune", now["run_id"])
        tables = [name for name in (*LISTS, *VECTORS) if store.exists(name, LIVE)]
        before = {name: store.content(name, LIVE) for name in tables}
        for table, nights in found.slices.items():
            for as_of, run_id in nights:
                _empty(store, table, slice_of(as_of=f"{as_of.isoformat()}+00:00", run_id=run_id), commit)
        for model in found.models:
            for table in VECTORS:
                where = slice_of(model_name=model.model_name) + f" AND model_version = {int(model.version)}"
                _empty(store, table, where, commit)
        for namespace in found.namespaces:
            remove(store, namespace, FIGURES)
            shutil.rmtree(config.work_dir / namespace, ignore_errors=True)
        for model in found.models:
            registry.delete(model)
            shutil.rmtree(config.work_dir / "downloads" / f"{model.model_name}-{model.version}", ignore_errors=True)
        restate(store, LIVE, before)
        versions = {table: store.version(table, LIVE) for table in now["versions"]}
        reason = f"removed what nights before {found.kept[0][0].isoformat()}Z left"
        point(store, now["as_of"], now["run_id"], now["model_version"], versions, "prune", reason)
    if free_files:
        log.info("prune: files that Delta no longer needs", tables=vacuum(store, LIVE))


def _empty(store: Store, table: str, where: str, commit: Commit) -> None:
    if store.exists(table, LIVE):
        store.replace(table, LIVE, store.empty(table), commit, where=where)


def _unused(versions: Sequence[ModelVersion], used: set[int | None], gone: Callable[[datetime, str], bool]) -> list[ModelVersion]:
    champion = next((v for v in versions if CHAMPION in v.aliases), None)
    replaced = "" if champion is None else champion.tags.get(REPLACED, "")
    found = []
    for version in versions:
        run_id = version.tags.get("run_id", "")
        as_of = as_of_in(run_id)
        needed = bool(version.aliases) or version.version in used or str(version.version) == replaced
        if as_of is not None and not needed and gone(as_of, run_id):
            found.append(version)
    return found
