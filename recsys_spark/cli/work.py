"""What the commands do once their arguments are read; importing this brings in Spark and torch."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from recsys_spark import receipt
from recsys_spark.benchmark.published import Table
from recsys_spark.cli import screen
from recsys_spark.cli.doctor import require_java
from recsys_spark.cli.opening import has_small_log, session
from recsys_spark.config import Config
from recsys_spark.config.base import beside, scheme_of
from recsys_spark.demo_data import ml100k_folder
from recsys_spark.night import Night, closing_night
from recsys_spark.order import run_night, run_step
from recsys_spark.publish import stage as publish
from recsys_spark.publish.forget import forget as forget_users
from recsys_spark.publish.forget import welcome as welcome_users
from recsys_spark.publish.prune import keep_newest
from recsys_spark.recommend.sql import current_sql, lists_for_everyone_sql
from recsys_spark.registry import CHAMPION, Registry
from recsys_spark.session import build_session, is_small
from recsys_spark.tables.lock import namespace_lock
from recsys_spark.tables.store import Store

# of one seed of a protocol: the name of its row, what tells it from others, and how it is made
SeedPlan = tuple[str, dict[str, Any], Callable[[SparkSession, dict[str, Any]], dict[str, Any]]]
READ_TABLES = ("recommendations", "item_neighbours", "fallback_recommendations", "shortfalls")


def night(config: Config) -> None:
    """A whole night, then its metrics on the screen."""
    _whole_night(config, screen.night_summary)


def demo(config: Config) -> None:
    """The same, and what came out for one user and one item."""
    _whole_night(config, screen.demo)


def _whole_night(config: Config, show: Callable[[Night, Path], None]) -> None:
    """Run a night, show it, and leave a receipt with what was shown."""
    with session(config, has_small_log(config)) as spark, screen.recorded() as shown:
        report, done = run_night(config, spark), Night(config, spark)
        with closing_night(done):
            show(done, report)
            run_id = done.run_id
    receipt.keep(config, run_id, report, shown.text)


def step(config: Config, stage: str, namespace: str | None) -> None:
    """One stage alone."""
    with session(config, has_small_log(config)) as spark:
        run_step(config, spark, stage, namespace)


def show_user(config: Config, user_id: str, k: int) -> None:
    """The published list of one user."""
    with session(config) as spark:
        screen.user_list(Store(spark, config.warehouse), user_id, k)


def show_item(config: Config, item_id: str, k: int) -> None:
    """The published neighbours of one item."""
    with session(config) as spark:
        screen.item_list(Store(spark, config.warehouse), item_id, k)


def rollback(config: Config) -> None:
    """Back to the night of ``config.as_of``: the pointer first, then the alias."""
    with session(config) as spark:
        night = return_to(config, Store(spark, config.warehouse))
        print(f"readers see the night of {config.as_of.isoformat()}, run {night['run_id']}")


def prune(config: Config, keep_nights: int, dry_run: bool, free_files: bool) -> None:
    """Remove what old nights left, or only find it, and say what it is."""
    with session(config) as spark:
        screen.leftovers(keep_newest(config, spark, keep_nights, dry_run, free_files), dry_run)


def forget(config: Config, user_ids: list[str], dry_run: bool, purge: bool) -> None:
    """Remove all that is kept of these users, or only find it, and say what it is."""
    with session(config) as spark:
        screen.forgotten(forget_users(config, spark, user_ids, dry_run, purge), dry_run)


def welcome(config: Config, user_ids: list[str]) -> None:
    """Take what these users did before they were forgotten again, where it is delivered again."""
    with session(config) as spark:
        print(f"{welcome_users(config, spark, user_ids)} users are no longer barred")


def return_to(config: Config, store: Store) -> dict[str, Any]:
    """Point readers and the champion alias at the night of ``config.as_of``; a night without a model leaves no champion.

    Raises:
        MissingTableError: no such night was published, or it was pruned.
        RegistryError: its model version is gone; readers stay where they are.
    """
    with namespace_lock(store, "live"):
        night = publish.published_night(store, config.as_of)
        registry, version = Registry(config.tracking_uri, config.registry.experiment), night["model_version"]
        if version is not None:
            registry.resolve(config.model_name, str(version))
        publish.rollback(store, night)
        if version is None:
            registry.clear_alias(config.model_name, CHAMPION)
        else:
            registry.set_alias(config.model_name, CHAMPION, version)
    return night


def reader_sql(config: Config) -> str:
    """One view per published table, and the join that gives a list to everyone."""
    tables = (*READ_TABLES, *(("user_neighbours",) if config.recommend.user_neighbours else ()))
    root = (
        config.warehouse if scheme_of(config.warehouse) != "file" else str(beside(config.warehouse, Path(config.warehouse).name))
    )
    views = [f"CREATE OR REPLACE TEMP VIEW {t}_current AS\n{current_sql(root, t)};" for t in tables]
    return "\n\n".join([*views, lists_for_everyone_sql() + ";"])


def benchmark_sar(data: Path | None) -> None:
    """The protocol proof; its last line is JSON."""
    from recsys_spark.benchmark.ml100k_sar import run_sar
    from recsys_spark.config.serving import SparkSettings

    require_java()
    spark = build_session(SparkSettings(), "recsys-spark benchmark", brief=True)
    try:
        print(json.dumps(run_sar(data or ml100k_folder(), spark)))
    finally:
        spark.stop()


def benchmark_leave_one_out(
    data: Path, cold_items: float, seeds: int, overrides: Path | None, warehouse: Path, results: Path
) -> None:
    """The published rows that are known, ours, and one JSON line of the means; each seed's row is kept in ``results``."""
    from recsys_spark.benchmark import published
    from recsys_spark.benchmark.folder import sizes
    from recsys_spark.benchmark.leave_one_out import Protocol, run_leave_one_out
    from recsys_spark.benchmark.tidy import EVENTS, tidied

    tidy = tidied(data, warehouse)

    def plan(seed: int) -> SeedPlan:
        protocol = Protocol(data, cold_items, seed)
        name = f"{data.name}-{protocol.namespace.split('/')[-1]}"
        key = {"data": tidy.name, "cold_share": cold_items, "seed": seed}
        return name, key, lambda spark, sections: run_leave_one_out(protocol, spark, warehouse, sections)

    known = None if cold_items else published.LEAVE_ONE_OUT.get(sizes(tidy))
    _benchmark(plan, tidy / EVENTS, results, seeds, overrides, known)


