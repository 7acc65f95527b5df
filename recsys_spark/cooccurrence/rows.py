"""Rows of events as columns, whole or in ranges of their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUCKET_ROWS = 131_072  # of many rows so many are sorted at a time: a core's cache holds them
_MOST_PARTS = 64  # that rows are dealt to ranges in


@dataclass(frozen=True)
class Rows:
    """What counts need of each event: ``keys`` (its basket) and ``items``, all of one length.

    ``times`` in microseconds, ``weights``, ``sides`` (bits) and ``owners`` (hash of the user) only where they are needed.
    """

    keys: NDArray[np.int64]
    items: NDArray[np.int32]
    times: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    sides: NDArray[np.int8] | None = None
    owners: NDArray[np.int64] | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        """Those that there are."""
        return {field.name: column for field in fields(self) if (column := getattr(self, field.name)) is not None}

    def take(self, chosen: NDArray[Any] | slice) -> Rows:
        """These rows (a mask, or positions; a slice: as views)."""
        return Rows(**{name: column[chosen] for name, column in self.columns().items()})


def join_rows(parts: Sequence[Rows]) -> Rows:
    """All rows of ``parts`` (one or more), in order; all have the same columns."""
    return Rows(**{name: np.concatenate([part.columns()[name] for part in parts]) for name in parts[0].columns()})


def by_ranges_of_keys(rows: Rows) -> Iterator[Rows]:
    """Rows in ranges of keys, ascending, of some ``BUCKET_ROWS`` rows where keys are spread evenly, as hashes are.

    Few rows are one range. Of many, a part at a time is put in order of ranges, which a core's cache holds too; a range is what
    all parts have of it.
    """
    if len(rows.keys) < 2 * BUCKET_ROWS:
        yield rows
        return
    bucket_of, num_buckets = _ranges_of_keys(rows.keys)
    step = max(2 * BUCKET_ROWS, len(rows.keys) // _MOST_PARTS)
    parts = []
    for first in range(0, len(rows.keys), step):
        part = rows.take(slice(first, first + step))
        buckets = bucket_of(part.keys)
        order = np.argsort(buckets, kind="stable")  # of 16-bit numbers: a radix sort
        parts.append((part.take(order), np.searchsorted(buckets[order], np.arange(num_buckets + 1))))
    for bucket in range(num_buckets):
        found = join_rows([part.take(slice(ends[bucket], ends[bucket + 1])) for part, ends in parts])
        if len(found.keys):
            yield found


def _ranges_of_keys(keys: NDArray[np.int64]) -> tuple[Callable[[NDArray[np.int64]], NDArray[np.int16]], int]:
    """A function from keys to numbers of their ranges, ascending, and how many ranges there are."""
    low, high = int(keys.min()), int(keys.max())
    most = min(len(keys) // BUCKET_ROWS, 1 << 14)
    shift = max(0, (high - low).bit_length() - most.bit_length())

    def bucket_of(some: NDArray[np.int64]) -> NDArray[np.int16]:
        distance = some.astype(np.uint64) - np.uint64(low & (1 << 64) - 1)  # modulo 2^64: no difference overflows
        return (distance >> np.uint64(shift)).astype(np.int16)

    return bucket_of, ((high - low) >> shift) + 1
