"""EASE: the linear item-to-item model with the least squared error, in closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data" (arXiv 1905.03375).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import lapack
from scipy.sparse.linalg import LinearOperator, cg

from recsys_spark.cooccurrence.kernels import best
from recsys_spark.errors import MachineError

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
_ROWS_AT_ONCE = 1_024
OVERLAP_K = 10


def max_items(free_bytes: int, itemsize: int = 8) -> int:
    """The largest catalogue whose two matrices of ``n x n`` numbers fit in half of ``free_bytes``."""
    return math.isqrt(free_bytes // 2 // (2 * itemsize))


def ease_weights(gram: Any, l2: float, dtype: type[np.floating[Any]] = np.float64) -> Floats:
    """``B [n, n]`` of least ``|X - X B|^2 + l2 |B|^2`` with a diagonal of 0: ``B_ij = -P_ij / P_jj``, ``P = (G + l2 I)^-1``.

    A user's score of item j is the sum over the items i of the history of ``B_ij``. Weights may be negative. Memory: one
    matrix of ``n x n``, which is inverted in place.

    Args:
        gram: ``G = X'X [n, n]``, symmetric, sparse or dense: users who met both items, and on the diagonal each item's.
        l2: above 0; about as many users as should be needed to be believed.
        dtype: float32 takes half the memory and is exact to about 4 digits (see ``agreement``).

    Raises:
        MachineError: the matrix is not positive definite in this precision.
    """
    matrix = gram.astype(dtype).toarray(order="F") if sparse.issparse(gram) else np.array(gram, dtype=dtype, order="F")
    matrix[np.diag_indices_from(matrix)] += l2
    factor, inverse = (lapack.dpotrf, lapack.dpotri) if dtype is np.float64 else (lapack.spotrf, lapack.spotri)
    matrix, failed = factor(matrix, lower=True, overwrite_a=True, clean=False)
    if not failed:
        matrix, failed = inverse(matrix, lower=True, overwrite_c=True)
    if failed:
        found = f"counts of {len(matrix)} items that cannot be inverted with l2 = {l2:g} in {np.dtype(dtype).name}"
        raise MachineError("EASE", found, "a positive definite matrix", "raise collaborative.ease.l2, or use float64")
    diagonal = matrix.diagonal().copy()
    _mirror(matrix)
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        matrix[:, start : start + _ROWS_AT_ONCE] /= -diagonal[start : start + _ROWS_AT_ONCE]
    np.fill_diagonal(matrix, 0.0)
    inverted: Floats = matrix
    return inverted


def _mirror(matrix: Floats) -> None:
    """Copy the lower triangle to the upper one, in place and block by block."""
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(matrix))
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T
        corner = matrix[start:stop, start:stop]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T


def largest(weights: Floats, top_n: int) -> tuple[Ints, Ints, Floats]:
    """The ``top_n`` weights of each row with the largest magnitude: rows, columns, values; by row, the largest first.

    Of equal magnitudes the lower column comes first; weights of 0 are left out.
    """
    rows, cols, values = [], [], []
    for start in range(0, len(weights), _ROWS_AT_ONCE):
        block = np.ascontiguousarray(weights[start : start + _ROWS_AT_ONCE])
        row, col = _not_beaten(np.abs(block), top_n)
        found = block[row, col]
        kept, _ = best(row.astype(np.int32), np.abs(found).astype(np.float64), col.astype(np.uint64).take, top_n)
        rows.append(row[kept] + start)
        cols.append(col[kept])
        values.append(found[kept])
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    return np.concatenate(rows), np.concatenate(cols), np.concatenate(values)


def _not_beaten(sizes: Floats, top_n: int) -> tuple[Ints, Ints]:
    """Cells above 0 (rows ascending, columns) that fewer than ``top_n`` cells of their row are larger than: a first cut."""
    place = max(sizes.shape[1] - top_n, 0)
    least = np.partition(sizes, place, axis=1)[:, place, None]
    row, col = np.nonzero((sizes >= least) & (sizes > 0))
    return row, col


def agreement(gram: Any, l2: float, weights: Floats, sample: Ints) -> float:
    """Share of the ten weightiest history items of each sampled item that ``weights`` (float32) and float64 agree on.

    The exact column of a sampled item solves ``(G + l2 I) p = e_j``, by conjugate gradients in float64: nothing of size
    ``n x n`` in float64 is needed.

    Args:
        gram: sparse ``[n, n]``.
        weights: ``B [n, n]`` to be checked.
        sample: distinct columns.
    """
    size = gram.shape[0]
    matrix = sparse.csr_matrix(gram, dtype=np.float64) + l2 * sparse.identity(size, format="csr")
    scale = 1.0 / matrix.diagonal()
    near = LinearOperator((size, size), matvec=lambda v: scale * v)
    k, shared = min(OVERLAP_K, size - 1), 0
    for column in sample:
        unit = np.zeros(size)
        unit[column] = 1.0
        solved, _ = cg(matrix, unit, rtol=1e-12, maxiter=10 * size, M=near)
        exact = np.delete(-solved / solved[column], column)
        found = np.delete(weights[:, column], column)
        shared += len(set(_top(exact, k)) & set(_top(found, k)))
    return float(shared / max(k * len(sample), 1))


def _top(values: Floats, k: int) -> list[int]:
    return [int(i) for i in np.argsort(-values, kind="stable")[:k]]
