"""What a partner says about a block of users: its scores as dense products, sparse rows or one shared row, with their moments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_spark.recommend.scoring.matmul import RoughVectors, matmul

Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[Any]
FloatArray = npt.NDArray[Any]

Precision = type[np.float32] | type[np.float64]

FLAT = 1e-6  # a spread below this share of the largest score is rounding, not signal
_ROUNDINGS = 32  # float operations behind one score, at most, as far as rounding errors add up
_CELLS_AT_ONCE = 1 << 15  # turned from columns into rows within a core's cache
_PAIRS_AT_ONCE = 1_024  # their vectors stay in a core's cache


class Scores(Protocol):
    """Scores of B users for N items. ``inverse_std [B]`` is 0 where a user's scores are all equal."""

    @property
    def inverse_std(self) -> Float64: ...

    def error(self, weight: float, dtype: Precision) -> Float64:
        """``[B]``: a cell of a tile of this ``weight`` and ``dtype`` is at most this far from the exact one."""

    def tile(self, weight: float, start: int, stop: int, dtype: Precision) -> FloatArray:
        """``weight`` x z-scores of items ``start..stop``: ``[B, stop - start]`` (or ``[1, ...]`` when the users share them)."""

    def at(self, rows: Ints, cols: Ints) -> Float64:
        """z-scores of single (user, item) cells in float64: ``[C]``, each the same whatever else is in the block."""

    def columns(self, cols: Ints) -> Scores:
        """The scores of these items alone; z-scores are as before, by mean and deviation over all items."""


def inverse_or_zero(std: Float64, largest: Float64) -> Float64:
    """``1 / std``, or 0 where the spread is nothing but rounding of scores as large as ``largest``."""
    real = std > FLAT * largest
    return np.where(real, 1.0 / np.where(real, std, 1.0), 0.0)


def rounding(dtype: Precision, weight: float, magnitude: Float64) -> Float64:
    """Rounding errors ``[B]`` of ``weight`` x scores where no product met on the way is larger than ``magnitude [B]``."""
    return _ROUNDINGS * float(np.finfo(dtype).eps) * abs(weight) * magnitude


@dataclass(frozen=True)
class DenseScores:
    """Inner products of user vectors ``[B, D]`` and item vectors ``[N, D]``.

    Mean and standard deviation over the items come in closed form, so no pass over the items is needed for them:
    ``mean = u . m``, ``std^2 = u' C u``, with m and C the items' mean and covariance.
    """

    users: FloatArray
    items: FloatArray
    item_mean: Float64
    item_covariance: Float64
    longest: float  # largest norm of an item vector
    centred: npt.NDArray[np.float32]  # the items less their mean, made once for all blocks
    rough: RoughVectors | None = None  # the same in bfloat16, where the hardware computes in it

    @cached_property
    def _users(self) -> Float64:
        return self.users.astype(np.float64)

    @cached_property
    def mean(self) -> Float64:
        found: Float64 = (self._users * self.item_mean).sum(axis=1)
        return found

    @cached_property
    def _reach(self) -> Float64:
        found: Float64 = np.linalg.norm(self._users, axis=1) * self.longest
        return found

    @cached_property
    def inverse_std(self) -> Float64:
        variance = ((self._users @ self.item_covariance) * self._users).sum(axis=1)
        return inverse_or_zero(np.sqrt(np.maximum(variance, 0.0)), self._reach)

    def error(self, weight: float, dtype: Precision) -> Float64:
        return rounding(dtype, weight, 2.0 * self._reach * self.inverse_std)

    def scaled(self, weight: float, dtype: Precision) -> FloatArray:
        """User vectors ``[B, D]`` whose products with the centred items are ``weight`` x z-scores."""
        found: FloatArray = (self._users * (weight * self.inverse_std)[:, None]).astype(dtype)
        return found

    def tile(self, weight: float, start: int, stop: int, dtype: Precision) -> FloatArray:
        scaled = self.scaled(weight, dtype)
        if dtype is np.float32:
            return matmul(scaled, self.centred[start:stop].T)
        return matmul(scaled, (self.items[start:stop] - self.item_mean).astype(dtype).T)

    def at(self, rows: Ints, cols: Ints) -> Float64:
        out = np.empty(len(rows))
        for begin in range(0, len(rows), _PAIRS_AT_ONCE):
            r, c = rows[begin : begin + _PAIRS_AT_ONCE], cols[begin : begin + _PAIRS_AT_ONCE]
            dots = (self._users[r] * self.items[c]).sum(axis=1)
            out[begin : begin + len(r)] = (dots - self.mean[r]) * self.inverse_std[r]
        return out

    def columns(self, cols: Ints) -> DenseScores:
        return DenseScores(self.users, self.items[cols], self.item_mean, self.item_covariance, self.longest, self.centred[cols])


