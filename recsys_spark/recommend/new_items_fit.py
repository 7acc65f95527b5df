"""Choosing the floor for new items: as low as the validation lists can bear."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from recsys_spark.config import Config
from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.blocks import fuse, users_per_block
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.new_items import LEAST_FLOOR, PRIOR_FLOOR, NewItems, best_new, not_listed, with_new_items
from recsys_spark.recommend.scores import Float64, Ints
from recsys_spark.recommend.topk import Best, best
from recsys_spark.recommend.worker import Side, Task, block_of
from recsys_spark.search.rows import place_in_row
from recsys_spark.threads import one_thread

NDCG_K = 10
FOUND_AS_WELL = 0.4  # how well new items are found in their places, of how well the others are (docs/decisions/007)
Step = tuple[int, Float64, Float64, Float64]  # a place, who would take it by score, and NDCG before and after


@dataclass(frozen=True)
class FloorFit:
    """The floor, the share of validation NDCG it costs, and the share of validation lists that it gives a new item."""

    new_items: NewItems | None
    loss: float = 0.0
    share_of_lists: float = 0.0

    def document(self) -> dict[str, Any] | None:
        """As ``fusion.json`` and the report have it."""
        if self.new_items is None:
            return None
        return self.new_items.document() | {"loss": round(self.loss, 6), "share_of_lists": round(self.share_of_lists, 6)}


def fit_floor(config: Config, rows: DataFrame, broadcast: Any, weights: dict[str, float]) -> FloorFit:
    """The lowest floor whose new items cost at most ``recommend.max_new_item_loss`` of the validation users' NDCG@10, and no
    more than they may be worth: their share of the catalogue x ``FOUND_AS_WELL``. A handful of them is not worth what a tenth
    of it is.

    Validation is asked only what lists lose. It cannot tell how well text finds new items: the encoder was trained on the
    text of every item that has events, and would seem to find them far better than it does (measured: docs/decisions/007).

    Args:
        rows: ``user_id, items, seen, vector, target_idx`` of the validation users.
        broadcast: the item side.
        weights: the chosen fusion weights.
    """
    settings = config.recommend
    if settings.new_items_per_ten == 0:
        return FloorFit(None)
    prior = NewItems(settings.new_items_per_ten, PRIOR_FLOOR)
    if not len(broadcast.value.new_positions):
        return FloorFit(prior)
    task = Task(weights, NDCG_K, settings.decay, settings.max_reasons, settings.user_block, settings.item_tile)
    make = functools.partial(_floor_batches, broadcast=broadcast, task=task, places=prior)
    table = rows.mapInArrow(make, "place int, score double, before double, after double").toArrow()
    place, score, before, after = (table.column(name).to_numpy() for name in ("place", "score", "before", "after"))
    if not len(score):
        return FloorFit(prior)
    share = len(broadcast.value.new_positions) / max(int(broadcast.value.catalogue.allowed.sum()), 1)
    first = place == 1
    bearable = min(settings.max_new_item_loss, FOUND_AS_WELL * share)
    floor, loss = choose_floor(score, before - after, float(before[first].sum()), bearable)
    return FloorFit(NewItems(settings.new_items_per_ten, floor), loss, float((score[first] >= floor).mean()))


def choose_floor(score: Float64, lost: Float64, total: float, max_loss: float) -> tuple[float, float]:
    """The lowest floor, at least ``LEAST_FLOOR``, at which all places filled above it together lose at most ``max_loss``; and
    the loss.

    Args:
        score: ``[P]``, of the item that each place would take (-inf: none).
        lost: ``[P]``, NDCG that its user loses by it, the places before it being filled.
        total: NDCG of all users without any.
    """
    order = np.lexsort((-lost, -score))
    summed = np.cumsum(lost[order])
    last_of_score = np.append(score[order][1:] != score[order][:-1], True)
    bearable = last_of_score & (summed <= max_loss * total + 1e-12) & (score[order] >= LEAST_FLOOR)
    if not bearable.any():
        return max(PRIOR_FLOOR, float(np.nextafter(score.max(), np.inf))), 0.0
    place = int(np.flatnonzero(bearable)[-1])
    return float(score[order][place]), float(summed[place] / total) if total else 0.0


def _floor_batches(batches: Iterator[Any], broadcast: Any, task: Task, places: NewItems) -> Iterator[Any]:
    """For ``mapInArrow``: per user and place (from 1) the score of the new item that would take it, and NDCG before and after."""
    one_thread()
    side: Side = broadcast.value
    size = users_per_block(min(task.user_block, 128), len(side.catalogue))
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            for place, *columns in _block_floor(batch.slice(start, size), side, task, places):
                arrays = [pa.array(np.full(len(columns[0]), place, np.int32)), *map(pa.array, columns)]
                yield pa.RecordBatch.from_arrays(arrays, names=["place", "score", "before", "after"])


def _block_floor(batch: Any, side: Side, task: Task, places: NewItems) -> Iterator[Step]:
    block = block_of(batch, side, task.decay)
    allowed = Filter(side.catalogue.allowed, block.seen)
    listed = best(fuse(block, side.partners, task.weights), allowed, task.k, task.item_tile)
    new = best_new(block, side.partners, side.new_positions, allowed, 2 * task.k, task.item_tile)
    lengths, target_idx = flat_list(batch.column("target_idx"))
    owners, targets = np.repeat(np.arange(block.num_users), lengths), side.catalogue.positions(target_idx)
    ndcg = functools.partial(list_ndcg, owners=owners, targets=targets, lengths=lengths, num_items=len(side.catalogue))
    yield from filled_one_by_one(listed, new, places, task.k, ndcg)


def filled_one_by_one(listed: Best, new: Best, places: NewItems, k: int, ndcg: Callable[[Best], Float64]) -> Iterator[Step]:
    """Each user's places taken in turn by their best new items: the place (from 1), ``[B]`` scores of the items that take it
    (-inf: none), and ``ndcg`` of the lists before and after. A floor lets a user's first so many places be taken, so what it
    costs is the sum over the places whose score reaches it.
    """
    before = ndcg(listed)
    new = new.take(np.flatnonzero(not_listed(listed, new)))
    number = place_in_row(new.rows, len(before)) + 1
    for place in range(1, places.slots(k) + 1):
        merged, _ = with_new_items(listed, new.take(np.flatnonzero(number <= place)), replace(places, floor=-np.inf), k)
        after, score = ndcg(merged), np.full(len(before), -np.inf)
        score[new.rows[number == place]] = new.scores[number == place]
        yield place, score, before, after
        before = after


def list_ndcg(lists: Best, owners: Ints, targets: Ints, lengths: Ints, num_items: int) -> Float64:
    """NDCG@10 of each user's list, binary relevance: ``[B]``, 0 without a target.

    Args:
        owners, targets: user and position of each target (-1: outside the catalogue).
        lengths: ``[B]``, targets per user.
    """
    hit = np.isin(lists.rows * num_items + lists.cols, (owners * num_items + targets)[targets >= 0]) & (lists.ranks <= NDCG_K)
    gains = np.bincount(lists.rows[hit], 1.0 / np.log2(lists.ranks[hit] + 1.0), minlength=len(lengths))
    ideal = np.cumsum(1.0 / np.log2(np.arange(NDCG_K) + 2.0))[np.clip(lengths, 1, NDCG_K) - 1]
    found: Float64 = gains / ideal
    return found
