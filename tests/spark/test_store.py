"""The store: contracts are checked, equal content is never committed, versions are pinned."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.errors import ContractError, MissingTableError
from recsys_spark.tables.content import (
    Content,
    content,
    content_hash,
    contents_by,
    differing_rows,
    frames_equal,
    row_hash,
)
from recsys_spark.tables.contracts import TABLES, contract
from recsys_spark.tables.store import Commit, Store, slice_of

NS = "live"


def _pairs(spark: SparkSession, rows: list[tuple[int, int, float]]) -> DataFrame:
    full = [(a, b, w, "behaviour", "train") for a, b, w in rows]
    return spark.createDataFrame(full, contract("pairs").schema)


def test_every_contract_parses_and_its_keys_are_columns(spark: SparkSession) -> None:
    for spec in TABLES.values():
        names = set(spec.schema.names)
        assert names
        for key in (*spec.keys, spec.partition):
            assert set(key) <= names
        assert set(spec.not_null) <= names


def test_equal_content_is_not_committed_even_in_another_order(spark: SparkSession, store: Store, commit: Commit) -> None:
    rows = [(i, i + 1, 1.0) for i in range(20)]
    first = store.replace("pairs", NS, _pairs(spark, rows), commit)
    again = store.replace("pairs", NS, _pairs(spark, rows[::-1]).repartition(3), commit)
    assert (first.version, first.changed) == (0, True)
    assert (again.version, again.changed) == (0, False)
    assert store.version("pairs", NS) == 0


def test_floats_within_tolerance_are_equal_and_beyond_it_are_not(spark: SparkSession, store: Store, commit: Commit) -> None:
    store.replace("pairs", NS, _pairs(spark, [(1, 2, 1.0), (2, 3, 0.5)]), commit)
    assert not store.replace("pairs", NS, _pairs(spark, [(1, 2, 1.0 + 5e-7), (2, 3, 0.5)]), commit).changed
    assert store.replace("pairs", NS, _pairs(spark, [(1, 2, 1.0 + 1e-5), (2, 3, 0.5)]), commit).changed


def test_merge_writes_only_what_differs(spark: SparkSession, store: Store, commit: Commit) -> None:
    store.merge("pairs", NS, _pairs(spark, [(1, 2, 1.0), (2, 3, 1.0)]), commit)
    changed = store.merge("pairs", NS, _pairs(spark, [(2, 3, 1.0), (3, 4, 1.0)]), commit)
    nothing = store.merge("pairs", NS, _pairs(spark, [(2, 3, 1.0), (3, 4, 1.0)]), commit)
    assert (changed.rows, changed.version) == (1, 1)
    assert (nothing.rows, nothing.version, nothing.changed) == (0, 1, False)
    assert sorted(r["anchor_idx"] for r in store.read("pairs", NS).collect()) == [1, 2, 3]


def test_contract_violations_write_nothing(spark: SparkSession, store: Store, commit: Commit) -> None:
    good = _pairs(spark, [(1, 2, 1.0)])
    faults = {
        "table 'pairs': anchor_idx is bigint; expected contract says int": good.selectExpr(
            "bigint(anchor_idx) anchor_idx", "item_idx", "weight", "source", "split"
        ),
        "column split is absent": good.drop("split"),
        "column sauce is not in the contract": good.withColumnRenamed("source", "sauce").selectExpr("*", "sauce source"),
        "key anchor_idx=1, item_idx=2, source='behaviour' occurs 2 times": good.union(good),
        "1 rows with null weight": good.selectExpr("anchor_idx", "item_idx", "float(null) weight", "source", "split"),
    }
    for message, frame in faults.items():
        with pytest.raises(ContractError) as caught:
            store.replace("pairs", NS, frame, commit)
        assert message in str(caught.value)
    assert not store.exists("pairs", NS)


def test_a_table_written_with_another_type_is_replaced_by_the_contract_s(
    spark: SparkSession, store: Store, commit: Commit
) -> None:
    rows = [(1, [5, 6], 2, 1.0, [3, 4])]
    names = "user_idx int, items array<int>, num_items int, weight float, moments array<int>"
    old = spark.createDataFrame(rows, names)
    old.write.format("delta").option("userMetadata", commit.metadata(rows=1, digest=0)).save(store.path("training_sequences", NS))
    longer = [(1, [5, 6], 2, 1.0, [3, 2**40])]
    store.replace("training_sequences", NS, spark.createDataFrame(longer, contract("training_sequences").schema), commit)
    (row,) = store.read("training_sequences", NS).collect()
    assert row["moments"] == [3, 2**40]


def test_slice_replace_leaves_other_slices(spark: SparkSession, store: Store, commit: Commit) -> None:
    def rows(run: str, k: int) -> DataFrame:
        data = [("", r, f"i{r}", 1.0, run, None) for r in range(1, k + 1)]
        frame = spark.createDataFrame(data, "context string, rank int, item_id string, score double, run_id string, x string")
        return frame.drop("x").selectExpr("*", "timestamp'2024-01-01 00:00:00' as_of")

    for run, k in (("a", 2), ("b", 3), ("a", 1), ("a", 1)):
        where = slice_of(as_of="2024-01-01 00:00:00", run_id=run)
        written = store.replace("fallback_recommendations", NS, rows(run, k), commit, where=where)
    assert not written.changed
    counts = store.read("fallback_recommendations", NS).groupBy("run_id").count().collect()
    assert {r["run_id"]: r["count"] for r in counts} == {"a": 1, "b": 3}


def test_training_tables_are_equal_files_in_the_same_order(spark: SparkSession, store: Store, commit: Commit) -> None:
    rows = [(i, i + 1, 1.0) for i in range(50)]
    frame = spark.createDataFrame(rows, contract("training_pairs").schema)
    store.replace("training_pairs", NS, frame, commit, num_files=4)
    store.replace("training_pairs", "eval/x", frame.orderBy("item_idx", ascending=False), commit, num_files=4)
    tables = [
        [pq.read_table(f.removeprefix("file:")).to_pydict() for f in store.files("training_pairs", ns)] for ns in (NS, "eval/x")
    ]
    assert sorted(len(t["anchor_idx"]) for t in tables[0]) == [12, 12, 13, 13]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_rows_are_not_written_twice(spark: SparkSession, store: Store, commit: Commit, count: int) -> None:
    frame = spark.createDataFrame([(i, i + 1, 1.0) for i in range(count)], contract("training_pairs").schema)
    written = [store.replace("training_pairs", NS, frame, commit, num_files=4) for _ in range(3)]
    assert [w.changed for w in written] == [True, False, False]


def test_reading_a_table_that_is_not_there(store: Store) -> None:
    with pytest.raises(MissingTableError, match="table 'pairs': not written"):
        store.read("pairs", NS)
    assert store.version("pairs", NS) == -1
    assert store.read_or_empty("pairs", NS).isEmpty()


@pytest.mark.parametrize("namespace", ["../x", "a//b", "eval/ x", "a;b", ""])
def test_namespaces_are_plain_names(store: Store, namespace: str) -> None:
    with pytest.raises(ContractError):
        store.path("pairs", namespace)


def test_slices_are_built_from_checked_parts() -> None:
    with pytest.raises(ContractError):
        slice_of(run_id="x' OR 1=1 --")


def test_content_hash_sees_nulls_and_multiplicity(spark: SparkSession) -> None:
    def frame(rows: list[tuple[str | None, str | None]]) -> DataFrame:
        return spark.createDataFrame(rows, "a string, b string")

    assert content_hash(frame([("x", None)])) != content_hash(frame([(None, "x")]))
    assert content_hash(frame([("x", "y")])) != content_hash(frame([("x", "y"), ("x", "y")]))
    assert content_hash(frame([("x", "y"), ("z", "w")])) == content_hash(frame([("z", "w"), ("x", "y")]))


def test_the_total_of_a_content_is_the_plain_sum_of_its_row_hashes(spark: SparkSession) -> None:
    """However it is summed: contents are kept in commits, and those of before must stay what they are."""
    frame = spark.range(0, 3_000, 1, 3).selectExpr("id", "CAST(id % 3 AS string) AS kind")
    hashes = [(row["kind"], row["hash"]) for row in frame.select("kind", row_hash(frame).alias("hash")).collect()]
    assert min(h for _, h in hashes) < -(2**62) < 2**62 < max(h for _, h in hashes)
    assert content(frame) == Content(sum(h for _, h in hashes), 3_000)
    assert content(frame.where("id < 0")) == Content(0, 0)
    plain = {kind: content(frame.where(F.col("kind") == kind).drop("kind")) for kind in "012"}
    assert contents_by(frame, "kind") == plain
    assert sum(plain.values(), Content(0, 0)) == content(frame.drop("kind"))


def test_differing_rows_of_maps_and_vectors(spark: SparkSession) -> None:
    schema = "k int, m map<string,string>, v array<float>"
    old = spark.createDataFrame([(1, {"a": "1", "b": "2"}, [0.1, 0.2]), (2, {}, [1.0]), (3, None, None)], schema)
    new = spark.createDataFrame(
        [(1, {"b": "2", "a": "1"}, [0.1 + 1e-8, 0.2]), (2, {}, [1.0, 0.0]), (3, None, None), (4, {}, [])], schema
    )
    assert [r["k"] for r in differing_rows(new, old, ("k",)).orderBy("k").collect()] == [2, 4]
    assert not frames_equal(new, old, ("k",))
    assert frames_equal(old, old, ("k",))


@pytest.mark.parametrize("many", [False, True])
def test_a_key_that_occurs_twice_is_refused_whichever_way_it_is_looked_for(
    spark: SparkSession, store: Store, commit: Commit, many: bool
) -> None:
    rows = [(i, i + 1, 1.0) for i in range(50)]
    nulls = _pairs(spark, rows).withColumn("source", F.when(F.col("anchor_idx") != 3, F.col("source")))
    for write in (store.replace, store.merge):
        with pytest.raises(ContractError, match="key anchor_idx=7, item_idx=8, source='behaviour' occurs 2 times"):
            write("pairs", NS, _pairs(spark, [*rows, (7, 8, 0.5)]), commit, many=many)
        with pytest.raises(ContractError, match="1 rows with null source"):
            write("pairs", NS, nulls, commit, many=many)
    assert store.version("pairs", NS) == -1
    written = store.replace("pairs", NS, _pairs(spark, rows), commit, many=many)
    assert written.content == content_hash(store.read("pairs", NS))
