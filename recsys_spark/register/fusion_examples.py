"""What fusion weights are chosen on: per validation target the items that could stand above it, with every partner's z-score.

Legend: E examples (a target of a user), M rows (items listed against a target), P partners, C candidates for their weights,
S user segments (or one row for all), I item segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.arrow import flat_list
from recsys_spark.recommend.scoring.scores import Float64, FloatArray, Ints

NDCG_K = 10
_CELLS = 1 << 18  # of rows and candidates scored at once: what stays in a core's cache
_STRIDE = 16  # of many values every so manieth is sampled
_SAMPLED = 64  # and many are so many times those that are asked for


@dataclass(frozen=True)
class Examples:
    """Short lists instead of whole catalogues: an item that no partner has among its best is not among the best fused.

    Args:
        z: float32 ``[M, P]``, z-scores of the listed items, those of an example together.
        earlier: bool ``[M]``, whether the item goes before the target where their scores are equal.
        segment: int8 ``[M]``, the item's place in ``segments.ITEM_SEGMENTS``.
        lengths: ``[E]``, rows of each example, at least 1.
        target_z: float32 ``[E, P]``.
        target_segment: int8 ``[E]``.
        history: int8 ``[E]``, the user's place in ``segments.HISTORY_SEGMENTS``.
        share: float ``[E]``, what a target on the first place is worth: 1 / the best DCG that its user could have.
        fold: int8 ``[E]``, 0 or 1, the same for all targets of a user.
        num_users: behind the mean, those without a target in reach included.
    """

    z: npt.NDArray[np.float32]
    earlier: npt.NDArray[np.bool_]
    segment: npt.NDArray[np.int8]
    lengths: Ints
    target_z: npt.NDArray[np.float32]
    target_segment: npt.NDArray[np.int8]
    history: npt.NDArray[np.int8]
    share: Float64
    fold: npt.NDArray[np.int8]
    num_users: int

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def owner(self) -> Ints:
        """The example of each row ``[M]``."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def _starts(self) -> Ints:
        return np.cumsum(self.lengths) - self.lengths

    def gains(self, weights_SP: FloatArray, factors_IP: FloatArray | None = None) -> Float64:
        """What each target adds to the sum of all users' NDCG@10 ``[E]``; their sum by ``num_users`` is the mean NDCG.

        Args:
            weights_SP: of the partners, by user segment; one row: for all.
            factors_IP: of the weights, by item segment.
        """
        if not len(self):
            return np.zeros(0)
        by_example = weights_SP[np.minimum(self.history, len(weights_SP) - 1)].astype(np.float32)
        own = self.target_z if factors_IP is None else self.target_z * factors_IP[self.target_segment].astype(np.float32)
        rows = self.z if factors_IP is None else self.z * factors_IP[self.segment].astype(np.float32)
        target = np.einsum("ep,ep->e", own, by_example)[self.owner]
        score = rows @ by_example[0] if len(weights_SP) == 1 else np.einsum("mp,mp->m", rows, by_example[self.owner])
        near = np.abs(score - target) <= 1e-6 * np.maximum(np.abs(target), 1.0)  # float32 sums of equal parts
        above = np.where(near, self.earlier, score > target)
        rank = np.add.reduceat(above.astype(np.int64), self._starts) + 1
        return np.where(rank <= NDCG_K, self.share / np.log2(rank + 1.0), 0.0)

    def totals(self, weights_CSP: FloatArray, factors_CIP: FloatArray | None = None) -> Float64:
        """``gains(...).sum()`` of each candidate ``[C]``: all candidates of a stretch of rows while these are in the cache."""
        totals = np.zeros(len(weights_CSP))
        for stretch in self.stretches(max(1, _CELLS // len(weights_CSP))):
            totals += self._totals_of(*stretch, weights_CSP, factors_CIP)
        return totals

    def stretches(self, num_rows: int) -> Iterator[tuple[slice, slice, Ints]]:
        """All examples in succession, as many at a time as have ``num_rows`` rows, at least one: their slice, that of their
        rows, and where each one's rows begin in the latter."""
        first, ends = 0, self._starts + self.lengths
        while first < len(self):
            begin = int(self._starts[first])
            last = max(first + 1, int(np.searchsorted(ends, begin + num_rows, "right")))
            yield slice(first, last), slice(begin, int(ends[last - 1])), self._starts[first:last] - begin
            first = last

    def _totals_of(
        self, chosen: slice, rows: slice, starts: Ints, weights_CSP: FloatArray, factors_CIP: FloatArray | None
    ) -> Float64:
        """Of one stretch. Where scores are equal the threshold that an item must reach is lower or higher, as it goes before
        the target or not; rows go first, so that whatever follows reads them as they lie."""
        history, own_segment = self.history[chosen], self.target_segment[chosen]
        of_target = _scores(self.target_z[chosen], history, own_segment, weights_CSP, factors_CIP)
        spread = 1e-6 * np.maximum(np.abs(of_target), 1.0)  # float32 sums of equal parts
        reached = np.concatenate([of_target + spread, np.nextafter(of_target - spread, np.float32(-np.inf))])  # [2E, C]
        owner = self.owner[rows] - chosen.start
        scores = _scores(self.z[rows], history[owner], self.segment[rows], weights_CSP, factors_CIP)
        above = scores > reached.take(owner + len(history) * self.earlier[rows], axis=0)
        better = np.add.reduceat(above.view(np.uint8), starts, axis=0, dtype=np.int32)
        worth = np.append(1.0 / np.log2(np.arange(NDCG_K) + 2.0), 0.0)
        total: Float64 = self.share[chosen] @ worth[np.minimum(better, NDCG_K)]
        return total

    def take(self, chosen: npt.NDArray[np.bool_]) -> Examples:
        """Some of the examples; ``num_users`` stays."""
        rows = chosen[self.owner]
        return Examples(
            self.z[rows],
            self.earlier[rows],
            self.segment[rows],
            self.lengths[chosen],
            self.target_z[chosen],
            self.target_segment[chosen],
            self.history[chosen],
            self.share[chosen],
            self.fold[chosen],
            self.num_users,
        )


def _scores(
    z: FloatArray, history: npt.NDArray[np.int8], segment: npt.NDArray[np.int8], weights_CSP: FloatArray, factors_CIP: Any
) -> npt.NDArray[np.float32]:
    """float32 ``[n, C]`` of z-scores ``[n, P]`` by the weights of each row's user segment and the factors of its item's."""
    weights = np.asarray(weights_CSP, np.float32)
    if weights.shape[1] == 1 and factors_CIP is None:
        whole: npt.NDArray[np.float32] = z @ weights[:, 0].T
        return whole
    users = np.minimum(history, weights.shape[1] - 1).astype(np.int64)
    items = np.zeros_like(users) if factors_CIP is None else segment.astype(np.int64)
    factors = np.ones((len(weights), 1, weights.shape[2]), np.float32) if factors_CIP is None else factors_CIP.astype(np.float32)
    found = np.empty((len(z), len(weights)), np.float32)
    keys = users * factors.shape[1] + items
    present = np.flatnonzero(np.bincount(keys))
    for key in present:
        row, column = divmod(int(key), factors.shape[1])
        of_key = np.flatnonzero(keys == key) if len(present) > 1 else slice(None)  # of one kind: nothing to gather
        found[of_key] = z[of_key] @ (weights[:, row] * factors[:, column]).T
    return found


def in_reach(z_PN: FloatArray, barred_N: FloatArray, length: int) -> Ints:
    """Positions of a user's items that are among the ``length`` best of any partner, ascending; barred ones never are.

    A target that is not among them would not be found, whatever the weights.
    """
    found: Ints = np.unique(np.concatenate([_best_of(z_N + barred_N, length) for z_N in z_PN]))
    return found


def _best_of(open_N: FloatArray, length: int) -> Ints:
    """Positions of one partner's best, those that equal the last of them too; items at -inf never."""
    least = kth_best(open_N, min(length, len(open_N)))
    found = np.flatnonzero(open_N >= least)
    if len(found) > 4 * length:  # ties without end: all that have nothing in a sparse partner
        found = np.flatnonzero(open_N > least)
    found = found[np.isfinite(open_N[found])]
    silent = len(found) > 0 and np.ptp(open_N[found]) == 0.0 and len(found) == np.isfinite(open_N).sum()
    listed: Ints = found[:0] if silent else found  # a partner that says nothing lists nothing
    return listed


def kth_best(values_N: FloatArray, k: int) -> Any:
    """The k-th largest value (1 = the largest). Where there are many, only those above a floor are put in order: one that a
    sample of them shows to lie below the k-th, as is verified."""
    if len(values_N) > _SAMPLED * k:
        sample = values_N[::_STRIDE]
        expected = k / _STRIDE
        rank = int(expected + 4.5 * np.sqrt(expected) + 5.0)
        above = values_N[values_N >= np.partition(sample, len(sample) - rank)[len(sample) - rank]]
        if len(above) >= k:
            values_N = above
    return np.partition(values_N, len(values_N) - k)[len(values_N) - k]


def joined(table: Any, num_users: int, num_partners: int) -> Examples:
    """Examples out of the Arrow table that tasks send: a row per example, its listed items flat."""

    def flat(name: str, dtype: Any) -> Any:
        return flat_list(table.column(name).combine_chunks())[1].astype(dtype)

    def single(name: str, dtype: Any) -> Any:
        return table.column(name).to_numpy().astype(dtype)

    return Examples(
        flat("z", np.float32).reshape(-1, num_partners),
        flat("earlier", np.bool_),
        flat("segment", np.int8),
        flat_list(table.column("earlier").combine_chunks())[0],
        flat("target_z", np.float32).reshape(-1, num_partners),
        single("target_segment", np.int8),
        single("history", np.int8),
        single("share", np.float64),
        single("fold", np.int8),
        num_users,
    )
