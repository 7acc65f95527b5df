"""The partners in closed form as stages write them: EASE from counted histories, ALS whose users come out of the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame, SparkSession
from scipy import sparse

from recsys_spark.collaborative import stage
from recsys_spark.collaborative.als import item_factors
from recsys_spark.collaborative.ease import ease_weights
from recsys_spark.collaborative.gram import gram_of
from recsys_spark.config import parse_config
from recsys_spark.config.signals import AlsShape
from recsys_spark.errors import MachineError
from recsys_spark.recommend.scoring.vector_items import FactorItems
from recsys_spark.tables.store import Store

NUM_USERS, NUM_ITEMS = 60, 15
AS_OF = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def met() -> np.ndarray:
    return np.random.default_rng(3).random((NUM_USERS, NUM_ITEMS)) < 0.25


@pytest.fixture(scope="module")
def events(spark: SparkSession, met: np.ndarray) -> DataFrame:
    """Each cell twice, in another place of the day: a Gram matrix counts users, not events. Item numbers have gaps."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [(f"u{u}", int(u), 10 + 3 * int(i), start + timedelta(minutes=int(i)), 1, 1.0) for u, i in np.argwhere(met)]
    disliked = [("u0", 0, 999, start, -1, 1.0)]
    schema = "user_id string, user_idx int, item_idx int, ts timestamp, label int, weight float"
    return spark.createDataFrame(rows + rows[::2] + disliked, schema).cache()


def test_the_gram_matrix_is_counted_exactly(events: DataFrame, met: np.ndarray) -> None:
    found = gram_of(events, max_history=100, seed=1)
    assert found.item_idx.tolist() == [10 + 3 * i for i in np.flatnonzero(met.any(axis=0))]
    seen = met[:, met.any(axis=0)].astype(float)
    np.testing.assert_array_equal(found.counts.toarray(), seen.T @ seen)
    assert np.isfinite(ease_weights(found.counts, 3.0)).all()


def test_users_factors_are_those_that_spark_computes(spark: SparkSession, events: DataFrame) -> None:
    shape = AlsShape(factors=4, iterations=3, blocks=2, confidence=5.0, regularisation=0.1)
    liked = events.where("label = 1").groupBy("user_idx", "item_idx").count().withColumnRenamed("count", "rating")
    item_idx, factors = item_factors(events, shape, 7) or (np.empty(0), np.empty(0))
    als = ALS(
        rank=4, maxIter=3, regParam=0.1, implicitPrefs=True, alpha=5.0, userCol="user_idx", itemCol="item_idx",
        ratingCol="rating", seed=7, numUserBlocks=2, numItemBlocks=2,
    )  # fmt: skip
    model = als.fit(liked.repartition(2, "user_idx").sortWithinPartitions("user_idx", "item_idx"))
    theirs = {row["id"]: np.array(row["features"]) for row in model.userFactors.collect()}
    place = {int(item): row for row, item in enumerate(item_idx)}
    cells = [(row["user_idx"], place[row["item_idx"]], float(row["rating"])) for row in liked.collect()]
    users, cols, ratings = (np.array(part) for part in zip(*cells, strict=True))
    history = sparse.csr_matrix((ratings, (users, cols)), shape=(NUM_USERS, len(item_idx)))
    ours = FactorItems(factors, shape).users(history)
    assert len(theirs) > 50
    for user, expected in theirs.items():
        np.testing.assert_allclose(ours[user], expected, atol=2e-4)
    assert not FactorItems(factors, shape).users(sparse.csr_matrix((1, len(item_idx)))).any()


def test_what_is_served_has_ease_where_what_was_measured_had_it(
    spark: SparkSession, store: Store, events: DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much memory is free by then."""
    events_of = {"ingest": {"events": {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}}}
    config = parse_config({"as_of": AS_OF, "warehouse": store.root, **events_of})
    seen = SimpleNamespace(spark=spark, events=lambda rows: events)
    settings = config.collaborative.ease
    with_ease, facts = stage._ease(config, seen, settings, None)  # type: ignore[arg-type]
    assert not with_ease.isEmpty()
    assert stage.measured_ease(facts) is True
    none, left_out = stage._ease(config, seen, settings, False)  # type: ignore[arg-type]
    assert none.isEmpty()
    assert stage.measured_ease(left_out) is False
    assert stage.measured_ease({}) is None
    monkeypatch.setattr(stage, "free_bytes", lambda: 100)
    none, left_out = stage._ease(config, seen, settings, None)  # type: ignore[arg-type]
    assert none.isEmpty()
    assert stage.measured_ease(left_out) is False
    with pytest.raises(MachineError, match="lists were measured with it: free memory, then run again"):
        stage._ease(config, seen, settings, True)  # type: ignore[arg-type]
