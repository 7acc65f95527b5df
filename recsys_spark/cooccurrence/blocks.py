"""What a block of items needs of all baskets: those that hold an item of it, and which of their entries those items are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.cooccurrence.grouping import ANCHOR, Baskets, Dealt, Items, distinct, join_baskets


def touching(baskets: Baskets, block: int, num_blocks: int, min_entries: int = 2) -> Baskets:
    """Baskets with enough entries of which one or more is of an item of the block."""
    if not len(baskets.items):
        return baskets
    wanted = np.logical_or.reduceat(baskets.items % num_blocks == block, baskets.starts[:-1]) & (baskets.sizes >= min_entries)
    return baskets if wanted.all() else baskets.pick(wanted)


def whole_baskets(parts: Sequence[Baskets], block: int, num_blocks: int, min_entries: int) -> Baskets:
    """Those that touch the block, with one entry per item, in one order for all measures: sums of floats do not depend on how
    baskets arrived then."""
    found = join_baskets([touching(part, block, num_blocks, min_entries) for part in parts])
    return distinct(found).in_order_of_keys() if len(found.items) else found


def deal_anchors(baskets: Baskets, num_blocks: int) -> Dealt:
    """Entries that may be anchors, for the blocks to which they belong."""
    items, holders = baskets.items, baskets.holders
    if baskets.sides is not None:
        able = (baskets.sides & ANCHOR) > 0
        items, holders = items[able], holders[able]
    block_of = (items % num_blocks).astype(np.min_scalar_type(num_blocks))
    order = np.argsort(block_of, kind="stable")  # of 8 or 16 bits: a radix sort
    ends = np.append(0, np.cumsum(np.bincount(block_of, minlength=num_blocks))).astype(np.int32)
    holders = holders[order]
    filled = np.diff(ends) > 0
    begins = ends[:-1][filled]
    firsts = np.zeros(num_blocks, np.int32)
    firsts[filled] = holders[begins]
    steps = np.diff(holders, prepend=holders[:1])
    steps[begins] = 0
    return Dealt(ends, firsts, _narrow(items[order] // np.int32(num_blocks)), _narrow(steps))


def _narrow(values: Items) -> NDArray[np.integer[Any]]:
    """The same numbers, from 0 up, in 1, 2 or 4 bytes."""
    return values.astype(np.result_type(np.min_scalar_type(int(values.max(initial=0))), np.uint8))
