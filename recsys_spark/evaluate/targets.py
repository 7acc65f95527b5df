"""What is held out for the test, and which users are measured by it."""

from __future__ import annotations

from pyspark.sql import DataFrame

from recsys_spark.context import Context
from recsys_spark.draw import drawn_users
from recsys_spark.histories import liked
from recsys_spark.log import get_logger

log = get_logger(__name__)


def held_out_targets(context: Context) -> DataFrame:
    """Distinct ``(user_idx, user_id, item_idx, item_id)`` of the test; a disliked item is no target.

    Of more than ``evaluate.max_users`` users so many are drawn by seeded hash: the same ones for every system. Found out once
    for all of them.
    """
    return context.once("held-out targets", lambda: context.kept(_drawn_targets(context)))


def _drawn_targets(context: Context) -> DataFrame:
    events = liked(context.events("test"))
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
