"""Partners, filters, fallbacks and weights, one at a time and without Spark."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys_spark.config.serving import RecommendSettings
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.recommend.catalogue import Item, build_catalogue
from recsys_spark.recommend.fallback import groups, unknown_user_lists
from recsys_spark.recommend.filters import shortfall_reason
from recsys_spark.recommend.model import PRIOR, PROFILE, fusion_weights, profile_weights
from recsys_spark.recommend.neighbours.whole_catalogue import neighbour_weights
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.blocks import Block, Past, history_matrix, seen_matrix, users_per_block
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RelatedItems, TextItems
from recsys_spark.recommend.scoring.scores import FullScores, SharedScores
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.sql import current_sql
from recsys_spark.register.fusion_ndcg import user_ndcg
from recsys_spark.words import words_of


def test_history_weights_fall_with_age_and_add_up() -> None:
    found = history_matrix(np.array([3, 0, 2]), np.array([4, 1, 4, -1, 2]), 0.5, 5).toarray()
    np.testing.assert_allclose(found, [[0, 0.5, 0, 0, 1.25], [0] * 5, [0, 0, 1, 0, 0]])
    seen = seen_matrix(np.array([3]), np.array([4, 1, 4]), 5).toarray()
    np.testing.assert_array_equal(seen, [[0, 1, 0, 0, 1]])


def test_dense_moments_are_those_of_the_whole_row() -> None:
    rng = np.random.default_rng(3)
    items, users = rng.normal(size=(200, 8)).astype(np.float32) + 5, rng.normal(size=(4, 8)).astype(np.float32)
    scores = EncoderItems.of(items).scores(users)
    raw = users.astype(float) @ items.astype(float).T
    np.testing.assert_allclose(scores.mean, raw.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(1 / scores.inverse_std, raw.std(axis=1), rtol=1e-9)


def test_equal_scores_say_nothing() -> None:
    same = EncoderItems.of(np.full((5, 3), 0.3, np.float32)).scores(np.ones((2, 3), np.float32))
    assert same.inverse_std.tolist() == [0, 0]
    assert SharedScores(np.full(4, 7.1), 2).tile(1.0, 0, 4, np.float32).tolist() == [[0, 0, 0, 0]]


def test_a_bound_on_scores_spares_the_look_for_the_largest_and_changes_nothing() -> None:
    """Users: scores of every size, none at all, all equal but for rounding, and small ones that still tell items apart."""
    some = np.random.default_rng(1).random(400)
    by_item = np.column_stack([some, np.zeros(400), np.full(400, 0.3) + 1e-9 * some, 1e-7 * some])
    bounded, looked_for = FullScores(by_item, 1.0), FullScores(by_item)
    assert bounded.inverse_std.tolist() == looked_for.inverse_std.tolist()
    assert (bounded.inverse_std > 0).tolist() == [True, False, False, True]
    for dtype in (np.float32, np.float64):
        assert (bounded.error(2.0, dtype) >= looked_for.error(2.0, dtype)).all()
    rows, cols = np.repeat(np.arange(4), 400), np.tile(np.arange(400), 4)
    exact = bounded.at(rows, cols).reshape(4, 400)
    assert (abs(bounded.tile(1.0, 0, 400, np.float32) - exact).max(axis=1) <= bounded.error(1.0, np.float32)).all()


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["!!", "?"], ["one"], ["same words", "same words", "same words"]])
def test_text_without_telling_words_does_not_fail(texts: list[str]) -> None:
    found = TextItems.of(texts)
    assert found is None or found.by_item.shape[0] == len(texts)


def test_text_takes_any_script() -> None:
    found = TextItems.of(["شاي أخضر", "قهوة سوداء", "🙂 tea", "x" * 100_000])
    assert found is not None
    scores = found.scores(found.queries(["شاي"])).by_item
    assert scores[0, 0] > 0
    assert scores[1:, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Red-hot T-shirt, 2 x 40W_max", ["red", "hot", "shirt", "40w_max"]),
        ("红色运动鞋 Nike 鞋", ["红色", "色运", "运动", "动鞋", "nike", "鞋"]),
        ("スニーカー", ["スニ", "ニー", "ーカ", "カー"]),
        ("नीला जूता", ["नीला", "जूता"]),
        ("Café ÉTÉ", ["café", "été"]),
        ("กีฬา", ["กี", "ีฬ", "ฬา"]),
        ("abc漢字def", ["abc", "漢字", "def"]),
        ("!? 1", []),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_texts_without_spaces_find_each_other() -> None:
    found = TextItems.of(["红色运动鞋", "蓝色运动鞋男", "木制书桌"])
    assert found is not None
    scores = found.scores(found.queries(["运动鞋"])).by_item[:, 0]
    assert min(scores[0], scores[1]) > 0 == scores[2]


def test_two_items_may_share_a_word() -> None:
    found = TextItems.of(["red rake", "red spade"])
    assert found is not None
    assert found.scores(found.queries(["red"])).by_item.min() > 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0, 0, 5), "no item is available and allowed"),
        ((3, 0, 5), "all items seen"),
        ((3, 2, 5), "catalogue smaller than K"),
        ((9, 2, 5), "fewer than K unseen items"),
        ((0, 0, 5, True), "the rules of the segment leave no item"),
        ((3, 2, 5, True), "the rules of the segment leave fewer than K items"),
    ],
)
def test_a_shortfall_says_why(arguments: tuple[Any, ...], reason: str) -> None:
    assert shortfall_reason(*arguments) == reason


def _partners() -> Partners:
    counts = PopularityItems(np.array([1.0, 9, 3, 0]), ("fr",), history_matrix(np.array([2]), np.array([0, 0]), 1.0, 4))
    cooccurrence = RelatedItems.of(np.array([0]), np.array([1]), np.array([1.0]), 4)
    return Partners(counts, None, cooccurrence, TextItems.of(["red", "red", "blue", ""]))


def test_users_are_dealt_to_the_first_that_knows_them() -> None:
    partners = _partners()
    assert partners.text is not None
    lengths, items = np.array([1, 1, 1, 0, 0, 0]), np.array([0, 2, 3])
    queries = partners.text.queries(["", "", "blue", "blue", "", ""])
    empty = np.zeros((6, 0), np.float32)
    block = Block(history_matrix(lengths, items, 0.7, 4), seen_matrix(np.zeros(6, int), np.empty(0, int), 4), empty, queries)
    contexts = [None, None, None, "fr", "fr", "xx"]
    found = {user: source for g in groups(block, partners, {"cooccurrence": 1.0, "text": 1.0}, contexts)
             for user, source in zip(g.users, g.sources, strict=True)}  # fmt: skip
    assert found == {0: "personal", 1: "item_text", 2: "profile", 3: "profile", 4: "context", 5: "popular"}
    baseline = list(groups(block, partners, {"popularity": 1.0}, contexts))
    assert [set(g.sources) for g in baseline] == [{"popular"}]


def test_a_vector_by_a_profile_scores_beside_its_words_and_a_history_goes_first() -> None:
    partners = replace(_partners(), encoder=EncoderItems.of(np.eye(4, dtype=np.float32)))
    assert partners.text is not None
    past = Past(np.array([0, 1, 1, 0, 0]), np.array([-1, 0]), 4)
    queries = partners.text.queries(["blue", "", "blue", "blue", "bleu"])
    vectors = np.zeros((5, 4), np.float32)
    vectors[[0, 1, 2, 4], 1] = 1.0  # a profile's; a history's whose items are gone; a history's; none; of words no item has
    block = Block(past.weighted(0.7), seen_matrix(np.zeros(5, int), np.empty(0, int), 4), vectors, queries, past)
    found = {
        user: (source, group.weights.get("encoder"), group.profile)
        for group in groups(block, partners, {"encoder": 2.0, "cooccurrence": 1.0, "text": 1.0}, [None] * 5)
        for user, source in zip(group.users.tolist(), group.sources, strict=True)
    }
    assert found == {
        0: ("profile", 1.0, True),
        1: ("personal", 2.0, False),
        2: ("personal", 2.0, False),
        3: ("profile", None, True),
        4: ("profile", 1.0, True),
    }
    without_vectors = {"text": 1.0, "popularity": 0.5}
    weights = {"encoder": 2.0, "cooccurrence": 1.0}
    own = list(groups(block, partners, weights, [None] * 5, profile=without_vectors))
    assert {u: g.weights for g in own if g.profile for u in g.users.tolist()} == dict.fromkeys((0, 3, 4), without_vectors)
    popular = list(groups(block, partners, weights, ["fr", None, None, None, None], profile={"text": 0.0, "popularity": 1.0}))
    assert {u: s for g in popular for u, s in zip(g.users.tolist(), g.sources, strict=True)} == {
        0: "context", 1: "personal", 2: "personal", 3: "popular", 4: "popular",
    }  # fmt: skip


def test_lists_for_unknown_users_hold_what_is_popular_there() -> None:
    items = [Item(i, f"i{i}", None, "", None, None, i != 2) for i in range(4)]
    rows = list(unknown_user_lists(build_catalogue(items, Rule()), _partners(), 3))
    assert [(c, r, i) for c, r, i, _ in rows] == [
        ("", 1, "i1"), ("", 2, "i0"), ("", 3, "i3"), ("fr", 1, "i0"), ("fr", 2, "i1"), ("fr", 3, "i3"),
    ]  # fmt: skip


def test_weights_of_a_run() -> None:
    settings = RecommendSettings()
    assert fusion_weights(settings, None, True) == PRIOR
    assert "encoder" not in fusion_weights(settings, {"encoder": 1.0, "text": 2.0}, False)
    assert fusion_weights(RecommendSettings(weights={"text": 2.0}), None, True) == {"text": 2.0}
    assert fusion_weights(RecommendSettings(weights={"text": 2.0}), {"popularity": 1.0}, True) == {"popularity": 1.0}
    with pytest.raises(ConfigError, match="unknown partner 'txt'"):
        fusion_weights(settings, {"txt": 1.0}, True)
    with pytest.raises(ConfigError, match="0 or more"):
        fusion_weights(settings, {"text": -1.0}, True)
    with pytest.raises(ConfigError, match="no partner takes part"):
        fusion_weights(settings, {"encoder": 1.0}, False)
    assert profile_weights(settings, None) == PROFILE
    assert profile_weights(settings, {"text": 0.0, "popularity": 1.0}) == {"popularity": 1.0}
    assert profile_weights(RecommendSettings(profile_weights={"text": 1.0}), {"popularity": 1.0}) == {"text": 1.0}
    with pytest.raises(ConfigError, match="unknown partner 'ease'"):
        profile_weights(settings, {"ease": 1.0})


def test_neighbours_use_the_partners_that_relate_items() -> None:
    assert neighbour_weights({"popularity": 1.0}, _partners()) == {"cooccurrence": 1.0, "text": 1.0, "popularity": 1e-3}
    assert neighbour_weights({"encoder": 1.0, "text": 0.3}, _partners()) == {"text": 0.3, "popularity": 1e-3}


def test_ndcg_of_a_user_for_each_candidate() -> None:
    z = np.array([[3, 2, 1, 0], [0, 0, 5, 0]], np.float32)
    weights = np.array([[1, 0], [0, 1]], np.float32)
    barred = np.array([-np.inf, 0, 0, 0], np.float32)
    found = user_ndcg(z, barred, np.array([2]), weights)  # second behind item 1; first for the other partner
    np.testing.assert_allclose(found, [1 / np.log2(3), 1.0])
    np.testing.assert_allclose(user_ndcg(z, barred, np.array([3]), weights), [1 / np.log2(4), 1 / np.log2(4)])  # tie order
    assert user_ndcg(z, barred, np.array([0]), weights).tolist() == [0, 0]  # may not be listed
    assert user_ndcg(z, barred, np.array([-1]), weights).tolist() == [0, 0]


def test_blocks_shrink_with_the_catalogue() -> None:
    assert users_per_block(512, 1_000) == 512
    assert users_per_block(512, 60_000) == 186
    assert users_per_block(512, 60_000, tiled=True) == 512
    assert users_per_block(512, 100_000_000) == 1


def test_views_take_the_newest_published_row() -> None:
    assert "ORDER BY sequence DESC LIMIT 1" in current_sql("/w/", "recommendations")
    with pytest.raises(InputError, match="without backquotes"):
        current_sql("/w`", "recommendations")
