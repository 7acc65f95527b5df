"""What may not be recommended: seen, unavailable and blocked items; and why a list came out short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.rules import SegmentLists
from recsys_spark.recommend.scoring.scores import FloatArray, Ints


@dataclass(frozen=True)
class Filter:
    """Items a block's users may get: ``allowed [N]`` for all of them, less each user's own ``seen`` (CSR ``[B, N]``), less
    what the rules of their segment bar: row ``segment_of [B]`` (-1: none) of ``segments [S, N]``."""

    allowed: npt.NDArray[np.bool_]
    seen: Any
    segments: npt.NDArray[np.bool_] | None = None
    segment_of: Ints | None = None

    @classmethod
    def of(cls, allowed: npt.NDArray[np.bool_], seen: Any, lists: SegmentLists, segment_of: Ints) -> Filter:
        """With the rules of segments, where any of these users is in one."""
        return cls(allowed, seen, lists.allowed, segment_of) if (segment_of >= 0).any() else cls(allowed, seen)

    @cached_property
    def _seen_by_item(self) -> tuple[Ints, Ints, Ints]:
        """Users and items of all seen cells by item, and where each item's begin ``[N + 1]``: made once for all tiles."""
        by_item = self.seen.tocsc()
        by_item.eliminate_zeros()
        return by_item.indices, np.repeat(np.arange(by_item.shape[1]), np.diff(by_item.indptr)), by_item.indptr

    def apply(self, scores: FloatArray, start: int, stop: int, lowest: float = -np.inf) -> None:
        """Set the cells of a tile ``[B, stop - start]`` that are not allowed to ``lowest``, in place."""
        barred = np.flatnonzero(~self.allowed[start:stop])
        if len(barred):
            scores[:, barred] = lowest
        if self.seen.nnz:
            users, items, begins = self._seen_by_item
            met = slice(begins[start], begins[stop])
            scores[users[met], items[met] - start] = lowest
        for users, left in self._by_segment():
            scores[np.ix_(users, np.flatnonzero(~left[start:stop]))] = lowest

    def _by_segment(self) -> Iterator[tuple[Ints, npt.NDArray[np.bool_]]]:
        """Users of each segment with rules, and the items [N] that these leave."""
        if self.segments is None or self.segment_of is None:
            return
        for segment in np.unique(self.segment_of[self.segment_of >= 0]):
            yield np.flatnonzero(self.segment_of == segment), self.segments[segment]

    def without(self, cols: Ints) -> Filter:
        """The same, and these items for nobody."""
        allowed = self.allowed.copy()
        allowed[cols] = False
        return replace(self, allowed=allowed)

    def columns(self, cols: Ints) -> Filter:
        """The same for these items alone."""
        segments = None if self.segments is None else self.segments[:, cols]
        return Filter(self.allowed[cols], self.seen[:, cols], segments, self.segment_of)

    def allows(self, rows: Ints, cols: Ints) -> npt.NDArray[np.bool_]:
        """Whether single cells may be recommended: ``[C]``."""
        if not len(rows):
            return np.empty(0, np.bool_)
        met = np.asarray(self.seen[rows, cols]).ravel() != 0
        return np.asarray(self._permits(rows, cols) & ~met)

    def _permits(self, rows: Ints, cols: Ints) -> npt.NDArray[np.bool_]:
        """Whether rules alone, seen or not, leave each cell [C]."""
        found: npt.NDArray[np.bool_] = self.allowed[cols].copy()
        if self.segments is not None and self.segment_of is not None:
            segment = self.segment_of[rows]
            found &= (segment < 0) | self.segments[segment, cols]
        return found

    def num_allowed(self) -> Ints:
        """Items that rules leave each user: ``[B]``."""
        counts = np.full(self.seen.shape[0], int(self.allowed.sum()), np.int64)
        for users, left in self._by_segment():
            counts[users] = int((self.allowed & left).sum())
        return counts

    def num_candidates(self) -> Ints:
        """Of these, those that the user has not seen: ``[B]``."""
        rows, cols = self.seen.nonzero()
        taken = np.bincount(rows[self._permits(rows, cols)], minlength=self.seen.shape[0])
        return np.asarray(self.num_allowed() - taken)


def shortfall_reason(num_allowed: int, num_candidates: int, k: int, in_segment: bool = False) -> str:
    """Why a user has fewer than ``k`` items; ``num_allowed``: items that rules leave this user, ``in_segment``: some of
    them rules of a segment."""
    if num_allowed == 0:
        return "the rules of the segment leave no item" if in_segment else "no item is available and allowed"
    if num_candidates == 0:
        return "all items seen"
    if num_allowed < k:
        return "the rules of the segment leave fewer than K items" if in_segment else "catalogue smaller than K"
    return "fewer than K unseen items"
