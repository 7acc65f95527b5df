"""New items among known ones: no partner that counts events can speak for them, so they are weighed by their chances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.scoring.blocks import Block, fuse
from recsys_spark.recommend.scoring.fuse import Fused
from recsys_spark.recommend.scoring.partners import Partners
from recsys_spark.recommend.scoring.scores import Float64, Ints
from recsys_spark.recommend.topk.best import Best, best
from recsys_spark.search.rows import place_in_row

SOURCE = "new_item"
WEIGHTS = {"encoder": 0.85, "text": 0.25}  # of z-scores, in the softmax over new items (docs/decisions/007)
TEN = 10  # lists are looked at in stretches of so many places
PRIOR_SLOPE, PRIOR_INTERCEPT = 0.4, -6.5  # about what they were where they could be measured
PRIOR_DEMAND = 0.5
_SUREST = 0.9
SPARE = 10  # items listed beyond K, so that hardly a list comes out short once new items are left out
_NONE = -1.0  # below every chance
_CHOSEN = ("eagerness", "slope", "intercept", "demand")


@dataclass(frozen=True)
class NewItems:
    """What the chances of new and known items are, and how they share a list of B users' first K places.

    What is next is a new item with chance q, ``demand`` x their share of the catalogue; which of them, says a softmax of
    ``WEIGHTS`` x z-scores over the user's new items. Else it is a known item of fused score s with chance
    ``1 / (1 + exp(-(intercept + slope s)))`` (Platt 1999, fitted on validation). A place goes to the next new item where its
    chance is the larger one, and in the last ``per_ten`` of each ten places, where least is lost, if ``eagerness`` times its
    chance is. At most ``per_ten`` of each ten are new.
    """

    per_ten: int
    eagerness: float = 1.0
    slope: float = PRIOR_SLOPE
    intercept: float = PRIOR_INTERCEPT
    demand: float = PRIOR_DEMAND

    def layout(self, k: int) -> tuple[int, int]:
        """Lists of ``k`` are cut into stretches of so many places, of which so many may be new: ten, or ``k`` where that is
        less, and the new in proportion. A shorter stretch at the end has none."""
        stretch = min(TEN, k)
        return stretch, self.per_ten * stretch // TEN

    def slots(self, k: int) -> int:
        """New items that a list of ``k`` may have."""
        stretch, most = self.layout(k)
        return most * (k // stretch)

    def document(self) -> dict[str, Any]:
        chosen = {name: getattr(self, name) for name in _CHOSEN}
        return {"per_ten": self.per_ten, **chosen, "weights": WEIGHTS}

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None, per_ten: int) -> NewItems | None:
        """What a model version says of new items, with the places of the present config; None for no places."""
        if per_ten == 0:
            return None
        said = document or {}
        return cls(per_ten, **{name: float(said[name]) for name in _CHOSEN if name in said})

    def chance(self, share: float) -> float:
        """q, where new items are this ``share`` of the catalogue."""
        return min(_SUREST, self.demand * share)

    def known_chances(self, scores_BK: Float64) -> Float64:
        """Chances [B, K] of listed items to be next, if a known one is; 0 for a score of -inf."""
        listed = np.isfinite(scores_BK)
        found: Float64 = listed * expit(self.intercept + self.slope * np.where(listed, scores_BK, 0.0))
        return found

    def order(self, known_BK: Float64, new_BM: Float64, share: float) -> Ints:
        """Who stands at each of K places: the number of a known item (0 ..), or -1 - the number of a new one.

        Args:
            known_BK, new_BM: chances of both if it is one of their kind, falling along a row; new ones that are not there: -1.
            share: of the catalogue that is new.
        """
        (users, k), everyone = known_BK.shape, np.arange(len(known_BK))
        stretch, most = self.layout(k)
        q = self.chance(share)
        waiting_BM = np.column_stack([new_BM, np.full(users, _NONE)])
        placed, since = np.zeros(users, np.int64), np.zeros(users, np.int64)  # new items so far, and in this stretch
        found = np.empty((users, k), np.int64)
        for place in range(k):
            if place % stretch == 0:
                since[:] = 0
            room = most if place < k - k % stretch else 0
            at_end = place % stretch >= stretch - most
            weight = q * (self.eagerness if at_end else min(1.0, self.eagerness))
            chance, other = waiting_BM[everyone, placed], known_BK[everyone, place - placed]
            taken = (since < room) & (weight * chance > (1.0 - q) * other)
            found[:, place] = np.where(taken, -1 - placed, place - placed)
            placed, since = placed + taken, since + taken
        return found


@dataclass(frozen=True)
class Offer:
    """The best new items of each user, with the chance ``[C]`` of each cell that it is next if a new item is."""

    best: Best
    chances: Float64

    def take(self, cells: Ints) -> Offer:
        return Offer(self.best.take(cells), self.chances[cells])

    def beside(self, listed: Best, num_users: int, slots: int) -> tuple[Offer, Ints]:
        """Each user's best ``slots`` that are not in ``listed``, and the number (0 ..) of each among these."""
        offer = self.take(np.flatnonzero(not_listed(listed, self.best)))
        number = place_in_row(offer.best.rows, num_users)
        fits = np.flatnonzero(number < slots)
        return offer.take(fits), number[fits]


