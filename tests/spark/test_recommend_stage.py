"""The recommend stage on hand-made tables: who gets a list, what is in it and why; reruns and block sizes change nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from scipy.special import logit

from recsys_spark.cli import screen
from recsys_spark.cli.work import reader_sql
from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.errors import MissingTableError
from recsys_spark.publish import stage as publish
from recsys_spark.recommend.arrangement import Arrangement
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.new_items import NewItems
from recsys_spark.recommend.prefix import first_dimensions
from recsys_spark.recommend.sql import lists_for_everyone_sql, register_views
from recsys_spark.recommend.stage import ModelRef, run
from recsys_spark.recommend.users import user_rows
from recsys_spark.register import rerank_fit
from recsys_spark.register.fusion_fit import fit_fusion
from recsys_spark.register.rerank_fit import DIVERSITIES
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

AS_OF = datetime(2024, 2, 1, tzinfo=UTC)
START = datetime(2024, 1, 1, tzinfo=UTC)
TOPICS = ("garden", "kitchen")
NUM_ITEMS = 12  # items 0..11; even ones are garden, odd ones kitchen; 10 and 11 have no event; 11 is not available
# user, item, label, day
EVENTS = (
    [(0, item, 1, day) for day, item in enumerate((0, 2, 4))]
    + [(1, item, 1, day) for day, item in enumerate((1, 3, 5))]
    + [(2, 0, 1, 0), (2, 2, 1, 1), (2, 6, 1, 2), (2, 1, -1, 3)]
    + [(3, item, 1, item) for item in range(10)]
    + [(4, 8, -1, 5)]
)


def _events() -> list[tuple[Any, ...]]:
    rows = []
    for pos, (user, item, label, day) in enumerate(EVENTS):
        ts = START + timedelta(days=day, minutes=pos)
        where = {"country": "fr" if user in (0, 4) else "de"}
        event = (f"e{pos}", f"u{user}", user, f"i{item}", item, "view", None, 1.0, label, ts, pos, f"s{user}", where, ts.date())
        rows.append(event)
    return rows


def _fill(store: Store, commit: Commit) -> None:
    def write(table: str, rows: list[tuple[Any, ...]], namespace: str = "live") -> None:
        store.replace(table, namespace, store.spark.createDataFrame(rows, contract(table).schema), commit)

    write("events", _events())
    day = START.date()
    items = [
        (f"i{i}", i, f"Title {i}", f"{TOPICS[i % 2]} thing number{i}", TOPICS[i % 2], None, i != 11, f"sha{i}", day, None)
        for i in range(NUM_ITEMS)
    ]
    write("items", [tuple(x if x != "text" else "" for x in (*row[:4], True, *row[4:])) for row in items])
    users = [(f"u{u}", u, None, None) for u in range(5)]
    write("users", [*users, ("u5", 5, "I love the garden", None), ("u6", 6, "zzz", {"country": "fr"})])
    pairs = [(0, 2, 0.9), (2, 0, 0.9), (0, 4, 0.5), (2, 4, 0.6), (4, 2, 0.6), (2, 6, 0.4), (4, 6, 0.7), (1, 3, 0.8), (3, 5, 0.8)]
    write("cooccurrence", [(a, b, 1, 1, 1, 5, 1.0, 1.0, *[v] * 11, 1) for a, b, v in pairs])
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(NUM_ITEMS, 4)) + np.where(np.arange(NUM_ITEMS) % 2, 2.0, -2.0)[:, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write("item_embeddings", [(i, f"i{i}", vectors[i].tolist(), "s", "m", 3) for i in range(NUM_ITEMS)])
    write("user_embeddings", [(f"u{u}", u, vectors[u].tolist(), "s", 3, "m", 3) for u in range(4)])


def _config(store: Store, **recommend: Any) -> Config:
    data = {
        "as_of": AS_OF,
        "warehouse": store.root,
        "ingest": {
            "events": {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}, "context": ["country"]},
            "items": {"path": "y.csv", "columns": {"item_id": "i", "category": "c"}, "template": ""},
        },
        "recommend": {"k": 4, "neighbours_k": 3} | recommend,
    }
    return parse_config(data)


def _context(spark: SparkSession, store: Store, config: Config, fit_until: datetime = AS_OF, namespace: str = "live") -> Context:
    return Context(spark, store, config, namespace, InstantCutoff(fit_until, AS_OF, AS_OF), "night1")


def _lists(store: Store, namespace: str = "live") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in store.read("recommendations", namespace).orderBy("user_id", "rank").collect():
        found.setdefault(row["user_id"], []).append(row)
    return found


@pytest.fixture(scope="module")
def filled(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Shared by the tests of this file, which each write into a namespace of their own."""
    store = Store(spark, str(tmp_path_factory.mktemp("recommend") / "warehouse"))
    _fill(store, Commit("run", "test", "fingerprint"))
    return store


