"""Cells of a matrix as sorted (row, ...) arrays: the one counting step that every ranking of them needs."""

from __future__ import annotations

import numpy as np

from recsys_spark.search.vectors import Ints


def place_in_row(rows: Ints, num_rows: int) -> Ints:
    """0, 1, 2 ... within each run of equal, ascending ``rows``, all below ``num_rows``."""
    found: Ints = np.arange(len(rows)) - np.searchsorted(rows, np.arange(num_rows))[rows]
    return found
