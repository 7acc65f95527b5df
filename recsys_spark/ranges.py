"""Ranges of positions and runs of equal values, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """``starts[i], starts[i] + 1, ...``, ``lengths[i]`` of them, for every i in turn."""
    ends = np.cumsum(lengths, dtype=np.int64)
    found: NDArray[np.int64] = np.repeat(starts - (ends - lengths), lengths)
    found += np.arange(len(found))
    return found


def position_in_group(groups: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """0, 1, 2 ... within each run of equal values."""
    if not len(groups):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(changes(groups))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


def changes(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """True where any column differs from the row before it; True at the first."""
    found = np.ones(len(columns[0]), dtype=bool)
    found[1:] = np.logical_or.reduce([values[1:] != values[:-1] for values in columns])
    return found


def sums_of_runs(values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[Any]:
    """Sum of each run of values; runs begin at ``starts``, the first at 0."""
    return np.asarray(np.add.reduceat(values, starts)) if len(starts) else values[:0]
