"""At most so many of each ten places for one value of an attribute: what a list has room for still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.ranges import ranges
from recsys_spark.recommend.catalogue import Catalogue
from recsys_spark.recommend.scoring.scores import Ints


@dataclass(frozen=True)
class Limited:
    """Values of attributes that are limited: which ``columns [V]`` of the catalogue's ``attributes`` (binary CSR), ``most [V]``
    how many of each ten."""

    attributes: Any
    columns: Ints
    most: Ints

    @classmethod
    def of(cls, catalogue: Catalogue, max_per_ten: Mapping[str, int]) -> Limited | None:
        """What the catalogue's items share of these attributes; None where that is nothing, or nothing is limited."""
        held, keys = catalogue.every_attribute
        columns = np.flatnonzero(np.isin(keys, list(max_per_ten)))
        if not len(columns):
            return None
        return cls(held, columns, np.array([max_per_ten[key] for key in keys[columns]], np.int64))


class Room:
    """What has room in the present ten places of B users' lists, among W candidates of each.

    Args:
        positions: of the candidates in the catalogue ``[B, W]``; -1: there is none.
    """

    def __init__(self, limited: Limited, positions_BW: Ints) -> None:
        self._shape = positions_BW.shape
        cells = limited.attributes[np.maximum(positions_BW, 0).ravel()][:, limited.columns]
        owner = np.repeat(np.arange(positions_BW.size), np.diff(cells.indptr))
        kept = positions_BW.ravel()[owner] >= 0
        # counted is by user and value: only those that some candidate of the user has
        wide = owner[kept] // positions_BW.shape[1] * np.int64(len(limited.most)) + cells.indices[kept]
        counted, self._of_cell = np.unique(wide, return_inverse=True)
        self._candidate = owner[kept]
        self._begins = np.searchsorted(self._candidate, np.arange(positions_BW.size + 1))
        self._most = limited.most[counted % max(len(limited.most), 1)]
        self._have = np.zeros(len(counted), np.int64)

    def clear(self) -> None:
        """Ten new places begin."""
        self._have[:] = 0

    def left(self) -> npt.NDArray[np.bool_]:
        """``[B, W]``: which candidates may still come into these ten."""
        full = (self._have >= self._most)[self._of_cell]
        barred = np.bincount(self._candidate[full], minlength=self._shape[0] * self._shape[1]) > 0
        found: npt.NDArray[np.bool_] = ~barred.reshape(self._shape)
        return found

    def take(self, chosen_B: Ints) -> None:
        """These candidates (columns, -1: none) have come into the lists."""
        users = np.flatnonzero(chosen_B >= 0)
        flat = users * self._shape[1] + chosen_B[users]
        begins, lengths = self._begins[flat], self._begins[flat + 1] - self._begins[flat]
        np.add.at(self._have, self._of_cell[ranges(begins, lengths)], 1)