@dataclass(frozen=True)
class SparseScores:
    """Rows of a sparse matrix ``[B, N]``; a cell that is not stored scores 0, and counts as 0 in mean and deviation."""

    rows: Any  # scipy CSR, float64

    @cached_property
    def _by_item(self) -> tuple[Ints, Ints, Ints, Float64]:
        """User, item and value of the stored cells by item, and where each item's begin ``[N + 1]``."""
        by_item = self.rows.tocsc()
        items = np.repeat(np.arange(by_item.shape[1]), np.diff(by_item.indptr))
        return by_item.indices, items, by_item.indptr, by_item.data

    @cached_property
    def _stored(self) -> Ints:
        return np.diff(self.rows.indptr)

    @cached_property
    def mean(self) -> Float64:
        found: Float64 = np.asarray(self.rows.sum(axis=1)).ravel() / max(self.rows.shape[1], 1)
        return found

    @cached_property
    def _largest(self) -> Float64:
        found: Float64 = abs(self.rows).max(axis=1).toarray().ravel() if self.rows.shape[1] else np.zeros(self.rows.shape[0])
        return found

    @cached_property
    def inverse_std(self) -> Float64:
        owner = np.repeat(np.arange(self.rows.shape[0]), self._stored)
        squares = np.bincount(owner, (self.rows.data - self.mean[owner]) ** 2, minlength=self.rows.shape[0])
        squares = squares + (self.rows.shape[1] - self._stored) * self.mean**2
        return inverse_or_zero(np.sqrt(squares / max(self.rows.shape[1], 1)), self._largest)

    @property
    def elsewhere(self) -> Float64:
        """``[B]``: the z-score of each user's cells that are not stored."""
        found: Float64 = -self.mean * self.inverse_std
        return found

    def error(self, weight: float, dtype: Precision) -> Float64:
        return rounding(dtype, weight, 2.0 * self._largest * self.inverse_std)

    def tile(self, weight: float, start: int, stop: int, dtype: Precision) -> FloatArray:
        users, items, begins, values = self._by_item
        stored, scale = slice(begins[start], begins[stop]), weight * self.inverse_std
        tile = np.empty((len(scale), stop - start), dtype)  # row by row, as the other partners' tiles are
        tile[:] = (-self.mean * scale)[:, None]
        owner = users[stored]
        tile[owner, items[stored] - start] = (values[stored] - self.mean[owner]) * scale[owner]
        return tile

    def at(self, rows: Ints, cols: Ints) -> Float64:
        if not len(rows):
            return np.empty(0)
        found: Float64 = np.asarray(self.rows[rows, cols]).ravel()
        return np.asarray((found - self.mean[rows]) * self.inverse_std[rows])

    def columns(self, cols: Ints) -> SparseScores:
        return _with_moments(SparseScores(as_rows(self.rows[:, cols])), self)


