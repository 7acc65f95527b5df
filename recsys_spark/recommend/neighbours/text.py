"""Text neighbours without the product of all items with all: moments in closed form, candidates from the leaders of words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_spark.ranges import ranges
from recsys_spark.recommend.scoring.partners import TextItems
from recsys_spark.recommend.scoring.scores import Float64, FloatArray, Ints, Precision, as_rows, inverse_or_zero, rounding
from recsys_spark.search.rows import place_in_row

LEADERS = 1_000  # items kept per word
_PRODUCTS_AT_ONCE = 2**22
_PAIRS_AT_ONCE = 16_384


@dataclass(frozen=True)
class TextNeighbours:
    """What is known of the TF-IDF rows of N items before any two of them are compared.

    ``leaders`` (CSR ``[F, N]``) holds, per word, the allowed items in which it weighs most (champion lists: Manning,
    Raghavan, Schuetze, Introduction to Information Retrieval, 7.1.3). ``mean [N]`` and ``inverse_std [N]`` are those of each
    item's cosines with the whole catalogue, exact.
    """

    by_item: Any
    leaders: Any
    mean: Float64
    inverse_std: Float64

    @classmethod
    def of(cls, text: TextItems, allowed: npt.NDArray[np.bool_], leaders: int = LEADERS) -> TextNeighbours:
        """From the rows of the whole catalogue. Time: about twice the sum of squared numbers of words per item."""
        rows, num_items = text.by_item, max(text.by_item.shape[0], 1)
        mean = np.asarray(rows @ np.asarray(rows.sum(axis=0)).ravel()).ravel() / num_items
        variance = sums_of_squares(rows) / num_items - mean**2
        # the largest cosine of a unit row is that with itself
        inverse = inverse_or_zero(np.sqrt(np.maximum(variance, 0.0)), np.ones(len(mean)))
        return cls(rows, _leaders(rows, allowed, leaders), mean, inverse)

    def short_list(self, profiles: Any, length: int) -> tuple[Ints, Ints]:
        """Cells (rows, positions): the ``length`` best items of each profile ``[B, F]`` by their words' leaders, or all."""
        met = as_rows(profiles @ self.leaders)
        cells = np.concatenate([_largest(met.data, *ends, length) for ends in zip(met.indptr, met.indptr[1:], strict=False)])
        return np.repeat(np.arange(met.shape[0]), np.diff(met.indptr))[cells], met.indices[cells].astype(np.int64)

    def scores(self, anchors: Ints, profiles: Any) -> CellScores:
        """Cosines of the items at ``anchors``, whose rows are ``profiles``, with all items."""
        return CellScores(self.by_item, profiles, self.mean[anchors], self.inverse_std[anchors])


@dataclass(frozen=True)
class CellScores:
    """Cosines of sparse profiles ``[B, F]`` and items ``[N, F]``, made where they are asked for; see ``scores.Scores``."""

    by_item: Any
    profiles: Any
    mean: Float64
    inverse_std: Float64

    def error(self, weight: float, dtype: Precision) -> Float64:
        return rounding(dtype, weight, 2.0 * self.inverse_std)

    def tile(self, weight: float, start: int, stop: int, dtype: Precision) -> FloatArray:
        cosines = (self.by_item[start:stop] @ self.profiles.T).toarray()
        return np.ascontiguousarray(((cosines - self.mean) * (weight * self.inverse_std)).T, dtype)

    def at(self, rows: Ints, cols: Ints) -> Float64:
        out = np.empty(len(rows))
        for begin in range(0, len(rows), _PAIRS_AT_ONCE):
            r, c = rows[begin : begin + _PAIRS_AT_ONCE], cols[begin : begin + _PAIRS_AT_ONCE]
            cosines = np.asarray(self.by_item[c].multiply(self.profiles[r]).sum(axis=1)).ravel()
            out[begin : begin + len(r)] = (cosines - self.mean[r]) * self.inverse_std[r]
        return out

    def columns(self, cols: Ints) -> CellScores:
        return CellScores(self.by_item[cols], self.profiles, self.mean, self.inverse_std)


def sums_of_squares(rows: Any, products_at_once: int = _PRODUCTS_AT_ONCE) -> Float64:
    """``[N]``: of each row x of a CSR matrix X, the sum over all rows y of ``(x . y)^2``, without the N^2 products.

    It is ``x' (X'X) x``: X'X is made for a block of columns at a time, and of it only what some row asks for is read.
    """
    lengths = np.diff(rows.indptr)
    by_column = rows.tocsc()
    work = np.bincount(rows.indices, np.repeat(lengths, lengths), minlength=rows.shape[1])
    found = np.zeros(rows.shape[0])
    for start, stop in _blocks(work, products_at_once):
        part = by_column[:, start:stop].tocsr()
        gram = as_rows(part.T @ rows)
        owner = np.repeat(np.arange(rows.shape[0]), np.diff(part.indptr))
        for first, last in _blocks(lengths[owner], products_at_once):
            cells = slice(first, last)
            found += _of_cells(rows, gram, owner[cells], part.indices[cells], part.data[cells])
    return found


def _of_cells(rows: Any, gram: Any, owner: Ints, column: Ints, value: Float64) -> Float64:
    """``[N]``: the part of the sums that cells (owner, column of the block) of value ``value`` add."""
    counts = np.diff(rows.indptr)[owner]
    which = np.repeat(np.arange(len(owner)), counts)
    place = ranges(rows.indptr[owner], counts)
    products = np.asarray(gram[column[which], rows.indices[place]]).ravel()
    return np.bincount(owner[which], value[which] * rows.data[place] * products, minlength=rows.shape[0]).astype(np.float64)


def _blocks(work: FloatArray, most: int) -> Iterator[tuple[int, int]]:
    """Successive ranges whose work is at most ``most``, or of one element where that alone is more; none of no work."""
    done = np.concatenate([[0], np.cumsum(work)])
    start = 0
    while start < len(work):
        stop = max(start + 1, int(np.searchsorted(done, done[start] + most, side="right")) - 1)
        if done[stop] > done[start]:
            yield start, stop
        start = stop


def _leaders(rows: Any, allowed: npt.NDArray[np.bool_], most: int) -> Any:
    """CSR ``[F, N]``: of each column of ``rows`` the ``most`` largest cells in allowed rows, the first among equals."""
    cells = rows.tocoo()
    kept = allowed[cells.row]
    item, word, value = cells.row[kept], cells.col[kept], cells.data[kept]
    order = np.lexsort((item, -value, word))
    order = order[place_in_row(word[order], rows.shape[1]) < most]
    return as_rows(sparse.csr_matrix((value[order], (word[order], item[order])), shape=rows.shape[::-1]))


def _largest(values: Float64, start: int, stop: int, length: int) -> Ints:
    """Places, from ``start`` to ``stop``, of the ``length`` largest values there."""
    if stop - start <= length:
        return np.arange(start, stop)
    return start + np.argpartition(-values[start:stop], length - 1)[:length]
