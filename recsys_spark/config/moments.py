"""When and where an event was: what the user tower is told of each item of a history, as one integer."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP, HOUR, WEEKDAY = "gap", "hour", "weekday"
KEY_SIZE = 512  # 0: the event does not say; 1 + crc32 mod 511 of what it says under a key of its context
QUERY_SIZE = 2**32  # 0: the event does not say; 1 + crc32 mod 2^32 - 1 of the text: text vectors are found by it
MOST_KEYS = 2  # so that the integer stays below 2^63
_SIZES = {
    GAP: 32,  # 0: no event before, or not known; b: [2^(b-1) - 1, 2^b - 1) seconds since; the last: all that is longer
    HOUR: 25,  # 0: not known; 1 + hour of the day, UTC
    WEEKDAY: 8,  # 0: not known; 1 is Sunday
}


@dataclass(frozen=True)
class Part:
    """One part of a moment: ``moment // unit % size``. ``name`` is gap, hour, weekday, or a key of the events' context."""

    name: str
    unit: int
    size: int

    @property
    def is_query(self) -> bool:
        """Whether it stands for a text with a vector of the text model."""
        return self.size == QUERY_SIZE


def moment_parts(time_gaps: bool, context: Sequence[str], query_key: str | None = None) -> tuple[Part, ...]:
    """The parts of a moment, the gap first, the query last."""
    sizes = [(GAP, _SIZES[GAP])] if time_gaps else []
    sizes += [(name, _SIZES.get(name, KEY_SIZE)) for name in context]
    sizes += [] if query_key is None else [(query_key, QUERY_SIZE)]
    found, unit = [], 1
    for name, size in sizes:
        found.append(Part(name, unit, size))
        unit *= size
    return tuple(found)


def moment_of(parts: Sequence[Part], row: Mapping[str, object]) -> int:
    """The moment of a row with ``gap_seconds``, ``hour`` (0-23), ``weekday`` (1 = Sunday) and ``context`` (a dict), each of
    which may be absent; the twin of ``recsys_spark.histories.moments``."""
    return sum(part.unit * _value(part, row) for part in parts)


def _value(part: Part, row: Mapping[str, object]) -> int:
    if part.name not in _SIZES:
        context = row.get("context")
        value = context.get(part.name) if isinstance(context, Mapping) else None
        return 0 if value is None else 1 + zlib.crc32(str(value).encode("utf-8")) % (part.size - 1)
    value = row.get("gap_seconds" if part.name == GAP else part.name)
    if not isinstance(value, int | float) or value != value:  # NaN: absent in a data frame
        return 0
    whole = max(int(value), 0)
    if part.name == GAP:
        return min((whole + 1).bit_length(), part.size - 1)
    return min(whole + (part.name == HOUR), part.size - 1)
