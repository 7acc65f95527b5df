"""Instants as columns and as microseconds: the one way a Python datetime enters an expression, whatever the zone of session
and process."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column
from pyspark.sql import functions as F

_MICROS_PER_SECOND = 1_000_000
MICROS_PER_DAY = 86_400 * _MICROS_PER_SECOND


def instant(moment: datetime) -> Column:
    """A timestamp literal, exact to the microsecond. ``moment`` must carry its zone."""
    return F.timestamp_micros(F.lit(unix_micros(moment)))


def unix_micros(moment: datetime) -> int:
    """Microseconds since 1970, as the function of that name has them of a column."""
    return round(moment.timestamp() * _MICROS_PER_SECOND)
