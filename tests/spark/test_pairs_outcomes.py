"""Tables of outcomes: exactly the rows of a plain loop, histories strictly before, nothing past the cutoff."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.moments import moment_parts
from recsys_spark.config.signals import OutcomeSettings
from recsys_spark.pairs import stage
from recsys_spark.pairs.outcomes import asked_events, left_alone, outcomes
from recsys_spark.tables.contracts import conform, contract
from recsys_spark.tables.store import Commit, Store
from tests.spark.test_pairs_stage import FIT, NS, TEST, TEXTS, VALIDATION, Event, config, context, fill

START = datetime(2024, 1, 1, tzinfo=UTC)
EVENT = (
    "event_id string, user_id string, user_idx int, item_idx int, event_type string, label tinyint, weight float, ts timestamp, "
    "event_pos bigint, context map<string,string>"
)
Row = tuple[int, tuple[int, ...], int, int]


def log_of(num: int) -> list[tuple[Any, ...]]:
    """Events of four users, many at the same second, some of them dislikes, in no order; user 3 has dislikes alone."""
    rng = np.random.default_rng(0)
    rows = []
    for position in rng.permutation(num).tolist():
        user, item, hour = int(rng.integers(0, 4)), int(rng.integers(0, 9)), int(rng.integers(0, 12))
        kind = ("view", "cart", "purchase")[int(rng.integers(0, 3))]
        label = -1 if user == 3 else int(rng.integers(-1, 2))
        ts = START + timedelta(hours=hour)
        rows.append((f"e{position:03d}", f"u{user}", user, item, kind, label, 5.0, ts, position // 2, None))
    return rows


def plain(rows: list[tuple[Any, ...]], about: str, per_user: int, max_history: int) -> list[Row]:
    """The same by loops: for each event, look at all others."""
    found = []
    key = {row[0]: (row[7], row[8], row[0]) for row in rows}
    for user in {row[2] for row in rows}:
        mine = sorted((row for row in rows if row[2] == user), key=lambda row: key[row[0]])
        asked = [row for row in mine if about == "type" or row[5] != 0]
        for row in asked[max(0, len(asked) - per_user) :]:
            past = [r[3] for r in mine if key[r[0]] < key[row[0]] and r[5] != -1][-max_history:]
            happened = row[4] in ("cart", "purchase") if about == "type" else row[5] == 1
            found.append((user, (-1,) * (max_history - len(past)) + tuple(past), row[3], int(happened)))
    return sorted(found)


def rows_of(frame: DataFrame) -> list[Row]:
    return sorted((r["user_idx"], tuple(r["items"]), r["item_idx"], r["outcome"]) for r in frame.collect())


@pytest.mark.parametrize(("about", "per_user", "max_history"), [("type", 7, 4), ("like", 1_000, 3), ("type", 1_000, 60)])
def test_outcomes_equal_a_plain_loop(spark: SparkSession, about: str, per_user: int, max_history: int) -> None:
    rows = log_of(120)
    events = spark.createDataFrame(rows, EVENT)
    settings = OutcomeSettings(about=about, wanted_types=["cart", "purchase"] if about == "type" else [])
    found = outcomes(asked_events(events, settings), events, per_user, max_history)
    expected = plain(rows, about, per_user, max_history)
    assert rows_of(found) == expected
    assert {row[3] for row in expected} == {0, 1}
    without_past = {row[0] for row in expected if set(row[1]) == {-1}}
    assert 3 in without_past, "dislikes are no past"
    assert (0 in without_past) == (per_user > 100), "a first event has none"
    assert conform(found, contract("training_outcomes")).agg(F.min("weight"), F.max("weight")).collect() == [(1.0, 1.0)]
    assert found.where("moments IS NOT NULL").isEmpty()


def test_moments_stand_beside_the_items_they_belong_to(spark: SparkSession) -> None:
    """Hours 1, 3, 4 of a day; the hour of the asked event itself is not told."""
    rows = [
        (f"e{n}", "u0", 0, n, "view", 1, 1.0, datetime(2024, 1, 1, hour, tzinfo=UTC), n, None) for n, hour in enumerate((1, 3, 4))
    ]
    events = spark.createDataFrame(rows, EVENT)
    asked = asked_events(events, OutcomeSettings(about="type", wanted_types=["view"]))
    found = outcomes(asked, events, 10, 3, moment_parts(False, ["hour"]))
    assert {r["item_idx"]: (r["items"], r["moments"]) for r in found.collect()} == {
        0: ([-1, -1, -1], [0, 0, 0]),
        1: ([-1, -1, 0], [0, 0, 2]),
        2: ([-1, 0, 1], [0, 2, 4]),
    }


def test_impressions_that_led_to_nothing_are_outcomes_too(spark: SparkSession) -> None:
    day = START + timedelta(days=1)
    events = spark.createDataFrame([("e0", "u0", 0, 1, "click", 1, 1.0, START, 0, None)], EVENT)
    shown = [(f"s{n}", "u0", 0, item, "impression", 1, 1.0, day, n, None) for n, item in enumerate((1, 2, 3))]
    known = spark.createDataFrame([(1,), (2,)], "item_idx int")
    asked = asked_events(events, OutcomeSettings(about="type", wanted_types=["click"]))
    both = asked.unionByName(left_alone(spark.createDataFrame(shown, EVENT), events, known))
    assert rows_of(outcomes(both, events, 10, 2)) == [(0, (-1, -1), 1, 1), (0, (-1, 1), 2, 0)]


def settings_for(store: Store, **outcome: Any) -> Config:
    off = {name: {"enabled": False} for name in ("behaviour", "collaborative", "knowledge_graph", "text")}
    made = config(store.root, **off)
    update = {"outcomes": OutcomeSettings(**outcome)}
    return made.model_copy(update={"pairs": made.pairs.model_copy(update=update)})


def by_kind(store: Store, commit: Commit) -> None:
    """Every third event is a purchase."""
    kind = F.expr("if(event_pos % 3 = 0, 'purchase', 'view')")
    store.replace("events", NS, store.read("events", NS).withColumn("event_type", kind), commit)


def test_the_stage_asks_fit_and_validation_events_and_sees_nothing_later(
    spark: SparkSession, store: Store, commit: Commit
) -> None:
    fill(store, commit, [*FIT, *VALIDATION, *TEST], TEXTS)
    by_kind(store, commit)
    settings = settings_for(store, about="type", wanted_types=["purchase"])
    report = stage.run(settings, context(store, settings))
    wanted = {n: int(n % 3 == 0) for n in range(len(FIT) + len(VALIDATION))}

    def expected(asked: list[Event], past: list[Event], first: int) -> list[Row]:
        rows = []
        for place, (user, item, day, _) in enumerate(asked):
            seen = [e for e in past if e[0] == user and e[2] < day and e[3] != -1]
            items = [e[1] for e in sorted(seen, key=lambda e: e[2])][-3:]
            rows.append((user, (-1,) * (3 - len(items)) + tuple(items), item, wanted[first + place]))
        return sorted(rows)

    assert rows_of(store.read("training_outcomes", NS)) == expected(FIT, FIT, 0)
    held = expected(VALIDATION, [*FIT, *VALIDATION], len(FIT))
    assert rows_of(store.read("validation_outcomes", NS)) == held
    assert (0, (6, 8, 3), 2, wanted[len(FIT)]) in held, "a validation event stands in the past of a later one"
    assert (report.facts["num_training_outcomes"], report.facts["num_validation_outcomes"]) == (len(FIT), len(VALIDATION))
    assert len(store.files("training_outcomes", NS)) == 3
    assert stage.run(settings, context(store, settings)).status == "skipped"
    off = settings_for(store)
    assert {"training_outcomes", "validation_outcomes"} & set(stage.run(off, context(store, off)).written) == set()


def test_nothing_beyond_the_fit_cutoff_changes_what_is_learned_from(spark: SparkSession, tmp_path: Path, commit: Commit) -> None:
    contents = []
    for name, later in {"one": [*VALIDATION, *TEST], "two": [(0, 1, 10.0, 1), (4, 9, 10, -1), (2, 10, 13, 1)]}.items():
        store = Store(spark, str(tmp_path / name))
        fill(store, commit, [*FIT, *later], TEXTS)
        by_kind(store, commit)
        settings = settings_for(store, about="type", wanted_types=["purchase"])
        stage.run(settings, context(store, settings))
        contents.append([store.content(table, NS) for table in stage.OUTCOMES])
    assert contents[0][0] == contents[1][0]
    assert contents[0][1] != contents[1][1]  # the world did change


def test_likes_are_asked_for_against_dislikes(spark: SparkSession, store: Store, commit: Commit) -> None:
    fill(store, commit, [*FIT, *VALIDATION], TEXTS)
    settings = settings_for(store, about="like")
    stage.run(settings, context(store, settings))
    found = rows_of(store.read("training_outcomes", NS))
    assert [row for row in found if row[3] == 0] == [(0, (4, 6, 8), 7, 0)]
    assert len(found) == len(FIT)
    assert [row for row in rows_of(store.read("validation_outcomes", NS)) if row[3] == 0] == [(6, (-1, -1, 1), 1, 0)]
