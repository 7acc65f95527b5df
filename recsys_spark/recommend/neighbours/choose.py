"""Which way item neighbours are made: from the whole catalogue, or from short lists whose result is measured in every run."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.search import SearchSettings
from recsys_spark.log import get_logger
from recsys_spark.recommend.arrow import OUTPUT
from recsys_spark.recommend.neighbours.from_short_lists import (
    AGREEMENT,
    VECTORS,
    agreement_batches,
    near_item_batches,
    place_batches,
)
from recsys_spark.recommend.neighbours.short_lists import ShortLists, most_popular
from recsys_spark.recommend.neighbours.text import TextNeighbours
from recsys_spark.recommend.neighbours.whole_catalogue import neighbour_batches
from recsys_spark.recommend.worker import Side, Task
from recsys_spark.search.choose import prepare
from recsys_spark.tables.task_files import Made

log = get_logger(__name__)


@dataclass(frozen=True)
class Anchors:
    """All items of a run, whose neighbours are wanted: ``broadcast`` holds their ``Side``, ``vectors`` is the encoder's
    ``(item_idx, vector)``, or None where it takes no part."""

    config: Config
    side: Side
    broadcast: Any
    vectors: DataFrame | None
    task: Task

    @property
    def settings(self) -> SearchSettings:
        return self.config.search

    def positions(self, spark: SparkSession, size: int, rows_per_task: int) -> DataFrame:
        """``id``: the first ``size`` positions of the catalogue."""
        tasks = max(1, min(2 * spark.sparkContext.defaultParallelism, math.ceil(size / rows_per_task)))
        return spark.range(0, size, 1, tasks)


@contextmanager
def neighbour_lists(work: Anchors, spark: SparkSession) -> Iterator[tuple[Made, dict[str, Any]]]:
    """Rows of ``arrow.OUTPUT``, made when they are read, and the facts: ``method``, ``reason``, ``agreement`` (share of
    the exact lists found, on ``agreement_sample`` anchors), ``short_list_recall`` and ``effort`` of the encoder's lists.

    A catalogue below ``search.exact_below``, or one without vectors, is compared one by one; so is one where recall of the
    encoder's lists or the agreement is below ``search.recall_floor``.
    """
    why = _why_exact(work)
    if why is not None:
        yield _exact(work, spark), {"method": "exact", "reason": why}
        return
    lists, facts = _short_lists(work, spark)
    if lists is None:
        log.warning("neighbours: comparing all", **facts)
        yield _exact(work, spark), facts
        return
    shared = spark.sparkContext.broadcast(lists)
    try:
        yield _checked(work, spark, shared, facts)
    finally:
        shared.unpersist()


def _why_exact(work: Anchors) -> str | None:
    if len(work.side.catalogue) < work.settings.exact_below:
        return "catalogue below exact_below"
    encoder = work.side.partners.encoder
    if work.vectors is None or encoder is None or "encoder" not in work.task.weights:
        return "no encoder takes part"
    if not (encoder.vectors.any(axis=1) & work.side.catalogue.allowed).any():
        return "no allowed item has a vector"
    return None


def _exact(work: Anchors, spark: SparkSession) -> Made:
    make = functools.partial(neighbour_batches, broadcast=work.broadcast, task=work.task)
    return Made(work.positions(spark, len(work.side.catalogue), work.task.user_block), make, OUTPUT)


def _short_lists(work: Anchors, spark: SparkSession) -> tuple[ShortLists | None, dict[str, Any]]:
    """The short lists of all partners; None, with the reason, where the encoder's miss too much."""
    anchors, items = (_placed(work, allowed_only) for allowed_only in (False, True))
    length = work.task.k * work.settings.short_list
    search, tried = prepare(
        spark,
        anchors.withColumnRenamed("item_idx", "query_idx"),
        items,
        length + 1,  # an anchor is the nearest to itself
        work.settings.model_copy(update={"exact_below": 0}),  # the size of the catalogue has decided
        str(work.config.work_dir / "search" / "items"),
        work.config.seed,
        "inner_product",  # as the encoder's scores are
    )
    facts = {"method": tried["method"], "reason": tried["reason"], "short_list_recall": tried["approximate_recall"]}
    facts |= {"short_list": length, "effort": tried["effort"], "agreement": None, "agreement_sample": 0}
    if tried["method"] != "approximate":
        return None, facts
    partners, allowed = work.side.partners, work.side.catalogue.allowed
    text = None if partners.text is None or "text" not in work.task.weights else TextNeighbours.of(partners.text, allowed)
    return ShortLists(search, length, most_popular(partners.popularity, allowed, work.task.k), text), facts


def _placed(work: Anchors, allowed_only: bool) -> DataFrame:
    """The encoder's vectors under positions in the catalogue."""
    if work.vectors is None:
        raise ValueError("no vectors to place")
    place = functools.partial(place_batches, broadcast=work.broadcast, allowed_only=allowed_only)
    return work.vectors.select("item_idx", "vector").mapInArrow(place, VECTORS)


def _checked(work: Anchors, spark: SparkSession, shared: Any, facts: dict[str, Any]) -> tuple[Made, dict[str, Any]]:
    """The lists of ``shared`` short lists, or the exact ones where these agree too little."""
    facts = facts | _agreement(work, spark, shared)
    floor = work.settings.recall_floor
    if facts["agreement"] < floor:
        facts |= {"method": "exact", "reason": f"agreement {facts['agreement']:.4f} below recall_floor {floor}"}
        log.warning("neighbours: comparing all", **facts)
        return _exact(work, spark), facts
    log.info("neighbours from short lists", **facts)
    make = functools.partial(near_item_batches, broadcast=work.broadcast, lists=shared, task=work.task)
    return Made(work.positions(spark, len(work.side.catalogue), work.task.user_block), make, OUTPUT), facts


def _agreement(work: Anchors, spark: SparkSession, shared: Any) -> dict[str, Any]:
    """On the first anchors: the catalogue stands in the order of a seeded hash, so they are a sample of it."""
    sample = min(work.settings.sample_queries, len(work.side.catalogue))
    make = functools.partial(agreement_batches, broadcast=work.broadcast, lists=shared, task=work.task)
    counted = work.positions(spark, sample, 1).mapInArrow(make, AGREEMENT).agg(F.sum("listed"), F.sum("found")).first()
    listed, found = (0, 0) if counted is None else (counted[0] or 0, counted[1] or 0)
    return {"agreement": found / listed if listed else 1.0, "agreement_sample": sample}
