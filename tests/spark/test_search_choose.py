"""Searching frames: the choice of the way, shards on disk, and reruns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from benchmarks.speed.approximate import clustered
from recsys_spark.config.search import SearchSettings
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.search.choose import prepare
from recsys_spark.search.exact import nearest
from recsys_spark.search.lists import Lists
from recsys_spark.search.sharded import search_all
from recsys_spark.search.storage import publish
from recsys_spark.tables.local import local_frame

ITEMS, QUERIES, K = clustered(3_000, 16, 30, 0.8, 5, 0), clustered(150, 16, 30, 0.8, 5, 1), 12
EXACT = SearchSettings(exact_below=10_000, items_per_shard=1_000, query_block=40)
APPROXIMATE = SearchSettings(exact_below=10, items_per_shard=1_000, sample_queries=100, recall_target=0.97, recall_floor=0.9)


def frame(spark: SparkSession, key: str, vectors: Any) -> DataFrame:
    """Vectors under their row numbers times 3, so that an index and a position are never the same."""
    rows = [(3 * number, vector.tolist()) for number, vector in enumerate(vectors)]
    return local_frame(spark, rows, f"{key} int, vector array<float>")


def nearest_items(spark: SparkSession, queries: DataFrame, *rest: Any) -> tuple[DataFrame, dict[str, Any]]:
    task, facts = prepare(spark, queries, *rest)
    return search_all(queries, task), facts


def lists(found: DataFrame) -> dict[int, list[tuple[int, float]]]:
    """Per query (item, score) in the order of ranks, which must be 1, 2, 3 ..."""
    out: dict[int, list[tuple[int, float]]] = {}
    for row in found.orderBy("query_idx", "rank").collect():
        mine = out.setdefault(row["query_idx"], [])
        mine.append((row["item_idx"], row["score"]))
        assert row["rank"] == len(mine)
    return out


def expected(wanted: Lists) -> dict[int, list[tuple[int, float]]]:
    pairs = zip((3 * wanted.positions).tolist(), wanted.scores.tolist(), strict=True)
    return {3 * query: list(zip(*pair, strict=True)) for query, pair in enumerate(pairs)}


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def items(spark: SparkSession) -> DataFrame:
    return frame(spark, "item_idx", ITEMS)


@pytest.fixture(scope="module")
def queries(spark: SparkSession) -> DataFrame:
    return frame(spark, "query_idx", QUERIES)


def test_exact_shards_give_the_lists_of_the_whole(
    spark: SparkSession, items: DataFrame, queries: DataFrame, tmp_path: Path
) -> None:
    found, facts = nearest_items(spark, queries, items, K, EXACT, str(tmp_path), 1, "inner_product")
    assert lists(found) == expected(nearest(QUERIES, ITEMS, K))
    assert (facts["method"], facts["recall"], facts["sample"], facts["k"]) == ("exact", 1.0, 0, K)
    assert facts["files_written"] == 3
    assert len(list(tmp_path.glob("*/vectors-*.npy"))) == 3


def test_approximate_reaches_its_target_and_a_rerun_builds_nothing(
    spark: SparkSession, items: DataFrame, queries: DataFrame, tmp_path: Path
) -> None:
    found, facts = nearest_items(spark, queries, items, K, APPROXIMATE, str(tmp_path), 1)
    once, whole = lists(found), expected(nearest(QUERIES, ITEMS, K))
    hits = [len({item for item, _ in once[query]} & {item for item, _ in whole[query]}) / K for query in whole]
    assert (facts["method"], facts["sample"], facts["num_items"]) == ("approximate", 100, 3_000)
    assert facts["recall"] == facts["approximate_recall"] >= 0.9
    assert np.mean(hits) == pytest.approx(facts["recall"], abs=0.03)  # the fact is about all queries, not the sample alone
    assert facts["files_written"] == 3 + 1 + 3  # shards, centroids, an index for each shard
    before = stamps(tmp_path)
    reordered = items.orderBy("vector")  # the same items, whatever their order
    again, more = nearest_items(spark, queries, reordered, K, APPROXIMATE, str(tmp_path), 1)
    assert more["files_written"] == 0
    assert stamps(tmp_path) == before
    assert lists(again) == once
    assert {name: more[name] for name in ("recall", "effort")} == {name: facts[name] for name in ("recall", "effort")}


def test_a_lost_index_file_is_built_alone(spark: SparkSession, items: DataFrame, queries: DataFrame, tmp_path: Path) -> None:
    nearest_items(spark, queries, items, K, APPROXIMATE, str(tmp_path), 2)
    lost = sorted(tmp_path.glob("*/index-*.ivf"))[1]
    content = lost.read_bytes()
    lost.unlink()
    _, facts = nearest_items(spark, queries, items, K, APPROXIMATE, str(tmp_path), 2)
    assert facts["files_written"] == 1
    assert lost.read_bytes() == content


def test_below_the_floor_every_query_is_searched_exactly(
    spark: SparkSession, items: DataFrame, queries: DataFrame, tmp_path: Path
) -> None:
    strict = SearchSettings(exact_below=10, recall_target=1.0, recall_floor=1.0, max_effort=1)
    found, facts = nearest_items(spark, queries, items, K, strict, str(tmp_path), 1, "inner_product")
    assert (facts["method"], facts["recall"], facts["effort"]) == ("exact", 1.0, 1)
    assert facts["approximate_recall"] < 1.0
    assert "below recall_floor 1.0" in facts["reason"]
    assert lists(found) == expected(nearest(QUERIES, ITEMS, K))


def test_cosine_does_not_see_lengths(spark: SparkSession, queries: DataFrame, tmp_path: Path) -> None:
    lengths = np.random.default_rng(1).uniform(0.5, 4, (len(ITEMS), 1)).astype(np.float32)
    found, _ = nearest_items(spark, queries, frame(spark, "item_idx", ITEMS * lengths), K, EXACT, str(tmp_path), 1)
    whole = expected(nearest(QUERIES, ITEMS, K))
    for query, mine in lists(found).items():
        assert [score for _, score in mine] == pytest.approx([score for _, score in whole[query]], abs=1e-6)


def test_more_than_there_are_gives_all_and_says_so(spark: SparkSession, queries: DataFrame, tmp_path: Path) -> None:
    few = frame(spark, "item_idx", np.repeat(ITEMS[:1], 4, axis=0))
    for settings in (EXACT, APPROXIMATE.model_copy(update={"exact_below": 0})):
        found, facts = nearest_items(spark, queries.limit(3), few, 9, settings, str(tmp_path), 1)
        assert (facts["k"], facts["k_asked"]) == (4, 9)
        rows = lists(found)
        orders = {tuple(item for item, _ in mine) for mine in rows.values()}
        assert len(rows) == 3
        assert len(orders) == 1  # all four are equal: one seeded order for every query
        assert sorted(orders.pop()) == [0, 3, 6, 9]


def test_no_queries_give_no_rows(spark: SparkSession, items: DataFrame, queries: DataFrame, tmp_path: Path) -> None:
    found, facts = nearest_items(spark, queries.limit(0), items, K, APPROXIMATE, str(tmp_path), 1)
    assert found.count() == 0
    assert facts["reason"] == "no queries"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, [1.0, float("nan")]), (1, [1.0, 2.0])], "1 vectors with null, NaN or infinity"),
        ([(0, [1.0, float("inf")])], "1 vectors with null, NaN or infinity"),
        ([(0, None)], "1 rows with a null item_idx or vector"),
        ([(0, [1.0, 2.0]), (1, [1.0])], "vectors of 1 to 2 dimensions"),
        ([(0, [1.0, 2.0]), (0, [3.0, 1.0])], "2 rows with 1 different item_idx"),
        ([(0, [1.0, 2.0])], "16 dimensions; expected 2, as the items have"),
        ([], "no rows"),
    ],
)
def test_items_that_cannot_be_searched_are_refused_before_anything_is_written(
    spark: SparkSession, queries: DataFrame, tmp_path: Path, rows: list[Any], message: str
) -> None:
    bad = local_frame(spark, rows, "item_idx int, vector array<float>")
    with pytest.raises(InputError, match=message):
        nearest_items(spark, queries, bad, K, EXACT, str(tmp_path), 1)
    assert not list(tmp_path.iterdir())


def test_wrong_columns_and_k_are_refused(spark: SparkSession, items: DataFrame, queries: DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column query_idx; expected query_idx int"):
        nearest_items(spark, items, items, K, EXACT, str(tmp_path), 1)
    doubles = items.selectExpr("item_idx", "cast(vector as array<double>) vector")
    with pytest.raises(InputError, match="column vector is array<double>"):
        nearest_items(spark, queries, doubles, K, EXACT, str(tmp_path), 1)
    with pytest.raises(ConfigError, match="k = 0"):
        nearest_items(spark, queries, items, 0, EXACT, str(tmp_path), 1)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(tmp_path / "index", broken)
    assert not list(tmp_path.iterdir())
    assert publish(tmp_path / "index", lambda path: path.touch())
    assert not publish(tmp_path / "index", broken)  # it stands: nothing is written
