"""What is wrong with a log, on purpose: which rows, how they are spoilt, and what ingest calls it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_spark.synthetic.catalogue import Ints
from recsys_spark.synthetic.randomness import Stream, generator
from recsys_spark.synthetic.settings import LogFormat, SyntheticSettings

FAR_FUTURE_US = 7_258_118_400_000_000  # 2200-01-01 in microseconds after 1970
NO_TIME = "half past nine"
NEGATIVE = -1.0
UNKNOWN_ITEM = "x"  # starts the id of an item that no catalogue has
NONE, DUPLICATE = 0, 1


@dataclass(frozen=True)
class Flaw:
    """One way of being bad. ``reason``: what ingest writes into quarantine; None: ingest keeps the row."""

    code: int
    name: str
    reason: str | None


MISSING_USER = Flaw(2, "missing_user_id", "missing user_id")
MISSING_ITEM = Flaw(3, "missing_item_id", "missing item_id")
TS_ZERO = Flaw(4, "ts_zero", "ts is 0")
TS_FUTURE = Flaw(5, "ts_far_future", "ts is more than a day in the future")
ITEM_UNKNOWN = Flaw(6, "unknown_item_id", None)
VALUE_NEGATIVE = Flaw(7, "negative_value", None)
TS_NO_TIME = Flaw(8, "ts_not_a_time", "ts is not a time")
BAD = (MISSING_USER, MISSING_ITEM, TS_ZERO, TS_FUTURE, ITEM_UNKNOWN, VALUE_NEGATIVE, TS_NO_TIME)


def bad_kinds(log_format: LogFormat) -> tuple[Flaw, ...]:
    """What the format can hold: a column of timestamps has no place for text."""
    return BAD[:-1] if log_format == "parquet" else BAD


def draw_flaws(settings: SyntheticSettings, block: int, num_events: int) -> tuple[Ints, npt.NDArray[np.int8]]:
    """Which of a block's events become rows, and each row's flaw.

    Returns: ``rows`` ``[R]``, places of events, one that is written twice standing there twice in a row; ``flaw`` ``[R]``,
    ``NONE``, ``DUPLICATE`` (the second of two equal rows) or a code of ``BAD``. No row has two flaws.
    """
    rng = generator(settings.seed, Stream.FLAWS, block)
    u = rng.random(num_events)
    flaw = np.zeros(num_events, np.int8)
    spoilt = np.flatnonzero(u >= 1.0 - settings.bad_rows)
    kinds = np.array([kind.code for kind in bad_kinds(settings.format)], np.int8)
    flaw[spoilt] = kinds[rng.integers(0, len(kinds), len(spoilt))]
    twice = np.flatnonzero(u < settings.duplicates)
    rows = np.insert(np.arange(num_events), twice + 1, twice)
    return rows, np.insert(flaw, twice + 1, np.int8(DUPLICATE))
