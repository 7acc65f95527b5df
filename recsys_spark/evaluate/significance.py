"""How sure a figure is: bootstrap over users, with one set of draws for all systems, so that differences are paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.errors import InputError

Floats = NDArray[np.float64]
_MAX_WEIGHTS = 4_000_000  # weights held at once


@dataclass(frozen=True)
class Interval:
    """A mean over users with the ends of its percentile interval."""

    value: float
    low: float
    high: float


def bootstrap_means(values_UV: Floats, samples: int, seed: int) -> Floats:
    """Means of V figures over ``samples`` redraws of the U users: [samples, V].

    Each redraw gives every user a weight, the multinomial count of how often U draws with replacement hit it
    (Efron, Annals of Statistics 7(1), 1979). All columns share the weights: the difference of two columns of the
    result is the paired bootstrap of their difference.

    Raises:
        InputError: no users.
    """
    values = np.asarray(values_UV, dtype=np.float64)
    users = len(values)
    if users == 0:
        raise InputError("bootstrap", "no users", "at least one user with a target")
    rng = np.random.default_rng(seed)
    block = max(1, _MAX_WEIGHTS // users)
    parts = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        drawn = rng.integers(0, users, size=(size, users)) + np.arange(size)[:, None] * users
        weights = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        parts.append(weights.astype(np.float64) @ values / users)
    return np.concatenate(parts)


def percentile_interval(means_S: Floats, confidence: float) -> tuple[float, float]:
    """Ends of the central ``confidence`` share of bootstrap means."""
    low, high = np.quantile(means_S, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap(values_U: Floats, samples: int, confidence: float, seed: int) -> Interval:
    """Mean of one figure per user, with its percentile interval."""
    means = bootstrap_means(np.asarray(values_U)[:, None], samples, seed)[:, 0]
    return Interval(float(np.mean(values_U)), *percentile_interval(means, confidence))


def paired_bootstrap(left_U: Floats, right_U: Floats, samples: int, confidence: float, seed: int) -> Interval:
    """Mean of (left - right) over the same users, with its percentile interval.

    Raises:
        InputError: the two do not have the same users.
    """
    if np.shape(left_U) != np.shape(right_U):
        raise InputError("paired bootstrap", f"{np.shape(left_U)} and {np.shape(right_U)}", "the same users in the same order")
    return bootstrap(np.asarray(left_U) - np.asarray(right_U), samples, confidence, seed)
