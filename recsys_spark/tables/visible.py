"""What a run may see of the event log: one function, so that no stage can look past its cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

Rows = Literal["fit", "history", "validation", "test"]


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


def visible(events: DataFrame, cutoff: Cutoff, rows: Rows = "fit") -> DataFrame:
    """The part of ``events`` (one row per event) that a run may use.

    ``fit``: what anything may be fitted on. ``history``: fit and validation rows, known when test is scored; never
    fitted on. ``validation`` and ``test``: the targets, read by fusion and evaluation alone.
    """
    if isinstance(cutoff, InstantCutoff):
        return events.where(_between(cutoff, rows))
    before = events.where(F.col("ts") < _instant(cutoff.end))
    if rows in ("validation", "test"):
        return before.join(cutoff.holdout.where(F.col("role") == rows).select("event_id"), "event_id", "left_semi")
    hidden = cutoff.holdout if rows == "fit" else cutoff.holdout.where("role <> 'validation'")
    return before.join(hidden.select("event_id"), "event_id", "left_anti")


def _instant(moment: datetime) -> Column:
    return F.timestamp_micros(F.lit(round(moment.timestamp() * 1_000_000)))


def _between(cutoff: InstantCutoff, rows: Rows) -> Column:
    ts, fit, history = F.col("ts"), _instant(cutoff.fit_until), _instant(cutoff.history_until)
    # the date bound is implied by the instant; it lets Delta skip whole partitions
    upto = F.col("event_date") <= F.to_date(_instant(cutoff.end))
    return {
        "fit": upto & (ts < fit),
        "history": upto & (ts < history),
        "validation": upto & (ts >= fit) & (ts < history),
        "test": upto & (ts >= history) & (ts < _instant(cutoff.end)),
    }[rows]


def robots(events: DataFrame, max_events_per_minute: float | None, max_z_score: float | None, min_users: int) -> DataFrame:
    """Users that act like machines: ``(user_idx, reasons)``; judged on ``events``, which must be visible ones.

    A user is a robot by rate (events in the busiest minute) or by the z-score of log(1 + events) over all users;
    the z-score is left out below ``min_users`` users.
    """
    minutes = events.groupBy("user_idx", F.date_trunc("minute", "ts").alias("minute")).count()
    per_user = minutes.groupBy("user_idx").agg(F.max("count").alias("peak"), F.sum("count").alias("num_events"))
    spread = per_user.agg(
        F.avg(F.log1p("num_events")).alias("mean"), F.stddev(F.log1p("num_events")).alias("std"), F.count(F.lit(1)).alias("users")
    )
    z = (F.log1p("num_events") - F.col("mean")) / F.col("std")
    by_rate = F.col("peak") > (max_events_per_minute if max_events_per_minute is not None else float("inf"))
    by_z = (F.col("users") >= min_users) & (F.col("std") > 0) & (z > (max_z_score if max_z_score is not None else float("inf")))
    reasons = F.filter(F.array(F.when(by_rate, F.lit("rate")), F.when(by_z, F.lit("z_score"))), lambda reason: reason.isNotNull())
    return per_user.crossJoin(F.broadcast(spread)).select("user_idx", reasons.alias("reasons")).where(F.size("reasons") > 0)