def test_lists_sources_reasons_and_shortfalls(spark: SparkSession, filled: Store) -> None:
    config = _config(filled, context_key="country", block_items=["i9"])
    context = _context(spark, filled, config, namespace="eval/lists")
    weights = {"encoder": 1.0, "cooccurrence": 1.0, "text": 0.5, "popularity": 0.1}
    report = run(config, context, ModelRef("m", 3), Fusion(weights), upstream="live", neighbours=True)
    assert report.status == "done"
    lists = _lists(filled, "eval/lists")
    sources = {user: {row["source"] for row in rows} for user, rows in lists.items()}
    assert sources == {"u0": {"personal"}, "u1": {"personal"}, "u2": {"personal"}, "u3": {"personal"}} | {
        "u4": {"context"},
        "u5": {"profile"},
        "u6": {"context"},
    }
    met = {(f"u{u}", f"i{i}") for u, i, _, _ in EVENTS}
    for user, rows in lists.items():
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
        for row in rows:
            assert (user, row["item_id"]) not in met
            assert row["item_id"] not in ("i9", "i11")
            assert row["model_version"] == 3
            assert 1 <= len(row["reasons"]) <= 3
            assert 0 <= sum(reason["contribution"] for reason in row["reasons"]) <= 1 + 1e-9
    assert lists["u0"][0]["item_id"] == "i6"  # garden, and met together with what u0 has
    assert {r["ref_id"] for r in lists["u0"][0]["reasons"]} <= {"i0", "i2", "i4", "category"}
    assert {r["item_id"] for r in lists["u5"][:3]} <= {f"i{i}" for i in range(0, 12, 2)}
    assert lists["u5"][0]["reasons"][0]["ref_id"] == "profile_text"
    assert {r["item_id"] for r in lists["u6"][:3]} == {"i0", "i2", "i4"}  # what France likes
    short = {row["user_id"]: (row["num_items"], row["reason"]) for row in filled.read("shortfalls", "eval/lists").collect()}
    assert short == {"u3": (1, "fewer than K unseen items")}
    neighbours = filled.read("item_neighbours", "eval/lists").collect()
    by_item = {i: sorted(r["rank"] for r in neighbours if r["item_id"] == f"i{i}") for i in range(NUM_ITEMS)}
    assert all(ranks == [1, 2, 3] for ranks in by_item.values())
    assert all(row["item_id"] != row["neighbour_id"] and row["reasons"] for row in neighbours)
    fallback = filled.read("fallback_recommendations", "eval/lists").orderBy("context", "rank").collect()
    assert {row["context"] for row in fallback} == {"", "fr", "de"}
    assert {row["item_id"] for row in fallback if row["context"] == "fr"} >= {"i0", "i2", "i4"}


