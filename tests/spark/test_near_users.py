"""Nearest users against a full sort in NumPy: exact and approximate, with ties, users without a vector and few users."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config, parse_config
from recsys_spark.recommend.neighbours.users import near_users
from recsys_spark.search.vectors import unit
from recsys_spark.tables.local import local_frame

N, K, SEED = 90, 5, 11
Lists = dict[str, list[tuple[str, float]]]


def _vectors() -> Any:
    """Of few different values, so that many cosines are equal; u7 says nothing; lengths differ."""
    rng = np.random.default_rng(3)
    vectors = rng.integers(-1, 2, (N, 4)).astype(np.float32) * rng.choice([1, 2, 4], (N, 1)).astype(np.float32)
    vectors[7] = 0.0
    return vectors


VECTORS = _vectors()


def _frame(spark: SparkSession, numbers: Any, vectors: Any = VECTORS) -> DataFrame:
    rows = [(f"u{n}", int(number), vector.tolist()) for n, (number, vector) in enumerate(zip(numbers, vectors, strict=True))]
    return local_frame(spark, rows, "user_id string, user_idx int, vector array<float>")


def _config(tmp_path: Path, k: int = K, **search: Any) -> Config:
    events = {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}
    data = {"as_of": datetime(2024, 1, 1, tzinfo=UTC), "warehouse": str(tmp_path / "warehouse"), "seed": SEED}
    return parse_config(data | {"ingest": {"events": events}, "recommend": {"user_neighbours": k}, "search": search})


def _lists(found: DataFrame) -> Lists:
    out: Lists = {}
    for row in found.orderBy("user_id", "rank").collect():
        mine = out.setdefault(row["user_id"], [])
        mine.append((row["neighbour_id"], row["score"]))
        assert row["rank"] == len(mine)
    return out


@pytest.fixture(scope="module")
def expected(spark: SparkSession) -> Lists:
    """Cosines to 9 decimals, then the seeded hash of the id."""
    hashed = _frame(spark, range(N)).select("user_idx", F.xxhash64(F.lit(SEED), "user_id").alias("tie")).collect()
    tie = np.array([row["tie"] for row in sorted(hashed)], np.int64)
    rows = unit(VECTORS).astype(np.float64)
    cosines = np.round((rows[:, None, :] * rows[None, :, :]).sum(axis=2), 9) + 0.0
    said = np.flatnonzero(rows.any(axis=1))
    out: Lists = {}
    for user in said:
        others = said[said != user]
        order = others[np.lexsort((tie[others], -cosines[user, others]))][:K]
        out[f"u{user}"] = [(f"u{other}", cosines[user, other]) for other in order]
    return out


@pytest.mark.parametrize(
    ("search", "method"),
    [({}, "exact"), ({"exact_below": 10, "lists": 2, "recall_target": 1.0, "items_per_shard": 40}, "approximate")],
)
def test_the_nearest_others_by_cosine_then_by_hash(
    spark: SparkSession, tmp_path: Path, expected: Lists, search: dict[str, Any], method: str
) -> None:
    found, facts = near_users(_frame(spark, range(N)), _config(tmp_path, **search))
    assert _lists(found) == expected
    assert len(expected) < N  # u7, and whoever else drew zeros
    assert (facts["method"], facts["recall"]) == (method, 1.0)


def test_numbers_dealt_to_users_decide_nothing(spark: SparkSession, tmp_path: Path, expected: Lists) -> None:
    found, _ = near_users(_frame(spark, 3 * np.random.default_rng(0).permutation(N)), _config(tmp_path))
    assert _lists(found) == expected


def test_few_users_and_none(spark: SparkSession, tmp_path: Path) -> None:
    config = _config(tmp_path, k=9)
    three = _lists(near_users(_frame(spark, range(3), np.eye(3, dtype=np.float32)), config)[0])
    assert {user: len(lists) for user, lists in three.items()} == {"u0": 2, "u1": 2, "u2": 2}
    one, facts = near_users(_frame(spark, [0], np.ones((1, 2), np.float32)), config)
    assert one.count() == 0
    assert facts["num_items"] == 1
    nobody, facts = near_users(_frame(spark, [0], np.zeros((1, 2), np.float32)), config)
    assert nobody.count() == 0
    assert facts["reason"] == "no user has a vector"
