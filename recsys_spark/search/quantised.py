"""Vectors on one byte or one bit per dimension: a short list by the codes, then exact scores from the vectors.

int8 follows per-dimension scalar quantisation, bits the signs of the dimensions (Charikar: Similarity Estimation
Techniques from Rounding Algorithms, STOC 2002, with the axes as hyperplanes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from recsys_spark.errors import InputError
from recsys_spark.search.exact import QUERY_BLOCK, nearest, product_with
from recsys_spark.search.held import TILE, best_cells
from recsys_spark.search.lists import Lists, ranked, recall, stacked
from recsys_spark.search.vectors import Ints, Pieces, Vectors, check_vectors

_LARGEST = 127


class Codes(ABC):
    """N items as short codes."""

    bytes_per_vector: int

    @abstractmethod
    def short_list(self, queries: Vectors, length: int) -> tuple[Ints, Ints]:
        """Cells (rows, positions) of about the ``length`` best items by code, at least that many for each query."""


@dataclass(frozen=True)
class Int8Codes(Codes):
    """``codes [N, D]`` int8; the value of dimension d is ``codes[:, d] * scale[d]``, within ``scale[d] / 2``."""

    codes: npt.NDArray[np.int8]
    scale: Vectors

    @classmethod
    def of(cls, items: Vectors) -> Int8Codes:
        """Scales from the largest absolute value of each dimension."""
        check_vectors(items, "item")
        largest = np.abs(items).max(axis=0, initial=0.0)
        scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
        return cls(np.rint(items / scale).clip(-_LARGEST, _LARGEST).astype(np.int8), scale)

    @property
    def bytes_per_vector(self) -> int:  # type: ignore[override]
        return int(self.codes.shape[1])

    def short_list(self, queries: Vectors, length: int) -> tuple[Ints, Ints]:
        product = product_with(queries * self.scale, max(TILE, length))
        # a tile of codes becomes float32 only while it is multiplied, so memory stays at one byte per dimension
        rows = Pieces((self.codes,))  # type: ignore[arg-type]
        return best_cells(lambda tile: product(tile.astype(np.float32)), rows, len(queries), length)


@dataclass(frozen=True)
class BinaryCodes(Codes):
    """``codes [N, ceil(D / 8)]`` uint8: a bit per dimension, 1 where it is above 0; unused bits are 0."""

    codes: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, items: Vectors) -> BinaryCodes:
        """The signs of the vectors."""
        check_vectors(items, "item")
        return cls(np.packbits(items > 0, axis=1))

    @property
    def bytes_per_vector(self) -> int:  # type: ignore[override]
        return int(self.codes.shape[1])

    def short_list(self, queries: Vectors, length: int) -> tuple[Ints, Ints]:
        _, cols = faiss.knn_hamming(np.packbits(queries > 0, axis=1), self.codes, length)
        return np.repeat(np.arange(len(queries)), length), cols.ravel().astype(np.int64)


def search(codes: Codes, queries: Vectors, items: Vectors, k: int, multiple: int, block: int = QUERY_BLOCK) -> Lists:
    """The ``k`` best of a short list of ``multiple x k`` items by code; scores are exact.

    Args:
        queries: ``[Q, D]``. items: ``[N, D]``, the vectors that the codes were made of, read only for short lists.

    Raises:
        InputError: ``multiple`` below 1, or as ``exact.nearest``.
    """
    if multiple < 1:
        raise InputError("quantised search", f"multiple = {multiple}", "at least 1", "4 for int8, 20 and more for bits")
    pieces = Pieces.of(items)
    check_vectors(queries, "query", pieces.dimension)
    length, short = min(k, len(pieces)), min(k * multiple, len(pieces))
    parts = []
    for start in range(0, len(queries), block):
        some = queries[start : start + block]
        parts.append(ranked(some, pieces, *codes.short_list(some, short), length))
    return stacked(parts) if parts else nearest(queries, pieces, k)


@dataclass(frozen=True)
class Report:
    """What codes save and what they cost: bytes per vector against 4 D, and recall at k for a short list of multiple x k."""

    bytes_per_vector: int
    bytes_exact: int
    k: int
    multiple: int
    recall: float


def report(codes: Codes, queries: Vectors, items: Vectors, k: int, multiple: int) -> Report:
    """Measure on these queries against the exact search."""
    exact = nearest(queries, items, k)
    found = search(codes, queries, items, k, multiple)
    return Report(codes.bytes_per_vector, 4 * items.shape[1], exact.positions.shape[1], multiple, recall(found, exact))
