"""Times in any of the configured formats become instants; a log that has only an order gets synthetic ones."""

from __future__ import annotations

import re
from datetime import timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.ingest import EventSource
from recsys_spark.errors import ConfigError
from recsys_spark.ingest.fields import Fields

ORDER_START = "2000-01-01 00:00:00"  # UTC instant of event_pos 0 in a log that has only an order
FUTURE = timedelta(days=1)
_DATE = r"^\d{4}-\d{1,2}-\d{1,2}([T ]|$)"  # Spark alone would take '12:30' for today and '2020' for a day
_NO_OFFSET = r"^\d{4}-\d{1,2}-\d{1,2}([T ][\d:.]*)?$"
_OFFSET_LETTERS = set("VzOXx")  # of a Spark datetime pattern
_EPOCH_UNITS = {"epoch_seconds": 1_000_000, "epoch_millis": 1_000}  # microseconds


def check_time_settings(spark: SparkSession, source: EventSource, where: str) -> None:
    """Try the pattern and the zone before any data is read.

    Raises:
        ConfigError: no such time zone, or no such pattern.
    """
    try:
        ZoneInfo(source.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(f"{where} time_zone", repr(source.time_zone), "a zone name, as 'Europe/Berlin'") from None
    if source.time_format == "iso" or source.time_format in _EPOCH_UNITS:
        return
    try:
        spark.range(1).select(F.try_to_timestamp(F.lit("x"), F.lit(source.time_format))).collect()
    except PySparkException:
        expected = "iso, epoch_seconds, epoch_millis or a Spark datetime pattern, as 'dd.MM.yyyy HH:mm:ss'"
        raise ConfigError(f"{where} time_format", repr(source.time_format), expected) from None


def instant(fields: Fields, source: EventSource) -> Column:
    """``ts`` of each row as a timestamp (the session's zone is UTC); null where missing or not a time."""
    kind = fields.type_of("ts")
    if kind == "timestamp":
        return fields.raw("ts")
    if kind in ("timestamp_ntz", "date"):
        return F.to_utc_timestamp(fields.raw("ts").cast("timestamp"), source.time_zone)
    text = fields.text("ts")
    if source.time_format in _EPOCH_UNITS:
        micros = text.try_cast("decimal(30,6)") * F.lit(_EPOCH_UNITS[source.time_format])
        return F.timestamp_micros(micros.try_cast("bigint"))
    if source.time_format == "iso":
        local = F.when(text.rlike(_DATE), text.try_cast("timestamp"))
        return F.when(text.rlike(_NO_OFFSET), F.to_utc_timestamp(local, source.time_zone)).otherwise(local)
    parsed = F.try_to_timestamp(text, F.lit(source.time_format))
    if _OFFSET_LETTERS & set(re.sub("'[^']*'", "", source.time_format)):
        return parsed
    return F.to_utc_timestamp(parsed, source.time_zone)


def synthetic(position: Column) -> Column:
    """``event_pos`` seconds after the start of 2000 (UTC), for a log that has only an order."""
    return F.timestamp_seconds(F.unix_timestamp(F.lit(ORDER_START).cast("timestamp")) + position)
