"""Rows to baskets in plain NumPy: group, merge repeated items, cut large baskets.

Legend: E entries (item occurrences), B baskets. All functions are pure and independent of the order of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.cooccurrence.rows import Rows, by_ranges_of_keys
from recsys_spark.ranges import changes, position_in_group, ranges, sums_of_runs

Ints = NDArray[np.int64]
Items = NDArray[np.int32]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Sides = NDArray[np.int8]
Signs = NDArray[np.int8]
HashOf = Callable[[Items], NDArray[np.uint64]]

_ITEM_BITS = 31
ANCHOR, TARGET = 1, 2  # of a pair (a, b) the anchor is a


@dataclass(frozen=True)
class Dealt:
    """Anchors of baskets in order of their blocks, ascending by basket, in as few bytes as do.

    Those of block n lie at ``ends[n]:ends[n + 1]``; ``rows``: item // number of blocks; ``steps``: by how much the number of the
    basket grows from one to the next, from ``firsts[n]`` on.
    """

    ends: Items  # [blocks + 1]
    firsts: Items  # [blocks]
    rows: NDArray[np.integer[Any]]
    steps: NDArray[np.integer[Any]]

    def of_block(self, block: int) -> tuple[NDArray[np.integer[Any]], Items]:
        """Rows of its anchors and the numbers of their baskets."""
        mine = slice(self.ends[block], self.ends[block + 1])
        holders = np.cumsum(self.steps[mine], dtype=np.int32)
        holders += self.firsts[block]
        return self.rows[mine], holders


@dataclass(frozen=True)
class Baskets:
    """Baskets in compressed rows: basket i holds entries ``starts[i]:starts[i + 1]``, at least one.

    Without times, the items of a basket are distinct and ascending. With times (microseconds), entries are ascending
    by (time, item); an item stands once at its latest time, or, where occurrences were kept, once per time.
    """

    starts: Ints  # [B + 1], of messages that many tasks share in 32 bits
    items: Items  # [E]
    times: Ints | None = None  # [E]
    weights: Floats | None = None  # [E], the summed event weight of the entry's item in its basket
    sides: Sides | None = None  # [E], bits ANCHOR and TARGET: which side of a pair the entry may take
    keys: Ints | None = None  # [B], the basket's identity, which alone orders baskets
    owners: Ints | None = None  # [B], the user that the basket is of
    signs: Signs | None = None  # [B], 1 for a basket to be counted, -1 for one to be taken back; absent: all are counted
    dealt: Dealt | None = None  # where it has been made: baskets that are picked or joined have none

    @property
    def sizes(self) -> Ints:
        return np.diff(self.starts)

    @property
    def basket_of(self) -> Ints:
        """Row number of the basket of each entry [E]."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int64), self.sizes)

    @property
    def holders(self) -> Items:
        """The same in 32 bits: of a large block half the memory."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), self.sizes)

    def baskets_of(self, entries: Bools) -> Items:
        """``holders`` of the given entries (a mask [E])."""
        return self.holders[entries]

    def keep(self, entries: Bools) -> Baskets:
        """Only the given entries [E]; baskets left without any vanish."""
        sizes = np.bincount(self.baskets_of(entries), minlength=len(self.starts) - 1)
        left = sizes > 0
        return self._picked(left, entries, sizes[left])

    def pick(self, wanted: Bools) -> Baskets:
        """Only the given baskets [B], whole."""
        return self._picked(wanted, np.repeat(wanted, self.sizes), self.sizes[wanted])

    def of_entries(self) -> dict[str, NDArray[Any]]:
        """The optional columns of entries that there are."""
        return {n: c for n, c in (("times", self.times), ("weights", self.weights), ("sides", self.sides)) if c is not None}

    def of_baskets(self) -> dict[str, NDArray[Any]]:
        """The optional columns of baskets that there are."""
        columns = (("keys", self.keys), ("owners", self.owners), ("signs", self.signs))
        return {name: column for name, column in columns if column is not None}

    def span(self, first: int, last: int) -> Baskets:
        """Baskets ``first`` to ``last``, as views."""
        return self._picked(slice(first, last), slice(self.starts[first], self.starts[last]), self.sizes[first:last])

    def in_order_of_keys(self) -> Baskets:
        """The same baskets in an order that does not depend on how they arrived, so that sums of floats do not either."""
        order = np.argsort(np.asarray(self.keys), kind="stable")
        sizes = self.sizes[order]
        return self._picked(order, ranges(self.starts[order], sizes), sizes)

    def _picked(self, baskets: Any, entries: Any, sizes: Ints) -> Baskets:
        """The given baskets, each with as many of the given entries as ``sizes`` says (views, where they are slices)."""
        columns = {name: column[entries] for name, column in self.of_entries().items()}
        columns |= {name: column[baskets] for name, column in self.of_baskets().items()}
        return from_sizes(sizes, self.items[entries], **columns)


def from_sizes(
    sizes: Sequence[int] | NDArray[np.integer[Any]], items: Items, times: Ints | None = None, **columns: Any
) -> Baskets:
    """Baskets of the given numbers of entries, in order; ``columns``: the optional ones of ``Baskets``."""
    starts = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    return Baskets(starts, items, times, **columns)


def join_baskets(parts: Sequence[Baskets]) -> Baskets:
    """All baskets of ``parts``, in order; parts either all carry an optional column or none does."""
    sizes = np.concatenate([np.zeros(0, dtype=np.int64), *[p.sizes for p in parts]])
    items = np.concatenate([np.zeros(0, dtype=np.int32), *[p.items for p in parts]])
    every = [{**p.of_entries(), **p.of_baskets()} for p in parts]
    names = every[0] if every else {}
    return from_sizes(sizes, items, **{name: np.concatenate([columns[name] for columns in every]) for name in names})


def group_rows(rows: Rows, occurrences: bool) -> Baskets:
    """Rows (one per event) to baskets of distinct items, in order of their keys.

    Args:
        rows: what the counts need of each event.
        occurrences: keep every distinct (item, time) of a basket, not just the latest time of each item.
    """
    found = _in_one_sort(rows)
    return join_baskets([_grouped(part, occurrences) for part in by_ranges_of_keys(rows)]) if found is None else found


def _in_one_sort(rows: Rows) -> Baskets | None:
    """Of keys and items alone, where keys lie close enough for both to fit into 63 bits, as numbers of users do; else None."""
    if set(rows.columns()) != {"keys", "items"} or not len(rows.keys):
        return None
    low = int(rows.keys.min())
    if int(rows.keys.max()) - low >= 1 << (63 - _ITEM_BITS):
        return None
    packed = rows.keys - low
    packed <<= _ITEM_BITS
    packed |= rows.items
    packed.sort()
    packed = packed[changes(packed)]
    items = packed.astype(np.uint32) & np.uint32((1 << _ITEM_BITS) - 1)
    packed >>= _ITEM_BITS
    starts = np.flatnonzero(changes(packed))
    return Baskets(np.append(starts, len(items)), items.view(np.int32), keys=packed[starts] + low)


def _grouped(rows: Rows, occurrences: bool) -> Baskets:
    order = np.argsort(rows.keys)
    ordered = rows.keys[order]
    is_new = changes(ordered)
    packed = _pack(np.cumsum(is_new) - 1, rows.items[order])
    times = None if rows.times is None else rows.times[order]
    owners = {} if rows.owners is None else {"owners": rows.owners[order][is_new]}
    if times is None and rows.weights is None and rows.sides is None:
        entries = np.sort(packed)
        entries = entries[changes(entries)]
        return _baskets_of(entries, ordered[is_new], **owners)
    weights = None if rows.weights is None else rows.weights[order]
    sides = None if rows.sides is None else rows.sides[order]
    return _merged(packed, times, weights, sides, occurrences, ordered[is_new], owners)


def _merged(
    packed: Ints,
    times: Ints | None,
    weights: Floats | None,
    sides: Sides | None,
    occurrences: bool,
    keys: Ints,
    owners: dict[str, Ints],
) -> Baskets:
    """Entries (item, or item and time) of baskets; weights summed over all events of the item, sides united over those of
    the entry."""
    moments = np.zeros(len(packed), dtype=np.int64) if times is None else times
    amounts = np.zeros(len(packed)) if weights is None else weights
    order = np.lexsort((amounts, moments, packed))  # amounts last: a sum of floats does not depend on the order of rows
    packed, moments, amounts = packed[order], moments[order], amounts[order]
    starts = np.flatnonzero(changes(packed))  # of each (basket, item)
    last = np.ones(len(packed), dtype=bool)
    last[:-1] = changes(packed)[1:]
    if occurrences:
        last[:-1] |= changes(moments)[1:]
    of_item = np.cumsum(changes(packed))[last] - 1
    columns: dict[str, NDArray[Any]] = {}
    if weights is not None:
        columns["weights"] = sums_of_runs(amounts, starts)[of_item]
    if sides is not None:
        firsts = np.flatnonzero(np.append(True, last[:-1]))[: int(last.sum())]
        columns["sides"] = np.bitwise_or.reduceat(sides[order], firsts) if len(firsts) else np.zeros(0, dtype=np.int8)
    packed, moments = packed[last], moments[last]
    if times is not None:
        order = np.lexsort((packed, moments, packed >> 32))
        packed, columns = packed[order], {name: column[order] for name, column in columns.items()}
        columns["times"] = moments[order]
    return _baskets_of(packed, keys, **columns, **owners)


def _baskets_of(packed: Ints, keys: Ints, **columns: NDArray[Any]) -> Baskets:
    sizes = np.bincount(packed >> 32, minlength=len(keys))
    return from_sizes(sizes, (packed & 0xFFFFFFFF).astype(np.int32), keys=keys, **columns)


def cut_baskets(baskets: Baskets, max_items: int, hash_of: HashOf) -> tuple[Baskets, Bools, int]:
    """Keep at most ``max_items`` distinct items of each basket: those with the smallest hash of (basket key, item).

    Args:
        baskets: as ``group_rows`` returns them.
        max_items: the cap.
        hash_of: seeded hashes of items.

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
    draw = mix(np.asarray(baskets.keys)[owner].astype(np.uint64) ^ mix(hash_of(baskets.items[at[first]])))
    order = np.lexsort((draw, owner))
    dropped = distinct[order][position_in_group(owner[order]) >= max_items]
    kept = np.ones(len(baskets.items), dtype=bool)
    kept[at] = ~np.isin(packed, dropped)
    cut = np.zeros(len(large), dtype=bool)
    cut[dropped >> 32] = True
    return baskets.keep(kept), cut, len(dropped)


