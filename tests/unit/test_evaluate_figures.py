"""Segments, intervals and the rows of table metrics, on examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.errors import InputError
from recsys_spark.evaluate import figures
from recsys_spark.evaluate.segments import user_segments
from recsys_spark.evaluate.significance import bootstrap, bootstrap_means, paired_bootstrap
from recsys_spark.segments import popularity_bounds


def test_popularity_bounds_cut_by_share_of_events() -> None:
    # 1 item x 50, 2 x 20, 10 x 1 = 100 events: top level alone is half of all
    assert popularity_bounds(np.array([50, 20, 1]), np.array([1, 2, 10]), 0.2, 0.2) == (50, 1)
    # levels of 10% each: the first two are head, the last two tail
    counts = np.arange(10, 0, -1) * 1
    items = 2520 // counts
    assert popularity_bounds(counts, items, 0.2, 0.2) == (9, 2)


def test_equal_popularity_is_torso() -> None:
    head_from, tail_to = popularity_bounds(np.array([7]), np.array([4]), 0.2, 0.2)
    assert head_from > 7
    assert tail_to < 7


def test_user_segments_by_terciles() -> None:
    found = user_segments(np.array([0, 1, 2, 3, 4, 5, 6]))
    assert found.tolist() == ["cold", "light", "light", "medium", "medium", "heavy", "heavy"]
    assert user_segments(np.array([0, 0])).tolist() == ["cold", "cold"]
    assert set(user_segments(np.array([3, 3, 3])).tolist()) == {"light"}  # equal users share a segment


def test_bootstrap_interval_of_a_share_is_the_textbook_one() -> None:
    values = np.repeat([0.0, 1.0], [300, 100])
    found = bootstrap(values, 4_000, 0.95, seed=1)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - half, abs=0.005)
    assert found.high == pytest.approx(0.25 + half, abs=0.005)


def test_bootstrap_is_seeded_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 3))
    whole = bootstrap_means(values, 40, seed=5)
    np.testing.assert_array_equal(whole, bootstrap_means(values, 40, seed=5))
    assert not np.array_equal(whole, bootstrap_means(values, 40, seed=6))
    monkeypatch.setattr("recsys_spark.evaluate.significance._MAX_WEIGHTS", 130)
    np.testing.assert_allclose(whole, bootstrap_means(values, 40, seed=5), atol=1e-15)


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(2)
    right = rng.random(500)
    left = right + 0.01 + 0.001 * rng.normal(size=500)
    paired = paired_bootstrap(left, right, 500, 0.95, seed=3)
    assert 0.009 < paired.low < paired.value < paired.high < 0.011
    with pytest.raises(InputError, match="same users"):
        paired_bootstrap(left, right[:-1], 10, 0.95, seed=3)


def _targets() -> figures.RankedTargets:
    columns = {
        "user_idx": np.array([40, 40, 7, 99]),
        "segment": np.array([0, 2, 0, 3]),
        "activity": np.array([5, 5, 0, 2]),
        "rank_0": np.array([1, 3, 0, 2]),
        "rank_1": np.array([2, 0, 0, 0]),
        "full_0": np.array([1, 3, 9, 2]),
        "candidates_0": np.array([10, 10, 10, 10]),
    }
    return figures.from_columns(("fused", "popularity"), columns)


def _row(rows: list[dict], system: str, name: str, k: int, segment: str = "all") -> dict:
    (found,) = [r for r in rows if (r["system"], r["name"], r["k"], r["segment"]) == (system, name, k, segment)]
    return found


def test_rows_of_systems_differences_and_segments() -> None:
    rows = figures.ranking_rows(_targets(), [1, 3], figures.Draws(50, 0.9, 0))
    assert _row(rows, "fused", "recall", 3)["value"] == pytest.approx((1 + 0 + 1) / 3)
    assert _row(rows, "popularity", "recall", 3)["value"] == pytest.approx(0.5 / 3)
    difference = _row(rows, "fused - popularity", "recall", 3)
    assert difference["value"] == pytest.approx(1.5 / 3)
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert _row(rows, "fused", "recall", 3, "item_head")["num_users"] == 2  # users 40 and 7
    assert _row(rows, "fused", "recall", 3, "item_head")["value"] == 0.5
    assert _row(rows, "fused", "recall", 3, "item_tail")["value"] == 1.0  # user 40's second target alone
    assert _row(rows, "fused", "recall", 1, "user_cold")["value"] == 0.0
    assert _row(rows, "fused", "recall", 3, "item_cold")["value"] == 1.0
    assert not [r for r in rows if r["segment"] == "item_torso"]
    assert _row(rows, "fused", "auc", 0)["value"] == pytest.approx((15 / 16 + 1 / 9 + 8 / 9) / 3)
    assert not [r for r in rows if r["name"] == "auc" and "popularity" in r["system"]]  # no full ranks, no AUC


def test_list_and_diversity_rows() -> None:
    counts = {"num_events": np.array([3, 0, 0]), "count_0_2": np.array([4, 0, 0])}
    rows = figures.list_rows(["popularity"], [2], counts, 4)
    values = {r["name"]: r["value"] for r in rows}
    assert values == {"coverage": pytest.approx(1 / 3), "gini": pytest.approx(2 / 3), "novelty": pytest.approx(-np.log2(4 / 6))}
    lists = [
        (0, "u", 1, "a", "Drama|Comedy"),
        (0, "u", 2, "b", "Drama"),
        (0, "v", 1, "c", None),
        (0, "v", 2, "a", "Drama|Comedy"),
    ]
    (row,) = figures.diversity_rows(["fused"], [2], lists, "|")
    assert row["value"] == pytest.approx(((1 - 1 / np.sqrt(2)) + 1) / 2)
    assert figures.diversity_rows(["fused"], [2], [(0, "u", 1, "a", None)], None) == []
