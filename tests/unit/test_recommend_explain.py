"""Reasons: whose share goes where, on a catalogue small enough to reckon by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.recommend.catalogue import Catalogue, Item, build_catalogue, in_tie_order, tie_hash
from recsys_spark.recommend.explain import Explainer
from recsys_spark.recommend.filters import Filter
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.blocks import Block, fuse, history_matrix
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RelatedItems, TextItems
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.topk.best import best

TEXTS = ["red rake", "red hose", "blue pan", "blue knife", ""]


def _catalogue() -> Catalogue:
    kinds = ("garden", "garden", "kitchen", "kitchen", None)
    items = [Item(i, f"i{i}", f"T{i}" if i else None, TEXTS[i], kinds[i], None, True) for i in range(5)]
    return build_catalogue(items, Rule())


def _partners() -> Partners:
    rows = RelatedItems.of(np.array([0, 2, 2]), np.array([3, 3, 4]), np.array([1.0, 3.0, 1.0]), 5)
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, -1]], np.float32)
    return Partners(PopularityItems(np.array([5.0, 3, 2, 1, 0])), EncoderItems.of(vectors), rows, TextItems.of(TEXTS))


def _explained(
    weights: dict[str, float], history: list[int], max_reasons: int = 3
) -> dict[str, list[tuple[str, str, str, float]]]:
    catalogue, partners = _catalogue(), _partners()
    matrix = history_matrix(np.array([len(history)]), np.array(history, np.int64), 0.5, 5)
    block = Block(matrix, matrix, np.array([[1.0, 0.0]], np.float32))
    chosen = best(fuse(block, partners, weights), Filter(catalogue.allowed, block.seen), 5, 16)
    reasons = Explainer(catalogue, partners, max_reasons).reasons(block, chosen)
    strings = (column.to_pylist() for column in (reasons.kinds, reasons.ref_ids, reasons.texts))
    fields = list(zip(*strings, reasons.contributions, strict=True))
    return {catalogue.item_ids[c]: fields[reasons.offsets[n] : reasons.offsets[n + 1]] for n, c in enumerate(chosen.cols)}


def test_cooccurrence_is_dealt_to_history_items_by_what_they_added() -> None:
    found = _explained({"cooccurrence": 1.0}, [0, 2])["i3"]  # i0 is older: 0.5 x 1 against 1 x 3
    assert [(kind, ref, text) for kind, ref, text, _ in found] == [("cooccurrence", "i2", "T2"), ("cooccurrence", "i0", "i0")]
    assert [share for *_, share in found] == pytest.approx([3 / 3.5, 0.5 / 3.5], abs=1e-6)


def test_text_goes_to_a_shared_attribute() -> None:
    found = _explained({"text": 1.0}, [0])
    assert found["i1"] == [("attribute", "category", "garden", 1.0)]


def test_encoder_points_at_the_most_similar_history_item() -> None:
    found = _explained({"encoder": 1.0}, [2, 0])["i1"]
    assert [(kind, ref) for kind, ref, _, _ in found] == [("history", "i0"), ("history", "i2")]
    assert found[0][3] == pytest.approx(0.6 / (0.6 + 0.5 * 0.8), abs=1e-6)


def test_every_item_has_a_reason_and_shares_stay_below_one() -> None:
    for weights in ({"cooccurrence": 1.0}, {"encoder": 1.0, "cooccurrence": 0.5, "text": 0.5, "popularity": 0.2}):
        for max_reasons in (1, 3, 9):
            for reasons in _explained(weights, [0, 2], max_reasons).values():
                assert 1 <= len(reasons) <= max_reasons
                assert sum(share for *_, share in reasons) <= 1 + 1e-9
                assert all(share >= 0 for *_, share in reasons)


def test_lists_may_do_without_reasons() -> None:
    found = _explained({"cooccurrence": 1.0}, [0, 2], max_reasons=0)
    assert found.keys() == _explained({"cooccurrence": 1.0}, [0, 2]).keys()
    assert not any(found.values())


def test_a_further_reason_of_nearly_nothing_is_left_out() -> None:
    for weight, beside_others in ((1e-3, False), (1.0, True)):
        found = _explained({"encoder": 1.0, "popularity": weight}, [2, 0]).values()
        assert any("popular" in [kind for kind, *_ in reasons] and len(reasons) > 1 for reasons in found) is beside_others
        assert all(share >= 0.005 for reasons in found for *_, share in reasons[1:])


def test_nothing_speaks_for_an_item_but_that_it_is_there() -> None:
    assert _explained({"cooccurrence": 1.0}, [1])["i4"] == [("popular", "", "0 events", 0.0)]


def test_tie_order_follows_the_seed_not_the_index() -> None:
    items = [Item(i, f"i{i}", None, "", None, None, True) for i in range(50)]
    first, second = ([item.item_id for item in in_tie_order(items, seed)] for seed in (1, 2))
    assert first != second
    assert first == sorted(first, key=lambda item_id: tie_hash(item_id, 1))
    assert first == [item.item_id for item in in_tie_order(reversed(items), 1)]


def test_an_attribute_of_nearly_all_items_explains_nothing() -> None:
    items = [Item(i, f"i{i}", None, "", "all", {"genre": "a|b" if i < 2 else "c"}, True) for i in range(20)]
    catalogue = build_catalogue(items, Rule(frozenset({"i3"})), "|")
    assert catalogue.attribute_names.tolist() == ["genre: a", "genre: b", "genre: c"]
    assert catalogue.attributes.sum(axis=0).tolist() == [[2.0, 2.0, 18.0]]
    assert not catalogue.allowed[3]
    assert catalogue.positions(np.array([-1, 4, 20])).tolist() == [-1, 4, -1]


def test_what_is_popular_in_a_context_is_told_by_its_own_events() -> None:
    own = history_matrix(np.array([3]), np.array([1, 1, 2]), 1.0, 5)
    partners = Partners(PopularityItems(np.array([5.0, 3, 2, 1, 0]), ("de",), own))
    matrix = history_matrix(np.array([0]), np.array([], np.int64), 0.5, 5)
    block = Block(matrix, matrix, np.zeros((1, 0), np.float32))
    catalogue = _catalogue()
    for context, expected in (("de", ["2 events", "1 events", "0 events"]), (None, ["5 events", "3 events", "2 events"])):
        chosen = best(fuse(block, partners, {"popularity": 1.0}, context), Filter(catalogue.allowed, block.seen), 3, 16)
        found = Explainer(catalogue, partners, 1).reasons(block, chosen, context)
        assert found.texts.to_pylist() == expected
