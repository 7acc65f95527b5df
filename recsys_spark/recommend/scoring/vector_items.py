"""Partners whose items are vectors: the encoder's, and the factors of implicit ALS with the equation of a user's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.config.signals import AlsShape
from recsys_spark.recommend.scoring.matmul import RoughVectors, computes_in_bfloat16
from recsys_spark.recommend.scoring.scores import DenseScores, Float64, FloatArray

_ITEMS_AT_ONCE = 1_024  # their vectors in float64 stay in a core's cache


@dataclass(frozen=True)
class EncoderItems:
    """Item vectors ``[N, D]`` (zero where the model has none) with their mean and covariance."""

    vectors: npt.NDArray[np.float32]
    mean: Float64
    covariance: Float64
    longest: float

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float32]) -> EncoderItems:
        count, dimension = vectors.shape
        mean = vectors.mean(axis=0, dtype=np.float64) if count else np.zeros(dimension)
        squares, longest = np.zeros((dimension, dimension)), 0.0
        for begin in range(0, count, _ITEMS_AT_ONCE):
            exact = vectors[begin : begin + _ITEMS_AT_ONCE].astype(np.float64)
            longest = max(longest, float(np.linalg.norm(exact, axis=1).max()))
            exact -= mean
            squares += exact.T @ exact
        return cls(vectors, mean, squares / max(count, 1), longest)

    def scores(self, users: FloatArray) -> DenseScores:
        """Inner products with user vectors ``[B, D]``; a zero vector says nothing."""
        return DenseScores(users, self.vectors, self.mean, self.covariance, self.longest, self.centred, self.rough)

    @cached_property
    def centred(self) -> npt.NDArray[np.float32]:
        """The vectors less their mean, made where they are used and once for all blocks."""
        return (self.vectors - self.mean).astype(np.float32)

    @cached_property
    def rough(self) -> RoughVectors | None:
        """The centred vectors for the quick pass; None where float32 is as fast as anything."""
        return RoughVectors.of(self.centred) if computes_in_bfloat16() else None


@dataclass(frozen=True)
class FactorItems:
    """Item factors ``[N, F]`` (zero rows where an item has none) and what the users' equation needs of them.

    ``x_u = (Y'Y + sum_i c_i y_i y_i' + r n_u I)^-1 sum_i (1 + c_i) y_i`` over the history items i, with ``c_i = confidence x
    weight``: the half step of Hu, Koren and Volinsky 2008 for one user, as Spark scales its regularisation.
    """

    vectors: FloatArray
    shape: AlsShape

    @cached_property
    def dense(self) -> EncoderItems:
        """The factors with their moments."""
        return EncoderItems.of(self.vectors)

    @cached_property
    def _gram(self) -> Float64:
        exact = self.vectors.astype(np.float64)
        found: Float64 = exact.T @ exact
        return found

    def knows(self, history: Any) -> npt.NDArray[np.bool_]:
        """Whether any history item has factors: ``[B]``."""
        found: npt.NDArray[np.bool_] = history @ self.vectors.any(axis=1).astype(np.float64) > 0
        return found

    def scores(self, history: Any) -> DenseScores:
        """Inner products of items and the users of ``history`` (CSR ``[B, N]``)."""
        return self.dense.scores(self.users(history))

    def users(self, history: Any) -> FloatArray:
        """User factors ``[B, F]``, zero where no item of the history has any."""
        size = self.vectors.shape[1]
        out = np.zeros((history.shape[0], size), np.float32)
        has = self.vectors.any(axis=1)
        for user in range(history.shape[0]):
            cells = slice(history.indptr[user], history.indptr[user + 1])
            items, weights = history.indices[cells], history.data[cells]
            items, weights = items[has[items]], weights[has[items]]
            if not len(items):
                continue
            own = self.vectors[items].astype(np.float64)
            sure = self.shape.confidence * weights
            left = self._gram + (own * sure[:, None]).T @ own + self.shape.regularisation * len(items) * np.eye(size)
            out[user] = np.linalg.solve(left, ((1.0 + sure)[:, None] * own).sum(axis=0))
        return out
