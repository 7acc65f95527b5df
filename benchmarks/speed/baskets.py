"""Baskets of Zipf items as Parquet: what the co-occurrence rows count."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_NUM_FILES = 4


@dataclass(frozen=True)
class Shape:
    """How many baskets, of items numbered from 0 to ``num_items`` - 1."""

    num_baskets: int
    num_items: int


FULL = Shape(402_727, 60_000)  # 3.85M events


def write_baskets(folder: Path, shape: Shape, seed: int = 1) -> int:
    """Write ``basket, item_idx, ts`` in four files; returns the number of rows.

    A basket has 2 + geometric distinct items, at most 50; the chance of an item falls with its rank, in Zipf's way.
    """
    rng = np.random.default_rng(seed)
    sizes = np.minimum(1 + rng.geometric(1 / 8.6, shape.num_baskets), 50)
    basket = np.repeat(np.arange(shape.num_baskets, dtype=np.int64), sizes)
    chance = 1.0 / np.arange(10, shape.num_items + 10) ** 0.9
    rank = np.searchsorted(np.cumsum(chance / chance.sum()), rng.random(len(basket)))
    item = rng.permutation(shape.num_items)[np.minimum(rank, shape.num_items - 1)]
    kept = np.unique(basket << 32 | item)
    rng.shuffle(kept)
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(kept, _NUM_FILES)):
        columns = {"basket": part >> 32, "item_idx": (part & 0xFFFFFFFF).astype(np.int32)}
        times = pa.array(np.zeros(len(part), dtype=np.int64), pa.timestamp("us", tz="UTC"))
        pq.write_table(pa.table({**columns, "ts": times}), folder / f"part-{number}.parquet")
    os.sync()  # else the disk is still written to while the first run is timed
    return len(kept)
