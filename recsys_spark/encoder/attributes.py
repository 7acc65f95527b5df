"""Attribute values of items as rows of an embedding: a dictionary made in training and kept with the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

CATEGORY = "category"  # the items' own column; any other name is a key of their attributes
SEPARATOR = "|"  # between the values of one attribute, as ingest writes them
NO_VALUE = -1


def values_of(category: str | None, attributes: Mapping[str, str] | None, names: Sequence[str]) -> list[str]:
    """``name=value`` of every value of the named attributes, in the order of ``names``; absent ones leave nothing."""
    filled = {**(attributes or {}), **({} if category is None else {CATEGORY: category})}
    parts = ((name, part.strip()) for name in names for part in (filled.get(name) or "").split(SEPARATOR))
    return list(dict.fromkeys(f"{name}={part}" for name, part in parts if part))


def dictionary(items: Iterable[Sequence[str]], least_items: int) -> list[str]:
    """Values that at least ``least_items`` items have, in the order of their text: rarer ones would be a second id."""
    counts = Counter(value for values in items for value in values)
    return sorted(value for value, count in counts.items() if count >= least_items)


def attribute_rows(items: Sequence[Sequence[str]], row_of: Mapping[str, int], width: int) -> NDArray[np.int64]:
    """Rows int64 [n, width] of each item's first ``width`` known values, padded with -1 on the right."""
    rows = np.full((len(items), width), NO_VALUE, dtype=np.int64)
    for number, values in enumerate(items):
        known = [row_of[value] for value in values if value in row_of][:width]
        rows[number, : len(known)] = known
    return rows
