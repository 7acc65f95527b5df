"""What a task does with Arrow rows, without Spark: targets, shortfalls, neighbours and the sums that choose the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_spark.recommend.catalogue import Item, build_catalogue
from recsys_spark.recommend.fallback import unknown_user_lists
from recsys_spark.recommend.neighbours.whole_catalogue import neighbour_batches
from recsys_spark.recommend.rules import Rule
from recsys_spark.recommend.scoring.partners import Partners, PopularityItems, RelatedItems
from recsys_spark.recommend.scoring.vector_items import EncoderItems
from recsys_spark.recommend.worker import LISTS, RANKS, SHORTFALLS, Side, Task, list_batches
from recsys_spark.register.fusion_ndcg import FitTask, ndcg_batches


@dataclass(frozen=True)
class _Broadcast:
    value: Side


def _side() -> Side:
    """Five items; item 4 is known to nobody and not available."""
    items = [Item(i, f"i{i}", None, "", None, None, i != 4) for i in range(5)]
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0], [0, 0]], np.float32)
    cooccurrence = RelatedItems.of(np.array([0, 0]), np.array([3, 2]), np.array([2.0, 1.0]), 5)
    return Side(
        build_catalogue(items, Rule()),
        Partners(PopularityItems(np.array([3.0, 2, 1, 1, 0])), EncoderItems.of(vectors), cooccurrence),
    )


def _rows(users: list[dict[str, Any]]) -> pa.RecordBatch:
    ints, strings = pa.list_(pa.int32()), pa.list_(pa.string())
    kinds = {"user_id": pa.string(), "items": ints, "seen": ints, "vector": pa.list_(pa.float32()), "profile_text": pa.string()}
    kinds |= {"context": pa.string(), "segment": pa.string(), "target_idx": ints, "target_ids": strings}
    empty = {name: [] for name, kind in kinds.items() if pa.types.is_list(kind) and name != "vector"}
    arrays = [pa.array([(empty | user).get(name) for user in users], kind) for name, kind in kinds.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(kinds))


USERS = [
    {"user_id": "a", "items": [0], "seen": [0], "target_idx": [3, 0, 4, 99], "target_ids": ["i3", "i0", "i4", "i99"]},
    {"user_id": "b", "items": [], "seen": [0, 1, 2, 3], "vector": [0.0, 1.0], "target_idx": [2], "target_ids": ["i2"]},
    {"user_id": "c", "target_idx": [1], "target_ids": ["i1"]},
]


@pytest.mark.parametrize("user_block", [1, 2, 512])
def test_lists_shortfalls_and_ranks(user_block: int) -> None:
    task = Task({"cooccurrence": 1.0, "encoder": 1.0}, 2, 0.7, 3, user_block, 2, rank_targets=True)
    rows = [row for out in list_batches(iter([_rows(USERS)]), _Broadcast(_side()), task) for row in out.to_pylist()]
    lists = {(r["owner_id"], r["rank"]): (r["item_id"], r["source"]) for r in rows if r["table"] == LISTS}
    assert lists == {
        ("a", 1): ("i3", "personal"), ("a", 2): ("i2", "personal"),
        ("c", 1): ("i0", "popular"), ("c", 2): ("i1", "popular"),
    }  # fmt: skip
    short = [(r["owner_id"], r["number"], r["reason"]) for r in rows if r["table"] == SHORTFALLS]
    assert short == [("b", 0, "all items seen")]
    ranks = {(r["owner_id"], r["item_id"]): (r["rank"], r["number"]) for r in rows if r["table"] == RANKS}
    assert ranks == {
        ("a", "i3"): (1, 3), ("a", "i0"): (0, 3), ("a", "i4"): (0, 3), ("a", "i99"): (0, 3),
        ("b", "i2"): (0, 0), ("c", "i1"): (2, 4),
    }  # fmt: skip


def test_what_is_popular_is_so_without_the_factors_of_item_segments() -> None:
    """They belong to the weights of users with a history; whose list is popular gets what unknown users get."""
    side = _side()
    raised = replace(side, partners=replace(side.partners, weight_factors={"popularity": np.array([1, 9.0, 1, 1, 1])}))
    task = Task({"cooccurrence": 1.0, "popularity": 1.0}, 2, 0.7, 3, 512, 2)
    rows = [row for out in list_batches(iter([_rows(USERS)]), _Broadcast(raised), task) for row in out.to_pylist()]
    found = {(r["owner_id"], r["rank"]): r["item_id"] for r in rows if r["table"] == LISTS}
    unknown = [item for _, _, item, _ in unknown_user_lists(raised.catalogue, raised.partners, 2)]
    assert [found["c", rank] for rank in (1, 2)] == unknown == ["i0", "i1"]
    assert found["a", 1] == "i1"  # which the factors do raise


def test_neighbours_have_ranks_without_gaps_and_skip_unknown_items() -> None:
    task = Task({"encoder": 1.0, "popularity": 1e-3}, 9, 0.7, 3, 2, 4096)
    batch = pa.RecordBatch.from_arrays([pa.array(range(5), pa.int64())], names=["id"])
    rows = [row for out in neighbour_batches(iter([batch]), _Broadcast(_side()), task) for row in out.to_pylist()]
    found = {(r["owner_id"], r["rank"]): r["item_id"] for r in rows}
    assert {owner for owner, _ in found} == {"i0", "i1", "i2", "i3"}
    assert [found["i0", rank] for rank in (1, 2, 3)] == ["i1", "i2", "i3"]
    assert all(r["owner_id"] != r["item_id"] != "i4" and r["reasons"] for r in rows)
    assert {reason["kind"] for r in rows if r["rank"] == 1 for reason in r["reasons"]} <= {"similar", "popular"}


@pytest.mark.parametrize("user_block", [1, 512])
def test_sums_of_ndcg(user_block: int) -> None:
    batch = _rows([{"user_id": "a", "items": [0], "seen": [0], "target_idx": [3]}, {"user_id": "c", "target_idx": [1]}])
    (out,) = ndcg_batches(
        iter([batch]),
        _Broadcast(_side()),
        FitTask((("cooccurrence", None), ("popularity", None)), np.eye(2, dtype=np.float32), 0.7, user_block),
    )
    # co-occurrence: i3 first for a; nothing for c, so tie order puts i1 second. Popularity: i1, then i2 and i3 equal; i0, i1
    np.testing.assert_allclose(out.column("total").to_numpy(), [1 + 1 / np.log2(3), 0.5 + 1 / np.log2(3)])
    assert out.column("users").to_pylist() == [2, 2]
