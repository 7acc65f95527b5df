"""Cells that may be among the K best of their query: gathered tile by tile under a rising threshold. No torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys_spark.search.lists import DECIMALS
from recsys_spark.search.rows import place_in_row
from recsys_spark.search.vectors import Float64, Ints, Pieces, Vectors

TILE = 4_096
_FIRST_TILE = 512  # small: every cell of it is gathered, as no threshold stands yet
_MANY_HELD = 4  # times K cells per query: more are only held where scores are equal, or too close for float32
_MANY_CELLS = 2**22  # gathered and not yet compacted, or laid out in rows of equal length

Tile = Callable[[Vectors], npt.NDArray[np.float32]]
Rescore = Callable[[Ints, Ints], Float64]


def slack(queries: Vectors, items: Pieces) -> Float64:
    """``[Q]``: a float32 score within this of the K-th best may belong to the list: twice the error bound D u |q| |x|
    of an inner product (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), and the rounding of scores."""
    unit_roundoff = float(np.finfo(np.float32).eps) / 2
    size = np.linalg.norm(queries.astype(np.float64), axis=1) * items.longest
    found: Float64 = 2 * (items.dimension + 1) * unit_roundoff * size + 4 * 10.0**-DECIMALS
    return found


def best_cells(
    score: Tile,
    items: Pieces,
    num_queries: int,
    length: int,
    tile: int = TILE,
    spare: Float64 | None = None,
    rescore: Rescore | None = None,
) -> tuple[Ints, Ints]:
    """Cells (rows, positions) that hold the ``length`` best of every query.

    Args:
        spare: ``[Q]``, how far below the K-th best by ``score`` a cell may be and still belong to them; None: not at all.
        rescore: (rows, positions) -> the scores that decide; None: those of ``score``.
    """
    held = _Held(num_queries, length, np.zeros(num_queries) if spare is None else spare, rescore)
    for number, (start, rows) in enumerate(items.tiles(max(length, min(tile, _FIRST_TILE)), tile), start=1):
        held.add(score(rows), start)
        # at doubling intervals: thresholds rise fast at first, then hardly
        if number & (number - 1) == 0 or held.num_waiting > _MANY_CELLS:
            held.compact()
    held.compact()
    return held.rows, held.cols


class _Held:
    """Cells that may still be among the best of their query, sorted by query and position once compacted."""

    def __init__(self, num_queries: int, length: int, spare: Float64, rescore: Rescore | None) -> None:
        self._num_queries, self._length, self._spare = num_queries, length, spare.astype(np.float32)
        self._rescore = rescore
        self._floor = np.full(num_queries, -np.inf, np.float32)
        self.rows: Ints = np.empty(0, np.int64)
        self.cols: Ints = np.empty(0, np.int64)
        self._scores: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self._waiting: list[tuple[Ints, Ints, npt.NDArray[np.float32]]] = []
        self.num_waiting = 0

    def add(self, scores: npt.NDArray[np.float32], start: int) -> None:
        """Gather the cells of a tile ``[Q, T]`` that reach the floor of their query."""
        flat = np.flatnonzero(scores >= self._floor[:, None])
        rows, cols = np.divmod(flat, scores.shape[1])
        self._waiting.append((rows, cols + start, scores.ravel()[flat]))
        self.num_waiting += len(flat)

    def compact(self) -> None:
        """Raise every floor to the K-th best so far, less the spare, and drop what lies below it."""
        pieces = [(self.rows, self.cols, self._scores), *self._waiting]
        self.rows, self.cols, self._scores = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
        self._waiting, self.num_waiting = [], 0
        # stable, and pieces come in the order of positions; 16 bits are sorted by radix
        self._take(np.argsort(self.rows.astype(np.uint16) if self._num_queries <= 2**16 else self.rows, kind="stable"))
        self._floor = np.maximum(self._floor, self._last_of_list() - self._spare)
        self._take(np.flatnonzero(self._scores >= self._floor[self.rows]))
        if len(self.rows) > _MANY_HELD * self._length * self._num_queries:
            self._settle()

    def _take(self, cells: Ints) -> None:
        self.rows, self.cols, self._scores = self.rows[cells], self.cols[cells], self._scores[cells]

    def _settle(self) -> None:
        """Keep the K best by the scores that decide: those dropped have K better ones, or equal ones before them."""
        scores = self._scores if self._rescore is None else self._rescore(self.rows, self.cols)
        order = np.lexsort((self.cols, -scores, self.rows))  # rows ascend already, so places by row are as they were
        self._take(np.sort(order[place_in_row(self.rows, self._num_queries) < self._length]))

    def _last_of_list(self) -> npt.NDArray[np.float32]:
        """``[Q]``: the K-th best score of each query, -inf where there are fewer."""
        place = place_in_row(self.rows, self._num_queries)
        width = max(int(place.max(initial=-1)) + 1, self._length)
        if width * self._num_queries > _MANY_CELLS:  # one query with very many equal items must not widen all
            return self._last_by_sorting(place)
        padded = np.full((self._num_queries, width), -np.inf, np.float32)
        padded[self.rows, place] = self._scores
        found: npt.NDArray[np.float32] = np.partition(padded, width - self._length, axis=1)[:, width - self._length]
        return found

    def _last_by_sorting(self, place: Ints) -> npt.NDArray[np.float32]:
        last = np.full(self._num_queries, -np.inf, np.float32)
        full = np.flatnonzero(place == self._length - 1)
        last[self.rows[full]] = self._scores[np.lexsort((-self._scores, self.rows))[full]]
        return last
