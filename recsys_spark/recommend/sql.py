"""How readers see a night: views that join the live tables with the newest row of ``published``."""

from __future__ import annotations

from pyspark.sql import SparkSession

from recsys_spark.errors import InputError
from recsys_spark.tables.store import Store

VIEWS = {
    "recommendations_current": "recommendations",
    "item_neighbours_current": "item_neighbours",
    "fallback_recommendations_current": "fallback_recommendations",
    "shortfalls_current": "shortfalls",
}
VIEWS_WHERE_ASKED_FOR = {"user_neighbours_current": "user_neighbours"}  # of tables that a warehouse need not have


def current_sql(root: str, table: str) -> str:
    """The query behind a view: rows of the night that ``published`` points at, whatever else the table holds.

    Raises:
        InputError: the warehouse's path cannot stand in a query.
    """
    if "`" in root:
        raise InputError("warehouse", repr(root), "a path without backquotes")
    live = f"{root.rstrip('/')}/live"
    return (
        f"SELECT t.* FROM delta.`{live}/{table}` t\n"  # noqa: S608  (constants, and a path that is checked above)
        f"JOIN (SELECT as_of, run_id FROM delta.`{live}/published` ORDER BY sequence DESC LIMIT 1) p\n"
        "ON t.as_of = p.as_of AND t.run_id = p.run_id"
    )


def lists_for_everyone_sql(users: str = "visitors") -> str:
    """The join readers use: a user's own list, else that of their context, else the one for all; nothing for a user whom rules,
    or what they have seen, leave no item.

    ``users`` is a table ``(user_id, context)`` of whom lists are wanted for.
    """
    return (
        "SELECT v.user_id, r.rank, r.item_id, r.score\n"  # noqa: S608  (a table name of the caller's own)
        f"FROM {users} v JOIN recommendations_current r ON r.user_id = v.user_id\n"
        "UNION ALL\n"
        "SELECT v.user_id, f.rank, f.item_id, f.score\n"
        f"FROM {users} v LEFT ANTI JOIN recommendations_current r ON r.user_id = v.user_id\n"
        "LEFT ANTI JOIN shortfalls_current s ON s.user_id = v.user_id AND s.num_items = 0\n"
        "JOIN fallback_recommendations_current f\n"
        "ON f.context = CASE WHEN v.context IN (SELECT context FROM fallback_recommendations_current)"
        " THEN v.context ELSE '' END"
    )


def register_views(spark: SparkSession, root: str) -> None:
    """Create the temporary views of all tables that stand in the warehouse at ``root``; they follow each publish and
    rollback.
    """
    store = Store(spark, root)
    optional = {view: table for view, table in VIEWS_WHERE_ASKED_FOR.items() if store.exists(table, "live")}
    for view, table in (VIEWS | optional).items():
        spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW {view} AS {current_sql(root, table)}")
