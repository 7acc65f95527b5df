"""Segments of items by their share of events and of users by the length of their history, as fusion and metrics name them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ITEM_SEGMENTS = ("head", "torso", "tail", "cold")
HISTORY_SEGMENTS = ("new", "light", "heavy")
_NEW_UP_TO, _LIGHT_UP_TO = 5, 19  # items of a history, of which scoring reads 20 unless told otherwise


def popularity_bounds(counts: NDArray[np.int64], items: NDArray[np.int64], head: float, tail: float) -> tuple[int, int]:
    """``(head_from, tail_to)``: an item with at least head_from events is head, with at most tail_to events tail.

    Items are taken in levels of equal popularity, so that equal items share a segment. A level is head when the
    middle of its share of events, counted from the most popular, lies within ``head``; tail likewise from the other
    end. Where popularity differs at all, the top level is head and the bottom level tail, however large they are.

    Args:
        counts: the distinct numbers of events per item, all above 0.
        items: how many items have that number.
        head: share of events held by the most popular items.
        tail: share of events held by the least popular items.
    """
    if len(counts) < 2:
        return (int(counts[0]) + 1, 0) if len(counts) else (1, 0)
    order = np.argsort(-counts)
    levels, mass = counts[order], (counts * items)[order].astype(np.float64)
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    in_head, in_tail = middle <= head, middle >= 1 - tail
    in_head[0], in_tail[-1] = True, True
    head_from = int(levels[in_head].min())
    tail_to = int(levels[in_tail & ~in_head].max()) if (in_tail & ~in_head).any() else 0
    return head_from, tail_to


def item_codes(num_events_N: NDArray[Any], head: float, tail: float) -> NDArray[np.int8]:
    """The place in ``ITEM_SEGMENTS`` of each item ``[N]``; ``cold`` is an item without events."""
    events = np.asarray(num_events_N).astype(np.int64)
    levels, items = np.unique(events[events > 0], return_counts=True)
    head_from, tail_to = popularity_bounds(levels, items, head, tail)
    codes = np.where(events >= head_from, 0, np.where(events <= tail_to, 2, 1))
    return np.where(events == 0, 3, codes).astype(np.int8)


def history_codes(lengths_U: NDArray[Any]) -> NDArray[np.int8]:
    """The place in ``HISTORY_SEGMENTS`` of each user ``[U]``: new up to 5 items, light up to 19, heavy beyond."""
    return np.searchsorted([_NEW_UP_TO, _LIGHT_UP_TO], np.asarray(lengths_U), side="left").astype(np.int8)