def new_positions(partners: Partners, allowed: npt.NDArray[np.bool_]) -> Ints:
    """Positions of allowed items without any event that have a text or a vector."""
    described = np.zeros(len(allowed), np.bool_)
    if partners.text is not None:
        described |= np.diff(partners.text.by_item.indptr) > 0
    if partners.encoder is not None:
        described |= partners.encoder.vectors.any(axis=1)
    return np.flatnonzero((partners.popularity.counts == 0) & allowed & described)


def best_new(
    block: Block, partners: Partners, positions: Ints, allowed: Filter, count: int, item_tile: int, listed_by: Fused | None = None
) -> Offer:
    """The ``count`` best new items of each user, by their own score; ``positions`` are the new items.

    Args:
        listed_by: the block's scores by histories, where they have been made already.
    """
    given = None if listed_by is None else listed_by.by_partner()
    fused = fuse(block, replace(partners, weight_factors={}), WEIGHTS, given=given).columns(positions)
    left = allowed.columns(positions)
    found = best(fused, left, count, item_tile)
    chances = np.exp(found.scores - log_sums(fused, left, item_tile)[found.rows])
    return Offer(replace(found, cols=positions[found.cols]), chances)


def log_sums(fused: Fused, allowed: Filter, item_tile: int) -> Float64:
    """``log sum_c exp(score_c)`` over each user's allowed items: [B], -inf without any. Memory: one tile."""
    total = np.full(fused.num_users, -np.inf)
    for start in range(0, fused.num_items, item_tile):
        stop = min(start + item_tile, fused.num_items)
        tile = fused.tile(start, stop, np.float64)
        allowed.apply(tile, start, stop)
        total = np.logaddexp(total, np.logaddexp.reduce(tile, axis=1))
    return total


def known_lists(wide: Best, width: int, fused: Fused, allowed: Filter, positions: Ints, k: int, item_tile: int) -> Best:
    """The best ``k`` of each user without the new items at ``positions``, whose scores by partners that know nothing of them say
    little; who has fewer than ``k`` others keeps the best of all.

    Args:
        wide: the best ``width >= k`` of all items; where too few of them are left, the catalogue is gone through again.
    """
    listed, is_new = wide.take(np.flatnonzero(wide.ranks <= k)), np.isin(wide.cols, positions)
    if not is_new[wide.ranks <= k].any():
        return listed
    others = wide.take(np.flatnonzero(~is_new))
    known = replace(others, ranks=place_in_row(others.rows, fused.num_users) + 1)
    known = known.take(np.flatnonzero(known.ranks <= k))
    found, looked_at = (np.bincount(some.rows, minlength=fused.num_users) for some in (known, wide))
    if ((found < k) & (looked_at == width)).any():
        known = best(fused, allowed.without(positions), k, item_tile)
        found = np.bincount(known.rows, minlength=fused.num_users)
    full = found == k
    both = known.take(np.flatnonzero(full[known.rows])).joined(listed.take(np.flatnonzero(~full[listed.rows])))
    return both.take(np.argsort(both.rows, kind="stable"))


def with_new_items(main: Best, offer: Offer, settings: NewItems, share: float, k: int) -> tuple[Best, npt.NDArray[np.bool_]]:
    """Lists of at most ``k`` with new items in their places, by user and rank; and which cells those are.

    New items that are listed already keep that place and take no other. An item put in a place has the score of the one that
    stood there, so that scores never rise along a list; those behind it move down by one.
    """
    num_users = int(max(main.rows.max(initial=-1), offer.best.rows.max(initial=-1))) + 1
    offer, number = offer.beside(main, num_users, settings.slots(k))
    scores_BK = filled((num_users, k), -np.inf, main.rows, main.ranks - 1, main.scores)
    new_BM = filled((num_users, settings.slots(k)), _NONE, offer.best.rows, number, offer.chances)
    order_BK = settings.order(settings.known_chances(scores_BK), new_BM, share)
    listed = np.bincount(main.rows, minlength=num_users)
    users, places = np.nonzero(order_BK < listed[:, None])
    at, is_new = order_BK[users, places], order_BK[users, places] < 0
    stood = np.where(is_new, places + 1 + at, at)  # -1 - at new items came before it
    begins, offered = np.cumsum(listed) - listed, np.searchsorted(offer.best.rows, np.arange(num_users))
    cells = np.where(is_new, len(main.rows) + offered[users] - 1 - at, begins[users] + at)
    chosen = main.joined(offer.best).take(cells)
    scores = scores_BK[users, np.minimum(stood, np.maximum(listed[users] - 1, 0))]
    ranks = place_in_row(users, num_users) + 1
    return replace(chosen, ranks=ranks, scores=np.where(is_new, scores, chosen.scores)), is_new


def filled(shape: tuple[int, int], empty: float, rows: Ints, places: Ints, values: npt.NDArray[Any]) -> Float64:
    """An array of ``shape`` with ``values`` at their cells, ``empty`` elsewhere."""
    found = np.full(shape, empty)
    found[rows, places] = values
    return found


def not_listed(main: Best, new: Best) -> npt.NDArray[np.bool_]:
    """Which cells of ``new`` are not in ``main``."""
    width = max(int(main.cols.max(initial=0)), int(new.cols.max(initial=0))) + 1
    return ~np.isin(new.rows * width + new.cols, main.rows * width + main.cols)