def cut_occurrences(baskets: Baskets, most: int) -> tuple[Baskets, int]:
    """Keep the latest ``most`` entries of each item of each basket, and how many were cut away: without a limit, a robot's
    million events of a few items would be a trillion pairs."""
    if baskets.times is None or len(baskets.items) <= most:
        return baskets, 0
    packed = _pack(baskets.basket_of, baskets.items)
    order = np.lexsort((-baskets.times, packed))
    kept = np.ones(len(packed), dtype=bool)
    kept[order[position_in_group(packed[order]) >= most]] = False
    return (baskets.keep(kept), int((~kept).sum())) if not kept.all() else (baskets, 0)


def distinct(baskets: Baskets) -> Baskets:
    """The same baskets with one entry per item, ascending, without times."""
    if baskets.times is None:
        return baskets
    packed, first = np.unique(_pack(baskets.basket_of, baskets.items), return_index=True)
    columns = {name: column[first] for name, column in baskets.of_entries().items() if name != "times"}
    sizes = np.bincount(packed >> 32, minlength=len(baskets.starts) - 1)
    return from_sizes(sizes, (packed & 0xFFFFFFFF).astype(np.int32), **columns, **baskets.of_baskets())


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection that scatters 64 bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _pack(group: Ints, items: Items) -> Ints:
    return (group << 32) | items.astype(np.int64)