def test_lists_of_a_segment_hold_what_its_rules_leave(spark: SparkSession, filled: Store, tmp_path: Path) -> None:
    """France may have three items only, of which one is blocked for it; everybody else is as before."""
    listed = tmp_path / "lists.csv"
    rows = [("i6", "fr", "allow"), ("i7", "fr", "allow"), ("i8", "fr", "allow"), ("i8", "fr", "block"), ("i9", "", "block")]
    listed.write_text("item_id,segment,rule\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    keys = {"context_key": "country", "segment_key": "country"}
    config = _config(filled, lists_path=str(listed), **keys)
    weights = {"encoder": 1.0, "cooccurrence": 1.0, "text": 0.5, "popularity": 0.1}
    run(config, _context(spark, filled, config, namespace="eval/segments"), ModelRef("m", 3), Fusion(weights), upstream="live")
    before = _config(filled, block_items=["i9"], **keys)
    run(before, _context(spark, filled, before, namespace="eval/nosegments"), ModelRef("m", 3), Fusion(weights), upstream="live")
    lists, others = _lists(filled, "eval/segments"), _lists(filled, "eval/nosegments")
    french = {"u0", "u4", "u6"}  # by their newest event, u6 by an attribute
    for user in lists:
        items = [row["item_id"] for row in lists[user]]
        if user in french:
            assert set(items) == {"i6", "i7"}
        else:
            assert items == [row["item_id"] for row in others[user]]
    reasons = {row["user_id"]: row["reason"] for row in filled.read("shortfalls", "eval/segments").collect()}
    assert {reasons[user] for user in french} == {"the rules of the segment leave fewer than K items"}
    unknown = filled.read("fallback_recommendations", "eval/segments").where("context = 'fr'").collect()
    assert {row["item_id"] for row in unknown} == {"i6", "i7"}


def test_rerun_does_nothing_and_neither_blocks_nor_who_writes_change_anything(
    spark: SparkSession, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(filled)
    context = _context(spark, filled, config, namespace="eval/rerun")
    weights = {"cooccurrence": 1.0, "text": 0.3}
    run(config, context, None, Fusion(weights), upstream="live", neighbours=True)
    tables = ("recommendations", "item_neighbours")
    before = {table: (filled.content(table, "eval/rerun"), filled.version(table, "eval/rerun")) for table in tables}
    assert min(filled.rows(table, "eval/rerun") for table in tables) > 10
    assert run(config, context, None, Fusion(weights), upstream="live", neighbours=True).status == "skipped"
    smaller = _config(filled, user_block=1, item_tile=2)
    monkeypatch.setattr(Store, "task_folder", lambda *_: None)  # as where only Spark can write
    context = _context(spark, filled, smaller, namespace="eval/rerun")
    assert run(smaller, context, None, Fusion(weights), upstream="live", neighbours=True).status != "skipped"
    # an equal result is not committed
    assert {table: (filled.content(table, "eval/rerun"), filled.version(table, "eval/rerun")) for table in tables} == before
    other = _context(spark, filled, config, namespace="eval/other")
    run(config, other, None, Fusion(weights), upstream="live", neighbours=True)
    assert {table: filled.content(table, "eval/other") for table in tables} == {
        table: found[0] for table, found in before.items()
    }


def test_targets_are_ranked_in_a_nested_namespace(spark: SparkSession, filled: Store) -> None:
    config = _config(filled, k=12)
    context = _context(spark, filled, config, namespace="eval/r1/cooccurrence")
    targets = spark.createDataFrame(
        [("u0", 0, 6), ("u0", 0, 0), ("u1", 1, 7), ("u9", 9, 3), ("u1", 1, 11)], "user_id string, user_idx int, item_idx int"
    )
    run(config, context, None, Fusion({"cooccurrence": 1.0}), upstream="live", targets=targets)
    ranks = {(r["user_id"], r["item_id"]): r for r in filled.read("target_ranks", context.namespace).collect()}
    lists = _lists(filled, context.namespace)
    listed = {(user, r["item_id"]): r["rank"] for user, rows in lists.items() for r in rows}
    assert ranks["u0", "i6"]["rank"] == 1
    assert ranks["u0", "i6"]["num_candidates"] == NUM_ITEMS - 1 - 3
    assert ranks["u0", "i0"]["rank"] == 0  # seen
    assert ranks["u1", "i11"]["rank"] == 0  # not available
    for key in (("u1", "i7"), ("u9", "i3")):
        assert ranks[key]["rank"] == listed[key]
    assert len(ranks) == 5
    assert set(lists) == {"u0", "u1", "u9"}  # nobody else is measured
    assert not filled.exists("item_neighbours", context.namespace)


def test_active_days_keep_recent_users_and_those_with_a_profile(spark: SparkSession, filled: Store) -> None:
    config = _config(filled, active_days=26)  # since 6 January
    context = _context(spark, filled, config, namespace="eval/active")
    run(config, context, None, Fusion({"cooccurrence": 1.0}), upstream="live")
    assert set(_lists(filled, "eval/active")) == {"u3", "u4", "u5", "u6"}


def test_a_profile_text_makes_nobody_active(spark: SparkSession, filled: Store) -> None:
    users = filled.read("users", "live").withColumn("profile_text", F.lit("I love the garden"))
    found = user_rows(filled.read("events", "live"), users, 20, True, START + timedelta(days=6), None).collect()
    assert {row["user_id"] for row in found} == {"u3", "u5", "u6"}  # two of them were never seen


def test_views_follow_what_is_published(spark: SparkSession, filled: Store, commit: Commit) -> None:
    config = _config(filled)
    run(config, _context(spark, filled, config), None, Fusion({"popularity": 1.0}))
    row = (1, AS_OF, "night1", None, {}, "publish", "test", AS_OF)
    published = spark.createDataFrame([row], contract("published").schema)
    filled.replace("published", "live", published, commit)
    register_views(spark, filled.root)
    assert spark.table("recommendations_current").count() == filled.read("recommendations", "live").count()
    spark.createDataFrame([("u0", "de"), ("nobody", "xx")], "user_id string, context string").createOrReplaceTempView("visitors")
    found = spark.sql(lists_for_everyone_sql()).collect()
    assert {r["user_id"] for r in found} == {"u0", "nobody"}
    assert sorted(r["rank"] for r in found if r["user_id"] == "nobody") == [1, 2, 3, 4]
    later = spark.createDataFrame([(2, AS_OF, "other", None, {}, "publish", "test", AS_OF)], contract("published").schema)
    filled.append("published", "live", later, commit)
    assert spark.table("recommendations_current").count() == 0


def test_whom_rules_leave_nothing_is_not_given_what_all_get(spark: SparkSession, filled: Store, tmp_path: Path) -> None:
    lists = tmp_path / "lists.csv"
    lists.write_text("item_id,segment,rule\nno such item,fr,allow\n")
    config = _config(filled, lists_path=str(lists), segment_key="country")
    context = replace(_context(spark, filled, config), run_id="rules")
    run(config, context, None, Fusion({"popularity": 1.0}))
    publish.run(config, context, None, "test")
    register_views(spark, filled.root)
    asked = [("u0", None), ("u1", None), ("nobody", None)]  # u0 is in fr
    spark.createDataFrame(asked, "user_id string, context string").createOrReplaceTempView("visitors")
    assert {r["user_id"] for r in spark.sql(lists_for_everyone_sql()).collect()} == {"u1", "nobody"}


def test_each_run_has_lists_of_its_own(spark: SparkSession, filled: Store) -> None:
    """Settings that change nothing here give a night another id, by which readers find its lists."""
    config = _config(filled, k=3)
    first, second, third = (replace(_context(spark, filled, config), run_id=f"own{n}") for n in range(3))
    for context in (first, second):
        assert run(config, context, None, Fusion({"popularity": 1.0})).status == "done"
    assert run(config, second, None, Fusion({"popularity": 1.0})).status == "skipped"
    rows = filled.read("recommendations", "live").where("run_id IN ('own0', 'own1')").groupBy("run_id").count().collect()
    assert len({row["count"] for row in rows}) == 1 < len(rows)
    with pytest.raises(MissingTableError, match="no lists of run own2, as these settings and this data make it"):
        publish.run(config, third, None, "test")
    publish.run(config, second, None, "test")
    register_views(spark, filled.root)
    assert spark.table("recommendations_current").select("run_id").distinct().collect()[0][0] == "own1"
    before = config.model_copy(update={"as_of": AS_OF - timedelta(days=1)})
    older = replace(second, config=before, run_id="older")
    run(before, older, None, Fusion({"popularity": 1.0}))
    assert publish.run(before, older, None, "a night of the past, once more") is None
    assert publish.current(filled)["run_id"] == "own1"


def test_user_neighbours_are_written_and_seen_where_asked_for(spark: SparkSession, filled: Store, commit: Commit) -> None:
    config = _config(filled, user_neighbours=2)
    context = _context(spark, filled, config)
    done = run(config, context, ModelRef("m", 3), Fusion({"encoder": 1.0}))
    assert done.facts["user_neighbours"]["method"] == "exact"
    rows = filled.read("user_neighbours", "live").orderBy("user_id", "rank").collect()
    assert [(row["user_id"], row["rank"]) for row in rows] == [(f"u{u}", rank) for u in range(4) for rank in (1, 2)]
    assert all(row["user_id"] != row["neighbour_id"] and row["run_id"] == "night1" for row in rows)
    vectors = {row["user_id"]: np.array(row["vector"]) for row in filled.read("user_embeddings", "live").collect()}
    nearest = max((f"u{u}" for u in range(1, 4)), key=lambda user: vectors["u0"] @ vectors[user])
    assert rows[0]["neighbour_id"] == nearest
    assert run(config, context, ModelRef("m", 3), Fusion({"encoder": 1.0})).status == "skipped"
    publish.run(config, context, 3, "test")
    assert publish.current(filled)["versions"]["user_neighbours"] == filled.version("user_neighbours", "live")
    register_views(spark, filled.root)
    assert spark.table("user_neighbours_current").count() == 8
    assert "live/user_neighbours`" in reader_sql(config)
    assert "user_neighbours" not in reader_sql(_config(filled))
    with screen.recorded() as shown:
        screen.user_list(filled, "u0", 1)
        screen.user_list(filled, "u5", 1)  # has a list by a profile, and no vector
    assert f"users like u0: {nearest} ({rows[0]['score']:.3f})\n" in shown.text
    assert "users like u5" not in shown.text


def test_new_items_stand_where_their_chance_earns_it(spark: SparkSession, filled: Store) -> None:
    """i10 has no event and i11 is not available. That i10 is next has chance 1/11, the share of new items, for everybody with
    a history; each known item has .2 of the rest: three times the former is more, once is not."""
    config = _config(filled)
    weights, namespaces = {"cooccurrence": 1.0, "popularity": 1.0}, {3.0: "eval/eager", 1.0: "eval/even"}
    for eagerness, namespace in namespaces.items():
        places = NewItems(3, eagerness, slope=0.0, intercept=logit(0.2), demand=1.0)
        context = _context(spark, filled, config, namespace=namespace)
        run(config, context, None, Fusion(weights), upstream="live", targets=None, arrangement=Arrangement(places))
    lists = _lists(filled, "eval/eager")
    new = {(user, row["rank"], row["item_id"]) for user, rows in lists.items() for row in rows if row["source"] == "new_item"}
    assert new == {(user, 4, "i10") for user in ("u0", "u1", "u2")}  # not who met nothing; u3 has nothing else left to list
    assert [row["score"] for row in lists["u0"]] == sorted((row["score"] for row in lists["u0"]), reverse=True)
    assert [r["kind"] for r in lists["u0"][3]["reasons"]] == ["attribute"]
    even = _lists(filled, "eval/even")
    assert not [row for rows in even.values() for row in rows if row["source"] == "new_item"]
    without = _context(spark, filled, config, namespace="eval/none-new")
    run(config, without, None, Fusion(weights), upstream="live")
    assert _lists(filled, "eval/none-new") == even
    assert [r["item_id"] for r in even["u0"]][:3] == [r["item_id"] for r in lists["u0"]][:3]


def test_fusion_weights_find_the_partner_that_knows(spark: SparkSession, filled: Store) -> None:
    """Validation targets are what co-occurrence says; the user vectors point away from them."""
    config = _config(filled)
    context = _context(spark, filled, config, fit_until=START + timedelta(days=2))
    items = filled.read("item_embeddings", "live").select("item_idx", "vector")
    users = filled.read("user_embeddings", "live").selectExpr("user_idx", "transform(vector, x -> -x) as vector")
    fit = fit_fusion(config, context, items, users)
    assert fit.num_users == 4  # u0, u1, u2 and u3 like something on or after the third day
    assert "encoder" not in fit.fusion.weights
    assert fit.table[0] == (fit.fusion.weights, max(ndcg for _, ndcg in fit.table))
    worst = {tuple(weights.items()): ndcg for weights, ndcg in fit.table}[(("encoder", 1.0),)]
    assert fit.table[0][1] > worst
    places = fit.document()["new_items"]
    assert places["per_ten"] == 3
    assert places["slope"] >= 0
    assert places["demand"] == pytest.approx((9 / 11) / (7 / 11))  # targets, and items, without an event in the first two days
    assert places["loss"] <= 0.06
    fixed = fit_fusion(_config(filled, weights={"text": 2.0}), context, items, users)
    assert fixed.fusion.weights == {"text": 2.0}


def test_lists_keep_limits_and_vary_where_asked(spark: SparkSession, filled: Store) -> None:
    """u1 has met kitchen things and gets the other two first. With one of each category in ten places there is room for two
    items; then limits give way. Lists of the popular, and those for unknown users, keep to it too."""
    weights = {"encoder": 1.0, "cooccurrence": 1.0, "text": 0.5, "popularity": 0.1}

    def made(namespace: str, **rerank: Any) -> dict[str, list[Any]]:
        config = _config(filled, context_key="country", rerank=rerank)
        context = _context(spark, filled, config, namespace=namespace)
        arrangement = Arrangement.without_model(config.recommend)
        run(config, context, ModelRef("m", 3), Fusion(weights), upstream="live", arrangement=arrangement)
        return _lists(filled, namespace)

    def topics(rows: list[Any]) -> list[str]:
        return [TOPICS[int(row["item_id"][1:]) % 2] for row in rows]

    plain, limited = made("eval/plain"), made("eval/limited", max_per_ten={"category": 1})
    assert topics(plain["u1"]) == ["kitchen", "kitchen", "garden", "garden"]
    order = [plain["u1"][place] for place in (0, 2, 1, 3)]
    assert [(row["item_id"], row["score"]) for row in limited["u1"]] == [(row["item_id"], row["score"]) for row in order]
    unknown: dict[str, list[Any]] = {}
    for row in filled.read("fallback_recommendations", "eval/limited").orderBy("context", "rank").collect():
        unknown.setdefault(row["context"], []).append(row)
    assert set(unknown) == {"", "de", "fr"}
    for user, rows in [*limited.items(), *unknown.items()]:
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1)), user
        assert user == "u3" or set(topics(rows)[:2]) == set(TOPICS), user  # u3 has met all but one
    assert {user: len(rows) for user, rows in limited.items()} == {user: len(rows) for user, rows in plain.items()}
    assert all(row["reasons"] for rows in limited.values() for row in rows)
    varied = made("eval/varied", diversity=1.0)  # by vectors, which are near to each other within a category
    assert topics(varied["u1"])[:2] == ["kitchen", "garden"]