def benchmark_ml100k(data: Path | None, seeds: int, overrides: Path | None, work: Path, results: Path) -> None:
    """As ``benchmark_leave_one_out``, for the recommenders-team protocol."""
    from recsys_spark.benchmark import published
    from recsys_spark.benchmark.ml100k import run_ml100k

    folder = data or ml100k_folder()

    def plan(seed: int) -> SeedPlan:
        return f"ml100k-seed{seed}", {"seed": seed}, lambda spark, sections: run_ml100k(folder, spark, work, seed, sections)

    _benchmark(plan, folder / "*.inter*", results, seeds, overrides, published.ML100K)


def _benchmark(
    plan: Callable[[int], SeedPlan], events: Path, results: Path, seeds: int, overrides: Path | None, known: Table | None
) -> None:
    """A row of each seed, made from ``events`` (a path or pattern) or found in ``results``; then the table and the means."""
    from recsys_spark.benchmark.leave_one_out import mean_over_seeds
    from recsys_spark.benchmark.results import lines, once

    sections = tomllib.loads(overrides.read_text(encoding="utf-8")) if overrides else {}
    rows = []
    with _benchmark_session(sections, is_small(str(events))) as spark:
        for seed in range(seeds):
            name, key, run = plan(seed)
            rows.append(once(results, name, key | {"settings": sections}, lambda r=run: r(spark(), sections)))  # type: ignore[misc]
            print(json.dumps(rows[-1]), flush=True)
    mean = mean_over_seeds(rows)
    print("\n".join(lines(mean, rows, known)))
    print(json.dumps(mean))


@contextmanager
def _benchmark_session(sections: dict[str, Any], brief: bool) -> Iterator[Callable[[], SparkSession]]:
    """A session that starts when it is first asked for: measured rows need none."""
    from recsys_spark.config.serving import SparkSettings

    settings = SparkSettings(**sections.pop("spark", {}))
    started: list[SparkSession] = []

    def started_session() -> SparkSession:
        if not started:
            require_java()
            started.append(build_session(settings, "recsys-spark benchmark", brief))
        return started[0]

    try:
        yield started_session
    finally:
        for spark in started:
            spark.stop()
