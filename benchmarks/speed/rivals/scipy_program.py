"""Co-occurrence in one thread without Spark: Parquet in, Parquet out, by NumPy, SciPy and PyArrow alone.

Why it is fair: it is the program one would write for one machine. Nothing crosses a process or a JVM. The product runs
in blocks of rows of a bounded number of multiply-adds, which stay near the cache, and counts under the support are
dropped before anything is scored; rows with more than the wanted number are cut by a partition, not by a sort.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

_WORK = 2_000_000  # multiply-adds of one block of rows
Ints = npt.NDArray[Any]


def scipy_program(source: Path, min_support: int, top_n: int, target: Path) -> None:
    """Read ``basket, item_idx``; write item_a, item_b, num_baskets, num_baskets_a, num_baskets_b, cosine, rank_a.

    Ties are broken by the item's number.
    """
    table = pq.read_table(source, columns=["basket", "item_idx"], use_threads=False)
    by_basket = basket_matrix(table.column("basket").to_numpy(), table.column("item_idx").to_numpy())
    target.mkdir(parents=True)
    with pq.ParquetWriter(target / "part-0.parquet", _SCHEMA) as writer:
        for block in _blocks(by_basket, min_support, top_n):
            writer.write_table(block)


_SCHEMA = pa.schema(
    [("item_a", pa.int32()), ("item_b", pa.int32())]
    + [(name, pa.int64()) for name in ("num_baskets", "num_baskets_a", "num_baskets_b")]
    + [("cosine", pa.float64()), ("rank_a", pa.int32())]
)


def basket_matrix(basket: Ints, item_idx: Ints) -> Any:
    """CSR [baskets, items] of ones; an item that a basket holds twice counts once."""
    keys = np.unique(basket.astype(np.int64) << 32 | item_idx)
    rows, columns = keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32)
    first = np.flatnonzero(np.diff(rows, prepend=rows[0] - 1)) if len(rows) else np.zeros(0, np.int64)
    starts = np.append(first, len(rows))
    shape = (len(starts) - 1, int(columns.max(initial=-1)) + 1)
    return sparse.csr_matrix((np.ones(len(rows), np.int32), columns, starts), shape=shape)


def _blocks(by_basket: Any, min_support: int, top_n: int) -> Iterator[pa.Table]:
    by_item = by_basket.T.tocsr()
    held = np.diff(by_item.indptr).astype(np.int64)
    work = np.cumsum(by_item @ np.diff(by_basket.indptr).astype(np.int64))
    first = 0
    while first < len(held):
        done = work[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(work, done + _WORK, side="right")))
        product = by_item[first:last] @ by_basket
        item_a = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(product.indptr))
        kept = (product.data >= min_support) & (product.indices != item_a)
        yield _best(item_a[kept], product.indices[kept], product.data[kept].astype(np.int64), held, top_n)
        first = last


def _best(item_a: Ints, item_b: Ints, both: Ints, held: Ints, top_n: int) -> pa.Table:
    """The best of each item, items ascending and best first."""
    counts = both.astype(np.float64)
    cosine = np.sqrt(counts * counts / (held[item_a].astype(np.float64) * held[item_b]))
    kept = np.ones(len(item_a), np.bool_)
    bounds = np.flatnonzero(np.diff(item_a, prepend=-1, append=-1)) if len(item_a) else np.zeros(1, np.int64)
    for place in np.flatnonzero(np.diff(bounds) > top_n):
        part = slice(bounds[place], bounds[place + 1])
        floor = np.partition(cosine[part], -top_n)[-top_n]
        kept[part] = cosine[part] >= floor
    chosen = np.flatnonzero(kept)
    chosen = chosen[np.lexsort((item_b[chosen], -cosine[chosen], item_a[chosen]))]
    starts = np.flatnonzero(np.diff(item_a[chosen], prepend=-1))
    lengths = np.diff(np.append(starts, len(chosen)))
    rank = np.arange(len(chosen)) - np.repeat(starts, lengths) + 1
    chosen, rank = chosen[rank <= top_n], rank[rank <= top_n]
    a, b = item_a[chosen], item_b[chosen].astype(np.int32)
    return pa.table([a, b, both[chosen], held[a], held[b], cosine[chosen], rank.astype(np.int32)], schema=_SCHEMA)
