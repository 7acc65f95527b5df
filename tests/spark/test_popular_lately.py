"""What is popular lately: events that count less the older they are, at the half-life that validation chooses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.model import half_life_days
from recsys_spark.recommend.side import Recency, item_side
from recsys_spark.recommend.stage import run
from recsys_spark.register.fusion_fit import fit_fusion
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

START, CUTOFF, AS_OF = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3))
NUM_ITEMS, NUM_USERS, LATE, NEW = 8, 20, 5, 40
Event = tuple[int, int, float, int, str]  # user, item, days after the start, label, country


def _fitted_on() -> list[Event]:
    """In January items 0 to 3 are met most, 0 first; item 5 on its last day, in Finland item 4. One late event is a dislike."""
    early = [(0, 0, 1 + n / 10, 1, "fr") for n in range(5)]
    early += [(user, user % 4, day + user / 100, 1, "fr") for user in range(NUM_USERS) for day in (0, 3, 6)]
    late = [(NUM_USERS + n, LATE, 30 + n / 10, 1, "fr") for n in range(6)]
    return [*early, *late, (NUM_USERS, 4, 29.5, 1, "fi"), (NUM_USERS, LATE, 2.0, 1, "fi"), (NUM_USERS, 6, 30.9, -1, "fr")]


def _store(spark: SparkSession, root: Path, newcomers: int = 0) -> Store:
    """All users with a history go for item 5 afterwards, what else they might; newcomers for item 0."""
    store, commit = Store(spark, str(root)), Commit("run", "test", "fingerprint")

    def write(table: str, rows: list[tuple[Any, ...]]) -> None:
        store.replace(table, "live", spark.createDataFrame(rows, contract(table).schema), commit)

    wanted: list[Event] = [(user, LATE, 40 + user / 2, 1, "fr") for user in range(NUM_USERS)]
    wanted += [(NEW + user, 0, 50.0, 1, "fr") for user in range(newcomers)]
    events = []
    for n, (user, item, day, label, country) in enumerate([*_fitted_on(), *wanted]):
        ts = START + timedelta(days=day)
        where = {"country": country}
        events.append(
            (f"e{n}", f"u{user}", user, f"i{item}", item, "view", None, 1.0, label, ts, n, f"s{user}", where, ts.date())
        )
    write("events", events)
    day = START.date()
    write("items", [(f"i{i}", i, f"t{i}", f"w{i}", True, "", None, True, f"s{i}", day, None) for i in range(NUM_ITEMS)])
    write("cooccurrence", [])
    write("users", [(f"u{u}", u, None, None) for u in range(NEW + newcomers)])
    return store


def _config(root: str, **recommend: Any) -> Config:
    return parse_config(
        {
            "as_of": AS_OF,
            "warehouse": root,
            "ingest": {
                "events": {"path": "x.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}, "context": ["country"]}
            },
            "recommend": {"k": 3, "partners": ["cooccurrence", "popularity"], "context_key": "country", **recommend},
        }
    )


def _context(store: Store, config: Config, start: datetime = CUTOFF) -> Context:
    return Context(store.spark, store, config, "live", InstantCutoff(start, AS_OF, AS_OF), "night1")


def test_an_event_counts_half_after_each_half_life(spark: SparkSession, tmp_path: Path) -> None:
    store = _store(spark, tmp_path / "warehouse")
    config = _config(store.root)
    side = item_side(config, _context(store, config), None, "live", recency=Recency((1.0, 30.0)))
    popularity, place = side.partners.popularity, side.catalogue.positions(np.arange(NUM_ITEMS))
    liked = [event for event in _fitted_on() if event[3] != -1]
    last = max(event[2] for event in liked)
    for half_life, recent in popularity.recent.items():
        wanted, finnish = np.zeros(NUM_ITEMS), np.zeros(NUM_ITEMS)
        for _, item, day, _, country in liked:
            wanted[item] += 2.0 ** -((last - day) / half_life)
            finnish[item] += 2.0 ** -((last - day) / half_life) if country == "fi" else 0.0
        np.testing.assert_allclose(recent.counts[place], wanted, atol=1e-7)
        row = recent.context_counts[popularity.context_values.index("fi")].toarray().ravel()
        np.testing.assert_allclose(row[place], finnish, atol=1e-7)
        best = popularity.lately(half_life)
        assert best.row()[place].argmax() == (LATE if half_life == 1.0 else wanted.argmax())
        assert best.row("fi")[place].argmax() == 4
        assert (best.row()[place[[0, 1]]] > best.row()[place[7]]).all()  # long forgotten is still more than never met
    plain = popularity.lately(None)
    assert plain.row()[place].tolist() == np.log1p(np.bincount([e[1] for e in liked], minlength=NUM_ITEMS)).tolist()
    assert not plain.recent
    assert sorted({text.split(" ")[0] for text in plain.event_texts[0].to_pylist()}) == ["0", "1", "15", "20", "7"]


@pytest.mark.parametrize(("setting", "first"), [(None, f"i{LATE}"), (0, "i0")])
def test_popular_lists_follow(spark: SparkSession, tmp_path: Path, setting: float | None, first: str) -> None:
    """Of a fusion with a half-life, unless the config says that events of all times count alike."""
    store = _store(spark, tmp_path / "warehouse")
    config = _config(store.root, popularity_half_life_days=setting)
    events = store.read("events", "live").where("ts < '2024-02-01'")
    store.replace("events", "live", spark.createDataFrame(events.collect(), events.schema), Commit("run", "test", "f2"))
    run(config, _context(store, config, AS_OF), None, Fusion({"cooccurrence": 1.0}, half_life_days=1.0))
    rows = store.read("fallback_recommendations", "live").where("context = '' and rank = 1").collect()
    assert len(rows) == 1
    assert rows[0]["item_id"] == first
    best = store.read("fallback_recommendations", "live").where("context = 'fi' and rank = 1").collect()
    assert best[0]["item_id"] == ("i4" if setting is None else f"i{LATE}")
    reasons = store.read("recommendations", "live").where("rank = 1").select("reasons").first()
    assert reasons is not None
    assert reasons[0][0]["text"].endswith("the latest count most" if setting is None else " events")


def test_validation_chooses_and_newcomers_have_a_say_in_popular_lists_alone(spark: SparkSession, tmp_path: Path) -> None:
    """They get no fused list: what they go for tells nothing of weights, but of how soon popularity forgets."""
    found = []
    for newcomers in (0, 60):
        store = _store(spark, tmp_path / f"warehouse{newcomers}", newcomers)
        config = _config(store.root)
        rows = [(a, LATE, 1, 1, 1, 5, 1.0, 1.0, *[1.0] * 11, 1) for a in range(4)]
        frame = spark.createDataFrame(rows, contract("cooccurrence").schema)
        store.replace("cooccurrence", "live", frame, Commit("run", "test", "f2"))
        found.append(fit_fusion(config, _context(store, config), None, None))
    without, among = found
    assert without.fusion.half_life_days == 14.0  # the longest at which item 5, which all go for, is first
    assert {tuple(weights): ndcg for weights, ndcg in without.table}[("popularity",)] == 1.0
    assert Fusion.from_document(without.document()).half_life_days == 14.0
    assert without.num_users == among.num_users == NUM_USERS
    assert without.table[0][1] == among.table[0][1] == 1.0
    assert among.fusion.weights == without.fusion.weights == {"cooccurrence": 1.0}
    assert among.fusion.half_life_days is None  # item 0 for the many newcomers


@pytest.mark.parametrize(
    ("setting", "given", "kept"),
    [
        (None, None, None),
        (None, Fusion({}, half_life_days=7.0), 7.0),
        (0, Fusion({}, half_life_days=7.0), None),
        (90, None, 90.0),
    ],
)
def test_the_config_goes_first(setting: float | None, given: Fusion | None, kept: float | None) -> None:
    assert half_life_days(_config("w", popularity_half_life_days=setting).recommend, given) == kept
