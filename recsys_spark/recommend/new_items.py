"""Places kept for new items: no partner that counts events can speak for them, so text and encoder choose them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.blocks import Block, fuse
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.partners import Partners
from recsys_spark.recommend.scores import Ints
from recsys_spark.recommend.topk import Best, best
from recsys_spark.search.rows import place_in_row

SOURCE = "new_item"
WEIGHTS = {"encoder": 1.0, "text": 0.4}  # of what is known of an item without events
LEAST_FLOOR = 2.5  # standard deviations above the user's average item; nothing less alike is offered
PRIOR_FLOOR = 4.0  # where nothing could be chosen on validation
TEN = 10  # places are kept at the end of each ten


@dataclass(frozen=True)
class NewItems:
    """How places are kept: the last ``per_ten`` of each ten go to the best new items not listed yet that score ``floor``.

    A new item's score is the sum of ``WEIGHTS`` x z-scores, mean and deviation per user over the whole catalogue. Against
    raising the scores of new items, which would crowd some users' lists and spare others', places at the end of each ten
    cost least for a given share of new items found (measured: docs/decisions/007).
    """

    per_ten: int
    floor: float

    def layout(self, k: int) -> tuple[int, int]:
        """Lists of ``k`` are cut into stretches of so many places, the last so many of which are kept: ten, or ``k`` where
        that is less, and the kept in proportion. A shorter stretch at the end keeps none."""
        stretch = min(TEN, k)
        return stretch, self.per_ten * stretch // TEN

    def slots(self, k: int) -> int:
        """Places kept in a list of ``k``."""
        stretch, kept = self.layout(k)
        return kept * (k // stretch)

    def document(self) -> dict[str, Any]:
        return {"per_ten": self.per_ten, "floor": self.floor, "weights": WEIGHTS}

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None, per_ten: int) -> NewItems | None:
        """What a model version says of new items, with the places of the present config; None for no places."""
        if per_ten == 0:
            return None
        return cls(per_ten, float((document or {}).get("floor", PRIOR_FLOOR)))


def new_positions(partners: Partners, allowed: npt.NDArray[np.bool_]) -> Ints:
    """Positions of allowed items without any event that have a text or a vector."""
    described = np.zeros(len(allowed), np.bool_)
    if partners.text is not None:
        described |= np.diff(partners.text.by_item.indptr) > 0
    if partners.encoder is not None:
        described |= partners.encoder.vectors.any(axis=1)
    return np.flatnonzero((partners.popularity.counts == 0) & allowed & described)


def best_new(block: Block, partners: Partners, positions: Ints, allowed: Filter, count: int, item_tile: int) -> Best:
    """The ``count`` best new items of each user, by their own score; ``positions`` are the new items."""
    fused = fuse(block, partners, WEIGHTS).columns(positions)
    found = best(fused, allowed.columns(positions), count, item_tile)
    return replace(found, cols=positions[found.cols])


def with_new_items(main: Best, new: Best, settings: NewItems, k: int) -> tuple[Best, npt.NDArray[np.bool_]]:
    """Lists of at most ``k`` with the new items in their places, by user and rank; and which cells those are.

    New items listed on their own merit keep that place and take no other. An item put in a place has the score of the one
    that stood there, so that scores never rise along a list; those behind it move down by one.
    """
    new = new.take(np.flatnonzero((new.scores >= settings.floor) & not_listed(main, new)))
    num_users = int(max(main.rows.max(initial=-1), new.rows.max(initial=-1))) + 1
    stretch, kept = settings.layout(k)
    number = place_in_row(new.rows, num_users)
    fits = np.flatnonzero(number < settings.slots(k))
    new, number = new.take(fits), number[fits]
    placed = np.bincount(new.rows, minlength=num_users)
    before = np.minimum(kept * ((main.ranks - 1) // (stretch - kept)), placed[main.rows])
    full, beyond = np.divmod(number, max(kept, 1))  # stretches whose kept places are taken, and places taken in the next
    ranks = np.concatenate([main.ranks + before, stretch * (full + 1) - kept + beyond + 1])
    stood = _cells_at(main, new.rows, (stretch - kept) * (full + 1) + 1)
    both = _joined(main, replace(new, scores=main.scores[stood]))
    order = np.lexsort((ranks, both.rows))
    order = order[ranks[order] <= k]
    return replace(both.take(order), ranks=ranks[order]), order >= len(main.rows)


def not_listed(main: Best, new: Best) -> npt.NDArray[np.bool_]:
    """Which cells of ``new`` are not in ``main``."""
    width = max(int(main.cols.max(initial=0)), int(new.cols.max(initial=0))) + 1
    return ~np.isin(new.rows * width + new.cols, main.rows * width + main.cols)


def _cells_at(main: Best, rows: Ints, ranks: Ints) -> Ints:
    """The cells at these ranks. There always is one: a list with an allowed item left over is full."""
    found: Ints = np.searchsorted(main.rows, rows) + ranks - 1
    return found


def _joined(first: Best, second: Best) -> Best:
    """The cells of both, one after the other; a partner that has no say in one of them adds 0 there."""
    nothing = np.zeros(len(first.rows)), np.zeros(len(second.rows))
    shares = {
        name: np.concatenate([first.shares.get(name, nothing[0]), second.shares.get(name, nothing[1])])
        for name in {**first.shares, **second.shares}
    }
    pairs = ((first.rows, second.rows), (first.cols, second.cols), (first.ranks, second.ranks), (first.scores, second.scores))
    rows, cols, ranks, scores = (np.concatenate(pair) for pair in pairs)
    return Best(rows, cols, ranks, scores, shares)