@dataclass(frozen=True)
class FullScores:
    """Scores that are neither low-rank nor sparse enough to be worth it: ``by_item [N, B]``, float64, none of them further
    from 0 than ``bound`` (where it is not known, they are looked through)."""

    by_item: Float64
    bound: float | None = None

    @cached_property
    def mean(self) -> Float64:
        found: Float64 = self.by_item.sum(axis=0) / max(len(self.by_item), 1)
        return found

    @cached_property
    def _std(self) -> Float64:
        # no cancellation to fear: scores of this kind are 0 for most items, so the mean is small against the deviation
        variance = np.einsum("nb,nb->b", self.by_item, self.by_item) / max(len(self.by_item), 1) - self.mean**2
        found: Float64 = np.sqrt(np.maximum(variance, 0.0))
        return found

    @cached_property
    def _largest(self) -> Float64:
        """``[B]``: no score is further from 0; exact where the bound leaves open whether a spread is rounding."""
        if self.bound is None:
            return _sizes(self.by_item)
        found = np.full(self.by_item.shape[1], self.bound)
        narrow = np.flatnonzero(self._std <= FLAT * self.bound)
        if len(narrow):
            found[narrow] = _sizes(self.by_item[:, narrow])
        return found

    @cached_property
    def inverse_std(self) -> Float64:
        return inverse_or_zero(self._std, self._largest)

    def error(self, weight: float, dtype: Precision) -> Float64:
        return rounding(dtype, weight, 2.0 * self._largest * self.inverse_std)

    def tile(self, weight: float, start: int, stop: int, dtype: Precision) -> FloatArray:
        scale = weight * self.inverse_std
        tile = np.empty((self.by_item.shape[1], stop - start), dtype)
        step = max(1, _CELLS_AT_ONCE // max(len(scale), 1))
        for begin in range(start, stop, step):
            part = slice(begin, min(begin + step, stop))
            tile[:, part.start - start : part.stop - start] = ((self.by_item[part] - self.mean) * scale).T
        return tile

    def at(self, rows: Ints, cols: Ints) -> Float64:
        found: Float64 = (self.by_item[cols, rows] - self.mean[rows]) * self.inverse_std[rows]
        return found

    def columns(self, cols: Ints) -> FullScores:
        return _with_moments(FullScores(self.by_item[cols], self.bound), self)


@dataclass(frozen=True)
class SharedScores:
    """One row of scores ``[N]`` for every user of a block of ``num_users``."""

    row: Float64
    num_users: int

    @cached_property
    def _z(self) -> Float64:
        spread = np.array([self.row.std()]) if len(self.row) else np.zeros(1)
        largest = np.array([np.abs(self.row).max(initial=0.0)])
        return (self.row - self.row.mean()) * inverse_or_zero(spread, largest)[0] if len(self.row) else self.row

    @property
    def inverse_std(self) -> Float64:
        return np.full(self.num_users, float(self._z.any()))

    def error(self, weight: float, dtype: Precision) -> Float64:
        return rounding(dtype, weight, np.full(self.num_users, np.abs(self._z).max(initial=0.0)))

    def tile(self, weight: float, start: int, stop: int, dtype: Precision) -> FloatArray:
        return (weight * self._z[None, start:stop]).astype(dtype)

    def at(self, rows: Ints, cols: Ints) -> Float64:
        return self._z[cols]

    def columns(self, cols: Ints) -> SharedScores:
        part = SharedScores(self.row[cols], self.num_users)
        part.__dict__["_z"] = self._z[cols]
        return part


def _sizes(by_item: Float64) -> Float64:
    """How far from 0 the furthest of each column is."""
    found: Float64 = np.maximum(by_item.max(axis=0, initial=0.0), -by_item.min(axis=0, initial=0.0))
    return found


Part = TypeVar("Part", SparseScores, FullScores)


def _with_moments(part: Part, whole: Part) -> Part:
    """Give ``part`` the moments of ``whole``, in place of those it would compute from its own items."""
    for name in ("mean", "_largest", "inverse_std"):
        part.__dict__[name] = getattr(whole, name)
    return part


def as_rows(matrix: Any) -> Any:
    """CSR in float64 with sorted, distinct columns: sums then run in one order, so they are equal in every run."""
    rows = sparse.csr_matrix(matrix, dtype=np.float64)
    rows.sum_duplicates()
    rows.sort_indices()
    return rows
