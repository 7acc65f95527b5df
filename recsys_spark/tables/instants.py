"""Instants as columns: the one way a Python datetime enters an expression, whatever the zone of session and process."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column
from pyspark.sql import functions as F


def instant(moment: datetime) -> Column:
    """A timestamp literal, exact to the microsecond. ``moment`` must carry its zone."""
    return F.timestamp_micros(F.lit(round(moment.timestamp() * 1_000_000)))
