"""What a run may see of the event log: one function, so that no stage can look past its cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.tables.instants import instant

Rows = Literal["fit", "history", "validation", "test"]
MAX_SENT_USERS = 1_000_000  # to all tasks, instead of their events to them


@dataclass(frozen=True)
class InstantCutoff:
    """Cuts by time (UTC): fitted on before ``fit_until``, validation up to ``history_until``, test up to ``end``.

    In ``live`` all three are ``as_of``, so validation and test are empty.
    """

    fit_until: datetime
    history_until: datetime
    end: datetime

    def describe(self) -> str:
        return f"fit < {self.fit_until.isoformat()}, history < {self.history_until.isoformat()}, end {self.end.isoformat()}"


@dataclass(frozen=True)
class HoldoutCutoff:
    """Cuts by a table ``holdout(event_id, role)`` and by time at ``end``.

    Roles: ``validation``, ``test``, and ``hidden``, which nothing sees.
    """

    holdout: DataFrame
    end: datetime
    name: str

    def describe(self) -> str:
        return f"holdout {self.name}, end {self.end.isoformat()}"


Cutoff = InstantCutoff | HoldoutCutoff


ROLE = "_role"
ROLES: dict[Rows, tuple[str, ...]] = {
    "fit": ("fit",),
    "history": ("fit", "validation"),
    "validation": ("validation",),
    "test": ("test",),
}


def visible(events: DataFrame, cutoff: Cutoff, rows: Rows = "fit") -> DataFrame:
    """The part of ``events`` (one row per event) that a run may use.

    ``fit``: what anything may be fitted on. ``history``: fit and validation rows, known when test is scored; never
    fitted on. ``validation`` and ``test``: the targets, read by fusion and evaluation alone.
    """
    return of_role(with_role(events, cutoff), rows)


def with_role(events: DataFrame, cutoff: Cutoff) -> DataFrame:
    """All events that any part of a run may see, with ``_role``: fit, validation or test, each event exactly one."""
    # the date bound is implied by the instant; it lets Delta skip whole partitions
    before = events.where((F.col("event_date") <= F.to_date(instant(cutoff.end))) & (F.col("ts") < instant(cutoff.end)))
    if isinstance(cutoff, InstantCutoff):
        validation = F.when(F.col("ts") < instant(cutoff.history_until), "validation").otherwise("test")
        return before.withColumn(ROLE, F.when(F.col("ts") < instant(cutoff.fit_until), "fit").otherwise(validation))
    held = cutoff.holdout.select("event_id", F.col("role").alias(ROLE))
    marked = before.join(held, "event_id", "left").withColumn(ROLE, F.coalesce(F.col(ROLE), F.lit("fit")))
    return marked.where(F.col(ROLE) != "hidden").select(*events.columns, ROLE)


def of_role(marked: DataFrame, *parts: Rows) -> DataFrame:
    """The rows of ``with_role`` that ``visible`` means, without the mark."""
    return marked.where(F.col(ROLE).isin(*(role for rows in parts for role in ROLES[rows]))).drop(ROLE)


def robots(events: DataFrame, max_events_per_minute: float | None, max_z_score: float | None, min_users: int) -> DataFrame:
    """Users that act like machines: ``(user_idx, reasons)``; judged on ``events``, which must be visible ones.

    A user is a robot by rate (events in the busiest minute) or by the z-score of log(1 + events) over all users;
    the z-score is left out below ``min_users`` users.
    """
    per_user = events.groupBy("user_idx").agg(F.count(F.lit(1)).alias("num_events"))
    spread = per_user.agg(
        F.avg(F.log1p("num_events")).alias("mean"), F.stddev(F.log1p("num_events")).alias("std"), F.count(F.lit(1)).alias("users")
    )
    z = (F.log1p("num_events") - F.col("mean")) / F.col("std")
    by_z = (F.col("users") >= min_users) & (F.col("std") > 0) & (z > (max_z_score if max_z_score is not None else float("inf")))
    judged = per_user.crossJoin(F.broadcast(spread))
    if max_events_per_minute is None:
        return judged.where(by_z).select("user_idx", F.array(F.lit("z_score")).alias("reasons"))
    by_rate = F.col("peak") > max_events_per_minute
    reasons = F.array_compact(F.array(F.when(by_rate, F.lit("rate")), F.when(by_z, F.lit("z_score"))))
    peaks = _peaks(events, per_user.where(F.col("num_events") > max_events_per_minute).select("user_idx"))
    return judged.join(peaks, "user_idx", "left").select("user_idx", reasons.alias("reasons")).where(F.size("reasons") > 0)


def _peaks(events: DataFrame, users: DataFrame) -> DataFrame:
    """``(user_idx, peak)``: events in the busiest minute of these users. Few have as many events at all as a minute would have to
    have; minutes of the others are not counted."""
    few = users.limit(MAX_SENT_USERS + 1).count() <= MAX_SENT_USERS
    theirs = events.join(F.broadcast(users) if few else users, "user_idx", "left_semi")
    minutes = theirs.groupBy("user_idx", F.date_trunc("minute", "ts").alias("minute")).count()
    return minutes.groupBy("user_idx").agg(F.max("count").alias("peak"))
