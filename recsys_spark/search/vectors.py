"""Vectors laid end to end: the item side of a search, in one array or in many that are memory-mapped from shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recsys_spark.errors import InputError

Vectors = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[Any]
Metric = Literal["cosine", "inner_product"]  # cosine: vectors are brought to length 1 (zeros stay zero)


@dataclass(frozen=True)
class Pieces:
    """N vectors of D dimensions in one or more arrays ``[n, D]``; an item's position is its row, counted through all."""

    arrays: tuple[Vectors, ...]

    @classmethod
    def of(cls, vectors: Vectors | Sequence[Vectors] | Pieces) -> Pieces:
        """Any of the three forms as pieces."""
        if isinstance(vectors, Pieces):
            return vectors
        return cls((vectors,) if isinstance(vectors, np.ndarray) else tuple(vectors))

    @cached_property
    def offsets(self) -> Ints:
        """Position of each array's first row, and N at the end."""
        return np.concatenate([[0], np.cumsum([len(array) for array in self.arrays])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def dimension(self) -> int:
        return int(self.arrays[0].shape[1])

    @cached_property
    def longest(self) -> float:
        """The largest norm of a vector."""
        squares = (float(np.einsum("nd,nd->n", array, array).max(initial=0.0)) for array in self.arrays)
        return float(np.sqrt(max(squares, default=0.0)))

    def tiles(self, first: int, size: int) -> Iterator[tuple[int, Vectors]]:
        """(position, rows) of at most ``size`` rows, none across two arrays; the very first at most ``first`` rows."""
        wanted = first
        for offset, array in zip(self.offsets[:-1], self.arrays, strict=True):
            start = 0
            while start < len(array):
                yield int(offset) + start, array[start : start + wanted]
                start, wanted = start + wanted, size

    def take(self, positions: Ints) -> Vectors:
        """The vectors at these positions: ``[C, D]``."""
        if len(self.arrays) == 1:
            only: Vectors = self.arrays[0][positions]
            return only
        out = np.empty((len(positions), self.dimension), np.float32)
        owner = np.searchsorted(self.offsets, positions, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            out[mine] = self.arrays[number][positions[mine] - self.offsets[number]]
        return out


def unit(vectors: Vectors) -> Vectors:
    """Each row brought to length 1; rows of zeros stay as they are."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    found: Vectors = (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    return found


def check_vectors(vectors: Any, what: str, dimension: int | None = None) -> None:
    """Refuse what cannot be searched.

    Raises:
        InputError: not a float32 array ``[N, D]``, D is not ``dimension``, or a value that is not finite.
    """
    where = f"{what} vectors"
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype != np.float32:
        found = f"{getattr(vectors, 'dtype', type(vectors).__name__)} of shape {getattr(vectors, 'shape', '?')}"
        raise InputError(where, found, "a float32 array [N, D]", "convert it with astype(numpy.float32)")
    if dimension is not None and vectors.shape[1] != dimension:
        raise InputError(where, f"{vectors.shape[1]} dimensions", f"{dimension}, as the items have", "use one encoder for both")
    # a sum is finite unless a value is not (or overflows): much cheaper than a mask of the whole array
    with np.errstate(invalid="ignore"):
        total = vectors.sum(dtype=np.float64)
    if not np.isfinite(total):
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(
            where, f"a value that is not finite in row {row}", "finite numbers", "find out where the vector comes from"
        )
