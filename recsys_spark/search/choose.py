"""Exact or approximate: by the size of the catalogue, and by the recall that is measured in every run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.search import SearchSettings
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.log import get_logger
from recsys_spark.search.exact import nearest
from recsys_spark.search.frames import Shape, check_columns, check_rows
from recsys_spark.search.sharded import Task, build_index, opened, vector_rows, write_items
from recsys_spark.search.tuning import tune
from recsys_spark.search.vectors import Metric, Vectors

_LOG = get_logger(__name__)


def prepare(
    spark: SparkSession,
    queries: DataFrame,
    items: DataFrame,
    k: int,
    settings: SearchSettings,
    work_dir: str,
    seed: int,
    metric: Metric = "cosine",
) -> tuple[Task, dict[str, Any]]:
    """How the ``k`` items with the highest cosine (or inner product) to each query are searched for; all N where there are
    fewer. ``sharded.search_all`` searches for a frame of queries, ``Task.items`` for a block where it is made.

    Catalogues below ``exact_below`` are compared one by one. Larger ones are searched approximately, with the effort that
    reaches ``recall_target`` on one half of a seeded sample of queries; where the other half is below ``recall_floor``,
    every query is searched exactly after all. The work folder keeps items and indexes by content: the same items are not
    written again, others are removed. Scores are exact to 9 decimals either way; equal ones go by a seeded hash of
    ``item_idx``, or by the column ``tie``.

    Args:
        queries: ``(query_idx int, vector array<float>)``, each query_idx once.
        items: ``(item_idx int, vector array<float>)``, each item_idx once; and if wanted ``tie bigint``, a hash.
        work_dir: a folder of these items' own, on storage that driver and executors see under one path.

    Returns:
        The task, and the facts: ``method``, ``reason``, ``recall`` (on the held-out half of ``sample`` queries; 1 for
        exact), ``approximate_recall`` (None where no index was tried), ``sample``, ``k`` (of the lists), ``k_asked``,
        ``effort``, ``num_items``, ``files_written``, ``build_seconds``, ``search_seconds`` and ``exact_seconds`` (of the
        sample, on the driver).

    Raises:
        ConfigError: k below 1. InputError: frames that cannot be searched (see ``frames``), or no items.
    """
    size = _check(queries, items, k)
    if k > size.items.rows:
        _LOG.info("fewer items than asked for", k=k, items=size.items.rows)
    started = time.monotonic()
    shards, written = write_items(items, size.items.rows, metric, settings, work_dir, seed)
    task = Task(shards, min(k, size.items.rows), metric, settings.query_block)
    facts = _facts(k, task, written)
    if not size.queries.rows:
        return task, facts | {"reason": "no queries"}
    if size.items.rows < settings.exact_below:
        return task, facts | {"build_seconds": time.monotonic() - started}
    files, more = build_index(spark, shards, settings, seed)
    facts |= {"build_seconds": time.monotonic() - started, "files_written": written + more}
    task, tried = _tried(queries, replace(task, files=files), settings, seed)
    return task, facts | tried


@dataclass(frozen=True)
class _Size:
    queries: Shape
    items: Shape


def _check(queries: DataFrame, items: DataFrame, k: int) -> _Size:
    if k < 1:
        raise ConfigError("search", f"k = {k}", "at least 1")
    check_columns(queries, "query_idx", "queries")
    check_columns(items, "item_idx", "items")
    size = _Size(check_rows(queries, "query_idx", "queries"), check_rows(items, "item_idx", "items"))
    if not size.items.rows:
        raise InputError("items of the search", "no rows", "at least one item")
    if size.queries.rows and size.queries.dimension != size.items.dimension:
        found, expected = f"{size.queries.dimension} dimensions", f"{size.items.dimension}, as the items have"
        raise InputError("queries of the search", found, expected, "use one encoder for both")
    return size


def _facts(k: int, task: Task, written: int) -> dict[str, Any]:
    """What holds for an exact search; the approximate one writes over it."""
    return {
        "method": "exact",
        "reason": "catalogue below exact_below",
        "recall": 1.0,
        "approximate_recall": None,
        "sample": 0,
        "k": task.k,
        "k_asked": k,
        "effort": None,
        "num_items": task.shards.num_items,
        "files_written": written,
        "build_seconds": 0.0,
        "search_seconds": 0.0,
        "exact_seconds": 0.0,
    }


def _tried(queries: DataFrame, task: Task, settings: SearchSettings, seed: int) -> tuple[Task, dict[str, Any]]:
    """The task with the effort that a sample of queries asks for, or the exact one; and the facts that say why."""
    if task.files is None:
        raise ValueError("a task without an index cannot be tuned")
    sample = _sample(queries, task.metric, settings, seed)
    index = opened(task.files)
    start = time.monotonic()
    exact = nearest(sample, task.shards.vectors, task.k, task.block)
    exact_seconds, most = time.monotonic() - start, min(settings.max_effort or index.max_effort, index.max_effort)
    tuned = tune(lambda some, effort: index.search(sample[some], task.k, effort), exact, settings.recall_target, most)
    start = time.monotonic()
    index.search(sample, task.k, tuned.effort)
    facts = {"approximate_recall": tuned.recall, "sample": len(sample), "effort": tuned.effort}
    facts |= {"exact_seconds": exact_seconds, "search_seconds": time.monotonic() - start}
    if tuned.recall < settings.recall_floor:
        _LOG.warning("recall below the floor, searching exactly", recall=tuned.recall, floor=settings.recall_floor)
        reason = f"recall {tuned.recall:.4f} below recall_floor {settings.recall_floor}"
        return replace(task, files=None), facts | {"reason": reason}
    _LOG.info("approximate search", recall=tuned.recall, effort=tuned.effort, sample=len(sample))
    task = replace(task, effort=tuned.effort)
    return task, facts | {"method": "approximate", "reason": "recall floor met", "recall": tuned.recall}


def _sample(queries: DataFrame, metric: Metric, settings: SearchSettings, seed: int) -> Vectors:
    """The first queries by a seeded hash: ``[S, D]``, the same in every run."""
    drawn = queries.orderBy(F.xxhash64(F.lit(seed), "query_idx"), "query_idx").limit(settings.sample_queries)
    rows: Vectors = vector_rows(drawn.select("vector").toArrow().combine_chunks().column("vector").combine_chunks(), metric)
    return rows
