"""Inner products in bfloat16 for the quick pass of the top-K: half the time of float32, and a bound on what that costs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys_spark.recommend.scoring.matmul import RoughVectors
from recsys_spark.recommend.scoring.scores import DenseScores, Float64, FloatArray, Ints, Precision, Scores

COARSENESS = 2.0**-8  # bfloat16 has 8 significant bits: rounding a product moves it by at most this share


@dataclass(frozen=True)
class RoughScores:
    """Dense scores whose float32 tiles are products of vectors rounded to bfloat16.

    With users x and items c, rounded to x' and c', a product is off by at most ``|x - x'| |c| + |x'| |c - c'|``
    (Cauchy and Schwarz), by what the sum in float32 loses, and by ``COARSENESS`` of itself, which ``error`` leaves out.
    """

    exact: DenseScores
    items: RoughVectors
    _scaled: dict[float, RoughVectors] = field(default_factory=dict)

    @property
    def inverse_std(self) -> Float64:
        return self.exact.inverse_std

    def error(self, weight: float, dtype: Precision) -> Float64:
        users, lost = self._users(weight), float(self.items.lost.max(initial=0.0))
        longest = float(self.items.norms.max(initial=0.0)) + lost
        found: Float64 = self.exact.error(weight, dtype) + users.lost * longest + users.norms * lost
        return found

    def tile(self, weight: float, start: int, stop: int, dtype: Precision) -> FloatArray:
        if dtype is not np.float32:
            return self.exact.tile(weight, start, stop, dtype)
        return self._users(weight).products(self.items, start, stop)

    def tile_bits(self, weight: float, start: int, stop: int) -> npt.NDArray[np.int16]:
        """The float32 tile as bits of bfloat16."""
        return self._users(weight).product_bits(self.items, start, stop)

    def _users(self, weight: float) -> RoughVectors:
        """Made once for all tiles."""
        if weight not in self._scaled:
            self._scaled[weight] = RoughVectors.of(self.exact.scaled(weight, np.float32))
        return self._scaled[weight]

    def at(self, rows: Ints, cols: Ints) -> Float64:
        return self.exact.at(rows, cols)

    def columns(self, cols: Ints) -> Scores:
        return self.exact.columns(cols)
