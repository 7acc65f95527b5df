"""User and item vectors with what each user has seen: what the top-K rows rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.speed.rivals.als import write_factors

_SEEN, _LOOKED_AT = 30, 500  # a user has seen the best 30 of 500 items met by chance: what is seen, is liked
_USERS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Factors:
    """``users [U, D]`` and ``items [N, D]``, float32; ``seen [U, S]`` items of each user, distinct."""

    users: npt.NDArray[np.float32]
    items: npt.NDArray[np.float32]
    seen: npt.NDArray[np.int32]

    def scores(self, user: int) -> npt.NDArray[np.float64]:
        """Inner products of one user with all items, exactly."""
        exact: npt.NDArray[np.float64] = self.items.astype(np.float64) @ self.users[user].astype(np.float64)
        return exact

    def write(self, folder: Path) -> None:
        """``users/`` in the columns that recommend reads, and ``items/`` as ``(item_idx, vector)``."""
        write_factors(folder / "items", "item_idx", "vector", self.items)
        (folder / "users").mkdir(parents=True)
        for number, rows in enumerate(np.array_split(np.arange(len(self.users)), 4)):
            pq.write_table(self._user_rows(rows), folder / "users" / f"part-{number}.parquet")

    def _user_rows(self, rows: npt.NDArray[Any]) -> pa.Table:
        """Histories are empty, so the encoder alone speaks and reasons are short; nobody has a profile or a target."""
        nothing = pa.ListArray.from_arrays(pa.array(np.zeros(len(rows) + 1, np.int32)), pa.array([], pa.int32()))
        columns = {
            "user_id": pa.array([str(row) for row in rows]),
            "items": nothing,
            "seen": _lists(self.seen[rows]),
            "vector": _lists(self.users[rows]),
            "profile_text": pa.nulls(len(rows), pa.string()),
            "context": pa.nulls(len(rows), pa.string()),
            "segment": pa.nulls(len(rows), pa.string()),
            "target_idx": nothing,
            "target_ids": nothing.cast(pa.list_(pa.string())),
        }
        return pa.table(columns)


def _lists(matrix: npt.NDArray[Any]) -> pa.Array:
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.ravel()))


def make_factors(num_users: int, num_items: int, dimension: int, seed: int = 2) -> Factors:
    """Normal vectors; items differ in length, as those of a trained model do."""
    rng = np.random.default_rng(seed)
    users = rng.normal(size=(num_users, dimension)).astype(np.float32)
    items = (rng.normal(size=(num_items, dimension)) * rng.uniform(0.5, 1.5, (num_items, 1))).astype(np.float32)
    looked_at, count = min(_LOOKED_AT, num_items), min(_SEEN, num_items // 2)
    seen = np.empty((num_users, count), np.int32)
    for start in range(0, num_users, _USERS_AT_ONCE):
        met = rng.choice(num_items, looked_at, replace=False)
        scores = users[start : start + _USERS_AT_ONCE] @ items[met].T
        seen[start : start + _USERS_AT_ONCE] = met[np.argpartition(-scores, count - 1, axis=1)[:, :count]]
    return Factors(users, items, seen)