def test_diversity_is_chosen_on_validation(spark: SparkSession, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(filled, rerank={"diversity": "auto", "max_diversity_loss": 1.0})
    context = _context(spark, filled, config, fit_until=START + timedelta(days=2))
    items = filled.read("item_embeddings", "live").select("item_idx", "vector")
    users = filled.read("user_embeddings", "live").select("user_idx", "vector")
    assert fit_fusion(config, context, items, users).rerank.diversity == 0.0  # four users do not tell what it costs
    monkeypatch.setattr(rerank_fit, "LEAST_HITS", 1)
    found = fit_fusion(config, context, items, users).document()["rerank"]
    assert found["diversity"] == 1.0  # whatever it costs
    assert [row[0] for row in found["tried"]] == list(DIVERSITIES)
    assert len({row[1] for row in found["tried"]}) > 1
    # eleven items may be recommended, of which everybody has met two by then: lists of ten hold the other nine, in any order
    vectors = np.array([row["vector"] for row in filled.read("item_embeddings", "live").orderBy("item_idx").collect()][:11])
    met = {"u0": (0, 2), "u1": (1, 3), "u2": (0, 2), "u3": (0, 1)}
    alike = [np.clip(own @ own.T, 0, 1) for own in (np.delete(vectors, cells, axis=0) for cells in met.values())]
    expected = np.mean([1 - (a.sum() - np.trace(a)) / 72 for a in alike])
    assert [row[2] for row in found["tried"]] == pytest.approx([expected] * len(DIVERSITIES), abs=2e-6)


def test_beside_given_weights_the_places_of_new_items_are_chosen_all_the_same(spark: SparkSession, filled: Store) -> None:
    config = _config(filled, weights={"encoder": 2.0, "popularity": 1.0}, new_item_demand=2.0)
    context = _context(spark, filled, config, fit_until=START + timedelta(days=2))
    items = filled.read("item_embeddings", "live").select("item_idx", "vector")
    users = filled.read("user_embeddings", "live").select("user_idx", "vector")
    found = fit_fusion(config, context, items, users)
    assert (found.fusion.weights, found.table, found.num_users) == ({"encoder": 2.0, "popularity": 1.0}, [], 4)
    assert found.places.new_items is not None
    assert found.places.new_items.demand == 2.0
    assert found.places.new_items.slope != NewItems(3).slope  # fitted
    served = Arrangement.from_document(found.document(), config.recommend.model_copy(update={"new_item_demand": 0.5})).new_items
    assert served == replace(found.places.new_items, demand=0.5)  # what the config says goes first


def test_lists_by_the_first_dimensions_of_vectors(spark: SparkSession, filled: Store) -> None:
    """By cosines of the first two of four dimensions, which order items in another way."""
    rows = {t: filled.read(t, "live").orderBy(t.split("_")[0] + "_idx").collect() for t in ("item_embeddings", "user_embeddings")}
    items, users = (np.array([row["vector"] for row in rows[table]]) for table in rows)
    config = _config(filled, dimensions=2, filter_seen=False, k=11)
    run(config, _context(spark, filled, config, namespace="eval/2d"), ModelRef("m", 3), Fusion({"encoder": 1.0}), upstream="live")
    whole = _config(filled, filter_seen=False, k=11)
    run(whole, _context(spark, filled, whole, namespace="eval/four"), ModelRef("m", 3), Fusion({"encoder": 1.0}), upstream="live")
    two, four = _lists(filled, "eval/2d"), _lists(filled, "eval/four")
    for user in range(4):
        cosines = items[:11, :2] @ users[user, :2] / np.linalg.norm(items[:11, :2], axis=1)  # i11 is not available
        assert [row["item_id"] for row in two[f"u{user}"]] == [f"i{i}" for i in np.argsort(-cosines)]
    assert two != four
    made = first_dimensions(filled.read("item_embeddings", "live"), 3).orderBy("item_idx").collect()
    expected = items[:, :3] / np.linalg.norm(items[:, :3], axis=1, keepdims=True)
    assert np.allclose(np.array([row["vector"] for row in made]), expected, atol=1e-6)
    nothing = spark.createDataFrame([(1, [0.0, 0.0, 1.0])], "item_idx int, vector array<float>")
    assert first_dimensions(nothing, 2).collect()[0]["vector"] == [0.0, 0.0]
