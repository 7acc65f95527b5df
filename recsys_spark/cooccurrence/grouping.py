"""Rows to baskets in plain NumPy: group, merge repeated items, cut large baskets, pick those a block of items needs.

Legend: E entries (item occurrences), B baskets. All functions are pure and independent of the order of their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Items = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Baskets:
    """Baskets in compressed rows: basket i holds entries ``starts[i]:starts[i + 1]``, at least one.

    Without times, the items of a basket are distinct and ascending. With times (microseconds), entries are ascending
    by (time, item); an item stands once at its latest time, or, where occurrences were kept, once per time.
    """

    starts: Ints  # [B + 1]
    items: Items  # [E]
    times: Ints | None = None  # [E]

    @property
    def sizes(self) -> Ints:
        return np.diff(self.starts)

    @property
    def basket_of(self) -> Ints:
        """Row number of the basket of each entry [E]."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int64), self.sizes)

    def keep(self, entries: Bools) -> Baskets:
        """Only the given entries [E]; baskets left without any vanish."""
        sizes = np.bincount(self.basket_of[entries], minlength=len(self.starts) - 1)
        return from_sizes(sizes[sizes > 0], self.items[entries], None if self.times is None else self.times[entries])


def from_sizes(sizes: Sequence[int] | NDArray[np.integer[Any]], items: Items, times: Ints | None = None) -> Baskets:
    """Baskets of the given numbers of entries, in order."""
    starts = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    return Baskets(starts, items, times)


def join_baskets(parts: Sequence[Baskets]) -> Baskets:
    """All baskets of ``parts``, in order; parts either all carry times or none does."""
    sizes = np.concatenate([np.zeros(0, dtype=np.int64), *[p.sizes for p in parts]])
    items = np.concatenate([np.zeros(0, dtype=np.int32), *[p.items for p in parts]])
    times = [p.times for p in parts if p.times is not None]
    return from_sizes(sizes, items, np.concatenate(times) if times else None)


def group_rows(keys: Ints, items: Items, times: Ints | None, occurrences: bool) -> tuple[Baskets, Ints]:
    """Rows (one per event) to baskets of distinct items, and the key of each basket [B].

    Args:
        keys: basket key of each row.
        items: item of each row, >= 0.
        times: microseconds of each row, or None where no count needs them.
        occurrences: keep every distinct (item, time) of a basket, not just the latest time of each item.
    """
    order = np.argsort(keys)
    ordered = keys[order]
    is_new = np.ones(len(keys), dtype=bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    group = np.cumsum(is_new) - 1
    if times is None:
        packed = np.sort(_pack(group, items[order]))
        packed = packed[_changes(packed)]
        group, kept, kept_times = packed >> 32, (packed & 0xFFFFFFFF).astype(np.int32), None
    else:
        group, kept, kept_times = _merge_timed(group, items[order], times[order], occurrences)
    sizes = np.bincount(group, minlength=int(is_new.sum()))
    return from_sizes(sizes, kept, kept_times), ordered[is_new]


def _merge_timed(group: Ints, items: Items, times: Ints, occurrences: bool) -> tuple[Ints, Items, Ints]:
    packed = _pack(group, items)
    order = np.lexsort((times, packed))
    packed, times = packed[order], times[order]
    if occurrences:
        chosen = _changes(packed) | _changes(times)
    else:  # the last of each (basket, item) is its latest time
        chosen = np.ones(len(packed), dtype=bool)
        chosen[:-1] = packed[1:] != packed[:-1]
    packed, times = packed[chosen], times[chosen]
    order = np.lexsort((packed, times, packed >> 32))
    packed = packed[order]
    return packed >> 32, (packed & 0xFFFFFFFF).astype(np.int32), times[order]


def cut_baskets(baskets: Baskets, keys: Ints, max_items: int, hashes: NDArray[np.uint64]) -> tuple[Baskets, Bools, int]:
    """Keep at most ``max_items`` distinct items of each basket: those with the smallest hash of (basket key, item).

    Args:
        baskets, keys: as ``group_rows`` returns them.
        max_items: the cap.
        hashes: seeded hash of the item of each entry [E].

    Returns:
        the baskets, which of them were cut [B], and how many (basket, item) were cut away.
    """
    large = baskets.sizes > max_items
    if not large.any():
        return baskets, large, 0
    basket_of = baskets.basket_of
    at = np.flatnonzero(large[basket_of])
    packed = _pack(basket_of[at], baskets.items[at])
    distinct, first = np.unique(packed, return_index=True)
    owner = distinct >> 32
    draw = mix(keys[owner].astype(np.uint64) ^ mix(hashes[at[first]]))
    order = np.lexsort((draw, owner))
    dropped = distinct[order][position_in_group(owner[order]) >= max_items]
    kept = np.ones(len(baskets.items), dtype=bool)
    kept[at] = ~np.isin(packed, dropped)
    cut = np.zeros(len(large), dtype=bool)
    cut[dropped >> 32] = True
    return baskets.keep(kept), cut, len(dropped)


def distinct_entries(baskets: Baskets) -> tuple[Ints, Items]:
    """(basket row, item) of every distinct item of every basket."""
    if baskets.times is None:
        return baskets.basket_of, baskets.items
    packed = np.unique(_pack(baskets.basket_of, baskets.items))
    return packed >> 32, (packed & 0xFFFFFFFF).astype(np.int32)


def touching(baskets: Baskets, block_of: Items, block: int) -> Baskets:
    """Baskets with two or more entries of which one or more lies in ``block`` (``block_of``: block of each entry [E])."""
    if not len(baskets.items):
        return baskets
    wanted = np.logical_or.reduceat(block_of == block, baskets.starts[:-1]) & (baskets.sizes > 1)
    return baskets.keep(np.repeat(wanted, baskets.sizes))


def position_in_group(groups: NDArray[np.integer[Any]]) -> Ints:
    """0, 1, 2 ... within each run of equal values."""
    if not len(groups):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(_changes(groups))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection that scatters 64 bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _pack(group: Ints, items: Items) -> Ints:
    return (group << 32) | items.astype(np.int64)


def _changes(values: NDArray[np.integer[Any]]) -> Bools:
    """True where a value differs from the one before it; True at the first."""
    found = np.ones(len(values), dtype=bool)
    found[1:] = values[1:] != values[:-1]
    return found
