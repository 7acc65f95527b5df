"""From tables to the small integers that metrics need: where each system ranked each target, and what it recommends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.segments import ITEM_SEGMENTS


@dataclass(frozen=True)
class SystemFrames:
    """What one system left behind: its lists ``(user_id, item_id, rank)`` and, if written, full ranks of the targets."""

    lists: DataFrame
    full_ranks: DataFrame | None  # user_id, item_id, rank, num_candidates


def ranked_targets(wanted: DataFrame, systems: Mapping[str, SystemFrames], segments: DataFrame, history: DataFrame) -> DataFrame:
    """One row per target, integers only, for NumPy.

    Columns: ``user_idx``, ``segment`` (position in ITEM_SEGMENTS), ``activity`` (events in the user's history), and per
    system s, counted from 0: ``rank_s`` in its list, ``full_s`` among all candidates, ``candidates_s`` ranked; 0 where
    there is none. A user without a list stays, with rank 0.
    """
    codes = F.array_position(F.array(*[F.lit(name) for name in ITEM_SEGMENTS]), F.col("segment")) - 1
    activity = history.groupBy("user_idx").agg(F.count(F.lit(1)).cast("int").alias("activity"))
    frame = wanted.join(segments.select("item_idx", codes.cast("int").alias("segment")), "item_idx", "left")
    frame = frame.join(activity, "user_idx", "left")
    for place, system in enumerate(systems.values()):
        lists = system.lists.select("user_id", "item_id", F.col("rank").alias(f"rank_{place}"))
        frame = frame.join(lists, ["user_id", "item_id"], "left")
        frame = _with_full_ranks(frame, system.full_ranks, place)
    numbers = [c for c in frame.columns if c.startswith(("rank_", "full_", "candidates_"))]
    cold = F.lit(ITEM_SEGMENTS.index("cold"))
    return frame.select(
        "user_idx",
        F.coalesce("segment", cold).alias("segment"),
        F.coalesce("activity", F.lit(0)).alias("activity"),
        *[F.coalesce(F.col(c), F.lit(0)).alias(c) for c in numbers],
    )


def _with_full_ranks(frame: DataFrame, full_ranks: DataFrame | None, place: int) -> DataFrame:
    if full_ranks is None:
        return frame
    full = full_ranks.select(
        "user_id", "item_id", F.col("rank").alias(f"full_{place}"), F.col("num_candidates").alias(f"candidates_{place}")
    )
    return frame.join(full, ["user_id", "item_id"], "left")


def item_counts(catalogue: DataFrame, systems: Mapping[str, SystemFrames], users: DataFrame, ks: Sequence[int]) -> DataFrame:
    """Per item of ``catalogue`` (item_id, num_events): ``num_events`` and ``count_s_k``, how often system s has it in a top k.

    Only lists of ``users`` (user_id) count, so that all systems are judged on the same users.
    """
    frame = catalogue.select("item_id", "num_events")
    for place, system in enumerate(systems.values()):
        shown = [F.sum((F.col("rank") <= k).cast("int")).alias(f"count_{place}_{k}") for k in ks]
        counts = system.lists.join(users, "user_id", "left_semi").groupBy("item_id").agg(*shown)
        frame = frame.join(counts, "item_id", "left")
    names = [f"count_{place}_{k}" for place in range(len(systems)) for k in ks]
    return frame.select("num_events", *[F.coalesce(F.col(n), F.lit(0)).alias(n) for n in names])


def sampled_categories(
    systems: Mapping[str, SystemFrames], users: DataFrame, items: DataFrame, max_users: int, seed: int
) -> DataFrame:
    """``(system int, user_id, rank, item_id, category)`` of the lists of at most ``max_users`` users, drawn by seeded hash."""
    drawn = users.orderBy(F.xxhash64("user_id", F.lit(seed)), "user_id").limit(max_users)
    parts = [
        s.lists.join(F.broadcast(drawn), "user_id", "left_semi").select(
            F.lit(place).alias("system"), "user_id", "rank", "item_id"
        )
        for place, s in enumerate(systems.values())
    ]
    union = parts[0]
    for part in parts[1:]:
        union = union.unionByName(part)
    return union.join(items.select("item_id", "category"), "item_id", "left").select(
        "system", "user_id", "rank", "item_id", "category"
    )
