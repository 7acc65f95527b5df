"""Weights of profile texts: words are believed where they tell what new users of the validation go for, and only there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.night import BASELINES, Night
from recsys_spark.recommend.arrangement import PLAIN
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.stage import run
from recsys_spark.register import profile_fit
from recsys_spark.register.profile_fit import POPULAR, candidates, fit_profiles
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.runs import StagePlan
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

AS_OF, CUTOFF, START = (datetime(2024, month, 1, tzinfo=UTC) for month in (3, 2, 1))
TOPICS = ("garden", "kitchen", "music")
NUM_ITEMS, OLD, NEW = 12, 20, 30  # item i is of topic i % 3; old users meet items 0, 1 and 2 most


def _config(root: str, **recommend: Any) -> Config:
    return parse_config(
        {
            "as_of": AS_OF,
            "warehouse": root,
            "ingest": {"events": {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}},
            "recommend": {"k": 3, **recommend},
        }
    )


def _event(pos: int, user: int, item: int, ts: datetime) -> tuple[Any, ...]:
    return (f"e{pos}", f"u{user}", user, f"i{item}", item, "view", None, 1.0, 1, ts, pos, f"s{user}", {}, ts.date())


def _store(spark: SparkSession, root: Path, wants_topic: bool) -> Store:
    """New users say a topic; they go for its least popular items, or for the most popular item of all."""
    store, commit = Store(spark, str(root)), Commit("run", "test", "fingerprint")

    def write(table: str, rows: list[tuple[Any, ...]]) -> None:
        store.replace(table, "live", spark.createDataFrame(rows, contract(table).schema), commit)

    events = [_event(n, n % OLD, (n * n) % NUM_ITEMS if n % 4 == 0 else n % 3, START + timedelta(hours=n)) for n in range(200)]
    for user in range(OLD, OLD + NEW):
        item = 9 + user % 3 if wants_topic else 0
        events.append(_event(1_000 + user, user, item, CUTOFF + timedelta(hours=user)))
    write("events", events)
    day = START.date()
    topics = [(i, TOPICS[i % 3]) for i in range(NUM_ITEMS)]
    write("items", [(f"i{i}", i, f"t{i}", f"{t} n{i}", True, t, None, True, f"s{i}", day, None) for i, t in topics])
    write("cooccurrence", [])
    users = [(f"u{u}", u, None if u < OLD else f"I like {TOPICS[u % 3]}", None) for u in range(OLD + NEW + 3)]
    write("users", users)
    return store


@pytest.mark.parametrize("wants_topic", [True, False])
def test_words_are_believed_where_they_tell(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wants_topic: bool
) -> None:
    store = _store(spark, tmp_path / "warehouse", wants_topic)
    config = _config(store.root)
    context = Context(spark, store, config, "live", InstantCutoff(CUTOFF, AS_OF, AS_OF), "night1")
    assert fit_profiles(config, context, None, None) is None  # 30 new users: too few to tell
    monkeypatch.setattr(profile_fit, "MIN_PROFILE_USERS", NEW)
    fit = fit_profiles(config, context, None, None)
    assert fit is not None
    assert fit.num_users == NEW
    if wants_topic:
        assert fit.weights["text"] > 0
        assert fit.ndcg > fit.popular_ndcg
    else:
        assert fit.weights == POPULAR
        assert fit.ndcg == fit.popular_ndcg == 1.0
    assert fit_profiles(_config(store.root, profile_weights={"text": 1.0}), context, None, None) is None


def test_a_vector_by_the_profile_is_weighed_beside(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that point at what new users go for; words point elsewhere."""
    store = _store(spark, tmp_path / "warehouse", True)
    config = _config(store.root)
    context = Context(spark, store, config, "live", InstantCutoff(CUTOFF, AS_OF, AS_OF), "night1")
    monkeypatch.setattr(profile_fit, "MIN_PROFILE_USERS", NEW)
    axes = [F.when(F.col("item_idx") == i, 1.0).otherwise(0.0).cast("float") for i in range(NUM_ITEMS)]
    items = store.read("items", "live").select("item_idx", F.array(*axes).alias("vector"))

    def by_profile(rows: DataFrame) -> DataFrame:
        wanted = 9 + F.col("user_idx") % 3
        axes = [F.when(wanted == i, 1.0).otherwise(0.0).cast("float") for i in range(NUM_ITEMS)]
        return rows.select("user_idx", F.array(*axes).alias("vector"))

    fit = fit_profiles(config, context, items, by_profile)
    assert fit is not None
    assert fit.weights["encoder"] > 0
    assert fit.ndcg == 1.0


def test_profile_texts_that_tell_nothing_are_passed_over(spark: SparkSession, tmp_path: Path) -> None:
    store = _store(spark, tmp_path / "warehouse", True)
    sources = {}
    for namespace, weights in (("eval/words", {}), ("eval/popular", POPULAR)):
        config = _config(store.root, profile_weights=weights, partners=["text", "popularity"])
        run(config, Context(spark, store, config, namespace, InstantCutoff(CUTOFF, AS_OF, CUTOFF), "night1"), upstream="live")
        rows = store.read("recommendations", namespace).where(F.col("user_id") == f"u{OLD + NEW}").collect()
        sources[namespace] = {row["source"] for row in rows}
    assert sources == {"eval/words": {"profile"}, "eval/popular": {"popular"}}


def test_without_a_model_lists_are_made_by_cooccurrence_whatever_the_weights(spark: SparkSession, tmp_path: Path) -> None:
    """A refused challenger must leave a night that publishes, though the config's weights name only the encoder; what this
    night has found profile texts to be worth holds all the same."""
    night = Night(_config(_store(spark, tmp_path / "warehouse", True).root, weights={"encoder": 1.0}), spark)
    assert night._fusion(None) == (Fusion(BASELINES["cooccurrence"]), PLAIN)
    night.context("eval").run_stage(StagePlan("register", {}, {}, ()), lambda _: ([], {"profile": {"weights": POPULAR}}))
    assert night._fusion(None) == (Fusion(BASELINES["cooccurrence"], profile=POPULAR), PLAIN)


def test_candidates_begin_with_what_is_popular() -> None:
    found = candidates(["text", "popularity"])
    assert found[0] == POPULAR
    assert {"text": 1.0, "popularity": 0.1} in found
    assert {"text": 0.1, "popularity": 1.0} in found
    assert all(max(each.values()) == 1.0 and each.get("text", 0.0) + (each == POPULAR) for each in found)
    assert len({tuple(sorted(each.items())) for each in found}) == len(found) == 1 + 8
