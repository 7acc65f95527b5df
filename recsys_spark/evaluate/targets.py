"""What is held out for the test, and which users are measured by it."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.context import Context
from recsys_spark.draw import drawn_users
from recsys_spark.errors import InputError
from recsys_spark.histories import liked
from recsys_spark.log import get_logger

log = get_logger(__name__)


def held_out_targets(context: Context) -> DataFrame:
    """Distinct ``(user_idx, user_id, item_idx, item_id)`` of the test; a disliked item is no target, nor is a robot's.

    Of more than ``evaluate.max_users`` users so many are drawn by seeded hash: the same ones for every system. Found out once
    for all of them.
    """
    return context.once("held-out targets", lambda: context.kept(_drawn_targets(context)))


def check_test(context: Context) -> None:
    """Said before anything is counted and trained: a log that ended long before ``as_of`` has nothing to measure by.

    Raises:
        InputError: no event is held out for the test.
    """
    if not context.events("test").isEmpty():
        return
    last = context.events("history").agg(F.max("ts").cast("string")).first()
    found = f"no test event: the last event is of {last[0] if last and last[0] else 'no day'}"
    expected = f"held-out events ({context.cutoff.describe()})"
    raise InputError("evaluate", found, expected, "see as_of, evaluate.split and evaluate.holdout_days")


def _drawn_targets(context: Context) -> DataFrame:
    events = liked(context.events("test")).join(context.robots_of_the_test().select("user_idx"), "user_idx", "left_anti")
    wanted = events.select("user_idx", "user_id", "item_idx", "item_id").distinct()
    users, most = wanted.select("user_idx", "user_id").distinct(), context.config.evaluate.max_users
    if _are_few(users, most):
        return wanted
    return wanted.join(drawn_users(users, most, context.config.seed + 3), ["user_idx", "user_id"], "left_semi")


def _are_few(users: DataFrame, most: int) -> bool:
    """At most ``most``; else it is said."""
    found = users.count()
    if found > most:
        log.info("a part of the test's users is measured", users=most, of=found, setting="evaluate.max_users")
    return found <= most
