"""Each source of positives on tables worked out by hand, and against slow twins."""

from __future__ import annotations

import random
from math import log

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys_spark.collaborative.als import item_factors
from recsys_spark.config.signals import BehaviourPositives, CollaborativePositives, KnowledgeGraphPositives, TextPositives
from recsys_spark.pairs.positives.behaviour import behaviour
from recsys_spark.pairs.positives.collaborative import collaborative
from recsys_spark.pairs.positives.knowledge_graph import knowledge_graph
from recsys_spark.pairs.positives.text import MIN_TERM_ITEMS, text, words

SMALL_ALS = CollaborativePositives(factors=4, iterations=3, blocks=2, top_n=3)


def weights(pairs: DataFrame) -> dict[tuple[int, int], float]:
    rows = pairs.collect()
    found = {(row["anchor_idx"], row["item_idx"]): row["weight"] for row in rows}
    assert len(found) == len(rows)
    assert all(anchor != item and 0 < weight <= 1 for (anchor, item), weight in found.items())
    assert pairs.dtypes == [("anchor_idx", "int"), ("item_idx", "int"), ("weight", "float")]
    return found


def catalogue(spark: SparkSession, texts: list[str]) -> DataFrame:
    rows = [(f"i{idx}", idx, content) for idx, content in enumerate(texts)]
    return spark.createDataFrame(rows, "item_id string, item_idx int, text string")


# -- behaviour -----------------------------------------------------------------------------------------------------


def test_behaviour_keeps_the_strongest_visible_neighbours(spark: SparkSession) -> None:
    measured = [
        (0, 1, 2.0), (0, 2, 8.0), (0, 3, 8.0), (0, 9, 50.0),  # 9 is not visible and takes no place
        (1, 0, 3.0), (1, 2, -1.0), (1, 3, 0.0), (1, 1, 7.0),
        (2, 0, float("nan")), (2, 1, float("inf")), (2, 3, None),
        (9, 0, 50.0),
    ]  # fmt: skip
    table = spark.createDataFrame(measured, "item_a int, item_b int, llr double")
    found = behaviour(table, catalogue(spark, ["", "", "", ""]), BehaviourPositives(measure="llr", top_n=2))
    assert weights(found) == {(0, 2): 1.0, (0, 3): 1.0, (1, 0): 1.0}
    three = behaviour(table, catalogue(spark, ["", "", "", ""]), BehaviourPositives(measure="llr", top_n=3))
    assert weights(three)[0, 1] == 0.25


# -- collaborative -------------------------------------------------------------------------------------------------


def likes(spark: SparkSession, num_users: int = 30, num_items: int = 20) -> DataFrame:
    rng = random.Random(5)
    rows = [(u, i, rng.choice([0.1, 0.7, 1.0]), 1) for u in range(num_users) for i in rng.choices(range(num_items), k=8)]
    return spark.createDataFrame(rows, "user_idx int, item_idx int, weight float, label tinyint")


def test_collaborative_is_bit_equal_whatever_the_order_of_events(spark: SparkSession) -> None:
    events = likes(spark)
    hated = spark.createDataFrame([(u, 19, 5.0, -1) for u in range(30)] + [(0, 77, 1.0, -1)], events.schema)
    shuffled = events.unionByName(hated).repartition(7, "weight").orderBy("item_idx")
    first, second = item_factors(events, SMALL_ALS, seed=3), item_factors(shuffled, SMALL_ALS, seed=3)
    other = item_factors(events, SMALL_ALS, seed=4)
    assert first is not None
    assert second is not None
    assert other is not None
    assert first[0].tolist() == sorted({row["item_idx"] for row in events.collect()})
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1].view(np.int32), second[1].view(np.int32))  # bits; dislikes play no part
    assert not np.allclose(first[1], other[1])

    unit = first[1] / np.linalg.norm(first[1], axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -1)
    found = weights(collaborative(events, SMALL_ALS, seed=3))
    for row, anchor in enumerate(first[0].tolist()):
        best = [(anchor, int(first[0][i])) for i in np.argsort(-cosine[row], kind="stable")[:3] if cosine[row, i] > 1e-6]
        mine = [pair for pair in found if pair[0] == anchor]
        assert sorted(mine) == sorted(best)
        assert [found[pair] for pair in best] == pytest.approx(sorted(cosine[row])[::-1][: len(best)], abs=2e-6)


@pytest.mark.parametrize("condition", ["label = -1", "user_idx = 0 AND item_idx = 3"])
def test_collaborative_without_events_or_with_one_makes_no_pair(spark: SparkSession, condition: str) -> None:
    events = likes(spark).unionByName(spark.createDataFrame([(0, 3, 1.0, 1)], likes(spark).schema))
    assert weights(collaborative(events.where(condition), SMALL_ALS, seed=3)) == {}


# -- knowledge graph -----------------------------------------------------------------------------------------------


def graph(spark: SparkSession, triples: list[tuple[str, str, str]]) -> DataFrame:
    return spark.createDataFrame(triples, "item_id string, relation string, entity_id string")


