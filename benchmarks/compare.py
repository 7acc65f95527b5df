"""Whether two sides gave the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

Floats = npt.NDArray[np.floating[Any]]


def same_rows(one: DataFrame, other: DataFrame, scores: tuple[str, ...], decimals: int = 9) -> bool:
    """The same rows in any order, the columns ``scores`` rounded; both frames have the same columns."""

    def rounded(frame: DataFrame) -> DataFrame:
        return frame.select(*[F.round(c, decimals).alias(c) if c in scores else F.col(c) for c in one.columns])

    left, right = rounded(one), rounded(other)
    return left.exceptAll(right).isEmpty() and right.exceptAll(left).isEmpty()


def is_exact_list(items: list[int], scores: Floats, seen: set[int], k: int, tolerance: float) -> bool:
    """Whether ``items`` are the best ``k`` of one user, best first.

    Items whose scores are closer than rounding may stand in either order, so it is their scores that are compared.

    Args:
        scores: of all items, float64.
        seen: items that may not be in the list.
        tolerance: two scores this close, relative to the largest, are equal.
    """
    allowed = scores.copy()
    allowed[list(seen)] = -np.inf
    wanted = np.sort(allowed)[::-1][: min(k, len(scores) - len(seen))]
    if len(items) != len(wanted) or len(set(items)) != len(items) or seen & set(items):
        return False
    return bool(np.abs(scores[items] - wanted).max(initial=0.0) <= tolerance * np.abs(scores).max(initial=0.0))


def alike_vectors(one: Floats, other: Floats, least_cosine: float) -> bool:
    """Whether each row of one matrix points where the other's does."""
    if one.shape != other.shape:
        return False
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return bool(((one * other).sum(axis=1) >= least_cosine * norms).all())
