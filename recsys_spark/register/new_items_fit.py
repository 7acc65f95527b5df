"""What is measured on validation for the places of new items: the chances of known items, and what the places cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from scipy.optimize import minimize
from scipy.special import expit, logit

from recsys_spark.config import Config
from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.new_items import (
    PRIOR_INTERCEPT,
    PRIOR_SLOPE,
    SPARE,
    TEN,
    NewItems,
    Offer,
    best_new,
    filled,
    known_lists,
)
from recsys_spark.recommend.scoring.blocks import fuse, users_per_block
from recsys_spark.recommend.scoring.scores import Float64, Ints
from recsys_spark.recommend.topk.best import Best, best
from recsys_spark.recommend.worker import Side, Task, block_of
from recsys_spark.threads import one_thread

LEAST_DEMAND, LEAST_CHANCE = 0.5, 0.03  # the smaller one is granted to items that nobody has been shown yet
FOUND_AS_WELL = 0.6  # how well new items are found in their places, of how well the others are (docs/decisions/007)
LEAST_HITS = 20  # of validation users, in lists without new items: fewer do not tell what a place costs
EAGERNESS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)  # what is tried
_FLAT = 1e-9  # a spread of scores below it tells nothing
_ARRAYS, _COUNTS = ("known", "known_hit", "new", "new_hit"), ("targets", "new_targets")
_COLUMNS = (
    "known array<double>, known_hit array<boolean>, new array<double>, new_hit array<boolean>, targets int, new_targets int"
)
GAINS = 1.0 / np.log2(np.arange(TEN) + 2.0)  # of a hit at each of the first ten places


@dataclass(frozen=True)
class PlacesFit:
    """The places, the share of validation NDCG they cost, and the share of validation lists that get a new item."""

    new_items: NewItems | None
    loss: float = 0.0
    share_of_lists: float = 0.0

    def document(self) -> dict[str, Any] | None:
        """As ``fusion.json`` and the report have it."""
        if self.new_items is None:
            return None
        return self.new_items.document() | {"loss": round(self.loss, 6), "share_of_lists": round(self.share_of_lists, 6)}


@dataclass(frozen=True)
class Lists:
    """First tens of U validation users: scores of known items and which are targets ``[U, 10]``, chances of the new items
    beside them and which of these are ``[U, M]``, how many targets each user has, and how many of them are new ``[U]``."""

    known: Float64
    known_hit: npt.NDArray[np.bool_]
    new: Float64
    new_hit: npt.NDArray[np.bool_]
    targets: Ints
    new_targets: Ints

    def ndcg(self, order_UK: Ints) -> Float64:
        """NDCG@10 [U] of lists in this order (see ``NewItems.order``)."""
        hit = np.column_stack([self.known_hit, self.new_hit[:, ::-1]])  # -1 is the last column, the first new item
        gains = np.take_along_axis(hit, order_UK % hit.shape[1], 1) @ GAINS[: order_UK.shape[1]]
        found: Float64 = gains / ideal_gains(self.targets)
        return found


def ideal_gains(num_targets: Ints) -> Float64:
    """What a list of ten gains at most, of a user with so many targets; of one with none, what it is of one."""
    found: Float64 = np.cumsum(GAINS)[np.clip(num_targets, 1, TEN) - 1]
    return found


def fit_places(config: Config, rows: DataFrame, broadcast: Any, weights: dict[str, float]) -> PlacesFit:
    """How known items' scores become chances, how often new items are asked for, and the largest eagerness whose new items
    cost validation users at most ``recommend.max_new_item_loss`` of their NDCG@10, and no more than they may be worth: their
    chance of being next x ``FOUND_AS_WELL``. A handful of them is not worth what a tenth of the catalogue is.

    The chances of new items are not measured here: the encoder was trained on the text of every item that has events, and
    would seem to find them better than it does (docs/decisions/007).

    Args:
        rows: ``user_id, items, seen, vector, target_idx`` of the validation users.
        broadcast: the item side.
        weights: the chosen fusion weights.
    """
    settings = config.recommend
    if settings.new_items_per_ten == 0:
        return PlacesFit(None)
    prior = NewItems(settings.new_items_per_ten)
    side: Side = broadcast.value
    if not len(side.new_positions):
        return PlacesFit(prior)
    task = Task(weights, TEN, settings.decay, settings.max_reasons, settings.user_block, settings.item_tile)
    work = functools.partial(_list_batches, broadcast=broadcast, task=task, slots=prior.slots(TEN))
    table = rows.mapInArrow(work, _COLUMNS).toArrow()
    if table.num_rows == 0:
        return PlacesFit(prior)
    lists = _collected(table)
    demand = demand_of(lists, side.new_share) if settings.new_item_demand is None else settings.new_item_demand
    places = NewItems(settings.new_items_per_ten, 0.0, *fit_known(lists), demand)
    worth = FOUND_AS_WELL * places.chance(side.new_share)
    return choose(lists, places, side.new_share, min(settings.max_new_item_loss, worth))


def demand_of(lists: Lists, share: float) -> float:
    """How often a new item was a target, of how often an average item was. At least half as often, or so often that all of them
    together are asked for 3 times in 100, whichever is less: nobody asks for what was never shown."""
    measured = float(lists.new_targets.sum() / max(int(lists.targets.sum()), 1)) / share
    return max(measured, min(LEAST_DEMAND, LEAST_CHANCE / share))


def fit_known(lists: Lists) -> tuple[float, float]:
    """Slope (at least 0) and intercept of the logistic by which a listed item's score tells its chance to be a target drawn
    from those of its user that are no new items (maximum likelihood, one hit and one miss more assumed: Platt 1999)."""
    asked = lists.targets - lists.new_targets
    listed = np.isfinite(lists.known) & (asked > 0)[:, None]
    if not listed.any():
        return PRIOR_SLOPE, PRIOR_INTERCEPT
    scores = lists.known[listed]
    wanted = (lists.known_hit / np.maximum(asked, 1)[:, None])[listed]
    hits, misses = float(wanted.sum()), float((1.0 - wanted).sum())
    goal = wanted * (hits + 1.0) / (hits + 2.0) + (1.0 - wanted) / (misses + 2.0)
    mean, spread = float(scores.mean()), max(float(scores.std()), _FLAT)
    z = (scores - mean) / spread

    def cost(at: Float64) -> tuple[float, Float64]:
        raised = at[0] * z + at[1]
        missed = expit(raised) - goal
        return float((np.logaddexp(0.0, raised) - goal * raised).mean()), np.array([(missed * z).mean(), missed.mean()])

    start = np.array([0.0, logit(goal.mean())])
    steep, level = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=((0.0, None), (None, None)), tol=1e-12).x
    return float(steep / spread), float(level - steep * mean / spread)


def choose(lists: Lists, places: NewItems, share: float, bearable: float, least_hits: int = LEAST_HITS) -> PlacesFit:
    """``places`` with the largest of ``EAGERNESS`` that costs at most ``bearable`` of the NDCG@10 of lists without new items;
    where under ``least_hits`` users find anything in these, chances alone decide.

    Args:
        share: of the catalogue that is new.
    """
    known, width = places.known_chances(lists.known), lists.known.shape[1]
    gains = lists.ndcg(np.broadcast_to(np.arange(width), lists.known.shape))
    if np.count_nonzero(gains) < least_hits:
        return PlacesFit(replace(places, eagerness=1.0))
    before, found = gains.sum(), PlacesFit(places)
    for eagerness in EAGERNESS:
        tried = replace(places, eagerness=eagerness)
        order = tried.order(known, lists.new, share)
        loss = 1.0 - float(lists.ndcg(order).sum() / before)
        if loss <= bearable + 1e-12:
            found = PlacesFit(tried, loss, float((order < 0).any(1).mean()))
    return found


def _collected(table: Any) -> Lists:
    """Rows of ``_COLUMNS`` as arrays."""
    users = table.num_rows
    arrays = [flat_list(table.column(name).combine_chunks())[1].reshape(users, -1) for name in _ARRAYS]
    return Lists(*arrays, *(table.column(name).to_numpy() for name in _COUNTS))


def _list_batches(batches: Iterator[Any], broadcast: Any, task: Task, slots: int) -> Iterator[Any]:
    """For ``mapInArrow``: a row of ``_COLUMNS`` per user, ``slots`` new items beside each list."""
    one_thread()
    side: Side = broadcast.value
    size = users_per_block(min(task.user_block, 128), len(side.catalogue))
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            lists = _block_lists(batch.slice(start, size), side, task, slots)
            parts = [getattr(lists, name) for name in _ARRAYS]
            columns = [pa.array(list(part), pa.list_(pa.from_numpy_dtype(part.dtype))) for part in parts]
            columns += [pa.array(getattr(lists, name), pa.int32()) for name in _COUNTS]
            yield pa.RecordBatch.from_arrays(columns, names=[*_ARRAYS, *_COUNTS])


def _block_lists(batch: Any, side: Side, task: Task, slots: int) -> Lists:
    block = block_of(batch, side, task.decay)
    allowed = Filter(side.catalogue.allowed, block.seen)
    fused = fuse(block, side.partners, task.weights)
    width = task.k + SPARE
    wide = best(fused, allowed, width, task.item_tile)
    listed = known_lists(wide, width, fused, allowed, side.new_positions, task.k, task.item_tile)
    offer = best_new(block, side.partners, side.new_positions, allowed, task.k + slots, task.item_tile, fused)
    lengths, target_idx = flat_list(batch.column("target_idx"))
    owners, positions = np.repeat(np.arange(block.num_users), lengths), side.catalogue.positions(target_idx)
    asked = Asked(owners, positions, np.isin(positions, side.new_positions), block.num_users)
    return first_tens(listed, offer, asked, slots, len(side.catalogue))


@dataclass(frozen=True)
class Asked:
    """The targets of a block's ``num_users`` users ``[T]``: whose, at which position (-1: outside the catalogue), is it new."""

    owners: Ints
    positions: Ints
    is_new: npt.NDArray[np.bool_]
    num_users: int

    @property
    def counts(self) -> tuple[Ints, Ints]:
        """Targets of each user, and new ones among them ``[U]``."""
        every, new = (np.bincount(of, minlength=self.num_users) for of in (self.owners, self.owners[self.is_new]))
        return every, new


def first_tens(listed: Best, offer: Offer, asked: Asked, slots: int, num_items: int) -> Lists:
    """The lists of a block's users as arrays; of the offered items each has the best ``slots`` that are not in its list."""
    offer, number = offer.beside(listed, asked.num_users, slots)
    new = offer.best
    wanted = (asked.owners * num_items + asked.positions)[asked.positions >= 0]
    places, shape, offered = listed.ranks - 1, (asked.num_users, TEN), (asked.num_users, slots)
    return Lists(
        filled(shape, -np.inf, listed.rows, places, listed.scores),
        filled(shape, 0.0, listed.rows, places, np.isin(listed.rows * num_items + listed.cols, wanted)) > 0,
        filled(offered, -1.0, new.rows, number, offer.chances),
        filled(offered, 0.0, new.rows, number, np.isin(new.rows * num_items + new.cols, wanted)) > 0,
        *asked.counts,
    )
