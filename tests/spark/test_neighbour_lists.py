"""Neighbours of a catalogue that is searched approximately, against the same catalogue compared one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.stage import ModelRef, run
from recsys_spark.search.vectors import unit
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.runs import StageReport
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

AS_OF = datetime(2024, 2, 1, tzinfo=UTC)
N, K = 240, 4
WEIGHTS = {"encoder": 1.0, "cooccurrence": 0.4, "text": 0.4, "popularity": 0.1}
SEARCH = {"exact_below": 10, "sample_queries": 240, "lists": 6, "recall_floor": 0.0}
NO_VECTOR = range(200, 210)


def _fill(store: Store) -> None:
    commit, rng = Commit("run", "test", "fingerprint"), np.random.default_rng(7)

    def write(table: str, rows: list[tuple[Any, ...]]) -> None:
        store.replace(table, "live", local_frame(store.spark, rows, contract(table).schema), commit)

    day = datetime(2024, 1, 1, tzinfo=UTC)
    words = np.array([f"word{n}" for n in range(60)])
    texts = [" ".join(rng.choice(words, 5)) for _ in range(N)]
    items = [
        (f"i{i}", i, f"Title {i}", texts[i], True, f"c{i % 9}", None, i % 3 != 0, f"sha{i}", day.date(), None) for i in range(N)
    ]
    write("items", items)
    write("users", [("u0", 0, None, None)])
    events = [
        (f"e{n}", "u0", 0, f"i{i}", int(i), "view", None, 1.0, 1, day, n, "s", {}, day.date())
        for n, i in enumerate(rng.integers(0, N, 300))
    ]
    write("events", events)
    pairs = {(int(a), int(b)): float(v) for a, b, v in zip(*rng.integers(0, N, (2, 900)), rng.random(900), strict=True)}
    write("cooccurrence", [(a, b, 1, 1, 1, 5, 1.0, *[v] * 12, 1) for (a, b), v in pairs.items()])
    vectors = unit(rng.normal(size=(N, 8)).astype(np.float32))
    write("item_embeddings", [(i, f"i{i}", vectors[i].tolist(), "s", "m", 3) for i in range(N) if i not in NO_VECTOR])
    write("user_embeddings", [("u0", 0, vectors[0].tolist(), "s", 3, "m", 3)])


@pytest.fixture(scope="module")
def filled(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(spark, str(tmp_path_factory.mktemp("neighbours") / "warehouse"))
    _fill(store)
    return store


def _config(store: Store, **search: Any) -> Config:
    data = {
        "as_of": AS_OF,
        "warehouse": store.root,
        "ingest": {"events": {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}},
        "recommend": {"k": 4, "neighbours_k": K, "user_block": 50},
        "search": search,
    }
    return parse_config(data)


def _run(store: Store, namespace: str, **search: Any) -> StageReport:
    config = _config(store, **search)
    context = Context(store.spark, store, config, namespace, InstantCutoff(AS_OF, AS_OF, AS_OF), "night1")
    return run(config, context, ModelRef("m", 3), Fusion(WEIGHTS), upstream="live", neighbours=True)


def _lists(store: Store, namespace: str) -> list[tuple[Any, ...]]:
    columns = ("item_id", "rank", "neighbour_id", "score", "reasons")
    rows = store.read("item_neighbours", namespace).select(*columns).orderBy("item_id", "rank").collect()
    return [tuple(row) for row in rows]


@pytest.fixture(scope="module")
def exact(filled: Store) -> list[tuple[Any, ...]]:
    done = _run(filled, "eval/exact")
    assert done.facts["neighbours"] == {"method": "exact", "reason": "catalogue below exact_below"}
    return _lists(filled, "eval/exact")


def test_lists_long_enough_are_the_exact_ones_and_a_rerun_does_nothing(filled: Store, exact: list[tuple[Any, ...]]) -> None:
    search = SEARCH | {"recall_target": 1.0, "short_list": 60}
    facts = _run(filled, "eval/long", **search).facts["neighbours"]
    assert (facts["method"], facts["short_list_recall"], facts["agreement"]) == ("approximate", 1.0, 1.0)
    assert (facts["short_list"], facts["agreement_sample"]) == (60 * K, N)
    assert _lists(filled, "eval/long") == exact
    assert _run(filled, "eval/long", **search).status == "skipped"


def test_short_lists_hold_allowed_items_without_gaps_and_their_agreement_is_told(
    filled: Store, exact: list[tuple[Any, ...]]
) -> None:
    """A third of the items is not available: were they cut from the lists afterwards, ranks would be missing."""
    version = filled.version("item_neighbours", "eval/short")
    facts = _run(filled, "eval/short", **SEARCH, short_list=1, recall_target=0.5).facts["neighbours"]
    found = _lists(filled, "eval/short")
    assert filled.version("item_neighbours", "eval/short") > version
    assert [row[:2] for row in found] == [row[:2] for row in exact]
    assert {int(row[2][1:]) % 3 for row in found} == {1, 2}
    same = len({row[:1] + row[2:3] for row in found} & {row[:1] + row[2:3] for row in exact}) / len(exact)
    assert facts["method"] == "approximate"
    assert 0.5 < facts["agreement"] < 1.0
    assert facts["agreement"] == pytest.approx(same, abs=1e-9)


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        ({"max_effort": 1, "short_list": 2}, "recall 0"),  # the encoder's lists miss items
        ({"short_list": 1}, "agreement 0"),  # they do not, but are too short for what all partners say
    ],
)
def test_below_the_floor_all_items_are_compared(
    filled: Store, exact: list[tuple[Any, ...]], search: dict[str, Any], reason: str
) -> None:
    namespace = f"eval/{reason.split()[0]}"
    facts = _run(filled, namespace, **SEARCH | search | {"recall_target": 1.0, "recall_floor": 1.0}).facts["neighbours"]
    assert facts["method"] == "exact"
    assert facts["reason"].startswith(reason)
    assert "below recall_floor 1.0" in facts["reason"]
    assert _lists(filled, namespace) == exact


def test_indexes_of_earlier_items_do_not_pile_up(filled: Store, exact: list[tuple[Any, ...]]) -> None:
    folder = Path(_config(filled).work_dir) / "search" / "items"
    _run(filled, "eval/folder", **SEARCH)
    (stands,) = folder.iterdir()
    config = parse_config(_config(filled, **SEARCH).model_dump() | {"seed": 1})  # another order of ties: other positions
    context = Context(filled.spark, filled, config, "eval/other", InstantCutoff(AS_OF, AS_OF, AS_OF), "night1")
    run(config, context, ModelRef("m", 3), Fusion(WEIGHTS), upstream="live", neighbours=True)
    (newest,) = folder.iterdir()
    assert newest != stands
