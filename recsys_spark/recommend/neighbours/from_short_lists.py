"""Neighbours from short lists, as Spark tasks make them, and how far they agree with those of the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_spark.recommend.neighbours.short_lists import ShortLists
from recsys_spark.recommend.neighbours.whole_catalogue import anchors_of, best_of_all, known_anchors, neighbour_rows
from recsys_spark.recommend.scoring.blocks import users_per_block
from recsys_spark.recommend.topk.best import Best
from recsys_spark.recommend.worker import Side, Task
from recsys_spark.threads import one_thread

VECTORS = "item_idx int, vector array<float>"
AGREEMENT = "listed bigint, found bigint"


def place_batches(batches: Iterator[Any], broadcast: Any, allowed_only: bool) -> Iterator[Any]:
    """For ``mapInArrow``. In: ``(item_idx, vector)``. Out: the same of items in the catalogue with a vector that says
    something, under their positions, which do not depend on how ids were dealt; if so wanted, of allowed ones alone."""
    side: Side = broadcast.value
    encoder = side.partners.encoder
    usable = np.zeros(len(side.catalogue), np.bool_) if encoder is None else encoder.vectors.any(axis=1)
    if allowed_only:
        usable &= side.catalogue.allowed
    for batch in batches:
        positions = side.catalogue.positions(batch.column("item_idx").to_numpy())
        kept = positions >= 0
        kept[kept] = usable[positions[kept]]
        vectors = batch.column("vector").filter(pa.array(kept))
        yield pa.RecordBatch.from_arrays([pa.array(positions[kept].astype(np.int32)), vectors], names=["item_idx", "vector"])


def near_item_batches(batches: Iterator[Any], broadcast: Any, lists: Any, task: Task) -> Iterator[Any]:
    """``neighbours.neighbour_batches`` with the candidates of ``lists``, a broadcast ``ShortLists``."""
    one_thread()
    side: Side = broadcast.value
    short: ShortLists = lists.value
    for some in anchors_of(batches, task.user_block):
        anchors, block = known_anchors(some, side, task)
        yield neighbour_rows(anchors, block, short.best(anchors, block, side, task), side, task)


def agreement_batches(batches: Iterator[Any], broadcast: Any, lists: Any, task: Task) -> Iterator[Any]:
    """For ``mapInArrow``. In: ``id``, positions. Out: ``AGREEMENT``, of each block of anchors the neighbours that the whole
    catalogue gives, and those of them that the short lists find."""
    one_thread()
    side: Side = broadcast.value
    short: ShortLists = lists.value
    rows = users_per_block(task.user_block, len(side.catalogue), side.partners.tiled)
    for some in anchors_of(batches, rows):
        anchors, block = known_anchors(some, side, task)
        exact, found = best_of_all(block, side, task), short.best(anchors, block, side, task)
        columns = [pa.array([len(exact.rows)]), pa.array([num_found(found, exact, len(anchors))])]
        yield pa.RecordBatch.from_arrays(columns, names=["listed", "found"])


def num_found(found: Best, exact: Best, num_anchors: int) -> int:
    """How many of the found neighbours score at least as the last exact one of their anchor: a tie with it counts."""
    last = np.full(num_anchors, np.inf)
    np.minimum.at(last, exact.rows, exact.scores)
    return int((found.scores >= last[found.rows]).sum())