def test_knowledge_graph_weighs_shared_entities_by_their_rarity(spark: SparkSession) -> None:
    """Five items: 'rare' on 0, 1 (two ways on 0), 'mid' on 0, 2, 3, 'hub' on four, 'own' on one, 'gone' on an invisible item."""
    triples = [
        ("i0", "wrote", "rare"), ("i0", "sang", "rare"), ("i1", "wrote", "rare"),
        ("i0", "about", "mid"), ("i2", "about", "mid"), ("i3", "about", "mid"),
        ("i0", "in", "hub"), ("i1", "in", "hub"), ("i2", "in", "hub"), ("i4", "in", "hub"),
        ("i3", "in", "own"), ("x", "wrote", "gone"), ("i4", "wrote", "gone"), ("x", "wrote", "rare"),
    ]  # fmt: skip
    items = catalogue(spark, [""] * 5)
    cut = weights(knowledge_graph(graph(spark, triples), items, KnowledgeGraphPositives(max_entity_items=3)))
    rare, mid, hub = log(5 / 2), log(5 / 3), log(5 / 4)
    assert cut == pytest.approx(
        {(0, 1): 1.0, (0, 2): mid / rare, (0, 3): mid / rare, (1, 0): 1.0}
        | {(2, 0): 1.0, (2, 3): 1.0, (3, 0): 1.0, (3, 2): 1.0}  # item 4 has the hub alone
    )
    whole = weights(knowledge_graph(graph(spark, triples), items, KnowledgeGraphPositives(max_entity_items=4, top_n=2)))
    assert {pair for pair in whole if pair[0] == 0} == {(0, 1), (0, 2)}
    assert whole[0, 2] == pytest.approx((mid + hub) / (rare + hub))
    assert whole[4, 0] == whole[4, 1] == 1.0
    assert (4, 2) not in whole  # a tie beyond the cut goes to the lower item
    wrote = knowledge_graph(graph(spark, triples), items, KnowledgeGraphPositives(relations=["wrote"]))
    assert set(weights(wrote)) == {(0, 1), (1, 0)}


def test_knowledge_graph_says_nothing_where_nothing_is_told(spark: SparkSession) -> None:
    items = catalogue(spark, ["", ""])
    everywhere = graph(spark, [("i0", "in", "e"), ("i1", "in", "e")])
    assert weights(knowledge_graph(everywhere, items, KnowledgeGraphPositives())) == {}
    assert weights(knowledge_graph(everywhere.limit(0), items, KnowledgeGraphPositives())) == {}


# -- text ----------------------------------------------------------------------------------------------------------


def test_text_equals_scikit_learn(spark: SparkSession) -> None:
    rng = random.Random(11)
    vocabulary = [f"word{n}" for n in range(40)]
    texts = [" ".join(rng.choices(vocabulary, weights=range(1, 41), k=rng.randint(1, 9))) + " Own" + str(n) for n in range(40)]
    texts[7] = "!!! ... "
    settings = TextPositives(min_similarity=0.2, max_term_items_share=0.3, top_n=4)
    found = weights(text(catalogue(spark, texts), settings))
    with_words = [n for n in range(40) if n != 7]
    model = TfidfVectorizer(sublinear_tf=True, max_df=int(39 * 0.3), token_pattern=r"\w+")
    matrix = model.fit_transform([texts[n] for n in with_words])
    cosine = np.round((matrix @ matrix.T).toarray().astype(np.float64), 6)
    expected = {}
    for row, anchor in enumerate(with_words):
        ranked = sorted((-cosine[row, other], item) for other, item in enumerate(with_words) if other != row)
        expected |= {(anchor, item): -score for score, item in ranked[:4] if -score >= 0.2}
    assert len(expected) > 40
    assert found == pytest.approx(expected, abs=2e-6)


def test_text_of_any_script_and_length(spark: SparkSession) -> None:
    texts = [
        "שלום עולם 🎸", "שָׁלוֹם! שלום", "🎸🎸🎸", "", "naïve CAFÉ", "café; naïve", "pan " * 100_000, "x" * 100_000, "x" * 99_999,
        "日本 'quoted\" / new\nline", "new",
    ]  # fmt: skip
    found = weights(text(catalogue(spark, texts), TextPositives(min_similarity=0.01)))
    assert {pair for pair in found if pair[0] < pair[1]} == {(0, 1), (4, 5), (7, 8), (9, 10)}
    assert found[4, 5] == found[7, 8] == 1.0
    assert all(found[b, a] == weight for (a, b), weight in found.items())
    lengths = catalogue(spark, texts).select(words("text").alias("words")).collect()
    assert [len(row["words"]) for row in lengths] == [2, 2, 0, 0, 2, 2, 1_000, 1, 1, 4, 1]


@pytest.mark.parametrize(("num_items", "left_out"), [(MIN_TERM_ITEMS, False), (MIN_TERM_ITEMS + 1, True)])
def test_a_small_catalogue_keeps_its_common_words(spark: SparkSession, num_items: int, left_out: bool) -> None:
    """One word on all items: kept on up to five items, else a word on more than a fifth of them says nothing."""
    items = catalogue(spark, [f"garden tool{n}" for n in range(num_items)])
    found = weights(text(items, TextPositives(min_similarity=0.0)))
    assert len(found) == (0 if left_out else num_items * (num_items - 1))


def test_text_without_words_makes_no_pair(spark: SparkSession) -> None:
    assert weights(text(catalogue(spark, ["", "🙂", ""]), TextPositives())) == {}
    assert weights(text(catalogue(spark, ["one item"]), TextPositives())) == {}
    assert weights(text(catalogue(spark, ["x"]).limit(0), TextPositives())) == {}
