"""What may not be recommended: seen, unavailable and blocked items; and why a list came out short."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_spark.config.serving import RecommendSettings
from recsys_spark.errors import InputError
from recsys_spark.recommend.scores import FloatArray, Ints


@dataclass(frozen=True)
class Filter:
    """Items a block's users may get: ``allowed [N]`` for all of them, less each user's own ``seen`` (CSR ``[B, N]``)."""

    allowed: npt.NDArray[np.bool_]
    seen: Any

    @cached_property
    def _seen_by_item(self) -> Any:
        return self.seen.tocsc()

    def apply(self, scores: FloatArray, start: int, stop: int) -> None:
        """Set the cells of a tile ``[B, stop - start]`` that are not allowed to -inf, in place."""
        barred = np.flatnonzero(~self.allowed[start:stop])
        if len(barred):
            scores[:, barred] = -np.inf
        if self.seen.nnz:
            rows, cols = self._seen_by_item[:, start:stop].nonzero()
            scores[rows, cols] = -np.inf

    def columns(self, cols: Ints) -> Filter:
        """The same for these items alone."""
        return Filter(self.allowed[cols], self.seen[:, cols])

    def allows(self, rows: Ints, cols: Ints) -> npt.NDArray[np.bool_]:
        """Whether single cells may be recommended: ``[C]``."""
        if not len(rows):
            return np.empty(0, np.bool_)
        met = np.asarray(self.seen[rows, cols]).ravel() != 0
        found: npt.NDArray[np.bool_] = self.allowed[cols] & ~met
        return found

    def num_candidates(self) -> Ints:
        """Allowed items of each user: ``[B]``."""
        rows, cols = self.seen.nonzero()
        taken = np.bincount(rows[self.allowed[cols]], minlength=self.seen.shape[0])
        return np.asarray(int(self.allowed.sum()) - taken)


def blocked_ids(settings: RecommendSettings) -> frozenset[str]:
    """Item ids that no list may hold: the config's and those of the block list file.

    Raises:
        InputError: the file is missing or has no column item_id.
    """
    listed = set(settings.block_items)
    if settings.block_list_path is not None:
        listed |= _read_block_list(Path(settings.block_list_path))
    return frozenset(listed)


def _read_block_list(path: Path) -> set[str]:
    where = f"block list {path}"
    if not path.is_file():
        raise InputError(where, "no such file", "a CSV file with a column item_id", "check recommend.block_list_path")
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if "item_id" not in (reader.fieldnames or ()):
            raise InputError(where, f"columns {', '.join(reader.fieldnames or ()) or '(none)'}", "a column item_id")
        return {row["item_id"] for row in reader if row["item_id"]}


def shortfall_reason(num_allowed: int, num_candidates: int, k: int) -> str:
    """Why a user has fewer than ``k`` items."""
    if num_allowed == 0:
        return "no item is available and allowed"
    if num_candidates == 0:
        return "all items seen"
    if num_allowed < k:
        return "catalogue smaller than K"
    return "fewer than K unseen items"
