"""The exact nearest items of every query: float32 products in tiles, a rising threshold, and float64 for what passes it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from recsys_spark.search.held import TILE, Tile, best_cells, slack
from recsys_spark.search.lists import Lists, exact_scores, ranked, stacked
from recsys_spark.search.vectors import Pieces, Vectors, check_vectors

QUERY_BLOCK = 512


def nearest(
    queries: Vectors, items: Vectors | Sequence[Vectors] | Pieces, k: int, block: int = QUERY_BLOCK, tile: int = TILE
) -> Lists:
    """The ``k`` items with the highest inner product for each query, or all N where there are fewer.

    Of two equal scores (to 9 decimals, in float64) the item with the smaller position wins. The float32 pass drops only
    what rounding cannot bring into the list. Memory: a tile ``[block, tile]`` and a few times k cells per query.

    Args:
        queries: float32 ``[Q, D]``. items: float32 ``[N, D]``, or arrays that are laid end to end.

    Raises:
        InputError: another type or dimension, or values that are not finite (``Pieces`` were checked when they were made).
    """
    pieces = Pieces.of(items)
    if not isinstance(items, Pieces):
        for array in pieces.arrays:
            check_vectors(array, "item", pieces.dimension)
    check_vectors(queries, "query", pieces.dimension)
    length = min(k, len(pieces))
    if not len(queries) or not length:
        return Lists(np.empty((len(queries), length), np.int64), np.empty((len(queries), length)))
    return stacked([_of_block(queries[start : start + block], pieces, length, tile) for start in range(0, len(queries), block)])


def _of_block(queries: Vectors, items: Pieces, length: int, tile: int) -> Lists:
    lists = Lists(np.tile(np.arange(length), (len(queries), 1)), np.zeros((len(queries), length)))
    # to a query of zeros all items are equal, and each of them would be held: it is answered here
    some = np.flatnonzero(queries.any(axis=1))
    if not len(some):
        return lists
    asked = queries[some]
    product, spare = product_with(asked, max(tile, length)), slack(asked, items)
    rescore = functools.partial(exact_scores, asked, items)
    rows, cols = best_cells(product, items, len(asked), length, tile, spare, rescore)
    lists.put(some, ranked(asked, items, rows, cols, length))
    return lists


def product_with(queries: Vectors, widest: int) -> Tile:
    """Rows ``[T, D]`` -> scores ``[Q, T]``, T at most ``widest``, in one buffer that the next call overwrites."""
    left = torch.from_numpy(np.ascontiguousarray(queries))
    buffer = torch.empty(len(queries) * widest)

    def product(rows: Vectors) -> npt.NDArray[np.float32]:
        out = buffer[: len(queries) * len(rows)].view(len(queries), len(rows))
        torch.mm(left, torch.from_numpy(rows).T, out=out)
        scores: npt.NDArray[np.float32] = out.numpy()
        return scores

    return product
