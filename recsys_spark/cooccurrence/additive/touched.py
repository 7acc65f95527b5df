"""Which baskets have changed between two sights of the event log, and the rows of those: all that an update has to read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.cooccurrence.baskets import basket_key, basket_rows
from recsys_spark.cooccurrence.way import is_broadcast
from recsys_spark.log import get_logger
from recsys_spark.tables.change_feed import SIGN
from recsys_spark.tables.instants import instant
from recsys_spark.tables.local import local_frame

_WAS, _IS = "_was_robot", "_is_robot"
_FLAGS = ("_old", "_new")
_BYTES_PER_KEY = 64  # of a hash table that a join is sent
_MOST_DAYS = 400  # named to a scan one by one
log_of = get_logger(__name__)


@dataclass(frozen=True)
class Sight:
    """What counts of the log: events before ``until`` but for those of ``robots`` (``user_idx``, each once)."""

    until: datetime
    robots: DataFrame


def touched_rows(
    log: DataFrame, changes: DataFrame, before: Sight, after: Sight, settings: CooccurrenceSettings
) -> tuple[DataFrame, tuple[DataFrame, ...]]:
    """All rows of the baskets that an event has entered or left: of late events, deleted ones, those between two cutoffs,
    and those of users who have become robots or are none any longer.

    Args:
        log: the events as they are now.
        changes: events put in and taken out since ``before``, with ``_sign`` (see ``change_feed.changes_since``).

    Returns:
        rows of ``basket_rows`` with ``new int`` (counts now) and ``old int`` (in sum over equal rows, counted
        before), and what has been kept to make them: the caller lets go of it when it has read the rows.
    """
    robots, changed = _robots(before, after)
    gone = _net(_flagged(changes, robots, before, after), settings).persist()
    moved = _rows(_moved(log, robots, changed, before, after), settings)
    keys = moved.select("basket").union(gone.select("basket")).distinct().persist()
    # The planner guesses their number from sizes of files, and would shuffle all of a large log for them.
    if is_broadcast("touched baskets", (keys.count() * _BYTES_PER_KEY) >> 20, settings):
        near = _of(keys, log if settings.basket == "history" else _days_of(keys, log, settings), settings)
        here = _rows(_flagged(near, robots, before, after), settings)
    else:
        here = _rows(_flagged(log, robots, before, after), settings).join(keys, "basket", "left_semi")
    return here.unionByName(gone.where("old <> 0")), (gone, keys)


def _of(keys: DataFrame, log: DataFrame, settings: CooccurrenceSettings) -> DataFrame:
    """Events of these baskets."""
    return log.join(F.broadcast(keys), basket_key(settings.basket) == keys["basket"], "left_semi")


def _days_of(keys: DataFrame, log: DataFrame, settings: CooccurrenceSettings) -> DataFrame:
    """The days of the log on which these baskets have events: what keys are made of is read of all, the rest of these."""
    days = [row[0] for row in _of(keys, log, settings).select("event_date").distinct().collect()]
    log_of.info("touched baskets", days=len(days))
    return log.where(F.col("event_date").isin(days)) if len(days) <= _MOST_DAYS else log


def _moved(log: DataFrame, robots: DataFrame, changed: DataFrame | None, before: Sight, after: Sight) -> DataFrame:
    """Events of the log that count in one sight alone; without new or former robots, only the days between are read."""
    lower = instant(min(before.until, after.until))
    late = log.where((F.col("event_date") >= F.to_date(lower)) & (F.col("ts") >= lower))
    of_changed = [] if changed is None else [log.join(F.broadcast(changed), "user_idx", "left_semi")]
    parts = [_flagged(part, robots, before, after).where("_old <> _new") for part in (late, *of_changed)]
    return reduce(DataFrame.unionByName, parts)


def _robots(before: Sight, after: Sight) -> tuple[DataFrame, DataFrame | None]:
    """Robots of either sight, and those that are of one alone (None: there is none). The driver holds them, as joins with them
    would have it do: without any, the planner leaves out all that asks for them."""
    was = {row[0] for row in before.robots.select("user_idx").collect()}
    now = was if after.robots is before.robots else {row[0] for row in after.robots.select("user_idx").collect()}
    rows = [(user, user in was or None, user in now or None) for user in sorted(was | now)]
    spark = before.robots.sparkSession
    changed = [(user,) for user in sorted(was ^ now)]
    told = local_frame(spark, rows, f"user_idx int, {_WAS} boolean, {_IS} boolean")
    return told, local_frame(spark, changed, "user_idx int") if changed else None


def _flagged(events: DataFrame, robots: DataFrame, before: Sight, after: Sight) -> DataFrame:
    """Events that count in either sight, with 1 or 0 in ``_old`` and ``_new``."""
    reach = instant(max(before.until, after.until))
    seen = events.where((F.col("event_date") <= F.to_date(reach)) & (F.col("ts") < reach))
    marked = seen.join(F.broadcast(robots), "user_idx", "left")
    old = (F.col("ts") < instant(before.until)) & F.col(_WAS).isNull()
    new = (F.col("ts") < instant(after.until)) & F.col(_IS).isNull()
    flagged = marked.withColumns({"_old": old.cast("int"), "_new": new.cast("int")})
    return flagged.where("_old = 1 OR _new = 1").select(*events.columns, *_FLAGS)


def _rows(flagged: DataFrame, settings: CooccurrenceSettings) -> DataFrame:
    rows = basket_rows(flagged, settings, *_FLAGS).withColumnsRenamed({"_old": "old", "_new": "new"})
    return rows.drop("owner", "weight")


def _net(flagged: DataFrame, settings: CooccurrenceSettings) -> DataFrame:
    """What has to be taken from the present rows to have the old ones: an update that touches no column of ours is none.

    ``new`` is 0: rows that are there now stand in the log."""
    rows = basket_rows(flagged, settings, *_FLAGS, SIGN).drop("owner", "weight")
    names = [name for name in rows.columns if name != SIGN]
    net = rows.groupBy(*names).agg(F.sum(SIGN).alias(SIGN)).where(f"{SIGN} <> 0")
    old = (-F.col(SIGN) * F.col("_old")).cast("int").alias("old")
    return net.select(*[n for n in names if n not in _FLAGS], old, F.lit(0).alias("new"))
